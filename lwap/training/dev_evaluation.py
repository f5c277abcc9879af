"""How good a model is while it is trained: one look at a dev set, and the results at the end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sentence_transformers import SentenceTransformer

from lwap.encoding.bank import (
    LayerBank,
    Progress,
    check_texts,
    encode_layers,
    layerwise_transformer,
)
from lwap.errors import ConfigError, InputError
from lwap.evaluation import geometry
from lwap.evaluation.sts import (
    Difference,
    Interval,
    spearman,
    spearman_difference,
    spearman_interval,
)
from lwap.pooling.head import LayerHead
from lwap.pooling.strategies import embed, own_vectors
from lwap.pooling.trained import layer_weights
from lwap.registry import STRATEGIES
from lwap.scores import cosine
from lwap.training.config import TrainConfig
from lwap.training.examples import Examples

START = "start"  # the score of the checkpoint that a run started from
TRAINED = "trained"  # the score of a pooling that the untouched encoder has, too
POSITIVE_SHARE = 0.8  # of the range of scores: pairs above it count for the alignment
GEOMETRY_SENTENCES = 2000  # of the dev set; an even sample above


class DevSet:
    """Scored pairs, or held-out examples, and what a model makes of them.

    Args:
        encoder: The model before training, from `lwap.load`.
        pairs: Columns sentence1, sentence2, score; None where examples are held out.
        held_out: Examples; None where there are pairs.
        is_frozen: Whether the encoder stays as it is, so that its summaries are kept.
        precision: Of looks at an encoder that changes.
        progress: Over the sentences of the set.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        pairs: pd.DataFrame | None,
        held_out: Examples | None,
        *,
        is_frozen: bool,
        precision: str = "fp32",
        progress: Progress | None = None,
    ) -> None:
        self.pairs, self.held_out = pairs, held_out
        self.is_frozen, self.precision = is_frozen, precision
        columns = _columns(pairs, held_out)
        self.texts = list(dict.fromkeys(text for column in columns for text in column))
        row_of = {text: row for row, text in enumerate(self.texts)}
        self.rows = [np.array([row_of[text] for text in column]) for column in columns]
        self.max_tokens = layerwise_transformer(encoder).max_seq_length
        # All summaries: the baselines of the results come from it.
        self.before = encode_layers(encoder, self.texts, progress=progress)
        self.start = own_vectors(self.before, encoder)  # its modules may be trained later

    def bank(self, model: SentenceTransformer, precision: str = "fp32") -> LayerBank:
        """Return the summaries of the set's sentences under a model's encoder as it is now.

        The sentences are read as far as ever, whatever is cut off in training.
        """
        if self.is_frozen:
            return self.before
        with reading(layerwise_transformer(model), self.max_tokens):
            return encode_layers(model, self.texts, summaries=("cls", "mean"), precision=precision)

    def look(self, model: SentenceTransformer) -> dict[str, Any]:
        """Return dev (Spearman × 100, or accuracy in percent), alignment, uniformity, weights.

        NaN where a number does not exist, as for a model that gives the same vector for all.
        """
        bank = self.bank(model, self.precision)
        vectors = own_vectors(bank, model)
        found: dict[str, Any] = {"dev": math.nan, "alignment": math.nan, "uniformity": math.nan}
        if (weights := mean_weights(bank, model)) is not None:
            found["layer_weights"] = [round(float(weight), 5) for weight in weights]
        if not np.isfinite(vectors).all() or not np.abs(vectors).max(axis=1).all():
            return found
        found["dev"] = self.score(vectors)
        unit = geometry.normalise(vectors)
        positives = self._positives()
        if len(positives):
            found["alignment"] = geometry.alignment(unit[positives[:, 0]], unit[positives[:, 1]])
        some = np.linspace(0, len(unit) - 1, min(len(unit), GEOMETRY_SENTENCES)).round()
        if len(some) > 1:
            found["uniformity"] = geometry.uniformity(unit[some.astype(int)]).value
        return found

    def untouched(self) -> float:
        """Return the score of the mean of the encoder that the run starts from."""
        return self.score(embed(self.before, "mean"))

    def score(self, vectors: np.ndarray) -> float:
        """Return what the best step is chosen by, of vectors of the set's sentences (N, D)."""
        if self.held_out is not None:
            return _accuracy(vectors, self.rows)
        try:
            return spearman(self._cosines(vectors), self._gold())
        except InputError:  # all cosines are the same
            return math.nan

    def results(
        self,
        model: SentenceTransformer,
        name: str,
        pooling: str,
        *,
        published: SentenceTransformer | None = None,
    ) -> dict[str, Any]:
        """Return the scores of a finished run with intervals, in fp32.

        Args:
            model: The trained model.
            name: What the dev set is called.
            pooling: The model's pooling, by which its own score is called, or "trained".
            published: Where the run started from a checkpoint: the encoder that this one was
                trained from. The baselines are its, and what the run started from is one more.
        """
        bank = self.bank(model)
        vectors = own_vectors(bank, model)
        found: dict[str, Any] = {"dev_set": name}
        # "mean" and "cls" are the untouched encoder's.
        own = pooling if STRATEGIES[pooling].needs_training else TRAINED
        if self.held_out is not None:
            found |= {"dev_accuracy": self.score(vectors), "dev_triplets": len(self.held_out)}
        else:
            base = self.before if published is None else encode_layers(published, self.texts)
            cosines = {
                own: self._cosines(vectors),
                "mean": self._cosines(embed(base, "mean")),
                "cls": self._cosines(embed(base, "cls")),
            }
            if published is not None:
                cosines[START] = self._cosines(self.start)
            gold = self._gold()
            found |= {
                "dev_pairs": len(gold),
                "dev_spearman": {
                    key: as_dict(spearman_interval(values, gold)) for key, values in cosines.items()
                },
                "dev_difference_to_mean": as_dict(
                    spearman_difference(cosines[own], cosines["mean"], gold)
                ),
            }
            if published is not None:
                found["dev_difference_to_start"] = as_dict(
                    spearman_difference(cosines[own], cosines[START], gold)
                )
        if (weights := mean_weights(bank, model)) is not None:
            found["layer_weights"] = [round(float(weight), 4) for weight in weights]
        return found

    def _cosines(self, vectors: np.ndarray) -> np.ndarray:
        return cosine(vectors[self.rows[0]], vectors[self.rows[1]])

    def _gold(self) -> np.ndarray:
        assert self.pairs is not None  # nothing is held out
        return self.pairs["score"].to_numpy(dtype=float, copy=True)

    def _positives(self) -> np.ndarray:
        first, second = self.rows[0], self.rows[min(1, len(self.rows) - 1)]
        if self.held_out is None:
            gold = self._gold()
            good = gold >= gold.min() + POSITIVE_SHARE * (gold.max() - gold.min())
            first, second = first[good], second[good]
        pairs = np.stack([first, second], axis=1)
        return pairs[pairs[:, 0] != pairs[:, 1]]


