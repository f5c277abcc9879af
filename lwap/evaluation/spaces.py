"""Geometry and semantic search of every strategy and layer of a model. Knows no figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from lwap.checkpoints.cached import AnyModel, CachedModel, ModelOptions, Progress
from lwap.datasets.readers import RetrievalData
from lwap.errors import InputError
from lwap.evaluation import geometry, retrieval
from lwap.evaluation.declarations import space_measures
from lwap.evaluation.result import versions
from lwap.evaluation.tasks import Task

POSITIVE_SHARE = 0.8  # of the range of scores: 4 of 0–5, as usual for STS-B
# The columns of a `GeometryResult` beside its strategies; low and high are uniformity's.
_FIRST = ("alignment", "uniformity", "low", "high")
DEPTH = 1000  # documents a query that MAP looks at, as BEIR does


@dataclass(frozen=True, eq=False)
class GeometryResult:
    """The geometry of one model's space on the sentences of a task.

    Attributes:
        table: A row a strategy: strategy, alignment, uniformity, low, high, mean_random_cosine,
            effective_rank, isoscore. NaN where a strategy gives the same vector, or none, for
            every sentence.
        model, encoder, precision: Whose space it is.
        data: Name of the task.
        data_sha256: Of its file or content.
        sentences: Distinct sentences.
        positives: Pairs that count as meaning the same.
        positive_at: Lowest score of these.
        is_exact: Whether uniformity is over all pairs of sentences.
        seed: Of the sample, where it is not.
        notes: What a reader of the numbers should know.
    """

    table: pd.DataFrame
    model: str
    encoder: str
    precision: str
    data: str
    data_sha256: str
    sentences: int
    positives: int
    positive_at: float
    is_exact: bool
    seed: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return rows and provenance as plain data; None where a number is undefined."""
        return {
            "rows": plain_rows(self.table),
            **{name: value for name, value in vars(self).items() if name != "table"},
            "versions": versions(),
        }


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """Semantic search in one collection under every strategy of a model.

    Attributes:
        table: A row a strategy and measure: strategy, measure, value, low, high (0–1), queries.
        model, encoder, precision: Whose vectors they are.
        data: Name of the collection.
        documents: N.
        depth: Ranks that MAP looked at.
        truncated: Documents of which the encoder saw only the beginning.
        max_tokens: The encoder's limit.
        is_exact: Whether every document was compared; else faiss searched approximately.
        seed: Of the bootstrap over queries.
        notes: What a reader of the numbers should know.
    """

    table: pd.DataFrame
    model: str
    encoder: str
    precision: str
    data: str
    documents: int
    depth: int
    truncated: int
    max_tokens: int
    is_exact: bool
    seed: int
    notes: tuple[str, ...] = ()

    def wide(self) -> pd.DataFrame:
        """Return a row a strategy, a column a measure, in the order of the strategies."""
        order = list(dict.fromkeys(self.table["strategy"]))
        wide = self.table.pivot(index="strategy", columns="measure", values="value")
        return wide.loc[order, list(retrieval.MEASURES.values())]

    def to_dict(self) -> dict[str, Any]:
        """Return rows and provenance as plain data."""
        return {
            "rows": plain_rows(self.table),
            **{name: value for name, value in vars(self).items() if name != "table"},
            "versions": versions(),
        }


def evaluate_geometry(
    model: AnyModel,
    task: Task,
    strategies: Sequence[str] | None = None,
    *,
    positive_at: float | None = None,
    exact_up_to: int = geometry.EXACT_UP_TO,
    seed: int = 0,
    progress: Progress | None = None,
    on_strategy: Progress | None = None,
    **options: Unpack[ModelOptions],
) -> GeometryResult:
    """Measure alignment, uniformity and isotropy of every strategy on a task's sentences.

    Args:
        model: A name for `lwap.load`, a model, or a `CachedModel`.
        task: Scored pairs; its distinct sentences are the space, its best pairs the positives.
        strategies: By default all that the model has, single layers included.
        positive_at: Lowest score of a positive pair; by default four fifths of the way from the
            lowest to the highest score of the task, which is 4 on a scale of 0–5.
        exact_up_to: Sentences up to which uniformity is over all pairs; above it is sampled.
        seed, progress, options: As in `evaluate_sts`.
        on_strategy: Called with (strategies measured, strategies in all).

    Raises:
        InputError: If no pair counts as positive, or the threshold is no number.
        StrategyError: If the model has no such strategy.
    """
    source = CachedModel.of(model, **options)
    cache = source.cache
    names = list(dict.fromkeys(strategies or source.facts.strategies))
    texts, positives, positive_at = positive_rows(task, positive_at)
    num_positive = int((task.gold >= positive_at).sum())
    measured = {}
    for name, vectors in source.vectors(texts, names, progress=progress):
        measured[name] = _measured(
            vectors, positives if len(positives) else None, exact_up_to=exact_up_to, seed=seed
        )
        if on_strategy is not None:
            on_strategy(len(measured), len(names))
    notes = [*task.notes, *source.notes, *(cache.notes if cache is not None else [])]
    if (same := num_positive - len(positives)) > 0:
        notes.append(f"{same} positive pairs of identical sentences do not count for alignment.")
    return GeometryResult(
        table=pd.DataFrame([{"strategy": name, **measured[name]} for name in names]),
        model=source.facts.name,
        encoder=source.facts.encoder,
        precision=source.precision,
        data=task.name,
        data_sha256=task.sha256,
        sentences=len(texts),
        positives=len(positives),
        positive_at=positive_at,
        is_exact=len(texts) <= exact_up_to,
        seed=seed,
        notes=tuple(notes),
    )


