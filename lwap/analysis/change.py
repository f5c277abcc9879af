"""What training changed, as data: both sides, the difference, neighbourhoods, weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lwap.evaluation.geometry import Geometry
from lwap.evaluation.sts import (
    Difference,
    Interval,
)
from lwap.names import state_names
from lwap.projection.neighbours import Neighbours, overlap

K = 10  # neighbours that a neighbourhood's change is counted over
LISTED = 20  # pairs and sentences of `to_dict`
READ_HERE = "these sentences"
RANK, PERCENTILE, COSINE = SCALES = ("rank", "percentile", "cosine")


@dataclass(frozen=True, eq=False)
class Side:
    """A model before or after, on P scored pairs.

    Attributes:
        model: Its name.
        pooling: Its own pooling, e.g. "mean" or "cls, dense".
        strategy: The same without what follows it, as `embed` takes it.
        spearman: × 100, with its interval.
        geometry: Of the pairs' distinct sentences, with the best scored pairs as positives.
        scores: Of each pair, (P,), by scale: its rank among these pairs and its percentile among
            random pairs of their sentences (0–100), and its cosine. NaN percentiles where there
            are too few sentences for random pairs.
    """

    model: str
    pooling: str
    strategy: str
    spearman: Interval
    geometry: Geometry
    scores: dict[str, np.ndarray]


@dataclass(frozen=True)
class Neighbourhood:
    """How the nearest neighbours of one sentence changed.

    Attributes:
        sentence: The sentence.
        kept: Share of the neighbours before that are neighbours after, 0–1.
        lost: Neighbours before that are none after, nearest first.
        gained: Neighbours after that were none before, nearest first.
    """

    sentence: str
    kept: float
    lost: tuple[str, ...]
    gained: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """Mean weight of each of the S hidden states, before and after.

    Attributes:
        before: Of the untrained head, (S,); None where no run recorded it.
        after: Of the trained head, (S,).
        measured_on: On which sentences, in words.
    """

    before: tuple[float, ...] | None
    after: tuple[float, ...]
    measured_on: str


@dataclass(frozen=True, eq=False)
class Change:
    """What differs between a model before and after, on P scored pairs and N sentences.

    Attributes:
        before, after: Both sides.
        difference: Spearman after − before, × 100, by paired bootstrap.
        aggregation: How Spearman comes out of subsets, see `Aggregation`.
        pairs_name: What the pairs are called, or "".
        first, second: The sentences of the pairs.
        gold: Their scores, (P,).
        gold_rank: Rank of each among them, 0–100, (P,).
        random_pairs: How many the percentiles refer to.
        chosen_on: How many of the pairs are of the set that the step was chosen on.
        sentences: The N sentences whose neighbours were looked up.
        near: Neighbours of each before and after, exact.
        k: How many of them count.
        kept: Share of each sentence's k neighbours before that are neighbours after, (N,).
        weights: Layer weights; None without a head over layers.
    """

    before: Side
    after: Side
    difference: Difference
    aggregation: str
    pairs_name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: np.ndarray
    gold_rank: np.ndarray
    random_pairs: int
    chosen_on: int
    sentences: tuple[str, ...]
    near: tuple[Neighbours, Neighbours]
    k: int
    kept: np.ndarray
    weights: Weights | None

    @property
    def is_none(self) -> bool:
        """Whether no pair and no neighbourhood differs."""
        return bool((self.moves(COSINE) == 0).all() and (self.kept == 1).all())

    @property
    def can_be_told_apart(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def verdict(self) -> str:
        """Whether the model became better on these pairs, in a sentence or two."""
        found = self.difference
        p_value = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
        said = (
            f"Spearman {_shown(self.before.spearman.value)} → "
            f"{_shown(self.after.spearman.value)}, {_shown(found.value, '+')} "
            f"[{_shown(found.low, '+')}, {_shown(found.high, '+')}], {p_value}"
        )
        if math.isnan(found.value):
            return "Spearman is undefined: one side gives all pairs the same cosine."
        if self.is_none:
            return f"{said}: nothing changed."
        if not self.can_be_told_apart:
            return f"{said}: the interval spans zero, so these pairs cannot tell the two apart."
        return f"{said}: {'better' if found.value > 0 else 'worse'} on these pairs."

    @property
    def warning(self) -> str:
        """What to bear in mind where the step was chosen on these pairs, else ""."""
        if not self.chosen_on:
            return ""
        which = "these pairs"
        if self.chosen_on < len(self.first):
            which = f"{self.chosen_on:,} of these {len(self.first):,} pairs"
        return f"The step was chosen on {which}, so a gain here is no evidence of one elsewhere."

    def moves(self, scale: str = RANK) -> np.ndarray:
        """Return how far each pair moved on a scale, (P,)."""
        return self.after.scores[scale] - self.before.scores[scale]

    def moved(self, most: int = LISTED, scale: str = RANK) -> pd.DataFrame:
        """Return the pairs that moved most on a scale, a row each.

        Columns: sentence1, sentence2, score, and "SCALE before", "SCALE after" for each scale.
        """
        order = np.argsort(-np.abs(self.moves(scale)), kind="stable")[:most]
        columns: dict[str, Any] = {
            "sentence1": [self.first[pair] for pair in order],
            "sentence2": [self.second[pair] for pair in order],
            "score": self.gold[order],
        }
        for name in SCALES:
            columns[f"{name} before"] = self.before.scores[name][order]
            columns[f"{name} after"] = self.after.scores[name][order]
        return pd.DataFrame(columns)

    def changed(self, most: int | None = LISTED) -> list[Neighbourhood]:
        """Return the sentences whose neighbours changed most; None for all that changed at all."""
        before, after = (near.indices for near in self.near)
        # Equal shares of few neighbours are frequent: more of them decide which comes first.
        order = np.lexsort((np.arange(len(self.kept)), overlap(before, after), self.kept))
        found = []
        for row in order[: (self.kept < 1).sum()][:most].tolist():
            old, new = before[row, : self.k].tolist(), after[row, : self.k].tolist()
            found.append(
                Neighbourhood(
                    sentence=self.sentences[row],
                    kept=float(self.kept[row]),
                    lost=tuple(self.sentences[other] for other in old if other not in new),
                    gained=tuple(self.sentences[other] for other in new if other not in old),
                )
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data, lists cut to the first; None for what is undefined."""
        sides = {"before": self.before, "after": self.after}
        weights = self.weights
        return _plain(
            {
                "model": self.after.model,
                **{name: {"model": s.model, "pooling": s.pooling} for name, s in sides.items()},
                "verdict": " ".join(filter(None, (self.verdict, self.warning))),
                "pairs": {
                    "name": self.pairs_name,
                    "count": len(self.first),
                    "chosen_on": self.chosen_on,
                    "random_pairs": self.random_pairs,
                },
                "spearman": {
                    "aggregation": str(self.aggregation),
                    **{name: vars(side.spearman) for name, side in sides.items()},
                    "difference": vars(self.difference),
                },
                "uniformity": {name: s.geometry.uniformity.value for name, s in sides.items()},
                "alignment": {name: s.geometry.alignment for name, s in sides.items()},
                "moved": self.moved().to_dict(orient="records"),
                "neighbours": {
                    "sentences": len(self.sentences),
                    "k": self.k,
                    "kept": float(self.kept.mean()),
                    "changed": [vars(each) for each in self.changed()],
                },
                "layer_weights": weights
                and {"states": state_names(len(weights.after))} | vars(weights),
            }
        )


def _shown(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2f}".replace("-", "−")


def _plain(value: Any) -> Any:
    """Return numbers as JSON has them: None in the place of NaN."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return value
