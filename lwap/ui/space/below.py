"""What stands below the maps: numbers, and five views of the spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from lwap import figures
from lwap.evaluation.geometry import random_cosine_density
from lwap.projection.space import (
    COURSE_SENTENCES,
    measure_labels,
    neighbourhood_change,
    numbers_table,
)
from lwap.reports.report import MAP_WARNINGS
from lwap.ui import cache, files, measures, widgets
from lwap.ui.frame import escape, theme
from lwap.ui.space import mapping
from lwap.ui.space.mapping import MapRequest
from lwap.ui.space.maps import View, sample
from lwap.ui.space.waiting import result

CHANGED_LISTED = 200
WALK_POINTS = 1_500


def numbers(view: View) -> None:
    """Draw the measures of both spaces, and what the maps keep of them."""
    table = numbers_table(view.found.request.names, view.found.spaces, view.drawn.quality)
    if table["alignment"].isna().all():
        table = table.drop(columns="alignment")
    is_exact = all(space.geometry.is_exact for space in view.found.spaces)
    columns = {name: measures.column(name) for name in table.columns if name != "space"}
    columns |= {
        "space": st.column_config.TextColumn("", width="medium"),
        "effective rank": measures.column(
            "effective rank", "%.0f", f" There are {view.found.spaces[0].unit.shape[1]}."
        ),
    }
    if not is_exact:
        columns["uniformity"] = measures.column("uniformity", more=" From a million random pairs.")
    st.dataframe(table, key="space_numbers", hide_index=True, column_config=columns)
    warning = MAP_WARNINGS[str(view.drawn.maps.method)]
    st.caption(f"{warning} Neighbours are always looked up in the full space.")


def spread(view: View) -> None:
    """Draw the distribution of cosines against the uniform sphere, and the spectrum."""
    first, second = view.found.spaces
    names = list(view.found.request.names)
    both = (first, second) if names[0] != names[1] else (first,)
    names = names[: len(both)]
    dimension = first.unit.shape[1]
    x = np.linspace(-1, 1, 801)
    left, right = st.columns(2, gap="medium")
    with left:
        widgets.draw(
            "space-cosines",
            figures.cosine_distribution,
            first.cosines.edges,
            np.stack([space.cosines.density for space in both]),
            names,
            reference=(x, random_cosine_density(x, dimension)),
            dimension=dimension,
            means=[space.cosines.mean for space in both],
        )
    with right:
        widgets.draw(
            "space-spectrum",
            figures.spectra,
            [space.variance for space in both],
            names,
            effective_ranks=[space.geometry.effective_rank for space in both],
        )
    counted = "" if first.cosines.is_exact else " A million random pairs were counted."
    st.caption(
        "**Pairwise cosines**: how similar two random sentences are. On a sphere that is covered "
        f"evenly the cosine is near 0 (dotted, the exact density in {dimension} dimensions); a "
        "space whose sentences all point the same way lies far to the right. **Share of the "
        "variance**: how few directions hold the "
        f"variance.{counted}"
    )


def what_changed(view: View) -> None:
    """List the sentences whose neighbourhood in the full space changed most."""
    spaces, texts = view.found.spaces, view.table.sentences
    kept = view.found.neighbours_kept
    if (kept == 1).all():
        st.info("No neighbourhood differs between the two spaces.")
        return
    st.markdown(
        f"On average {kept.mean():.0%} of a sentence's 10 nearest neighbours are the same in both "
        f"full spaces; {int((kept == 0).sum()):,} sentences keep none."
    )
    shown = neighbourhood_change(*spaces, texts, most=CHANGED_LISTED)
    shown["movement"] = view.drawn.maps.moved[shown["row"]]
    st.dataframe(
        shown.drop(columns="row"),
        key="space_changed",
        hide_index=True,
        height=390,
        column_config={
            "sentence": st.column_config.TextColumn(width=265),
            "kept": st.column_config.NumberColumn("neighbours kept", format="percent", width=110),
            "lost": st.column_config.TextColumn(
                f"near only under {view.found.request.names[0]}", width=230
            ),
            "gained": st.column_config.TextColumn(
                f"near only under {view.found.request.names[1]}", width=230
            ),
            "movement": st.column_config.NumberColumn(
                format="%.2f", width=80, help="Between the two maps, in radii of the first."
            ),
        },
    )
    files.csv_button(
        "All sentences (CSV)",
        lambda: neighbourhood_change(*spaces, texts).drop(columns="row"),
        "lwap-changed.csv",
    )


def layer_course(view: View) -> None:
    """Draw uniformity, alignment and isotropy of every layer of the second space's model."""
    asked = view.found.request
    model = asked.models[1]
    beside = [
        strategy
        for name, strategy in zip(asked.models, asked.strategies, strict=True)
        if name == model and not strategy.startswith("layer_")
    ]
    work = mapping.course(view.found, 1, tuple(dict.fromkeys(beside)))
    table = result(work, "Layers measured", "course")
    if table is None:
        return
    states = cache.facts(model).num_states
    table = table.set_index("strategy")
    course = {
        name: tuple(
            table.loc[[f"{kind}:{state}" for state in range(states)], name].to_numpy()
            for kind in ("layer_cls", "layer_mean")
        )
        for name in measure_labels()
    }
    references = {name: table.loc[name, measure_labels()].dropna().to_dict() for name in beside}
    widgets.draw("space-course", figures.layer_geometry, course, references)
    if len(view.table) > COURSE_SENTENCES:
        st.caption(f"Measured on an even sample of {COURSE_SENTENCES:,} of the sentences.")
    files.csv_button("All layers (CSV)", table.reset_index, "lwap-layers-geometry.csv")


