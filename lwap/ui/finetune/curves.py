"""Curves of runs, one or several over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import streamlit as st

from lwap import figures, jobs
from lwap.checkpoints.manifest import CheckpointInfo
from lwap.jobs.events import History
from lwap.jobs.folder import CONFIG, DATA, METRICS, Run
from lwap.registry import OBJECTIVES
from lwap.ui import links, widgets
from lwap.ui.finetune.known import EVERY, Known, dev_words, history
from lwap.ui.frame import escape

_COMPARED = "runs"


def course_of(known: Known, history: History) -> figures.RunCurves:
    """Return a run's history as figures take it.

    Raises:
        ValueError, TypeError: If the history is damaged.
    """
    steps, looks = history.steps, history.looks
    columns = _columns(known)

    def of(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
        return [float(row.get(name, float("nan"))) for row in rows]

    best = history.best
    return figures.RunCurves(
        name=known.name,
        total=max(1, history.planned),
        steps=of(steps, "step"),
        loss=of(steps, "loss"),
        gradient_norm=of(steps, "grad_norm"),
        learning_rate=of(steps, "learning_rate"),
        sentences_per_second=[
            columns * rows / seconds if seconds > 0 else float("nan")
            for rows, seconds in zip(of(steps, "rows"), of(steps, "seconds"), strict=True)
        ],
        dev_steps=of(looks, "step"),
        dev=of(looks, "dev"),
        alignment=of(looks, "alignment"),
        uniformity=of(looks, "uniformity"),
        layer_weights=[look.get("layer_weights") for look in looks] if looks else None,
        best=best["step"] if best else None,
        untouched=untouched(known, history),
    )


def _columns(known: Known) -> int:
    """Return how many sentences a row has."""
    objective = OBJECTIVES.get(known.config.get("objective"))
    if objective is not None and not objective.has_positives:
        return 1
    try:
        return len(_column_names(str(known.run.folder / DATA)))
    except (OSError, ValueError):  # pyarrow's errors are of these
        return 1


@st.cache_data(show_spinner=False, max_entries=64)
def _column_names(path: str) -> list[str]:
    return pq.read_schema(path).names


def untouched(known: Known, history: History) -> float | None:
    """Return the untouched encoder's mean on what the run's best step is chosen on, if known."""
    return history.untouched if history.untouched is not None else _mean_of(known.info)


def _mean_of(info: CheckpointInfo | None) -> float | None:
    scores = info.results.get("dev_spearman") if info else None
    found = scores.get("mean") if isinstance(scores, dict) else None
    value = found.get("value") if isinstance(found, dict) else None
    return float(value) if isinstance(value, int | float) else None


def dev_title(found: Sequence[Known]) -> str:
    """Return what the dev scores of runs are called."""
    kinds = {known.has_accuracy for known in found}
    if kinds == {True}:
        return "accuracy, %"
    return "Spearman × 100" if kinds == {False} else "score"


def draw(courses: list[figures.RunCurves], dev_title: str, key: str = "run") -> None:
    """Draw the curves of one run, or of several over each other."""
    one = courses[0] if len(courses) == 1 else courses
    widgets.draw(f"{key}-course", figures.training_curves, one, dev_title=dev_title)
    has_weights = len(courses) == 1 and courses[0].layer_weights is not None
    if has_weights:
        left, right = st.columns(2, gap="large")
        with left:
            widgets.draw(f"{key}-weights-over-time", figures.weights_over_time, courses[0])
    else:
        right = st.container()
    with right:
        widgets.draw(f"{key}-plane-path", figures.alignment_uniformity_path, one)
    with st.expander("Gradient norm and learning rate", key=f"{key}_optimisation"):
        widgets.draw(f"{key}-optimisation", figures.optimisation_curves, one)


def compare() -> None:
    """Draw up to six runs over each other, and where their settings differ."""
    found = {known.name: known for known in map(Known.of, jobs.list_runs()) if not known.problem}
    drawn = {name: known for name, known in found.items() if (known.run.folder / METRICS).is_file()}
    if not drawn:
        st.info("There is no run with a curve yet. Start one under *New run*.")
        return
    names = list(drawn)
    kept = [name for name in st.session_state.get(_COMPARED, names[:2]) if name in names]
    if _COMPARED in st.session_state and st.session_state[_COMPARED] != kept:
        st.session_state[_COMPARED] = kept  # one was deleted
    chosen = st.multiselect(
        "Runs",
        names,
        default=None if _COMPARED in st.session_state else names[:2],
        max_selections=figures.MOST_RUNS,
        key=_COMPARED,
        help=f"Up to {figures.MOST_RUNS}.",
        **links.BOUND,
    )
    if not chosen:
        st.info("No run is chosen. Pick one or more above.")
        return
    is_active = any(drawn[name].state.is_active for name in chosen)
    st.fragment(_compare, run_every=EVERY if is_active else None)([drawn[n].run for n in chosen])


def _compare(chosen: Sequence[Run]) -> None:
    if not all((run.folder / CONFIG).is_file() for run in chosen):
        st.rerun()  # deleted elsewhere
    found = [Known.of(run) for run in chosen]
    if len({known.request and known.request.dev_sha256 for known in found}) > 1:
        st.warning(
            "These runs were measured on different dev sets: their dev scores, alignment and "
            "uniformity cannot be compared.",
            icon=":material/info:",
        )
    courses = []
    for known in found:
        try:
            courses.append(course_of(known, history(known.run)))
        except (ValueError, TypeError) as error:
            st.warning(
                f"'{escape(known.name)}' is left out: {METRICS} is damaged ({escape(str(error))}).",
                icon=":material/error:",
            )
    if courses:
        draw(courses, dev_title(found), key="compared")
    st.subheader("What differs", anchor=False)
    st.dataframe(differences(found), key="runs_differences")


def differences(found: Sequence[Known]) -> pd.DataFrame:
    """Return a row for each setting that is not the same in all runs, and how they ended."""
    columns: dict[str, dict[str, str]] = {}
    for known in found:
        request = known.request
        facts = {name: str(value) for name, value in known.config.items()}
        facts |= {
            "data": f"{request.data_name} ({request.rows} rows)",
            "dev set": str(request.dev_name),
        }
        columns[known.name] = facts
    table = pd.DataFrame(columns).fillna("")
    table = table[table.nunique(axis=1) > 1]
    ends = pd.DataFrame(
        {
            known.name: {
                "state": str(known.state),
                "dev score": dev_words(known.info) if known.info else "",
            }
            for known in found
        }
    )
    return pd.concat([ends, table])
