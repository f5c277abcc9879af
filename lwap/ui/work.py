"""Work that outlives a rerun: one thread each, found again by what was asked, shared by sessions.

A page asks for a request and gets what there is of it so far; leaving the page stops nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from lwap.errors import LwapError

HEARD = 0.2  # seconds after which one that waits for its turn hears that it was stopped
WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"

_log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True)
class Work:
    """One piece of work, and how far it is. Written by its thread, read by pages.

    Attributes:
        state: "waiting", "running", "done", "failed" or "stopped".
        done, total: Steps done, and to do.
        error: What went wrong, for the person.
        seconds: How long it ran.
    """

    NAME = "a piece of work"  # in the log and in messages

    state: str = WAITING
    done: int = 0
    total: int = 0
    error: str = ""
    seconds: float = 0.0
    _began: float = 0.0  # the steps that are counted
    _stopping: threading.Event = field(default_factory=threading.Event)
    _finished: threading.Event = field(default_factory=threading.Event)

    @property
    def is_active(self) -> bool:
        """Whether its thread is still at work."""
        return self.state in (WAITING, RUNNING)

    @property
    def remaining(self) -> float | None:
        """Seconds that the steps will still take at their pace; None while that is unknown."""
        spent = time.monotonic() - self._began
        if not self._began or spent < 2 or not self.done:
            return None
        return spent * (self.total - self.done) / self.done

    def stop(self) -> None:
        """Ask the thread to end after the step that it is at; what is finished stays."""
        self._stopping.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, at most so long; return whether it has."""
        return self._finished.wait(seconds)

    def run(self, models: dict[str, Any], turn: threading.Lock) -> None:
        """Do the work when it is its turn; the body of the thread."""
        try:
            with self._in(turn):  # one at a time: two would only slow each other down
                self.state = RUNNING
                started = time.monotonic()
                self.compute(models)
                self.seconds = time.monotonic() - started
                self.state = DONE
        except Stopped:
            self.state = STOPPED
        except LwapError as error:
            self.error, self.state = str(error), FAILED
        except Exception:
            _log.exception("%s failed", self.NAME)
            self.error = f"An unexpected error ended {self.NAME}; the server's log has it."
            self.state = FAILED
        finally:
            self._finished.set()

    def compute(self, models: dict[str, Any]) -> None:
        """Do the work with the models it asked for, by name."""
        raise NotImplementedError

    def advance(self, done: int, total: int) -> None:
        """Note how far it is; ends the thread if that was asked for."""
        self._began = self._began or time.monotonic()
        self.done, self.total = done, total
        self.check()

    def check(self) -> None:
        """End the thread if that was asked for."""
        if self._stopping.is_set():
            raise Stopped

    @contextlib.contextmanager
    def _in(self, turn: threading.Lock) -> Iterator[None]:
        """Hold the lock; while waiting for it, a stop is heard."""
        while not turn.acquire(timeout=HEARD):
            self.check()
        try:
            self.check()
            yield
        finally:
            turn.release()


class Stopped(Exception):
    """Ends the thread of work that a person stopped."""


W = TypeVar("W", bound=Work)


class Registry(Generic[W]):
    """Pieces of work of one kind on this server, by request; the oldest that ended go first."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.lock = threading.Lock()
        self.turn = threading.Lock()
        self.found: OrderedDict[Hashable, W] = OrderedDict()

    def find(self, request: Hashable) -> W | None:
        """Return the work of a request, if it was asked for since the server started."""
        with self.lock:
            if request in self.found:
                self.found.move_to_end(request)  # being looked at: the last to go
            return self.found.get(request)

    def forget(self, work: W) -> None:
        """Drop a piece of work, so that the next one that asks for it starts it anew."""
        with self.lock:
            for request in [key for key, found in self.found.items() if found is work]:
                del self.found[request]

    def start(self, request: Hashable, make: Callable[[], W], models: dict[str, Any]) -> W:
        """Return the work of a request; start it where there is none, or it did not end well."""
        with self.lock:
            found = self.found.get(request)
            if found is None or found.state in (FAILED, STOPPED):
                found = self.found[request] = make()
                threading.Thread(
                    target=found.run, args=(models, self.turn), daemon=True, name=found.NAME
                ).start()
            self.found.move_to_end(request)
            for old in list(self.found)[: max(0, len(self.found) - self.kept)]:
                if not self.found[old].is_active:
                    del self.found[old]
        return found
