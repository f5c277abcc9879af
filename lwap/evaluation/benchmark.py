"""STS as a benchmark: every strategy and every layer on every task, with what is significant.

One pass over the sentences; intervals, differences and averages all come from draws on the same
resamples. Knows no figures and no pages.
"""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lwap import __version__
from lwap.checkpoints.cached import Progress, Source, WhitenOn
from lwap.datasets.catalogue import (
    check_scored,
    fingerprint,
    read_task,
    sts_task,
    task_file,
    task_notes,
)
from lwap.datasets.readers import read_pairs
from lwap.encoding.diskcache import DiskCache
from lwap.encoding.sources import file_sha256
from lwap.errors import ConfigError, InputError
from lwap.evaluation.bootstrap import (
    RESAMPLES,
    Difference,
    holm,
    paired_difference,
    percentile_interval,
)
from lwap.evaluation.sts import Aggregation, Correlations, correlations

AVERAGE = "average"
SIGNIFICANT = 0.05
DRAWS, DRAWS_FORMAT = "draws", 1
MOST_RESAMPLES = 100_000
_LAYER = ("layer_mean:", "layer_cls:")


@dataclass(frozen=True, eq=False)
class Task:
    """P scored pairs.

    Attributes:
        name: What it is called in tables.
        first, second: The sentences.
        gold: The scores, (P,).
        subsets: The subset of each pair; None for a task of one set.
        sha256: Of its file, or of its content where there is no file.
        has_hidden_subsets: Whether it has subsets that this copy does not name, so that only
            the aggregation `all` can be computed.
        notes: What a reader of its numbers should know.
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: np.ndarray
    subsets: tuple[str, ...] | None
    sha256: str
    has_hidden_subsets: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    @property
    def number(self) -> int:
        """A number that follows from the sentences, to seed the task's resamples with."""
        texts = "\0".join([*self.first, *self.second])
        return zlib.crc32(texts.encode(errors="backslashreplace"))

    @classmethod
    def from_pairs(
        cls,
        pairs: pd.DataFrame,
        name: str,
        *,
        sha256: str | None = None,
        has_hidden_subsets: bool = False,
        low: float | None = None,
        high: float | None = None,
    ) -> Task:
        """Return a task of labelled pairs: `sentence1, sentence2, score[, subset]`.

        Raises:
            InputError: If there are fewer than 3 pairs, or scores that are missing, not numbers,
                all the same, or outside of [low, high]; or a sentence is empty.
        """
        notes = check_scored(pairs, name, low, high)
        for side in ("sentence1", "sentence2"):
            for row, text in enumerate(pairs[side], start=1):
                if not isinstance(text, str) or not text.strip():
                    raise InputError(
                        f"'{name}', row {row}: '{side}' is empty ({text!r}). Fill it in or remove "
                        "the row."
                    )
        subsets = tuple(pairs["subset"]) if "subset" in pairs else None
        return cls(
            name=name,
            first=tuple(pairs["sentence1"]),
            second=tuple(pairs["sentence2"]),
            gold=pairs["score"].to_numpy(dtype=float, copy=True),
            subsets=subsets,
            sha256=sha256 or fingerprint(pairs),
            has_hidden_subsets=has_hidden_subsets and subsets is None,
            notes=tuple(f"{name}: {note}" for note in notes),
        )

    @classmethod
    def from_file(cls, path: str | Path, name: str | None = None, *, low=None, high=None) -> Task:
        """Return a task of the person's own labelled pairs in a file.

        Raises:
            InputError: As `read_pairs` and `from_pairs`.
        """
        pairs = read_pairs(path)
        sha256 = file_sha256(Path(path).expanduser())
        return cls.from_pairs(pairs, name or Path(path).stem, sha256=sha256, low=low, high=high)


def standard_tasks(folder: str | Path, keys: Sequence[str]) -> list[Task]:
    """Return STS tasks of a data folder, by their keys in the catalogue.

    Raises:
        InputError: If a key, the folder or a file is missing; the message says what there is.
    """
    tasks = []
    for key in dict.fromkeys(keys):
        pairs = read_task(key, folder)
        entry = sts_task(key)
        task = Task.from_pairs(
            pairs,
            entry.title,
            sha256=file_sha256(task_file(entry, folder)),
            has_hidden_subsets=entry.subsets > 1,
            low=entry.low,
            high=entry.high,
        )
        # That pairs repeat is news of somebody's own file, not of a published set.
        known = check_scored(pairs, entry.file) if len(pairs) == entry.pairs else []
        notes = tuple(
            f"{entry.title}: {note}" for note in task_notes(key, pairs) if note not in known
        )
        tasks.append(replace(task, notes=notes))
    return tasks


