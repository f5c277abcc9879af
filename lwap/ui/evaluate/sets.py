"""What a result can be explored by: its sets of pairs, and menus of its parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from lwap.evaluation.result import StsResult
from lwap.evaluation.tasks import Task
from lwap.ui.state import phenomena

TOGETHER = "all together"
NOTHING_RANKED = (
    "No strategy tells these pairs apart: there is nothing to rank. Choose other strategies above, "
    "or pairs of sentences that differ."
)


def sets_of(result: StsResult) -> dict[str, tuple[Task, np.ndarray]]:
    """Return what can be explored by name: pairs, and their cosines (K, P) under each column.

    The sample's phenomena are small, and can be looked at together as well.
    """
    sets = {
        task.name: (task, cosines)
        for task, cosines in zip(result.tasks, result.cosines, strict=True)
    }
    if not is_sample(result.tasks):
        return sets
    together = Task(
        name=TOGETHER,
        first=tuple(text for task in result.tasks for text in task.first),
        second=tuple(text for task in result.tasks for text in task.second),
        gold=np.concatenate([task.gold for task in result.tasks]),
        subsets=tuple(task.name for task in result.tasks for _ in task.first),
        sha256="",
    )
    return {TOGETHER: (together, np.concatenate(result.cosines, axis=1)), **sets}


def menu(label: str, options: list[str], key: str, default: str | None = None) -> str:
    """Draw a menu whose choice is kept as long as it is an option."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = default if default in options else options[0]
    return st.selectbox(label, options, key=key, persist_state="session")


def is_sample(tasks: Sequence[Task]) -> bool:
    """Return whether these are the sample's tasks."""
    return [task.name for task in tasks] == [entry["title"] for entry in phenomena()]
