"""The formulas of attention over layers, as pure functions.

Shapes: B sentences, S = L+1 hidden states (0 = embedding output), D hidden size, Q query states
(S, or 1 where only the last state asks).
"""

import torch
from torch import Tensor


def layer_logits(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Return q_i · k_l / scale: (B, Q, D), (B, S, D) -> (B, Q, S).

    >>> layer_logits(torch.ones(1, 1, 4), torch.ones(1, 2, 4), scale=2.0)
    tensor([[[2., 2.]]])
    """
    return torch.einsum("bqd,bsd->bqs", queries, keys) / scale


def layer_attention(logits: Tensor) -> Tensor:
    """Return A[i,l] = softmax_l(logits[i,l]), in at least float32: (B, Q, S) -> (B, Q, S).

    >>> layer_attention(torch.zeros(1, 1, 2))
    tensor([[[0.5000, 0.5000]]])
    """
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def knocked_out_weights(logits: Tensor) -> Tensor:
    """Return the weight of each state after one state is removed: (B, Q, S) -> (B, S, S).

    Row s of the result belongs to "state s removed": the removed column is 0, every query's
    softmax runs over the states that are left, and the mean over queries is taken. From the logits
    and not from the attention, which may have underflowed to 0 in all the states that are left.

    >>> knocked_out_weights(torch.zeros(1, 1, 3))
    tensor([[[0.0000, 0.5000, 0.5000],
             [0.5000, 0.0000, 0.5000],
             [0.5000, 0.5000, 0.0000]]])
    """
    removed = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)  # (S, S)
    kept = logits.unsqueeze(1).masked_fill(removed[None, :, None, :], -torch.inf)
    return layer_attention(kept).mean(dim=2)  # (B, S removed, Q, S) -> (B, S removed, S)
