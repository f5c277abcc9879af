"""Summaries kept by content against the plain bank; what is encoded, and how often."""

import copy
import errno
import itertools
import json
import shutil
import string
from dataclasses import replace

import numpy as np
import pytest
import torch

import lwap
from lwap.encoding import diskcache, store
from lwap.encoding.bank import LayerBank, Summary, encode_layers
from lwap.encoding.diskcache import SUFFIX, DiskCache
from lwap.encoding.store import LayerStore, encoder_key
from lwap.errors import ConfigError, InputError
from lwap.pooling.strategies import embed

ARRAYS = ("cls", "mean", "max", "last_token", "last_tokens")
TOLERANCE = 2e-6  # other batches, other rounding


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path / "cache", limit_bytes=10**9)


@pytest.fixture(scope="session")
def texts(sentences) -> list[str]:
    """Twelve distinct sentences, the last one cut by the encoder's limit."""
    return [*sentences[:11], " ".join(sentences[:12])]


@pytest.fixture(scope="session")
def expected(tiny_model, texts) -> LayerBank:
    return encode_layers(tiny_model, texts)


def assert_same(found: LayerBank, expected: LayerBank, tolerance: float = TOLERANCE) -> None:
    for name in ARRAYS:
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
            assert np.abs(mine - theirs).max() <= tolerance, name
    for name in ("texts", "max_tokens", "encoder"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.token_counts.tolist() == expected.token_counts.tolist()
    assert found.is_truncated.tolist() == expected.is_truncated.tolist()


def fill(kept: LayerStore, texts: list[str]) -> None:
    """Have sentences kept in three shards."""
    for start in (0, 5, 10):
        kept.bank(texts[start : start + 5])


def shards(cache: DiskCache) -> list:
    return sorted(cache.folder.glob(f"banks/*/*{SUFFIX}"))


# --- the same bank ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_bank_is_that_of_one_pass_in_any_order(
    tiny_model, texts, cache, encoded, read_as, expected, is_kept
):
    kept = LayerStore(tiny_model, cache=cache if is_kept else None)
    rows = [11, 3, 3, 0, 7, 11, 1, 2, 4, 5, 6, 8, 9, 10, 3]
    asked = [texts[row] for row in rows]
    fill(kept, texts)
    for _ in range(2):
        assert_same(kept.bank(asked), expected.select(rows))
        assert_same(kept.bank(asked[::-1]), expected.select(rows[::-1]))
    assert encoded == read_as(texts)
    assert len(shards(cache)) == (3 if is_kept else 0)


def test_what_is_kept_comes_back_to_the_last_bit(tiny_model, texts, cache, encoded, expected):
    first = LayerStore(tiny_model, cache=cache).bank(texts)
    assert_same(first, expected)
    encoded.clear()
    again = LayerStore(tiny_model, cache=cache)
    assert again.missing(texts) == []
    assert_same(again.bank(texts), first, tolerance=0)
    assert not encoded


def test_only_new_sentences_are_encoded(tiny_model, texts, cache, encoded, read_as, expected):
    LayerStore(tiny_model, cache=cache).bank(texts[:4])
    encoded.clear()
    kept = LayerStore(tiny_model, cache=cache)
    assert kept.missing([texts[5], texts[0], texts[5], texts[4]]) == [texts[5], texts[4]]
    assert_same(kept.bank(texts), expected)
    assert encoded == read_as(texts[4:])


def test_heads_are_those_of_the_given_model(
    tiny_model, tiny_lwap_model, texts, cache, encoded, expected
):
    LayerStore(tiny_model, cache=cache).bank(texts)
    encoded.clear()
    other = copy.deepcopy(tiny_lwap_model)
    for parameter in other[1].parameters():
        torch.nn.init.constant_(parameter, 0.1)
    vectors = []
    for model in (tiny_lwap_model, other):
        bank = LayerStore(model, cache=cache).bank(texts)
        assert bank.heads == {"lwap": model[1]}
        vectors.append(embed(bank, "lwap"))
        plain = embed(replace(expected, heads=bank.heads), "lwap")
        assert np.abs(vectors[-1] - plain).max() <= TOLERANCE
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    assert LayerStore(tiny_model, cache=cache).bank(texts).heads == {}
    assert not encoded


