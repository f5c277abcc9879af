"""Which layers a model listens to, and what happens when one is taken away.

An attention weight says where the head looks, a knock-out says what that look is worth; neither
alone is an explanation, so both come together. Knows models and banks, no figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lwap.checkpoints.cached import AnyModel, CachedModel
from lwap.encoding.bank import LayerBank, Progress, Summary, model_heads
from lwap.errors import InputError
from lwap.names import state_names
from lwap.pooling.trained import EVERY_STATE, bank_head, check_summaries, head_chunks, in_eval
from lwap.scores import cosine


@dataclass(frozen=True, eq=False)
class Explanation:
    """Layer attention of N sentences, and the effect of each state.

    Attributes:
        texts: The N sentences.
        strategy: The trained pooling that was explained.
        attention: A[i,l] of each sentence, (N, Q, S); every row sums to 1.
        weights: Mean of the attention over queries, (N, S): what each state contributes to p.
        knockout: 1 − cosine between the embedding and the one with state l removed, (N, S).
        embeddings: The head's embeddings, (N, D).
        knockout_embeddings: The embeddings with state l removed, (N, S, D).
        is_truncated: Whether the encoder saw only the beginning, (N,).
        token_counts: Tokens that the encoder saw, (N,).
        max_tokens: The encoder's limit.
        query_name: What asks, where it is no hidden state.
    """

    texts: tuple[str, ...]
    strategy: str
    attention: np.ndarray
    weights: np.ndarray
    knockout: np.ndarray
    embeddings: np.ndarray
    knockout_embeddings: np.ndarray
    is_truncated: np.ndarray
    token_counts: np.ndarray
    max_tokens: int
    query_name: str = ""

    @property
    def state_names(self) -> list[str]:
        """The names of the S states."""
        return state_names(self.weights.shape[1])

    @property
    def query_names(self) -> list[str]:
        """The names of the Q query states: all, the last one, or what asks instead."""
        if self.attention.shape[1] == self.weights.shape[1]:
            return self.state_names
        return [self.query_name] if self.query_name else self.state_names[-1:]

    def pair_knockout(self, first: int, second: int) -> np.ndarray:
        """Return the change of the cosine of two sentences as each state is removed, (S,).

        Negative: without that state the two are less similar.
        """
        without = cosine(self.knockout_embeddings[first], self.knockout_embeddings[second])
        return without - cosine(self.embeddings[first], self.embeddings[second])


@dataclass(frozen=True, eq=False)
class LayerSimilarity:
    """The cosine of P pairs in each state.

    Attributes:
        query: Between the query vectors (CLS, or the last token of a decoder), (P, S).
        mean: Between the token means, (P, S).
        query_name: What the query vector is: "CLS" or "last token".
    """

    query: np.ndarray
    mean: np.ndarray
    query_name: str


def explain(
    model: AnyModel, texts: Sequence[str] | LayerBank, *, progress: Progress | None = None
) -> Explanation:
    """Return layer attention, weights and knock-out of each sentence under the model's head.

    Args:
        model: A model with a trained pooling over layers: from `lwap.load`, its name, or a
            `CachedModel`.
        texts: N sentences, or their bank if it was made already.
        progress: As in `encode_layers`.

    Raises:
        StrategyError: If the model has no trained pooling over layers, or the bank lacks "cls" or
            "mean".
        InputError: If a sentence is empty.
    """
    if not isinstance(texts, LayerBank):
        bank = CachedModel.of(model).bank(texts, summaries=EVERY_STATE, progress=progress)
    elif texts.heads:
        bank = texts
    else:  # opened from disk, where a bank has no heads
        bank = replace(texts, heads=model_heads(CachedModel.of(model).model))
    strategy, head = bank_head(bank)
    check_summaries(bank, EVERY_STATE, "explain")
    attention, embeddings, removed = [], [], []
    with in_eval(head):
        for query, means, _ in head_chunks(bank, next(head.parameters())):
            features = head({"layer_cls": query, "layer_means": means})
            attention.append(features["layer_attention"].float().cpu().numpy())
            embeddings.append(features["sentence_embedding"].float().cpu().numpy())
            removed.append(head.knock_out(query, means).float().cpu().numpy())
    attention, embeddings, removed = map(np.concatenate, (attention, embeddings, removed))
    return Explanation(
        texts=bank.texts,
        strategy=strategy,
        attention=attention,
        weights=attention.mean(axis=1),
        knockout=1 - cosine(removed, embeddings[:, None]),
        embeddings=embeddings,
        knockout_embeddings=removed,
        is_truncated=bank.is_truncated,
        token_counts=bank.token_counts,
        max_tokens=bank.max_tokens,
        query_name=head.query_name,
    )


def layer_similarity(first: LayerBank, second: LayerBank) -> LayerSimilarity:
    """Return the cosine of each pair (row i of both banks) in each state.

    Raises:
        InputError: If the banks differ in length.
        StrategyError: If a bank lacks "cls" or "mean".
    """
    for bank in (first, second):
        check_summaries(bank, EVERY_STATE, "layer_similarity")
    if len(first) != len(second):
        raise InputError(
            f"Pairs need as many first sentences as second ones, not {len(first)} and "
            f"{len(second)}."
        )
    return LayerSimilarity(
        query=cosine(np.asarray(first.query), np.asarray(second.query)),
        mean=cosine(np.asarray(first.mean), np.asarray(second.mean)),
        query_name=first.query_name,
    )


def state_similarity(bank: LayerBank) -> np.ndarray:
    """Return the cosine between the token means of every two states of each sentence, (N, S, S).

    Raises:
        StrategyError: If the bank lacks "mean".
    """
    check_summaries(bank, (Summary.MEAN,), "state_similarity")
    means = np.asarray(bank.mean)
    return cosine(means[:, :, None], means[:, None, :])