@dataclass(frozen=True)
class Column:
    """A strategy of a model: what is scored."""

    model: str
    strategy: str

    @property
    def is_layer(self) -> bool:
        """Whether it reads a single layer."""
        return self.strategy.startswith(_LAYER)


@dataclass(frozen=True, eq=False)
class StsResult:
    """K columns (a strategy of a model) on T tasks, Spearman × 100.

    Attributes:
        columns: The K columns.
        tasks: The T tasks.
        correlations: Values and bootstrap draws, one a task.
        cosines: Of each task's pairs, (K, P).
        own: The strategy that each model was trained with, None where it is none of ours.
        encoders: The encoder of each model.
        precision: Of the encoder's arithmetic, by model.
        resamples, seed: Of the bootstrap.
        whiten_on: Name of the corpus that "+whiten" was fitted on, or "".
        notes: What a reader of the numbers should know.
    """

    columns: tuple[Column, ...]
    tasks: tuple[Task, ...]
    correlations: tuple[Correlations, ...]
    cosines: tuple[np.ndarray, ...]
    own: dict[str, str | None]
    encoders: dict[str, str]
    precision: dict[str, str]
    resamples: int
    seed: int
    whiten_on: str = ""
    notes: tuple[str, ...] = ()
    _memo: dict = field(default_factory=dict, init=False, repr=False)

    @property
    def models(self) -> list[str]:
        """The models, in the order of the columns."""
        return list(dict.fromkeys(column.model for column in self.columns))

    @property
    def labels(self) -> list[str]:
        """A name a column: its strategy, with the model before it where there are two."""
        if len(self.models) == 1:
            return [column.strategy for column in self.columns]
        return [f"{column.model} · {column.strategy}" for column in self.columns]

    @property
    def task_names(self) -> list[str]:
        """The tasks, and "average" last where there are several."""
        names = [task.name for task in self.tasks]
        return [*names, AVERAGE] if len(names) > 1 else names

    def select(self, places: Sequence[int]) -> StsResult:
        """Return the result of some of the columns: fewer are compared, fewer corrected for."""
        places = np.asarray(places, dtype=int)

        def narrow(found: Correlations) -> Correlations:
            return Correlations(
                {name: values[places] for name, values in found.values.items()},
                {name: draws[places] for name, draws in found.draws.items()},
                found.pairs,
            )

        return replace(
            self,
            columns=tuple(self.columns[place] for place in places),
            correlations=tuple(map(narrow, self.correlations)),
            cosines=tuple(cosines[places] for cosines in self.cosines),
        )

    def distinct(self) -> StsResult:
        """Return the result without the columns that repeat another model's, number by number.

        Two heads on one encoder share every strategy but the trained one. A model's own strategy
        always stays.
        """
        kept: list[int] = []
        for place, column in enumerate(self.columns):
            repeats = any(
                self.columns[other].strategy == column.strategy
                and self.columns[other].model != column.model
                and all(np.array_equal(each[other], each[place], True) for each in self.cosines)
                for other in kept
            )
            if not repeats or column.strategy == self.own[column.model]:
                kept.append(place)
        return self.select(kept)

    def values(self, aggregation: str = Aggregation.ALL) -> np.ndarray:
        """Return Spearman × 100, (K, T) or (K, T + 1) with the average; NaN where undefined."""
        found = [self._of(place, aggregation)[0] for place in range(len(self.task_names))]
        return np.stack(found, axis=1)

    def bounds(self, aggregation: str = Aggregation.ALL) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the 95 % intervals, both shaped as `values`."""
        key = ("bounds", aggregation)
        if key not in self._memo:
            low, high = np.full((2, len(self.columns), len(self.task_names)), np.nan)
            for task in range(len(self.task_names)):
                values, draws = self._of(task, aggregation)
                for column in range(len(self.columns)):
                    interval = percentile_interval(values[column], draws[column])
                    low[column, task], high[column, task] = interval.low, interval.high
            self._memo[key] = low, high
        return self._memo[key]

    def difference(
        self, first: int, second: int, task: int, aggregation: str = Aggregation.ALL
    ) -> Difference:
        """Return column `first` minus column `second` on a task, by paired bootstrap."""
        values, draws = self._of(task, aggregation)
        return paired_difference(values[first] - values[second], draws[first], draws[second])

    def best(self, task: int, aggregation: str = Aggregation.ALL) -> int | None:
        """Return the column with the highest value on a task; None where all are undefined."""
        values, _ = self._of(task, aggregation)
        return None if np.isnan(values).all() else int(np.nanargmax(values))

    def differences(
        self, baseline: int | None = None, aggregation: str = Aggregation.ALL
    ) -> pd.DataFrame:
        """Return every column against a baseline on every task, with Holm's correction.

        Args:
            baseline: A column; None compares with the best column of each task.
            aggregation: One of the three.

        Returns:
            task, model, strategy, baseline, difference, low, high, p_value, p_holm, significant.
            p_holm is adjusted for the number of columns compared on that task.
        """
        key = ("differences", baseline, aggregation)
        if key not in self._memo:
            self._memo[key] = pd.concat(
                [
                    self._differences_on(task, baseline, aggregation)
                    for task in range(len(self.task_names))
                ],
                ignore_index=True,
            )
        return self._memo[key].copy()

    def tied(self, aggregation: str = Aggregation.ALL) -> np.ndarray:
        """Return which columns are not significantly worse than the best of a task, as `values`."""
        table = self.differences(None, aggregation)
        shape = (len(self.task_names), len(self.columns))
        return ~table["significant"].to_numpy(dtype=bool).reshape(shape).T & ~np.isnan(
            self.values(aggregation)
        )

    def mismatch(self) -> pd.DataFrame:
        """Return what it costs to read a model with another pooling than it was trained with.

        Returns:
            A row a fixed or trained strategy other than the model's own, and the last task (the
            average where there are several): model, trained_with, strategy, cost (own minus other,
            Spearman × 100), low, high, p_value, p_holm, significant. Empty where no model's own
            pooling is among the columns.
        """
        tables = []
        task = len(self.task_names) - 1
        for model, own in self.own.items():
            places = {
                column.strategy: place
                for place, column in enumerate(self.columns)
                if column.model == model
            }
            others = [
                name for name, place in places.items()
                if name != own and not self.columns[place].is_layer
            ]  # fmt: skip
            if own not in places or not others:
                continue
            found = [self.difference(places[own], places[name], task) for name in others]
            p_holm = holm([entry.p_value for entry in found])
            tables.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "trained_with": own,
                        "strategy": others,
                        "cost": [entry.value for entry in found],
                        "low": [entry.low for entry in found],
                        "high": [entry.high for entry in found],
                        "p_value": [entry.p_value for entry in found],
                        "p_holm": p_holm,
                        "significant": p_holm < SIGNIFICANT,
                    }
                )
            )
        columns = ["model", "trained_with", "strategy", "cost", "low", "high", "p_value", "p_holm"]
        return (
            pd.concat(tables, ignore_index=True)
            if tables
            else pd.DataFrame(columns=[*columns, "significant"]).astype({"significant": bool})
        )

    def rows(self) -> pd.DataFrame:
        """Return task, model, strategy, aggregation, spearman, low, high, pairs: a row a number.

        `mean` and `wmean` are left out for a task whose subsets this copy does not name.
        """
        parts = []
        for aggregation in Aggregation:
            values = self.values(aggregation)
            low, high = self.bounds(aggregation)
            for place, task in enumerate(self.task_names):
                if not self._has(place, aggregation):
                    continue
                parts.append(
                    pd.DataFrame(
                        {
                            "task": task,
                            "model": [column.model for column in self.columns],
                            "strategy": [column.strategy for column in self.columns],
                            "aggregation": str(aggregation),
                            "spearman": values[:, place],
                            "low": low[:, place],
                            "high": high[:, place],
                            "pairs": self._pairs(place),
                        }
                    )
                )
        return pd.concat(parts, ignore_index=True)

    def provenance(self) -> dict[str, Any]:
        """Return what a number must be read with: data, encoder, precision, versions, seed."""
        names = self.models
        return {
            "model": names[0] if len(names) == 1 else names,
            "encoder": self.encoders[names[0]]
            if len(set(self.encoders.values())) == 1
            else self.encoders,
            "precision": self.precision[names[0]]
            if len(set(self.precision.values())) == 1
            else self.precision,
            "trained_with": self.own,
            "data_sha256": {task.name: task.sha256 for task in self.tasks},
            "pairs": {task.name: len(task) for task in self.tasks},
            "whiten_on": self.whiten_on,
            "measure": "Spearman × 100 of cosines rounded to 6 decimals",
            "interval": "95 % percentile bootstrap over pairs",
            "resamples": self.resamples,
            "seed": self.seed,
            "versions": versions(),
        }

    def _of(self, task: int, aggregation: str) -> tuple[np.ndarray, np.ndarray]:
        """Return values (K,) and draws (K, R) on a task or on the average."""
        if task < len(self.tasks):
            found = self.correlations[task]
            if not self._has(task, aggregation):
                nothing = np.full_like(found.draws["all"], np.nan)
                return nothing[:, 0].copy(), nothing
            return found.values[aggregation], found.draws[aggregation]
        key = ("average", aggregation)
        if key not in self._memo:
            each = [self._of(place, aggregation) for place in range(len(self.tasks))]
            self._memo[key] = tuple(np.mean(part, axis=0) for part in zip(*each, strict=True))
        return self._memo[key]

    def _has(self, task: int, aggregation: str) -> bool:
        if aggregation == Aggregation.ALL:
            return True
        tasks = self.tasks[task : task + 1] or self.tasks
        return not any(entry.has_hidden_subsets for entry in tasks)

    def _pairs(self, task: int) -> int:
        tasks = self.tasks[task : task + 1] or self.tasks
        return sum(map(len, tasks))

    def _differences_on(self, task: int, baseline: int | None, aggregation: str) -> pd.DataFrame:
        against = self.best(task, aggregation) if baseline is None else baseline
        if against is None:
            against = 0
        found = [
            self.difference(place, against, task, aggregation) for place in range(len(self.columns))
        ]
        p_values = np.array([entry.p_value for entry in found])
        others = np.arange(len(found)) != against
        p_holm = np.ones(len(found))
        p_holm[others] = holm(p_values[others])
        return pd.DataFrame(
            {
                "task": self.task_names[task],
                "model": [column.model for column in self.columns],
                "strategy": [column.strategy for column in self.columns],
                "baseline": self.labels[against],
                "difference": [entry.value for entry in found],
                "low": [entry.low for entry in found],
                "high": [entry.high for entry in found],
                "p_value": p_values,
                "p_holm": p_holm,
                "significant": p_holm < SIGNIFICANT,
            }
        )


def evaluate_sts(
    models: Sequence[Any] | Any,
    tasks: Sequence[Task],
    strategies: Sequence[str] | None = None,
    *,
    whiten_on: WhitenOn | None = None,
    precision: str = "fp32",
    device: str = "auto",
    resamples: int = RESAMPLES,
    seed: int = 0,
    cache: DiskCache | None = None,
    load: Callable[[str], Any] | None = None,
    progress: Progress | None = None,
    on_task: Callable[[StsResult], None] | None = None,
) -> StsResult:
    """Score strategies of one or several models on STS tasks; every sentence is encoded once.

    Args:
        models: A name for `lwap.load`, a model, or several of them.
        tasks: From `standard_tasks` or `Task.from_file`.
        strategies: By default all that each model has, single layers included.
        whiten_on: The corpus for strategies that end in "+whiten".
        precision, device: As in `encode_layers` and `lwap.load`.
        resamples: Of the bootstrap, at least 10.
        seed: Of the bootstrap.
        cache: Where summaries and cosines are kept between runs; None keeps nothing.
        load: How a named model is loaded; by default `lwap.load`.
        progress: Called with (sentences encoded, sentences to encode), over all tasks and models.
        on_task: Called with the result so far after each task.

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
    stores: dict[str, Any] = {}
    sources = [
        Source(
            model,
            precision=precision,
            device=device,
            cache=cache,
            whiten_on=whiten_on,
            load=load,
            stores=stores,
        )
        for model in models
    ]
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


def versions() -> dict[str, str]:
    """Return the versions that a number depends on, without importing the libraries."""
    libraries = ("torch", "transformers", "sentence-transformers", "numpy", "scipy")
    return {
        "lwap": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


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

    def __init__(self, sources, chosen, tasks, progress: Progress | None) -> None:
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
        if self._progress is None:
            return None

        def advance(done: int, total: int) -> None:
            self._done[place] = self._before[place] + done
            if done == total:
                self._before[place] += total
            self._progress(min(sum(self._done), self._total), self._total)

        return advance