@pytest.mark.parametrize("cache_of", [lambda cache: cache, lambda cache: None])
def test_stores_that_are_joined_encode_a_sentence_once(
    tiny_model, tiny_lwap_model, texts, cache, encoded, expected, cache_of
):
    first = LayerStore(tiny_model, cache=cache_of(cache))
    second = LayerStore(tiny_lwap_model, cache=cache_of(cache))
    second.join(first)
    first.bank(texts[:7])
    assert second.missing(texts) == texts[7:]
    assert second.bank(texts).heads
    assert_same(first.bank(texts), expected)
    assert set(encoded.values()) == {1}


def test_a_causal_decoder_keeps_its_last_tokens(make_encoder, texts, cache, encoded, read_as):
    model = lwap.load(str(make_encoder("gpt2")), device="cpu")
    LayerStore(model, cache=cache).bank(texts)
    bank = LayerStore(model, cache=cache).bank(texts)
    assert encoded == read_as(texts)
    assert_same(bank, encode_layers(model, texts))
    assert bank.query is bank.last_tokens


@pytest.mark.parametrize("summaries", [["mean"], [Summary.CLS, Summary.MAX], ["last_token"], []])
def test_a_bank_holds_what_is_asked_for_and_the_store_everything(
    tiny_model, texts, cache, encoded, expected, summaries
):
    bank = LayerStore(tiny_model, cache=cache).bank(texts, summaries=summaries)
    assert [name for name in ARRAYS if getattr(bank, name) is not None] == summaries
    assert bank.is_truncated.tolist() == expected.is_truncated.tolist()
    assert_same(LayerStore(tiny_model, cache=cache).bank(texts), expected)
    assert set(encoded.values()) == {1}


def test_progress_counts_what_is_encoded(tiny_model, texts):
    calls = []
    kept = LayerStore(tiny_model)
    kept.bank([*texts, *texts], progress=lambda *call: calls.append(call))
    assert [total for _, total in calls] == [12] * len(calls)
    done = [done for done, _ in calls]
    assert done == sorted(set(done))
    assert done[-1] == 12
    calls.clear()
    kept.bank(texts, progress=lambda *call: calls.append(call))
    assert calls == []
    kept.bank([texts[0], "A new one."], progress=lambda *call: calls.append(call))
    assert calls == [(1, 1)]


def test_more_sentences_than_a_shard_holds(make_encoder, cache, encoded, read_as):
    tiniest = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    model = lwap.load(str(make_encoder("bert", **tiniest)), device="cpu")
    letters = string.ascii_lowercase
    texts = [" ".join(some) for some in itertools.product("abcdefg", letters, letters)][:4100]
    calls = []
    kept = LayerStore(model, cache=cache)
    bank = kept.bank(texts, progress=lambda *call: calls.append(call))
    assert encoded == read_as(texts)
    assert len(shards(cache)) == 2
    done, totals = zip(*calls, strict=True)
    assert set(totals) == {4100}
    assert list(done) == sorted(set(done))
    assert {4096, 4100} <= set(done)
    assert_same(bank, encode_layers(model, texts))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "No sentences were given"),
        (["a", " "], "Sentence 2 of 2 is empty"),
        (["a", None], "Sentence 2 of 2 is None, not text"),
        (["a", "b \ud83d c"], "Sentence 2 of 2 holds half a character"),
    ],
)
def test_refuses_texts_as_the_bank_does(tiny_model, cache, asked, message):
    with pytest.raises(InputError, match=message):
        LayerStore(tiny_model, cache=cache).bank(asked)
    assert shards(cache) == []


def test_half_a_character_is_missing_until_it_is_refused(tiny_model):
    assert LayerStore(tiny_model).missing(["\ud83d", "a"]) == ["\ud83d", "a"]


# --- the key ------------------------------------------------------------------------------------