def check_dev(config: TrainConfig, pairs: pd.DataFrame | None) -> None:
    """Refuse dev pairs that no step can be chosen on, and an objective that needs them without any.

    Raises:
        ConfigError: If there are none, and the objective has no positives to hold out.
        InputError: If a column is missing, a sentence is none, or the scores cannot be ranked.
    """
    if pairs is None:
        if not config.has_positives:
            raise ConfigError(
                f"The {config.objective} objective has no positives to hold out; the best step "
                "is chosen on scored pairs. Give dev pairs (sentence1, sentence2, score)."
            )
        return
    missing = [name for name in ("sentence1", "sentence2", "score") if name not in pairs]
    if missing:
        raise InputError(
            f"The dev pairs have no column '{missing[0]}'; they need sentence1, sentence2, score, "
            f"and have {list(pairs.columns)}."
        )
    try:
        for name in ("sentence1", "sentence2"):
            check_texts(pairs[name])
        # Any ranking will do: this raises if the scores themselves cannot be ranked.
        spearman(np.arange(len(pairs)), pairs["score"].to_numpy(dtype=float, copy=True))
    except InputError as error:
        raise InputError(f"The dev pairs cannot be used. {error}") from error
    except ValueError as error:
        raise InputError(
            f"The dev pairs have scores that are no numbers ({error}). Mend the column."
        ) from error


def dev_texts(pairs: pd.DataFrame | None, held_out: Examples | None) -> list[str]:
    """Return the distinct sentences of a dev set."""
    columns = _columns(pairs, held_out)
    return list(dict.fromkeys(text for column in columns for text in column))


def _columns(pairs: pd.DataFrame | None, held_out: Examples | None) -> list[list[str]]:
    if held_out is not None:
        return held_out.columns
    assert pairs is not None  # one of the two
    return [pairs[name].tolist() for name in ("sentence1", "sentence2")]


@contextlib.contextmanager
def reading(transformer: Any, tokens: int | None) -> Iterator[None]:
    """Let an encoder read so many tokens of a sentence for a while; None is no limit."""
    limit = transformer.max_seq_length
    transformer.max_seq_length = tokens
    try:
        yield
    finally:
        transformer.max_seq_length = limit


def mean_weights(bank: LayerBank, model: SentenceTransformer) -> np.ndarray | None:
    """Return the mean layer weights of a model's head over a bank, (S,); None without a head."""
    head = next((module for module in model if isinstance(module, LayerHead)), None)
    if head is None:
        return None
    return layer_weights(replace(bank, heads={head.strategy: head})).mean(axis=0, dtype=np.float64)


def _accuracy(vectors: np.ndarray, rows: Sequence[np.ndarray]) -> float:
    """Return how often, in percent, a positive is the candidate nearest to its anchor."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    anchors, *candidates = rows
    best = (unit[anchors] @ unit[np.concatenate(candidates)].T).argmax(axis=1)
    return float(100 * (best == np.arange(len(best))).mean())


def as_dict(value: Interval | Difference) -> dict[str, float]:
    """Return a measured value with its interval as plain numbers."""
    return {name: round(number, 4) for name, number in vars(value).items()}
