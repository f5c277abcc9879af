"""Training runs on the Fine-tune page: all of them, one that is followed, several compared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import streamlit as st

from lwap import figures, jobs
from lwap.checkpoints.manifest import CheckpointInfo, read_info
from lwap.errors import LwapError
from lwap.jobs import control
from lwap.jobs.events import Followed, History
from lwap.jobs.folder import CONFIG, DATA, LOG, METRICS, Request, Run, Status
from lwap.jobs.state import State
from lwap.library.stored import dev_score
from lwap.registry import OBJECTIVES
from lwap.ui import change, frame, widgets
from lwap.ui.frame import escape, theme
from lwap.ui.models import gains, in_words
from lwap.ui.state import put_in_link

NEW, RUNS, COMPARE = VIEWS = ["New run", "Runs", "Compare"]
VIEW, RUN, COMPARED = "train_view", "run", "runs"
EVERY = 2.0  # seconds between two looks at a run that is at work
SAID_SECONDS = 10.0  # for which a message stays
LOG_LINES = 200
RECENT = 20  # steps whose pace is shown
_SAID, _ASKS = "runs_said", "runs_asks"
_FOLLOWED, _ACTIVE = "runs_followed", "runs_active"
_LISTED_ROWS = 5  # of the table, before it scrolls


# --- what there is ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a run at one moment.

    Attributes:
        run: The run.
        state: How it is.
        why: That in a sentence, or "".
        status: What its worker last said.
        request: What was asked for; None where that cannot be read.
        problem: Why it cannot be read, or "".
        info: What its model says of itself; None without one that can be read.
    """

    run: Run
    state: State
    why: str
    status: Status
    request: Request | None
    problem: str
    info: CheckpointInfo | None

    @classmethod
    def of(cls, run: Run) -> Known:
        """Look at a run."""
        request, problem, info = None, "", None
        try:
            request = run.request
        except LwapError as error:
            problem = str(error)
        if run.has_model:
            with contextlib.suppress(LwapError):
                info = read_info(run.model_folder, run.name)
        return cls(run, control.state(run), control.why(run), run.status, request, problem, info)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def config(self) -> dict[str, Any]:
        """Its settings; empty where they cannot be read."""
        found = self.request.config if self.request else {}
        return dict(found) if isinstance(found, dict) else {}

    @property
    def share(self) -> float:
        """How far it is, 0 to 1."""
        if self.state == State.FINISHED:
            return 1.0
        return _share(self.status.step, self.status.steps)

    @property
    def is_counted(self) -> bool:
        """Whether its worker has said how many steps there are."""
        step, steps = self.status.step, self.status.steps
        return isinstance(step, int) and isinstance(steps, int) and steps > 0

    @property
    def has_accuracy(self) -> bool:
        """Whether its dev score is how often the right sentence comes first."""
        return self.request is not None and not self.request.dev_sha256


def _share(done: Any, total: Any) -> float:
    """Return done by total, 0 to 1; 0 where a damaged file says nothing of use."""
    if not all(isinstance(each, int | float) for each in (done, total)) or total <= 0:
        return 0.0
    return min(1.0, max(0.0, done / total))


def show_run(name: str) -> None:
    """Open a run; for callbacks."""
    st.session_state[RUN] = name
    st.session_state[VIEW] = RUNS


def view() -> str:
    """Draw the choice between a new run, one that is there, and several; return it."""
    opens_on = RUNS if st.query_params.get(RUN) else NEW
    chosen = st.segmented_control(
        "View",
        VIEWS,
        # Streamlit warns of a default beside a value that was set.
        default=None if VIEW in st.session_state else opens_on,
        key=VIEW,
        bind="query-params",
        persist_state="session",
        required=True,
        label_visibility="collapsed",
    )
    if chosen != RUNS:
        put_in_link(RUN, [])
    return chosen


