"""Search against a full sort of exact cosines, measures against trec_eval and scikit-learn."""

import subprocess
import sys

import numpy as np
import pytest
import pytrec_eval
from sklearn.metrics import ndcg_score

from lwap.errors import InputError
from lwap.evaluation import retrieval
from lwap.evaluation.retrieval import MEASURES, Ranking, evaluate, search, top_k
from lwap.scores import cosine


def vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    """Return vectors of unlike lengths in loose groups, (N, D) float32."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, dimension))
    found = centres[random.integers(0, 20, size=count)] + random.normal(size=(count, dimension))
    return (found * random.uniform(0.1, 10, size=(count, 1))).astype(np.float32)


def scattered(count: int, seed: int = 0) -> np.ndarray:
    """Return vectors without any groups, (N, 32): the hardest for an inverted file."""
    return np.random.default_rng(seed).normal(size=(count, 32)).astype(np.float32)


def slow_ranking(queries: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all cosines, in float64, and all rows, best first."""
    cosines = cosine(queries[:, None], documents[None])
    order = np.argsort(-cosines, axis=1, kind="stable")
    return np.take_along_axis(cosines, order, axis=1), order


# --- exact search -------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("block", [1, 7, 128, 300, 4096])
def test_top_k_is_the_head_of_a_full_sort(k, block):
    queries, documents = vectors(40, seed=1), vectors(300)
    scores, indices = top_k(queries, documents, k, block=block)
    expected_scores, expected_indices = slow_ranking(queries, documents)
    assert (scores.dtype, indices.dtype) == (np.float32, np.int64)
    assert scores == pytest.approx(expected_scores[:, :k], abs=1e-7)
    assert np.array_equal(indices, expected_indices[:, :k])


