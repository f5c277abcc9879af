"""The parts of the Space page: which spaces, two linked maps, the selection, what stands below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from lwap import figures
from lwap.errors import LwapError
from lwap.evaluation.geometry import random_cosine_density
from lwap.projection.maps import place, place_principal
from lwap.projection.space import (
    COURSE_SENTENCES,
    MEASURES,
    neighbourhood_change,
    neighbours_kept,
    numbers_table,
)
from lwap.reports.report import MAP_WARNINGS
from lwap.ui import cache, layers, mapping, pairs, search, widgets
from lwap.ui.frame import escape, theme
from lwap.ui.mapping import Drawn, MapRequest, Request, Spaces
from lwap.ui.work import FAILED, STOPPED, Work

if TYPE_CHECKING:
    from lwap.datasets.readers import SentenceTable
    from lwap.ui.cache import ModelFacts
    from lwap.ui.sentences import Dataset

UMAP, PCA = METHODS = ["UMAP", "PCA"]
SPREAD, CHANGED, LAYERS, WALK, CHANCE = VIEWS = [
    "Spread",
    "What changed",
    "Layer by layer",
    "Walk through the layers",
    "Chance",
]
CLICK, LASSO = MOUSE = ["Click", "Lasso"]
SAME_MODEL = "the same model"
DRAWN = 3_000  # points that are drawn one by one; above it their density, and so many on top
LISTED = 1_000  # sentences of a selection that are listed; the download has all
CHANGED_LISTED = 200
NEIGHBOURS_LISTED = 10
MOST_DROPPED = 8
MOST_PAIRS = 50  # sentences of a selection that are sent to Pairs
WALK_POINTS = 1_500
MOST_COLOURS = 12  # categories that get one
WAITED = 1.5  # seconds a page waits before it shows progress instead
WAITED_FOR_UMAP = 0.4  # the same, where PCA can be shown: enough to read a map from the disk
_SELECTED, _FOCUS, _OF = "space_selected", "space_focus", "space_selection_of"

_HINT = (
    "Click a point for its nearest neighbours in the full space. With the lasso, sentences that "
    "are marked in one map are marked in the other, listed, and can be taken along."
)
_CLUSTER, _HDBSCAN = "Cluster (k-means)", "Cluster (HDBSCAN)"
_DOMINANT, _ENTROPY = "Dominant layer", "Attention entropy"
_LENGTH, _DISTANCE = "Length", "Distance to the mean"
_ERROR, _CHANGE, _MOVED = "Projection error", "Neighbours changed", "Movement"
_HELP = (
    "Labels come from the data. Clusters are found in the full space of the first map and drawn "
    "in both. Dominant layer and attention entropy: of the layer attention of the second map's "
    "model. Projection error: share of a point's 15 nearest neighbours that the map does not "
    "keep near. Neighbours changed: share of its 10 nearest in the full space that differ between "
    "the two spaces."
)


# --- what is compared ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chosen:
    """Two spaces that were chosen, and how they are drawn.

    Attributes:
        names: What they are called: strategies, with the model where there are two.
        request: Which maps.
    """

    names: tuple[str, str]
    request: MapRequest

    @property
    def models(self) -> tuple[str, str]:
        """The model of each space."""
        return self.request.spaces.models

    @property
    def strategies(self) -> tuple[str, str]:
        """The strategy of each space."""
        return self.request.spaces.strategies


def choices(model: str, data: Dataset) -> tuple[Chosen, str]:
    """Draw the menus of both spaces, colour and projection, bound to the link; return them.

    Raises:
        LwapError: If a model cannot be loaded.
    """
    one, two, three, four, five = st.columns(
        [15, 18, 15.5, 18.5, 24], gap="small", vertical_alignment="bottom"
    )
    facts = cache.facts(model)
    with one:
        first = widgets.strategy_choice("First map", "space_a", "mean", facts)
    with two:
        others = [name for name in cache.checkpoint_names() if name != model]
        other = st.selectbox(
            "Second map: model",
            [SAME_MODEL, *others],
            key="space_model",
            bind="query-params",
            persist_state="session",
            accept_new_options=True,
            help="Another checkpoint shows what training changed, the same model what another "
            "pooling or layer changes.",
        )
    other = model if other in (SAME_MODEL, None) else other
    with three:
        own = cache.facts(other)
        second = widgets.strategy_choice("Second map: strategy", "space_b", _default_of(own), own)
    with four:
        colour = _colour_menu(data, (model, other))
    with five:
        left, right = st.columns([2, 1], vertical_alignment="bottom", gap="small")
        with left:
            method = st.segmented_control(
                "Projection",
                METHODS,
                default=UMAP,
                key="projection",
                bind="query-params",
                persist_state="session",
                required=True,
            )
        with (
            right,
            st.popover("", icon=":material/tune:", help="Settings of UMAP", width="stretch"),
        ):
            settings = _settings()
    is_same = other == model
    names = (first, second) if is_same else (f"{model} · {first}", f"{other} · {second}")
    spaces = Request(
        models=(model, other),
        fingerprints=(cache.fingerprint(model), cache.fingerprint(other)),
        strategies=(first, second),
        data=data.digest,
    )
    request = MapRequest(spaces, method.lower(), **settings)
    return Chosen(names, request), colour


def _default_of(facts: ModelFacts) -> str:
    """Return the strategy that stands against the mean: the trained one, else CLS."""
    return facts.default_strategies[-1] if facts.has_attention else "cls"


def _settings() -> dict[str, Any]:
    common: dict[str, Any] = {"bind": "query-params", "persist_state": "session"}
    return {
        "n_neighbors": st.slider(
            "Neighbours",
            2,
            100,
            15,
            key="neighbours",
            help="Of each point that the map tries to keep near: few show fine structure, many "
            "the whole.",
            **common,
        ),
        "min_dist": st.slider(
            "Least distance",
            0.0,
            1.0,
            0.1,
            0.05,
            key="min_dist",
            help="How tightly points may be packed.",
            **common,
        ),
        "seed": int(
            st.number_input(
                "Seed",
                0,
                9999,
                0,
                key="map_seed",
                help="Another seed gives another map of the same space; see Chance.",
                **common,
            )
        ),
    }


def link_of(models: tuple[str, str], strategies: tuple[str, str]) -> dict[str, str]:
    """Return what a link to this page says, so that it shows two spaces of the example.

    Args:
        models: The first map's, which is the sidebar's too, and the second one's.
        strategies: Of each.
    """
    return {
        "model": models[0],
        "space_a": strategies[0],
        "space_model": SAME_MODEL if models[0] == models[1] else models[1],
        "space_b": strategies[1],
    }


def take_link(link: dict[str, str]) -> None:
    """Let this page show what a link says, whatever was chosen before; for callbacks."""
    st.session_state.update(link)
    for key in ("space_a", "space_b"):
        st.session_state.pop(f"{key}_default", None)  # it was chosen, and not by default
    st.session_state.pop("space_data", None)  # the example is the default


# --- waiting ------------------------------------------------------------------------------------


def measured(chosen: Chosen, data: Dataset) -> Spaces:
    """Return the measured spaces; while they are not there, say why and end the page."""
    found = mapping.find_spaces(chosen.request.spaces)
    if found is not None and found.state == STOPPED:
        st.info("Stopped. What was encoded is kept; a new run goes on from there.")
        _start_again("Go on", chosen, data)
    if found is None:
        found = mapping.spaces(chosen.request.spaces, data.table)
    if not found.wait(WAITED):
        widgets.follow(found, "Sentences encoded:", "Measuring both spaces.", "space_stop")
        st.stop()
    if found.state == STOPPED:
        st.rerun()
    if found.state == FAILED:
        st.error(escape(found.error), icon=":material/error:")
        _start_again("Try again", chosen, data)
    for note in found.notes:
        st.caption(escape(note))
    return found


def _start_again(label: str, chosen: Chosen, data: Dataset) -> None:
    """Draw a button that measures both spaces anew, and end the page."""
    if st.button(label, type="primary", key="space_again"):
        mapping.spaces(chosen.request.spaces, data.table)
        st.rerun()
    st.stop()


def drawn_maps(chosen: Chosen, found: Spaces) -> Drawn:
    """Return the maps to show: UMAP once it is there, PCA until then, with a line on progress."""
    if chosen.request.method == "pca":
        return found.pca
    work = mapping.find_umap(chosen.request)
    if work is None:
        work = mapping.umap(chosen.request, found)
    if work.state == STOPPED:
        again = _with_button("Draw UMAP", "umap_again", mapping.umap, chosen.request, found)
        again.info("UMAP was stopped; this is the PCA map.", icon=":material/stop_circle:")
        return found.pca
    if work.wait(WAITED_FOR_UMAP) and work.result is not None:
        for note in work.notes:
            st.caption(escape(note))
        return work.result
    if work.state == FAILED:
        again = _with_button("Try again", "umap_again", mapping.umap, chosen.request, found)
        again.error(f"{escape(work.error)} Below is the PCA map.", icon=":material/error:")
        return found.pca
    widgets.follow(
        work,
        "UMAP is being drawn, PCA is shown meanwhile: step",
        "UMAP is being prepared, PCA is shown meanwhile.",
        "umap_stop",
    )
    return found.pca


def _result(work: Work, what: str, key: str) -> Any:
    """Return the result of something that was looked up; None while it is not there, and why."""
    if not work.wait(WAITED):
        widgets.follow(work, f"{what}:", f"{what}.", key)
        return None
    if work.state in (FAILED, STOPPED):
        again = _with_button("Try again", f"{key}_again", mapping.forget, work)
        if work.state == FAILED:
            again.error(escape(work.error), icon=":material/error:")
        else:
            again.info(f"{what}: stopped.", icon=":material/stop_circle:")
    return work.result


def _with_button(label: str, key: str, call: Callable[..., Any], *arguments: Any):
    """Draw a button at the right that calls a function; return the place beside it."""
    left, right = st.columns([5, 1], vertical_alignment="center")
    right.button(label, key=key, on_click=call, args=arguments, width="stretch")
    return left


# --- colours ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Colours:
    """What colours the points of both maps.

    Attributes:
        name: What it is.
        categories: A label of each point; None for numbers.
        order: The labels that get a colour.
        values: Numbers of each point, one array a map; None for labels.
        form: Format of the numbers.
    """

    name: str
    categories: tuple[str, ...] | None = None
    order: tuple[str, ...] = ()
    values: tuple[np.ndarray, np.ndarray] | None = None
    form: str = ".2f"

    def of(self, place: int) -> dict[str, Any]:
        """Return the arguments of the figure of one map."""
        if self.categories is not None:
            return {"categories": self.categories, "order": self.order}
        if self.values is None:
            return {}
        both = np.concatenate([values[np.isfinite(values)] for values in self.values])
        span = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
        return {
            "values": self.values[place],
            "value_name": self.name,
            "value_form": self.form,
            "value_span": span,
        }


def _colour_menu(data: Dataset, models: Sequence[str]) -> str:
    """Draw the menu of what can colour the points, bound to the link; return the choice."""
    table = data.table
    options = [*table.labels, *table.numbers]
    options += [_CLUSTER, _HDBSCAN]
    if any(cache.facts(name).has_attention for name in models):
        options += [_DOMINANT, _ENTROPY]
    options += [_LENGTH, _DISTANCE, _ERROR, _CHANGE, _MOVED]
    default = options[0] if table.labels or table.numbers else _CHANGE
    options = list(dict.fromkeys(options))  # a column may be called as one of ours
    if st.session_state.get("colour", default) not in options:
        del st.session_state["colour"]
    return st.selectbox(
        "Colour by",
        [default, *(name for name in options if name != default)],
        key="colour",
        bind="query-params",
        persist_state="session",
        help=_HELP,
    )


def colours(name: str, data: Dataset, found: Spaces, drawn: Drawn) -> Colours:
    """Return what colours the points; says what is left grey, and why."""
    table, spaces = data.table, found.spaces
    if name in table.labels:
        return _labelled(name, table.labels[name])
    if name in table.numbers:
        values = table.numbers[name]
        if missing := int(np.isnan(values).sum()):
            st.caption(f"'{escape(name)}' is missing in {missing:,} rows, which are grey.")
        return Colours(name, values=(values, values), form=".3g")
    if name in (_CLUSTER, _HDBSCAN):
        kind = "hdbscan" if name == _HDBSCAN else "kmeans"
        count = min(MOST_COLOURS, max(2, len(table) // 5))
        labels = _result(mapping.clusters(found, kind, count), "Clusters", "clusters_stop")
        return Colours(name) if labels is None else _labelled(name, labels, "in no cluster")
    if name in (_DOMINANT, _ENTROPY):
        place = 1 if cache.facts(found.request.models[1]).has_attention else 0
        weights = _result(mapping.layer_weights(found, place), "Layer attention", "weights_stop")
        if weights is None:
            return Colours(name)
        if name == _ENTROPY:
            shares = np.clip(weights, 1e-12, None)
            entropy = -(shares * np.log(shares)).sum(axis=1) / np.log(weights.shape[1])
            return Colours("Attention entropy, 1 is even", values=(entropy, entropy))
        states = [figures.state_name(state) for state in range(weights.shape[1])]
        labels = [states[state] for state in weights.argmax(axis=1)]
        order = [state for state in states if state in labels][:MOST_COLOURS]
        return Colours(name, tuple(labels), tuple(order))
    if name == _LENGTH:
        lengths = np.array([float(len(text.split())) for text in table.sentences])
        return Colours("Length in words", values=(lengths, lengths), form=".0f")
    if name == _DISTANCE:
        both = tuple(_distance(space.unit) for space in spaces)
        return Colours("1 − cosine to the mean", values=both)
    if name == _ERROR:
        both = tuple(1 - quality.point_recall for quality in drawn.quality)
        return Colours("Neighbours that the map loses", values=both)
    if name == _MOVED:
        return Colours("Movement, in radii", values=(drawn.maps.moved, drawn.maps.moved))
    kept = _kept(found)
    return Colours("Neighbours changed", values=(1 - kept, 1 - kept))


def _labelled(name: str, labels: Sequence[str], missing: str = "without a label") -> Colours:
    counts = Counter(label for label in labels if label)
    order = [label for label, _ in counts.most_common(MOST_COLOURS)]
    if set(order) == set(counts):  # all of them: in the order of the data, as topics are
        order = list(dict.fromkeys(label for label in labels if label))
        if all(label.isdecimal() for label in order):
            order.sort(key=int)
    said = []
    if len(counts) > MOST_COLOURS:
        said.append(
            f"'{escape(name)}' has {len(counts):,} different values; the {MOST_COLOURS} most "
            "frequent are coloured, the others grey. A column with fewer values shows more."
        )
    if empty := sum(not label for label in labels):
        said.append(f"{empty:,} sentences are {missing} and grey.")
    if said:
        st.caption(" ".join(said))
    return Colours(name, tuple(labels), tuple(order))


def _distance(unit: np.ndarray) -> np.ndarray:
    mean = unit.mean(axis=0, dtype=np.float64)
    return 1 - unit @ (mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32)


def _kept(found: Spaces) -> np.ndarray:
    """Return the share of each sentence's neighbours that both spaces have, (N,)."""
    if "kept" not in found.kept:
        found.kept["kept"] = neighbours_kept(*found.spaces)
    return found.kept["kept"]


