"""The layer-wise encoder against `output_hidden_states`, and where encoders come from."""

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sentence_transformers.base.modules import Transformer
from transformers import AutoModel

import lwap
from lwap.encoding import encoder as encoder_module
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.encoding.sources import cache_folder, resolve_encoder
from lwap.errors import ModelError


def new_encoder(folder) -> LayerwiseTransformer:
    """Return an encoder of its own, which a test may change."""
    return lwap.load(str(folder), device="cpu")[0]


def slow_layers(states, mask) -> dict[str, torch.Tensor]:
    """Reduce hidden states (S of (B, T, D)) sentence by sentence, real tokens only."""
    found = {"layer_cls": [], "layer_means": [], "layer_query": []}
    for row, real in enumerate(mask.bool()):
        tokens = [state[row][real] for state in states]
        found["layer_cls"].append(torch.stack([token[0] for token in tokens]))
        found["layer_means"].append(torch.stack([sum(token) / len(token) for token in tokens]))
        found["layer_query"].append(torch.stack([token[-1] for token in tokens]))
    return {name: torch.stack(values) for name, values in found.items()}


def hooks_of(encoder) -> list[int]:
    return [len(module._forward_pre_hooks) for module in encoder.modules()]


# --- one forward pass, all states ----------------------------------------------------------------


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_equals_output_hidden_states_on_a_padded_batch(
    architecture, padding_side, make_encoder, sentences
):
    """The same batch for both sides, since here the caller has padded it."""
    folder = make_encoder(architecture, padding_side)
    encoder = new_encoder(folder)
    assert encoder.tokenizer.padding_side == "right"
    encoder.tokenizer.padding_side = padding_side  # as a caller may pad
    features = encoder.preprocess([sentences[0], "a", " ".join(sentences[:3])])
    first_real = features["attention_mask"].argmax(dim=1)
    assert (first_real > 0).any() == (padding_side == "left")
    plain = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    names = {"input_ids", "attention_mask", "token_type_ids"}
    given = {name: features[name] for name in names & features.keys()}
    with torch.inference_mode():
        output = plain(**given, output_hidden_states=True)
        found = encoder(dict(features))
    expected = slow_layers(output.hidden_states, features["attention_mask"])
    for name in ("layer_cls", "layer_means"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)
    assert torch.equal(found["token_embeddings"], output.last_hidden_state)
    assert ("layer_query" in found) == encoder.is_causal
    if encoder.is_causal:
        torch.testing.assert_close(found["layer_query"], expected["layer_query"], atol=1e-6, rtol=0)
    assert found["layer_cls"].shape == (3, encoder.num_states, 32)
    assert "all_layer_embeddings" not in found


def test_more_padding_changes_nothing(tiny_model, sentences):
    encoder = tiny_model[0]
    features = encoder.preprocess(sentences[:4])
    wider = {
        name: torch.nn.functional.pad(value, (0, 9)) if torch.is_tensor(value) else value
        for name, value in features.items()
    }
    with torch.inference_mode():
        narrow, wide = encoder(dict(features)), encoder(wider)
    for name in ("layer_cls", "layer_means"):
        torch.testing.assert_close(wide[name], narrow[name], atol=1e-5, rtol=0)


