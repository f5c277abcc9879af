"""Geometry and search of a model's strategies, against the measures on embeddings by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lwap
from lwap.checkpoints.cached import WhitenOn
from lwap.datasets.readers import RetrievalData
from lwap.encoding.diskcache import DiskCache
from lwap.errors import InputError, StrategyError
from lwap.evaluation import geometry, retrieval
from lwap.evaluation.spaces import (
    evaluate_geometry,
    evaluate_retrieval,
    geometry_columns,
    plain_rows,
    positive_rows,
)
from lwap.evaluation.tasks import Task

PAIRS = pd.read_csv(Path(__file__).resolve().parents[2] / "assets/pairs.csv")[:20]
MEASURED = ["mean", "lwap", "layer_mean:1", "max"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> DiskCache:
    """A cache of the test's own."""
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LWAP_CACHE_GB", raising=False)
    return DiskCache()


@pytest.fixture(scope="module")
def vectors(tiny_lwap_model):
    """Return a function that gives embeddings of texts under a strategy, without any cache."""

    def vectors(texts, strategy: str) -> np.ndarray:
        return lwap.embed(lwap.encode_layers(tiny_lwap_model, list(texts)), strategy)

    return vectors


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_pairs(PAIRS, "examples")


def scored(scores, **changes) -> Task:
    """Return a task of the first examples with other scores."""
    return Task.from_pairs(PAIRS[: len(scores)].assign(score=scores, **changes), "mine")


def by_hand(task: Task, vectors, strategy: str, positive_at: float, **options):
    texts = list(dict.fromkeys([*task.first, *task.second]))
    positives = [
        (texts.index(first), texts.index(second))
        for first, second, score in zip(task.first, task.second, task.gold, strict=True)
        if score >= positive_at and first != second
    ]
    return geometry.measure(vectors(texts, strategy), np.array(positives), **options)


def numbers(found: geometry.Geometry) -> list[float]:
    uniformity = found.uniformity
    return [
        found.alignment,
        *(uniformity.value, uniformity.low, uniformity.high),
        *(found.mean_random_cosine, found.effective_rank, found.isoscore),
    ]


# --- geometry -----------------------------------------------------------------------------------


def test_geometry_is_that_of_embeddings_by_hand(tiny_lwap_model, task, vectors, cache):
    found = evaluate_geometry(tiny_lwap_model, task, [*MEASURED, "mean"], cache=cache)
    assert found.table["strategy"].tolist() == MEASURED
    assert list(found.table.columns) == ["strategy", *geometry_columns()]
    assert (PAIRS["score"].min(), PAIRS["score"].max(), found.positive_at) == (0, 5, 4)
    assert found.positives == (PAIRS["score"] >= 4).sum() > 0
    assert found.sentences == len({*PAIRS["sentence1"], *PAIRS["sentence2"]})
    for _, row in found.table.iterrows():
        expected = numbers(by_hand(task, vectors, row["strategy"], 4))
        assert row[list(geometry_columns())].tolist() == pytest.approx(expected, rel=1e-4)
    assert found.is_exact and (found.table["low"] == found.table["high"]).all()
    assert (found.data, found.data_sha256, found.notes) == ("examples", task.sha256, ())
    for other in (cache, None):
        again = evaluate_geometry(tiny_lwap_model, task, MEASURED, cache=other)
        pd.testing.assert_frame_equal(again.table, found.table)


def test_every_strategy_is_measured_and_what_is_constant_is_undefined(tiny_lwap_model, task):
    found = evaluate_geometry(tiny_lwap_model, task)
    assert found.table["strategy"].tolist() == list(lwap.strategies(tiny_lwap_model))
    rows = found.table.set_index("strategy")
    assert rows.loc["layer_cls:0"].isna().all()  # not an alignment of 0, which is the best
    assert rows.drop("layer_cls:0").notna().all(axis=None)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {row["strategy"]: row["alignment"] for row in plain["rows"]}["layer_cls:0"] is None
    assert plain["versions"]["lwap"] == lwap.__version__


@pytest.mark.parametrize(
    ("scores", "positive_at", "positives"),
    [
        ([0, 5, 4, 3.9, 4.1], 4, 3),
        ([1, 5, 4.2, 4.1, 3], 4.2, 2),
        ([0, 3, 2.4, 2.3, 1], 2.4, 2),  # 0.8 × 3 is 2.4000000000000004
        ([-1, 1, 0.6, 0.5, 0], 0.6, 2),
    ],
)
def test_a_pair_of_four_fifths_of_the_range_is_positive(
    scores, positive_at, positives, tiny_lwap_model
):
    found = evaluate_geometry(tiny_lwap_model, scored(scores), ["mean"])
    assert (found.positive_at, found.positives) == (positive_at, positives)


def test_the_threshold_can_be_given(tiny_lwap_model, vectors):
    task = scored([0, 5, 4, 3, 2])
    found = evaluate_geometry(tiny_lwap_model, task, ["mean"], positive_at=2)
    assert (found.positive_at, found.positives) == (2, 4)
    expected = by_hand(task, vectors, "mean", 2).alignment
    assert found.table["alignment"][0] == pytest.approx(expected, rel=1e-4)
    for wrong in (5.01, math.nan):
        message = rf"No pair of 'mine' has a score of {wrong:g} or more; its scores are 0 to 5\."
        with pytest.raises(InputError, match=message):
            evaluate_geometry(tiny_lwap_model, task, ["mean"], positive_at=wrong)


def test_a_sentence_beside_itself_is_no_positive_pair(tiny_lwap_model, vectors):
    second = [PAIRS["sentence1"][0], *PAIRS["sentence2"][1:5]]
    task = scored([5, 5, 0, 1, 2], sentence2=second)
    found = evaluate_geometry(tiny_lwap_model, task, ["mean"])
    assert found.positives == 1
    expected = by_hand(task, vectors, "mean", 4).alignment
    assert found.table["alignment"][0] == pytest.approx(expected, rel=1e-4)
    note = "1 positive pairs of identical sentences do not count for alignment."
    assert found.notes == (note,)
    only = evaluate_geometry(tiny_lwap_model, task, ["mean"], positive_at=5)
    assert only.notes == (note,)
    alone = scored([5, 0, 1, 2, 3], sentence2=second)
    none = evaluate_geometry(tiny_lwap_model, alone, ["mean"])
    assert (none.positives, none.notes) == (0, (note,))
    row = none.to_dict()["rows"][0]
    assert row["alignment"] is None
    assert row["uniformity"] == pytest.approx(found.table["uniformity"][0])


@pytest.mark.parametrize("positive_at", [None, 2.0])
def test_positive_rows_are_those_of_the_distinct_sentences(positive_at, task):
    texts, positives, threshold = positive_rows(task, positive_at)
    assert threshold == (4 if positive_at is None else 2)
    assert texts == list(dict.fromkeys([*PAIRS["sentence1"], *PAIRS["sentence2"]]))
    named = [(texts[first], texts[second]) for first, second in positives]
    good = PAIRS[PAIRS["score"] >= threshold]
    assert named == list(zip(good["sentence1"], good["sentence2"], strict=True))
    assert positives.dtype.kind == "i"


def test_positive_rows_leave_out_a_sentence_beside_itself():
    second = [PAIRS["sentence1"][0], PAIRS["sentence1"][0], *PAIRS["sentence2"][2:5]]
    task = scored([5, 4, 5, 0, 1], sentence2=second)
    texts, positives, _ = positive_rows(task)
    assert positives.tolist() == [[1, 0], [2, texts.index(PAIRS["sentence2"][2])]]
    assert positive_rows(scored([5, 0, 1, 2, 3], sentence2=second))[1].shape == (0, 2)
    with pytest.raises(InputError, match="No pair of 'mine' has a score of 6 or more; its scores"):
        positive_rows(task, 6)


def test_many_sentences_are_sampled(tiny_lwap_model, task, vectors):
    exact = evaluate_geometry(tiny_lwap_model, task, ["mean"])
    found = evaluate_geometry(tiny_lwap_model, task, ["mean"], exact_up_to=10, seed=3)
    assert (exact.is_exact, found.is_exact, found.seed) == (True, False, 3)
    row = found.table.loc[0]
    assert row["low"] < row["uniformity"] < row["high"]
    assert row["low"] < exact.table["uniformity"][0] < row["high"]
    expected = by_hand(task, vectors, "mean", 4, exact_up_to=10, seed=3)
    assert row[list(geometry_columns())].tolist() == pytest.approx(numbers(expected), rel=1e-4)
    other = evaluate_geometry(tiny_lwap_model, task, ["mean"], exact_up_to=10, seed=4)
    assert other.table["uniformity"][0] != row["uniformity"]


def test_a_strategy_that_there_is_not_is_refused(tiny_model, task):
    with pytest.raises(StrategyError, match="has no strategy 'lwap'"):
        evaluate_geometry(tiny_model, task, ["mean", "lwap"])
    with pytest.raises(StrategyError, match="needs a corpus to fit the whitening on"):
        evaluate_retrieval(tiny_model, collection(), ["mean+whiten"])


def test_whitening_is_noted(tiny_lwap_model, task, vectors):
    texts = [f"{first} {second}" for first in "abcdefgh" for second in "abcdefgh"]
    corpus = WhitenOn("corpus", (*texts, PAIRS["sentence1"][0]))
    found = evaluate_geometry(tiny_lwap_model, task, ["mean+whiten"], whiten_on=corpus)
    assert found.notes == (
        "1 sentences of 'corpus' are also scored; the whitening was fitted without them.",
    )
    bank = lwap.encode_layers(tiny_lwap_model, texts)
    whitening = lwap.fit_whitening(bank, "mean", corpus="corpus")
    shown = list(dict.fromkeys([*task.first, *task.second]))
    expected = geometry.measure(whitening.apply(vectors(shown, "mean")))
    assert found.table["isoscore"][0] == pytest.approx(expected.isoscore, rel=1e-2)


