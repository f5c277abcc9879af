"""What a finished run leaves: its checkpoint with card, and the command that gives it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from lwap.checkpoints.load import load
from lwap.checkpoints.manifest import CARD, CheckpointInfo, Contents, starting_checkpoint
from lwap.checkpoints.save import save_checkpoint
from lwap.encoding.adapters import ADAPTER, adapter_rank, add_nearest_adapter, merge_adapters
from lwap.encoding.bank import layerwise_transformer
from lwap.training.card import card_command, write_card
from lwap.training.config import EPOCHS, HEAD_LEARNING_RATE, LEARNING_RATE, Mode, TrainConfig
from lwap.training.follower import world_size
from lwap.training.run import TrainResult

CONTAINS = {
    Mode.HEAD: Contents.HEAD,
    Mode.LORA: Contents.ADAPTER,
    Mode.FULL: Contents.ENCODER,
}


def save_result(
    result: TrainResult,
    folder: Path,
    *,
    name: str,
    encoder: Mapping[str, Any],
    data_name: str,
    data_sha256: str,
    dev_sha256: str,
    command: str,
) -> Path:
    """Write the checkpoint of a run, with its model card.

    Args:
        result: Of `train`.
        folder: Where to.
        name: The checkpoint's name.
        encoder: From `identify_encoder`.
        data_name: What it was trained on, in words.
        data_sha256, dev_sha256: Of the files; "" where there was none.
        command: That gives it again; "" where none does.

    Raises:
        CheckpointError: If it cannot be written.
    """
    config, start = result.config, starting_checkpoint(result.config.encoder)
    contains = CONTAINS[Mode(config.mode)]
    if start is not None:
        contains = _with_what_it_started_from(result.model, contains, start)
        command = "\n\n".join(filter(None, [command_of_card(start), command]))
    card = write_card(
        name,
        result,
        command=command,
        data=data_name,
        data_sha256=data_sha256,
        dev_sha256=dev_sha256,
        contains=contains,
        start=start,
    )
    return save_checkpoint(
        result.model,
        folder,
        name=name,
        **encoder,
        training={
            **config.to_dict(),
            **({} if start is None else _start(start)),
            "data": data_name,
            "triplets": result.triplets,
            "metric": result.metric,
            **({"processes": processes} if (processes := world_size()) > 1 else {}),
        },
        results=result.results,
        card=card,
        contains=contains,
    )


def _start(start: CheckpointInfo) -> dict[str, str]:
    """Return what a manifest says of the checkpoint that a run started from."""
    return {"encoder": start.encoder, "start": start.name, "start_data": start.trained_on}


def _with_what_it_started_from(
    model: SentenceTransformer, contains: Contents, start: CheckpointInfo
) -> Contents:
    """Give a model what its start had changed in the encoder, and return what is to be saved.

    Two sums of low rank are one of the sum of their ranks, so adapters on adapters stay adapters.

    Args:
        model: Of a run; its encoder may get other adapters, with the same outcome.
        contains: What the run itself changed.
        start: The checkpoint that it started from.
    """
    transformer = layerwise_transformer(model)
    rank = 0
    if contains == Contents.ADAPTER:
        rank = _rank_of(transformer.model)
        merge_adapters(transformer.model)
    if Contents.ENCODER in (contains, start.contains):
        return Contents.ENCODER
    base = layerwise_transformer(load(start.encoder, device=str(transformer.device))).model
    rank += adapter_rank(start.folder / ADAPTER)
    add_nearest_adapter(base, transformer.model, rank)
    transformer.model = base.eval()
    return Contents.ADAPTER


def _rank_of(model: Any) -> int:
    return next(layer.r["default"] for layer in model.modules() if hasattr(layer, "lora_A"))


def command_of_card(info: CheckpointInfo) -> str:
    """Return the commands that give a checkpoint again, as its card has them; "" without any."""
    card = info.folder / CARD
    return card_command(card.read_text(encoding="utf-8")) if card.is_file() else ""


def given_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that differ from what they are if nobody sets them."""
    mode = Mode(config.mode)
    by_mode = {"learning_rate": LEARNING_RATE[mode], "epochs": EPOCHS[mode]}
    if config.has_own_head_rate:
        by_mode["head_learning_rate"] = HEAD_LEARNING_RATE[mode]
    defaults = {field.name: field.default for field in TrainConfig.__dataclass_fields__.values()}
    return {
        name: value
        for name, value in config.to_dict().items()
        if value not in (defaults[name], by_mode.get(name, defaults[name]))
    }


def command_of(
    config: TrainConfig,
    data: str,
    dev: str | None = None,
    *,
    kind: str = "triplets",
    **names: str | None,
) -> str:
    """Return the command that gives a run again.

    Args:
        config: Its settings.
        data, dev: The files, as the command shall name them.
        kind: What the data are read as: "triplets" (pairs, too) or "sentences".
        names: data_name, dev_name, name; what is None is left out.
    """
    parts = [f"python -m lwap train --{kind} {data}"]
    if (processes := world_size()) > 1:  # batch_size is each one's
        start = f"torchrun --nproc_per_node {processes} -m lwap train"
        parts = [f"{start} --{kind} {data}", "--output model"]
    if dev:
        parts.append(f"--dev {dev}")
    given = given_settings(config)
    if kind == "sentences":  # they have no other objective
        given.pop("objective", None)
    for name, value in {**given, **names}.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            parts.append(flag)
        elif value is not None:
            # With "=": argparse takes -1e-05 for an option otherwise.
            joint = "=" if str(value).startswith("-") else " "
            parts.append(f"{flag}{joint}{shlex.quote(str(value))}")
    return " \\\n    ".join(parts)


def merge_command(
    names: Sequence[str],
    *,
    name: str,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    dev: str | None = None,
    dev_name: str | None = None,
) -> str:
    """Return the command that merges checkpoints again.

    Args:
        names: The checkpoints; of a path its last part is told.
        name: What the result is called.
        weights, rank: As for `merge_checkpoints`.
        dev: The dev file, as the command shall name it.
        dev_name: What the card calls it.
    """
    known = [Path(each).name for each in names]
    parts = [f"python -m lwap models merge {' '.join(map(shlex.quote, known))}"]
    parts.append(f"--name {shlex.quote(name)}")
    if weights is not None:
        parts.append(f"--weights {' '.join(f'{weight:g}' for weight in weights)}")
    if rank is not None:
        parts.append(f"--rank {rank}")
    if dev:
        parts.append(f"--dev {dev}")
    if dev_name:
        parts.append(f"--dev-name {shlex.quote(dev_name)}")
    return " \\\n    ".join(parts)