# --- two maps -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class View:
    """All that the two maps draw."""

    chosen: Chosen
    table: SentenceTable  # as found.table, with this session's own labels
    found: Spaces
    drawn: Drawn
    colours: Colours
    rows: np.ndarray | None  # of points that are drawn one by one; None for all
    dropped: tuple[str, ...] = ()
    added: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def key(self) -> tuple:
        """What a selection belongs to."""
        return self.found.request.data, self.chosen.request, self.drawn.maps.method


def view_of(chosen: Chosen, data: Dataset, found: Spaces, drawn: Drawn, shown: Colours) -> View:
    """Draw the box of sentences to drop into the maps; return what is drawn."""
    rows = _sample(len(found.table), DRAWN)
    dropped, added = _dropped(chosen, found, drawn)
    return View(chosen, data.table, found, drawn, shown, rows, dropped, added)


def _sample(count: int, most: int) -> np.ndarray | None:
    """Return an even sample of rows, sorted; None where there are few enough to draw all."""
    if count <= most:
        return None
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def drop_box() -> None:
    """Draw the box for sentences that are dropped into the maps."""
    st.text_input(
        "Drop a sentence into both maps",
        key="space_drop",
        placeholder="Type a sentence; several with | between them",
        persist_state="session",
        help="It is placed between its nearest neighbours; the maps stay as they are. Up to "
        f"{MOST_DROPPED} sentences.",
    )


