"""Vectors and cosines of a model by name: the same as by hand, and loaded only when it must be."""

import copy
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lwap.analysis.comparison import compare
from lwap.analysis.explanation import explain
from lwap.checkpoints import cached as source_module
from lwap.checkpoints import load as checkpoints
from lwap.checkpoints.cached import CachedModel, WhitenOn
from lwap.checkpoints.manifest import model_fingerprint
from lwap.checkpoints.save import save_checkpoint
from lwap.encoding.bank import encode_layers
from lwap.encoding.diskcache import SUFFIX, DiskCache
from lwap.encoding.sources import BUNDLED
from lwap.errors import CheckpointError, ConfigError, InputError, ModelError, StrategyError
from lwap.evaluation.benchmark import evaluate_sts
from lwap.evaluation.tasks import Task
from lwap.pooling.strategies import embed, fit_whitening, strategies
from lwap.scores import cosine

TOLERANCE = 2e-6  # other batches, other rounding


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path / "cache", limit_bytes=10**9)


@pytest.fixture(scope="session")
def pairs(sentences) -> tuple[list[str], list[str]]:
    """Nine pairs of ten sentences; every sentence but two stands in two of them."""
    return sentences[:9], sentences[1:10]


@pytest.fixture(scope="session")
def corpus(sentences) -> WhitenOn:
    """More sentences than a tiny encoder has dimensions; the first two are in the pairs."""
    texts = [f"{a} {b}" for a, b in pairwise(sentences)]
    return WhitenOn("own.txt", (*sentences[:2], *texts, texts[0]))


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """The names of the models that were loaded."""
    names, load = [], checkpoints.load

    def spy(name, **options):
        names.append(name)
        return load(name, **options)

    monkeypatch.setattr(checkpoints, "load", spy)
    return names


def named(folder, cache=None, **options) -> CachedModel:
    return CachedModel(str(folder), device="cpu", cache=cache, **options)


# --- cosines ------------------------------------------------------------------------------------


def test_cosines_are_those_of_compare(tiny_lwap_model, pairs):
    names = list(strategies(tiny_lwap_model))
    assert "lwap" in names and "layer_cls:0" in names
    found = CachedModel(tiny_lwap_model).cosines(*pairs, names)
    table = compare(tiny_lwap_model, list(zip(*pairs, strict=True)), names)
    assert (found.shape, found.dtype) == ((len(names), 9), np.float64)
    assert np.abs(found - table[names].to_numpy().T).max() <= TOLERANCE


def test_more_pairs_than_are_in_memory_at_once(tiny_lwap_model, sentences):
    first, second = np.random.default_rng(0).integers(0, 12, size=(2, 2100))
    every = np.array(
        CachedModel(tiny_lwap_model).cosines(
            [text for text in sentences[:12] for _ in range(12)], sentences[:12] * 12, ["lwap"]
        )
    )
    calls = []
    found = CachedModel(tiny_lwap_model).cosines(
        [sentences[row] for row in first],
        [sentences[row] for row in second],
        ["lwap"],
        progress=lambda *call: calls.append(call),
    )
    assert np.abs(found - every[:, 12 * first + second]).max() <= TOLERANCE
    assert [total for _, total in calls] == [12] * len(calls)
    assert calls[-1] == (12, 12)


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_the_last_layer_alone_is_the_plain_pooling(make_encoder, pairs, cache, architecture):
    source = named(make_encoder(architecture), cache)
    names = ["layer_mean:3", "mean", "layer_cls:3", "cls", "mean", "layer_mean:2"]
    found = source.cosines(*pairs, names)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[1], found[4])
    assert np.array_equal(found[2], found[3])
    assert not np.allclose(found[0], found[5])
    assert len(cache.names(f"scores/{source.fingerprint}-fp32")) == 3
    again = named(make_encoder(architecture), cache)
    assert np.array_equal(again.cosines(*pairs, names[::-1]), found[::-1])


