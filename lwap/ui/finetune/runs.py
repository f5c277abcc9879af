"""All runs of the Fine-tune page, and the way to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lwap import jobs
from lwap.jobs import control
from lwap.jobs.state import State
from lwap.ui import change, links, widgets
from lwap.ui.finetune import run as one_run
from lwap.ui.finetune.known import EVERY, Known, dev_words, when
from lwap.ui.finetune.run import RUN
from lwap.ui.frame import escape, say_gone

NEW, RUNS, COMPARE = VIEWS = ["New run", "Runs", "Compare"]
VIEW, _ACTIVE = "train_view", "runs_active"
_LISTED_ROWS = 5  # of the table, before it scrolls


def show_run(name: str) -> None:
    """Open a run; for callbacks."""
    st.session_state[RUN] = name
    st.session_state[VIEW] = RUNS


def view() -> str:
    """Draw the choice between a new run, one that is there, and several; return it."""
    opens_on = RUNS if st.query_params.get(RUN) else NEW
    # Streamlit warns of a default beside a value that was set.
    default = None if VIEW in st.session_state else opens_on
    chosen = widgets.views("View", VIEWS, VIEW, default=default)
    if chosen != RUNS:
        links.put(RUN, [])
    return chosen


def say_at_work() -> None:
    """Say which runs are at work, with a way to them."""
    active = [run for run in jobs.list_runs() if control.state(run).is_active]
    if not active:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="train_at_work"):
        names = ", ".join(escape(run.name) for run in active)
        st.caption(f"Running: {names}. A new run waits for its turn.", width="content")
        st.button("Watch", on_click=show_run, args=(active[-1].name,), key="train_watch")


def watch() -> None:
    """Draw all runs, and the one that is chosen."""
    found = jobs.list_runs()
    if not found:
        one_run.say_what_happened()
        _say_gone([])
        st.info("There are no runs yet. Start one under *New run*: the example takes a minute.")
        return
    names = [run.name for run in found]
    chosen = found[names.index(_chosen(names))]
    every = EVERY if any(control.state(run).is_active for run in found) else None
    st.fragment(_table, run_every=every)(names)
    st.selectbox("Run", names, key=RUN, persist_state="session", on_change=one_run.ask_nothing)
    # Not bind="query-params": that leaves the first one out, and a newer run takes its place.
    links.put(RUN, [chosen.name])
    is_active = control.state(chosen).is_active
    st.fragment(one_run.follow, run_every=EVERY if is_active else None)(chosen, is_active)
    if control.state(chosen) == State.FINISHED and not is_active:
        st.subheader("What did it change?", anchor=False)
        change.card(chosen.name)


def _chosen(names: Sequence[str]) -> str:
    """Return the run that is looked at: the link's, the last one chosen, or the newest."""
    _say_gone(names)
    if st.session_state.get(RUN) not in names:
        linked = st.query_params.get(RUN)
        st.session_state[RUN] = linked if linked in names else names[0]
    return st.session_state[RUN]


def _say_gone(names: Sequence[str]) -> None:
    wanted = st.session_state.get(RUN) or st.query_params.get(RUN)
    if wanted and wanted not in names:
        st.session_state.pop(RUN, None)
        one_run.ask_nothing()
        say_gone(wanted)


def _table(names: Sequence[str]) -> None:
    found = [Known.of(run) for run in jobs.list_runs()]
    if [known.name for known in found] != list(names):
        st.rerun()  # one was started or deleted elsewhere
    if st.session_state.get(_ACTIVE) and not any(known.state.is_active for known in found):
        st.session_state[_ACTIVE] = False
        st.rerun()
    st.session_state[_ACTIVE] = any(known.state.is_active for known in found)
    rows = pd.DataFrame([_row(known) for known in found])
    st.dataframe(
        rows,
        hide_index=True,
        height=38 + 35 * min(len(rows), _LISTED_ROWS),
        key="runs_table",
        column_config={
            "Run": st.column_config.TextColumn(pinned=True),
            "Progress": st.column_config.ProgressColumn(
                min_value=0, max_value=100, format="%d %%", width=110
            ),
            "Dev": st.column_config.TextColumn(
                help="Of its model: Spearman × 100 with 95 % interval, or accuracy in percent "
                "where rows were held out."
            ),
        },
    )


def _row(known: Known) -> dict[str, Any]:
    row = {
        "Run": known.name,
        "State": str(known.state),
        "Progress": round(100 * known.progress),
        "Dev": "",
    }
    row |= {"Trained": "", "Data": "", "Started": ""}
    if known.problem:
        return row | {"State": "damaged"}
    if known.info is not None:
        row["Dev"] = dev_words(known.info)
    config = known.config
    row["Trained"] = f"{config.get('mode', '')}, {config.get('pooling', '')}"
    row["Data"] = str(known.request.data_name)
    row["Started"] = when(known.request.created_at)
    return row