def _dropped(
    chosen: Chosen, found: Spaces, drawn: Drawn
) -> tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray] | None]:
    typed = st.session_state.get("space_drop", "").split("|")
    texts = tuple(dict.fromkeys(text.strip() for text in typed if text.strip()))
    if not texts:
        return (), None
    if len(texts) > MOST_DROPPED:
        st.caption(f"The first {MOST_DROPPED} of the {len(texts)} sentences are drawn.")
        texts = texts[:MOST_DROPPED]
    places = []
    for name, strategy, space, coordinates in zip(
        chosen.models,
        chosen.strategies,
        found.spaces,
        (drawn.maps.first, drawn.maps.second),
        strict=True,
    ):
        vectors = cache.vectors(name, texts, strategy)
        lay = place_principal if drawn.maps.method == "pca" else place
        places.append(lay(vectors, space.unit, coordinates))
    return texts, (places[0], places[1])


@st.fragment
def two_maps(view: View) -> None:
    """Draw both maps side by side, linked, and what was selected in them below."""
    if st.session_state.get(_OF) != view.key:
        st.session_state[_OF] = view.key
        st.session_state[_SELECTED], st.session_state[_FOCUS] = [], None
    selected, focus = st.session_state[_SELECTED], st.session_state[_FOCUS]
    maps = view.drawn.maps
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.caption(_HINT)
    with right:
        mouse = widgets.views("Mouse", MOUSE, "mouse")
    columns = st.columns(2, gap="small")
    # Before the maps: a browser takes a second to draw these anew.
    if focus is not None:
        _neighbours(view, focus)
    if selected:
        _selection(view, selected)
    for place_, (column, coordinates) in enumerate(
        zip(columns, (maps.first, maps.second), strict=True)
    ):
        space = view.found.spaces[place_]
        near = [] if focus is None else space.near.indices[focus, :NEIGHBOURS_LISTED]
        with column:
            figure = figures.space_map(
                coordinates,
                view.table.sentences,
                drawn=view.rows,
                selected=selected or None,
                focus=focus,
                neighbours=None if focus is None else near.tolist(),
                added=None if view.added is None else view.added[place_],
                added_texts=view.dropped or None,
                span=figures.map_span(maps.first, maps.second),
                title=view.chosen.names[place_],
                note=_map_note(view, place_),
                is_lasso=mouse == LASSO,  # Streamlit hears no click on a figure that has one
                theme=theme(),
                **view.colours.of(place_),
            )
            key = f"space-map-{'ab'[place_]}"
            widgets.show(
                figure,
                key,
                lasso=True,
                on_select=lambda key=key: _select(key, view),
                selection_mode=["points", "box", "lasso"],
            )


