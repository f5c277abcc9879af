"""The scalar mix: one learned weight a state, the same for every sentence (ELMo, COMET)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lwap.pooling.formulas import knocked_out_weights
from lwap.pooling.head import LayerHead, check_dimensions


class ScalarMix(LayerHead):
    """Mix the token means of all states with one learned weight a state.

        e = γ Σ_l softmax(w)_l a_l

    The weights are the same for every sentence (ELMo's and COMET's scalar mix).

    Args:
        embedding_dimension: D, the encoder's hidden size.
        num_states: S = L+1.

    Inputs: as `LayerwiseAttentionPooling`. Outputs: `sentence_embedding` (B, D),
    `layer_attention` (B, 1, S).

    Source: Peters et al. 2018 (ELMo), equation 1; Rei et al. 2020 (COMET).
    """

    strategy = "scalar_mix"
    query_name = "all sentences alike"
    config_keys = ["embedding_dimension", "num_states"]  # noqa: RUF012

    def __init__(self, embedding_dimension: int, num_states: int) -> None:
        super().__init__()
        check_dimensions(embedding_dimension, num_states)
        self.embedding_dimension = embedding_dimension
        self.num_states = num_states
        self.weights = nn.Parameter(torch.zeros(num_states))
        self.gamma = nn.Parameter(torch.ones(()))

    def logits_and_values(
        self, layer_query: Tensor, layer_means: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the same logits for every sentence, (B, 1, S), and the means as values."""
        return self.weights.expand(len(layer_means), 1, -1), layer_means

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `sentence_embedding` (B, D) and `layer_attention` (B, 1, S) to the features."""
        layer_query, layer_means = self.layer_summaries(features)
        attention, values = self.attend(layer_query, layer_means)
        mixed = torch.einsum("bs,bsd->bd", attention[:, 0].to(values.dtype), values)
        return {
            **features,
            "sentence_embedding": self.gamma * mixed,
            "layer_attention": attention,
        }

    def knock_out(self, layer_query: Tensor, layer_means: Tensor) -> Tensor:
        """Return the embeddings with one state removed and the weights renormalised, (B, S, D)."""
        logits, values = self.logits_and_values(layer_query, layer_means)
        return self.gamma * (knocked_out_weights(logits).to(values.dtype) @ values)
