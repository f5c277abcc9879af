"""Long series of numbers made fit to be drawn: smoothed, thinned, without what flattens them."""

from __future__ import annotations

import math

import numpy as np

_SPIKE = 8  # times the usual width of values above them: beyond the axis
_FEWEST = 20  # values of which it is known what is usual


def smoothed(values: np.ndarray, span: float, limit: float = math.inf) -> np.ndarray:
    """Average the known values so far, older ones with exponentially smaller weights.  (N,)

    Value i has the weight (1 − 2/(span + 1))^(n − i) in the average at n, as in pandas' `ewm`, and
    none if it is above the limit. Where a value is NaN, so is the average.
    """
    decay = 1 - 2 / (max(span, 1.0) + 1)
    total = weight = 0.0
    averages = np.full(len(values), np.nan)
    for index, value in enumerate(values.tolist()):
        counts = value <= limit  # NaN does not
        total = decay * total + (value if counts else 0.0)
        weight = decay * weight + counts
        if weight and math.isfinite(value):
            averages[index] = total / weight
    return averages


def spike_limit(values: np.ndarray) -> float:
    """Return the value above which a number would flatten all others, or infinity.  (N,)"""
    known = values[np.isfinite(values)]
    if len(known) < _FEWEST:
        return math.inf
    low, usual = np.percentile(known, [5, 95])
    limit = usual + _SPIKE * max(usual - low, 0.02 * abs(usual))
    return float(limit) if known.max() > limit else math.inf


def extremes(values: np.ndarray, most: int) -> np.ndarray:
    """Return indices of at most so many values that draw the same line: both extremes a bin.  (N,)

    Bins have 2, 4, 8, … values, counted from the first one, so a line that grows keeps its points
    until the bins double. A bin without any number keeps a gap.
    """
    count = len(values)
    size = 1
    while size * (most - 1) < 2 * count and count > most:
        size *= 2
    if size == 1:
        return np.arange(count)
    bins = np.full((-(-count // size), size), np.nan)
    bins.flat[:count] = values
    starts = size * np.arange(len(bins))
    lowest = starts + np.where(np.isnan(bins), np.inf, bins).argmin(axis=1)
    highest = starts + np.where(np.isnan(bins), -np.inf, bins).argmax(axis=1)
    return np.unique(np.concatenate([lowest, highest, [count - 1]]))