def test_a_second_run_loads_no_model(tiny_encoder_folder, pairs, cache, loaded):
    names = ["mean", "max", "layer_cls:1"]
    first = named(tiny_encoder_folder, cache)
    found = first.cosines(*pairs, names)
    assert loaded == [str(tiny_encoder_folder)]
    again = named(tiny_encoder_folder, cache)
    assert again.facts == first.facts
    assert again.missing(*pairs, [*names, "mean"]) == []
    assert np.array_equal(again.cosines(*pairs, names), found)
    assert np.array_equal(again.cosines(*pairs, ["max"]), found[[1]])
    assert len(loaded) == 1


def test_new_strategies_read_what_was_encoded_and_new_pairs_encode_the_rest(
    tiny_encoder_folder, pairs, cache, encoded, read_as
):
    first, second = pairs
    named(tiny_encoder_folder, cache).cosines(first[:5], second[:5], ["mean"])
    assert encoded == read_as(first[:6])
    source = named(tiny_encoder_folder, cache)
    assert source.missing(first, second, ["cls"]) == [*first[6:], second[-1]]
    expected = named(tiny_encoder_folder).cosines(first, second, ["cls", "mean"])
    encoded.clear()
    assert np.abs(source.cosines(first, second, ["cls", "mean"]) - expected).max() <= TOLERANCE
    assert encoded == read_as([*first[6:], second[-1]])


def test_the_same_pairs_in_another_order_are_other_pairs(tiny_encoder_folder, pairs, cache):
    first, second = pairs
    source = named(tiny_encoder_folder, cache)
    found = source.cosines(first, second, ["mean"])
    assert source.cosines(first[::-1], second[::-1], ["mean"])[0] == pytest.approx(found[0, ::-1])
    # Where one sentence ends and the next begins counts, too.
    split = source.cosines(["a b", "c"], ["d", "e"], ["mean"])
    assert not np.allclose(source.cosines(["a", "b c"], ["d", "e"], ["mean"]), split)


def test_a_model_may_be_loaded_by_its_caller(tiny_encoder_folder, tiny_model, pairs, loaded):
    source = CachedModel(tiny_model, name=str(tiny_encoder_folder))
    assert source.cosines(*pairs, ["mean"]).shape == (1, 9)
    assert source.model is tiny_model and source.facts.name == str(tiny_encoder_folder)
    assert loaded == []


def test_a_model_with_its_cache_is_taken_as_it_is(tiny_model, pairs, corpus, encoded):
    source = CachedModel(tiny_model)
    assert CachedModel.of(source) is source
    twin = CachedModel.of(source, whiten_on=corpus)
    assert twin is not source and twin.whiten_on is corpus and source.whiten_on is None
    source.cosines(*pairs, ["mean"])
    twin.cosines(*pairs, ["mean"])
    assert set(encoded.values()) == {1}  # what one has encoded, the other has as well
    with pytest.raises(ConfigError, match="precision cannot be given beside a CachedModel"):
        CachedModel.of(source, precision="fp32")


def test_progress_counts_each_sentence_once(tiny_lwap_model, pairs, cache):
    calls = []
    source = CachedModel(tiny_lwap_model, cache=cache)
    source.cosines(*pairs, ["mean", "lwap"], progress=lambda *call: calls.append(call))
    assert [total for _, total in calls] == [10] * len(calls)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (10, 10)
    calls.clear()
    source.cosines(*pairs, ["cls"], progress=lambda *call: calls.append(call))
    assert calls == []


def test_a_damaged_or_missing_score_is_computed_again(tiny_encoder_folder, pairs, cache, encoded):
    found = named(tiny_encoder_folder, cache).cosines(*pairs, ["mean", "cls"])
    encoded.clear()
    first, second = sorted(cache.folder.glob(f"scores/*/*{SUFFIX}"))
    first.write_bytes(first.read_bytes()[:-3])
    second.unlink()
    assert np.array_equal(named(tiny_encoder_folder, cache).cosines(*pairs, ["mean", "cls"]), found)
    assert not encoded
    assert len(cache.notes) == 1
    assert "is made again: scores/" in cache.notes[0]


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [10**9, 2 * 4 * 4100 * 32, 1])  # all, two at once, one
def test_vectors_are_those_of_a_bank(tiny_lwap_model, sentences, monkeypatch, in_memory):
    monkeypatch.setattr(source_module, "VECTOR_BYTES", in_memory)
    rows = [row % 11 for row in range(4100)]  # more than are in memory at once
    texts = [sentences[row] for row in rows]
    names = ["mean", "lwap", "layer_cls:2", "max", "first_last_mean"]
    bank = encode_layers(tiny_lwap_model, sentences[:11])
    calls = []
    source = CachedModel(tiny_lwap_model)
    found = dict(source.vectors(texts, names, progress=lambda *call: calls.append(call)))
    assert list(found) == names
    for name in names:
        assert (found[name].shape, found[name].dtype) == ((4100, 32), np.float32)
        assert np.abs(found[name] - embed(bank, name)[rows]).max() <= 10 * TOLERANCE
    assert calls[-1] == (11, 11)


