"""Every pooling strategy against its formula, written out sentence by sentence."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

import lwap
from lwap.encoding.bank import Summary, encode_layers
from lwap.errors import StrategyError
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix
from lwap.pooling.strategies import (
    default_strategies,
    describe,
    embed,
    fit_whitening,
    needed_summaries,
    own_strategy,
    split_whitening,
    strategies,
)
from lwap.pooling.whitening import Whitening

STATES, DIMENSION = 4, 6

# The vector of one sentence, given its arrays: c, a (S, D) and the last state's max and last token.
FORMULAS = {
    "cls": lambda c, a, top, last: c[3],
    "mean": lambda c, a, top, last: a[3],
    "max": lambda c, a, top, last: top,
    "last_token": lambda c, a, top, last: last,
    "first_last_mean": lambda c, a, top, last: [
        (x + y) / 2 for x, y in zip(a[1], a[3], strict=True)
    ],
    "embed_last_mean": lambda c, a, top, last: [
        (x + y) / 2 for x, y in zip(a[0], a[3], strict=True)
    ],
    "last_two_mean": lambda c, a, top, last: [(x + y) / 2 for x, y in zip(a[2], a[3], strict=True)],
    "all_mean": lambda c, a, top, last: [sum(xs) / 4 for xs in zip(*a, strict=True)],
    "layer_mean:0": lambda c, a, top, last: a[0],
    "layer_mean:2": lambda c, a, top, last: a[2],
    "layer_mean:3": lambda c, a, top, last: a[3],
    "layer_cls:0": lambda c, a, top, last: c[0],
    "layer_cls:1": lambda c, a, top, last: c[1],
    "layer_cls:3": lambda c, a, top, last: c[3],
}
TRAINED = ("lwap", "scalar_mix")


@pytest.fixture
def heads() -> dict:
    torch.manual_seed(0)
    mix = ScalarMix(DIMENSION, STATES)
    torch.nn.init.normal_(mix.weights)
    return {"lwap": LayerwiseAttentionPooling(DIMENSION, STATES), "scalar_mix": mix}


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_its_formula(name, make_bank):
    bank = make_bank(5)
    found = embed(bank, name)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    for row in range(5):
        arrays = [bank.cls[row], bank.mean[row], bank.max[row], bank.last_token[row]]
        expected = FORMULAS[name](*(array.tolist() for array in arrays))
        assert np.abs(found[row] - expected).max() <= 1e-6


def test_every_fixed_strategy_has_a_formula_here():
    patterns = {"layer_mean:K", "layer_cls:K"}
    fixed = {name for name, info in strategies().items() if not info.needs_training}
    assert fixed == {name for name in FORMULAS if ":" not in name} | patterns


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_trained_strategy_is_its_head_in_eval_mode(name, is_causal, make_bank, heads):
    bank = make_bank(5, is_causal=is_causal, heads=heads)
    head = heads[name].train()
    found = embed(bank, name)
    assert head.training  # given back as it was
    query = bank.last_tokens if is_causal else bank.cls
    features = {"layer_cls": torch.from_numpy(query), "layer_means": torch.from_numpy(bank.mean)}
    with torch.inference_mode():
        expected = head.eval()(features)["sentence_embedding"].numpy()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", TRAINED)
def test_more_sentences_than_a_head_takes_at_once_change_nothing(name, make_bank, heads):
    bank = make_bank(4100, heads=heads)
    whole = embed(bank, name)
    for rows in (range(5), range(4090, 4100)):
        assert np.abs(embed(bank.select(rows), name) - whole[rows]).max() <= 1e-6


def test_lwap_of_a_bank_is_what_encode_gives(tiny_lwap_model, sentences):
    bank = encode_layers(tiny_lwap_model, sentences)
    found = embed(bank, "lwap")
    assert np.abs(found - tiny_lwap_model.encode(sentences)).max() <= 1e-5


@pytest.mark.parametrize("name", [*FORMULAS, *TRAINED])
def test_changing_an_embedding_leaves_the_bank_as_it_is(name, make_bank, heads):
    bank = make_bank(3, heads=heads)
    kept = {key: getattr(bank, key).copy() for key in ("cls", "mean", "max", "last_token")}
    embed(bank, name)[:] = 0
    assert all(np.array_equal(getattr(bank, key), value) for key, value in kept.items())


# --- whitened -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FORMULAS, *TRAINED])
def test_whitened_is_the_same_vector_whitened(name, make_bank, heads):
    corpus, bank = make_bank(50, seed=1, heads=heads), make_bank(5, heads=heads)
    whitening = fit_whitening(corpus, name, corpus="random")
    assert (whitening.corpus, whitening.count) == ("random", 50)
    expected = (embed(bank, name).astype(float) - whitening.mean) @ whitening.matrix
    found = embed(bank, f"{name}+whiten", whitening=whitening)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-4
    by_name = {name: whitening, "other": None}
    assert np.array_equal(embed(bank, f"{name}+whiten", whitening=by_name), found)


def test_a_whitening_is_used_only_where_it_is_asked_for(make_bank):
    bank = make_bank(50)
    whitening = fit_whitening(bank, "mean", corpus="itself")
    assert np.array_equal(embed(bank, "mean", whitening=whitening), embed(bank, "mean"))


@pytest.mark.parametrize("whitening", [None, {}, {"cls": Whitening(0, 0, "x", 0)}])
def test_refuses_to_whiten_without_a_whitening(make_bank, whitening):
    message = r"'mean\+whiten' needs a whitening that was fitted on a named corpus other than"
    with pytest.raises(StrategyError, match=message):
        embed(make_bank(5), "mean+whiten", whitening=whitening)


def test_refuses_to_fit_a_whitening_on_too_few_sentences(make_bank):
    with pytest.raises(StrategyError, match="needs more than 6 distinct sentences; 'tiny' has 6"):
        fit_whitening(make_bank(6), "mean", corpus="tiny")


# --- names --------------------------------------------------------------------------------------


def test_strategies_of_a_model(tiny_model, tiny_lwap_model):
    single = [f"{kind}:{state}" for kind in ("layer_mean", "layer_cls") for state in range(4)]
    fixed = [name for name in FORMULAS if ":" not in name]
    assert list(strategies(tiny_model)) == [*fixed, *single]
    assert list(strategies(tiny_lwap_model)) == [*fixed, *single, "lwap"]
    assert default_strategies(tiny_lwap_model) == [*fixed, "lwap"]
    bank = encode_layers(tiny_lwap_model, ["The bridge is safe."])
    for name, info in strategies(tiny_lwap_model).items():
        assert embed(bank, name).shape == (1, 32)
        assert info.name == name
        assert info == describe(name)


def test_strategies_without_a_model_are_all_there_are():
    assert [name for name, info in strategies().items() if info.needs_training] == [
        "scalar_mix",
        "lwap",
    ]


@pytest.mark.parametrize("name", [*FORMULAS, *TRAINED])
def test_describe_says_what_is_read(name, make_bank, heads):
    """Take away every summary that the description does not name: the vector stays."""
    info, bank = describe(name), make_bank(3, heads=heads)
    others = {str(summary): None for summary in Summary if summary not in info.summaries}
    if "mean" in others and "cls" in others:
        others.pop("mean")  # every bank holds one of the two
    assert np.array_equal(embed(make_bank(3, heads=heads, **others), name), embed(bank, name))
    whitened = describe(f"{name}+whiten")
    assert whitened.name == f"{name}+whiten"
    assert whitened.formula == f"{info.formula}; then whitened"
    assert (whitened.summaries, whitened.needs_training) == (info.summaries, info.needs_training)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ["mean"]),
        (["mean"], ["mean"]),
        (["cls"], ["cls", "mean"]),
        (["max", "layer_cls:1"], ["cls", "mean", "max"]),
        (["last_token+whiten"], ["mean", "last_token"]),
        (["lwap"], ["cls", "mean"]),
    ],
)
def test_needed_summaries(names, expected):
    assert list(needed_summaries(names)) == expected


def test_split_whitening():
    assert split_whitening("mean") == ("mean", False)
    assert split_whitening("layer_mean:2+whiten") == ("layer_mean:2", True)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("cls", "cls"), ("mean", "mean"), ("max", "max"), ("lasttoken", "last_token")],
)
def test_own_strategy_is_what_encode_does(tiny_model, sentences, mode, expected):
    model = SentenceTransformer(modules=[tiny_model[0], Pooling(32, mode)], device="cpu")
    assert own_strategy(model) == expected
    vectors = embed(encode_layers(model, sentences[:5]), expected)
    assert np.abs(vectors - model.encode(sentences[:5])).max() <= 1e-5


def test_own_strategy_of_a_head(tiny_lwap_model, tiny_model):
    assert own_strategy(tiny_lwap_model) == "lwap"
    mix = SentenceTransformer(modules=[tiny_model[0], ScalarMix(32, 4)], device="cpu")
    assert own_strategy(mix) == "scalar_mix"


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "median",
        "",
        "Mean",
        "mean ",
        "layer_mean",
        "layer_mean:",
        "layer_mean:K",
        "layer_mean:-1",
        "layer_mean:1.5",
        "layer_max:1",
        "mean+whiten+whiten",
        "+whiten",
        "mean:1",
        "lwap:1",
    ],
)
def test_an_unknown_strategy_is_an_error_that_lists_all(name, make_bank):
    with pytest.raises(StrategyError) as caught:
        embed(make_bank(2), name)
    message = str(caught.value)
    assert message.startswith(f"There is no pooling strategy {name!r}. There are cls, mean, max, ")
    for known in strategies():
        assert known in message
    assert "+whiten" in message


@pytest.mark.parametrize("name", ["lwap", "scalar_mix", "lwap+whiten"])
def test_refuses_a_strategy_that_needs_training(name, make_bank):
    message = rf"'{name.removesuffix('+whiten')}' needs trained weights, and 'random' has none"
    with pytest.raises(StrategyError, match=message):
        embed(make_bank(2), name)


@pytest.mark.parametrize("name", ["layer_mean:4", "layer_cls:99", "layer_mean:4+whiten"])
def test_refuses_a_state_that_is_not_there(name, make_bank):
    kind, state = name.removesuffix("+whiten").split(":")
    message = (
        rf"'{kind}:{state}' asks for state {state}; 'random' has states 0 \(embeddings\) to 3\. "
        rf"Use {kind}:0 … {kind}:3\."
    )
    with pytest.raises(StrategyError, match=message):
        embed(make_bank(2), name)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("cls", "cls"),
        ("max", "max"),
        ("last_token", "last_token"),
        ("layer_cls:0", "cls"),
        ("mean", "mean"),
        ("all_mean", "mean"),
        ("lwap", "cls"),
        ("lwap", "mean"),
    ],
)
def test_refuses_a_bank_without_the_summary(name, missing, make_bank, heads):
    bank = make_bank(2, heads=heads, **{missing: None})
    message = rf"'{name}' needs the summary '{missing}', which this bank does not hold\. Make it"
    with pytest.raises(StrategyError, match=message):
        embed(bank, name)


def test_the_names_are_reached_from_the_package():
    assert (lwap.strategies, lwap.embed, lwap.fit_whitening) == (strategies, embed, fit_whitening)
