"""Runs that start from a checkpoint whose encoder was trained: what they see, what is saved."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lwap
from lwap.checkpoints.load import identify_encoder
from lwap.checkpoints.manifest import CARD, Contents, read_info
from lwap.encoding.adapters import ADAPTER, adapter_rank
from lwap.errors import CheckpointError, ConfigError
from lwap.training import TrainConfig, train
from lwap.training.save import save_result
from lwap.ui.models import trained

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["A heron waits.", "Nobody swims in the river.", "x"]
RANK = 3


@pytest.fixture(scope="module")
def dev_pairs() -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets/pairs.csv")[["sentence1", "sentence2", "score"]]


@pytest.fixture(scope="module")
def triplets() -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets/triplets.csv", nrows=48)


@pytest.fixture
def make(tiny_encoder_folder, tmp_path, monkeypatch, triplets, dev_pairs):
    """Train a run of that name and save it among the runs; return its result."""
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))

    def run(name: str, encoder: str | None = None, **changes):
        small = {"batch_size": 16, "learning_rate": 1e-2, "eval_steps": 1, "precision": "fp32"}
        config = TrainConfig(encoder=encoder or str(tiny_encoder_folder), **(small | changes))
        result = train(config, triplets, dev_pairs, dev_name="our pairs")
        save_result(
            result,
            tmp_path / "runs" / name / "model",
            name=name,
            encoder=identify_encoder(config.encoder),
            data_name=f"triplets of {name}",
            data_sha256="a" * 64,
            dev_sha256="d" * 64,
            command=f"python -m lwap train --name {name}",
        )
        return result

    return run


@pytest.fixture
def first(make):
    """Train a run that changes the encoder: "lora" or "full"."""

    def run(mode: str, **changes):
        rank = {"lora_rank": RANK, "lora_alpha": 6} if mode == "lora" else {}
        found = make("first", mode=mode, pooling="mean", **rank, **changes)
        assert found.best_step > 0
        return found

    return run


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_head_sees_the_encoder_as_the_checkpoint_changed_it(mode, first, make, tmp_path):
    first(mode)
    result = make("second", "first", residual="last_mean")
    before = lwap.encode_layers(lwap.load("first"), TEXTS)
    own = lwap.encode_layers(result.model, TEXTS)
    np.testing.assert_allclose(own.mean, before.mean, atol=1e-5)


def test_results_are_against_the_published_encoder_and_the_start(
    first, make, dev_pairs, tiny_encoder_folder
):
    first("full")
    result = make("second", "first", mode="full", pooling="cls")
    scores = result.results["dev_spearman"]
    models = {
        "trained": result.model,
        "start": lwap.load("first"),
        "mean": lwap.load(str(tiny_encoder_folder)),
    }
    for key, model in models.items():
        one, other = (
            model.encode(dev_pairs[side].tolist()).astype(float)
            for side in ("sentence1", "sentence2")
        )
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = pd.Series(((one * other).sum(axis=1) / lengths).round(6))
        expected = 100 * cosines.corr(dev_pairs.score, method="spearman")
        assert scores[key]["value"] == pytest.approx(expected, abs=0.01), key
    assert scores.keys() == {*models, "cls"}
    for key, name in (("mean", "dev_difference_to_mean"), ("start", "dev_difference_to_start")):
        difference = scores["trained"]["value"] - scores[key]["value"]
        assert result.results[name]["value"] == pytest.approx(difference, abs=1e-3)


@pytest.mark.parametrize("mode", ["head", "lora", "full"])
@pytest.mark.parametrize("start", ["lora", "full"])
def test_what_is_saved_gives_the_same_embeddings(
    start, mode, first, make, tmp_path, tiny_encoder_folder
):
    first(start)
    changes = {"lora_rank": 2, "lora_alpha": 4} if mode == "lora" else {}
    result = make("second", "first", mode=mode, **changes)
    expected = result.model.encode(TEXTS)
    np.testing.assert_allclose(lwap.load("second").encode(TEXTS), expected, atol=2e-5)
    lwap.verify("second")
    info = read_info(tmp_path / "runs/second/model")
    assert info.encoder == str(tiny_encoder_folder.resolve())
    assert info.training["encoder"] == info.encoder
    assert info.training["start"] == "first"
    assert trained(info).endswith(", from first")
    assert info.training["start_data"] == "triplets of first"
    assert info.trained_on == "triplets of first, then triplets of second"
    is_small = start == "lora" and mode != "full"
    assert info.contains == (Contents.ADAPTER if is_small else Contents.ENCODER)
    if is_small:
        rank = RANK + (2 if mode == "lora" else 0)
        assert adapter_rank(info.folder / ADAPTER) == rank


def test_a_run_on_a_run_on_a_run(first, make):
    first("lora")
    make("second", "first", mode="lora", pooling="mean", lora_rank=2, lora_alpha=4)
    last = make("third", "second", pooling="scalar_mix")
    np.testing.assert_allclose(
        lwap.load("third").encode(TEXTS), last.model.encode(TEXTS), atol=2e-5
    )
    card = (lwap.checkpoints.manifest.find_checkpoint("third") / CARD).read_text(encoding="utf-8")
    commands = [f"python -m lwap train --name {name}" for name in ("first", "second", "third")]
    assert "\n\n".join(commands) in card  # all that it takes, in order


def test_card_says_whose_encoder_it_is(first, make, tiny_encoder_folder):
    first("lora")
    make("second", "first")
    card = (lwap.checkpoints.manifest.find_checkpoint("second") / CARD).read_text(encoding="utf-8")
    base = str(tiny_encoder_folder)
    assert f"on top of `{base}` as `first` changed it." in card
    assert (
        "- Encoder of `first` (trained on triplets of first) frozen; the head was trained on its "
        "cached layer summaries" in card
    )
    assert "| `first`, which it started from |" in card
    assert "| encoder, mean |" in card
    assert "Against `first`: " in card
    assert "Against the encoder's own mean: " in card
    assert "The pooling and low-rank adapters of the encoder" in card


def test_merging_runs_that_started_from_a_checkpoint(first, make):
    first("lora")
    for seed in (1, 2):
        make(f"run-{seed}", "first", mode="full", pooling="mean", seed=seed)
    from lwap.training.merge import merge_checkpoints

    merged = merge_checkpoints(["run-1", "run-2"]).model.state_dict()
    states = [lwap.load(f"run-{seed}").state_dict() for seed in (1, 2)]
    for key, value in merged.items():
        torch.testing.assert_close(value, (states[0][key] + states[1][key]) / 2)


def test_a_checkpoint_that_left_its_encoder_alone_is_refused(make):
    make("plain-head")
    with pytest.raises(ConfigError, match="'plain-head' is a checkpoint with a head"):
        make("second", "plain-head")
    with pytest.raises(CheckpointError, match="Train from its encoder instead"):
        identify_encoder("plain-head")


def test_a_damaged_start_is_named(first, make, tmp_path):
    first("lora")
    file = tmp_path / "runs/first/model" / ADAPTER / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"'adapter/adapter\.safetensors' has SHA-256"):
        make("second", "first")
