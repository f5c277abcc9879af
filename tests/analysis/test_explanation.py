"""Layer attention, knock-out and similarity by layer, against loops over sentences and states."""

import itertools

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import lwap
from lwap.analysis.explanation import explain, layer_similarity, state_similarity
from lwap.encoding.bank import LayerBank, encode_layers
from lwap.errors import InputError, StrategyError
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix
from lwap.pooling.trained import layer_weights

STATES, DIMENSION = 4, 6


def random_head(**options) -> LayerwiseAttentionPooling:
    torch.manual_seed(0)
    return LayerwiseAttentionPooling(DIMENSION, STATES, **options).eval()


def random_mix() -> ScalarMix:
    torch.manual_seed(0)
    mix = ScalarMix(DIMENSION, STATES).eval()
    torch.nn.init.normal_(mix.weights)
    return mix


def slow_cosine(first, second) -> float:
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    lengths = np.sqrt((first * first).sum()) * np.sqrt((second * second).sum())
    return float((first * second).sum() / lengths)


def slow_lwap(head, query, means, states) -> tuple[np.ndarray, np.ndarray]:
    """Return embedding and attention (Q, states) of one sentence with only `states` to look at."""

    def activated(layer, vectors):
        projected = vectors @ layer.weight.detach().double().numpy().T
        return np.where(projected >= 0, projected, projected * 11 / 48)

    asking = query if head.query_states == "all" else query[-1:]
    keys, values = activated(head.key, means[states]), activated(head.value, means[states])
    logits = activated(head.query, asking) @ keys.T / head.logit_divisor
    attention = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    pooled = (attention @ values).mean(axis=0)
    dense = head.dense.weight.detach().double().numpy()
    bias = head.dense.bias.detach().double().numpy()
    return np.tanh(dense @ np.concatenate([query[-1], pooled]) + bias), attention