def change_a_weight(model) -> None:
    with torch.no_grad():
        list(model[0].model.parameters())[-1][0] += 1e-6


def change_the_prompt(model) -> None:
    model.prompts, model.default_prompt_name = {"query": "the pilot: "}, "query"


def change_the_normalizer(model) -> None:
    model.tokenizer.backend_tokenizer.normalizer = None


CHANGES = {
    "weight": change_a_weight,
    "prompt": change_the_prompt,
    "normalizer": change_the_normalizer,
    "casing": lambda model: setattr(model[0], "do_lower_case", True),
    "longest input": lambda model: setattr(model, "max_seq_length", 7),
    "side that is cut": lambda model: setattr(model.tokenizer, "truncation_side", "left"),
    "a word": lambda model: model.tokenizer.add_tokens(["the pilot"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_summary_depends_on_changes_the_key(tiny_model, model, name):
    before = encoder_key(model, "fp32")
    assert before == encoder_key(tiny_model, "fp32")
    CHANGES[name](model)
    assert encoder_key(model, "fp32") != before


def test_another_precision_is_another_key(tiny_model):
    keys = {precision: encoder_key(tiny_model, precision) for precision in ("fp32", "bf16")}
    assert keys["fp32"] != keys["bf16"]
    assert {name: LayerStore(tiny_model, precision=name).key for name in keys} == keys
    assert LayerStore(tiny_model, precision="auto").key in keys.values()
    with pytest.raises(ConfigError, match="precision is 'fp64'"):
        LayerStore(tiny_model, precision="fp64")


def test_the_same_weights_under_another_configuration_are_another_encoder(
    make_encoder, texts, cache
):
    """Two attention heads or four: no tensor tells."""
    models = [
        lwap.load(str(make_encoder("bert", num_attention_heads=heads)), device="cpu")
        for heads in (2, 4)
    ]
    states = [model[0].model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for model in models:
        kept = LayerStore(model, cache=cache)
        assert kept.missing(texts) == texts
        assert_same(kept.bank(texts), encode_layers(model, texts))


def test_use_does_not_change_the_key(tiny_encoder_folder, tiny_lwap_model, texts, tmp_path):
    model = lwap.load(str(tiny_encoder_folder), device="cpu")
    key = encoder_key(model, "fp32")
    model.tokenizer(texts, padding="max_length", truncation=True, max_length=9)
    assert encoder_key(model, "fp32") == key
    model.encode(texts)
    model.tokenizer(texts, padding=False, truncation=False)
    encode_layers(model, texts)
    model.train()
    assert encoder_key(model, "fp32") == key
    # Nor does a head, or the place where the encoder lies.
    assert encoder_key(tiny_lwap_model, "fp32") == key
    moved = shutil.copytree(tiny_encoder_folder, tmp_path / "moved")
    assert encoder_key(lwap.load(str(moved), device="cpu"), "fp32") == key


def test_a_key_is_the_same_in_a_copy_that_was_saved_again(tiny_model, tmp_path):
    tiny_model.save(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved/config.json").read_text("utf-8"))
    config["transformers_version"] = "4.0.0"
    (tmp_path / "saved/config.json").write_text(json.dumps(config), "utf-8")
    saved = lwap.load(str(tmp_path / "saved"), device="cpu")
    assert encoder_key(saved, "fp32") == encoder_key(tiny_model, "fp32")


# --- what may happen to a cache -----------------------------------------------------------------


@pytest.mark.parametrize("is_open", [True, False])
def test_a_damaged_shard_is_encoded_again(
    tiny_model, texts, cache, encoded, expected, is_open, monkeypatch
):
    monkeypatch.setattr(store, "AT_HAND", 0)  # or it is in memory, and nothing is read
    kept = LayerStore(tiny_model, cache=cache)
    fill(kept, texts)
    encoded.clear()
    place = shards(cache)[1]
    content = bytearray(place.read_bytes())
    start_of_arrays = 8 + int.from_bytes(content[:8], "little")
    content[start_of_arrays + 9 if is_open else 20] ^= 1
    place.write_bytes(content)
    if not is_open:
        kept = LayerStore(tiny_model, cache=cache)
        assert len(kept.missing(texts)) in (2, 5)
    assert_same(kept.bank(texts), expected)
    assert set(encoded.values()) == {1}
    assert len(encoded) in (2, 5)  # of one shard
    assert len(cache.notes) == 1
    assert f"is made again: banks/{kept.key}/{place.name.removesuffix(SUFFIX)}" in cache.notes[0]
    encoded.clear()
    assert_same(LayerStore(tiny_model, cache=cache).bank(texts), expected)
    assert not encoded


def test_a_folder_that_is_deleted_meanwhile_is_filled_again(
    tiny_model, texts, cache, encoded, expected, monkeypatch
):
    monkeypatch.setattr(store, "AT_HAND", 0)
    kept = LayerStore(tiny_model, cache=cache)
    kept.bank(texts)
    shutil.rmtree(cache.folder)
    assert_same(kept.bank(texts), expected)
    assert set(encoded.values()) == {2}
    assert_same(LayerStore(tiny_model, cache=cache).bank(texts), expected)
    assert set(encoded.values()) == {2}
    assert cache.notes == []


def test_a_full_disk_leaves_the_results_in_memory(
    tiny_model, texts, cache, encoded, expected, monkeypatch
):
    kept = LayerStore(tiny_model, cache=cache)
    kept.bank(texts[:5])

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(diskcache, "save_file", refuse)
    for _ in range(2):
        assert_same(kept.bank(texts), expected)
    assert set(encoded.values()) == {1}
    assert len(shards(cache)) == 1
    (note,) = cache.notes
    assert "no space is left on the disk" in note


def test_memory_is_bounded_and_never_lets_go_what_is_being_read(
    tiny_model, texts, encoded, read_as, expected, monkeypatch
):
    monkeypatch.setattr(store, "MEMORY", 10_000)  # five sentences have 6,505 bytes
    kept = LayerStore(tiny_model)
    fill(kept, texts)
    assert kept.missing(texts) == texts[:5]  # the latest stay
    assert_same(kept.bank(texts), expected)
    assert encoded == read_as([*texts, *texts[:5]])
    assert kept.missing(texts) == texts[5:10]
    encoded.clear()
    assert_same(kept.bank(texts[5:]), expected.select(list(range(5, 12))))
    assert encoded == read_as(texts[5:10])


def test_without_a_disk_more_than_the_memory_is_not_kept(
    tiny_model, texts, encoded, read_as, expected, monkeypatch
):
    monkeypatch.setattr(store, "MEMORY", 10_000)  # 12 sentences have more
    kept = LayerStore(tiny_model)
    assert_same(kept.bank(texts), expected)
    assert encoded == read_as(texts)
    assert kept.missing(texts) == texts


def test_entries_that_are_removed_as_fast_as_they_are_written_are_no_error(
    tiny_model, texts, cache, expected
):
    kept = LayerStore(tiny_model, cache=cache)
    kept.bank(texts[:5])
    cache.limit_bytes = int(1.5 * shards(cache)[0].stat().st_size)
    assert_same(kept.bank(texts), expected)
    means = encode_layers(tiny_model, texts, summaries=["mean"])
    assert_same(kept.bank(texts, summaries=["mean"]), means)
    assert kept.bank(texts, summaries=[]).is_truncated.tolist() == expected.is_truncated.tolist()
    assert sum(shard.stat().st_size for shard in shards(cache)) <= cache.limit_bytes


def test_two_stores_may_fill_one_cache_at_the_same_time(tiny_model, texts, cache, expected):
    first, second = (LayerStore(tiny_model, cache=cache) for _ in range(2))
    assert_same(first.bank(texts), expected)
    assert_same(second.bank(texts), expected)
    assert len(shards(cache)) == 1  # the same sentences in the same order are the same file
    assert_same(second.bank(texts[::-1]), encode_layers(tiny_model, texts[::-1]))
