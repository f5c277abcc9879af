"""Semantic search by cosine, and how good its rankings are. Knows arrays only.

Q queries, N documents, D numbers a vector, k ranks. Up to a million documents the search is exact;
above, faiss searches an inverted file, and its recall against the exact search is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lwap.errors import InputError
from lwap.evaluation.declarations import ranking_measures
from lwap.evaluation.sts import RESAMPLES, Interval

Progress = Callable[[int, int], None]

EXACT_UP_TO = 1_000_000  # documents
TOP_RANKS, RECALL_RANKS = 10, 100  # of nDCG@10 and MRR@10, of Recall@100
DEPTH = 1000  # ranks that average precision looks at, as trec_eval and BEIR do
BLOCK = 4096  # documents held as float64 at once
QUERY_BLOCK = 256  # queries scored at once: at most QUERY_BLOCK × BLOCK scores exist
FIXED_POINT = 2.0**26

RECALL_QUERIES = 50  # queries that the recall of an approximate search is measured on
POINTS_A_LIST = 48  # documents that each list's centre is trained on; faiss asks for 39
PROBED_SHARE = 16  # nprobe = one list in so many …
LEAST_PROBED = 16  # … but at least so many

# The per-query measures of `RetrievalScores`, and what tables call their means.
MEASURES = {name: each.label for name, each in ranking_measures().items()}


@dataclass(frozen=True, eq=False)
class Ranking:
    """The k nearest documents of each of Q queries, best first.

    Attributes:
        scores: Cosines, float32, (Q, k).
        indices: Rows of the documents, int64, (Q, k).
        is_exact: Whether every document was compared with every query.
        recall: Share of the true k nearest that were found, 1.0 where exact; else measured against
            the exact search, on a sample of the queries.
    """

    scores: np.ndarray
    indices: np.ndarray
    is_exact: bool
    recall: float


# --- search -------------------------------------------------------------------------------------


def top_k(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    block: int = BLOCK,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and rows of the k documents nearest to each query, best first; exact.

    Documents of equal cosine come in the order of their rows. Whatever the block, the machine and
    its threads, copies of a document tie exactly and the ranking is the same: vectors are rounded
    to multiples of 2⁻²⁶, so that a cosine is a sum without rounding, right to about 1e-8.

    Args:
        queries: (Q, D), of any length; a zero vector has cosine 0 with everything.
        documents: (N, D), of any length; may be memory-mapped, and is read once, block by block.
        k: Ranks, clipped to N.
        block: Documents compared at once; bounds memory.
        progress: Called with documents done and N after each block.

    Returns:
        Cosines, float32, (Q, k), and rows, int64, (Q, k).

    Raises:
        InputError: If the arrays are not (Q, D) and (N, D), one is empty or holds a number that is
            not finite, or k or block is below 1.
    """
    queries, documents = _check_vectors(queries, documents)
    k = _check_ranks(k, len(documents))
    if block < 1:
        raise InputError(f"block is {block}; it takes a number of documents, 1 or more.")
    unit_queries = _fixed_point(queries, "Query", range(len(queries)))
    best_cosines = np.full((len(queries), k), -np.inf)
    best_rows = np.full((len(queries), k), -1, dtype=np.int64)
    for start in range(0, len(documents), block):
        end = min(start + block, len(documents))
        unit_documents = _fixed_point(documents[start:end], "Document", range(start, end))
        for first in range(0, len(queries), QUERY_BLOCK):
            part = slice(first, first + QUERY_BLOCK)
            cosines = unit_queries[part] @ unit_documents.T
            _keep_best(best_cosines[part], best_rows[part], cosines, start)
        if progress is not None:
            progress(end, len(documents))
    return _in_order(best_cosines, best_rows)


