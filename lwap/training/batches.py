"""The sentences of a training batch through the encoder: each once, in groups of similar length.

A batch comes as columns (anchors, positives, hard negatives), each padded to its own longest
sentence. Much of what a plain forward pass computes there is padding, and NLI repeats its premises.
Knows features and models, no objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

GROUP_TOKENS = {"cpu": 1024, "cuda": 16_384, "mps": 4096}  # padded tokens of one forward pass
_PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids")


def embed_columns(
    model: nn.Module,
    columns: Sequence[dict[str, Any]],
    *,
    share: bool = True,
    group_tokens: int | None = None,
) -> list[Tensor]:
    """Return the embeddings of each column of a batch, (B, D) each, with gradients.

    Equal to a forward pass a column but for rounding and dropout.

    Args:
        model: A model of modules that takes features and gives `sentence_embedding`.
        columns: Features of each column, as the model's tokenizer gives them, padded on the right.
        share: Whether equal sentences are encoded once, with the same dropout. Off where two
            views of a sentence must differ.
        group_tokens: Padded tokens of one forward pass; by default what suits the device.
    """
    if any("attention_mask" not in features for features in columns):
        return [model(dict(features))["sentence_embedding"] for features in columns]
    rows, width = [], max(features["input_ids"].shape[1] for features in columns)
    joined = {
        name: torch.cat(
            [_widened(features[name], width) for features in columns if name in features]
        )
        for name in _PER_TOKEN
        if name in columns[0]
    }
    rest = {name: value for name, value in columns[0].items() if not isinstance(value, Tensor)}
    lengths = joined["attention_mask"].sum(dim=1)
    if share:
        # Whatever a column was padded with, and a padding token may also be a word.
        key = joined["input_ids"].masked_fill(joined["attention_mask"] == 0, -1)
        _, place = torch.unique(key, dim=0, return_inverse=True)
        first = _first_of_each(place)
    else:
        place = torch.arange(len(lengths), device=lengths.device)
        first = place
    lengths = lengths[first]
    order = torch.argsort(lengths, descending=True, stable=True)
    budget = group_tokens or GROUP_TOKENS.get(lengths.device.type, GROUP_TOKENS["cuda"])
    for group in _groups(lengths[order].tolist(), budget):
        chosen = first[order[group]]
        longest = int(lengths[order[group]].max())
        features = {name: values[chosen, :longest] for name, values in joined.items()}
        rows.append(model({**rest, **features})["sentence_embedding"])
    embeddings = torch.cat(rows)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    every = embeddings[back[place]]
    return list(every.split([len(features["input_ids"]) for features in columns]))


def _widened(values: Tensor, width: int) -> Tensor:
    return nn.functional.pad(values, (0, width - values.shape[1]))


def _first_of_each(place: Tensor) -> Tensor:
    """Return the first row of each value 0 … U−1 of `place`, (U,)."""
    count = int(place.max()) + 1
    first = torch.full((count,), len(place), device=place.device, dtype=place.dtype)
    rows = torch.arange(len(place), device=place.device)
    return first.scatter_reduce(0, place, rows, reduce="amin")


def _groups(lengths: Sequence[int], budget: int) -> list[slice]:
    """Cut lengths, longest first, into groups of at most `budget` padded tokens."""
    groups, start = [], 0
    for row in range(1, len(lengths) + 1):
        is_full = row == len(lengths) or (row + 1 - start) * lengths[start] > budget
        if is_full:
            groups.append(slice(start, row))
            start = row
    return groups