def positive_rows(
    task: Task, positive_at: float | None = None
) -> tuple[list[str], np.ndarray, float]:
    """Return a task's distinct sentences, the rows of its positive pairs (P, 2), their threshold.

    Pairs of one sentence with itself are no pairs of rows.

    Args:
        task: Scored pairs.
        positive_at: Lowest score of a positive pair; by default four fifths of the way from the
            lowest to the highest score of the task, which is 4 on a scale of 0–5.

    Raises:
        InputError: If no pair counts as positive.
    """
    low, high = float(task.gold.min()), float(task.gold.max())
    if positive_at is None:
        # Rounded, as 0.8 × 3 is a little more than 2.4, the score that it stands for.
        positive_at = round(low + POSITIVE_SHARE * (high - low), 9)
    is_positive = task.gold >= positive_at
    if not is_positive.any():
        raise InputError(
            f"No pair of '{task.name}' has a score of {positive_at:g} or more; its scores are "
            f"{low:g} to {high:g}. Choose a lower threshold (--positive-at)."
        )
    row_of = {text: row for row, text in enumerate(dict.fromkeys([*task.first, *task.second]))}
    positives = np.array(
        [
            [row_of[a], row_of[b]]
            for a, b, good in zip(task.first, task.second, is_positive, strict=True)
            if good and a != b
        ]
    ).reshape(-1, 2)
    return list(row_of), positives, positive_at


def evaluate_retrieval(
    model: AnyModel,
    data: RetrievalData,
    strategies: Sequence[str] | None = None,
    *,
    exact_up_to: int = retrieval.EXACT_UP_TO,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Unpack[ModelOptions],
) -> RetrievalResult:
    """Search a collection under every strategy: nDCG@10, MAP, MRR@10 and Recall@100.

    Args:
        model: A name for `lwap.load`, a model, or a `CachedModel`.
        data: From `lwap.datasets.readers.read_retrieval`.
        strategies: By default all that the model has, single layers included.
        exact_up_to: Documents up to which every one is compared; above it faiss searches.
        seed, progress, options: As in `evaluate_sts`.

    Raises:
        StrategyError: If the model has no such strategy.
    """
    source = CachedModel.of(model, **options)
    cache = source.cache
    names = list(dict.fromkeys(strategies or source.facts.strategies))
    texts = list(dict.fromkeys([*data.documents, *data.queries]))
    row_of = {text: row for row, text in enumerate(texts)}
    documents = [row_of[text] for text in data.documents]
    queries = [row_of[text] for text in data.queries]
    depth = min(DEPTH, len(documents))
    parts, recall = [], 1.0
    for name, vectors in source.vectors(texts, names, progress=progress):
        found = retrieval.search(
            vectors[queries], vectors[documents], depth, exact_up_to=exact_up_to, seed=seed
        )
        recall = min(recall, found.recall)
        scores = retrieval.evaluate(found.indices, data.relevance, depth=depth, seed=seed)
        parts.append(
            pd.DataFrame(
                {
                    "strategy": name,
                    "measure": list(retrieval.MEASURES.values()),
                    "value": [scores.means[key].value for key in retrieval.MEASURES],
                    "low": [scores.means[key].low for key in retrieval.MEASURES],
                    "high": [scores.means[key].high for key in retrieval.MEASURES],
                    "queries": len(scores.queries),
                }
            )
        )
    is_exact = len(documents) <= exact_up_to
    truncated, max_tokens = source.truncated(data.documents)
    notes = list(source.notes) + (cache.notes if cache is not None else [])
    if data.dropped:
        notes.append(f"{data.dropped} documents without text are left out.")
    if data.unresolved:
        notes.append(f"{data.unresolved} judgements name a document that is not there.")
    if data.unjudged:
        notes.append(f"{data.unjudged} queries without judgements are left out.")
    if truncated:
        notes.append(
            f"{truncated} of {len(documents)} documents are longer than the encoder's limit of "
            f"{max_tokens} tokens; only their beginning was read."
        )
    if not is_exact:
        notes.append(f"Approximate search: it found at least {recall:.0%} of the exact top.")
    return RetrievalResult(
        table=pd.concat(parts, ignore_index=True),
        model=source.facts.name,
        encoder=source.facts.encoder,
        precision=source.precision,
        data=data.name,
        documents=len(documents),
        depth=depth,
        truncated=truncated,
        max_tokens=max_tokens,
        is_exact=is_exact,
        seed=seed,
        notes=tuple(notes),
    )


def _measured(
    vectors: np.ndarray, positives: np.ndarray | None, **options: Any
) -> dict[str, float]:
    """Return a row of the table of geometry, but for its strategy."""
    found = geometry.measure_varied(vectors, positives, **options)
    if found is None:
        return dict.fromkeys(geometry_columns(), math.nan)
    numbers = {name: each.of_geometry(found) for name, each in space_measures().items()}
    bounds = {"low": found.uniformity.low, "high": found.uniformity.high}
    return {name: (numbers | bounds)[name] for name in geometry_columns()}


def geometry_columns() -> list[str]:
    """Return the columns of a `GeometryResult` beside its strategies."""
    return list(dict.fromkeys([*_FIRST, *space_measures()]))


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as a list of plain rows, None in the place of NaN."""
    return table.astype(object).where(table.notna(), None).to_dict(orient="records")
