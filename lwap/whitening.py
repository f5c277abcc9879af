"""BERT-whitening: make an embedding space isotropic by a linear map fitted on a named corpus.

Knows arrays only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lwap.errors import StrategyError


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> (x - mean) @ matrix, so that the corpus has zero mean and identity covariance.

    Attributes:
        mean: Mean embedding of the corpus, (D,).
        matrix: U · Λ^(-1/2) of the corpus' covariance, (D, D).
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
            StrategyError: If N ≤ D (the covariance would be singular), or a dimension is constant.
        """
        count, dimension = embeddings.shape
        if count <= dimension:
            raise StrategyError(
                f"Whitening {dimension} dimensions needs more than {dimension} distinct sentences; "
                f"'{corpus}' has {count}. Fit it on a larger file."
            )
        data = embeddings.astype(np.float64)
        mean = data.mean(axis=0)
        centred = data - mean
        values, vectors = np.linalg.eigh(centred.T @ centred / (count - 1))
        if values[0] <= values[-1] * 1e-10:
            raise StrategyError(
                f"The embeddings of '{corpus}' do not fill {dimension} dimensions (too many "
                "repeated or near-identical sentences). Fit the whitening on more varied text."
            )
        order = np.argsort(-values)
        matrix = vectors[:, order] / np.sqrt(values[order])
        return cls(mean=mean, matrix=matrix, corpus=corpus, count=count)

    def apply(self, embeddings: np.ndarray) -> np.ndarray:
        """Return whitened embeddings, (N, D) -> (N, D) float32."""
        return ((embeddings - self.mean) @ self.matrix).astype(np.float32)
