"""The parts of the Pairs page: the editable table, the overview, one pair, all scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from lwap import figures
from lwap.datasets.readers import FORMATS, read_pairs
from lwap.errors import InputError, LwapError
from lwap.scores import rank_among
from lwap.ui import cache, files, layerwise, links, widgets
from lwap.ui.frame import escape, say_error, theme
from lwap.ui.state import PAIR_COLUMNS, as_pairs, example, is_unedited_example, set_pairs

if TYPE_CHECKING:
    from lwap.analysis.comparison import Comparison

MAX_PAIRS = 2000
SHOWN = 15  # pairs in the overview
SHOWN_IN_HEATMAP = 60
_RANK, _PERCENTILE, _COSINE = _SCALES = ["Rank in this set", "Percentile", "Cosine"]


# --- the table ----------------------------------------------------------------------------------


def pair_table(menu_key: str, link: str) -> pd.DataFrame:
    """Draw the example menu, the upload and the editable table; return the complete pairs.

    Returns:
        Columns sentence1, sentence2, score (float, NaN where there is none).

    Raises:
        InputError: If there is no complete pair, more than the limit, or the file is wrong.
    """
    left, right = st.columns([1, 2], gap="large")
    with left:
        chosen = widgets.example_menu(
            menu_key, lambda: set_pairs(example(st.session_state[menu_key])["pairs"])
        )
        note = st.empty()
        wrong = files.upload_into(
            "pairs_upload",
            _fill,
            help=f"{', '.join(FORMATS)} with the columns sentence1, sentence2 and, if you have "
            f"gold scores, score; up to {MAX_PAIRS:,} pairs.",
        )
        if wrong:
            say_error(f"{wrong} The table below is unchanged.")
    if "pairs" not in st.session_state:
        set_pairs(links.pairs(link) if links.values(link) else chosen["pairs"])
    elif is_unedited_example() and st.session_state["pairs_example"] != chosen["title"]:
        set_pairs(chosen["pairs"])  # another one was chosen on another page
    st.session_state["pairs_example"] = chosen["title"]
    editor_key = f"pairs_editor_{st.session_state['pairs_version']}"
    if editor_key not in st.session_state:  # first time, or back from another page
        st.session_state["pairs_base"] = st.session_state["pairs"]
    edited = right.data_editor(
        st.session_state["pairs_base"],
        key=editor_key,
        num_rows="dynamic",
        hide_index=True,
        height=355,
        width="stretch",
        column_config={
            "sentence1": st.column_config.TextColumn("Sentence 1", width=235),
            "sentence2": st.column_config.TextColumn("Sentence 2", width=235),
            "score": st.column_config.NumberColumn(
                "Score", help="Gold similarity, if you have it; any scale.", width="small"
            ),
        },
    )
    st.session_state["pairs"] = edited.reset_index(drop=True)
    pairs = complete_pairs(edited)
    if pairs.equals(as_pairs(chosen["pairs"])):
        note.caption(f"**What to look for.** {chosen['look_for']}")
        links.put(link, [])
    elif not links.put_pairs(link, pairs):
        note.caption(links.TOO_LONG.format("This table is"))
    return pairs


def _fill(content: bytes, name: str) -> None:
    pairs = read_pairs(content, name)
    check_pair_count(len(pairs), name)
    set_pairs(pairs)


def check_pair_count(count: int, source: str) -> None:
    """Refuse more pairs than the page can show.

    Raises:
        InputError: With the limit and the command that has none.
    """
    if count > MAX_PAIRS:
        raise InputError(
            f"'{source}' has {count:,} pairs; this page takes up to {MAX_PAIRS:,}. Sample from "
            "them, or score a file of any length with: python -m lwap compare FILE --output CSV"
        )


def complete_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs with both sentences; say which rows are left out because one is missing.

    Raises:
        InputError: If no pair is complete, or there are more than the limit.
    """
    pairs = as_pairs(table)
    blank = pairs[PAIR_COLUMNS[:2]].map(lambda text: not text.strip())
    half = blank.any(axis=1) & ~blank.all(axis=1)
    if half.any():
        places = ", ".join(str(place + 1) for place in pairs.index[half][:8])
        st.info(f"Left out until both sentences are there: row {places}.", icon=":material/info:")
    pairs = pairs[~blank.any(axis=1)].reset_index(drop=True)
    if pairs.empty:
        raise InputError("There is no complete pair yet. Fill in both sentences of a row.")
    check_pair_count(len(pairs), "The table")
    return pairs


# --- what the pairs score -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scaled:
    """The scores of P pairs under K strategies on the scale that the person chose.

    Attributes:
        values: (P, K).
        gold: Gold scores on the same scale, (P,); None where there are none or they have no place.
        title: The scale in words.
        value_format: How to print a value.
        order: Pairs by disagreement, most first, (P,).
    """

    values: np.ndarray
    gold: np.ndarray | None
    title: str
    value_format: str
    order: np.ndarray


def scale_menu() -> str:
    """Draw the choice of scale; return it."""
    return widgets.views("Scale", _SCALES, "scale")


