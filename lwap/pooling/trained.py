"""A trained pooling over the summaries of a bank: its vectors, and its weights of the layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from lwap.encoding.bank import LayerBank, Summary
from lwap.errors import StrategyError
from lwap.pooling.head import LayerHead

HEAD_ROWS = 4096  # sentences a chunk when a head runs over a bank; bounds memory
EVERY_STATE = (Summary.CLS, Summary.MEAN)  # what a head reads


def run_head(bank: LayerBank, head: LayerHead) -> np.ndarray:
    """Return a trained head's embeddings of a bank, (N, D) float32, as in eval mode."""
    weight = next(head.parameters())
    out = np.empty((len(bank), head.embedding_dimension), dtype=np.float32)
    with in_eval(head):
        for query, means, rows in head_chunks(bank, weight):
            features = head({"layer_cls": query, "layer_means": means})
            out[rows] = features["sentence_embedding"].float().cpu().numpy()
    return out


@contextlib.contextmanager
def in_eval(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode without gradients, and back into its own mode afterwards."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)


def head_chunks(
    bank: LayerBank, like: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
    """Yield (query vectors, means, rows) of a bank in chunks, (n, S, D) tensors like `like`."""
    assert bank.query is not None and bank.mean is not None  # `check_summaries` was asked
    for start in range(0, len(bank), HEAD_ROWS):
        rows = slice(start, start + HEAD_ROWS)
        query, means = (
            # np.array copies: a memory-mapped bank is read-only, which torch warns about.
            torch.from_numpy(np.array(array[rows])).to(like.device, like.dtype)
            for array in (bank.query, bank.mean)
        )
        yield query, means, rows


def layer_weights(bank: LayerBank) -> np.ndarray:
    """Return what each state contributes to each sentence under the bank's head, (N, S).

    The weights of `explain` without its knock-out, which takes S times as long.

    Raises:
        StrategyError: As `explain`.
    """
    _, head = bank_head(bank)
    check_summaries(bank, EVERY_STATE, "layer_weights")
    found = []
    with in_eval(head):
        for query, means, _ in head_chunks(bank, next(head.parameters())):
            attention, _ = head.attend(query, means)
            found.append(attention.mean(dim=1).float().cpu().numpy())
    return np.concatenate(found)


def bank_head(bank: LayerBank) -> tuple[str, Any]:
    """Return (strategy, head) of the trained pooling that a bank's model has.

    Raises:
        StrategyError: If it has none.
    """
    if not bank.heads:
        raise StrategyError(
            f"'{bank.encoder}' has no trained layer attention to look at. Choose a checkpoint with "
            "a head (python -m lwap models list), or train one (python -m lwap train)."
        )
    return next(iter(bank.heads.items()))


def check_summaries(bank: LayerBank, summaries: Iterable[str], reader: str) -> None:
    """Refuse a bank that does not hold what `reader`, a strategy or a function, reads.

    Raises:
        StrategyError: With the first summary that is missing.
    """
    for summary in summaries:
        if getattr(bank, summary) is None:
            raise StrategyError(
                f"'{reader}' needs the summary '{summary}', which this bank does not hold. Make "
                f"it with encode_layers(model, texts, summaries=[…, '{summary}'])."
            )
