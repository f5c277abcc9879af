"""Views of a result: layer curve, plane, slices, differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from lwap import figures
from lwap.evaluation.bootstrap import percentile_interval
from lwap.evaluation.result import StsResult
from lwap.evaluation.slices import MIN_PAIRS, slice_pairs
from lwap.evaluation.spaces import GeometryResult
from lwap.evaluation.sts import COSINE_DECIMALS, Aggregation, correlations
from lwap.evaluation.tasks import Task
from lwap.reports.report import layer_names
from lwap.ui import files, measures, widgets
from lwap.ui.evaluate import evaluations
from lwap.ui.evaluate.evaluations import Evaluation
from lwap.ui.evaluate.sets import NOTHING_RANKED, menu, sets_of
from lwap.ui.frame import escape

IN_SLICES = 8  # strategies


def layer_curve(result: StsResult) -> None:
    """Draw Spearman by state with its interval, for one task or the average."""
    names = result.task_names
    task = names.index(menu("Task", names, "evaluate_curve_task", default=names[-1]))
    values, (low, high) = result.values(), result.bounds()
    groups = _by_encoder(result)
    parts = st.columns(len(groups), gap="large")
    for number, (part, (encoder, rows)) in enumerate(zip(parts, groups.items(), strict=True)):
        place = {result.columns[row].strategy: row for row in rows if result.columns[row].is_layer}
        cls, mean = (
            [place[name] for name in layer_names(kind, place)]
            for kind in ("layer_cls", "layer_mean")
        )
        references = {
            result.labels[row]: float(values[row, task])
            for row in rows
            if not result.columns[row].is_layer
        }
        with part:
            if len(groups) > 1:
                st.caption(escape(encoder))
            widgets.draw(
                f"layer-curve-{number}",
                figures.layer_curve,
                values[cls, task],
                values[mean, task],
                cls_interval=(low[cls, task], high[cls, task]),
                mean_interval=(low[mean, task], high[mean, task]),
                references=references,
            )
    st.caption(
        f"Spearman × 100 of each state alone on {escape(names[task])}; bands are 95 % bootstrap "
        "intervals. Marks at the right edge are the strategies."
    )


def plane(evaluation: Evaluation, result: StsResult) -> None:
    """Draw the alignment–uniformity plane of each model, and its numbers."""
    sets = sets_of(result)
    default = "STS-B" if "STS-B" in sets else next(iter(sets))
    task, _ = sets[menu("Task", list(sets), "evaluate_space_task", default=default)]
    groups = _by_encoder(result)
    parts = st.columns(len(groups), gap="large")
    for number, (part, (encoder, rows)) in enumerate(zip(parts, groups.items(), strict=True)):
        with part:
            found, table = _geometry(evaluation, result, task, rows)
            if len(groups) > 1:
                st.caption(escape(encoder))
            widgets.draw(
                f"alignment-uniformity-{number}",
                figures.alignment_uniformity,
                table["alignment"].to_numpy(),
                table["uniformity"].to_numpy(),
                table["strategy"].tolist(),
            )
            if not found.is_exact:
                widest = (table["high"] - table["low"]).max()
                st.caption(f"Uniformity is sampled here: its widest 95 % interval is {widest:.3f}.")
            with st.expander("Numbers"):
                st.dataframe(
                    table,
                    hide_index=True,
                    column_config={
                        "alignment": measures.column("alignment"),
                        "uniformity": measures.column("uniformity"),
                        "low": st.column_config.NumberColumn(
                            format="%.3f", help="Lower end of uniformity's interval, if sampled."
                        ),
                        "high": st.column_config.NumberColumn(format="%.3f", help="Its upper end."),
                        "mean_random_cosine": measures.column("mean cosine"),
                        "effective_rank": measures.column("effective rank"),
                        "isoscore": measures.column("IsoScore"),
                    },
                )
                files.csv_button(
                    "Geometry (CSV)",
                    table,
                    f"lwap-geometry-{encoder}.csv".replace("/", "-"),
                    key=f"geometry-csv-{number}",
                )
    st.caption(
        f"{found.sentences:,} sentences of {escape(task.name)}; alignment over its "
        f"{found.positives:,} pairs with a score of {found.positive_at:g} or more. Towards the "
        "lower left, pairs that mean the same are near and the rest is spread out. Strategies "
        "that give every sentence the same vector are not shown."
    )


def _geometry(
    evaluation: Evaluation, result: StsResult, task: Task, rows: list[int]
) -> tuple[GeometryResult, pd.DataFrame]:
    """Return the geometry of columns of one encoder: the last model's, and a table of all."""
    tables = []
    for model in dict.fromkeys(result.columns[row].model for row in rows):
        own = [row for row in rows if result.columns[row].model == model]
        names = [result.columns[row].strategy for row in own]
        with widgets.progress("Strategies measured", len(names), least=2) as progress:
            found = evaluations.geometry(evaluation, model, task, names, progress)
        label = dict(zip(names, (result.labels[row] for row in own), strict=True))
        tables.append(found.table.assign(strategy=found.table["strategy"].map(label)))
    return found, pd.concat(tables, ignore_index=True)


