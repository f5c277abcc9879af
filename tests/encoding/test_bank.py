"""The bank against the plain transformers model, one unpadded sentence at a time."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW, Normalize, Pooling
from transformers import AutoModel, AutoTokenizer

import lwap
from lwap.datasets.readers import data_folder, read_pairs
from lwap.encoding.bank import (
    LayerBank,
    default_prompt,
    encode_layers,
    layerwise_transformer,
    model_heads,
)
from lwap.encoding.hardware import has_native_bfloat16
from lwap.encoding.sources import bundled_folder
from lwap.errors import ConfigError, InputError, ModelError

TOLERANCE = 1e-5
LONGEST = 64  # tokens that a tiny encoder reads


def slow_summaries(folder, texts: list[str]) -> dict[str, np.ndarray]:
    """Reduce the plain model's hidden states token by token, one sentence at a time.

    A sentence alone has no padding, so its positions are those the model was made for. That is
    the oracle on either padding side: what stands beside a sentence must not change it.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found = {name: [] for name in ("cls", "mean", "max", "last_token", "last_tokens", "counts")}
    for text in texts:
        features = tokenizer([text], return_tensors="pt", truncation=True, max_length=LONGEST)
        if "token_type_ids" not in tokenizer.model_input_names:
            features.pop("token_type_ids", None)
        with torch.inference_mode():
            output = model(**features, output_hidden_states=True)
        states = [state[0].double().numpy() for state in output.hidden_states]  # S of (T, D)
        means = []
        for state in states:
            total = np.zeros(state.shape[1])
            for token in state:
                total = total + token
            means.append(total / len(state))
        largest = states[-1][0].copy()
        for token in states[-1]:
            largest = np.where(token > largest, token, largest)
        found["cls"].append([state[0] for state in states])
        found["mean"].append(means)
        found["max"].append(largest)
        found["last_token"].append(states[-1][-1])
        found["last_tokens"].append([state[-1] for state in states])
        found["counts"].append(features["input_ids"].shape[1])
    return {name: np.array(values) for name, values in found.items()}


def assert_same(bank: LayerBank, expected: dict[str, np.ndarray], rows=slice(None)) -> None:
    for name in ("cls", "mean", "max", "last_token"):
        difference = np.abs(getattr(bank, name) - expected[name][rows]).max()
        assert difference <= TOLERANCE, f"{name} is off by {difference}"
    assert bank.token_counts.tolist() == expected["counts"][rows].tolist()
    if bank.last_tokens is not None:
        assert np.abs(bank.last_tokens - expected["last_tokens"][rows]).max() <= TOLERANCE


@pytest.fixture(scope="session")
def texts(sentences) -> list[str]:
    """Sentences of 3 to 64 tokens: distinct lengths, equal lengths, and one that is cut."""
    long = " ".join(sentences[:4])
    return ["a", "The glass.", *sentences[:5], long, f"{long} {long} {long}", *sentences[30:33]]


@pytest.fixture(scope="session")
def expected_of(make_encoder, texts):
    """Return a function from an architecture to its slow summaries of `texts`, computed once."""
    computed: dict[str, dict[str, np.ndarray]] = {}

    def expected(architecture: str) -> dict[str, np.ndarray]:
        if architecture not in computed:
            computed[architecture] = slow_summaries(make_encoder(architecture), texts)
        return computed[architecture]

    return expected


# --- every architecture --------------------------------------------------------------------------


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_equals_plain_transformers_in_any_batch(
    architecture, padding_side, make_encoder, expected_of, texts
):
    """`padding_side` is what the folder's tokenizer says; bank and `encode` pad right anyhow.

    On the left, absolute positions would shift with the batch; the oracle is each sentence alone.
    """
    folder = make_encoder(architecture, padding_side)
    assert AutoTokenizer.from_pretrained(folder).padding_side == padding_side
    model = lwap.load(str(folder), device="cpu")
    expected = expected_of(architecture)
    assert expected["counts"].max() == LONGEST  # the text that is cut fills the encoder
    for batch_tokens in (1, 7, 64, 4096):
        assert_same(encode_layers(model, texts, batch_tokens=batch_tokens), expected)
    assert np.abs(model.encode(texts) - expected["mean"][:, -1]).max() <= TOLERANCE


def test_order_and_duplicates_are_irrelevant(architecture, make_encoder, expected_of, texts):
    model = lwap.load(str(make_encoder(architecture)), device="cpu")
    rows = [*range(len(texts)), *range(len(texts)), 3, 3]
    random.Random(0).shuffle(rows)
    bank = encode_layers(model, [texts[row] for row in rows], batch_tokens=100)
    assert bank.texts == tuple(texts[row] for row in rows)
    assert_same(bank, expected_of(architecture), rows)


