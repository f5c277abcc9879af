"""The same pairs under every pooling strategy. Knows models and banks, no figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from lwap.analysis.explanation import LayerSimilarity, layer_similarity
from lwap.checkpoints.cached import AnyModel, CachedModel
from lwap.encoding.bank import LayerBank, Progress, is_unicode
from lwap.errors import InputError
from lwap.evaluation.sts import Interval, spearman_interval
from lwap.pooling.strategies import describe, embed
from lwap.pooling.whitening import Whitening
from lwap.scores import cosine, percentile_among

RANDOM_PAIRS = 2000  # random pairs that a percentile refers to, at most
MIN_RANDOM_PAIRS = 20

Pairs: TypeAlias = Iterable[Sequence[str]] | pd.DataFrame


@dataclass(frozen=True, eq=False)
class Comparison:
    """P pairs under K strategies.

    Cosines of different strategies live on different scales (a CLS cosine of 0.9 may be low), so
    each comes with its percentile among random pairs of the same sentences.

    Attributes:
        first, second: The sentences of the P pairs.
        strategies: The K strategies.
        cosines: (P, K).
        percentiles: Share (0–100) of random pairs of this set with a lower cosine under the same
            strategy, (P, K); NaN where the set has too few sentences for random pairs.
        random_pairs: How many random pairs the percentiles refer to.
        layers: Cosine in each state.
        is_truncated: Whether a sentence of the pair was cut, (P,).
        bank: The summaries of the distinct sentences; None where only the scores were kept.
        rows: Row of each pair's sentences in the bank, (P, 2).
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    strategies: tuple[str, ...]
    cosines: np.ndarray
    percentiles: np.ndarray
    random_pairs: int
    layers: LayerSimilarity
    is_truncated: np.ndarray
    bank: LayerBank | None
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def disagreement(self) -> np.ndarray:
        """How far the strategies are apart on each pair, (P,): the range of the percentiles, or of
        the cosines where there are no percentiles."""
        values = self.percentiles if self.random_pairs else self.cosines
        return np.ptp(values, axis=1)

    def select(self, places: Sequence[int]) -> Comparison:
        """Return the comparison of some of the pairs: those at `places` in that order, or a mask's.

        Percentiles still refer to the random pairs of the whole set.
        """
        places = np.asarray(places)
        places = np.flatnonzero(places) if places.dtype == bool else places.astype(int)
        layers = self.layers
        return replace(
            self,
            first=tuple(self.first[place] for place in places),
            second=tuple(self.second[place] for place in places),
            cosines=self.cosines[places],
            percentiles=self.percentiles[places],
            layers=replace(layers, query=layers.query[places], mean=layers.mean[places]),
            is_truncated=self.is_truncated[places],
            rows=self.rows[places],
        )

    def spearman(self, gold: Sequence[float]) -> dict[str, Interval]:
        """Return Spearman × 100 with its interval per strategy, for gold scores (P,).

        Raises:
            InputError: As `lwap.evaluation.sts.spearman`.
        """
        return {
            name: spearman_interval(self.cosines[:, place], np.asarray(gold))
            for place, name in enumerate(self.strategies)
        }

    def to_frame(self, gold: Sequence[float] | None = None) -> pd.DataFrame:
        """Return a row a pair: the sentences, the score, then cosine and percentile a strategy."""
        columns: dict[str, Any] = {"sentence1": self.first, "sentence2": self.second}
        if gold is not None:
            columns["score"] = gold
        for place, name in enumerate(self.strategies):
            columns[name] = self.cosines[:, place]
        if self.random_pairs:
            for place, name in enumerate(self.strategies):
                columns[f"{name} percentile"] = self.percentiles[:, place]
        return pd.DataFrame(columns)


