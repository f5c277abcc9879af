"""BERT-whitening: make an embedding space isotropic by a linear map fitted on a named corpus.

Knows arrays only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lwap.errors import StrategyError

_NO_VARIANCE = 1e-10  # relative; float32 rounding leaves about 1e-15


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> (x - mean) @ matrix, so that the corpus has zero mean and identity covariance.

    That is: identity in the directions that the encoder fills. A LayerNorm at its end ties the D
    dimensions by one linear equation, and dimensions may be dead (all-MiniLM-L6-v2: 3 of 384
    directions have no variance). Such directions become 0; divided by their standard deviation
    they would be amplified noise.

    Attributes:
        mean: Mean embedding of the corpus, (D,).
        matrix: U · Λ^(-1/2) of the corpus' covariance, (D, D); columns without variance are 0.
        corpus: What it was fitted on; printed beside every result.
        count: Sentences it was fitted on.

    Source: Su et al. 2021, "Whitening Sentence Representations for Better Semantics and Faster
    Retrieval".
    """

    mean: np.ndarray
    matrix: np.ndarray
    corpus: str
    count: int

    @classmethod
    def fit(cls, embeddings: np.ndarray, *, corpus: str) -> Whitening:
        """Fit on embeddings (N, D) of the corpus named `corpus`, in float64.

        Raises:
            StrategyError: If N ≤ D, there are no more than D different embeddings, or all are alike
                but for rounding.
        """
        count, dimension = embeddings.shape
        if count <= dimension:
            raise StrategyError(
                f"Whitening {dimension} dimensions needs more than {dimension} distinct sentences; "
                f"'{corpus}' has {count}. Fit it on a larger file."
            )
        distinct = len(np.unique(embeddings, axis=0))
        if distinct <= dimension:
            raise StrategyError(
                f"Whitening {dimension} dimensions needs more than {dimension} different "
                f"embeddings; the {count} sentences of '{corpus}' have {distinct} under this "
                "strategy. Fit it on more varied text."
            )
        data = embeddings.astype(np.float64)
        mean = data.mean(axis=0)
        centred = data - mean
        values, vectors = np.linalg.eigh(centred.T @ centred / (count - 1))
        if values.sum() <= _NO_VARIANCE * np.square(data).sum(axis=1).mean():
            raise StrategyError(
                f"The embeddings of '{corpus}' are all alike under this strategy, so there is "
                "nothing to whiten. Choose another one; the first token of state 0, for one, is "
                "the same for every sentence."
            )
        values, vectors = values[::-1], vectors[:, ::-1]  # falling variance
        is_filled = values > values[0] * _NO_VARIANCE
        matrix = np.zeros_like(vectors)
        matrix[:, is_filled] = vectors[:, is_filled] / np.sqrt(values[is_filled])
        return cls(mean=mean, matrix=matrix, corpus=corpus, count=count)

    def apply(self, embeddings: np.ndarray) -> np.ndarray:
        """Return whitened embeddings, (N, D) -> (N, D) float32."""
        return ((embeddings - self.mean) @ self.matrix).astype(np.float32)
