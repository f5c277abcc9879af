"""Several checkpoints as one: their weights, its low-rank part, its card, what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import lwap
from lwap.__main__ import main
from lwap.checkpoints.load import identify_encoder
from lwap.checkpoints.manifest import CARD, Contents, read_info
from lwap.checkpoints.save import save_checkpoint
from lwap.checkpoints.verify import verify
from lwap.encoding.adapters import add_nearest_adapter, apply_adapter, save_adapter
from lwap.errors import CheckpointError, ConfigError, InputError, ModelError
from lwap.training import TrainConfig
from lwap.training.merge import merge_checkpoints, save_merged
from lwap.training.model import new_model

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ["A heron waits in the reeds.", "Nobody swims.", "The ferry is late."]
CONTENTS = {"head": Contents.HEAD, "lora": Contents.ADAPTER, "full": Contents.ENCODER}


@pytest.fixture(scope="module")
def dev_file() -> Path:
    return ROOT / "assets/pairs.csv"


@pytest.fixture()
def part(tiny_encoder_folder, tmp_path, monkeypatch):
    """Give checkpoints whose weights are the encoder's and noise, as runs with a card."""
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    encoder = str(tiny_encoder_folder)

    def make(
        name: str, seed: int, mode: str = "full", data: str = "sentences of ours", **changes
    ) -> str:
        settings = {"residual": "last_mean", "temperature": 0.05 * (1 + seed), **changes}
        config = TrainConfig(encoder=encoder, mode=mode, seed=seed, **settings)
        model = new_model(config, lwap.load(encoder))
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad and (mode != "head"):
                    value.add_(torch.randn(value.shape, generator=noise) * 0.02)
        save_checkpoint(
            model,
            tmp_path / "runs" / name / "model",
            name=name,
            **identify_encoder(encoder),
            training={**config.to_dict(), "data": data, "triplets": 12},
            results={"dev_spearman": {"lwap": {"value": 80.0 + seed}, "mean": {"value": 70.0}}},
            card=f"# {name}\n\n## Training\n\n```bash\npython -m lwap train --name {name}\n```\n",
            contains=CONTENTS[mode],
        )
        return name

    return make


def linear_names(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name
    ]


# --- the nearest adapter ------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm = nn.Linear(6, 4), nn.LayerNorm(4)
        self.narrow = nn.Linear(4, 5, bias=False)


def test_nearest_adapter_is_numpys_truncated_svd(tmp_path):
    torch.manual_seed(0)
    base, changed = Small(), Small()
    before = {name: value.clone() for name, value in base.named_parameters()}
    held = add_nearest_adapter(base, changed, 2)
    save_adapter(base, tmp_path / "adapter")
    plain = Small()
    plain.load_state_dict(before)
    apply_adapter(plain, tmp_path / "adapter")
    squared = kept = 0.0
    for name in ("wide", "narrow"):
        change = (getattr(changed, name).weight - before[f"{name}.weight"]).detach().numpy()
        left, values, right = np.linalg.svd(change.astype(float), full_matrices=False)
        expected = (left[:, :2] * values[:2]) @ right[:2]
        made = (getattr(plain, name).weight - before[f"{name}.weight"]).detach().numpy()
        np.testing.assert_allclose(made, expected, atol=1e-6)
        kept += (values[:2] ** 2).sum()
        squared += (change.astype(float) ** 2).sum()
    bias = (changed.wide.bias - before["wide.bias"]).detach().double()
    squared += float(bias.square().sum())
    assert held == pytest.approx(kept / squared)
    torch.testing.assert_close(plain.wide.bias, before["wide.bias"])  # not of the adapters


def test_nearest_adapter_of_full_rank_gives_linear_layers_back(tmp_path):
    torch.manual_seed(0)
    base, changed = Small(), Small()
    add_nearest_adapter(base, changed, 9)  # more than there are singular values
    save_adapter(base, tmp_path / "adapter")
    plain = Small()
    plain.load_state_dict({name: value for name, value in base.state_dict().items()}, strict=False)
    for name in ("wide", "narrow"):
        weight = getattr(base, name).base_layer.weight
        getattr(plain, name).weight.data.copy_(weight)
    apply_adapter(plain, tmp_path / "adapter")
    for name in ("wide", "narrow"):
        torch.testing.assert_close(getattr(plain, name).weight, getattr(changed, name).weight)


