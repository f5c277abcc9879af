"""Evaluations of the Evaluate page: one thread each, shared by all sessions of the server.

A page asks for a request and gets what there is of it so far; leaving the page stops nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import streamlit as st

from lwap.errors import LwapError
from lwap.ui import cache

if TYPE_CHECKING:
    from lwap.evaluation.benchmark import StsResult, Task
    from lwap.evaluation.source import WhitenOn
    from lwap.evaluation.spaces import GeometryResult

KEPT = 8  # evaluations in memory; older ones come back from the cache on disk in a second
HEARD = 0.2  # seconds after which one that waits for its turn hears that it was stopped
WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is evaluated: plain values, by which the same request is recognised.

    Attributes:
        models: One or two names.
        data: Hash of each task's data, in order.
        titles: What the tasks are called.
        whiten_on: Hash of the corpus of "+whiten" strategies, or "".
        fingerprints: Hash of each model: one trained anew under its name is another.
    """

    models: tuple[str, ...]
    data: tuple[str, ...]
    titles: tuple[str, ...]
    whiten_on: str = ""
    fingerprints: tuple[str, ...] = ()


@dataclass(eq=False)
class Evaluation:
    """One evaluation, and how far it is. Written by its thread, read by pages.

    Attributes:
        request: What was asked for.
        tasks: Its tasks.
        whiten_on: The corpus of "+whiten" strategies.
        state: "waiting", "running", "done", "failed" or "stopped".
        done, total: Sentences encoded, and to encode.
        result: Of the tasks that are finished; None before the first one is.
        error: What went wrong, for the person.
        seconds: How long it ran.
    """

    request: Request
    tasks: Sequence[Task]
    whiten_on: WhitenOn | None = None
    state: str = WAITING
    done: int = 0
    total: int = 0
    result: StsResult | None = None
    error: str = ""
    seconds: float = 0.0
    geometries: dict[tuple[str, ...], GeometryResult] = field(default_factory=dict)
    _began: float = 0.0  # encoding
    _stopping: threading.Event = field(default_factory=threading.Event)
    _finished: threading.Event = field(default_factory=threading.Event)

    @property
    def is_active(self) -> bool:
        """Whether its thread is still at work."""
        return self.state in (WAITING, RUNNING)

    @property
    def remaining(self) -> float | None:
        """Seconds that encoding will still take at its pace so far; None while that is unknown."""
        spent = time.monotonic() - self._began
        if not self._began or spent < 2 or not self.done:
            return None
        return spent * (self.total - self.done) / self.done

    def stop(self) -> None:
        """Ask the thread to end after the batch that it is at; finished tasks stay."""
        self._stopping.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, at most so long; return whether it has."""
        return self._finished.wait(seconds)

    def run(self, models: dict, turn: threading.Lock) -> None:
        """Evaluate; the body of the thread."""
        from lwap.diskcache import DiskCache
        from lwap.evaluation.benchmark import evaluate_sts

        try:
            with self._in(turn):  # one at a time: two would only slow each other down
                self.state = RUNNING
                started = time.monotonic()
                self.result = evaluate_sts(
                    self.request.models,
                    self.tasks,
                    self._strategies(models),
                    whiten_on=self.whiten_on,
                    cache=DiskCache(),
                    load=models.__getitem__,
                    progress=self._advance,
                    on_task=self._take,
                )
                self.seconds = time.monotonic() - started
                self.state = DONE
        except _Stopped:
            self.state = STOPPED
        except LwapError as error:
            self.error, self.state = str(error), FAILED
        except Exception:
            _log.exception("an evaluation failed")
            self.error = "An unexpected error ended the evaluation; the server's log has it."
            self.state = FAILED
        finally:
            self._finished.set()

    def _strategies(self, models: dict) -> list[str] | None:
        """Return None for all that the models have, or those and their whitened twins."""
        if self.whiten_on is None:
            return None
        from lwap.strategy import default_strategies, strategies

        found = [name for model in models.values() for name in strategies(model)]
        fixed = [name for model in models.values() for name in default_strategies(model)]
        return list(dict.fromkeys([*found, *(f"{name}+whiten" for name in fixed)]))

    def _advance(self, done: int, total: int) -> None:
        self._began = self._began or time.monotonic()
        self.done, self.total = done, total
        self._check()

    def _take(self, result: StsResult) -> None:
        self.result = result
        self._check()

    @contextlib.contextmanager
    def _in(self, turn: threading.Lock) -> Iterator[None]:
        """Hold the lock; while waiting for it, a stop is heard."""
        while not turn.acquire(timeout=HEARD):
            self._check()
        try:
            self._check()
            yield
        finally:
            turn.release()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _Stopped


class _Stopped(Exception):
    """Ends the thread of an evaluation that a person stopped."""


class _Registry:
    """The evaluations of this server."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.turn = threading.Lock()
        self.found: OrderedDict[Request, Evaluation] = OrderedDict()


@st.cache_resource(show_spinner=False)
def _registry() -> _Registry:
    return _Registry()


def find(request: Request) -> Evaluation | None:
    """Return the evaluation of a request, if it was asked for since the server started."""
    registry = _registry()
    with registry.lock:
        if request in registry.found:
            registry.found.move_to_end(request)  # being looked at: the last to go
        return registry.found.get(request)


def start(request: Request, tasks: Sequence[Task], whiten_on: WhitenOn | None = None) -> Evaluation:
    """Return the evaluation of a request; start it where there is none, or it did not end well.

    Raises:
        LwapError: If a model cannot be loaded.
    """
    registry = _registry()
    # Loaded here: Streamlit's caches belong to the thread of a session.
    models = {name: cache.model(name) for name in request.models}
    with registry.lock:
        found = registry.found.get(request)
        if found is None or found.state in (FAILED, STOPPED):
            found = registry.found[request] = Evaluation(request, tuple(tasks), whiten_on)
            threading.Thread(
                target=found.run, args=(models, registry.turn), daemon=True, name="evaluation"
            ).start()
        registry.found.move_to_end(request)
        for old in list(registry.found)[: max(0, len(registry.found) - KEPT)]:
            if not registry.found[old].is_active:
                del registry.found[old]
    return found


def geometry(
    evaluation: Evaluation, model: str, task: Task, strategies: Sequence[str], on_strategy=None
) -> GeometryResult:
    """Return the geometry of strategies of a model on a task's sentences, computed once.

    `on_strategy` is called with (strategies measured, strategies in all).

    Raises:
        LwapError: If no pair of the task counts as positive, or a whitening cannot be fitted.
    """
    from lwap.diskcache import DiskCache
    from lwap.evaluation.spaces import evaluate_geometry

    key = (model, task.name, *strategies)
    with _registry().lock:
        if key in evaluation.geometries:
            return evaluation.geometries[key]
    loaded = cache.model(model)
    found = evaluate_geometry(
        model,
        task,
        strategies,
        whiten_on=evaluation.whiten_on,
        cache=DiskCache(),
        load=lambda _: loaded,
        on_strategy=on_strategy,
    )
    with _registry().lock:
        return evaluation.geometries.setdefault(key, found)