def test_only_causal_decoders_have_last_tokens(architecture, make_encoder, texts):
    model = lwap.load(str(make_encoder(architecture)), device="cpu")
    bank = encode_layers(model, texts[:2])
    is_causal = architecture in {"qwen3", "llama", "gpt2"}
    assert (bank.last_tokens is not None) == is_causal
    assert bank.query_name == ("last token" if is_causal else "CLS")
    assert bank.query is (bank.last_tokens if is_causal else bank.cls)
    assert (bank.num_states, bank.dimension) == bank.cls.shape[1:] == (4, 32)
    assert bank.state_names == ["embeddings", "layer 1", "layer 2", "layer 3"]


# --- batches -------------------------------------------------------------------------------------


def test_equal_lengths_need_no_padding(tiny_model, tiny_encoder_folder):
    texts = ["The pilot read.", "The doctor sued.", "Trout read water."]
    expected = slow_summaries(tiny_encoder_folder, texts)
    assert len(set(expected["counts"].tolist())) == 1
    assert_same(encode_layers(tiny_model, texts), expected)


def test_one_sentence(tiny_model, tiny_encoder_folder):
    bank = encode_layers(tiny_model, ["The bridge is safe."])
    assert len(bank) == 1
    assert_same(bank, slow_summaries(tiny_encoder_folder, ["The bridge is safe."]))


@pytest.mark.parametrize("container", [tuple, iter, np.array, pd.Series])
def test_any_container_of_sentences(tiny_model, container, texts):
    bank = encode_layers(tiny_model, container(texts))
    assert np.array_equal(bank.mean, encode_layers(tiny_model, texts).mean)


def test_distinct_sentences_are_encoded_once(tiny_model, texts, encoded, read_as):
    encode_layers(tiny_model, [*texts, *texts, texts[0]], batch_tokens=50)
    assert encoded == read_as(texts)


def test_batches_keep_to_the_budget_unless_one_sentence_is_longer(model, texts):
    shapes = []
    model[0].register_forward_pre_hook(
        lambda module, inputs: shapes.append(tuple(inputs[0]["input_ids"].shape))
    )
    encode_layers(model, texts, batch_tokens=40)
    assert all(rows * width <= 40 or rows == 1 for rows, width in shapes)
    assert [width for _, width in shapes] == sorted((w for _, w in shapes), reverse=True)


def test_progress_reaches_the_end(tiny_model, texts):
    calls = []
    encode_layers(
        tiny_model,
        [*texts, texts[0]],
        batch_tokens=40,
        progress=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert done == sorted(set(done))
    assert calls[-1] == (len(texts), len(texts))
    assert {total for _, total in calls} == {len(texts)}


def test_leaves_the_model_as_it_was(tiny_encoder_folder):
    model = lwap.load(str(tiny_encoder_folder), device="cpu").train()
    first = encode_layers(model, ["The bridge is safe."]).mean
    assert model.training and model[0].training and model[0].model.training
    assert np.array_equal(first, encode_layers(model.eval(), ["The bridge is safe."]).mean)
    assert not model[0].model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_threads_that_share_a_model_get_what_one_thread_gets(tiny_lwap_model, sentences):
    """Other threads call `encode`, which pads: a fast tokenizer keeps that as its own state."""
    portions = [sentences[start : start + 8] for start in range(0, 32, 4)] * 4
    banks = [encode_layers(tiny_lwap_model, portion) for portion in portions]
    vectors = [tiny_lwap_model.encode(portion) for portion in portions]

    def work(place: int):
        if place % 2:
            return encode_layers(tiny_lwap_model, portions[place])
        return tiny_lwap_model.encode(portions[place])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(len(portions))))
    for place, result in enumerate(found):
        if place % 2:
            for name in ("cls", "mean", "max", "last_token", "token_counts"):
                assert np.array_equal(getattr(result, name), getattr(banks[place], name))
        else:
            assert np.array_equal(result, vectors[place])


