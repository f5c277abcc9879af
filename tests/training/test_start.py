"""Runs that start from a checkpoint whose encoder was trained: what they see, what is saved."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import lwap
from lwap.checkpoints.load import identify_encoder
from lwap.checkpoints.manifest import CARD, Contents, read_info
from lwap.encoding.adapters import ADAPTER, adapter_rank
from lwap.errors import CheckpointError, ConfigError
from lwap.training import train
from lwap.training.merge import merge_checkpoints
from lwap.training.save import save_result
from lwap.ui.model_words import trained

TEXTS = ["A heron waits.", "Nobody swims in the river.", "x"]
RANK = 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs of this file."""
    folder = tmp_path_factory.mktemp("started")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LWAP_RUNS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def make(settings, runs, triplets, dev_pairs):
    """Train a run of that name and save it among the runs; return its result, made once."""
    made = {}

    def run(name: str, encoder: str | None = None, **changes):
        if name in made:
            return made[name]
        start = {} if encoder is None else {"encoder": encoder}
        config = settings(
            **{"epochs": 1, "learning_rate": 1e-2, "eval_steps": 1, **changes, **start}
        )
        made[name] = result = train(config, triplets, dev_pairs, dev_name="our pairs")
        save_result(
            result,
            runs / name / "model",
            name=name,
            encoder=identify_encoder(config.encoder),
            data_name=f"triplets of {name}",
            data_sha256="a" * 64,
            dev_sha256="d" * 64,
            command=f"python -m lwap train --name {name}",
        )
        return result

    return run


@pytest.fixture(scope="module")
def first(make):
    """Return a function that trains a run which changes the encoder, "lora" or "full"."""

    def run(mode: str) -> str:
        rank = {"lora_rank": RANK, "lora_alpha": 6} if mode == "lora" else {}
        name = f"first-{mode}"
        assert make(name, mode=mode, pooling="mean", **rank).best_step > 0
        return name

    return run


OPTIONS = {
    "head": {"residual": "last_mean"},
    "lora": {"lora_rank": 2, "lora_alpha": 4},
    "full": {"pooling": "cls", "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def second(make, first):
    """Return a function that trains a run of a mode from a first one."""

    def run(start: str, mode: str):
        return make(f"{mode}-from-{start}", first(start), mode=mode, **OPTIONS[mode])

    return run


def slow_spearman(model, pairs: pd.DataFrame) -> float:
    one, other = (
        model.encode(pairs[side].tolist()).astype(float) for side in ("sentence1", "sentence2")
    )
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = pd.Series(((one * other).sum(axis=1) / lengths).round(6))
    return 100 * cosines.corr(pairs.score, method="spearman")


@pytest.mark.parametrize("start", ["lora", "full"])
def test_a_head_sees_the_encoder_as_the_checkpoint_changed_it(start, first, second):
    result = second(start, "head")
    before = lwap.encode_layers(lwap.load(first(start)), TEXTS)
    own = lwap.encode_layers(result.model, TEXTS)
    np.testing.assert_allclose(own.mean, before.mean, atol=1e-5)


def test_results_are_against_the_published_encoder_and_the_start(
    first, second, dev_pairs, tiny_encoder_folder
):
    result = second("full", "full")
    scores = result.results["dev_spearman"]
    models = {
        "trained": result.model,
        "start": lwap.load(first("full")),
        "mean": lwap.load(str(tiny_encoder_folder)),
    }
    for key, model in models.items():
        expected = slow_spearman(model, dev_pairs)
        assert scores[key]["value"] == pytest.approx(expected, abs=0.01), key
    assert scores.keys() == {*models, "cls"}
    for key, name in (("mean", "dev_difference_to_mean"), ("start", "dev_difference_to_start")):
        difference = scores["trained"]["value"] - scores[key]["value"]
        assert result.results[name]["value"] == pytest.approx(difference, abs=1e-3)


@pytest.mark.parametrize("mode", ["head", "lora", "full"])
@pytest.mark.parametrize("start", ["lora", "full"])
def test_what_is_saved_gives_the_same_embeddings(start, mode, second, runs, tiny_encoder_folder):
    name = f"{mode}-from-{start}"
    expected = second(start, mode).model.encode(TEXTS)
    np.testing.assert_allclose(lwap.load(name).encode(TEXTS), expected, atol=2e-5)
    lwap.verify(name)
    info = read_info(runs / name / "model")
    assert info.encoder == str(tiny_encoder_folder.resolve())
    assert info.training["encoder"] == info.encoder
    assert info.training["start"] == f"first-{start}"
    assert trained(info).endswith(f", from first-{start}")
    assert info.training["start_data"] == f"triplets of first-{start}"
    assert info.trained_on == f"triplets of first-{start}, then triplets of {name}"
    is_small = start == "lora" and mode != "full"
    assert info.contains == (Contents.ADAPTER if is_small else Contents.ENCODER)
    if is_small:
        rank = RANK + (2 if mode == "lora" else 0)
        assert adapter_rank(info.folder / ADAPTER) == rank


def test_a_run_on_a_run_on_a_run(second, make, runs):
    second("lora", "lora")
    last = make("third", "lora-from-lora", pooling="scalar_mix")
    np.testing.assert_allclose(
        lwap.load("third").encode(TEXTS), last.model.encode(TEXTS), atol=2e-5
    )
    card = (runs / "third" / "model" / CARD).read_text(encoding="utf-8")
    names = ("first-lora", "lora-from-lora", "third")
    commands = [f"python -m lwap train --name {name}" for name in names]
    assert "\n\n".join(commands) in card  # all that it takes, in order


def test_card_says_whose_encoder_it_is(second, runs, tiny_encoder_folder):
    second("lora", "head")
    card = (runs / "head-from-lora" / "model" / CARD).read_text(encoding="utf-8")
    base = str(tiny_encoder_folder)
    assert f"on top of `{base}` as `first-lora` changed it." in card
    assert (
        "- Encoder of `first-lora` (trained on triplets of first-lora) frozen; the head was "
        "trained on its cached layer summaries" in card
    )
    assert "| `first-lora`, which it started from |" in card
    assert "| encoder, mean |" in card
    assert "Against `first-lora`: " in card
    assert "Against the encoder's own mean: " in card
    assert "The pooling and low-rank adapters of the encoder" in card


def test_merging_runs_that_started_from_a_checkpoint(first, make):
    options = {"mode": "full", "pooling": "mean", "max_steps": 2}
    for seed in (1, 2):
        make(f"run-{seed}", first("lora"), seed=seed, **options)
    merged = merge_checkpoints(["run-1", "run-2"]).model.state_dict()
    states = [lwap.load(f"run-{seed}").state_dict() for seed in (1, 2)]
    for key, value in merged.items():
        torch.testing.assert_close(value, (states[0][key] + states[1][key]) / 2)


def test_a_checkpoint_that_left_its_encoder_alone_is_refused(make):
    make("plain-head")
    with pytest.raises(ConfigError, match="'plain-head' is a checkpoint with a head"):
        make("refused", "plain-head")
    with pytest.raises(CheckpointError, match="Train from its encoder instead"):
        identify_encoder("plain-head")


def test_a_damaged_start_is_named(first, make, runs):
    shutil.copytree(runs / first("lora"), runs / "damaged")
    file = runs / "damaged" / "model" / ADAPTER / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"'adapter/adapter\.safetensors' has SHA-256"):
        make("refused", "damaged")
