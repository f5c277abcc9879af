"""Pairs under every strategy, against the same computation one pair at a time."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import percentileofscore, spearmanr

import lwap
from lwap.analysis import comparison
from lwap.analysis.comparison import compare, compare_pairs, split_pairs
from lwap.encoding.bank import encode_layers
from lwap.errors import ConfigError, InputError, StrategyError
from lwap.pooling.strategies import default_strategies, embed, fit_whitening

NAMES = ["cls", "mean", "max", "first_last_mean", "layer_cls:1", "lwap"]


@pytest.fixture(scope="session")
def pairs(sentences) -> list[tuple[str, str]]:
    """Nine pairs of 12 sentences: one repeated, one turned round, one of a sentence with itself."""
    a = sentences[:12]
    return [
        (a[0], a[1]),
        (a[2], a[3]),
        (a[4], a[5]),
        (a[6], a[7]),
        (a[8], a[9]),
        (a[10], a[11]),
        (a[0], a[1]),
        (a[3], a[2]),
        (a[5], a[5]),
    ]


def slow_cosine(model, first: str, second: str, name: str) -> float:
    """Encode one pair alone, and take the cosine of its two vectors."""
    vectors = embed(encode_layers(model, [first, second]), name).astype(float)
    lengths = np.sqrt((vectors**2).sum(axis=1))
    return float((vectors[0] * vectors[1]).sum() / lengths.prod())


# --- compare -------------------------------------------------------------------------------------


def test_compare_equals_one_pair_at_a_time(tiny_lwap_model, pairs):
    table = compare(tiny_lwap_model, pairs, NAMES)
    assert list(table.columns) == ["sentence1", "sentence2", *NAMES]
    assert list(zip(table["sentence1"], table["sentence2"], strict=True)) == pairs
    for place, (first, second) in enumerate(pairs):
        for name in NAMES:
            expected = slow_cosine(tiny_lwap_model, first, second, name)
            assert table[name][place] == pytest.approx(expected, abs=1e-5)
    assert table.loc[8, NAMES].tolist() == pytest.approx([1] * len(NAMES), abs=1e-12)
    assert (table.loc[6, NAMES] == table.loc[0, NAMES]).all()
    assert np.abs((table.loc[7, NAMES] - table.loc[1, NAMES]).astype(float)).max() <= 1e-6


def test_more_pairs_than_are_in_memory_at_once_change_nothing(tiny_lwap_model, pairs):
    few, calls = compare(tiny_lwap_model, pairs, NAMES)[NAMES].to_numpy(), []
    many = compare(
        tiny_lwap_model,
        pairs * 300,
        NAMES,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert np.abs(many[NAMES].to_numpy() - np.tile(few, (300, 1))).max() <= 1e-5
    assert [total for _, total in calls] == [12] * len(calls)  # sentences, each once
    assert calls == sorted(calls) and calls[-1] == (12, 12)


def test_by_default_every_strategy_but_single_layers(tiny_lwap_model, pairs):
    table = compare(tiny_lwap_model, pairs)
    assert list(table.columns[2:]) == default_strategies(tiny_lwap_model)
    assert compare_pairs(tiny_lwap_model, pairs).strategies == tuple(table.columns[2:])


def test_compare_keeps_the_scores_of_a_frame(tiny_model, pairs):
    frame = pd.DataFrame(pairs, columns=["sentence1", "sentence2"], index=range(10, 19))
    frame["score"], frame["note"] = np.arange(9) / 2, "not kept"
    table = compare(tiny_model, frame, ["mean"])
    assert list(table.columns) == ["sentence1", "sentence2", "score", "mean"]
    assert table["score"].tolist() == frame["score"].tolist()
    assert np.array_equal(table["mean"], compare(tiny_model, pairs, ["mean"])["mean"])


@pytest.mark.parametrize(
    "container", [tuple, iter, np.array, lambda pairs: [list(p) for p in pairs]]
)
def test_any_container_of_pairs(tiny_model, pairs, container):
    expected = compare(tiny_model, pairs, ["mean"])["mean"]
    assert np.array_equal(compare(tiny_model, container(pairs), ["mean"])["mean"], expected)


def test_compare_takes_a_precision(tiny_model, pairs):
    exact, rough = (
        compare(tiny_model, pairs, ["mean"], precision=name)["mean"] for name in ("fp32", "bf16")
    )
    assert 0 < np.abs(exact - rough).max() < 0.05
    with pytest.raises(ConfigError, match="precision is 'fp8'"):
        compare(tiny_model, pairs, ["mean"], precision="fp8")


def test_whitened_strategies(make_encoder, sentences):
    model = lwap.load(str(make_encoder("bert", hidden_size=8)), device="cpu")
    corpus, pairs = encode_layers(model, sentences), list(itertools.pairwise(sentences[:5]))
    whitening = {name: fit_whitening(corpus, name, corpus="examples") for name in ("cls", "mean")}
    names = ["cls+whiten", "mean", "mean+whiten"]
    table = compare(model, pairs, names, whitening=whitening)
    found = compare_pairs(model, pairs, names, whitening=whitening)
    for name in ("cls", "mean"):
        for place, (first, second) in enumerate(pairs):
            bank = encode_layers(model, [first, second])
            a, b = embed(bank, f"{name}+whiten", whitening=whitening[name]).astype(float)
            expected = a @ b / np.sqrt((a @ a) * (b @ b))
            assert table[f"{name}+whiten"][place] == pytest.approx(expected, abs=1e-4)
    assert np.abs(found.cosines - table[names].to_numpy()).max() <= 1e-5
    with pytest.raises(StrategyError, match=r"'max\+whiten' needs a corpus to fit the"):
        compare(model, pairs, ["max+whiten"], whitening=whitening)


# --- compare_pairs -------------------------------------------------------------------------------


def test_compare_pairs_equals_compare(tiny_lwap_model, pairs):
    found, table = (run(tiny_lwap_model, pairs, NAMES) for run in (compare_pairs, compare))
    assert len(found) == 9
    assert found.strategies == tuple(NAMES)
    assert list(zip(found.first, found.second, strict=True)) == pairs
    assert np.abs(found.cosines - table[NAMES].to_numpy()).max() <= 1e-5
    assert sorted(found.bank.texts) == sorted({text for pair in pairs for text in pair})
    for row, pair in zip(found.rows, pairs, strict=True):
        assert tuple(found.bank.texts[place] for place in row) == pair


def test_layers_of_a_comparison_are_those_of_its_pairs(tiny_lwap_model, pairs):
    found = compare_pairs(tiny_lwap_model, pairs, ["mean"])
    assert found.layers.mean.shape == found.layers.query.shape == (9, 4)
    for place, (first, second) in enumerate(pairs):
        for state in range(4):
            for kind, values in (("cls", found.layers.query), ("mean", found.layers.mean)):
                expected = slow_cosine(tiny_lwap_model, first, second, f"layer_{kind}:{state}")
                assert values[place, state] == pytest.approx(expected, abs=1e-5)


def test_percentiles_are_those_among_all_other_pairs_of_the_sentences(tiny_lwap_model, pairs):
    """12 sentences have 66 pairs, 5 or 6 of which are in the set: all the others are the scale."""
    found = compare_pairs(tiny_lwap_model, pairs, NAMES)
    texts = sorted({text for pair in pairs for text in pair})
    known = {frozenset(pair) for pair in pairs}
    others = [
        (first, second)
        for first, second in itertools.combinations(texts, 2)
        if frozenset((first, second)) not in known
    ]
    assert found.random_pairs == len(others) == 60
    for column, name in enumerate(NAMES):
        bank = {text: row for row, text in enumerate(found.bank.texts)}
        vectors = embed(found.bank, name).astype(float)
        scale = [
            float(
                vectors[bank[a]]
                @ vectors[bank[b]]
                / np.linalg.norm(vectors[bank[a]])
                / np.linalg.norm(vectors[bank[b]])
            )
            for a, b in others
        ]
        for place in range(9):
            expected = percentileofscore(scale, found.cosines[place, column], kind="mean")
            assert found.percentiles[place, column] == pytest.approx(expected, abs=1e-9)
    assert found.percentiles[8].tolist() == [100] * len(NAMES)


def test_few_sentences_have_no_percentiles(tiny_lwap_model, sentences):
    pairs = list(itertools.pairwise(sentences[:6]))  # 10 other pairs
    found = compare_pairs(tiny_lwap_model, pairs, NAMES)
    assert found.random_pairs == 0
    assert np.isnan(found.percentiles).all()
    assert np.array_equal(found.disagreement, found.cosines.max(axis=1) - found.cosines.min(axis=1))
    assert list(found.to_frame().columns) == ["sentence1", "sentence2", *NAMES]


def test_disagreement_is_the_range_of_the_percentiles(tiny_lwap_model, pairs):
    found = compare_pairs(tiny_lwap_model, pairs, NAMES)
    expected = [max(row) - min(row) for row in found.percentiles.tolist()]
    assert found.disagreement.tolist() == expected
    assert max(expected) > 0


def test_the_seed_draws_the_random_pairs(tiny_model):
    words = [f"{first} {second}" for first in "abcdefghij" for second in "klmnopqr"]
    pairs = list(zip(words[::2], words[1::2], strict=True))  # 3,120 other pairs
    first, again, other = (
        compare_pairs(tiny_model, pairs, ["mean"], seed=seed) for seed in (1, 1, 2)
    )
    assert first.random_pairs == other.random_pairs == 2000
    assert np.array_equal(first.percentiles, again.percentiles)
    assert not np.array_equal(first.percentiles, other.percentiles)
    assert np.array_equal(first.cosines, other.cosines)


@pytest.mark.parametrize("count", [30, 400, 401, 5000])
def test_random_pairs_are_new_distinct_pairs_of_different_sentences(count):
    rows = np.array([[place, (place * 7 + 1) % count] for place in range(count)])
    drawn = comparison.random_rows(count, rows, seed=0)
    known = {frozenset(pair) for pair in rows.tolist()}
    possible = sum(frozenset(pair) not in known for pair in itertools.combinations(range(30), 2))
    assert len(drawn) == (possible if count == 30 else comparison.RANDOM_PAIRS)
    assert drawn.min() >= 0 and drawn.max() < count
    assert (drawn[:, 0] != drawn[:, 1]).all()
    unordered = {frozenset(pair) for pair in drawn.tolist()}
    assert len(unordered) == len(drawn)
    assert not unordered & known
    # Drawn from everywhere, not from the first sentences.
    assert np.median(drawn) == pytest.approx(count / 2, rel=0.1)


def test_a_cut_sentence_marks_its_pair(tiny_model, sentences):
    long = "water " * 99
    pairs = [(sentences[0], sentences[1]), (sentences[0], long), (long, sentences[1])]
    found = compare_pairs(tiny_model, pairs, ["mean"])
    assert found.is_truncated.tolist() == [False, True, True]


def test_progress_counts_distinct_sentences(tiny_model, pairs):
    calls = []
    compare_pairs(tiny_model, pairs, ["mean"], progress=lambda *call: calls.append(call))
    assert calls[-1] == (12, 12)


def test_to_frame_has_cosines_scores_and_percentiles(tiny_lwap_model, pairs):
    found = compare_pairs(tiny_lwap_model, pairs, ["mean", "lwap"])
    gold = np.arange(9)
    table = found.to_frame(gold)
    assert list(table.columns) == [
        *("sentence1", "sentence2", "score", "mean", "lwap"),
        *("mean percentile", "lwap percentile"),
    ]
    assert table["score"].tolist() == gold.tolist()
    assert np.array_equal(table[["mean", "lwap"]], found.cosines)
    assert np.array_equal(table[["mean percentile", "lwap percentile"]], found.percentiles)
    assert "score" not in found.to_frame()


def test_spearman_of_every_strategy_equals_scipy(tiny_lwap_model, pairs):
    found = compare_pairs(tiny_lwap_model, pairs, NAMES)
    gold = np.array([3.0, 1, 4, 1, 5, 2, 2.5, 3, 5])
    measured = found.spearman(gold)
    assert list(measured) == NAMES
    for place, name in enumerate(NAMES):
        expected = 100 * spearmanr(found.cosines[:, place].round(6), gold).statistic
        assert measured[name].value == pytest.approx(expected, abs=1e-9)
        assert measured[name].low <= measured[name].value <= measured[name].high


def test_select_takes_pairs_in_order_and_masks(tiny_lwap_model, pairs):
    found = compare_pairs(tiny_lwap_model, pairs, NAMES)
    places = [7, 0, 7]
    chosen = found.select(places)
    assert list(zip(chosen.first, chosen.second, strict=True)) == [pairs[p] for p in places]
    for name in ("cosines", "percentiles", "is_truncated", "rows", "disagreement"):
        assert np.array_equal(getattr(chosen, name), getattr(found, name)[places])
    assert np.array_equal(chosen.layers.query, found.layers.query[places])
    assert np.array_equal(chosen.layers.mean, found.layers.mean[places])
    assert chosen.random_pairs == found.random_pairs
    mask = np.arange(9) >= 7
    assert found.select(mask).first == found.first[7:]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("run", [compare, compare_pairs])
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "No pairs were given. Give at least one pair of sentences"),
        (pd.DataFrame({"sentence1": [], "sentence2": []}), "No pairs were given"),
        (pd.DataFrame({"a": ["x"]}), r"no column 'sentence1'; there are \['a'\]. Name the columns"),
        (pd.DataFrame({"sentence1": ["x"], "b": ["y"]}), "no column 'sentence2'"),
        ([("a", "b"), ("c",)], r"Pair 2 is \('c',\); a pair is two sentences"),
        ([("a", "b", "c")], r"Pair 1 is \('a', 'b', 'c'\); a pair is two sentences"),
        (["ab", "cd"], "Pair 1 is 'ab'; a pair is two sentences"),
        ([None], "Pair 1 is None; a pair is two sentences"),
        ([{"sentence1": "a", "sentence2": "b"}], "Pair 1 is {.*}; a pair is two sentences"),
        ([{"a", "b"}], "Pair 1 is {.*}; a pair is two sentences"),
        ([("a", "b"), ("c", " ")], r"Pair 2: sentence2 is empty \(' '\)"),
        ([("", "b")], r"Pair 1: sentence1 is empty \(''\)"),
        ([("a", None)], r"Pair 1: sentence2 is empty \(None\)"),
        (pd.DataFrame({"sentence1": ["x", None], "sentence2": ["y", "z"]}), "Pair 2: sentence1 is"),
        ([("a", "b\ud800")], "Pair 1: sentence2 holds half a character, a lone surrogate"),
    ],
)
def test_refuses_pairs_and_names_the_place(tiny_model, run, pairs, message):
    with pytest.raises(InputError, match=message):
        run(tiny_model, pairs)


@pytest.mark.parametrize(
    ("run", "name", "message"),
    [
        (compare, "median", "has no strategy 'median'. It has cls, mean"),
        (compare, "lwap", "has no strategy 'lwap'"),
        (compare, "layer_mean:4", "has no strategy 'layer_mean:4'"),
        (compare, "mean+whiten", r"'mean\+whiten' needs a corpus"),
        (compare_pairs, "median", "There is no pooling strategy 'median'"),
        (compare_pairs, "lwap", "'lwap' needs trained weights"),
        (compare_pairs, "layer_mean:4", "'layer_mean:4' asks for state 4"),
        (compare_pairs, "mean+whiten", r"'mean\+whiten' needs a whitening"),
    ],
)
def test_refuses_a_strategy(tiny_model, pairs, run, name, message):
    with pytest.raises(StrategyError, match=message):
        run(tiny_model, pairs, ["mean", name])


def test_split_pairs_of_a_frame_and_of_tuples():
    pairs = [("a", "b"), ("c", "d")]
    frame = pd.DataFrame(pairs, columns=["sentence1", "sentence2"])
    assert split_pairs(pairs) == split_pairs(frame) == (["a", "c"], ["b", "d"])


def test_the_names_are_reached_from_the_package():
    assert (lwap.compare, lwap.compare_pairs) == (compare, compare_pairs)