def test_queries_are_scored_in_blocks_too():
    queries, documents = vectors(600, seed=1), vectors(100)  # a block has 256
    parts = [top_k(queries[start : start + 50], documents, 5) for start in range(0, 600, 50)]
    expected = map(np.concatenate, zip(*parts, strict=True))
    for found, wanted in zip(top_k(queries, documents, 5, block=30), expected, strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("block", [1, 3, 64, 1000])
@pytest.mark.parametrize("dimension", [3, 384])
def test_copies_of_a_document_come_in_the_order_of_their_rows(block, dimension):
    """Matrix products add up in an order that depends on place and block; ties must not."""
    originals = vectors(37, dimension)
    copies = np.random.default_rng(0).integers(0, 37, size=400)
    queries = vectors(30, dimension, seed=1)
    for k in (1, 15, 400):
        scores, indices = top_k(queries, originals[copies], k, block=block)
        ties = scores[:, :-1] == scores[:, 1:]
        same = copies[indices[:, :-1]] == copies[indices[:, 1:]]
        assert ties[same].all()
        assert (np.diff(indices, axis=1)[same] > 0).all()
        for query in range(30):  # and the first rows of the copies are those that are in
            for original in np.unique(copies[indices[query]]):
                ranked = indices[query][copies[indices[query]] == original]
                assert np.array_equal(ranked, np.flatnonzero(copies == original)[: len(ranked)])


def test_documents_that_are_all_the_same_come_in_order():
    documents = np.tile(vectors(1, 384), (500, 1))
    _, indices = top_k(vectors(5, 384, seed=1), documents, 20, block=64)
    assert np.array_equal(indices, np.tile(np.arange(20), (5, 1)))


def test_lengths_are_irrelevant_and_k_is_clipped():
    queries, documents = vectors(10, seed=1).astype(float), vectors(50).astype(float)
    scores, indices = top_k(queries, documents, 1000)
    assert indices.shape == (10, 50)
    for scale in (1e-250, 1e-3, 1e250):
        again = top_k(queries * scale, documents / scale, 50)
        assert again[0] == pytest.approx(scores, abs=1e-6)
        assert np.array_equal(again[1], indices)


def test_a_vector_finds_itself_with_cosine_one():
    documents = vectors(200, 384)
    scores, indices = top_k(documents, documents, 1)
    assert np.array_equal(indices[:, 0], np.arange(200))
    assert scores == pytest.approx(1, abs=1e-6)
    assert scores.max() <= 1


def test_a_zero_vector_has_cosine_zero_with_everything():
    documents = np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    scores, indices = top_k(np.array([[2.0, 0.0], [0.0, 0.0]]), documents, 3)
    assert scores.tolist() == [[1, 0, -1], [0, 0, 0]]
    assert indices.tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_other_kinds_of_numbers_are_taken(dtype):
    queries, documents = vectors(5, seed=1).astype(dtype), vectors(50).astype(dtype)
    scores, _ = top_k(queries, documents, 5)
    expected, _ = slow_ranking(queries, documents)
    assert scores == pytest.approx(expected[:, :5], abs=1e-6)


def test_memory_maps_are_read_block_by_block(tmp_path):
    documents, queries = vectors(300), vectors(5, seed=1)
    np.save(tmp_path / "documents.npy", documents)
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    calls = []
    found = top_k(queries, mapped, 7, block=100, progress=lambda *done: calls.append(done))
    assert calls == [(100, 300), (200, 300), (300, 300)]
    for one, other in zip(found, top_k(queries, documents, 7), strict=True):
        assert np.array_equal(one, other)


def test_memory_is_bounded_by_the_block():
    import tracemalloc

    queries, documents = vectors(200, 8, seed=1), vectors(50_000, 8)
    tracemalloc.start()
    top_k(queries, documents, 10, block=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 50_000 * 8 / 4  # all cosines would be four times that


def test_inputs_are_not_written_to():
    queries, documents = vectors(5, seed=1), vectors(50)
    kept = queries.copy(), documents.copy()
    search(queries, documents, 5)
    search(queries, documents, 5, exact_up_to=10)
    assert np.array_equal(queries, kept[0]) and np.array_equal(documents, kept[1])


# --- approximate search -------------------------------------------------------------------------


def test_search_is_exact_up_to_its_limit():
    queries, documents = vectors(5, seed=1), vectors(50)
    found = search(queries, documents, 4, exact_up_to=50)
    scores, indices = top_k(queries, documents, 4)
    assert (found.is_exact, found.recall) == (True, 1.0)
    assert np.array_equal(found.scores, scores) and np.array_equal(found.indices, indices)
    assert retrieval.EXACT_UP_TO == 1_000_000


def measured_recall(found: Ranking, queries: np.ndarray, documents: np.ndarray) -> float:
    _, expected = top_k(queries, documents, found.indices.shape[1])
    pairs = zip(found.indices, expected, strict=True)
    return float(np.mean([len(set(ranked) & set(truth)) / len(truth) for ranked, truth in pairs]))


def test_faiss_takes_over_above_the_limit_and_its_recall_is_measured():
    queries, documents = scattered(50, seed=1), scattered(3000)
    found = search(queries, documents, 10, exact_up_to=2999)
    assert not found.is_exact
    assert found.scores.shape == found.indices.shape == (50, 10)
    assert (found.scores.dtype, found.indices.dtype) == (np.float32, np.int64)
    assert 0.7 < found.recall < 1  # it looks through 16 of 54 lists
    assert found.recall == pytest.approx(measured_recall(found, queries, documents))
    for query in range(50):
        ranked = found.indices[query]
        assert len(set(ranked)) == 10
        assert found.scores[query] == pytest.approx(
            cosine(queries[query], documents[ranked]), abs=1e-7
        )
        assert (np.diff(found.scores[query]) <= 0).all()


def test_recall_is_of_a_sample_of_the_queries():
    queries, documents = scattered(130, seed=1), scattered(3000)  # a sample has 50
    found = search(queries, documents, 10, exact_up_to=0)
    assert found.recall == pytest.approx(measured_recall(found, queries, documents), abs=0.1)
    assert found.recall * 500 == pytest.approx(round(found.recall * 500))


def test_the_seed_decides_on_an_approximate_search():
    queries, documents = scattered(50, seed=1), scattered(3000)
    one, again, other = (
        search(queries, documents, 10, exact_up_to=0, seed=seed) for seed in (0, 0, 1)
    )
    assert np.array_equal(one.indices, again.indices) and one.recall == again.recall
    assert not np.array_equal(one.indices, other.indices)


@pytest.mark.parametrize("k", [1000, 3000, 5000])
def test_a_deep_ranking_is_filled_whatever_the_lists_hold(k):
    queries, documents = vectors(20, 32, seed=1), vectors(3000, 32)
    found = search(queries, documents, k, exact_up_to=0)
    assert found.indices.shape == (20, min(k, 3000))
    assert found.indices.min() >= 0
    if k >= 3000:
        assert found.recall == 1
        assert np.array_equal(found.indices, top_k(queries, documents, k)[1])


def test_lists_too_small_for_k_are_searched_again(monkeypatch):
    # Half of the documents are one cluster and half another: lists of very different sizes.
    documents = np.concatenate([vectors(30, 8, seed=2), np.tile(vectors(1, 8), (970, 1))])
    monkeypatch.setattr(retrieval, "LEAST_PROBED", 1)
    found = search(vectors(40, 8, seed=1), documents, 40, exact_up_to=0)
    assert found.indices.min() >= 0
    assert all(len(set(ranked)) == 40 for ranked in found.indices)


@pytest.mark.parametrize("count", [1, 2, 60])
def test_faiss_manages_few_documents(count):
    queries, documents = vectors(3, seed=1), vectors(count)
    found = search(queries, documents, 5, exact_up_to=0)
    assert not found.is_exact and found.recall == 1
    assert np.array_equal(found.indices, top_k(queries, documents, 5)[1])


ALTERNATING = """
import numpy as np
from lwap.evaluation.retrieval import search
import torch
random, hits = np.random.default_rng(0), []
for _ in range(2):
    layer = torch.nn.Linear(64, 64)
    layer(torch.randn(512, 64)).sum().backward()
    vectors = random.normal(size=(4000, 64)).astype(np.float32)
    found = search(vectors[:20], vectors, 3, exact_up_to=0)
    hits.append(found.indices[:, 0].tolist() == [*range(20)])
"""


def test_faiss_and_torch_run_in_one_process():
    """Each brings its own OpenMP; where that does not go well, the process dies."""
    exec(ALTERNATING, found := {})  # torch is there already
    assert found["hits"] == [True, True]


@pytest.mark.slow
def test_faiss_may_be_there_before_torch():
    code = f"import faiss\n{ALTERNATING}\nprint(hits)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[True, True]"


def test_faiss_is_loaded_only_when_needed():
    code = """
import sys, numpy as np
from lwap.evaluation.retrieval import search
search(np.eye(3), np.eye(3), 1)
print({"faiss", "torch"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


# --- what cannot be searched --------------------------------------------------------------------


@pytest.mark.parametrize("function", [top_k, search, lambda *a: search(*a, exact_up_to=0)])
@pytest.mark.parametrize(
    ("queries", "documents", "k", "message"),
    [
        (np.eye(3)[0], np.eye(3), 1, r"The queries come as an array .* of shape \(3,\)"),
        (np.eye(3)[:0], np.eye(3), 1, r"The queries come .* of shape \(0, 3\)"),
        (np.eye(3), np.eye(3)[:0], 1, r"The documents come .* of shape \(0, 3\)"),
        (np.eye(3), np.array([["a", "b", "c"]]), 1, "The documents come as an array of numbers"),
        (np.eye(3), np.eye(4), 1, "queries have 3 numbers a vector, the documents 4.*same model"),
        (np.eye(3), np.eye(3), 0, "k is 0; ask for 1 document or more"),
        (np.eye(3) * np.nan, np.eye(3), 1, r"Query 1 holds a number that is not finite"),
        (
            np.eye(3),
            np.diag([1, 1, np.inf]),
            1,
            "Document 3 holds a number that is not finite.*fp32",
        ),
    ],
)
def test_refuses_what_cannot_be_searched(function, queries, documents, k, message):
    with pytest.raises(InputError, match=message):
        function(queries, documents, k)


def test_refuses_a_block_of_nothing_and_names_the_row_of_a_later_block():
    with pytest.raises(InputError, match="block is 0; it takes a number of documents"):
        top_k(np.eye(3), np.eye(3), 1, block=0)
    documents = vectors(300)
    documents[222, 3] = np.nan
    with pytest.raises(InputError, match="Document 223 holds"):
        top_k(documents[:2], documents, 1, block=50)


# --- measures -----------------------------------------------------------------------------------

TREC = {
    "ndcg_at_10": "ndcg_cut_10",
    "average_precision": "map",
    "recall_at_100": "recall_100",
}


def judged_rankings(queries: int, documents: int, k: int, seed: int, gains: list[int]):
    """Return rankings (Q, k) and judgements: of some queries none, of some all out of reach."""
    random = np.random.default_rng(seed)
    indices = np.array([random.permutation(documents)[:k] for _ in range(queries)])
    relevance = []
    for query in range(queries):
        judged = random.permutation(documents)[: random.integers(1, min(60, documents))]
        if query % 5 == 1:
            judged = np.setdiff1d(judged, indices[query])
        if query % 7 == 2:
            judged = judged[:0]
        relevance.append({int(row): int(random.choice(gains)) for row in judged})
    return indices, relevance


def trec_eval(indices: np.ndarray, relevance: list[dict], measures: set[str]) -> dict[int, dict]:
    """Return trec_eval's measures by query; scores fall with the rank, so nothing ties."""
    run = {
        str(query): {str(row): float(-rank) for rank, row in enumerate(ranked)}
        for query, ranked in enumerate(indices.tolist())
    }
    judgements = {
        str(query): {str(row): gain for row, gain in judged.items()}
        for query, judged in enumerate(relevance)
        if judged
    }
    found = pytrec_eval.RelevanceEvaluator(judgements, measures).evaluate(run)
    return {int(query): values for query, values in found.items()}


@pytest.mark.parametrize("gains", [[1], [0, 1], [1, 2, 3, 4], [-1, 0, 0, 1, 3]])
@pytest.mark.parametrize(("documents", "k"), [(2000, 1000), (400, 400), (60, 60), (7, 7)])
def test_measures_are_those_of_trec_eval(documents, k, gains):
    indices, relevance = judged_rankings(60, documents, k, seed=documents, gains=gains)
    found = evaluate(indices, relevance, resamples=20)
    expected = trec_eval(indices, relevance, {"map", "ndcg_cut.10", "recall.100"})
    top = trec_eval(indices[:, :10], relevance, {"recip_rank"})
    assert found.queries.tolist() == sorted(expected)
    assert found.left_out == 60 - len(expected) > 0
    for place, query in enumerate(found.queries):
        for name, theirs in TREC.items():
            assert getattr(found, name)[place] == pytest.approx(expected[query][theirs], abs=1e-9)
        reciprocal = top[query]["recip_rank"]
        assert found.reciprocal_rank_at_10[place] == pytest.approx(reciprocal, abs=1e-9)
    if k >= 400:
        assert (found.ndcg_at_10 == 0).any()  # some have nothing within reach


def test_ndcg_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    documents, queries = 150, 30
    cosines = random.normal(size=(queries, documents))
    gains = random.choice([0, 0, 0, 1, 2, 4], size=(queries, documents))
    indices = np.argsort(-cosines, axis=1)
    found = evaluate(indices, [dict(enumerate(row.tolist())) for row in gains], resamples=20)
    for query in range(queries):
        expected = ndcg_score(gains[query : query + 1], cosines[query : query + 1], k=10)
        assert found.ndcg_at_10[query] == pytest.approx(expected, abs=1e-12)


def test_a_ranking_known_by_hand():
    # Relevant are rows 5, 8 and 9, with gains 3, 1 and 2; the first two stand at ranks 2 and 4.
    ranking = np.array([[2, 5, 0, 8, -1, -1, -1, -1, -1, -1]])
    found = evaluate(ranking, [{5: 3, 8: 1, 2: 0, 9: 2}], resamples=5)
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    assert found.ndcg_at_10 == pytest.approx([(3 / np.log2(3) + 1 / np.log2(5)) / ideal])
    assert found.average_precision == pytest.approx([(1 / 2 + 2 / 4) / 3])
    assert found.reciprocal_rank_at_10.tolist() == [0.5]
    assert found.recall_at_100 == pytest.approx([2 / 3])


def test_depth_is_where_average_precision_ends():
    indices, relevance = judged_rankings(20, 500, 500, seed=3, gains=[1, 2])
    for depth in (1, 50, 300):
        found = evaluate(indices, relevance, depth=depth, resamples=5)
        expected = trec_eval(indices[:, :depth], relevance, {"map"})
        assert found.depth == depth
        assert found.average_precision == pytest.approx(
            [expected[query]["map"] for query in found.queries], abs=1e-9
        )
    assert evaluate(indices, relevance, resamples=5).depth == 500


def test_a_perfect_ranking_scores_one_and_a_useless_one_zero():
    relevance = [{3: 2, 7: 1}, {0: 1}]
    perfect = np.array([[3, 7, 0, 1, 2, 4, 5, 6], [0, 7, 3, 1, 2, 4, 5, 6]])
    found = evaluate(perfect, relevance, resamples=5)
    for name in MEASURES:
        assert getattr(found, name).tolist() == [1, 1]
        assert (found.means[name].low, found.means[name].high) == (1, 1)
    nothing = evaluate(np.full((2, 8), -1), relevance, resamples=5)
    assert all(getattr(nothing, name).tolist() == [0, 0] for name in MEASURES)


def test_a_place_without_document_keeps_its_rank():
    found = evaluate(np.array([[-1, 1, -1, 0]]), [{0: 1, 1: 1}], resamples=5)
    assert found.reciprocal_rank_at_10.tolist() == [0.5]
    assert found.average_precision == pytest.approx([(1 / 2 + 2 / 4) / 2])


def test_gains_may_be_fractions():
    found = evaluate(np.array([[1, 0]]), [{0: 0.5, 1: 0.25}], resamples=5)
    expected = (0.25 + 0.5 / np.log2(3)) / (0.5 + 0.25 / np.log2(3))
    assert found.ndcg_at_10 == pytest.approx([expected])


def test_means_and_intervals_are_a_bootstrap_over_queries():
    indices, relevance = judged_rankings(40, 300, 300, seed=4, gains=[1, 2, 3])
    found = evaluate(indices, relevance, resamples=200, seed=5)
    assert list(found.means) == list(MEASURES)
    count = len(found.queries)
    random = np.random.default_rng(5)
    rows = [random.integers(0, count, size=count) for _ in range(200)]
    for name, interval in found.means.items():
        values = getattr(found, name)
        assert values.shape == (count,)
        assert interval.value == pytest.approx(values.mean())
        draws = [values[row].mean() for row in rows]
        assert [interval.low, interval.high] == pytest.approx(np.percentile(draws, [2.5, 97.5]))
        assert interval.low < interval.value < interval.high
    assert evaluate(indices, relevance, resamples=200, seed=5).means == found.means
    assert evaluate(indices, relevance, resamples=200, seed=6).means != found.means


def test_queries_without_judgements_count_nowhere():
    indices, relevance = judged_rankings(30, 200, 200, seed=6, gains=[1, 2])
    judged = [row for row, gains in enumerate(relevance) if gains]
    with_all = evaluate(indices, relevance, resamples=50)
    alone = evaluate(indices[judged], [relevance[row] for row in judged], resamples=50)
    assert (with_all.left_out, alone.left_out) == (30 - len(judged), 0)
    assert with_all.means == alone.means


def test_a_judged_query_without_relevant_document_scores_zero():
    found = evaluate(np.array([[0, 1], [0, 1]]), [{0: 0, 1: -1}, {0: 1}], resamples=5)
    assert found.left_out == 0
    assert found.ndcg_at_10.tolist() == [0, 1]


# --- what cannot be scored ----------------------------------------------------------------------

RANKING = np.arange(12).reshape(2, 6)


@pytest.mark.parametrize(
    ("indices", "relevance", "depth", "message"),
    [
        (RANKING[0], [{}], 6, r"array \(Q, k\) of row numbers; this is int64 of shape \(6,\)"),
        (RANKING / 2, [{0: 1}, {}], 6, r"this is float64 of shape \(2, 6\)"),
        (RANKING, [{0: 1}], 6, "rankings of 2 queries and judgements of 1; give one mapping"),
        (RANKING, [{0: 1}, {}], 0, "depth is 0; average precision takes 1 rank or more"),
        (RANKING, [{}, {}], 6, "None of the 2 queries has a judgement"),
        (RANKING, [{"d3": 1}, {}], 6, "Query 1 is judged on the document 'd3'; name documents by"),
        (
            RANKING % 6,
            [{}, {0: float("nan")}],
            6,
            r"Query 2: a gain is not a finite number: \{0: nan",
        ),
        (RANKING * 0, [{0: 1}, {}], 6, "Query 1: a document stands twice in the ranking"),
        (
            RANKING % 6,
            [{6: 1}, {}],
            6,
            r"ends at rank 6, but there are at least 7 documents\. Rank 7 or more: Recall@100",
        ),
        (np.arange(120)[None, :100], [{100: 1}], 200, "ends at rank 100, .* at least 101"),
        (np.arange(120)[None, :100], [{5000: 1}], 200, "Rank 200 or more: .* MAP depth=200"),
    ],
)
def test_refuses_what_cannot_be_scored(indices, relevance, depth, message):
    with pytest.raises(InputError, match=message):
        evaluate(indices, relevance, depth=depth)


def test_a_ranking_that_is_deep_enough_is_taken():
    relevance = [{5000: 1, 3: 1}]
    assert evaluate(np.arange(100)[None], relevance, depth=100).recall_at_100.tolist() == [0.5]
    assert evaluate(np.arange(6)[None], [{5: 1}], depth=1000).depth == 6