def _map_note(view: View, place_: int) -> str:
    variance = view.drawn.maps.variance[place_]
    if variance is not None:
        return f"PCA, {sum(variance):.0%} of the variance"
    kept = view.drawn.quality[place_].knn_recall
    return f"UMAP, keeps {kept:.0%} of the nearest neighbours"


def _select(key: str, view: View) -> None:
    """Take what was clicked or lassoed in a map over for both."""
    event = st.session_state[key]["selection"]
    areas = [*event.get("lasso", []), *event.get("box", [])]
    if areas:
        coordinates = view.drawn.maps.first if key.endswith("a") else view.drawn.maps.second
        inside = np.zeros(len(coordinates), dtype=bool)
        for area in areas:
            inside |= in_area(coordinates, area["x"], area["y"])
        rows = np.flatnonzero(inside)
        if view.rows is None:  # all are drawn: leave out those that the legend hides
            shown = {int(data[0]) for data in widgets.clicked(key, every=True) if data}
            rows = np.array([row for row in rows.tolist() if row in shown], dtype=int)
        st.session_state[_SELECTED], st.session_state[_FOCUS] = rows.tolist(), None
        return
    # A sentence that was dropped into the map has a row below 0.
    clicked = [data for data in widgets.clicked(key, every=True) if data and data[0] >= 0]
    st.session_state[_SELECTED] = []
    st.session_state[_FOCUS] = int(clicked[0][0]) if clicked else None