def on_scale(scale: str, comparison: Comparison, gold: np.ndarray) -> Scaled:
    """Return the scores, and the gold scores where they have a place, on a scale."""
    random_pairs = comparison.random_pairs
    if scale == _RANK and len(comparison) > 1:
        values, form = _ranks(comparison.cosines), ".0f"
        title = "rank among these pairs, 100 = most alike"
        gold = None if np.isnan(gold).all() else _ranks(gold[:, None])[:, 0]
    elif scale == _PERCENTILE and random_pairs:
        values, gold, form = comparison.percentiles, None, ".1f"
        title = f"percentile among {random_pairs:,} random pairs of these sentences"
    else:
        values, gold, form = comparison.cosines, None, ".3f"
        title = "cosine; scales differ by strategy"
        if scale == _PERCENTILE:
            st.caption("Too few sentences for random pairs, so these are cosines. Add more pairs.")
        elif scale == _RANK:
            st.caption("One pair alone has no rank, so these are cosines. Add more pairs.")
    order = np.argsort(-np.ptp(values, axis=1), kind="stable")
    return Scaled(values, gold, title, form, order)


def overview(comparison: Comparison, scaled: Scaled) -> None:
    """Draw one row a pair, one dot a strategy; a click chooses the pair to look at."""
    places = [str(place) for place in range(1, len(comparison) + 1)]
    chosen = st.session_state.get("pair") or st.query_params.get("pair")
    if chosen not in places:
        chosen = places[scaled.order[0]]
        st.session_state["pair"] = chosen
    selected = int(chosen) - 1
    shown = scaled.order[:SHOWN]
    widgets.show(
        figures.pair_scores(
            scaled.values[shown],
            list(comparison.strategies),
            labels(comparison, shown),
            gold=None if scaled.gold is None else scaled.gold[shown],
            x_title=scaled.title,
            selected=list(shown).index(selected) if selected in shown else None,
            value_format=scaled.value_format,
            theme=theme(),
        ),
        "pair-scores",
        on_select=lambda: _select_clicked("pair-scores", shown),
        selection_mode="points",
    )
    if len(scaled.order) > SHOWN:
        st.caption(
            f"The {SHOWN} of {len(scaled.order):,} pairs on which the strategies disagree most."
        )


def _select_clicked(key: str, shown: np.ndarray) -> None:
    if place := widgets.clicked(key):
        st.session_state["pair"] = str(shown[int(place[0])] + 1)


def correlations(model: str, comparison: Comparison, gold: pd.Series) -> None:
    """Draw Spearman with the gold scores per strategy, with intervals."""
    rows = np.flatnonzero(gold.notna())
    try:
        found = cache.spearman(model, comparison, rows.tolist(), gold.iloc[rows].tolist())
    except LwapError as error:  # the cosines are still worth seeing
        st.warning(escape(str(error)), icon=":material/warning:")
        return
    names = list(found)
    widgets.draw(
        "spearman",
        figures.spearman_strip,
        names,
        *np.array([(found[name].value, found[name].low, found[name].high) for name in names]).T
        / 100,
    )
    st.caption(
        f"Spearman × 100 with the {len(rows):,} scores; lines are 95 % bootstrap intervals over "
        "pairs. Where they overlap widely, the set is too small to choose by."
    )


def one_pair(model: str, comparison: Comparison, scaled: Scaled) -> None:
    """Draw one pair layer by layer, and the weights and knock-out of its sentences."""
    st.subheader("One pair, layer by layer", anchor=False)
    names = labels(comparison, range(len(comparison)))
    row = widgets.choose(
        "Pair", names, "pair", default=int(scaled.order[0]), label_visibility="collapsed"
    )
    layerwise.pair(model, comparison, row)


def all_scores(comparison: Comparison, scaled: Scaled, gold: pd.Series) -> None:
    """Draw pairs × strategies as a heatmap and as a table to download."""
    heatmap, table = st.tabs(["Heatmap", "Table and download"], key="pairs_tab")
    with heatmap:
        shown = scaled.order[:SHOWN_IN_HEATMAP]
        widgets.draw(
            "pair-heatmap",
            figures.pair_heatmap,
            scaled.values[shown],
            list(comparison.strategies),
            labels(comparison, shown),
            value_format=scaled.value_format,
            color_title=scaled.title,
        )
        if len(scaled.order) > len(shown):
            st.caption(
                f"The {len(shown)} of {len(scaled.order):,} pairs that they disagree on most."
            )
    with table:
        frame = comparison.to_frame(gold if gold.notna().any() else None)
        st.dataframe(
            frame.iloc[scaled.order],
            hide_index=True,
            width="stretch",
            column_config={
                name: st.column_config.NumberColumn(
                    format="%.0f" if name.endswith("percentile") else "%.3f"
                )
                for name in frame.columns[2:]
                if name != "score"
            },
        )
        files.csv_button("All scores (CSV)", frame, "lwap-pairs.csv")


def labels(comparison: Comparison, rows) -> list[str]:
    """Return "first ↔ second" of pairs."""
    return [f"{comparison.first[row]} ↔ {comparison.second[row]}" for row in rows]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the pairs, scaled to 0–100, (P, K); NaN stays NaN."""
    return np.stack([rank_among(column) for column in values.T], axis=1)
