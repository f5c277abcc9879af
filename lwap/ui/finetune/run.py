"""One run: how it is, what can be done with it, its numbers."""

from __future__ import annotations

import time

import pandas as pd
import streamlit as st

from lwap import jobs
from lwap.errors import LwapError
from lwap.jobs.events import History
from lwap.jobs.folder import CONFIG, LOG, METRICS, Run
from lwap.jobs.state import State
from lwap.ui import frame, links, widgets
from lwap.ui.finetune import curves
from lwap.ui.finetune.known import Known, dev_words, duration, history, share_of, when
from lwap.ui.frame import escape, say_error, say_outcome
from lwap.ui.model_words import dev_score_line, gains

LOG_LINES = 200
RECENT = 20  # steps whose pace is shown
SAID_SECONDS = 10.0  # for which a message stays
RUN, _SAID, _ASKS = "run", "runs_said", "runs_asks"


def follow(run: Run, was_active: bool) -> None:
    """Draw a run; at work, anew every other second."""
    if not (run.folder / CONFIG).is_file():
        st.rerun()  # deleted elsewhere, which the page says
    known = Known.of(run)
    if known.state.is_active != was_active:
        st.rerun()  # what stands below changes, too
    say_what_happened()
    _state_line(known)
    found = history(run)
    _actions(known)
    if st.session_state.get(_ASKS) == run.name and not known.state.is_active:
        _delete_box(known)
    if known.info is not None and known.state == State.FINISHED:
        _results(known)
    if known.problem:
        _log(known)
        return
    if found.steps or found.looks:
        try:
            _numbers(known, found)
            curves.draw([curves.course_of(known, found)], curves.dev_title([known]))
        except (ValueError, TypeError) as error:
            st.warning(
                f"The curves cannot be drawn: {METRICS} is damaged ({escape(str(error))}). The run "
                "itself does not read it.",
                icon=":material/error:",
            )
    _settings(known)
    _log(known)


def _state_line(known: Known) -> None:
    state, status = known.state, known.status
    if known.problem:
        say_error(f"{known.problem} All that can be done with it is to delete it.")
    elif state == State.QUEUED:
        st.progress(0.0, text=f"**Queued.** {escape(known.why)}")
    elif state == State.PREPARING:
        share = share_of(status.done, status.total)
        text = "Starting: libraries and the encoder."
        if share:
            text = f"Sentences encoded: {status.done:,} of {status.total:,}."
        st.progress(share, text=f"**Preparing.** {text}")
    elif state in (State.TRAINING, State.STOPPING, State.SAVING):
        text = {
            State.TRAINING: "**Training.**",
            State.STOPPING: "**Stopping** after this step, with a checkpoint.",
            State.SAVING: "**Saving** the model and measuring it once more.",
        }[state]
        if known.is_counted:
            text += f" Step {status.step:,} of {status.steps:,}"
            left = history(known.run).seconds_left() if state == State.TRAINING else None
            text += f", about {duration(left)} left." if left is not None else "."
        st.progress(known.progress, text=text)
    elif state == State.FINISHED:
        said = f" {escape(known.why)}" if known.why else ""
        st.success(f"**Finished.**{said}", icon=":material/check:")
    elif state == State.STOPPED:
        st.info(escape(known.why), icon=":material/pause:")
    elif state == State.FAILED:
        st.error(f"**Failed.** {escape(known.why)}", icon=":material/error:")
    else:
        st.warning(f"**Vanished.** {escape(known.why)}", icon=":material/warning:")


def _actions(known: Known) -> None:
    run, state = known.run, known.state
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        if state == State.FINISHED and known.info is not None:
            if links.use_model_button(run.name, "run_use"):
                st.rerun()  # the sidebar, too
            links.model_card(run.name)
        if state.is_active:
            st.button(
                "Stop",
                disabled=state in (State.STOPPING, State.SAVING),
                help="After the current step, with a checkpoint from which it can be resumed.",
                on_click=_do,
                args=("stop", run),
                key="run_stop",
            )
        can_resume = state.can_resume and not known.problem
        if can_resume and st.button(
            "Resume",
            type="primary",
            help="Continues from its last checkpoint, with the same losses as without the break.",
            on_click=_do,
            args=("resume", run),
            key="run_resume",
        ):
            st.rerun()  # its state is followed again
        if not state.is_active:
            st.button("Delete", on_click=_ask, args=(run.name,), key="run_delete")
        for label, file, kind in (
            ("Metrics", METRICS, "application/x-ndjson"),
            ("Log", LOG, "text/plain"),
        ):
            path = run.folder / file
            if path.is_file():
                st.download_button(
                    label,
                    # Called once somebody clicks; the default binds it to this path.
                    lambda path=path: path.read_bytes() if path.is_file() else b"",  # type: ignore[misc]
                    f"{run.name}-{file}",
                    kind,
                    icon=":material/download:",
                    on_click="ignore",
                    key=f"run_{label.lower()}",
                )


