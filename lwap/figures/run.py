"""Training runs as figures take them, and what all figures of runs share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lwap.figures.axes import Axis, free_axis
from lwap.figures.checks import check_within, checked_arrays
from lwap.figures.style import CATEGORIES, CATEGORY_SYMBOLS, Palette

MOST_RUNS = 6  # that can be told apart
REVISION = "training"  # the same always: what a click has hidden stays so when drawn anew
_MOST_EVALUATIONS = 400  # that are drawn
_ROOM = 0.02  # of the planned steps on both sides of an axis of steps
OF_STEPS = ("loss", "gradient_norm", "learning_rate", "sentences_per_second")


@dataclass(frozen=True, eq=False)
class RunCurves:
    """The numbers of a run so far: N steps, M evaluations on the dev set.

    A number that is not finite is NaN here; a field left empty is unknown everywhere. The arrays
    are float64 copies.

    Args:
        name: What the run is called.
        total: Planned steps, so that the axis of steps stays while the run goes on.
        steps: (N,), numbers of the steps done, ascending.
        loss: (N,), or empty.
        gradient_norm: (N,), or empty.
        learning_rate: (N,), or empty.
        sentences_per_second: (N,), or empty.
        dev_steps: (M,), the steps of the dev evaluations, ascending; 0 is before training.
        dev: (M,), or empty: Spearman × 100, or accuracy in percent.
        alignment: (M,), or empty.
        uniformity: (M,), or empty.
        layer_weights: (M, S), the mean weights at each evaluation, one without any is None or NaN;
            None for a pooling without layer weights.
        best: The step with the best dev score, None if there is none yet.
        untouched: The untouched encoder's dev score, None if unknown.

    Raises:
        ValueError: `total` is below 1, numbers of entries disagree, steps do not ascend or are
            below 0, a dev score is outside −100 to 100, or `best` was not evaluated.
    """

    name: str
    total: int
    steps: Any = ()
    loss: Any = ()
    gradient_norm: Any = ()
    learning_rate: Any = ()
    sentences_per_second: Any = ()
    dev_steps: Any = ()
    dev: Any = ()
    alignment: Any = ()
    uniformity: Any = ()
    layer_weights: Any = None
    best: int | None = None
    untouched: float | None = None

    def __post_init__(self) -> None:
        if not self.total >= 1:
            raise ValueError(f"total is {self.total}; a run has 1 planned step or more")
        self._set_columns("steps", OF_STEPS)
        self._set_columns("dev_steps", ("dev", "alignment", "uniformity"))
        check_within("dev", self.dev, -100, 100, "scores")
        object.__setattr__(self, "layer_weights", self._weights())
        if self.best is not None and self.best not in self.dev_steps:
            raise ValueError(
                f"best of {self.name!r} is step {self.best}, after which it was not evaluated"
            )
        if self.untouched is not None and not math.isfinite(self.untouched):
            object.__setattr__(self, "untouched", None)

    def _set_columns(self, at: str, fields: Sequence[str]) -> None:
        """Turn a field of steps, and the fields with a number a step, into arrays."""
        given: dict[str, tuple[Any, ...]] = {at: (getattr(self, at), "N", "empty")}
        for field in fields:
            values = np.array(getattr(self, field), dtype=np.float64)
            if values.shape == (0,):
                values = np.full(len(given[at][0]), np.nan)
            given[field] = (np.where(np.isfinite(values), values, np.nan), "N", "nan", "empty")
        arrays = checked_arrays(**{f"{name} of {self.name!r}": given[name] for name in given})
        if (np.diff(arrays[0]) <= 0).any() or (arrays[0] < 0).any():
            raise ValueError(f"{at} of {self.name!r} do not ascend from 0 on")
        for field, array in zip(given, arrays, strict=True):
            object.__setattr__(self, field, array)

    def _weights(self) -> np.ndarray | None:
        rows = self.layer_weights
        if rows is None or (len(rows) and all(row is None for row in rows)):
            return None
        widths = sorted({len(row) for row in rows if row is not None})
        if len(rows) != len(self.dev_steps) or len(widths) > 1:
            raise ValueError(
                f"layer_weights of {self.name!r} has {len(rows)} rows of {widths} states; expected "
                f"{len(self.dev_steps)} rows as dev_steps, all of one length"
            )
        states = widths[0] if widths else np.shape(rows)[-1]
        known = [np.full(states, np.nan) if row is None else row for row in rows]
        return np.array(known, dtype=np.float64).reshape(len(rows), states)

    def drawn_evaluations(self) -> np.ndarray:
        """Return indices of at most 400 evaluations, evenly, with the best and the last one."""
        count = len(self.dev_steps)
        size = 1
        while count > size * (_MOST_EVALUATIONS - 2):
            size *= 2
        last = [count - 1] if count else []
        best = np.flatnonzero(self.dev_steps == self.best)
        return np.unique([*range(0, count, size), *best, *last]).astype(int)


def checked_runs(runs: RunCurves | Sequence[RunCurves]) -> list[RunCurves]:
    """Copy 1 to 6 runs into a list."""
    runs = [runs] if isinstance(runs, RunCurves) else list(runs)
    if not runs:
        raise ValueError("runs is empty; expected 1 to 6 runs")
    if len(runs) > MOST_RUNS:
        raise ValueError(f"runs has {len(runs)} runs; at most {MOST_RUNS} can be told apart")
    return runs


def strokes(runs: Sequence[RunCurves], palette: Palette) -> list[tuple[str, str]]:
    """Colour and symbol of every run; one alone has the accent."""
    colors = [palette.accent] if len(runs) == 1 else CATEGORIES[palette.theme][: len(runs)]
    return list(zip(colors, CATEGORY_SYMBOLS, strict=False))


def best_marker(color: str, palette: Palette, size: int = 11) -> dict[str, Any]:
    return dict(symbol="diamond", size=size, color=color, line=dict(color=palette.text, width=1.5))


def last_step(runs: Sequence[RunCurves]) -> float:
    """The last planned step, or the last one done."""
    return float(max(max([run.total, *run.steps[-1:], *run.dev_steps[-1:]]) for run in runs))


def step_axis(runs: Sequence[RunCurves], nticks: int) -> Axis:
    """Axis of all planned steps, and of more if a run has done more."""
    last = last_step(runs)
    axis = free_axis([-_ROOM * last, (1 + _ROOM) * last], "step")
    axis |= dict(nticks=nticks, ticklabelstandoff=4, tickformat="~s" if last >= 10_000 else ",d")
    return axis | dict(dtick=1) if last <= 4 else axis


def range_of(values: np.ndarray, least: float) -> list[float]:
    """Range of the known values with some room, at least so wide that noise looks like noise."""
    known = values[np.isfinite(values)]
    if not known.size:
        return [0.0, 1.0]
    low, high = float(known.min()), float(known.max())
    room = max(0.08 * (high - low), (least - (high - low)) / 2) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def nothing(runs: Sequence[RunCurves], *, of_steps: bool = False) -> str:
    """What is said where there is no number to draw."""
    if any(len(run.steps if of_steps else run.dev_steps) for run in runs):
        return "no value"
    return "no step yet" if of_steps else "no evaluation yet"
