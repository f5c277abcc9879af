"""Spearman correlation of cosines with gold scores, with bootstrap intervals. Knows arrays only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from lwap.errors import InputError

COSINE_DECIMALS = 6  # identical sentences must tie, whatever the last float bits say
RESAMPLES = 1000
MIN_PAIRS = 3
CHUNK = 2_000_000  # numbers resampled at once; bounds memory


@dataclass(frozen=True)
class Interval:
    """A value with its percentile-bootstrap interval (95 %)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A difference of two correlations on the same pairs, its interval, and its p-value."""

    value: float
    low: float
    high: float
    p_value: float


def spearman(cosines: np.ndarray, gold: np.ndarray) -> float:
    """Return Spearman's rank correlation × 100 of cosines (P,) with gold scores (P,).

    Ties get their average rank; cosines are rounded to 6 decimals first.

    Raises:
        InputError: If there are fewer than 3 pairs, a score is not finite, or one side is constant.
    """
    cosines, gold = _check(cosines, gold)
    return float(100 * _pearson(rankdata(cosines), rankdata(gold)))


def spearman_interval(
    cosines: np.ndarray, gold: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return Spearman × 100 and its 95 % percentile bootstrap interval over pairs.

    Raises:
        InputError: As `spearman`.
    """
    value = spearman(cosines, gold)
    cosines, gold = _check(cosines, gold)
    draws = np.concatenate(
        [_resampled(cosines, gold, rows) for rows in _rows(len(gold), resamples, seed)]
    )
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def spearman_difference(
    first: np.ndarray,
    second: np.ndarray,
    gold: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return Spearman(first) − Spearman(second), × 100, by paired bootstrap on the same resamples.

    The p-value is two-sided: twice the smaller share of resamples on one side of zero, counted
    with one added to numerator and denominator so that it is never 0.

    Raises:
        InputError: As `spearman`.
    """
    value = spearman(first, gold) - spearman(second, gold)
    first, gold = _check(first, gold)
    second, _ = _check(second, gold)
    draws = np.concatenate(
        [
            _resampled(first, gold, rows) - _resampled(second, gold, rows)
            for rows in _rows(len(gold), resamples, seed)
        ]
    )
    draws = draws[~np.isnan(draws)]
    low, high = np.percentile(draws, [2.5, 97.5])
    smaller = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2 * (smaller + 1) / (len(draws) + 1))
    return Difference(value, float(low), float(high), float(p_value))


def _check(cosines: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosines = np.round(np.asarray(cosines, dtype=np.float64), COSINE_DECIMALS)
    gold = np.asarray(gold, dtype=np.float64)
    if len(cosines) != len(gold):
        raise InputError(
            f"There are {len(cosines)} cosines for {len(gold)} scores; give one score a pair."
        )
    if len(gold) < MIN_PAIRS:
        raise InputError(
            f"A rank correlation needs at least {MIN_PAIRS} scored pairs; there are {len(gold)}."
        )
    for name, values in (("cosine", cosines), ("score", gold)):
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
            raise InputError(f"Pair {place}: the {name} is {values[place - 1]}, not a number.")
        if np.ptp(values) == 0:
            raise InputError(
                f"All {len(values)} pairs have the same {name} ({values[0]:g}); a rank correlation "
                "is then undefined. Add pairs with other scores."
            )
    return cosines, gold


def _rows(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the pairs of each resample in chunks, (r, P); the seed alone decides on them."""
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // count)
    for start in range(0, resamples, step):
        yield random.integers(0, count, size=(min(step, resamples - start), count))


def _resampled(cosines: np.ndarray, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return Spearman × 100 of each resample, (R,); NaN where a resample is constant."""
    return 100 * _pearson(rankdata(cosines[rows], axis=1), rankdata(gold[rows], axis=1))


def _pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    product = (first * second).sum(axis=-1)
    length = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        return product / length