def say_at_work() -> None:
    """Say which runs are at work, with a way to them."""
    active = [run for run in jobs.list_runs() if control.state(run).is_active]
    if not active:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="train_at_work"):
        names = ", ".join(escape(run.name) for run in active)
        text = f"At work: {names}." + (" A new run waits for its turn." if active else "")
        st.caption(text, width="content")
        st.button("Watch", on_click=show_run, args=(active[-1].name,), key="train_watch")


# --- one run ------------------------------------------------------------------------------------


def watch() -> None:
    """Draw all runs, and the one that is chosen."""
    found = jobs.list_runs()
    if not found:
        _say_what_happened()
        _say_gone([])
        st.info("There are no runs yet. Start one under *New run*: the example takes a minute.")
        return
    names = [run.name for run in found]
    chosen = found[names.index(_chosen(names))]
    every = EVERY if any(control.state(run).is_active for run in found) else None
    st.fragment(_table, run_every=every)(names)
    st.selectbox(
        "Run",
        names,
        key=RUN,
        persist_state="session",
        on_change=_ask_nothing,
    )
    # Not bind="query-params": that leaves the first one out, and a newer run takes its place.
    put_in_link(RUN, [chosen.name])
    is_active = control.state(chosen).is_active
    st.fragment(_follow, run_every=EVERY if is_active else None)(chosen, is_active)
    if control.state(chosen) == State.FINISHED and not is_active:
        _change(chosen.name)


def _change(name: str) -> None:
    st.subheader("What did it change?", anchor=False)
    change.card(name)


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
        _ask_nothing()
        st.warning(
            f"There is no run '{escape(wanted)}' any more: it was deleted or renamed.",
            icon=":material/info:",
        )


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
        width="stretch",
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
        "Progress": round(100 * known.share),
        "Dev": "",
    }
    row |= {"Trained": "", "Data": "", "Started": ""}
    if known.problem:
        return row | {"State": "damaged"}
    if known.info is not None:
        row["Dev"] = _dev_words(known.info)
    config = known.config
    row["Trained"] = f"{config.get('mode', '')}, {config.get('pooling', '')}"
    row["Data"] = str(known.request.data_name)
    row["Started"] = when(known.request.created_at)
    return row