def _do(what: str, run: Run) -> None:
    st.session_state.pop(_SAID, None)
    try:
        {"stop": jobs.stop, "resume": jobs.resume}[what](run)
    except LwapError as error:
        _say("error", str(error))


def _ask(name: str) -> None:
    st.session_state.pop(_SAID, None)
    st.session_state[_ASKS] = name


def ask_nothing() -> None:
    """Take back the question whether to delete a run."""
    st.session_state.pop(_ASKS, None)


def _delete_box(known: Known) -> None:
    run = known.run
    lost = ["its settings and its curves"]
    if (checkpoint := run.checkpoint) is not None:
        lost.append(f"the checkpoint of step {checkpoint:,}, from which it could be resumed")
    if run.has_model:
        lost.append("its model with card and scores")
    question = (
        f"**Delete {escape(run.name)}?** Lost are {', '.join(lost)} "
        f"({run.size_bytes / 1e6:.1f} MB); there is no way back."
    )
    if widgets.ask_to_delete(question, "run", delete=_delete, of=run, keep=ask_nothing):
        st.rerun()


def _delete(run: Run) -> None:
    try:
        jobs.delete(run)
    except LwapError as error:
        _say("error", str(error))
        return
    st.session_state.pop(RUN, None)
    links.put(RUN, [])
    ask_nothing()
    _say("success", f"'{run.name}' is deleted.")


def _say(kind: str, text: str) -> None:
    st.session_state[_SAID] = (kind, text, time.monotonic())


def say_what_happened() -> None:
    """Say what became of the last thing that was asked for, for as long as it takes to read."""
    kind, text, since = st.session_state.get(_SAID, ("", "", 0.0))
    if time.monotonic() - since > SAID_SECONDS:
        st.session_state.pop(_SAID, None)
        return
    say_outcome(kind, text)


def _numbers(known: Known, history: History) -> None:
    last = history.steps[-1] if history.steps else {}
    best = history.best
    recent = history.steps[-RECENT:]
    seconds = sum(row.get("seconds", 0.0) for row in recent)
    facts = {
        "Step": f"{last.get('step', 0):,} of {history.planned:,}",
        "Loss": f"{last['loss']:.4f}" if "loss" in last else "–",
        "Best dev": f"{best['dev']:.2f} at step {best['step']:,}".replace("-", "−")
        if best
        else "–",
        "Rows per second": f"{sum(row.get('rows', 0) for row in recent) / seconds:,.0f}"
        if seconds
        else "–",
    }
    if known.state == State.TRAINING and (left := history.seconds_left()) is not None:
        facts["Time left"] = duration(left)
    with st.container(horizontal=True, gap="large", key="run_numbers"):
        for label, value in facts.items():
            st.markdown(f"{label}  \n**{value}**", width="content")


def _results(known: Known) -> None:
    info = known.info
    lines = dev_score_line(info)
    if not lines and (words := dev_words(info)):
        lines.append(f"**Held out** the right sentence comes first in {words} of the rows")
    lines += gains(info)
    if (step := info.results.get("best_step")) is not None:
        lines.append(f"**Best step** {step:,}")
    st.markdown("  \n".join(lines))


def _settings(known: Known) -> None:
    request = known.request
    with st.expander("Settings and data", icon=":material/tune:"):
        rows = [
            {
                "Setting": name,
                "Value": "the default" if value is None else str(value),
                "Set": "changed" if name in request.given else "",
            }
            for name, value in known.config.items()
        ]
        left, right = st.columns(2, gap="large")
        left.dataframe(pd.DataFrame(rows), hide_index=True, height=320)
        rows_words = f"{request.rows:,}" if isinstance(request.rows, int) else str(request.rows)
        lines = [
            f"**Data** {escape(str(request.data_name))}, {rows_words} rows",
            f"**Dev set** {escape(str(request.dev_name))}",
            f"**Requested** {when(request.created_at)}",
            f"**Folder** `{frame.place(known.run.folder)}`",
        ]
        right.markdown("  \n".join(lines))
        if request.command:
            right.caption("The same from the command line:")
            right.code(str(request.command), language="bash", wrap_lines=True)


def _log(known: Known) -> None:
    if text := known.run.log_tail(LOG_LINES):
        with st.expander("Log", icon=":material/article:"):
            st.code(text, language=None, height=300)