# --- summaries, precision ------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [["cls"], ["mean"], ["mean", "max"], ["cls", "last_token"]])
def test_keeps_only_the_summaries_that_are_asked_for(tiny_model, texts, kept):
    bank, whole = encode_layers(tiny_model, texts, summaries=kept), encode_layers(tiny_model, texts)
    for name in ("cls", "mean", "max", "last_token"):
        if name in kept:
            assert np.array_equal(getattr(bank, name), getattr(whole, name))
        else:
            assert getattr(bank, name) is None
    assert (bank.num_states, bank.dimension) == (4, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"summaries": ["median"]}, "summaries is 'median'; it must be one of 'cls', 'mean'"),
        ({"summaries": ["max"]}, r"summaries is \['max'\]; it needs 'cls' or 'mean'"),
        ({"summaries": []}, r"summaries is \[\]; it needs 'cls' or 'mean'"),
        ({"precision": "fp16"}, "precision is 'fp16'; it must be one of 'fp32', 'bf16', 'auto'"),
        ({"batch_tokens": 0}, "batch_tokens is 0; it must be at least 1"),
    ],
)
def test_refuses_a_setting(tiny_model, options, message):
    with pytest.raises(ConfigError, match=message):
        encode_layers(tiny_model, ["The bridge is safe."], **options)


def test_bf16_is_close_and_leaves_the_model_in_fp32(tiny_model, texts):
    exact, rough = (encode_layers(tiny_model, texts, precision=name) for name in ("fp32", "bf16"))
    assert rough.mean.dtype == np.float32
    assert 0 < np.abs(rough.mean - exact.mean).max() < 0.1
    assert {parameter.dtype for parameter in tiny_model.parameters()} == {torch.float32}


def test_auto_asks_the_hardware(tiny_model, texts, monkeypatch):
    banks = {name: encode_layers(tiny_model, texts, precision=name) for name in ("fp32", "bf16")}
    for is_native, same in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda yes=is_native: {"bf16": yes})
        found = encode_layers(tiny_model, texts, precision="auto")
        assert np.array_equal(found.mean, banks[same].mean)


# --- the bundled encoder against sentence-transformers --------------------------------------------


def row_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / lengths


@pytest.fixture(scope="session")
def stock_model() -> SentenceTransformer:
    return SentenceTransformer(str(bundled_folder()), device="cpu")


@pytest.fixture(scope="session")
def many_texts(sentences) -> list[str]:
    """A few hundred sentences of assets/."""
    pairs = read_pairs(os.path.join(os.path.dirname(__file__), "../../assets/pairs.csv"))
    return list(dict.fromkeys([*sentences, *pairs["sentence1"], *pairs["sentence2"]]))


@pytest.mark.slow
def test_mean_of_the_bundled_encoder_equals_sentence_transformers(
    bundled_model, stock_model, many_texts
):
    assert len(many_texts) >= 200
    bank = encode_layers(bundled_model, many_texts)
    stock = stock_model.encode(many_texts)
    assert row_cosines(bank.mean[:, -1], stock).min() >= 0.999999
    assert (bank.num_states, bank.dimension) == (7, 384)
    assert not bank.is_truncated.any()
    if has_native_bfloat16("cpu"):
        fast = encode_layers(bundled_model, many_texts, precision="auto")
        assert not np.array_equal(fast.mean, bank.mean)
        assert row_cosines(fast.mean[:, -1], stock).min() >= 0.999


@pytest.mark.shared_data
@pytest.mark.slow
def test_mean_of_the_bundled_encoder_on_sts_sentences(bundled_model, stock_model):
    file = data_folder() / "sts" / "sts14.csv"
    if not file.is_file():
        pytest.skip(f"{file.name} is not there; LWAP_DATA names the data folder")
    pairs = read_pairs(file)
    texts = list(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))[::40]
    assert len(texts) > 100
    stock = stock_model.encode(texts)
    bank = encode_layers(bundled_model, texts, summaries=["mean"])
    assert row_cosines(bank.mean[:, -1], stock).min() >= 0.999999
    if has_native_bfloat16("cpu"):
        fast = encode_layers(bundled_model, texts, summaries=["mean"], precision="auto")
        assert row_cosines(fast.mean[:, -1], stock).min() >= 0.999


# --- what people write ---------------------------------------------------------------------------


def test_a_text_of_ten_thousand_words_is_cut_and_says_so(tiny_model, sentences):
    long = "water " * 10_000
    exact = " ".join(["water"] * (LONGEST - 2))
    bank = encode_layers(tiny_model, [sentences[0], long, exact, f"{exact} water"])
    assert bank.max_tokens == LONGEST
    assert bank.is_truncated.tolist() == [False, True, False, True]
    assert bank.token_counts.tolist() == [bank.token_counts[0], LONGEST, LONGEST, LONGEST]
    assert np.array_equal(bank.mean[1], bank.mean[2])


def test_a_limit_set_by_hand_is_kept(tiny_encoder_folder, sentences):
    model = lwap.load(str(tiny_encoder_folder), device="cpu")
    model.max_seq_length = 5
    bank = encode_layers(model, sentences[:3])
    assert bank.max_tokens == 5
    assert bank.token_counts.tolist() == [5, 5, 5]
    assert bank.is_truncated.all()