@pytest.mark.parametrize("query", ["all", "last"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_explain_equals_a_loop(query, is_causal, make_bank):
    head = random_head(query=query)
    bank = make_bank(5, is_causal=is_causal, heads={"lwap": head})
    found = explain(None, bank)
    asking = bank.last_tokens if is_causal else bank.cls
    every = list(range(STATES))
    for row in range(5):
        c, a = asking[row].astype(float), bank.mean[row].astype(float)
        embedding, attention = slow_lwap(head, c, a, every)
        assert np.abs(found.embeddings[row] - embedding).max() <= 1e-6
        assert np.abs(found.attention[row] - attention).max() <= 1e-6
        for state in range(STATES):
            weight = sum(attention[i][state] for i in range(len(attention))) / len(attention)
            assert found.weights[row, state] == pytest.approx(weight, abs=1e-6)
            kept = [other for other in every if other != state]
            without, _ = slow_lwap(head, c, a, kept)
            assert np.abs(found.knockout_embeddings[row, state] - without).max() <= 1e-6
            moved = 1 - slow_cosine(embedding, without)
            assert found.knockout[row, state] == pytest.approx(moved, abs=1e-5)
    assert found.attention.shape == (5, STATES if query == "all" else 1, STATES)
    assert found.weights.shape == found.knockout.shape == (5, STATES)
    assert found.embeddings.shape == (5, DIMENSION)
    assert np.abs(found.attention.sum(axis=2) - 1).max() <= 1e-6
    assert found.query_names == (found.state_names if query == "all" else ["layer 3"])
    assert found.state_names == ["embeddings", "layer 1", "layer 2", "layer 3"]
    assert found.strategy == "lwap"


def test_explain_of_a_scalar_mix(make_bank):
    mix = random_mix()
    found = explain(None, make_bank(3, heads={"scalar_mix": mix}))
    bank = make_bank(3)
    weights = np.exp(mix.weights.detach().double().numpy())
    for row in range(3):
        assert found.weights[row].tolist() == pytest.approx((weights / weights.sum()).tolist())
        for state in range(STATES):
            kept = [other for other in range(STATES) if other != state]
            part = weights[kept] / weights[kept].sum()
            expected = sum(
                w * bank.mean[row, other].astype(float) for w, other in zip(part, kept, strict=True)
            )
            assert np.abs(found.knockout_embeddings[row, state] - expected).max() <= 1e-6
    assert found.strategy == "scalar_mix"
    assert found.query_names == ["all sentences alike"]


def test_pair_knockout_is_the_change_of_the_cosine(make_bank):
    found = explain(None, make_bank(4, heads={"lwap": random_head()}))
    for first, second in itertools.product(range(4), repeat=2):
        before = slow_cosine(found.embeddings[first], found.embeddings[second])
        expected = [
            slow_cosine(found.knockout_embeddings[first][s], found.knockout_embeddings[second][s])
            - before
            for s in range(STATES)
        ]
        assert found.pair_knockout(first, second).tolist() == pytest.approx(expected, abs=1e-9)
    assert np.abs(found.pair_knockout(2, 2)).max() <= 1e-12


@pytest.mark.parametrize("head", [random_head(), random_head(query="last"), random_mix()])
def test_more_sentences_than_a_head_takes_at_once_change_nothing(head, make_bank):
    bank = make_bank(4100, heads={head.strategy: head})
    whole, last = explain(None, bank), explain(None, bank.select(range(4090, 4100)))
    for name in ("attention", "weights", "knockout", "embeddings", "knockout_embeddings"):
        assert np.abs(getattr(last, name) - getattr(whole, name)[4090:]).max() <= 1e-6


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("head", [random_head(), random_head(query="last"), random_mix()])
def test_layer_weights_are_those_of_explain(head, is_causal, make_bank):
    bank = make_bank(4100, is_causal=is_causal, heads={head.strategy: head})
    expected = explain(None, bank).weights
    head.train()
    found = layer_weights(bank)
    assert head.training
    head.eval()
    assert found.shape == (4100, STATES)
    assert np.abs(found - expected).max() <= 1e-6
    assert np.abs(found.sum(axis=1) - 1).max() <= 1e-6
    assert np.median(np.ptp(expected, axis=1)) > 1e-3  # not even, so that a mix-up would show


def test_layer_weights_need_no_knock_out(make_bank):
    class Head(LayerwiseAttentionPooling):
        def knock_out(self, *args):
            pytest.fail("it takes S times as long")

    head = Head(DIMENSION, STATES).eval()
    assert layer_weights(make_bank(3, heads={"lwap": head})).shape == (3, STATES)


def test_explain_gives_the_head_back_as_it_was(make_bank):
    head = random_head().train()
    bank = make_bank(3, heads={"lwap": head})
    first = explain(None, bank)
    assert head.training
    assert np.array_equal(first.embeddings, explain(None, bank).embeddings)


def test_explain_takes_sentences_or_their_bank(tiny_lwap_model, sentences, tmp_path):
    calls = []
    found = explain(
        tiny_lwap_model, [*sentences[:5], "water " * 99], progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (6, 6)
    assert found.texts == (*sentences[:5], "water " * 99)
    assert found.is_truncated.tolist() == [False] * 5 + [True]
    assert found.max_tokens == found.token_counts[-1] == 64
    assert np.abs(found.embeddings - tiny_lwap_model.encode(list(found.texts))).max() <= 1e-5
    rows = tiny_lwap_model.encode(list(found.texts), output_value=None)
    for row, attention in zip(rows, found.attention, strict=True):
        assert np.abs(row["layer_attention"].numpy() - attention).max() <= 1e-5

    bank = encode_layers(tiny_lwap_model, found.texts, directory=tmp_path)
    assert np.array_equal(explain(tiny_lwap_model, bank).knockout, found.knockout)
    # A bank from disk has no heads: the model has them.
    assert np.array_equal(
        explain(tiny_lwap_model, LayerBank.open(tmp_path)).knockout, found.knockout
    )


def test_what_a_knock_out_says_is_what_the_model_does_without_the_state(tiny_lwap_model, sentences):
    """Removing a state without weight changes nothing; removing the only one read changes all."""
    mix = ScalarMix(32, 4).eval()
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([-100.0, 0.0, 0.0, -100.0]))
    model = SentenceTransformer(modules=[tiny_lwap_model[0], mix], device="cpu")
    found = explain(model, sentences[:4])
    assert np.abs(found.knockout[:, [0, 3]]).max() <= 1e-6
    assert found.knockout[:, [1, 2]].min() > 1e-3
    bank = encode_layers(tiny_lwap_model, sentences[:4])
    assert np.abs(found.knockout_embeddings[:, 1] - bank.mean[:, 2]).max() <= 1e-5


def test_layer_similarity_equals_a_loop(make_bank):
    for is_causal, name in ((False, "CLS"), (True, "last token")):
        first, second = (make_bank(5, is_causal=is_causal, seed=seed) for seed in (0, 1))
        found = layer_similarity(first, second)
        assert found.query_name == name
        assert found.query.shape == found.mean.shape == (5, STATES)
        for row, state in itertools.product(range(5), range(STATES)):
            queries = (bank.query[row, state] for bank in (first, second))
            means = (bank.mean[row, state] for bank in (first, second))
            assert found.query[row, state] == pytest.approx(slow_cosine(*queries), abs=1e-12)
            assert found.mean[row, state] == pytest.approx(slow_cosine(*means), abs=1e-12)


def test_state_similarity_equals_a_loop(make_bank):
    bank = make_bank(3)
    found = state_similarity(bank)
    assert found.shape == (3, STATES, STATES)
    for row, i, j in itertools.product(range(3), range(STATES), range(STATES)):
        expected = slow_cosine(bank.mean[row, i], bank.mean[row, j])
        assert found[row, i, j] == pytest.approx(expected, abs=1e-12)


# --- what is refused ----------------------------------------------------------------------------


def test_refuses_a_model_without_a_head(tiny_model):
    with pytest.raises(StrategyError, match=r"has no trained layer attention to look at\. Choose"):
        explain(tiny_model, ["The bridge is safe."])
    with pytest.raises(StrategyError, match=r"has no trained layer attention to look at\. Choose"):
        layer_weights(encode_layers(tiny_model, ["The bridge is safe."]))


def test_refuses_sentences_as_the_bank_does(tiny_lwap_model):
    with pytest.raises(InputError, match="Sentence 2 of 2 is empty"):
        explain(tiny_lwap_model, ["The bridge is safe.", " "])


@pytest.mark.parametrize("missing", ["cls", "mean"])
def test_refuses_a_bank_without_every_state(missing, make_bank):
    bank = make_bank(2, heads={"lwap": random_head()}, **{missing: None})
    with pytest.raises(StrategyError, match=f"'explain' needs the summary '{missing}'"):
        explain(None, bank)
    with pytest.raises(StrategyError, match=f"'layer_weights' needs the summary '{missing}'"):
        layer_weights(bank)
    with pytest.raises(StrategyError, match=f"'layer_similarity' needs the summary '{missing}'"):
        layer_similarity(bank, bank)
    if missing == "mean":
        with pytest.raises(StrategyError, match="'state_similarity' needs the summary 'mean'"):
            state_similarity(bank)


def test_refuses_banks_of_different_length(make_bank):
    message = "as many first sentences as second ones, not 2 and 3"
    with pytest.raises(InputError, match=message):
        layer_similarity(make_bank(2), make_bank(3))


def test_the_names_are_reached_from_the_package():
    assert (lwap.explain, lwap.layer_similarity) == (explain, layer_similarity)
