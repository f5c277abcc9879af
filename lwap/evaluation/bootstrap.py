"""Percentile bootstrap of rank correlations, paired over many columns. Knows arrays only.

A resample is a count a pair. From the counts, in the order of a column's values, the ranks of the
resample are cumulative sums: nothing is sorted again, and one resample serves every column.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

Seed = int | Sequence[int]

RESAMPLES = 1000
CHUNK = 100_000  # counts a block of resamples; bounds memory
MOST_AT_ONCE = 64  # resamples a block; more would not fit a processor's cache
COUNTABLE = 10  # resamples on the far side of zero; with fewer the normal tail says more


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


def spearman_draws(
    columns: np.ndarray, gold: np.ndarray, *, resamples: int = RESAMPLES, seed: Seed = 0
) -> np.ndarray:
    """Return Spearman × 100 of every column with gold on the same resamples of the pairs.

    Args:
        columns: P values a column, (K, P). Columns with a NaN give NaN.
        gold: Scores, (P,).
        resamples: R.
        seed: Decides on the resamples, together with P alone: two calls with equal P and seed
            are paired.

    Returns:
        (K, R); NaN where a column or the scores are constant in a resample.
    """
    columns, gold = np.atleast_2d(columns), np.asarray(gold)
    ranked = [None if np.isnan(column).any() else _Ranked(column) for column in columns]
    ranked_gold = _Ranked(gold)
    draws = np.full((len(columns), resamples), np.nan)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        start = 0
        for counts in _counts(len(gold), resamples, seed):
            block = slice(start, start + counts.shape[1])
            start = block.stop
            own, gold_ranks = ranked_gold.ranks(counts)
            gold_length = np.einsum("pr,pr,pr->r", own, gold_ranks, gold_ranks)
            weighted = np.empty_like(gold_ranks)  # count × gold's rank, in the order of the pairs
            weighted[ranked_gold.order] = own * gold_ranks

            # Bound as arguments: the threads outlive neither, but a loop variable would be shared.
            def correlate(
                place: int,
                counts: np.ndarray = counts,
                weighted: np.ndarray = weighted,
                length: np.ndarray = gold_length,
                block: slice = block,
            ) -> None:
                column = ranked[place]
                if column is None:
                    return
                own, ranks = column.ranks(counts)
                product = np.einsum("pr,pr->r", weighted[column.order], ranks)
                spread = np.sqrt(np.einsum("pr,pr->r", own * ranks, ranks) * length)
                np.divide(100 * product, spread, out=draws[place, block], where=spread > 0)

            list(pool.map(correlate, range(len(columns))))
    return draws


def percentile_interval(value: float, draws: np.ndarray) -> Interval:
    """Return a value with the middle 95 % of its draws (R,); NaN bounds where there are none."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def paired_difference(value: float, first: np.ndarray, second: np.ndarray) -> Difference:
    """Return a difference with its interval and p-value, from draws (R,) on the same resamples.

    The p-value is two-sided: twice the smaller share of resamples on one side of zero, one added
    to numerator and denominator. Where fewer than 10 resamples lie there, counting can say little
    more than "small", and a correction for many comparisons would find nothing; the normal tail
    at the bootstrap's standard error then gives the number.
    """
    draws = first - second
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return Difference(float(value), float("nan"), float("nan"), float("nan"))
    low, high = np.percentile(draws, [2.5, 97.5])
    smaller = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2 * (smaller + 1) / (len(draws) + 1))
    error = draws.std()
    if smaller < COUNTABLE and error > 0:
        tail = 2 * norm.sf(abs(value) / error)
        p_value = min(p_value, max(tail, np.finfo(float).tiny))
    return Difference(float(value), float(low), float(high), float(p_value))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for their number by Holm's step-down method; NaN stays NaN.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


class _Ranked:
    """A column in the order of its values, ready to be ranked in any resample."""

    def __init__(self, values: np.ndarray) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        sizes = np.diff(np.append(starts, len(ordered)))
        self.has_ties = len(starts) < len(ordered)
        self.first = np.repeat(starts, sizes)  # of the tie that each place belongs to
        self.last = np.repeat(starts + sizes - 1, sizes)

    def ranks(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return counts and centred ranks (average rank of ties, doubled), both in own order.

        Args:
            counts: How often each pair is drawn, (P, r).
        """
        own = counts[self.order]
        up_to = np.cumsum(own, axis=0, dtype=np.int64)
        before = up_to - own
        ranks = up_to[self.last] + before[self.first] if self.has_ties else up_to + before
        # 2 · rank − 1 − P: whole numbers whose weighted sum is zero in every resample.
        return own.astype(np.float64), (ranks - len(own)).astype(np.float64)


def _counts(pairs: int, resamples: int, seed: Seed) -> Iterator[np.ndarray]:
    """Yield how often each pair is drawn in a block of resamples, (P, r); the seed decides."""
    random = np.random.default_rng(seed)
    step = min(MOST_AT_ONCE, max(1, CHUNK // pairs))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(0, pairs, size=(size, pairs))
        drawn += pairs * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * pairs).reshape(size, pairs)
        yield np.ascontiguousarray(counts.T, dtype=np.int32)