def test_texts_that_are_cut_are_counted(tiny_model, sentences):
    long = " ".join(sentences[:12])
    texts = [long, *sentences[:5] * 820, long]  # more than are in memory at once
    assert CachedModel(tiny_model).truncated(texts) == (2, 64)


# --- whitening ----------------------------------------------------------------------------------


def test_whitening_is_fitted_on_the_corpus_without_what_is_scored(tiny_lwap_model, pairs, corpus):
    first, second = pairs
    source = CachedModel(tiny_lwap_model, whiten_on=corpus)
    names = ["mean+whiten", "mean", "layer_cls:1+whiten", "lwap+whiten"]
    found = source.cosines(first, second, names)
    fitted_on = encode_layers(tiny_lwap_model, list(corpus.sentences[2:-1]))
    scored = encode_layers(tiny_lwap_model, [*first, *second])
    for name, cosines in zip(names, found, strict=True):
        base = name.removesuffix("+whiten")
        whitening = fit_whitening(fitted_on, base, corpus="by hand")
        vectors = embed(scored, name, whitening=whitening)
        # Whitening divides by small variances, which makes more of rounding.
        assert cosines == pytest.approx(cosine(vectors[:9], vectors[9:]), abs=2e-3)
    assert not np.allclose(found[0], found[1], atol=0.01)
    vectors = dict(source.vectors([*first, *second], ["mean+whiten"]))["mean+whiten"]
    assert cosine(vectors[:9], vectors[9:]) == pytest.approx(found[0], abs=1e-6)


def test_the_note_on_shared_sentences_does_not_depend_on_the_cache(
    tiny_encoder_folder, pairs, corpus, cache, loaded
):
    for _ in range(2):
        source = named(tiny_encoder_folder, cache, whiten_on=corpus)
        source.cosines(*pairs, ["mean"])
        assert source.notes == []
        found = [source.cosines(*pairs, ["mean+whiten", "mean"]) for _ in range(2)]
        assert np.array_equal(*found)
        assert source.notes == [
            "2 sentences of 'own.txt' are also scored; the whitening was fitted without them."
        ]
    assert len(loaded) == 1
    # Another corpus gives other numbers, whatever it is called.
    other = named(tiny_encoder_folder, cache, whiten_on=WhitenOn("own.txt", corpus.sentences[4:]))
    assert not np.allclose(other.cosines(*pairs, ["mean+whiten"]), found[0][0], atol=0.001)
    assert other.notes == []


def test_a_corpus_that_is_too_small_is_an_error(tiny_model, pairs, sentences):
    for texts in (tuple(sentences[10:40]), tuple(pairs[0])):
        source = CachedModel(tiny_model, whiten_on=WhitenOn("small.txt", texts))
        with pytest.raises(StrategyError, match=r"more than 32 distinct sentences; 'small.txt'"):
            source.cosines(*pairs, ["mean+whiten"])


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mean", "median"], "has no strategy 'median'. It has cls, mean, .*layer_cls:3; each can"),
        (["lwap"], "has no strategy 'lwap'"),
        (["layer_mean:4"], "has no strategy 'layer_mean:4'"),
        (["layer_mean:03"], "has no strategy 'layer_mean:03'"),
        (["nope+whiten"], "has no strategy 'nope'"),
        (["mean+whiten"], "'mean.whiten' needs a corpus .* --whiten-on FILE"),
    ],
)
def test_refuses_strategies_that_the_model_cannot_give(tiny_model, pairs, names, message):
    source = CachedModel(tiny_model)
    for ask in (
        lambda: source.check(names),
        lambda: source.cosines(*pairs, names),
        lambda: next(source.vectors(pairs[0], names)),
    ):
        with pytest.raises(StrategyError, match=message):
            ask()


