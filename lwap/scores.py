"""Cosine similarity, and what it is worth among random pairs. Knows arrays only."""

from __future__ import annotations

import numpy as np


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine along the last axis, broadcast over the others; 0 where a vector is 0.

    Computed in float64, so that identical vectors give exactly 1 within 1e-12.

    >>> cosine(np.array([1.0, 0.0]), np.array([[2.0, 0.0], [0.0, 3.0]])).tolist()
    [1.0, 0.0]
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    dot = (first * second).sum(axis=-1)
    length = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.divide(dot, length, out=np.zeros_like(dot), where=length > 0).clip(-1, 1)


def percentile_among(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the share (0–100) of `reference` below each value, ties counted half.

    >>> percentile_among(np.array([0.2, 0.9]), np.array([0.1, 0.2, 0.3, 0.4])).tolist()
    [37.5, 100.0]
    """
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, values, side="left")
    up_to = np.searchsorted(ordered, values, side="right")
    return 100 * (below + up_to) / 2 / len(ordered)


def rank_among(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value among them (N,), scaled to 0–100, ties at their mean rank.

    NaN stays NaN and is not counted; one value alone has 100.

    >>> rank_among(np.array([0.2, 0.9, np.nan, 0.2])).tolist()
    [25.0, 100.0, nan, 25.0]
    """
    from scipy.stats import rankdata

    values = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(values)
    ranks = np.full(values.shape, np.nan)
    last = known.sum() - 1
    ranks[known] = 100 * (rankdata(values[known]) - 1) / last if last > 0 else 100.0
    return ranks
