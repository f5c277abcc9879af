"""Reductions of token states to one vector a sentence: (B, T, D) and a mask give (B, D)."""

import torch
from torch import Tensor


def first_token(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the state of each sentence's first real token: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden[:, 0]
    # gather, not hidden[arange(B), index]: the latter freezes the batch size in an ONNX export.
    index = attention_mask.int().argmax(dim=1)
    return hidden.gather(1, index[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def last_token(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the state of each sentence's last real token: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden[:, -1]
    index = attention_mask.shape[1] - 1 - attention_mask.int().flip(1).argmax(dim=1)
    return hidden.gather(1, index[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def token_mean(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the mean over real tokens, special tokens included: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden.mean(dim=1)
    weights = attention_mask.to(hidden.dtype)
    total = torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)  # (B, D)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)


def token_max(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the maximum over real tokens in each dimension: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden.amax(dim=1)
    padding = attention_mask.unsqueeze(-1) == 0
    return hidden.masked_fill(padding, torch.finfo(hidden.dtype).min).amax(dim=1)
