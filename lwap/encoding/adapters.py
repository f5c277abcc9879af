"""Low-rank adapters of an encoder: put in, saved, merged. Knows torch modules only.

The layers are peft's; the file holds their matrices in safetensors and the settings in JSON, and
nothing else is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lwap.errors import CheckpointError

ADAPTER = "adapter"
_WEIGHTS, _SETTINGS = "adapter.safetensors", "adapter.json"
_MARK = "lora_"


def add_adapter(model: nn.Module, rank: int, alpha: int) -> None:
    """Put new adapters into every linear layer of an encoder but its pooler; freeze the rest."""
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    has_pooler = any("pooler" in name for name, _ in model.named_modules())
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        exclude_modules=r".*pooler.*" if has_pooler else None,  # peft warns of one too many
    )
    inject_adapter_in_model(settings, model)


def adapter_weights(model: nn.Module) -> dict:
    """Return the matrices of an encoder's adapters, by name."""
    return {name: value for name, value in model.state_dict().items() if _MARK in name}


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write an encoder's adapters.

    Raises:
        CheckpointError: If it has none.
    """
    weights = {name: value.cpu().contiguous() for name, value in adapter_weights(model).items()}
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "lora_A")]
    if not weights:
        raise CheckpointError(f"'{folder}' is not written: the encoder has no adapters to save.")
    folder.mkdir()
    save_file(weights, folder / _WEIGHTS)
    settings = {"rank": layers[0].r["default"], "alpha": layers[0].lora_alpha["default"]}
    (folder / _SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")


def apply_adapter(model: nn.Module, folder: Path) -> None:
    """Add the adapters in a folder to an encoder's weights, which are plain layers afterwards.

    Raises:
        CheckpointError: If they do not fit the encoder.
    """
    settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    weights = load_file(folder / _WEIGHTS)
    add_adapter(model, settings["rank"], settings["alpha"])
    own = adapter_weights(model)
    if {name: value.shape for name, value in own.items()} != {
        name: value.shape for name, value in weights.items()
    }:
        raise CheckpointError(
            f"The adapters in '{folder}' do not fit the encoder: {len(weights)} matrices, and it "
            f"takes {len(own)}, or of other shapes."
        )
    model.load_state_dict(weights, strict=False)
    merge_adapters(model)


def merge_adapters(model: nn.Module) -> None:
    """Add an encoder's adapters to its weights, which are plain layers afterwards."""
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "lora_A"):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config  # peft takes it for a sign that adapters are still there
    model.requires_grad_(True)


def adapter_rank(folder: Path) -> int:
    """Return the rank of the adapters in a folder."""
    return json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))["rank"]


def add_nearest_adapter(base: nn.Module, changed: nn.Module, rank: int) -> float:
    """Put adapters into an encoder that come as near to a changed one as their rank allows.

    Of each linear layer's change the largest singular values are kept, which is the nearest matrix
    of that rank (Eckart and Young 1936). Embeddings, biases and norms stay the base's.

    Args:
        base: The encoder before the change; gets the adapters, its weights stay.
        changed: The same architecture with other weights.
        rank: Of the adapters.

    Returns:
        The share of the squared change that the adapters hold, 0 to 1.
    """
    before = {name: value.detach() for name, value in base.named_parameters()}
    change = {
        name: (value.detach() - before[name]).double() for name, value in changed.named_parameters()
    }
    whole = sum(float(each.square().sum()) for name, each in change.items() if "pooler" not in name)
    add_adapter(base, rank, alpha=rank)  # a scale of 1
    held = 0.0
    for name, layer in base.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        left, values, right = torch.linalg.svd(change[f"{name}.weight"], full_matrices=False)
        kept = values[:rank]
        held += float(kept.square().sum())
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        with torch.no_grad():
            down.zero_()
            up.zero_()  # a layer may have fewer singular values than the rank
            down[: len(kept)] = kept.sqrt()[:, None] * right[:rank]
            up[:, : len(kept)] = left[:, :rank] * kept.sqrt()
    return held / whole if whole else 1.0