def slices(result: StsResult) -> None:
    """Draw Spearman of slices of one task: by length, word overlap, negation and numbers."""
    sets = sets_of(result)
    task, all_cosines = sets[menu("Task", list(sets), "evaluate_task")]
    rows = [row for row, column in enumerate(result.columns) if not column.is_layer]
    if not rows:
        st.info("Slices compare strategies, not single layers. Choose some above.")
        return
    rows = [row for row in rows if np.ptp(np.round(all_cosines[row], COSINE_DECIMALS)) > 0]
    if not rows:
        st.info(NOTHING_RANKED)
        return
    if len(rows) > IN_SLICES:
        own = [row for row in rows if _is_own(result, row)]
        rows = sorted([*own, *(row for row in rows if row not in own)][:IN_SLICES])
        st.caption(f"{IN_SLICES} strategies are drawn; choose others above.")
    masks = slice_pairs(task.first, task.second)
    values, low, high = _in_slices(result, task, all_cosines[rows], list(masks.values()))
    counts = [int(mask.sum()) for mask in masks.values()]
    widgets.draw(
        "slices",
        figures.slice_strip,
        [result.labels[row] for row in rows],
        list(masks),
        values,
        low,
        high,
        counts,
    )
    st.caption(
        "Spearman × 100 within each slice, lines are 95 % bootstrap intervals. A narrower range "
        "of scores lowers every correlation, so compare strategies within a slice rather than "
        f"slices with each other. Slices of fewer than {MIN_PAIRS} pairs are left empty; negation "
        "and numbers are found by English words."
    )


def _in_slices(
    result: StsResult, task: Task, cosines: np.ndarray, masks: list[np.ndarray]
) -> np.ndarray:
    """Return Spearman within slices, and its interval: value, low, high (3, K, slices).

    NaN where a slice is too small, or its scores are all the same.
    """
    values = np.full((3, len(cosines), len(masks)), np.nan)
    for column, mask in enumerate(masks):
        if mask.sum() < MIN_PAIRS or np.ptp(task.gold[mask]) == 0:
            continue
        found = correlations(
            cosines[:, mask], task.gold[mask], resamples=result.resamples, seed=result.seed
        )
        for row in range(len(cosines)):
            interval = percentile_interval(
                found.values[Aggregation.ALL][row], found.draws[Aggregation.ALL][row]
            )
            values[:, row, column] = interval.value, interval.low, interval.high
    return values


def differences(result: StsResult) -> None:
    """Draw the difference of every strategy to a baseline, with interval and Holm's correction."""
    names, labels = result.task_names, result.labels
    left, right = st.columns(2)
    with left:
        task = names.index(menu("Task", names, "evaluate_curve_task", default=names[-1]))
    own = [label for row, label in enumerate(labels) if _is_own(result, row)]
    with right:
        baseline = menu("Baseline", labels, "evaluate_baseline", default=(own or labels)[0])
    table = result.differences(labels.index(baseline))
    table = table[table["task"] == names[task]].assign(label=labels)
    table = table[(table["label"] != baseline) & table["difference"].notna()]
    table = table.sort_values("difference", ascending=False)
    if table.empty:
        st.info("There is nothing to compare with this baseline. Choose another one.")
        return
    widgets.draw(
        "differences",
        figures.difference_strip,
        table["label"].tolist(),
        table["difference"].to_numpy(),
        table["low"].to_numpy(),
        table["high"].to_numpy(),
        table["p_holm"].to_numpy(),
        baseline=baseline,
    )
    st.caption(
        f"Spearman × 100 on {escape(names[task])}, strategy minus {escape(baseline)}, by paired "
        f"bootstrap; filled where p < 0.05 after Holm's correction for {len(table)} comparisons."
    )


def _is_own(result: StsResult, row: int) -> bool:
    column = result.columns[row]
    return column.strategy == result.own.get(column.model)


def _by_encoder(result: StsResult) -> dict[str, list[int]]:
    """Return the columns of each encoder, whose states two models may share."""
    groups: dict[str, list[int]] = {}
    for row, column in enumerate(result.columns):
        groups.setdefault(result.encoders[column.model], []).append(row)
    return groups
