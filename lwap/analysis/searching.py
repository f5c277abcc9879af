"""What a query finds among sentences, under several pooling strategies side by side.

Knows models and banks, no figures, no relevance judgements: `lwap.evaluation.retrieval` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from lwap.analysis.comparison import Comparison
from lwap.analysis.explanation import layer_similarity
from lwap.checkpoints.cached import AnyModel, CachedModel
from lwap.encoding.bank import LayerBank, Progress, check_texts, is_unicode
from lwap.errors import InputError
from lwap.evaluation.retrieval import top_k
from lwap.pooling.strategies import describe, embed

_ARRAYS = ("cls", "mean", "max", "last_token", "last_tokens", "token_counts", "is_truncated")


@dataclass(frozen=True, eq=False)
class SearchResults:
    """One query's results among N sentences under K strategies, k in each list.

    Sentences that stand there more than once are searched once: a list has their first row, and
    their other rows share its rank. Equal cosines are ranked in the order of the rows.

    Attributes:
        query: The query.
        sentences: The N sentences, as they were given.
        strategies: The K strategies.
        indices: Rows of the sentences nearest to the query, best first, (K, k).
        scores: Their cosines with the query, (K, k).
        ranks: The rank of every sentence, 1 is nearest, (K, N).
        cosines: The cosine of every sentence with the query, (K, N).
        is_repeated: Whether the same sentence stands in an earlier row, (N,).
        is_truncated: Whether the encoder saw only the beginning of the sentence, (N,).
        is_query_truncated: Whether it saw only the beginning of the query.
        found: The rows that are in a list, by the first list, then what the second adds, …, (R,).
        pairs: The query with each of the R sentences in `found`, their cosines under the K
            strategies and in each state; its bank holds the query in row 0, then the R sentences.
    """

    query: str
    sentences: tuple[str, ...]
    strategies: tuple[str, ...]
    indices: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    cosines: np.ndarray
    is_repeated: np.ndarray
    is_truncated: np.ndarray
    is_query_truncated: bool
    found: np.ndarray
    pairs: Comparison

    @property
    def num_distinct(self) -> int:
        """How many different sentences were searched, which is the last rank."""
        return int((~self.is_repeated).sum())

    def to_frame(self) -> pd.DataFrame:
        """Return a row a distinct sentence: the sentence, then rank and cosine a strategy.

        In the order of the first strategy.
        """
        rows = np.flatnonzero(~self.is_repeated)
        rows = rows[np.argsort(self.ranks[0, rows], kind="stable")]
        columns: dict[str, Sequence] = {"sentence": [self.sentences[row] for row in rows]}
        for place, name in enumerate(self.strategies):
            columns[f"{name} rank"] = self.ranks[place, rows]
            columns[f"{name} cosine"] = self.cosines[place, rows]
        return pd.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class Collection:
    """N sentences to search in, encoded once; every query is then one sentence more.

    Attributes:
        model: The model that encoded them.
        sentences: The N sentences.
        bank: Summaries of the M distinct ones.
        rows: Row in the bank of each sentence, (N,).
    """

    model: CachedModel
    sentences: tuple[str, ...]
    bank: LayerBank
    rows: np.ndarray
    _vectors: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, model: AnyModel, sentences: Sequence[str], *, progress: Progress | None = None
    ) -> Collection:
        """Encode the distinct ones of N sentences.

        Raises:
            InputError: If there are no sentences, or one is empty or not a string.
        """
        sentences = check_texts(sentences)
        place = {text: row for row, text in enumerate(dict.fromkeys(sentences))}
        cached = CachedModel.of(model)
        return cls(
            model=cached,
            sentences=tuple(sentences),
            bank=cached.bank(list(place), progress=progress),
            rows=np.array([place[text] for text in sentences]),
        )

    def vectors(self, strategy: str) -> np.ndarray:
        """Return the M distinct sentences' embeddings under a strategy, (M, D).

        Raises:
            StrategyError: If the model does not give this strategy.
        """
        if not describe(strategy).needs_training:  # a view of the bank, or nearly so
            return embed(self.bank, strategy)
        if strategy not in self._vectors:
            self._vectors[strategy] = embed(self.bank, strategy)
        return self._vectors[strategy]

    def search(self, query: str, strategies: Sequence[str], *, k: int = 10) -> SearchResults:
        """Return what a query finds under each strategy; arguments and errors as `search`."""
        names = tuple(strategies)
        if isinstance(strategies, str) or not names:
            raise InputError(
                f"strategies is {strategies!r}; it takes one name or more, such as ['mean', 'cls']."
            )
        if k < 1:
            raise InputError(f"k is {k}; ask for 1 result or more.")
        asked = self.model.bank([_checked(query)])
        count = len(self.bank)
        ranked = np.empty((len(names), count), dtype=np.int64)
        cosines, ranks = np.empty((len(names), count)), np.empty_like(ranked)
        for place, name in enumerate(names):
            found_cosines, found = top_k(embed(asked, name), self.vectors(name), count)
            ranked[place] = found[0]
            cosines[place, found[0]] = found_cosines[0]
            ranks[place, found[0]] = np.arange(1, count + 1)
        ranked = ranked[:, :k]
        first_rows = np.unique(self.rows, return_index=True)[1]  # of each distinct sentence, (M,)
        distinct = np.array(list(dict.fromkeys(ranked.ravel().tolist())))
        is_repeated = np.ones(len(self.rows), dtype=bool)
        is_repeated[first_rows] = False
        return SearchResults(
            query=query,
            sentences=self.sentences,
            strategies=names,
            indices=first_rows[ranked],
            scores=np.take_along_axis(cosines, ranked, axis=1),
            ranks=ranks[:, self.rows],
            cosines=cosines[:, self.rows],
            is_repeated=is_repeated,
            is_truncated=self.bank.is_truncated[self.rows],
            is_query_truncated=bool(asked.is_truncated[0]),
            found=first_rows[distinct],
            pairs=_paired(asked, self.bank.select(distinct), names, cosines[:, distinct].T),
        )


def search(
    model: AnyModel,
    sentences: Sequence[str],
    query: str,
    strategies: Sequence[str],
    *,
    k: int = 10,
    progress: Progress | None = None,
) -> SearchResults:
    """Return the k sentences nearest to a query by cosine under each strategy; exact.

    For many queries on the same sentences, encode these once: `Collection.of(model, sentences)`
    of `lwap.analysis.searching`, then its `search(query, strategies)`.

    Args:
        model: From `lwap.load`.
        sentences: N sentences to search in.
        query: What is looked for.
        strategies: K names from `lwap.strategies(model)`, without "+whiten".
        k: Results in each list, clipped to the number of different sentences.
        progress: As in `encode_layers`, over the sentences.

    Raises:
        InputError: If there are no sentences, one or the query is empty or not a string, no
            strategy is named, or k is below 1.
        StrategyError: If the model does not give a strategy.
    """
    _checked(query)  # before the sentences, which take a while
    for name in () if isinstance(strategies, str) else strategies:
        describe(name)
    return Collection.of(model, sentences, progress=progress).search(query, strategies, k=k)


def _checked(query: str) -> str:
    if not isinstance(query, str) or not query.strip():
        raise InputError(f"The query is empty ({query!r}). Write what to look for.")
    if not is_unicode(query):
        raise InputError(
            f"The query holds half a character, a lone surrogate ({query!r:.60}). Write it anew."
        )
    return query


def _paired(
    query: LayerBank, found: LayerBank, strategies: tuple[str, ...], cosines: np.ndarray
) -> Comparison:
    """Return the pairs of one query with each of R sentences, cosines (R, K)."""
    count = len(found)
    return Comparison(
        first=query.texts * count,
        second=found.texts,
        strategies=strategies,
        cosines=cosines,
        percentiles=np.full_like(cosines, np.nan),
        random_pairs=0,
        layers=layer_similarity(query.select([0] * count), found),
        is_truncated=query.is_truncated | found.is_truncated,
        bank=_joined(query, found),
        rows=np.array([[0, row] for row in range(1, count + 1)]),
    )


def _joined(first: LayerBank, second: LayerBank) -> LayerBank:
    """Return one bank of the sentences of two banks of the same model."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in _ARRAYS
        if getattr(first, name) is not None
    }
    return replace(second, texts=first.texts + second.texts, **arrays)
