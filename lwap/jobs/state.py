"""In which state a run is: one pure function of what its folder and its process show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What a worker last wrote that it does."""

    NEW = "new"  # nothing was written yet
    QUEUED = "queued"
    PREPARING = "preparing"  # reading data, loading the encoder, encoding
    TRAINING = "training"
    SAVING = "saving"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class State(StrEnum):
    """What a person is told."""

    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    SAVING = "saving"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"  # it was asked to, and said goodbye
    FAILED = "failed"  # an error, which is written down
    VANISHED = "vanished"  # killed, or gone with the machine: it said nothing

    @property
    def is_active(self) -> bool:
        """Whether a process works on it or waits for its turn."""
        return self in _ACTIVE

    @property
    def can_resume(self) -> bool:
        """Whether it can go on where it ended."""
        return self in {State.STOPPED, State.FAILED, State.VANISHED}


_ACTIVE = {State.QUEUED, State.PREPARING, State.TRAINING, State.SAVING, State.STOPPING}
_OF_LIVING = {
    Phase.NEW: State.PREPARING,
    Phase.QUEUED: State.QUEUED,
    Phase.PREPARING: State.PREPARING,
    Phase.TRAINING: State.TRAINING,
    Phase.SAVING: State.SAVING,
}
_OF_ENDED = {
    Phase.FINISHED: State.FINISHED,
    Phase.STOPPED: State.STOPPED,
    Phase.FAILED: State.FAILED,
}


@dataclass(frozen=True)
class Facts:
    """What can be seen of a run from outside.

    Attributes:
        phase: What its worker last wrote.
        is_alive: Whether that worker's process is there.
        wants_stop: Whether it was asked to stop.
        has_model: Whether its model is written; it is written whole, at the end.
    """

    phase: Phase
    is_alive: bool
    wants_stop: bool = False
    has_model: bool = False


def state_of(facts: Facts) -> State:
    """Return a run's state.

    A worker that is gone without a last word has vanished, unless its model is there: then only
    the last word is missing.
    """
    if facts.phase in _OF_ENDED:
        return _OF_ENDED[facts.phase]
    if not facts.is_alive:
        return State.FINISHED if facts.has_model else State.VANISHED
    if facts.wants_stop and facts.phase != Phase.SAVING:  # too late: it will be finished
        return State.STOPPING
    return _OF_LIVING[facts.phase]