def _clear() -> None:
    st.session_state[_SELECTED], st.session_state[_FOCUS] = [], None


def in_area(points: np.ndarray, x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """Return which points lie in a polygon, or in the box between two corners, (N,) bool.

    Args:
        points: (N, 2).
        x, y: The corners, in order; of a box two.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    across, up = np.asarray(points, dtype=np.float64).T
    if len(x) == 2:
        return (across >= x.min()) & (across <= x.max()) & (up >= y.min()) & (up <= y.max())
    inside = np.zeros(len(across), dtype=bool)
    for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        crosses = (y0 > up) != (y1 > up)
        if crosses.any():
            inside[crosses] ^= across[crosses] < x0 + (up[crosses] - y0) * (x1 - x0) / (y1 - y0)
    return inside


def _neighbours(view: View, focus: int) -> None:
    """List the neighbours of the clicked sentence in both full spaces."""
    texts = view.table.sentences
    _with_button("Clear", "space_clear", _clear).markdown(
        f"**{escape(texts[focus])}**: nearest neighbours in the full space"
    )
    columns = st.columns(2, gap="small")
    rows_of = [space.near.indices[focus, :NEIGHBOURS_LISTED] for space in view.found.spaces]
    for place_, column in enumerate(columns):
        space, other = view.found.spaces[place_], rows_of[1 - place_]
        rows = rows_of[place_]
        column.dataframe(
            pd.DataFrame(
                {
                    "cosine": space.near.cosines[focus, : len(rows)],
                    "in both": np.isin(rows, other),
                    "sentence": [texts[row] for row in rows],  # last: it may be cut off
                }
            ),
            key=f"space_neighbours_{place_}",
            hide_index=True,
            height="content",
            column_config={
                "cosine": st.column_config.NumberColumn(format="%.3f", width="small"),
                "sentence": st.column_config.TextColumn(view.chosen.names[place_], width="large"),
                "in both": st.column_config.CheckboxColumn(width="small"),
            },
        )


def _selection(view: View, rows: list[int]) -> None:
    """List the selected sentences, with a download and the way to the other pages."""
    table = view.table
    texts = table.sentences
    kept = _kept(view.found)

    def frame(some: Sequence[int]) -> pd.DataFrame:
        columns: dict[str, Any] = {"sentence": [texts[row] for row in some]}
        for name, labels in table.labels.items():
            columns[name] = [labels[row] for row in some]
        for name, values in table.numbers.items():
            columns[name] = values[some]
        columns["neighbours kept"] = kept[some]
        columns["movement"] = view.drawn.maps.moved[some]
        return pd.DataFrame(columns)

    shown = rows[:LISTED]
    rest = f"; the first {LISTED:,} are listed" if len(rows) > LISTED else ""
    _with_button("Clear", "space_clear", _clear).markdown(
        f"**{len(rows):,} sentences selected**{rest}"
    )
    st.dataframe(
        frame(shown),
        key="space_table",
        hide_index=True,
        height=min(38 + 35 * len(shown), 320),
        column_config={
            "sentence": st.column_config.TextColumn(width="large"),
            "neighbours kept": st.column_config.NumberColumn(
                format="percent",
                help="Share of the 10 nearest neighbours in the first full space that are also "
                "among the 10 nearest in the second.",
            ),
            "movement": st.column_config.NumberColumn(
                format="%.2f", help="Between the two maps, in radii of the first."
            ),
        },
    )
    one, two, three, four, _ = st.columns([3, 3, 3, 3, 2])
    one.download_button(
        "Download (CSV)",
        lambda: frame(rows).to_csv(index=False),
        "lwap-selection.csv",
        "text/csv",
        on_click="ignore",
        width="stretch",
    )
    most = widgets.MAX_SENTENCES
    if two.button(_some("Open in Layers", len(rows), most), key="to_layers", width="stretch"):
        layers.take_sentences([texts[row] for row in rows[:most]])
        _go("layers")
    if three.button(
        _some("Open in Pairs", len(rows), MOST_PAIRS),
        key="to_pairs",
        width="stretch",
        help="Each sentence with its nearest neighbour in the first space.",
    ):
        near = view.found.spaces[0].near.indices
        pairs.take_pairs([(texts[row], texts[near[row, 0]]) for row in rows[:MOST_PAIRS]])
        _go("pairs")
    if four.button(
        _some("Open in Search", len(rows), search.MAX_SENTENCES), key="to_search", width="stretch"
    ):
        search.take_sentences([texts[row] for row in rows[: search.MAX_SENTENCES]])
        _go("search")


def _go(page: str) -> None:
    # With {} the address is emptied; without it Streamlit refuses, as widgets are bound to it.
    st.switch_page(f"pages/{page}.py", query_params={})


def _some(label: str, count: int, most: int) -> str:
    return label if count <= most else f"{label} (first {most:,})"


# --- below the maps -----------------------------------------------------------------------------


def numbers(view: View) -> None:
    """Draw the measures of both spaces, and what the maps keep of them."""
    table = numbers_table(view.chosen.names, view.found.spaces, view.drawn.quality)
    if table["alignment"].isna().all():
        table = table.drop(columns="alignment")
    is_exact = all(space.geometry.is_exact for space in view.found.spaces)
    st.dataframe(
        table,
        key="space_numbers",
        hide_index=True,
        column_config={
            "space": st.column_config.TextColumn("", width="medium"),
            "uniformity": st.column_config.NumberColumn(
                "uniformity ↓",
                format="%.3f",
                help="Log of the mean Gaussian potential of all pairs; lower is more uniform, "
                "about −4 is the least that the measure can reach."
                + ("" if is_exact else " From a million random pairs."),
            ),
            "alignment": st.column_config.NumberColumn(
                "alignment ↓",
                format="%.3f",
                help="Mean squared distance of the pairs that mean the same; lower is nearer.",
            ),
            "mean cosine": st.column_config.NumberColumn(
                format="%.3f", help="Over all pairs of sentences; near 0 is isotropic."
            ),
            "effective rank": st.column_config.NumberColumn(
                "effective rank ↑",
                format="%.0f",
                help=f"How many of the {view.found.spaces[0].unit.shape[1]} directions are used.",
            ),
            "IsoScore": st.column_config.NumberColumn(
                "IsoScore ↑", format="%.3f", help="1 if the variance is even over directions."
            ),
            "trustworthiness": st.column_config.NumberColumn(
                "trustworthiness ↑",
                format="%.3f",
                help="Of the map: 1 if every neighbour on it is a near one in the full space.",
            ),
            "k-NN recall": st.column_config.NumberColumn(
                "k-NN recall ↑",
                format="%.3f",
                help="Of the map: share of the 15 nearest neighbours in the full space that are "
                "also the 15 nearest on the map.",
            ),
        },
    )
    warning = MAP_WARNINGS[str(view.drawn.maps.method)]
    st.caption(f"{warning} Neighbours are always looked up in the full space.")


def spread(view: View) -> None:
    """Draw the distribution of cosines against the uniform sphere, and the spectrum."""
    first, second = view.found.spaces
    names = list(view.chosen.names)
    both = (first, second) if names[0] != names[1] else (first,)
    names = names[: len(both)]
    dimension = first.unit.shape[1]
    x = np.linspace(-1, 1, 801)
    left, right = st.columns(2, gap="medium")
    with left:
        figure = figures.cosine_distribution(
            first.cosines.edges,
            np.stack([space.cosines.density for space in both]),
            names,
            reference=(x, random_cosine_density(x, dimension)),
            dimension=dimension,
            means=[space.cosines.mean for space in both],
            theme=theme(),
        )
        widgets.show(figure, "space-cosines")
    with right:
        figure = figures.spectra(
            [space.variance for space in both],
            names,
            effective_ranks=[space.geometry.effective_rank for space in both],
            theme=theme(),
        )
        widgets.show(figure, "space-spectrum")
    sample = "" if first.cosines.is_exact else " A million random pairs were counted."
    st.caption(
        "**Pairwise cosines**: how similar two random sentences are. On a sphere that is covered "
        f"evenly the cosine is near 0 (dotted, the exact density in {dimension} dimensions); a "
        "space whose sentences all point the same way lies far to the right. **Share of the "
        "variance**: how few directions hold the "
        f"variance.{sample}"
    )


def what_changed(view: View) -> None:
    """List the sentences whose neighbourhood in the full space changed most."""
    spaces, texts = view.found.spaces, view.table.sentences
    kept = _kept(view.found)
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
                f"was near under {view.chosen.names[0]}", width=230
            ),
            "gained": st.column_config.TextColumn(
                f"is near under {view.chosen.names[1]}", width=230
            ),
            "movement": st.column_config.NumberColumn(
                format="%.2f", width=80, help="Between the two maps, in radii of the first."
            ),
        },
    )
    st.download_button(
        "All sentences (CSV)",
        lambda: neighbourhood_change(*spaces, texts).drop(columns="row").to_csv(index=False),
        "lwap-changed.csv",
        "text/csv",
        on_click="ignore",
    )


def layer_course(view: View) -> None:
    """Draw uniformity, alignment and isotropy of every layer of the second space's model."""
    model = view.chosen.models[1]
    beside = [
        strategy
        for name, strategy in zip(view.chosen.models, view.chosen.strategies, strict=True)
        if name == model and not strategy.startswith("layer_")
    ]
    work = mapping.course(view.found, 1, tuple(dict.fromkeys(beside)))
    table = _result(work, "Layers measured", "course_stop")
    if table is None:
        return
    states = cache.facts(model).num_states
    table = table.set_index("strategy")
    measures = {
        name: tuple(
            table.loc[[f"{kind}:{state}" for state in range(states)], name].to_numpy()
            for kind in ("layer_cls", "layer_mean")
        )
        for name in MEASURES
    }
    references = {name: table.loc[name, list(MEASURES)].dropna().to_dict() for name in beside}
    widgets.show(figures.geometry_course(measures, references, theme=theme()), "space-course")
    if len(view.table) > COURSE_SENTENCES:
        st.caption(f"Measured on an even sample of {COURSE_SENTENCES:,} of the sentences.")
    st.download_button(
        "All layers (CSV)",
        lambda: table.to_csv(),
        "lwap-layers-geometry.csv",
        "text/csv",
        on_click="ignore",
    )


def layer_walk(view: View) -> None:
    """Draw the map of one layer after the other up to the second space's strategy."""
    chosen = view.chosen
    facts = cache.facts(chosen.models[1])
    strategies = [f"layer_mean:{state}" for state in range(facts.num_states)]
    last = chosen.strategies[1]
    is_layer = last in strategies or last == "mean"
    strategies += [] if is_layer else [last]
    sampled = _sample(len(view.table), WALK_POINTS)
    rows = np.arange(len(view.table)) if sampled is None else sampled
    request = chosen.request
    if view.drawn.maps.method == "pca":
        request = MapRequest(request.spaces, "pca")
    work = mapping.walk(request, view.found, 1, tuple(strategies), rows)
    frames = _result(work, "Maps of the layers", "walk_stop")
    if frames is None:
        return
    names = [figures.state_name(state) for state in range(facts.num_states)]
    names += [] if is_layer else [last]
    colour = view.colours
    given: dict[str, Any] = {}
    if colour.categories is not None:
        given = {"categories": [colour.categories[row] for row in rows], "order": colour.order}
    elif colour.values is not None:
        given = {"values": colour.values[1][rows], "value_name": colour.name}
    figure = figures.map_walk(
        frames,
        names,
        [view.table.sentences[row] for row in rows],
        theme=theme(),
        **given,
    )
    widgets.show(figure, "space-walk")
    sample = "" if sampled is None else f" {WALK_POINTS:,} of the sentences."
    st.caption(
        f"The token mean of one state after the other{'' if is_layer else f', then {last}'}. Each "
        "map is turned onto the next and has the same size, so that what is seen to move has "
        f"changed its place among the others.{sample}"
    )


def chance(view: View) -> None:
    """Draw how much of both maps is left to chance: the same spaces with other seeds."""
    if view.drawn.maps.method == "pca" and view.chosen.request.method == "umap":
        st.info("There is no UMAP map yet; this view compares it with maps of other seeds.")
        return
    if view.drawn.maps.method == "pca":
        st.info("PCA has no seed: the same sentences give the same map. Choose UMAP to see more.")
        return
    if len(view.table) > DRAWN and not st.session_state.get("space_seeds"):
        if not st.button("Draw both maps with two more seeds", key="space_seeds_go"):
            return
        st.session_state["space_seeds"] = True
    work = mapping.seeds(view.chosen.request, view.found, view.drawn.maps)
    both = _result(work, "UMAP with other seeds", "seeds_stop")
    if both is None:
        return
    for place_, found in enumerate(both):
        st.markdown(
            f"**{escape(view.chosen.names[place_])}**: with another seed a point keeps "
            f"{found.kept.mean():.0%} of its 15 neighbours on the map and moves by "
            f"{np.median(found.moved):.2f} radii (median). Between the two maps above it moves by "
            f"{np.median(view.drawn.maps.moved):.2f}."
        )
        columns = st.columns(len(found.seeds), gap="small")
        own = (view.drawn.maps.first, view.drawn.maps.second)[place_]
        for column, seed, coordinates in zip(columns, found.seeds, (own, *found.maps), strict=True):
            figure = figures.space_map(
                coordinates,
                view.table.sentences,
                drawn=view.rows,
                values=1 - found.kept,
                value_name="Map neighbours that change",
                value_span=(0.0, 1.0),
                title=f"Seed {seed}",
                span=figures.map_span(own, *found.maps),
                is_lasso=False,
                theme=theme(),
            )
            with column:
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

    def content() -> str:
        frame: dict[str, Any] = {"sentence": table.sentences}
        frame |= {name: labels for name, labels in table.labels.items()}
        frame |= dict(table.numbers)
        for side, coordinates, quality in zip(
            ("first", "second"), (maps.first, maps.second), view.drawn.quality, strict=True
        ):
            frame |= {
                f"{side} x": coordinates[:, 0],
                f"{side} y": coordinates[:, 1],
                f"{side} k-NN recall": quality.point_recall,
                f"{side} trustworthiness": quality.point_trustworthiness,
            }
        frame |= {"movement": maps.moved, "neighbours kept": _kept(view.found)}
        return pd.DataFrame(frame).to_csv(index=False)

    st.download_button("Both maps (CSV)", content, "lwap-maps.csv", "text/csv", on_click="ignore")


def warm_up() -> None:
    """Start the process of UMAP, so that it is ready when the spaces are measured."""
    try:
        mapping.umap_process().warm_up()
    except OSError as error:  # too little memory to start one: PCA still works
        raise LwapError(
            f"The process that draws UMAP maps cannot be started ({error.strerror}). Close other "
            "programs, or choose PCA."
        ) from error