def test_encode_equals_the_stock_transformer(architecture, make_encoder, sentences):
    """The hooks change nothing of what sentence-transformers computes."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = str(make_encoder(architecture))
    stock = SentenceTransformer(modules=[Transformer(folder), Pooling(32)], device="cpu")
    ours = lwap.load(folder, device="cpu")
    assert (stock.encode(sentences[:6]) == ours.encode(sentences[:6])).all()


def test_two_views_of_one_transformer_hook_it_once(tiny_encoder_folder):
    stock = Transformer(str(tiny_encoder_folder))
    before = hooks_of(stock)
    assert sum(before) == 0
    first = LayerwiseTransformer.from_transformer(stock)
    second = LayerwiseTransformer.from_transformer(stock)
    assert first is not second
    assert first.model is second.model is stock.model
    assert sum(hooks_of(stock)) == 3
    assert LayerwiseTransformer.from_transformer(first) is first
    with torch.inference_mode():
        features = first(first.preprocess(["The bridge is safe."]))
    assert features["layer_cls"].shape == (1, 4, 32)


def test_a_stock_transformer_with_a_view_still_runs_as_stock(tiny_encoder_folder):
    stock = Transformer(str(tiny_encoder_folder))
    LayerwiseTransformer.from_transformer(stock)
    features = stock(stock.preprocess(["The bridge is safe."]))
    assert "layer_cls" not in features


def test_pickle_and_deepcopy_keep_the_hooks(tiny_encoder_folder, sentences, tmp_path):
    encoder = new_encoder(tiny_encoder_folder)
    features = encoder.preprocess(sentences[:3])
    with torch.inference_mode():
        expected = encoder(dict(features))["layer_means"]
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert hooks_of(other) == hooks_of(encoder)
        assert other.model is not encoder.model
        with torch.inference_mode():
            assert torch.equal(other(dict(features))["layer_means"], expected)


def test_threads_do_not_meet(tiny_encoder_folder, sentences):
    """Four threads run one encoder at once: what each collects is bit-identical to one thread."""
    encoder = new_encoder(tiny_encoder_folder)
    batches = [
        encoder.preprocess(sentences[start : start + 2 + start % 3]) for start in range(24)
    ] * 3

    def run(features):
        with torch.inference_mode():
            found = encoder(dict(features))
        return found["layer_cls"], found["layer_means"]

    expected = [run(features) for features in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, batches))
    for mine, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def loss_and_gradients(encoder, features, summaries) -> tuple[float, dict[str, torch.Tensor]]:
    """Backpropagate a loss that reads every state, given a function from output to summaries."""
    encoder.zero_grad()
    states = summaries(encoder(dict(features)))
    weights = torch.linspace(-1, 1, states[0].numel()).reshape(states[0].shape)
    loss = sum((state * weights).sum() for state in states)
    loss.backward()
    gradients = {
        name.removeprefix("model."): parameter.grad.clone()
        for name, parameter in encoder.named_parameters()
        if parameter.grad is not None
    }
    return loss.item(), gradients


def assert_same_gradients(first, second) -> None:
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        torch.testing.assert_close(gradient, second[1][name], atol=2e-4, rtol=1e-4)


def ours(features) -> list[torch.Tensor]:
    return [features["layer_cls"], features["layer_means"]]


def test_gradients_equal_those_of_the_stock_hidden_states(tiny_encoder_folder, sentences):
    encoder = new_encoder(tiny_encoder_folder)
    stock = Transformer(
        str(tiny_encoder_folder), config_kwargs={"output_hidden_states": True}
    ).eval()
    features = encoder.preprocess(sentences[:3])

    def theirs(output) -> list[torch.Tensor]:
        found = slow_layers(output["all_layer_embeddings"], features["attention_mask"])
        return [found["layer_cls"], found["layer_means"]]

    mine = loss_and_gradients(encoder, features, ours)
    assert_same_gradients(mine, loss_and_gradients(stock, features, theirs))
    assert any(name.startswith("embeddings.") for name in mine[1])


def test_gradient_checkpointing_changes_nothing(make_encoder, sentences):
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = new_encoder(make_encoder("bert", **without_dropout)).train()
    features = encoder.preprocess(sentences[:3])
    plain = loss_and_gradients(encoder, features, ours)
    encoder.model.gradient_checkpointing_enable()
    assert encoder.model.is_activation_checkpointing
    assert_same_gradients(loss_and_gradients(encoder, features, ours), plain)


def test_a_failed_forward_leaves_nothing_behind(tiny_encoder_folder, sentences):
    encoder = new_encoder(tiny_encoder_folder)
    features = encoder.preprocess(sentences[:2])
    with pytest.raises((IndexError, RuntimeError)):
        encoder({**features, "input_ids": features["input_ids"] + 10_000})
    assert encoder_module._COLLECTOR.get() is None
    with torch.inference_mode():
        assert encoder(features)["layer_cls"].shape == (2, 4, 32)


def test_refuses_a_model_that_runs_another_number_of_layers(tiny_encoder_folder, sentences):
    encoder = new_encoder(tiny_encoder_folder)
    encoder.model.encoder.layer = encoder.model.encoder.layer[:2]
    with pytest.raises(ModelError, match="BertModel ran 2 layers, but its configuration says 3"):
        encoder(encoder.preprocess(sentences[:2]))


def test_facts_of_an_encoder(tiny_model, make_encoder):
    encoder = tiny_model[0]
    assert (encoder.num_states, encoder.get_embedding_dimension()) == (4, 32)
    assert encoder.device == torch.device("cpu")
    assert not encoder.is_causal
    assert new_encoder(make_encoder("llama")).is_causal


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_the_limit_never_passes_the_positions(make_encoder, name):
    """A tokenizer may claim more than there are positions; RoBERTa cannot use two of them."""
    positions = {"max_position_embeddings": 20}
    encoder = new_encoder(make_encoder(name, **positions))
    assert encoder.max_seq_length == (18 if name == "roberta" else 20)
    bank = lwap.encode_layers(encoder, ["water " * 100])
    assert bank.token_counts.tolist() == [encoder.max_seq_length]
    assert bank.is_truncated.tolist() == [True]


@pytest.mark.parametrize("eos_token", ["[SEP]", None])
def test_a_decoder_without_a_padding_token_gets_one(make_encoder, tmp_path, sentences, eos_token):
    """GPT-2 and Llama have none; padding is masked, so any token will do."""
    folder = tmp_path / "gpt2"
    shutil.copytree(make_encoder("gpt2"), folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text("utf-8")) | {"pad_token": None, "eos_token": eos_token}
    file.write_text(json.dumps(settings), "utf-8")
    encoder = new_encoder(folder)
    assert encoder.tokenizer.pad_token == (eos_token or "[UNK]")
    expected = lwap.encode_layers(new_encoder(make_encoder("gpt2")), sentences[:5])
    assert abs(lwap.encode_layers(encoder, sentences[:5]).mean - expected.mean).max() <= 1e-6


# --- where encoders come from -------------------------------------------------------------------
# The bundled weights, the hub and remembered hashes are tested in test_checkpoints.py, where
# people meet them.


def test_a_folder_is_taken_as_it_is(tiny_encoder_folder, monkeypatch):
    assert resolve_encoder(str(tiny_encoder_folder), revision="ignored") == tiny_encoder_folder
    monkeypatch.setenv("HOME", str(tiny_encoder_folder.parent))
    assert resolve_encoder(f"~/{tiny_encoder_folder.name}") == tiny_encoder_folder


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-here/model", "a\0b"])
def test_a_name_that_no_folder_can_have_is_an_error_of_ours(name):
    with pytest.raises(ModelError, match="is neither a folder here nor a well-formed hub id"):
        resolve_encoder(name)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("LWAP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lwap"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lwap"
