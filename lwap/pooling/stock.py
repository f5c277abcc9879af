"""Sentence-transformers' own poolings, as they are put behind an encoder that is trained."""

from __future__ import annotations

from typing import Any

from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from lwap.encoding.encoder import LayerwiseTransformer

INITIAL_STD = 0.02  # of a new dense layer's weights, as BERT's


def mean(settings: Any, encoder: LayerwiseTransformer) -> list[nn.Module]:
    """Return mean pooling."""
    return [Pooling(encoder.get_embedding_dimension(), "mean")]


def cls_with_dense(settings: Any, encoder: LayerwiseTransformer) -> list[nn.Module]:
    """Return the first token behind a new dense layer and tanh, as SimCSE trains it."""
    size = encoder.get_embedding_dimension()
    dense = Dense(size, size, activation_function=nn.Tanh())
    nn.init.normal_(dense.linear.weight, std=INITIAL_STD)
    nn.init.zeros_(dense.linear.bias)
    return [Pooling(size, "cls"), dense]