def test_nothing_changed_is_held_whole():
    torch.manual_seed(0)
    base = Small()
    same = Small()
    same.load_state_dict(base.state_dict())
    assert add_nearest_adapter(base, same, 2) == 1.0


# --- averages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_average_has_the_mean_of_all_weights(mode, part):
    names = [part(f"run-{seed}", seed, mode) for seed in range(3)]
    average = merge_checkpoints(names)
    assert average.contains == Contents.ENCODER
    states = [lwap.load(name).state_dict() for name in names]
    for key, value in average.model.state_dict().items():
        expected = np.mean([state[key].numpy().astype(np.float64) for state in states], axis=0)
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-7, err_msg=key)


def test_weights_add_up_changes_of_the_encoder_and_average_poolings(part):
    names, weights = [part(f"run-{seed}", seed) for seed in range(3)], [1.0, 0.5, 2.0]
    merged = merge_checkpoints(names, weights=weights)
    assert merged.weights == (1.0, 0.5, 2.0)
    assert not merged.is_average
    before = lwap.load(merged.encoder["encoder_id"]).state_dict()
    states = [lwap.load(name).state_dict() for name in names]
    of_encoder = 0
    for key, value in merged.model.state_dict().items():
        parts = [state[key].numpy().astype(np.float64) for state in states]
        if key in before:  # the encoder's
            of_encoder += 1
            expected = before[key].numpy().astype(np.float64)
            for weight, own in zip(weights, parts, strict=True):
                expected = expected + weight * (own - before[key].numpy())
        else:
            expected = np.average(parts, axis=0, weights=weights)
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-6, err_msg=key)
    assert 0 < of_encoder < len(states[0])


def test_equal_weights_are_the_average(part):
    names = [part(f"run-{seed}", seed) for seed in range(2)]
    plain, said = merge_checkpoints(names), merge_checkpoints(names, weights=[0.5, 0.5])
    assert plain.is_average
    assert said.is_average
    for key, value in plain.model.state_dict().items():
        torch.testing.assert_close(said.model.state_dict()[key], value, rtol=0, atol=0)


def test_average_of_heads_is_a_head(part, tmp_path):
    names = [part(f"head-{seed}", seed, "head") for seed in range(2)]
    average = merge_checkpoints(names)
    folder = save_merged(average, tmp_path / "runs" / "both" / "model", name="both")
    assert read_info(folder).contains == Contents.HEAD
    with pytest.raises(ConfigError, match="leave their encoder as it is"):
        merge_checkpoints(names, rank=4)


def test_data_of_all_runs_are_named(part, tmp_path):
    names = [part(f"on-{data}", 0, data=data) for data in ("letters", "novels")]
    names.append(part("again", 1, data="letters"))
    folder = save_merged(merge_checkpoints(names), tmp_path / "runs" / "all" / "model", name="all")
    assert read_info(folder).trained_on == "letters + novels"
    card = (folder / CARD).read_text("utf-8")
    assert "| on-novels | novels |" in card
    assert "Data:" not in card  # they stand in the table


def test_average_as_adapter_encodes_as_it_did_before_it_was_saved(part, tmp_path):
    names = [part(f"run-{seed}", seed) for seed in range(2)]
    average = merge_checkpoints(names, rank=3)
    assert 0 < average.held < 1
    folder = save_merged(average, tmp_path / "runs" / "small" / "model", name="small")
    info = read_info(folder)
    assert info.contains == Contents.ADAPTER
    assert info.training["merged"] == names
    assert info.training["rank"] == 3
    assert info.training["data"] == "sentences of ours"
    assert "temperature" not in info.training  # they differ
    verify("small")
    np.testing.assert_allclose(
        lwap.load("small").encode(SENTENCES), average.model.encode(SENTENCES), rtol=1e-4, atol=1e-5
    )


def test_a_rank_that_loses_nothing_gives_the_average_but_for_norms(part, tmp_path):
    names = [part(f"run-{seed}", seed) for seed in range(2)]
    whole, low = merge_checkpoints(names), merge_checkpoints(names, rank=400)
    folder = save_merged(low, tmp_path / "runs" / "low" / "model", name="low")
    made, full = lwap.load(str(folder))[0].model, whole.model[0].model
    base = lwap.load(low.encoder["encoder_id"])[0].model
    linear = {f"{name}.weight" for name in linear_names(full)}
    own, expected, before = (dict(each.named_parameters()) for each in (made, full, base))
    for key in own:
        target = expected if key in linear else before
        torch.testing.assert_close(own[key], target[key], atol=1e-6, rtol=0)


