"""The contrastive objective. Knows embeddings, and models only as what gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import all_gather_with_grad
from torch import Tensor, nn
from torch.distributed import get_rank, is_available, is_initialized

from lwap.training.batches import embed_columns
from lwap.training.config import TrainConfig


def info_nce(
    embeddings: Sequence[Tensor],
    *,
    temperature: float,
    hard_negative_weight: float = 0.0,
    gather: bool = False,
) -> Tensor:
    """Return the mean loss of a batch of anchors, positives and, if there are any, hard negatives.

    For (h_i, h_i⁺, h_i⁻) and τ the temperature:

        l_i = −log( s(h_i,h_i⁺) / Σ_j ( s(h_i,h_j⁺) + e^{w·1[i=j]} s(h_i,h_j⁻) ) )
        s(a,b) = e^{cos(a,b)/τ}

    Args:
        embeddings: Two columns or more, (B, D) each.
        temperature: τ > 0.
        hard_negative_weight: w, a constant added to the own hard negatives' logits.
        gather: Whether the candidates of all ranks are negatives, with gradients; the mean over
            ranks is then the loss of one process with all their batches.

    Source: Gao et al. 2021 (SimCSE), equations 1 and 5; w is an option of its released code.
    """
    # Half precision is too coarse for a softmax over cosines at a low temperature.
    exact = [each if each.dtype == torch.float64 else each.float() for each in embeddings]
    anchors, *candidates = [nn.functional.normalize(each, dim=-1) for each in exact]
    batch, offset = len(anchors), 0
    if gather and is_available() and is_initialized():
        candidates = [all_gather_with_grad(column) for column in candidates]
        offset = get_rank() * batch
    world = len(candidates[0])
    logits = anchors @ torch.cat(candidates).T / temperature  # (B, columns · world)
    own = torch.arange(offset, offset + batch, device=logits.device)
    if hard_negative_weight != 0 and len(candidates) > 1:
        weights = torch.zeros_like(logits)
        rows = torch.arange(batch, device=logits.device)
        for column in range(1, len(candidates)):  # the positives keep their logits
            weights[rows, own + column * world] = hard_negative_weight
        logits = logits + weights
    return nn.functional.cross_entropy(logits, own)


def contrastive(model: SentenceTransformer, settings: TrainConfig, gather: bool) -> nn.Module:
    """Return the contrastive loss of a model by the settings of its run."""
    weights = (settings.temperature, settings.hard_negative_weight)
    if settings.mini_batch:
        return CachedContrastiveLoss(model, *weights, mini_batch=settings.mini_batch, gather=gather)
    return ContrastiveLoss(model, *weights, share=settings.has_positives, gather=gather)


class ContrastiveLoss(MultipleNegativesRankingLoss):
    """InfoNCE over in-batch positives and all hard negatives, with SimCSE's hard-negative weight.

    The formula is that of `info_nce`. The weight is not sentence-transformers' `hardness_mode`,
    which adds a multiple of the cosine; w = 0 is `MultipleNegativesRankingLoss` exactly.

    Args:
        model: The model that is trained.
        temperature: τ > 0.
        hard_negative_weight: w.
        share: Whether equal sentences of a batch are encoded once; off for two views of one.
        gather: Whether other ranks' candidates are negatives, too.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        hard_negative_weight: float = 0.0,
        *,
        share: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(model, scale=1 / temperature, gather_across_devices=gather)
        self.hard_negative_weight = hard_negative_weight
        self.share = share

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Return the loss of a batch, given as features of each column."""
        embeddings = embed_columns(self.model, list(sentence_features), share=self.share)
        return self.compute_loss_from_embeddings(embeddings, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Return the mean loss of a batch: anchors, positives and hard negatives, each (B, D)."""
        if self.hard_negative_weight == 0:
            return super().compute_loss_from_embeddings(embeddings, labels)
        return info_nce(
            embeddings,
            temperature=self.temperature,
            hard_negative_weight=self.hard_negative_weight,
            gather=self.gather_across_devices,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for sentence-transformers' records."""
        return {**super().get_config_dict(), "hard_negative_weight": self.hard_negative_weight}


class CachedContrastiveLoss(CachedMultipleNegativesRankingLoss):
    """`ContrastiveLoss` of a large batch in small memory (GradCache).

    Embeds `mini_batch` rows at a time without gradients, takes the gradients of the loss with
    respect to all embeddings, and embeds again to pass them on: the gradients are those of the
    whole batch, for one more forward pass.

    Args:
        model, temperature, hard_negative_weight, gather: As `ContrastiveLoss`.
        mini_batch: Rows of a column embedded at once.

    Source: Gao et al. 2021 (Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup); the cache is sentence-transformers'.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        hard_negative_weight: float = 0.0,
        *,
        mini_batch: int = 32,
        gather: bool = False,
    ) -> None:
        super().__init__(
            model, scale=1 / temperature, mini_batch_size=mini_batch, gather_across_devices=gather
        )
        self.hard_negative_weight = hard_negative_weight

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Return the loss of cached embeddings, a list of mini-batches for each column."""
        loss = info_nce(
            [torch.cat(column) for column in reps],
            temperature=self.temperature,
            hard_negative_weight=self.hard_negative_weight,
            gather=self.gather_across_devices,
        )
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for sentence-transformers' records."""
        return {**super().get_config_dict(), "hard_negative_weight": self.hard_negative_weight}
