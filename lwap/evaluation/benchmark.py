"""STS as a benchmark: every strategy and every layer on every task, with what is significant.

One pass over the sentences; intervals, differences and averages all come from draws on the same
resamples. Knows no figures and no pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Unpack

import numpy as np

from lwap.checkpoints.cached import AnyModel, CachedModel, ModelOptions, Progress
from lwap.encoding.diskcache import DiskCache
from lwap.errors import ConfigError, InputError
from lwap.evaluation.bootstrap import (
    RESAMPLES,
)
from lwap.evaluation.result import AVERAGE, Column, StsResult
from lwap.evaluation.sts import Aggregation, Correlations, correlations
from lwap.evaluation.tasks import Task

DRAWS, DRAWS_FORMAT = "draws", 1  # where they are kept; a change gives others
MOST_RESAMPLES = 100_000


def evaluate_sts(
    models: AnyModel | Sequence[AnyModel],
    tasks: Sequence[Task],
    strategies: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
    on_task: Callable[[StsResult], None] | None = None,
    **options: Unpack[ModelOptions],
) -> StsResult:
    """Score strategies of one or several models on STS tasks; every sentence is encoded once.

    Args:
        models: A name for `lwap.load`, a model, a `CachedModel`, or several of them.
        tasks: From `standard_tasks` or `Task.from_file`.
        strategies: By default all that each model has, single layers included.
        resamples: Of the bootstrap, at least 10.
        seed: Of the bootstrap.
        progress: Called with (sentences encoded, sentences to encode), over all tasks and models.
        on_task: Called with the result so far after each task.
        options: precision, device, cache, whiten_on of `CachedModel`, for models that are none.

    Raises:
        InputError: If a task has no usable scores.
        StrategyError: If a model has no such strategy.
        ModelError: If a model cannot be found.
        ConfigError: If `resamples` is out of range.
    """
    if not 10 <= resamples <= MOST_RESAMPLES:
        raise ConfigError(
            f"resamples is {resamples}; it must be between 10 and {MOST_RESAMPLES:,}."
        )
    if not tasks:
        raise InputError("No task was given. Name at least one set of scored pairs.")
    if repeated := {task.name for task in tasks if [t.name for t in tasks].count(task.name) > 1}:
        raise InputError(f"Two tasks are called '{sorted(repeated)[0]}'. Rename one of the files.")
    if len(tasks) > 1 and AVERAGE in [task.name for task in tasks]:
        raise InputError(f"A task is called '{AVERAGE}', as the average of all. Rename its file.")
    if isinstance(models, str) or not isinstance(models, Sequence):
        models = [models]
    if not models:
        raise InputError("No model was given. Name at least one.")
    sources = [CachedModel.of(model, **options) for model in models]
    if len(sources) > 1 and not any(source.cache for source in sources):
        from lwap.encoding.store import join_stores

        join_stores(source.store for source in sources)  # what shares an encoder encodes once
    cache = next((source.cache for source in sources if source.cache is not None), None)
    whiten_on = next((source.whiten_on for source in sources if source.whiten_on), None)
    names = [source.facts.name for source in sources]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"'{repeated[0]}' is named twice. Compare two different models.")
    chosen = [tuple(dict.fromkeys(strategies or source.facts.strategies)) for source in sources]
    if strategies is not None:  # a strategy that only one of two models has is left out there
        chosen = [
            tuple(name for name in some if _base(name) in source.facts.strategies) or some
            for some, source in zip(chosen, sources, strict=True)
        ]
        unknown = [
            name
            for name in strategies
            if all(_base(name) not in source.facts.strategies for source in sources)
        ]
        if unknown:
            sources[0].check(unknown)
    for source, some in zip(sources, chosen, strict=True):
        source.check(some)
    columns = tuple(
        Column(name, strategy)
        for name, some in zip(names, chosen, strict=True)
        for strategy in some
    )
    count = _Total(sources, chosen, tasks, progress)
    scored: list[Correlations] = []
    cosines: list[np.ndarray] = []

    def result() -> StsResult:
        notes = [note for task in tasks for note in task.notes]
        notes += [note for source in sources for note in source.notes]
        notes += cache.notes if cache is not None else []
        return StsResult(
            columns=columns,
            tasks=tuple(tasks[: len(scored)]),
            correlations=tuple(scored),
            cosines=tuple(cosines),
            own={source.facts.name: source.facts.own for source in sources},
            encoders={source.facts.name: source.facts.encoder for source in sources},
            precision={source.facts.name: source.precision for source in sources},
            resamples=resamples,
            seed=seed,
            whiten_on=whiten_on.name if whiten_on else "",
            notes=tuple(dict.fromkeys(notes)),
        )

    for task in tasks:
        found = [
            source.cosines(task.first, task.second, some, progress=count.advance_of(place))
            for place, (source, some) in enumerate(zip(sources, chosen, strict=True))
        ]
        cosines.append(np.concatenate(found))
        scored.append(_correlate(cosines[-1], task, resamples, seed, cache))
        if on_task is not None:
            on_task(result())
    return result()


def _correlate(
    cosines: np.ndarray, task: Task, resamples: int, seed: int, cache: DiskCache | None
) -> Correlations:
    """Return the task's correlations, from the cache where the same were asked for before.

    Each task has resamples of its own: on the same ones, two tasks of equal size that are both
    sorted by score would go up and down together, and their average would vary too much.
    """
    seeds = (seed, task.number)
    digest = hashlib.sha256(np.ascontiguousarray(cosines).tobytes())
    digest.update(np.ascontiguousarray(task.gold).tobytes())
    digest.update(repr([DRAWS_FORMAT, cosines.shape, task.subsets, resamples, seeds]).encode())
    name = digest.hexdigest()[:32]
    kept = cache.read(DRAWS, name) if cache is not None else None
    if kept is not None:
        arrays = kept[0]
        return Correlations(
            {str(kind): arrays[f"{kind}-values"] for kind in Aggregation},
            {str(kind): arrays[f"{kind}-draws"] for kind in Aggregation},
            len(task),
        )
    found = correlations(cosines, task.gold, task.subsets, resamples=resamples, seed=seeds)
    if cache is not None:
        arrays = {f"{kind}-values": found.values[kind] for kind in Aggregation}
        cache.write(DRAWS, name, arrays | {f"{k}-draws": found.draws[k] for k in Aggregation})
    return found


def _base(strategy: str) -> str:
    return strategy.removesuffix("+whiten")


class _Total:
    """One progress over all models and tasks, in sentences."""

    def __init__(
        self,
        sources: Sequence[CachedModel],
        chosen: Sequence[Sequence[str]],
        tasks: Sequence[Task],
        progress: Progress | None,
    ) -> None:
        self._progress = progress
        self._done: list[int] = [0] * len(sources)
        self._before: list[int] = [0] * len(sources)
        self._total = 0
        if progress is None:
            return
        by_store: dict[str, set[str]] = {}
        for source, some in zip(sources, chosen, strict=True):
            texts: set[str] = set()
            for task in tasks:
                texts.update(source.missing(task.first, task.second, some))
            if texts:
                by_store.setdefault(source.store.key, set()).update(texts)
        self._total = sum(map(len, by_store.values()))

    def advance_of(self, place: int) -> Progress | None:
        progress = self._progress
        if progress is None:
            return None

        def advance(done: int, total: int) -> None:
            self._done[place] = self._before[place] + done
            if done == total:
                self._before[place] += total
            progress(min(sum(self._done), self._total), self._total)

        return advance