def when(moment: Any) -> str:
    """Return a moment in local time, as short as a table wants it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(moment)))
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _dev_words(info: CheckpointInfo) -> str:
    if score := dev_score(info):
        return in_words(score)
    accuracy = info.results.get("dev_accuracy")
    return f"{accuracy:.1f} %" if isinstance(accuracy, int | float) else ""


def _follow(run: Run, was_active: bool) -> None:
    """Draw a run; at work, anew every other second."""
    if not (run.folder / CONFIG).is_file():
        st.rerun()  # deleted elsewhere, which the page says
    known = Known.of(run)
    if known.state.is_active != was_active:
        st.rerun()  # what stands below changes, too
    _say_what_happened()
    _state_line(known)
    history = _history(run)
    _actions(known)
    if st.session_state.get(_ASKS) == run.name and not known.state.is_active:
        _delete_box(known)
    if known.info is not None and known.state == State.FINISHED:
        _results(known)
    if known.problem:
        _log(known)
        return
    if history.steps or history.looks:
        try:
            _numbers(known, history)
            _charts([course_of(known, history)], _dev_title([known]))
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
        st.error(
            f"{escape(known.problem)} Nothing can be done with it but delete it.",
            icon=":material/error:",
        )
    elif state == State.QUEUED:
        st.progress(0.0, text=f"**Queued.** {escape(known.why)}")
    elif state == State.PREPARING:
        share = _share(status.done, status.total)
        text = "Starting: libraries and the encoder."
        if share:
            text = f"Sentences encoded: {status.done:,} of {status.total:,}."
        st.progress(share, text=f"**Preparing.** {text}")
    elif state in (State.TRAINING, State.STOPPING, State.SAVING):
        text = {
            State.TRAINING: "**Training.**",
            State.STOPPING: "**Stopping** after this step, with a checkpoint.",
            State.SAVING: "**Saving** the model, measured once more.",
        }[state]
        if known.is_counted:
            text += f" Step {status.step:,} of {status.steps:,}"
            left = _history(known.run).seconds_left() if state == State.TRAINING else None
            text += f", about {duration(left)} left." if left is not None else "."
        st.progress(known.share, text=text)
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
            is_picked = frame.model_name() == run.name
            if st.button(
                "Use this model",
                type="primary",
                disabled=is_picked,
                help="It is the model in the sidebar." if is_picked else None,
                on_click=frame.use_model,
                args=(run.name,),
                key="run_use",
            ):
                st.rerun()  # the sidebar, too
            st.page_link(
                "pages/models.py",
                label="Its card, under Models",
                icon=":material/inventory_2:",
                query_params={"checkpoint": run.name},
            )
        if state.is_active:
            st.button(
                "Stop",
                disabled=state in (State.STOPPING, State.SAVING),
                help="After the step at hand, with a checkpoint; it can be resumed.",
                on_click=_do,
                args=("stop", run),
                key="run_stop",
            )
        can_resume = state.can_resume and not known.problem
        if can_resume and st.button(
            "Resume",
            type="primary",
            help="Goes on from its last checkpoint, to the same losses as without the break.",
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
                    lambda path=path: path.read_bytes() if path.is_file() else b"",
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


def _ask_nothing() -> None:
    st.session_state.pop(_ASKS, None)


def _delete_box(known: Known) -> None:
    run = known.run
    lost = ["its settings and its curves"]
    if (checkpoint := run.checkpoint) is not None:
        lost.append(f"the checkpoint of step {checkpoint:,}, from which it would go on")
    if run.has_model:
        lost.append("its model with card and scores")
    with st.container(border=True):
        st.markdown(
            f"**Delete {escape(run.name)}?** Lost are {', '.join(lost)} "
            f"({run.size_bytes / 1e6:.1f} MB); there is no way back."
        )
        with st.container(horizontal=True):
            if st.button(
                "Delete for good",
                type="primary",
                on_click=_delete,
                args=(run,),
                key="run_delete_now",
            ):
                st.rerun()
            st.button("Keep it", on_click=_ask_nothing, key="run_delete_not")


def _delete(run: Run) -> None:
    try:
        jobs.delete(run)
    except LwapError as error:
        _say("error", str(error))
        return
    st.session_state.pop(RUN, None)
    put_in_link(RUN, [])
    _ask_nothing()
    _say("success", f"'{run.name}' is deleted.")


def _say(kind: str, text: str) -> None:
    st.session_state[_SAID] = (kind, text, time.monotonic())


def _say_what_happened() -> None:
    """Say what became of the last thing that was asked for, for as long as it takes to read."""
    kind, text, since = st.session_state.get(_SAID, ("", "", 0.0))
    if time.monotonic() - since > SAID_SECONDS:
        st.session_state.pop(_SAID, None)
        return
    if kind == "success":
        st.success(escape(text), icon=":material/check:")
    elif kind == "error":
        st.error(escape(text), icon=":material/error:")


# --- its numbers and charts ---------------------------------------------------------------------


def _history(run: Run) -> History:
    """Return what happened in a run; what was read before is not read again."""
    readers: dict[str, Followed] = st.session_state.setdefault(_FOLLOWED, {})
    key = str(run.folder)
    reader = readers.pop(key, None) or Followed(run)
    readers[key] = reader
    for old in list(readers)[: -figures.MOST_RUNS - 2]:
        del readers[old]
    return reader.read()


def course_of(known: Known, history: History) -> figures.Course:
    """Return a run's history as figures take it.

    Raises:
        ValueError, TypeError: If the history is damaged.
    """
    steps, looks = history.steps, history.looks
    columns = _columns(known)

    def of(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
        return [float(row.get(name, float("nan"))) for row in rows]

    best = history.best
    return figures.Course(
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
        looks=of(looks, "step"),
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


def _dev_title(found: Sequence[Known]) -> str:
    kinds = {known.has_accuracy for known in found}
    if kinds == {True}:
        return "accuracy, %"
    return "Spearman × 100" if kinds == {False} else "score"


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
        "Rows a second": f"{sum(row.get('rows', 0) for row in recent) / seconds:,.0f}"
        if seconds
        else "–",
    }
    if known.state == State.TRAINING and (left := history.seconds_left()) is not None:
        facts["Time left"] = duration(left)
    with st.container(horizontal=True, gap="large", key="run_numbers"):
        for label, value in facts.items():
            st.markdown(f"{label}  \n**{value}**", width="content")


def _charts(courses: list[figures.Course], dev_title: str, key: str = "run") -> None:
    one = courses[0] if len(courses) == 1 else courses
    widgets.show(figures.course(one, dev_title=dev_title, theme=theme()), f"{key}-course")
    has_weights = len(courses) == 1 and courses[0].layer_weights is not None
    if has_weights:
        left, right = st.columns(2, gap="large")
        with left:
            widgets.show(
                figures.weights_over_time(courses[0], theme=theme()), f"{key}-weights-over-time"
            )
    else:
        right = st.container()
    with right:
        widgets.show(figures.plane_path(one, theme=theme()), f"{key}-plane-path")
    with st.expander("Gradient norm and learning rate", key=f"{key}_optimisation"):
        widgets.show(figures.optimisation(one, theme=theme()), f"{key}-optimisation")


def duration(seconds: float) -> str:
    """Return a time in words, as coarse as an estimate is.

    >>> duration(41.3), duration(200), duration(9000), duration(400_000)
    ('41 s', '3 min', '2 h 30 min', '4 d 15 h')
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def _results(known: Known) -> None:
    info = known.info
    lines = []
    if score := dev_score(info):
        dev_set = escape(str(info.results.get("dev_set", "its dev set")))
        lines.append(f"**Dev score** {in_words(score)} on {dev_set}")
    elif words := _dev_words(info):
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
        left.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch", height=320)
        rows_words = f"{request.rows:,}" if isinstance(request.rows, int) else str(request.rows)
        lines = [
            f"**Data** {escape(str(request.data_name))}, {rows_words} rows",
            f"**Dev set** {escape(str(request.dev_name))}",
            f"**Asked for** {when(request.created_at)}",
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


# --- several runs -------------------------------------------------------------------------------


def compare() -> None:
    """Draw up to six runs over each other, and what they were asked differently."""
    found = {known.name: known for known in map(Known.of, jobs.list_runs()) if not known.problem}
    drawn = {name: known for name, known in found.items() if (known.run.folder / METRICS).is_file()}
    if not drawn:
        st.info("There is no run with a curve yet. Start one under *New run*.")
        return
    names = list(drawn)
    kept = [name for name in st.session_state.get(COMPARED, names[:2]) if name in names]
    if COMPARED in st.session_state and st.session_state[COMPARED] != kept:
        st.session_state[COMPARED] = kept  # one was deleted
    chosen = st.multiselect(
        "Runs",
        names,
        default=None if COMPARED in st.session_state else names[:2],
        max_selections=figures.MOST_RUNS,
        key=COMPARED,
        bind="query-params",
        persist_state="session",
        help=f"Up to {figures.MOST_RUNS}.",
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
            courses.append(course_of(known, _history(known.run)))
        except (ValueError, TypeError) as error:
            st.warning(
                f"'{escape(known.name)}' is left out: {METRICS} is damaged ({escape(str(error))}).",
                icon=":material/error:",
            )
    if courses:
        _charts(courses, _dev_title(found), key="compared")
    st.subheader("What differs", anchor=False)
    st.dataframe(differences(found), width="stretch", key="runs_differences")


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
                "dev score": _dev_words(known.info) if known.info else "",
            }
            for known in found
        }
    )
    return pd.concat([ends, table])
