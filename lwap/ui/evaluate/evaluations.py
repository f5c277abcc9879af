"""Evaluations of the Evaluate page: one thread each, shared by all sessions of the server.

A page asks for a request and gets what there is of it so far; leaving the page stops nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import streamlit as st

from lwap.checkpoints.cached import WhitenOn
from lwap.evaluation import benchmark, spaces
from lwap.evaluation.result import StsResult
from lwap.evaluation.spaces import GeometryResult
from lwap.evaluation.tasks import Task
from lwap.ui import cache
from lwap.ui.work import Registry, Work

KEPT = 8  # evaluations in memory; older ones come back from the cache on disk in a second


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
class Evaluation(Work):
    """One evaluation, and how far it is: its steps are sentences to encode.

    Attributes:
        request: What was asked for.
        tasks: Its tasks.
        whiten_on: The corpus of "+whiten" strategies.
        result: Of the tasks that are finished; None before the first one is.
    """

    NAME = "the evaluation"

    request: Request
    tasks: Sequence[Task]
    whiten_on: WhitenOn | None = None
    result: StsResult | None = None
    geometries: dict[tuple[str, ...], GeometryResult] = field(default_factory=dict)

    def compute(self, models: dict) -> None:
        """Evaluate."""
        for model in models.values():
            model.cache.begin()
        self.result = benchmark.evaluate_sts(
            [models[name] for name in self.request.models],
            self.tasks,
            self._strategies(models),
            whiten_on=self.whiten_on,
            progress=self.advance,
            on_task=self._take,
        )

    def _strategies(self, models: dict) -> list[str] | None:
        """Return None for all that the models have, or those and their whitened versions."""
        if self.whiten_on is None:
            return None
        found = [name for model in models.values() for name in model.facts.strategies]
        fixed = [name for model in models.values() for name in model.default_strategies]
        return list(dict.fromkeys([*found, *(f"{name}+whiten" for name in fixed)]))

    def _take(self, result: StsResult) -> None:
        self.result = result
        self.check()


@st.cache_resource(show_spinner=False)
def _registry() -> Registry[Evaluation]:
    return Registry(KEPT)


def find(request: Request) -> Evaluation | None:
    """Return the evaluation of a request, if it was asked for since the server started."""
    return _registry().find(request)


def start(request: Request, tasks: Sequence[Task], whiten_on: WhitenOn | None = None) -> Evaluation:
    """Return the evaluation of a request; start it where there is none, or it did not end well.

    Raises:
        LwapError: If a model cannot be loaded.
    """
    # Loaded here: Streamlit's caches belong to the thread of a session.
    models = {name: cache.cached(name) for name in request.models}
    return _registry().start(request, lambda: Evaluation(request, tuple(tasks), whiten_on), models)


def geometry(
    evaluation: Evaluation, model: str, task: Task, strategies: Sequence[str], on_strategy=None
) -> GeometryResult:
    """Return the geometry of strategies of a model on a task's sentences, computed once.

    `on_strategy` is called with (strategies measured, strategies in all).

    Raises:
        LwapError: If no pair of the task counts as positive, or a whitening cannot be fitted.
    """
    key = (model, task.name, *strategies)
    with _registry().lock:
        if key in evaluation.geometries:
            return evaluation.geometries[key]
    found = spaces.evaluate_geometry(
        cache.cached(model),
        task,
        strategies,
        whiten_on=evaluation.whiten_on,
        on_strategy=on_strategy,
    )
    with _registry().lock:
        return evaluation.geometries.setdefault(key, found)
