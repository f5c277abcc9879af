"""Two linked maps, and what is selected in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from lwap import figures
from lwap.datasets.readers import SentenceTable
from lwap.projection.maps import place, place_principal
from lwap.ui import cache, files, links, widgets
from lwap.ui.frame import escape, theme
from lwap.ui.space.colours import Colours
from lwap.ui.space.mapping import Drawn, MapRequest, Spaces
from lwap.ui.space.sentences import Dataset

CLICK, LASSO = MOUSE = ["Click", "Lasso"]
DRAWN = 3_000  # points that are drawn one by one; above it their density, and so many on top
LISTED = 1_000  # sentences of a selection that are listed; the download has all
NEIGHBOURS_LISTED = 10
MOST_DROPPED = 8
_SELECTED, _FOCUS, _OF = "space_selected", "space_focus", "space_selection_of"
_HINT = (
    "Click a point for its nearest neighbours in the full space. With the lasso, sentences that "
    "are marked in one map are marked in the other, listed, and can be taken along."
)


@dataclass(frozen=True, eq=False)
class View:
    """All that the two maps draw."""

    chosen: MapRequest
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
        return self.found.request.data, self.chosen, self.drawn.maps.method


def view_of(chosen: MapRequest, data: Dataset, found: Spaces, drawn: Drawn, shown: Colours) -> View:
    """Draw the box of sentences to drop into the maps; return what is drawn."""
    rows = sample(len(found.table), DRAWN)
    dropped, added = _dropped(found, drawn)
    return View(chosen, data.table, found, drawn, shown, rows, dropped, added)


def sample(count: int, most: int) -> np.ndarray | None:
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
    found: Spaces, drawn: Drawn
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
        found.request.models,
        found.request.strategies,
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
        near = () if focus is None else space.near.indices[focus, :NEIGHBOURS_LISTED]
        with column:
            figure = figures.space_map(
                coordinates,
                view.table.sentences,
                colors=view.colours.of(place_),
                marks=figures.PointMarks(
                    drawn=view.rows,
                    selected=selected,
                    focus=focus,
                    neighbours=near,
                    added=None if view.added is None else view.added[place_],
                    added_texts=view.dropped,
                ),
                span=figures.map_span(maps.first, maps.second),
                title=view.found.request.names[place_],
                note=_map_note(view, place_),
                theme=theme(),
            )
            # Streamlit hears no click on a figure that has a lasso.
            figure.update_layout(dragmode="lasso" if mouse == LASSO else False)
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
    widgets.with_button("Clear", "space_clear", _clear).markdown(
        f"**{escape(texts[focus])}**: nearest neighbours in the full space"
    )
    columns, names = st.columns(2, gap="small"), view.found.request.names
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
                "sentence": st.column_config.TextColumn(names[place_], width="large"),
                "in both": st.column_config.CheckboxColumn(width="small"),
            },
        )


def _selection(view: View, rows: list[int]) -> None:
    """List the selected sentences, with a download and the way to the other pages."""
    texts = view.table.sentences
    shown = rows[:LISTED]
    rest = f"; the first {LISTED:,} are listed" if len(rows) > LISTED else ""
    widgets.with_button("Clear", "space_clear", _clear).markdown(
        f"**{len(rows):,} sentences selected**{rest}"
    )
    st.dataframe(
        _listed(view, shown),
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
    with one:
        files.csv_button(
            "Download (CSV)", lambda: _listed(view, rows), "lwap-selection.csv", width="stretch"
        )
    selected = [texts[row] for row in rows]
    nearest = [texts[row] for row in view.found.spaces[0].near.indices[rows, 0]]
    links.open_button(two, "layers", selected)
    links.open_button(
        three,
        "pairs",
        list(zip(selected, nearest, strict=True)),
        help="Each sentence with its nearest neighbour in the first space.",
    )
    links.open_button(four, "search", selected)


def _listed(view: View, rows: Sequence[int]) -> pd.DataFrame:
    """Return sentences with all that is known of each."""
    table = view.table
    columns: dict[str, Any] = {"sentence": [table.sentences[row] for row in rows]}
    for name, labels in table.labels.items():
        columns[name] = [labels[row] for row in rows]
    for name, values in table.numbers.items():
        columns[name] = values[rows]
    columns["neighbours kept"] = view.found.neighbours_kept[rows]
    columns["movement"] = view.drawn.maps.moved[rows]
    return pd.DataFrame(columns)