@pytest.mark.parametrize(
    ("text", "message"), [(" ", "is empty"), ("b \ud83d c", "holds half a character")]
)
def test_refuses_sentences_that_cannot_be_encoded(tiny_model, pairs, cache, text, message):
    source = CachedModel(tiny_model, cache=cache)
    assert source.missing(["a", text], ["b", "c"], ["mean"]) == ["a", text, "b", "c"]
    with pytest.raises(InputError, match=message):
        source.cosines(["a", text], ["b", "c"], ["mean"])


def test_refuses_models_and_settings_that_are_not_there(tmp_path, tiny_encoder_folder):
    with pytest.raises(ModelError, match="neither a folder here nor a well-formed hub id"):
        named(tmp_path / "nothing" / "here")
    with pytest.raises(ConfigError, match="precision is 'fp64'"):
        named(tiny_encoder_folder, precision="fp64")


# --- what a model is known by -------------------------------------------------------------------


def test_facts_are_said_without_the_weights(tiny_encoder_folder, tiny_lwap_model, cache):
    facts = named(tiny_encoder_folder, cache).facts
    assert (facts.name, facts.encoder) == (str(tiny_encoder_folder),) * 2
    assert (facts.num_states, facts.dimension, facts.own) == (4, 32, "mean")
    assert facts.strategies[:3] == ("cls", "mean", "max")
    assert facts.strategies[-1] == "layer_cls:3"
    live = CachedModel(tiny_lwap_model, cache=cache).facts
    assert (live.strategies[-1], live.own) == ("lwap", "lwap")
    assert named(tiny_encoder_folder, cache).facts == facts


def test_the_same_files_elsewhere_go_by_their_own_name(
    tiny_encoder_folder, cache, tmp_path, loaded
):
    first = named(tiny_encoder_folder, cache)
    moved = shutil.copytree(tiny_encoder_folder, tmp_path / "moved")
    again = named(moved, cache)
    assert again.fingerprint == first.fingerprint
    assert (again.facts.name, again.facts.encoder) == (str(moved), str(moved))
    assert again.facts.strategies == first.facts.strategies
    assert len(loaded) == 1


def test_a_model_in_memory_is_known_by_its_encoder_and_its_head(tiny_model, tiny_lwap_model):
    known = {CachedModel(tiny_model).fingerprint, CachedModel(tiny_lwap_model).fingerprint}
    assert CachedModel(copy.deepcopy(tiny_lwap_model)).fingerprint in known
    for change in (
        lambda model: model[1].dense.bias.data.add_(1e-6),
        lambda model: model[0].model.embeddings.word_embeddings.weight.data.mul_(1.001),
        lambda model: setattr(model, "max_seq_length", 12),
    ):
        model = copy.deepcopy(tiny_lwap_model)
        with torch.no_grad():
            change(model)
        fingerprint = CachedModel(model).fingerprint
        assert fingerprint not in known
        known.add(fingerprint)


def test_a_fingerprint_covers_every_file_that_numbers_depend_on(tiny_encoder_folder, tmp_path):
    folder = Path(shutil.copytree(tiny_encoder_folder, tmp_path / "encoder"))
    before = model_fingerprint(str(folder))
    assert before == model_fingerprint(str(tiny_encoder_folder))
    (folder / "README.md").write_text("# A card\n", "utf-8")
    (folder / "a folder.json").mkdir()
    os.symlink(folder / "nothing", folder / "dangling.json")
    assert model_fingerprint(str(folder)) == before
    known = {before}
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        known.add(model_fingerprint(str(folder)))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text("{}", "utf-8")
    known.add(model_fingerprint(str(folder)))
    (folder / "1_Pooling").rename(folder / "2_Pooling")
    known.add(model_fingerprint(str(folder)))
    assert len(known) == 6


