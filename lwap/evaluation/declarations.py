"""Every measure: what it is called, which way is better, how it is read.

The one place where a measure is declared. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from lwap.registry import MEASURES, resolve


class Of(StrEnum):
    """What a measure is taken of."""

    SPACE = "space"  # vectors, perhaps with positive pairs
    RANKING = "ranking"  # documents ranked for queries
    MAP = "map"  # a map of a space


@dataclass(frozen=True)
class Measure:
    """A number for a space, a ranking or a map.

    Attributes:
        name: The column of tables and files.
        label: What it is called in figures and sentences.
        better: "↓", "↑", or "→ 0".
        explanation: One sentence.
        of: What it is taken of.
        form: How it is written, as in f"{value:{form}}".
        axis: What an axis of it says beside the label.
        has_zero: Whether such an axis shows zero.
        read: Geometry to the number, where `lwap.geometry` computes it.
        compute: "module:function" from vectors (N, D) to the number, or the function, for all
            others: `lwap.geometry` calls it as well, and tables and figures show it.
    """

    name: str
    label: str
    better: str
    explanation: str
    of: Of = Of.SPACE
    form: str = ".3f"
    axis: str = ""
    has_zero: bool = False
    read: Callable[[Any], float] | None = None
    compute: str | Callable[[np.ndarray], float] | None = None

    def of_vectors(self, vectors: np.ndarray) -> float:
        """Return the number for vectors, (N, D)."""
        assert self.compute is not None  # of all that are not read out of a geometry
        return float(resolve(self.compute)(vectors))

    def of_geometry(self, found: Any) -> float:
        """Return the number out of a `lwap.evaluation.geometry.Geometry`."""
        return self.read(found) if self.read else found.others[self.name]


def space_measures() -> dict[str, Measure]:
    """Return the measures of a space, in the order in which they are shown."""
    return {name: each for name, each in MEASURES.items() if each.of == Of.SPACE}


def by_label(label: str) -> Measure:
    """Return the measure of a label."""
    return next(each for each in MEASURES.values() if each.label == label)


def ranking_measures() -> dict[str, Measure]:
    """Return the measures of a ranking, in the order in which they are shown."""
    return {name: each for name, each in MEASURES.items() if each.of == Of.RANKING}


for _measure in (
    Measure(
        name="uniformity",
        label="uniformity",
        better="↓",
        explanation="Log of the mean Gaussian potential of all pairs of sentences; lower is more "
        "uniform, and about −4 is the lowest possible.",
        form=".2f",
        axis="lower is more uniform",
        read=lambda found: found.uniformity.value,
    ),
    Measure(
        name="alignment",
        label="alignment",
        better="↓",
        explanation="Mean squared distance of the pairs that mean the same; lower is nearer.",
        axis="lower: positive pairs closer",
        read=lambda found: found.alignment,
    ),
    Measure(
        name="mean_random_cosine",
        label="mean cosine",
        better="→ 0",
        explanation="Mean cosine of all pairs of sentences; near 0 is isotropic.",
        form=".2f",
        axis="0 is isotropic",
        has_zero=True,
        read=lambda found: found.mean_random_cosine,
    ),
    Measure(
        name="effective_rank",
        label="effective rank",
        better="↑",
        explanation="How many directions are used.",
        form=".1f",
        axis="higher: more directions in use",
        read=lambda found: found.effective_rank,
    ),
    Measure(
        name="isoscore",
        label="IsoScore",
        better="↑",
        explanation="How evenly the variance is spread over the directions, 0 to 1.",
        axis="1 is isotropic",
        read=lambda found: found.isoscore,
    ),
    Measure(
        name="trustworthiness",
        label="trustworthiness",
        better="↑",
        explanation="Of the map: 1 if every neighbour on it is a near one in the full space.",
        of=Of.MAP,
    ),
    Measure(
        name="knn_recall",
        label="k-NN recall",
        better="↑",
        explanation="Of the map: share of the 15 nearest neighbours in the full space that are "
        "also the 15 nearest on the map.",
        of=Of.MAP,
    ),
    Measure(
        name="ndcg_at_10",
        label="nDCG@10",
        better="↑",
        explanation="Gains of the first ten documents, discounted by rank, against the best order.",
        of=Of.RANKING,
    ),
    Measure(
        name="average_precision",
        label="MAP",
        better="↑",
        explanation="Mean precision at the rank of each relevant document.",
        of=Of.RANKING,
    ),
    Measure(
        name="reciprocal_rank_at_10",
        label="MRR@10",
        better="↑",
        explanation="One over the rank of the first relevant document, 0 beyond ten.",
        of=Of.RANKING,
    ),
    Measure(
        name="recall_at_100",
        label="Recall@100",
        better="↑",
        explanation="Share of the relevant documents among the first hundred.",
        of=Of.RANKING,
    ),
):
    MEASURES.add(_measure)
