"""What is known of a run at one moment, and how it is said."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import streamlit as st

from lwap import figures
from lwap.checkpoints.manifest import CheckpointInfo, read_info
from lwap.errors import LwapError
from lwap.jobs import control
from lwap.jobs.events import Followed, History
from lwap.jobs.folder import Request, Run, Status
from lwap.jobs.state import State
from lwap.library.results import dev_score
from lwap.ui.model_words import in_words

EVERY = 2.0  # seconds between two looks at a run that is at work
_FOLLOWED = "runs_followed"


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
    def progress(self) -> float:
        """How far it is, 0 to 1."""
        if self.state == State.FINISHED:
            return 1.0
        return share_of(self.status.step, self.status.steps)

    @property
    def is_counted(self) -> bool:
        """Whether its worker has said how many steps there are."""
        step, steps = self.status.step, self.status.steps
        return isinstance(step, int) and isinstance(steps, int) and steps > 0

    @property
    def has_accuracy(self) -> bool:
        """Whether its dev score is how often the right sentence comes first."""
        return self.request is not None and not self.request.dev_sha256


def share_of(done: Any, total: Any) -> float:
    """Return done by total, 0 to 1; 0 where a damaged file says nothing of use."""
    if not all(isinstance(each, int | float) for each in (done, total)) or total <= 0:
        return 0.0
    return min(1.0, max(0.0, done / total))


def dev_words(info: CheckpointInfo) -> str:
    """Return the dev score of a run's model in words, "" without one."""
    if score := dev_score(info):
        return in_words(score)
    accuracy = info.results.get("dev_accuracy")
    return f"{accuracy:.1f} %" if isinstance(accuracy, int | float) else ""


def history(run: Run) -> History:
    """Return what happened in a run; what was read before is not read again."""
    readers: dict[str, Followed] = st.session_state.setdefault(_FOLLOWED, {})
    key = str(run.folder)
    reader = readers.pop(key, None) or Followed(run)
    readers[key] = reader
    for old in list(readers)[: -figures.MOST_RUNS - 2]:
        del readers[old]
    return reader.read()


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


def when(moment: Any) -> str:
    """Return a moment in local time, as short as a table wants it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(moment)))
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
