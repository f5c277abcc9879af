"""A copy of the model that a run would train, to be measured."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from lwap.encoding.bank import layerwise_transformer
from lwap.encoding.hardware import Precision, resolve_precision
from lwap.training.batches import GROUP_TOKENS
from lwap.training.check import count_tokens, token_limit
from lwap.training.config import TrainConfig
from lwap.training.examples import Examples, plain
from lwap.training.model import new_model

DRAWN = 10_000  # sentences of the batches that are drawn to see how long they are
MAX_DRAWN = 30  # batches


class Probe:
    """A copy of the model that a run would train, batches as the run would draw them."""

    def __init__(
        self, config: TrainConfig, examples: Examples, encoder: SentenceTransformer
    ) -> None:
        self.config = config
        self.model = new_model(config, copy.deepcopy(encoder))
        self.transformer = layerwise_transformer(self.model)
        self.device = self.transformer.device
        self.budget = GROUP_TOKENS.get(self.device.type, GROUP_TOKENS["cuda"])
        columns = examples.columns
        if not config.has_positives:
            columns = columns * 2
        self.rows = self._draw(columns)
        drawn = list(dict.fromkeys(text for batch in self.rows for row in batch for text in row))
        counts = count_tokens(drawn, encoder).clip(0, token_limit(config, encoder))
        self.tokens = dict(zip(drawn, counts.tolist(), strict=True))
        self.mean_tokens = float(counts.mean())
        self.batches = [self.padded(batch, config.mini_batch) for batch in self.rows]

    def _draw(self, columns: Sequence[Sequence[str]]) -> list[list[tuple[str, ...]]]:
        random = np.random.default_rng(self.config.seed)
        rows, size = len(columns[0]), min(self.config.batch_size, len(columns[0]))
        count = min(MAX_DRAWN, max(3, DRAWN // (size * len(columns))))
        return [
            [
                tuple(column[row] for column in columns)
                for row in random.choice(rows, size, replace=False)
            ]
            for _ in range(count)
        ]

    def padded(
        self, batch: Sequence[tuple[str, ...]], mini_batch: int = 0
    ) -> list[tuple[int, int]]:
        """Return the sentences and the width in tokens of each forward pass of a batch."""
        if mini_batch:
            return [
                (len(column[start : start + mini_batch]), max(self.tokens[text] for text in column))
                for column in zip(*batch, strict=True)
                for start in range(0, len(column), mini_batch)
            ]
        texts = [text for row in batch for text in row]
        if self.config.has_positives:
            texts = list({plain(text): text for text in texts}.values())
        groups: list[tuple[int, int]] = []
        for tokens in sorted((self.tokens[text] for text in texts), reverse=True):
            if groups and (groups[-1][0] + 1) * groups[-1][1] <= self.budget:
                groups[-1] = (groups[-1][0] + 1, groups[-1][1])
            else:
                groups.append((1, tokens))
        return groups

    def precision(self) -> Precision:
        """Return the arithmetic of the encoder."""
        return resolve_precision(self.config.precision, self.device)
