"""Pairs that a strategy ranks too high or too low, and one of them layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from scipy.stats import rankdata

from lwap import figures
from lwap.errors import LwapError
from lwap.evaluation.result import Column, StsResult
from lwap.evaluation.tasks import Task
from lwap.pooling.declarations import needs_training
from lwap.ui import cache, layerwise, widgets
from lwap.ui.evaluate.sets import NOTHING_RANKED, menu, sets_of
from lwap.ui.frame import escape, say_error, theme

GOLD, OTHER = AGAINST = ["Gold scores", "Another strategy"]
DRAWN = 5000  # points of the scatter
LISTED = 200  # rows of the table below it


@dataclass(frozen=True, eq=False)
class Ranking:
    """How a strategy ranks the pairs of a task, against gold scores or another strategy.

    Attributes:
        name: What the task is called.
        task: Its pairs.
        label: The strategy's name in the result.
        column: The strategy.
        cosines: Under it, (P,).
        other: The other strategy's name in the result, "" for gold scores.
        compared: Its cosines, or the gold scores, (P,).
    """

    name: str
    task: Task
    label: str
    column: Column
    cosines: np.ndarray
    other: str
    compared: np.ndarray

    @property
    def key(self) -> tuple[str, str, str]:
        """What a selection belongs to; files may have the same name."""
        return self.name, self.label, self.task.sha256[:8]

    @property
    def error(self) -> np.ndarray:
        """How many percent of the pairs the strategy ranks each one too high, (P,)."""
        return _rank_share(self.cosines) - _rank_share(self.compared)


@st.fragment
def errors(result: StsResult) -> None:
    """Draw gold against predicted; the chosen pairs as a table; one pair layer by layer."""
    ranking = _ranking(result)
    if ranking is None:
        return
    if not ranking.other:
        _scatter(ranking)
    _one_pair(ranking, _table(ranking, _listed(ranking)))


def _ranking(result: StsResult) -> Ranking | None:
    """Draw the menus of task, strategy and what it is held against; return what is chosen."""
    sets, values = sets_of(result), result.values()
    usable = [label for row, label in enumerate(result.labels) if not np.isnan(values[row]).all()]
    if not usable:
        st.info(NOTHING_RANKED)
        return None
    left, middle, right = st.columns(3)
    with left:
        name = menu("Task", list(sets), "evaluate_task")
    with middle:
        of = dict(zip(result.labels, result.columns, strict=True))
        trained = (label for label in usable if needs_training(of[label].strategy))
        default = next(trained, usable[0])
        label = menu("Strategy", usable, "evaluate_strategy", default=default)
    with right:
        against = widgets.row("Against", AGAINST, "evaluate_against", bind=None)
    task, cosines = sets[name]
    row = result.labels.index(label)
    other, compared = "", task.gold
    if against == OTHER:
        others = [name for name in usable if name != label]
        if not others:
            st.info("There is only one strategy here. Choose more above.")
            return None
        with right:
            other = menu("Other strategy", others, "evaluate_other")
        compared = cosines[result.labels.index(other)]
    return Ranking(name, task, label, result.columns[row], cosines[row], other, compared)


def _scatter(ranking: Ranking) -> None:
    """Draw gold scores against cosines; pairs that are marked there are listed."""
    task = ranking.task
    drawn = np.arange(len(task))
    if len(task) > DRAWN:
        drawn = np.sort(np.random.default_rng(0).choice(len(task), DRAWN, replace=False))
        st.caption(f"{DRAWN:,} of {len(task):,} pairs are drawn, chosen at random.")
    picked = st.session_state.setdefault("evaluate_picked", {})
    name = f"gold-scatter-{'-'.join(ranking.key)}"

    def take() -> None:
        points = widgets.clicked(name, every=True)
        rows = dict.fromkeys(int(point[0]) for point in points if point)  # a chosen one is twice
        picked[ranking.key] = tuple(int(drawn[row]) for row in rows)

    chosen = set(picked.get(ranking.key, ()))
    widgets.show(
        figures.gold_scatter(
            task.gold[drawn],
            ranking.cosines[drawn],
            labels=[f"{task.first[place]} ↔ {task.second[place]}" for place in drawn],
            selected=[row for row, place in enumerate(drawn) if int(place) in chosen] or None,
            y_title=f"Cosine, {ranking.label}",
            theme=theme(),
        ),
        name,
        lasso=True,
        on_select=take,
        selection_mode=("points", "box", "lasso"),
    )


def _listed(ranking: Ranking) -> np.ndarray:
    """Return the pairs to list, worst first, those that were chosen or all; say which they are."""
    count = len(ranking.task)
    picked = {} if ranking.other else st.session_state["evaluate_picked"]
    chosen = np.array(picked.get(ranking.key, ()), dtype=int)
    some = chosen if len(chosen) else np.arange(count)
    listed = some[np.argsort(-np.abs(ranking.error[some]), kind="stable")][:LISTED]
    if len(chosen):
        # The figure forgets its selection when it is drawn anew, and cannot be asked to clear it.
        left = widgets.with_button("All pairs", "evaluate_all_pairs", picked.pop, ranking.key)
        left.caption(_chosen_in_words(len(chosen), len(listed)))
    elif ranking.other:
        st.caption(
            f"The {len(listed):,} pairs that the two rank most differently, of {count:,}; "
            f"positive: {escape(ranking.label)} ranks it higher."
        )
    else:
        st.caption(
            f"The {len(listed):,} pairs with the largest difference in rank. Rank: share of the "
            f"{count:,} pairs that are below, in percent; positive: {escape(ranking.label)} ranks "
            "it too high."
        )
    return listed


def _chosen_in_words(chosen: int, listed: int) -> str:
    if chosen == 1:
        return "The pair that you chose in the figure."
    if listed < chosen:
        return f"The {listed:,} worst of the {chosen:,} pairs that you chose in the figure."
    return f"The {chosen:,} pairs that you chose in the figure, worst first."


def _table(ranking: Ranking, listed: np.ndarray) -> int:
    """Draw pairs as a table; return the one that is selected in it, the first by default."""
    task, own = ranking.task, f"cosine, {ranking.label}"
    title = f"cosine, {ranking.other}" if ranking.other else "score"
    columns = {
        "Δ rank": ranking.error[listed],
        "sentence1": [task.first[place] for place in listed],
        "sentence2": [task.second[place] for place in listed],
        title: ranking.compared[listed],
        own: ranking.cosines[listed],
    }
    if ranking.other:
        columns["score "] = task.gold[listed]
    cosine = st.column_config.NumberColumn(format="%.3f", width="small")
    event = st.dataframe(
        pd.DataFrame(columns),
        hide_index=True,
        height=320,
        on_select="rerun",
        selection_mode="single-row",
        key=f"evaluate_table_{ranking.name}_{ranking.label}_{OTHER if ranking.other else GOLD}",
        column_config={
            "Δ rank": st.column_config.NumberColumn(format="%+.1f", width="small"),
            title: cosine,
            own: cosine,
        },
    )
    rows = event["selection"]["rows"]
    return int(listed[rows[0] if rows and rows[0] < len(listed) else 0])


def _one_pair(ranking: Ranking, pair: int) -> None:
    task, column = ranking.task, ranking.column
    first, second = task.first[pair], task.second[pair]
    st.subheader("One pair, layer by layer", anchor=False)
    st.markdown(
        f"{escape(first)} ↔ {escape(second)}  \n"
        f"score {task.gold[pair]:g}, cosine {ranking.cosines[pair]:.3f} under "
        f"{escape(ranking.label)}, rank difference {ranking.error[pair]:+.1f}"
    )
    facts = cache.facts(column.model)
    strategies = [
        name
        for name in dict.fromkeys([*facts.default_strategies, column.strategy])
        if name in facts.strategies
    ]
    try:
        comparison = cache.compare(column.model, [(first, second)], strategies)
    except LwapError as error:
        say_error(error)
        return
    layerwise.pair(column.model, comparison, 0)


def _rank_share(values: np.ndarray) -> np.ndarray:
    return 100 * (rankdata(values) - 1) / max(1, len(values) - 1)