def search(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    exact_up_to: int = EXACT_UP_TO,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ranking:
    """Return the k documents nearest to each query: `top_k`, or faiss above `exact_up_to`.

    faiss groups the documents into about √N lists around centres found by k-means, and looks
    through the lists nearest to a query: one in 16, at least 16, and as many more as k needs
    (faiss' `nprobe`). What it finds is scored and ordered as `top_k` does, so only documents can be
    missing. Up to 50 queries are also searched exactly, which gives `Ranking.recall`. The index
    is built for this call: it pays for many queries, not for one.

    Args:
        queries: (Q, D).
        documents: (N, D); may be memory-mapped. faiss holds a copy of them in float32.
        k: Ranks, clipped to N.
        exact_up_to: Documents up to which the search is exact.
        seed: Decides on the sample the lists are trained on, and on the queries of the recall.
        progress: As `top_k`, where exact.

    Raises:
        InputError: As `top_k`.
    """
    queries, documents = _check_vectors(queries, documents)
    k = _check_ranks(k, len(documents))
    if len(documents) <= exact_up_to:
        return Ranking(*top_k(queries, documents, k, progress=progress), is_exact=True, recall=1.0)

    random = np.random.default_rng(seed)
    scores, indices = _approximate(queries, documents, k, random)
    sample = random.permutation(len(queries))[:RECALL_QUERIES]
    _, expected = top_k(queries[sample], documents, k)
    found = [
        np.isin(truth, ranked).mean()
        for truth, ranked in zip(expected, indices[sample], strict=True)
    ]
    return Ranking(scores, indices, is_exact=False, recall=float(np.mean(found)))


def _check_vectors(queries: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    queries, documents = np.asanyarray(queries), np.asanyarray(documents)
    for name, vectors in (("queries", queries), ("documents", documents)):
        if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiub":
            raise InputError(
                f"The {name} come as an array of numbers with one vector in each row; this is "
                f"{vectors.dtype} of shape {vectors.shape}."
            )
    if queries.shape[1] != documents.shape[1]:
        raise InputError(
            f"The queries have {queries.shape[1]} numbers a vector, the documents "
            f"{documents.shape[1]}. Encode both with the same model and strategy."
        )
    return queries, documents


def _check_ranks(k: int, documents: int) -> int:
    if k < 1:
        raise InputError(f"k is {k}; ask for 1 document or more.")
    return min(int(k), documents)


def _fixed_point(vectors: np.ndarray, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return vectors (n, D) at length 1, rounded to multiples of 2⁻²⁶, as float64; zeros stay.

    A product of two such numbers is a multiple of 2⁻⁵², and no partial sum of a cosine reaches 2:
    float64 holds all of them exactly, in whichever order a matrix product adds them up.
    """
    vectors = np.array(vectors, dtype=np.float64)
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    # Zeros, what is not finite, and float64 numbers whose squares leave its range.
    for place in np.flatnonzero(~((squares > 1e-200) & (squares < 1e200))):
        largest = np.abs(vectors[place]).max()
        if not np.isfinite(largest):
            row = rows[int(place)] + 1
            raise InputError(
                f"{name} {row} holds a number that is not finite. Leave it out, or "
                "encode in fp32: half precision overflows."
            )
        vectors[place] /= largest or 1.0
        squares[place] = (vectors[place] @ vectors[place]) or 1.0
    vectors *= (FIXED_POINT / np.sqrt(squares))[:, None]
    np.rint(vectors, out=vectors)
    vectors /= FIXED_POINT
    return vectors


def _keep_best(
    best_cosines: np.ndarray, best_rows: np.ndarray, cosines: np.ndarray, start: int
) -> None:
    """Replace the k best so far (q, k), in order of rows, by those of them and a block (q, n)."""
    k = best_cosines.shape[1]
    # The block's rows come later and lose ties, so only what is better gets in.
    is_open = np.flatnonzero(cosines.max(axis=1) > best_cosines.min(axis=1))
    if not len(is_open):
        return
    together = np.hstack([best_cosines[is_open], cosines[is_open]])
    least = np.partition(together, -k, axis=1)[:, -k, None]
    is_better, is_tied = together > least, together == least
    room = k - is_better.sum(axis=1, keepdims=True)
    is_kept = is_better | (is_tied & (is_tied.cumsum(axis=1) <= room))
    columns = np.nonzero(is_kept)[1].reshape(-1, k)
    kept_rows = np.take_along_axis(best_rows[is_open], np.minimum(columns, k - 1), axis=1)
    best_cosines[is_open] = np.take_along_axis(together, columns, axis=1)
    best_rows[is_open] = np.where(columns < k, kept_rows, columns - k + start)


def _in_order(cosines: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines as float32 and rows, (Q, k), best first, ties by row."""
    order = np.lexsort((rows, -cosines), axis=1)
    cosines = np.take_along_axis(cosines, order, axis=1).clip(-1, 1)
    return cosines.astype(np.float32), np.take_along_axis(rows, order, axis=1)


def _approximate(
    queries: np.ndarray, documents: np.ndarray, k: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return what faiss' inverted file finds, scored and ordered as `top_k` does."""
    import faiss  # only here: 20 MB of library, and a second OpenMP runtime beside torch's

    count, dimension = documents.shape
    lists = max(1, min(math.isqrt(count), count // POINTS_A_LIST))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed = int(random.integers(2**31))
    sample = np.sort(random.choice(count, size=min(count, lists * POINTS_A_LIST), replace=False))
    index.train(_fixed_point(documents[sample], "Document", sample).astype(np.float32))
    for start in range(0, count, BLOCK):
        rows = range(start, min(start + BLOCK, count))
        unit_documents = _fixed_point(documents[rows.start : rows.stop], "Document", rows)
        index.add(unit_documents.astype(np.float32))

    lists_for_k = math.ceil(2 * k * lists / count)
    index.nprobe = min(lists, max(LEAST_PROBED, lists // PROBED_SHARE, lists_for_k))
    unit_queries = _fixed_point(queries, "Query", range(len(queries)))
    wanted = unit_queries.astype(np.float32)
    _, rows = index.search(wanted, k)
    if (is_short := (rows < 0).any(axis=1)).any():  # too few in those lists: look through all
        index.nprobe = lists
        rows[is_short] = index.search(wanted[is_short], k)[1]

    rows = np.sort(rows, axis=1).astype(np.int64)  # ascending, for a memory map
    cosines = np.empty(rows.shape)
    for query, found in enumerate(rows):
        cosines[query] = _fixed_point(documents[found], "Document", found) @ unit_queries[query]
    return _in_order(cosines, rows)


# --- measures -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RetrievalScores:
    """How good the rankings of J judged queries are, 0–1 each, higher is better.

    Attributes:
        ndcg_at_10: nDCG of the first 10, gains taken as they are (linear), as trec_eval and BEIR
            do, (J,).
        average_precision: Mean precision at the relevant documents within `depth`, over all
            relevant ones, (J,).
        reciprocal_rank_at_10: 1 / rank of the first relevant document, 0 below rank 10, (J,).
        recall_at_100: Share of the relevant documents within the first 100, (J,).
        means: Mean of each of these by name, with a 95 % percentile bootstrap interval over
            queries, all four on the same resamples.
        queries: Rows of the judged queries, (J,).
        left_out: Queries without judgements, which count nowhere.
        depth: Ranks that average precision looked at.
    """

    ndcg_at_10: np.ndarray
    average_precision: np.ndarray
    reciprocal_rank_at_10: np.ndarray
    recall_at_100: np.ndarray
    means: Mapping[str, Interval]
    queries: np.ndarray
    left_out: int
    depth: int


def evaluate(
    indices: np.ndarray,
    relevance: Sequence[Mapping[int, float]],
    *,
    depth: int = DEPTH,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RetrievalScores:
    """Return nDCG@10, MAP, MRR@10 and Recall@100 of rankings against graded judgements.

    As trec_eval computes them: a document without judgement, or with a gain of 0 or less, is not
    relevant; every relevant document counts in nDCG's ideal and in the denominators of average
    precision and recall, ranked or not; a judged query without a relevant document scores 0.
    Queries without judgements are left out.

    MAP depends on how deep the ranking goes. Rank min(N, 1000) documents to compare with what
    trec_eval and BEIR report.

    Args:
        indices: Rows of the documents, best first, (Q, k); −1 stands for no document.
        relevance: For each query the gain by row of document, Q of them.
        depth: Ranks that average precision looks at.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        InputError: If the counts of queries differ, none is judged, a gain is not a finite number,
            a document stands twice in a ranking, or the ranking ends before rank 100 or `depth`
            although there are more documents.
    """
    indices = np.asarray(indices)
    if indices.ndim != 2 or indices.dtype.kind not in "iu":
        raise InputError(
            f"A ranking is an array (Q, k) of row numbers; this is {indices.dtype} of shape "
            f"{indices.shape}."
        )
    if len(indices) != len(relevance):
        raise InputError(
            f"There are rankings of {len(indices)} queries and judgements of {len(relevance)}; "
            "give one mapping a query, an empty one where there are none."
        )
    if depth < 1:
        raise InputError(f"depth is {depth}; average precision takes 1 rank or more.")
    queries = np.array([row for row, judged in enumerate(relevance) if judged], dtype=np.int64)
    if not len(queries):
        raise InputError(
            f"None of the {len(relevance)} queries has a judgement, so nothing can be scored. "
            "Check that the judgements name these queries."
        )
    _check_judgements(indices, relevance, depth)
    scores = np.array([_scores(indices[row], relevance[row], row, depth) for row in queries])
    random = np.random.default_rng(seed)
    draws = [
        scores[random.integers(0, len(scores), size=len(scores))].mean(axis=0)
        for _ in range(resamples)
    ]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return RetrievalScores(
        **dict(zip(MEASURES, scores.T, strict=True)),
        means={
            name: Interval(*map(float, numbers))
            for name, *numbers in zip(MEASURES, scores.mean(axis=0), low, high, strict=True)
        },
        queries=queries,
        left_out=len(relevance) - len(queries),
        depth=min(depth, indices.shape[1]),
    )


def _check_judgements(
    indices: np.ndarray, relevance: Sequence[Mapping[int, float]], depth: int
) -> None:
    """Refuse judgements of other than rows, and rankings that end too early to be scored.

    Recall and MAP of those would be too low, and look right.
    """
    for query, judged in enumerate(relevance, start=1):
        for row in judged:
            if not isinstance(row, int | np.integer):
                raise InputError(
                    f"Query {query} is judged on the document {row!r}; name documents by their "
                    "row in the array, as the ranking does."
                )
    ranks = indices.shape[1]
    largest = [max(judged, default=-1) for judged in relevance]
    known = 1 + max(int(indices.max(initial=-1)), *largest)
    wanted = max(RECALL_RANKS, depth)
    if ranks < min(wanted, known):
        raise InputError(
            f"The ranking ends at rank {ranks}, but there are at least {known} documents. Rank "
            f"{min(wanted, known)} or more: Recall@100 needs {RECALL_RANKS}, MAP depth={depth}."
        )


def _scores(
    ranking: np.ndarray, judged: Mapping[int, float], query: int, depth: int
) -> tuple[float, float, float, float]:
    """Return the four measures of one query, in the order of `MEASURES`."""
    ranked = ranking[ranking >= 0]
    if len(np.unique(ranked)) < len(ranked):
        raise InputError(f"Query {query + 1}: a document stands twice in the ranking.")
    judged_gains = np.array(list(judged.values()), dtype=np.float64)
    if not np.isfinite(judged_gains).all():
        raise InputError(f"Query {query + 1}: a gain is not a finite number: {dict(judged)}.")
    ideal = np.sort(judged_gains[judged_gains > 0])[::-1]
    if not len(ideal):
        return 0.0, 0.0, 0.0, 0.0
    gains = np.array([judged.get(row, 0) for row in ranking.tolist()], dtype=np.float64).clip(0)
    ranks = 1 + np.arange(len(gains))
    discounts = 1 / np.log2(1 + ranks)
    best = ideal[:TOP_RANKS] @ (1 / np.log2(2 + np.arange(len(ideal[:TOP_RANKS]))))
    is_relevant = gains > 0
    precision = is_relevant.cumsum() / ranks
    top = np.flatnonzero(is_relevant[:TOP_RANKS])
    return (
        float(gains[:TOP_RANKS] @ discounts[:TOP_RANKS] / best),
        float(precision[:depth][is_relevant[:depth]].sum() / len(ideal)),
        float(1 / ranks[top[0]]) if len(top) else 0.0,
        float(is_relevant[:RECALL_RANKS].sum() / len(ideal)),
    )
