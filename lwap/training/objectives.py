"""The contrastive objective. Knows embeddings only."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn


class HardNegativeRankingLoss(MultipleNegativesRankingLoss):
    """InfoNCE over in-batch positives and all hard negatives, with SimCSE's hard-negative weight.

    For a batch of (h_i, h_i⁺, h_i⁻) and τ the temperature:

        l_i = −log( s(h_i,h_i⁺) / Σ_j ( s(h_i,h_j⁺) + e^{w·1[i=j]} s(h_i,h_j⁻) ) )
        s(a,b) = e^{cos(a,b)/τ}

    w = `hard_negative_weight` is a constant added to the own hard negative's logit. It is not
    sentence-transformers' `hardness_mode`, which adds a multiple of the cosine. w = 0 is
    `MultipleNegativesRankingLoss` exactly.

    Args:
        model: The model that is trained.
        temperature: τ > 0.
        hard_negative_weight: w.

    Source: Gao et al. 2021 (SimCSE), equation 5; the weight is an option of its released code.
    """

    def __init__(
        self, model: nn.Module, temperature: float = 0.05, hard_negative_weight: float = 0.0
    ) -> None:
        super().__init__(model, scale=1 / temperature)
        self.hard_negative_weight = hard_negative_weight

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Return the mean loss of a batch: anchors, positives and hard negatives, each (B, D)."""
        if self.hard_negative_weight == 0 or len(embeddings) < 3:
            return super().compute_loss_from_embeddings(embeddings, labels)
        anchors, *candidates = embeddings
        batch = len(anchors)
        logits = self.similarity_fct(anchors, torch.cat(candidates)) * self.scale  # (B, 2B …)
        own = torch.eye(batch, device=logits.device, dtype=logits.dtype)
        own = own.repeat(1, len(candidates))
        own[:, :batch] = 0  # the positives keep their logits
        logits = logits + self.hard_negative_weight * own
        return nn.functional.cross_entropy(logits, torch.arange(batch, device=logits.device))

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for sentence-transformers' records."""
        return {**super().get_config_dict(), "hard_negative_weight": self.hard_negative_weight}
