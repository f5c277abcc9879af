"""The grid of strategies and layers by tasks, and its downloads."""

from __future__ import annotations

import json

import streamlit as st

from lwap import figures
from lwap.evaluation.result import AVERAGE, StsResult
from lwap.reports.report import html_report, latex_table
from lwap.ui import files, widgets
from lwap.ui.evaluate.evaluations import Evaluation
from lwap.ui.frame import escape, theme


def chosen_columns(result: StsResult, model: str, strategies: list[str]) -> StsResult:
    """Return the result of the chosen strategies, their whitened versions, and every single layer.

    What two models on one encoder have in common stands once. Of models other than `model`, whose
    strategies were chosen from, their own one is there in any case.
    """
    others = [name for name in result.models if name != model]
    wanted = [
        place
        for place, column in enumerate(result.columns)
        if column.is_layer
        or column.strategy.removesuffix("+whiten") in strategies
        or (column.model in others and column.strategy == result.own[column.model])
    ]
    # Each model's strategies, then its layers.
    order = {model: place for place, model in enumerate(result.models)}
    key = [(order[column.model], column.is_layer) for column in result.columns]
    return result.select(sorted(wanted, key=lambda place: key[place])).distinct()


def grid(result: StsResult, *, key: str = "strategy-grid") -> None:
    """Draw strategies and layers × tasks."""
    low, high = result.bounds()
    widgets.show(
        figures.strategy_grid(
            result.values(),
            result.labels,
            result.task_names,
            low=low,
            high=high,
            tied=result.tied(),
            theme=theme(),
        ),
        key,
        on_select=lambda: _choose_clicked(key, result),
        selection_mode="points",
    )


def _choose_clicked(key: str, result: StsResult) -> None:
    place = widgets.clicked(key)
    if len(place) == 2:
        row, column = map(int, place)
        st.session_state["evaluate_strategy"] = result.labels[row]
        if result.task_names[column] != AVERAGE:
            st.session_state["evaluate_task"] = result.task_names[column]


def say_mismatch(result: StsResult) -> None:
    """Say what a model loses or gains by another pooling than it was trained with."""
    table = result.mismatch()
    for model, rows in table[table["significant"]].groupby("model", sort=False):
        parts = []
        for verb, some, sign in (
            ("loses with", rows[rows["cost"] > 0].sort_values("cost"), 1),
            ("gains with", rows[rows["cost"] < 0].sort_values("cost"), -1),
        ):
            found = ", ".join(
                "{} {:.2f} [{:.2f}, {:.2f}]".format(
                    escape(row["strategy"]),
                    sign * row["cost"],
                    *sorted((sign * row["low"], sign * row["high"])),
                )
                for _, row in some.iterrows()
            )
            if found:
                parts.append(f"it {verb} {found}")
        own = escape(rows["trained_with"].iloc[0])
        st.caption(
            f"**{escape(model)} was trained with {own}.** Read with another pooling, in Spearman "
            f"× 100: {'; '.join(parts)}."
        )


def take_away(evaluation: Evaluation, result: StsResult) -> None:
    """Draw the table of all numbers and the downloads."""
    with st.expander("Table and downloads"):
        rows = result.rows()
        st.dataframe(
            rows,
            hide_index=True,
            column_config={
                name: st.column_config.NumberColumn(format="%.2f")
                for name in ("spearman", "low", "high")
            },
        )
        for note in result.notes:
            st.caption(escape(note))
        places = st.columns(4)
        facts = result.provenance()
        names = {
            model: [column.strategy for column in result.columns if column.model == model]
            for model in result.models
        }
        with places[0]:
            files.csv_button("All numbers (CSV)", rows, "lwap-evaluation.csv")
        places[1].download_button(
            "With provenance (JSON)",
            lambda: json.dumps(
                {"rows": json.loads(rows.to_json(orient="records")), **facts}, ensure_ascii=False
            ),
            "lwap-evaluation.json",
            "application/json",
        )
        places[2].download_button(
            "Table (LaTeX)", lambda: latex_table(result), "lwap-evaluation.tex", "text/plain"
        )
        places[3].download_button(
            "Report (HTML)",
            lambda: html_report(
                result,
                [  # the planes that were drawn of what is shown now
                    found
                    for found in list(evaluation.geometries.values())
                    if found.table["strategy"].tolist() == names.get(found.model)
                ],
            ),
            "lwap-report.html",
            "text/html",
            help="One file with figures, tables, data hashes and versions; opens offline.",
        )
