"""Spearman correlation of cosines with gold scores, with bootstrap intervals. Knows arrays only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.stats import rankdata

from lwap.errors import InputError
from lwap.evaluation.bootstrap import (
    RESAMPLES,
    Difference,
    Interval,
    paired_difference,
    percentile_interval,
    spearman_draws,
)

COSINE_DECIMALS = 6  # identical sentences must tie, whatever the last float bits say
MIN_PAIRS = 3


class Aggregation(StrEnum):
    """How one number comes out of a task of several subsets.

    `all`: one correlation over all pairs together (SimCSE, MTEB; the headline here). `mean`: the
    mean of the subsets' correlations. `wmean`: that mean weighted by the subsets' pairs (the
    evaluation script of Oh et al. 2022, SentEval).
    """

    ALL = "all"
    MEAN = "mean"
    WMEAN = "wmean"


@dataclass(frozen=True, eq=False)
class Correlations:
    """Spearman × 100 of K columns on one task, with the draws of their bootstrap.

    Attributes:
        values: By aggregation, (K,); NaN where a correlation is undefined.
        draws: By aggregation, (K, R), paired over the columns.
        pairs: P.
    """

    values: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    pairs: int


def spearman(cosines: np.ndarray, gold: np.ndarray) -> float:
    """Return Spearman's rank correlation × 100 of cosines (P,) with gold scores (P,).

    Ties get their average rank; cosines are rounded to 6 decimals first.

    Raises:
        InputError: If there are fewer than 3 pairs, a score is not finite, or one side is constant.
    """
    cosines, gold = _check(cosines, gold)
    return _spearman(cosines, gold)


def spearman_interval(
    cosines: np.ndarray, gold: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return Spearman × 100 and its 95 % percentile bootstrap interval over pairs.

    Raises:
        InputError: As `spearman`.
    """
    cosines, gold = _check(cosines, gold)
    draws = spearman_draws(cosines[None], gold, resamples=resamples, seed=seed)[0]
    return percentile_interval(_spearman(cosines, gold), draws)


def spearman_difference(
    first: np.ndarray,
    second: np.ndarray,
    gold: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return Spearman(first) − Spearman(second), × 100, by paired bootstrap on the same resamples.

    The p-value is that of `paired_difference`.

    Raises:
        InputError: As `spearman`.
    """
    first, checked = _check(first, gold)
    second, gold = _check(second, gold)
    draws = spearman_draws(np.stack([first, second]), checked, resamples=resamples, seed=seed)
    return paired_difference(_spearman(first, gold) - _spearman(second, gold), *draws)


def correlations(
    cosines: np.ndarray,
    gold: np.ndarray,
    subsets: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int | Sequence[int] = 0,
) -> Correlations:
    """Return Spearman × 100 of many columns on one task, in all three aggregations, with draws.

    `all` resamples the pairs of the task; `mean` and `wmean` resample within each subset, as the
    subsets' sizes are part of the task.

    Args:
        cosines: (K, P). A column that is constant, or has a NaN, gets NaN instead of an error:
            the first token of state 0, for one, is the same for every sentence.
        gold: Scores, (P,).
        subsets: The subset of each pair, (P,); None for a task of one set, where all three
            aggregations are the same number.
        resamples, seed: Of the bootstrap; the seed may be several numbers.

    Raises:
        InputError: If there are fewer than 3 pairs, or scores that are not finite or constant.
    """
    cosines = np.round(np.asarray(cosines, dtype=np.float64), COSINE_DECIMALS)
    gold = check_scores(gold)
    names = [] if subsets is None else list(dict.fromkeys(subsets))
    seeds = [seed] if isinstance(seed, int) else list(seed)
    values: dict[str, np.ndarray] = {Aggregation.ALL: _spearman_of_each(cosines, gold)}
    draws: dict[str, np.ndarray] = {
        Aggregation.ALL: spearman_draws(cosines, gold, resamples=resamples, seed=seeds)
    }
    if len(names) < 2:
        for name in (Aggregation.MEAN, Aggregation.WMEAN):
            values[name], draws[name] = values[Aggregation.ALL], draws[Aggregation.ALL]
        return Correlations(values, draws, len(gold))
    labels = np.asarray(subsets)
    masks = [labels == name for name in names]
    each = np.stack([_spearman_of_each(cosines[:, mask], gold[mask]) for mask in masks])
    drawn = np.stack(
        [
            # A seed of its own: subsets of equal size would be resampled alike.
            spearman_draws(cosines[:, mask], gold[mask], resamples=resamples, seed=(*seeds, place))
            for place, mask in enumerate(masks, start=1)
        ]
    )
    shares = {
        Aggregation.MEAN: np.full(len(masks), 1 / len(masks)),
        Aggregation.WMEAN: np.array([mask.mean() for mask in masks]),
    }
    for name, share in shares.items():
        values[name] = np.einsum("m,mk->k", share, each)
        draws[name] = np.einsum("m,mkr->kr", share, drawn)
    return Correlations(values, draws, len(gold))


def check_scores(gold: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return gold scores (P,) as float64.

    Raises:
        InputError: If there are fewer than 3, one is not finite, or all are the same.
    """
    gold = np.asarray(gold, dtype=np.float64)
    _check_values("score", gold)
    return gold


def _spearman(cosines: np.ndarray, gold: np.ndarray) -> float:
    first, second = (ranks - ranks.mean() for ranks in (rankdata(cosines), rankdata(gold)))
    length = np.sqrt((first @ first) * (second @ second))
    return float(100 * (first @ second) / length) if length > 0 else float("nan")


def _spearman_of_each(columns: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return np.array(
        [np.nan if np.isnan(column).any() else _spearman(column, gold) for column in columns]
    )


def _check(cosines: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosines = np.round(np.asarray(cosines, dtype=np.float64), COSINE_DECIMALS)
    gold = np.asarray(gold, dtype=np.float64)
    if len(cosines) != len(gold):
        raise InputError(
            f"There are {len(cosines)} cosines for {len(gold)} scores; give one score a pair."
        )
    _check_values("cosine", cosines)
    _check_values("score", gold)
    return cosines, gold


def _check_values(name: str, values: np.ndarray) -> None:
    if len(values) < MIN_PAIRS:
        raise InputError(
            f"A rank correlation needs at least {MIN_PAIRS} scored pairs; there are {len(values)}."
        )
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise InputError(f"Pair {place}: the {name} is {values[place - 1]}, not a number.")
    if np.ptp(values) == 0:
        raise InputError(
            f"All {len(values)} pairs have the same {name} ({values[0]:g}); a rank correlation "
            "is then undefined. Add pairs with other scores."
        )