def test_a_checkpoint_is_known_by_its_head_and_its_encoder(
    tiny_lwap_model, tiny_encoder_folder, tmp_path
):
    encoder = Path(shutil.copytree(tiny_encoder_folder, tmp_path / "encoder"))
    head = tmp_path / "head"
    save_checkpoint(
        tiny_lwap_model,
        head,
        name="head",
        **checkpoints.identify_encoder(str(encoder)),
        training={},
        results={},
        card="# A card\n",
    )
    facts = named(head).facts
    assert (facts.name, facts.encoder, facts.own) == (str(head), str(encoder.resolve()), "lwap")
    known = {model_fingerprint(str(head)), model_fingerprint(str(encoder))}
    config = json.loads((encoder / "config.json").read_text("utf-8"))
    (encoder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}), "utf-8")
    known.add(model_fingerprint(str(head)))
    assert len(known) == 3
    (head / "lwap.json").write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match=r"lwap.json' is not readable JSON"):
        model_fingerprint(str(head))


# --- layer weights ------------------------------------------------------------------------------


def test_layer_weights_are_those_of_explain(tiny_lwap_model, sentences):
    rows = [row % 9 for row in range(4100)]  # more than are in memory at once
    found = CachedModel(tiny_lwap_model).layer_weights([sentences[row] for row in rows])
    expected = explain(tiny_lwap_model, sentences[:9]).weights
    assert found.shape == (4100, 4)
    assert np.abs(found - expected[rows]).max() <= TOLERANCE
    assert np.ptp(expected, axis=0).min() > 1e-4  # sentences differ, so that their order shows


def test_layer_weights_take_what_was_encoded(tiny_lwap_model, sentences, cache, encoded, read_as):
    dict(CachedModel(tiny_lwap_model, cache=cache).vectors(sentences[:6], ["mean"]))
    assert encoded == read_as(sentences[:6])
    encoded.clear()
    CachedModel(tiny_lwap_model, cache=cache).layer_weights(sentences[:6])
    assert not encoded


def test_a_model_without_a_head_has_no_layer_weights(tiny_model, sentences):
    with pytest.raises(StrategyError, match="has no trained layer attention to look at"):
        CachedModel(tiny_model).layer_weights(sentences[:2])


# --- a run of its own ---------------------------------------------------------------------------

REPEATED = """
import json, sys
import pandas as pd
from lwap.encoding.diskcache import DiskCache
from lwap.evaluation.benchmark import evaluate_sts
from lwap.evaluation.tasks import Task
task = Task.from_pairs(pd.DataFrame(json.loads(sys.argv[1])), "own")
calls = []
result = evaluate_sts(
    "all-MiniLM-L6-v2", [task], ["mean", "layer_cls:2"], resamples=50, cache=DiskCache(),
    progress=lambda *call: calls.append(call),
)
assert not calls, calls
heavy = {"torch", "transformers", "sentence_transformers", "streamlit"} & set(sys.modules)
print(json.dumps([result.values().tolist(), sorted(heavy), list(result.notes), result.encoders]))
"""


def test_a_repeated_evaluation_of_a_named_model_imports_no_torch(
    pairs, tmp_path, bundled_model, monkeypatch
):
    monkeypatch.setattr("lwap.checkpoints.load.load", lambda *args, **options: bundled_model)
    first, second = pairs
    rows = {"sentence1": first, "sentence2": second, "score": [5, 1, 2, 0, 4, 3, 3, 2, 1]}
    found = evaluate_sts(
        BUNDLED,
        [Task.from_pairs(pd.DataFrame(rows), "own")],
        ["mean", "layer_cls:2"],
        resamples=50,
        cache=DiskCache(tmp_path),
    )
    run = subprocess.run(
        [sys.executable, "-c", REPEATED, json.dumps(rows)],
        env=os.environ | {"LWAP_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    values, heavy, notes, encoders = json.loads(run.stdout)
    assert values == found.values().tolist()
    assert heavy == []
    assert notes == list(found.notes)
    assert encoders == {BUNDLED: BUNDLED}
