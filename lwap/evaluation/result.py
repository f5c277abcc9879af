"""The result of STS on tasks: values, intervals, and what is significant."""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from lwap import __version__
from lwap.evaluation.bootstrap import (
    Difference,
    holm,
    paired_difference,
    percentile_interval,
)
from lwap.evaluation.sts import Aggregation, Correlations
from lwap.evaluation.tasks import Task

AVERAGE = "average"
SIGNIFICANT = 0.05
_LAYER = ("layer_mean:", "layer_cls:")


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
        always stays, and of two encoders everything does, even where the numbers are the same.
        """
        kept: list[int] = []
        for place, column in enumerate(self.columns):
            repeats = any(
                self.columns[other].strategy == column.strategy
                and self.columns[other].model != column.model
                and self.encoders[self.columns[other].model] == self.encoders[column.model]
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


@functools.cache  # 20 ms
def versions() -> dict[str, str]:
    """Return the versions that a number depends on, without importing the libraries."""
    libraries = ("torch", "transformers", "sentence-transformers", "numpy", "scipy")
    return {
        "lwap": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }
