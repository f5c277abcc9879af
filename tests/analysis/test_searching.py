"""One query under several strategies, against each sentence compared alone and sorted."""

import copy

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import lwap
from lwap.analysis.explanation import explain
from lwap.analysis.searching import Collection, search
from lwap.encoding.bank import encode_layers
from lwap.errors import InputError, StrategyError
from lwap.pooling.strategies import embed

NAMES = ["lwap", "cls", "mean", "max", "layer_mean:1"]
QUERY = "The bridge is not safe."


def slow_search(model, sentences, query, name) -> tuple[np.ndarray, list[int]]:
    """Return each sentence's cosine, encoded alone, and the distinct rows by cosine."""
    asked = embed(encode_layers(model, [query]), name)[0].astype(float)
    cosines = []
    for text in sentences:
        vector = embed(encode_layers(model, [text]), name)[0].astype(float)
        lengths = np.sqrt((asked * asked).sum() * (vector * vector).sum())
        cosines.append(float((asked * vector).sum() / lengths))
    rows = [row for row, text in enumerate(sentences) if text not in sentences[:row]]
    return np.array(cosines), sorted(rows, key=lambda row: -cosines[row])


@pytest.fixture(scope="session")
def collection_texts(sentences) -> list[str]:
    """23 sentences, the fourth twice more and the first once more: 20 distinct ones."""
    texts = list(sentences[:20])
    return [*texts[:10], texts[3], *texts[10:], texts[0], texts[3]]


@pytest.fixture(scope="session")
def found(tiny_lwap_model, collection_texts):
    return search(tiny_lwap_model, collection_texts, QUERY, NAMES, k=6)


# --- the lists ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
def test_search_equals_one_sentence_at_a_time(found, tiny_lwap_model, collection_texts, place):
    cosines, order = slow_search(tiny_lwap_model, collection_texts, QUERY, NAMES[place])
    assert found.cosines[place] == pytest.approx(cosines, abs=1e-5)
    assert found.indices[place].tolist() == order[:6]
    assert found.scores[place] == pytest.approx(cosines[order[:6]], abs=1e-5)
    for rank, row in enumerate(order, start=1):
        same = [at for at, text in enumerate(collection_texts) if text == collection_texts[row]]
        assert found.ranks[place, same].tolist() == [rank] * len(same)


def test_shapes_and_what_they_hold(found, collection_texts):
    count = len(collection_texts)
    assert found.query == QUERY
    assert found.sentences == tuple(collection_texts)
    assert found.strategies == tuple(NAMES)
    assert found.indices.shape == found.scores.shape == (5, 6)
    assert found.ranks.shape == found.cosines.shape == (5, count)
    assert found.num_distinct == 20
    for place in range(5):
        assert found.ranks[place, found.indices[place]].tolist() == [1, 2, 3, 4, 5, 6]
        assert np.array_equal(found.scores[place], found.cosines[place, found.indices[place]])
        assert sorted(set(found.ranks[place].tolist())) == list(range(1, 21))


def test_a_repeated_sentence_is_found_once_at_its_first_row(found, collection_texts):
    repeated = [text in collection_texts[:row] for row, text in enumerate(collection_texts)]
    assert found.is_repeated.tolist() == repeated
    assert not found.is_repeated[found.indices].any()
    assert found.ranks[:, 10].tolist() == found.ranks[:, 3].tolist()
    assert found.cosines[:, 22].tolist() == found.cosines[:, 3].tolist()


def test_repeating_sentences_changes_no_rank(found, tiny_lwap_model, collection_texts):
    once = list(dict.fromkeys(collection_texts))
    again = search(tiny_lwap_model, once, QUERY, NAMES, k=6)
    assert np.array_equal(again.ranks, found.ranks[:, ~found.is_repeated])
    assert [once[row] for row in again.found] == [collection_texts[row] for row in found.found]


@pytest.mark.parametrize(("k", "length"), [(1, 1), (19, 19), (20, 20), (21, 20), (1000, 20)])
def test_k_is_clipped_and_cuts_the_same_ranking(
    found, tiny_lwap_model, collection_texts, k, length
):
    other = search(tiny_lwap_model, collection_texts, QUERY, NAMES, k=k)
    assert other.indices.shape == (5, length)
    shared = min(length, 6)
    assert np.array_equal(other.indices[:, :shared], found.indices[:, :shared])
    assert np.array_equal(other.ranks, found.ranks)


def test_a_sentence_finds_itself_first(tiny_lwap_model, collection_texts):
    for row in (0, 7, 15):
        text = collection_texts[row]
        other = search(tiny_lwap_model, collection_texts, text, ["lwap", "mean"], k=1)
        first = collection_texts.index(text)
        assert other.indices.tolist() == [[first], [first]]
        assert other.scores == pytest.approx(1, abs=1e-6)


def test_the_order_of_the_sentences_is_irrelevant(found, tiny_lwap_model, collection_texts):
    turned = search(tiny_lwap_model, collection_texts[::-1], QUERY, NAMES, k=6)
    assert np.array_equal(turned.ranks[:, ::-1], found.ranks)


def test_one_sentence_is_enough(tiny_model):
    found = search(tiny_model, ["Only this one."], QUERY, ["mean"])
    assert found.indices.tolist() == [[0]]
    assert found.ranks.tolist() == [[1]]
    assert found.found.tolist() == [0]


@pytest.mark.parametrize("container", [tuple, np.array])
def test_any_container_of_sentences(tiny_model, collection_texts, container):
    wanted = search(tiny_model, collection_texts, QUERY, ["mean"]).ranks
    assert np.array_equal(
        search(tiny_model, container(collection_texts), QUERY, ["mean"]).ranks, wanted
    )


def test_it_agrees_with_the_models_own_encode(tiny_lwap_model, collection_texts, found):
    model = SentenceTransformer(modules=list(tiny_lwap_model), device="cpu")
    vectors = model.encode(collection_texts, normalize_embeddings=True)
    query = model.encode([QUERY], normalize_embeddings=True)[0]
    assert found.cosines[0] == pytest.approx(vectors @ query, abs=1e-5)


# --- what comes with them -----------------------------------------------------------------------


def test_found_lists_each_row_once_by_list(found):
    wanted = list(dict.fromkeys(found.indices.ravel().tolist()))
    assert found.found.tolist() == wanted
    assert len(wanted) > 6


def test_pairs_are_the_query_with_each_sentence_found(found, tiny_lwap_model):
    pairs = found.pairs
    assert pairs.first == (QUERY,) * len(found.found)
    assert pairs.second == tuple(found.sentences[row] for row in found.found)
    assert np.array_equal(pairs.cosines, found.cosines[:, found.found].T)
    alone = lwap.compare_pairs(tiny_lwap_model, list(zip(pairs.first, pairs.second, strict=True)))
    assert pairs.layers.query == pytest.approx(alone.layers.query, abs=1e-5)
    assert pairs.layers.mean == pytest.approx(alone.layers.mean, abs=1e-5)
    assert pairs.layers.query_name == alone.layers.query_name
    assert np.isnan(pairs.percentiles).all() and pairs.random_pairs == 0


def test_the_bank_of_the_pairs_explains_without_encoding(found, tiny_lwap_model, encoded):
    wanted = explain(tiny_lwap_model, [QUERY, found.sentences[found.found[2]]])
    encoded.clear()
    given = explain(tiny_lwap_model, found.pairs.bank.select(found.pairs.rows[2]))
    assert not encoded
    assert given.texts == wanted.texts
    assert given.attention == pytest.approx(wanted.attention, abs=1e-5)
    assert given.pair_knockout(0, 1) == pytest.approx(wanted.pair_knockout(0, 1), abs=1e-5)


def test_the_frame_has_every_sentence_once_by_the_first_strategy(found):
    frame = found.to_frame()
    names = [f"{name} {kind}" for name in NAMES for kind in ("rank", "cosine")]
    assert list(frame.columns) == ["sentence", *names]
    assert frame["lwap rank"].tolist() == list(range(1, 21))
    assert frame["sentence"].is_unique
    for _, row in frame.iterrows():
        at = found.sentences.index(row["sentence"])
        for place, name in enumerate(NAMES):
            assert row[f"{name} rank"] == found.ranks[place, at]
            assert row[f"{name} cosine"] == found.cosines[place, at]


def test_what_was_cut_is_said(tiny_model):
    long = "heron " * 200
    found = search(tiny_model, ["Short.", long, "Short."], "heron", ["mean"])
    assert found.is_truncated.tolist() == [False, True, False]
    assert not found.is_query_truncated
    asked = search(tiny_model, ["Short."], long, ["mean"])
    assert asked.is_query_truncated
    assert not asked.is_truncated.any()


def test_any_text_is_searched(tiny_model):
    texts = [
        "🦩 waits 👩‍👩‍👧‍👦.",
        "מילים מימין לשמאל.",
        "<b>&</b>",
        "NA",
        "form\x0cfeed\u2028",
        " x ",
    ]
    for query in texts:
        found = search(tiny_model, texts, query, ["mean"], k=len(texts))
        assert sorted(found.indices[0].tolist()) == list(range(len(texts)))
        assert found.sentences == tuple(texts)


@pytest.mark.parametrize("name", ["cls", "layer_cls:2", "last_token", "max"])
def test_a_causal_decoder_is_searched(make_encoder, sentences, name):
    model = lwap.load(str(make_encoder("gpt2")), device="cpu")
    found = search(model, sentences[:8], QUERY, [name], k=8)
    cosines, order = slow_search(model, sentences[:8], QUERY, name)
    assert found.cosines[0] == pytest.approx(cosines, abs=1e-5)
    assert found.indices[0].tolist() == order
    assert found.pairs.layers.query_name == "last token"
    assert found.pairs.bank.last_tokens is not None


# --- one collection, many queries ---------------------------------------------------------------


def test_a_collection_is_encoded_once(tiny_lwap_model, collection_texts, encoded, read_as, found):
    collection = Collection.of(tiny_lwap_model, collection_texts)
    assert encoded == read_as(set(collection_texts))
    encoded.clear()
    for query in (QUERY, "Something else.", QUERY):
        again = collection.search(query, NAMES, k=6)
    assert encoded == read_as([QUERY, "Something else."])  # and so is a query
    assert np.array_equal(again.ranks, found.ranks)
    assert np.array_equal(again.cosines, found.cosines)


def test_a_head_runs_once_over_a_collection(tiny_lwap_model, collection_texts):
    collection = Collection.of(tiny_lwap_model, collection_texts)
    sizes = []
    hook = tiny_lwap_model[1].register_forward_pre_hook(
        lambda head, inputs: sizes.append(len(inputs[0]["layer_means"]))
    )
    try:
        for query in ("One.", "Two.", "Three."):
            collection.search(query, ["lwap"])
    finally:
        hook.remove()
    assert sorted(sizes) == [1, 1, 1, 20]


def test_searching_does_not_change_the_collection(tiny_lwap_model, collection_texts):
    collection = Collection.of(tiny_lwap_model, collection_texts)
    kept = copy.deepcopy(collection.bank.mean), collection.vectors("lwap").copy()
    collection.search(QUERY, NAMES)
    assert np.array_equal(collection.bank.mean, kept[0])
    assert np.array_equal(collection.vectors("lwap"), kept[1])


def test_progress_counts_the_distinct_sentences(tiny_model, collection_texts):
    calls = []
    search(tiny_model, collection_texts, QUERY, ["mean"], progress=lambda *done: calls.append(done))
    assert calls[-1] == (20, 20)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "No sentences were given"),
        ("one text", "Expected a list of sentences"),
        (["One.", "One.", " "], "Sentence 3 of 3 is empty"),
        (["One.", None], "Sentence 2 of 2 is None"),
        (["One.", "\ud83d"], "Sentence 2 of 2 holds half a character"),
    ],
)
def test_wrong_sentences_are_named(tiny_model, texts, message):
    with pytest.raises(InputError, match=message):
        search(tiny_model, texts, QUERY, ["mean"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "The query is empty"),
        (" \n", "The query is empty"),
        (None, "The query is empty"),
        (["a"], "The query is empty"),
        ("\ud83d", "half a character"),
    ],
)
def test_a_wrong_query_is_refused_before_anything_is_encoded(tiny_model, encoded, query, message):
    with pytest.raises(InputError, match=message):
        search(tiny_model, ["One."], query, ["mean"])
    assert not encoded


@pytest.mark.parametrize(
    ("strategies", "error", "message"),
    [
        ([], InputError, "takes one name or more"),
        ("lwap", InputError, "strategies is 'lwap'"),
        (["average"], StrategyError, "no pooling strategy 'average'"),
        (["lwap"], StrategyError, "needs trained weights"),
        (["layer_mean:9"], StrategyError, "asks for state 9"),
        (["mean+whiten"], StrategyError, "needs a whitening"),
    ],
)
def test_wrong_strategies_are_refused(tiny_model, strategies, error, message):
    with pytest.raises(error, match=message):
        search(tiny_model, ["One."], QUERY, strategies)


@pytest.mark.parametrize("k", [0, -3])
def test_no_results_cannot_be_asked_for(tiny_model, k):
    with pytest.raises(InputError, match=f"k is {k}; ask for 1"):
        search(tiny_model, ["One."], QUERY, ["mean"], k=k)


def test_search_is_a_public_name():
    assert lwap.search is search
    assert "search" in lwap.__all__