# --- retrieval ----------------------------------------------------------------------------------


def collection(**changes) -> RetrievalData:
    """Return ten documents and the examples' first sentences as queries, the first one a document.

    Graded judgements; the fourth query has none that is relevant.
    """
    documents = (*PAIRS["sentence2"][:9], PAIRS["sentence1"][0])
    facts = {
        "name": "search",
        "document_ids": tuple(f"d{row}" for row in range(10)),
        "documents": documents,
        "query_ids": ("q0", "q1", "q2", "q3"),
        "queries": tuple(PAIRS["sentence1"][:4]),
        "relevance": ({0: 1, 5: 2}, {1: 1}, {2: 3, 3: 1, 4: 0}, {3: 0}),
        "dropped": 0,
        "unjudged": 0,
        "unresolved": 0,
    }
    return RetrievalData(**(facts | changes))


def test_retrieval_is_that_of_embeddings_by_hand(tiny_lwap_model, vectors, cache):
    data = collection()
    found = evaluate_retrieval(tiny_lwap_model, data, [*MEASURED, "lwap"], seed=2, cache=cache)
    assert (found.documents, found.depth, found.is_exact, found.notes) == (10, 10, True, ())
    names = list(retrieval.MEASURES.values())
    wide = found.wide()
    assert (wide.index.tolist(), wide.columns.tolist()) == (MEASURED, names)
    for strategy, rows in found.table.groupby("strategy"):
        units = [vectors(texts, strategy).astype(float) for texts in (data.queries, data.documents)]
        units = [unit / np.linalg.norm(unit, axis=1, keepdims=True) for unit in units]
        ranking = np.argsort(-units[0] @ units[1].T, axis=1, kind="stable")
        scores = retrieval.evaluate(ranking, data.relevance, depth=10, seed=2)
        expected = [vars(scores.means[key]) for key in retrieval.MEASURES]
        shown = rows[["value", "low", "high"]].to_dict("records")
        assert shown == [pytest.approx(entry) for entry in expected]
        assert rows["measure"].tolist() == names
        assert wide.loc[strategy].tolist() == rows["value"].tolist()
        assert set(rows["queries"]) == {4}
    assert wide["MAP"].nunique() > 1
    for other in (cache, None):
        again = evaluate_retrieval(tiny_lwap_model, data, MEASURED, seed=2, cache=other)
        pd.testing.assert_frame_equal(again.table, found.table)


def test_every_strategy_searches(tiny_lwap_model):
    found = evaluate_retrieval(tiny_lwap_model, collection())
    assert found.wide().index.tolist() == list(lwap.strategies(tiny_lwap_model))
    assert found.wide()["Recall@100"].tolist() == [0.75] * len(found.wide())
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(plain["rows"]) == 4 * len(found.wide())
    assert type(plain["rows"][0]["queries"]) is int and plain["is_exact"] is True


def test_what_was_left_out_or_cut_is_noted(tiny_lwap_model, cache):
    documents = ("word " * 100, *collection().documents[1:])
    queries = ("word " * 90, *collection().queries[1:])
    data = collection(documents=documents, queries=queries, dropped=3, unresolved=2, unjudged=1)
    cut = int(lwap.encode_layers(tiny_lwap_model, documents).is_truncated.sum())
    found = evaluate_retrieval(tiny_lwap_model, data, ["mean"], exact_up_to=5, cache=cache)
    assert (found.truncated, found.max_tokens, found.is_exact) == (cut, 64, False)
    assert found.notes == (
        "3 documents without text are left out.",
        "2 judgements name a document that is not there.",
        "1 queries without judgements are left out.",
        f"{cut} of 10 documents are longer than the encoder's limit of 64 tokens; only their "
        "beginning was read.",
        "Approximate search: it found at least 100% of the exact top.",
    )
    exact = evaluate_retrieval(tiny_lwap_model, data, ["mean"], cache=cache)
    pd.testing.assert_frame_equal(exact.table, found.table)  # so few documents are all looked at


# --- rows ---------------------------------------------------------------------------------------


def test_rows_are_plain():
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, math.nan], "c": [True, False], "d": ["x", None]})
    rows = plain_rows(table)
    assert rows == [
        {"a": 1, "b": 0.5, "c": True, "d": "x"},
        {"a": 2, "b": None, "c": False, "d": None},
    ]
    assert [type(value) for value in rows[0].values()] == [int, float, bool, str]
    assert plain_rows(table[:0]) == []