def layer_walk(view: View) -> None:
    """Draw the map of one layer after the other up to the second space's strategy."""
    facts = cache.facts(view.found.request.models[1])
    strategies = [f"layer_mean:{state}" for state in range(facts.num_states)]
    last = view.found.request.strategies[1]
    is_layer = last in strategies or last == "mean"
    strategies += [] if is_layer else [last]
    sampled = sample(len(view.table), WALK_POINTS)
    rows = np.arange(len(view.table)) if sampled is None else sampled
    request = view.chosen
    if view.drawn.maps.method == "pca":
        request = MapRequest(request.spaces, "pca")
    work = mapping.walk(request, view.found, 1, tuple(strategies), rows)
    frames = result(work, "Maps of the layers", "walk")
    if frames is None:
        return
    names = [figures.state_name(state) for state in range(facts.num_states)]
    names += [] if is_layer else [last]
    colour = view.colours
    colors = figures.PointColors()
    if colour.categories is not None:
        labels = [colour.categories[row] for row in rows]
        colors = figures.PointColors(categories=labels, order=colour.order)
    elif colour.values is not None:
        colors = figures.PointColors(colour.values[1][rows], colour.name)
    widgets.draw(
        "space-walk",
        figures.map_animation,
        frames,
        names,
        [view.table.sentences[row] for row in rows],
        colors=colors,
    )
    drawn = "" if sampled is None else f" {WALK_POINTS:,} of the sentences."
    st.caption(
        f"The token mean of one state after the other{'' if is_layer else f', then {last}'}. Each "
        "map is turned onto the next and has the same size, so that what is seen to move has "
        f"changed its place among the others.{drawn}"
    )


def chance(view: View) -> None:
    """Draw how much of both maps is left to chance: the same spaces with other seeds."""
    if view.drawn.maps.method == "pca" and view.chosen.method == "umap":
        st.info("There is no UMAP map yet; this view compares it with maps of other seeds.")
        return
    if view.drawn.maps.method == "pca":
        st.info("PCA has no seed: the same sentences give the same map. Choose UMAP to see more.")
        return
    if view.rows is not None and not st.session_state.get("space_seeds"):
        if not st.button("Draw both maps with two more seeds", key="space_seeds_go"):
            return
        st.session_state["space_seeds"] = True
    work = mapping.seeds(view.chosen, view.found, view.drawn.maps)
    both = result(work, "UMAP with other seeds", "seeds")
    if both is None:
        return
    for place_, found in enumerate(both):
        st.markdown(
            f"**{escape(view.found.request.names[place_])}**: with another seed a point keeps "
            f"{found.kept.mean():.0%} of its 15 neighbours on the map and moves by "
            f"{np.median(found.moved):.2f} radii (median). Between the two maps above it moves by "
            f"{np.median(view.drawn.maps.moved):.2f}."
        )
        columns = st.columns(len(found.seeds), gap="small")
        own = (view.drawn.maps.first, view.drawn.maps.second)[place_]
        changed = figures.PointColors(1 - found.kept, "Map neighbours that change", ends=(0.0, 1.0))
        for column, seed, coordinates in zip(columns, found.seeds, (own, *found.maps), strict=True):
            with column:
                figure = figures.space_map(
                    coordinates,
                    view.table.sentences,
                    colors=changed,
                    marks=figures.PointMarks(drawn=view.rows),
                    title=f"Seed {seed}",
                    span=figures.map_span(own, *found.maps),
                    theme=theme(),
                ).update_layout(dragmode=False)
                widgets.show(figure, f"space-seed-{place_}-{seed - found.seeds[0]}")
    st.caption(
        "The colour says how many of a point's neighbours on the map depend on the seed: read "
        "nothing into the place of those with many. All seeds start from the principal components "
        "of the first space, so the large layout is the same."
    )


def take_away(view: View) -> None:
    """Offer both maps with all numbers as one table."""
    table = view.table
    maps = view.drawn.maps

    def content() -> pd.DataFrame:
        frame: dict[str, Any] = {"sentence": table.sentences, **table.labels, **table.numbers}
        for side, coordinates, quality in zip(
            ("first", "second"), (maps.first, maps.second), view.drawn.quality, strict=True
        ):
            frame |= {
                f"{side} x": coordinates[:, 0],
                f"{side} y": coordinates[:, 1],
                f"{side} k-NN recall": quality.point_recall,
                f"{side} trustworthiness": quality.point_trustworthiness,
            }
        frame |= {"movement": maps.moved, "neighbours kept": view.found.neighbours_kept}
        return pd.DataFrame(frame)

    files.csv_button("Both maps (CSV)", content, "lwap-maps.csv")


VIEWS = {
    "Spread": spread,
    "What changed": what_changed,
    "Layer by layer": layer_course,
    "Walk through the layers": layer_walk,
    "Chance": chance,
}