@pytest.mark.parametrize(
    "text",
    [
        "🙂",
        "👩‍👩‍👧‍👦 🏳️‍🌈",
        "שלום עולם",
        "مرحبا بالعالم",
        "日本語の文",
        "a\u200bb",
        "\u200b",
        "e\u0301",
        "a\0b",
        "\ufeffa",
    ],
)
def test_any_script_is_encoded(bundled_model, text):
    bank = encode_layers(bundled_model, ["The bridge is safe.", text])
    assert np.isfinite(bank.mean).all()
    alone = encode_layers(bundled_model, [text])
    assert np.abs(alone.mean[0] - bank.mean[1]).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "No sentences were given"),
        ("One string.", r"Expected a list of sentences, got one string \('One string.'\)"),
        (["a", ""], r"Sentence 2 of 2 is empty \(''\)"),
        (["a", "b", " \t\n\u00a0"], "Sentence 3 of 3 is empty"),
        (["a", None, "b"], "Sentence 2 of 3 is None, not text"),
        ([float("nan")], "Sentence 1 of 1 is nan, not text"),
        (["a", b"b"], "Sentence 2 of 2 is b'b', not text"),
        (["a", "b \ud83d c"], r"Sentence 2 of 2 holds half a character, a lone surrogate"),
    ],
)
def test_refuses_texts_and_names_the_place(tiny_model, texts, message):
    with pytest.raises(InputError, match=message):
        encode_layers(tiny_model, texts)


def test_refuses_a_text_without_tokens(make_encoder):
    model = lwap.load(str(make_encoder("bert")), device="cpu")
    model.tokenizer.backend_tokenizer.post_processor = None  # no [CLS], no [SEP]
    with pytest.raises(InputError, match=r"'\\u200b' has no token in this encoder's vocabulary"):
        encode_layers(model, ["The bridge.", "\u200b"])


# --- models --------------------------------------------------------------------------------------


def test_the_default_prompt_is_put_before_each_sentence_as_encode_does(tiny_encoder_folder, texts):
    model = lwap.load(str(tiny_encoder_folder), device="cpu")
    model.prompts, model.default_prompt_name = {"query": "the pilot: "}, "query"
    bank = encode_layers(model, texts)
    assert bank.texts == tuple(texts)
    assert np.abs(bank.mean[:, -1] - model.encode(texts)).max() <= TOLERANCE
    model.default_prompt_name = None
    assert np.abs(bank.mean[:, -1] - model.encode(texts)).max() > 0.01
    assert default_prompt(model) == ""


def test_refuses_a_prompt_that_the_pooling_leaves_out(tiny_encoder_folder):
    model = lwap.load(str(tiny_encoder_folder), device="cpu")
    model.prompts, model.default_prompt_name = {"query": "the pilot: "}, "query"
    model.set_pooling_include_prompt(False)
    with pytest.raises(ModelError, match=r"puts the prompt 'the pilot: ' before each sentence"):
        encode_layers(model, ["The bridge."])


def test_lower_cases_where_the_transformer_does(tiny_encoder_folder):
    model = lwap.load(str(tiny_encoder_folder), device="cpu")
    model.tokenizer.backend_tokenizer.normalizer = None
    small, big = encode_layers(model, ["the bridge", "THE BRIDGE"]).mean
    assert not np.array_equal(small, big)
    model[0].do_lower_case = True
    small, big = encode_layers(model, ["the bridge", "THE BRIDGE"]).mean
    assert np.array_equal(small, big)


def test_stock_sentence_transformers_are_read_too(tiny_model, tiny_encoder_folder, texts):
    from sentence_transformers.base.modules import Transformer

    transformer = Transformer(str(tiny_encoder_folder))
    stock = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    bank = encode_layers(stock, texts)
    assert np.array_equal(bank.mean, encode_layers(tiny_model, texts).mean)
    assert bank.encoder == "BertModel"
    assert layerwise_transformer(stock).model is transformer.model
    assert np.abs(bank.mean[:, -1] - stock.encode(texts)).max() <= TOLERANCE


def test_refuses_a_model_without_a_transformer():
    model = SentenceTransformer(modules=[BoW(["bridge", "safe"]), Normalize()], device="cpu")
    with pytest.raises(ModelError, match="The model starts with BoW; layers can be read from a"):
        encode_layers(model, ["The bridge."])


