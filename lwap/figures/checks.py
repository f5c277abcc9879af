"""What a figure accepts: shapes that agree, finite numbers, as many texts as there are rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def checked_arrays(**specs: tuple[Any, ...]) -> list[np.ndarray]:
    """Copy inputs to float64 arrays after checking their shapes against each other.

    Every keyword is an argument's name with (value, shape letters, permissions): one letter a
    dimension, equal letters must have equal sizes. Permissions are "nan" (missing numbers) and
    "empty" (no entries).
    """
    sizes: dict[str, tuple[int, str]] = {}
    arrays = []
    for name, (value, letters, *permissions) in specs.items():
        array = np.array(value, dtype=np.float64)
        shape = f"({', '.join(letters)})"
        if array.ndim != len(letters):
            raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
        for letter, size in zip(letters, array.shape, strict=True):
            known, owner = sizes.setdefault(letter, (size, name))
            if size != known:
                raise ValueError(
                    f"{name} has shape {array.shape}; expected {shape} with {letter} = {known}"
                    + (f" as in {owner}" if owner != name else "")
                )
        if array.size == 0 and "empty" not in permissions:
            raise ValueError(f"{name} is empty: its shape is {array.shape}")
        if not np.isfinite(array).all():
            if "nan" not in permissions:
                raise ValueError(f"{name} has values that are not finite")
            if np.isinf(array).any():
                raise ValueError(f"{name} has infinite values; use NaN for what is missing")
        arrays.append(array)
    return arrays


def checked_texts(name: str, texts: Sequence[str], count: int) -> list[str]:
    """Copy `count` texts, one a row, into a list; one text alone is no list."""
    if isinstance(texts, str):
        raise ValueError(f"{name} is one text, {texts!r}; expected a list of {count}")
    texts = [str(text) for text in texts]
    if len(texts) != count:
        raise ValueError(f"{name} has {len(texts)} entries; expected {count}")
    return texts


def check_row(name: str, row: int | None, count: int, what: str = "row") -> None:
    """Raise ValueError if a chosen row is none of 0 to `count` − 1; None chooses none."""
    if row is not None and not 0 <= row < count:
        raise ValueError(f"{name} is {what} {row}; the {what}s are 0 to {count - 1}")


def check_within(name: str, array: np.ndarray, low: float, high: float, what: str) -> None:
    """Raise ValueError if a known number lies outside `low` to `high`; `what` says what it is."""
    if ((array < low) | (array > high)).any():
        worst = array.ravel()[np.nanargmax(np.abs(array - (low + high) / 2))]
        raise ValueError(f"{name} are {what} from {low:g} to {high:g}, got {worst:g}")


def check_intervals(names: Sequence[str], low: np.ndarray, high: np.ndarray) -> None:
    """Raise ValueError if one of the intervals, one a name, ends below its start."""
    for name, start, end in zip(names, low.flat, high.flat, strict=True):
        if start > end:
            raise ValueError(f"the interval of {name!r} ends at {end:g}, below its start {start:g}")


def checked_estimates(
    letters: str,
    estimates: tuple[Any, Any, Any],
    bounds: tuple[float, float],
    what: str,
    **specs: tuple[Any, ...],
) -> list[np.ndarray]:
    """Copy values and both ends of their intervals to arrays; all may be NaN where unknown.

    Args:
        letters: One a dimension, as in `checked_arrays`.
        estimates: Values, lower and upper ends.
        bounds: The lowest and the highest that are possible.
        what: What the values are.
        specs: Other arrays, as in `checked_arrays`; they come last.
    """
    ours = dict(zip(("values", "low", "high"), estimates, strict=True))
    arrays = checked_arrays(**{name: (one, letters, "nan") for name, one in ours.items()}, **specs)
    for name, array in zip(ours, arrays, strict=False):
        check_within(name, array, *bounds, what)
    return arrays


def upper_end(zmax: float | None, values: np.ndarray) -> float:
    """Upper end of a colour scale from zero: as asked for, else the largest value."""
    if zmax is None:
        return float(values.max()) or 1.0
    if not (math.isfinite(zmax) and zmax > 0):
        raise ValueError(f"zmax must be a number above 0, got {zmax}")
    return float(zmax)