def test_card_tells_runs_commands_and_results(part, tmp_path, dev_file):
    names = [part(f"run-{seed}", seed) for seed in range(2)]
    pairs = pd.read_csv(dev_file)[["sentence1", "sentence2", "score"]]
    average = merge_checkpoints(names, rank=3, dev_pairs=pairs, dev_name="our pairs")
    folder = save_merged(
        average,
        tmp_path / "runs" / "both" / "model",
        name="both",
        dev_sha256="d" * 64,
        command="python -m lwap models merge run-0 run-1",
    )
    card = (folder / CARD).read_text(encoding="utf-8")
    assert "The average of the weights of 2 runs" in card
    assert "| run | seed | temperature | dev |" in card
    assert "| run-1 | 1 | 0.1 | 81.00 |" in card
    assert "adapters of rank 3" in card
    assert "python -m lwap train --name run-0\n" in card
    assert "python -m lwap models merge run-0 run-1" in card
    assert f"Spearman × 100 of the cosine on our pairs ({len(pairs)} pairs" in card
    assert "## Layer weights" in card
    assert average.results["dev_spearman"]["lwap"]["value"] == pytest.approx(
        read_info(folder).results["dev_spearman"]["lwap"]["value"]
    )


def test_what_cannot_be_merged_is_refused(part):
    first, head = part("run-0", 0), part("plain", 1, residual="none")
    with pytest.raises(InputError, match="two checkpoints or more"):
        merge_checkpoints([first])
    with pytest.raises(InputError, match="'run-0' is named twice"):
        merge_checkpoints([first, first])
    with pytest.raises(ModelError, match="There is no checkpoint 'nowhere'"):
        merge_checkpoints([first, "nowhere"])
    with pytest.raises(CheckpointError, match="their options of the pooling differ"):
        merge_checkpoints([first, head])
    with pytest.raises(CheckpointError, match="their pooling differ, lwap and mean"):
        merge_checkpoints([first, part("mean", 1, pooling="mean", residual="none")])
    both = [first, part("other", 1)]
    with pytest.raises(ConfigError, match="rank is 0"):
        merge_checkpoints(both, rank=0)
    with pytest.raises(ConfigError, match="weights has 3 values for 2 checkpoints"):
        merge_checkpoints(both, weights=[1, 1, 1])
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="each must be a number above 0"):
            merge_checkpoints(both, weights=[1.0, wrong])


def test_command_adds_up_and_card_tells_weights(part, capsys):
    names = [part("sentences", 0), part("triplets", 1)]
    weights = ["--weights", "1", "0.5"]
    main(["models", "merge", *names, *weights, "--name", "sum"])
    assert "sum: the weighted sum of 2 checkpoints" in capsys.readouterr().out
    folder = lwap.checkpoints.manifest.find_checkpoint("sum")
    card = (folder / CARD).read_text(encoding="utf-8")
    assert "What 2 runs changed in the same encoder, each times its weight, added up" in card
    assert "| run | weight | seed | temperature | dev |" in card
    assert "| triplets | 0.5 | 1 | 0.1 | 81.00 |" in card
    assert "merge sentences triplets \\\n    --name sum \\\n    --weights 1 0.5" in card
    assert read_info(folder).training["weights"] == [1.0, 0.5]


def test_command_averages_and_says_how_well(part, dev_file, capsys):
    names = [part(f"run-{seed}", seed) for seed in range(2)]
    main(["models", "merge", *names, "--name", "both", "--rank", "2", "--dev", str(dev_file)])
    said = capsys.readouterr().out
    assert "both: the average of 2 checkpoints" in said
    assert "Adapters of rank 2 hold" in said
    assert f"{'both':<14} " in said
    card = lwap.checkpoints.manifest.find_checkpoint("both") / CARD
    text = card.read_text(encoding="utf-8")
    assert "python -m lwap models merge run-0 run-1 \\\n    --name both \\\n    --rank 2" in text
    assert str(dev_file.parent) not in text
    main(["models", "merge", *names, "--name", "again", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "again"
    assert found["held"] is None
    assert found["training"]["merged"] == names