def test_heads_and_name_come_with_the_bank(tiny_model, tiny_lwap_model, tiny_encoder_folder):
    bank = encode_layers(tiny_lwap_model, ["The bridge."])
    assert bank.heads == {"lwap": tiny_lwap_model[1]} == model_heads(tiny_lwap_model)
    assert bank.encoder == str(tiny_encoder_folder)
    assert encode_layers(tiny_model, ["The bridge."]).heads == {}
    assert model_heads(tiny_model[0]) == {}


# --- select, disk --------------------------------------------------------------------------------


def test_select_takes_rows_in_order_and_masks(tiny_lwap_model, texts):
    bank = encode_layers(tiny_lwap_model, texts)
    rows = [4, 0, 4, -1]
    chosen = bank.select(rows)
    assert chosen.texts == tuple(texts[row] for row in rows)
    for name in ("cls", "mean", "max", "last_token", "token_counts", "is_truncated"):
        assert np.array_equal(getattr(chosen, name), getattr(bank, name)[rows])
    assert chosen.last_tokens is None
    assert chosen.heads == bank.heads
    assert bank.select(bank.is_truncated).texts == (texts[8],)
    assert bank.select(np.arange(3)).texts == tuple(texts[:3])
    assert len(bank.select([])) == 0


def test_a_bank_on_disk_opens_as_it_was_written(make_encoder, texts, tmp_path):
    model = lwap.load(str(make_encoder("gpt2")), device="cpu")
    folder = tmp_path / "new" / "bank"
    written = encode_layers(model, [*texts, "ünïcode 🙂"], directory=folder, batch_tokens=40)
    memory = encode_layers(model, [*texts, "ünïcode 🙂"])
    opened = LayerBank.open(folder)
    for name in ("cls", "mean", "max", "last_token", "last_tokens"):
        assert isinstance(getattr(opened, name), np.memmap)
        assert np.array_equal(getattr(opened, name), getattr(written, name))
        assert np.abs(getattr(opened, name) - getattr(memory, name)).max() <= TOLERANCE
        with pytest.raises(ValueError, match="read-only"):
            getattr(opened, name)[0] = 0
    assert opened.texts == memory.texts
    assert np.array_equal(opened.token_counts, memory.token_counts)
    assert np.array_equal(opened.is_truncated, memory.is_truncated)
    assert (opened.max_tokens, opened.encoder) == (memory.max_tokens, memory.encoder)
    assert opened.heads == {}
    assert np.array_equal(lwap.embed(opened, "all_mean"), lwap.embed(written, "all_mean"))
    assert opened.select([1]).mean.shape == (1, 4, 32)


def test_writing_fewer_summaries_over_a_bank_drops_the_others(tiny_model, texts, tmp_path):
    encode_layers(tiny_model, texts, directory=tmp_path)
    encode_layers(tiny_model, texts[:2], summaries=["mean"], directory=tmp_path)
    opened = LayerBank.open(tmp_path)
    assert opened.mean.shape[0] == len(opened) == 2
    assert opened.cls is opened.max is opened.last_token is None


def test_an_unfinished_bank_does_not_open(tiny_model, texts, tmp_path):
    encode_layers(tiny_model, texts, directory=tmp_path)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_layers(tiny_model, texts, directory=tmp_path, progress=stop)
    with pytest.raises(InputError, match=r"holds no complete bank \(.*bank.json"):
        LayerBank.open(tmp_path)


@pytest.mark.parametrize(
    ("damage"),
    [
        lambda folder: (folder / "mean.npy").unlink(),
        lambda folder: (folder / "mean.npy").write_bytes((folder / "mean.npy").read_bytes()[:-9]),
        lambda folder: (folder / "mean.npy").write_bytes(b"not an array"),
        lambda folder: (folder / "mean.npy").write_bytes(b""),
        lambda folder: (folder / "bank.json").write_text("{"),
        lambda folder: (folder / "bank.json").write_text("[]"),
        lambda folder: (folder / "bank.json").write_text("{}"),
        lambda folder: (folder / "bank.json").write_bytes(b"\xff\xfe"),
        lambda folder: drop_a_text(folder / "bank.json"),
    ],
)
def test_a_damaged_bank_does_not_open(tiny_model, texts, tmp_path, damage):
    encode_layers(tiny_model, texts, directory=tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=r"holds no complete bank \(.*\)\. Write it again with"):
        LayerBank.open(tmp_path)


def drop_a_text(file) -> None:
    facts = json.loads(file.read_text("utf-8"))
    facts["texts"].pop()
    file.write_text(json.dumps(facts), "utf-8")


def test_a_folder_that_is_none_does_not_open(tmp_path):
    with pytest.raises(InputError, match="holds no complete bank"):
        LayerBank.open(tmp_path / "nowhere")