def compare_pairs(
    model: AnyModel,
    pairs: Pairs,
    strategies: Sequence[str] | None = None,
    *,
    whitening: Mapping[str, Whitening] | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Comparison:
    """Return everything there is to see about some pairs, out of one pass in fp32.

    Args:
        model: From `lwap.load`, its name, or a `CachedModel`.
        pairs: (sentence1, sentence2) a pair, or a frame with these columns.
        strategies: Names from `lwap.strategies(model)`; by default all but the single layers.
        whitening: For "…+whiten" strategies, by strategy name without "+whiten".
        progress: As in `encode_layers`.
        seed: Of the random pairs.

    Raises:
        InputError: If there are no pairs, or a sentence is empty.
        StrategyError: If a strategy cannot be had from this model.
    """
    first, second = split_pairs(pairs)
    cached = CachedModel.of(model)
    names = tuple(strategies if strategies is not None else cached.default_strategies)
    for name in names:
        describe(name)
    distinct = {text: row for row, text in enumerate(dict.fromkeys([*first, *second]))}
    bank = cached.bank(list(distinct), progress=progress)
    rows = np.array([[distinct[a], distinct[b]] for a, b in zip(first, second, strict=True)])
    drawn = random_rows(len(distinct), rows, seed)
    cosines = np.empty((len(first), len(names)))
    percentiles = np.full_like(cosines, np.nan)
    for place, name in enumerate(names):
        vectors = embed(bank, name, whitening=whitening)
        cosines[:, place] = cosine(vectors[rows[:, 0]], vectors[rows[:, 1]])
        if len(drawn):
            reference = cosine(vectors[drawn[:, 0]], vectors[drawn[:, 1]])
            percentiles[:, place] = percentile_among(cosines[:, place], reference)
    return Comparison(
        first=tuple(first),
        second=tuple(second),
        strategies=names,
        cosines=cosines,
        percentiles=percentiles,
        random_pairs=len(drawn),
        layers=layer_similarity(bank.select(rows[:, 0]), bank.select(rows[:, 1])),
        is_truncated=bank.is_truncated[rows].any(axis=1),
        bank=bank,
        rows=rows,
    )


def compare(
    model: AnyModel,
    pairs: Pairs,
    strategies: Sequence[str] | None = None,
    *,
    whitening: Mapping[str, Whitening] | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the cosine of each pair under each strategy: a row a pair, a column a strategy.

    In bounded memory, whatever the number of pairs. The first two columns are `sentence1` and
    `sentence2`; a frame's `score` column is kept.

    Args: as `compare_pairs`; `precision` as in `encode_layers`, for what is no `CachedModel` yet.

    Raises:
        InputError: If there are no pairs, or a sentence is empty.
        StrategyError: If a strategy cannot be had from this model.
    """
    first, second = split_pairs(pairs)
    cached = model if isinstance(model, CachedModel) else CachedModel(model, precision=precision)
    names = list(strategies if strategies is not None else cached.default_strategies)
    columns: dict[str, Sequence] = {"sentence1": first, "sentence2": second}
    if isinstance(pairs, pd.DataFrame) and "score" in pairs:
        columns["score"] = pairs["score"].to_numpy()
    cosines = cached.cosines(first, second, names, whitening=whitening, progress=progress)
    return pd.DataFrame(columns | dict(zip(names, cosines, strict=True)))


def split_pairs(pairs: Pairs) -> tuple[list[str], list[str]]:
    """Return first and second sentences of the pairs.

    Raises:
        InputError: If there are none, one has not two sentences, or a sentence is empty; the
            message names the pair.
    """
    if isinstance(pairs, pd.DataFrame):
        missing = [name for name in ("sentence1", "sentence2") if name not in pairs]
        if missing:
            raise InputError(
                f"The pairs have no column {missing[0]!r}; there are {list(pairs.columns)}. "
                "Name the columns 'sentence1' and 'sentence2'."
            )
        rows = list(zip(pairs["sentence1"], pairs["sentence2"], strict=True))
    else:
        rows = list(pairs)
    if not rows:
        raise InputError("No pairs were given. Give at least one pair of sentences.")
    for place, row in enumerate(rows, start=1):
        is_sequence = isinstance(row, Sequence | np.ndarray) and not isinstance(row, str)
        if not is_sequence or len(row) != 2:
            raise InputError(
                f"Pair {place} is {row!r}; a pair is two sentences, (sentence1, sentence2)."
            )
        for side, text in enumerate(row, start=1):
            if not isinstance(text, str) or not text.strip():
                raise InputError(
                    f"Pair {place}: sentence{side} is empty ({text!r}). "
                    "Fill it in or remove the pair."
                )
            if not is_unicode(text):
                raise InputError(
                    f"Pair {place}: sentence{side} holds half a character, a lone surrogate "
                    f"({text!r}). Save its source as UTF-8, or write the sentence anew."
                )
    return [row[0] for row in rows], [row[1] for row in rows]


def random_rows(count: int, rows: np.ndarray, seed: int) -> np.ndarray:
    """Return rows of random pairs of different sentences that are not pairs of the set, (R, 2)."""
    known = {tuple(sorted(pair)) for pair in rows.tolist()}
    random = np.random.default_rng(seed)
    if count > 400:
        drawn = random.integers(0, count, size=(2 * RANDOM_PAIRS, 2))
        drawn = np.unique(np.sort(drawn[drawn[:, 0] != drawn[:, 1]], axis=1), axis=0)
    else:
        drawn = np.stack(np.triu_indices(count, k=1), axis=1)
    random.shuffle(drawn)
    chosen = [pair for pair in drawn.tolist() if tuple(pair) not in known][:RANDOM_PAIRS]
    if len(chosen) < MIN_RANDOM_PAIRS:
        return np.empty((0, 2), dtype=int)
    return np.array(chosen)
