"""Several trained checkpoints as one: the average of their weights, small if wanted.

Runs that start from the same encoder end near one another, and the average of their weights is
often better than each, for the cost of one (Wortsman et al. 2022, Model soups).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from lwap.adapters import add_nearest_adapter
from lwap.bank import Progress, layerwise_transformer
from lwap.checkpoints import identify_encoder, load, save_checkpoint
from lwap.errors import CheckpointError, ConfigError, InputError, ModelError
from lwap.manifest import (
    CARD,
    CheckpointInfo,
    Contents,
    checkpoint_names,
    find_checkpoint,
    read_info,
)
from lwap.training.card import AveragedPart, write_average_card
from lwap.training.dev import DevSet

ALIKE = ("objective", "mode", "pooling", "data", "triplets", "metric")  # kept where all agree


@dataclass(frozen=True)
class Average:
    """The average of several checkpoints.

    Attributes:
        model: In eval mode; with adapters in its encoder where `contains` is "adapter".
        parts: What each of the checkpoints says of itself.
        contains: What of the encoder is to be saved: "head", "adapter" or "encoder".
        encoder: From `identify_encoder`.
        rank: Of the adapters; None where there are none.
        held: Share of the encoder's squared change that they hold.
        results: Measured on the dev set; empty without one.
    """

    model: SentenceTransformer
    parts: tuple[CheckpointInfo, ...]
    contains: str
    encoder: Mapping[str, Any]
    rank: int | None
    held: float | None
    results: Mapping[str, Any]


def average_checkpoints(
    names: Sequence[str],
    *,
    rank: int | None = None,
    dev_pairs: pd.DataFrame | None = None,
    dev_name: str = "dev",
    progress: Progress | None = None,
) -> Average:
    """Average the weights of checkpoints of one encoder and one pooling.

    Args:
        names: Two or more, as `lwap.load` takes them.
        rank: Keep the change of the encoder as low-rank adapters of this rank, which take a
            fraction of its size; None keeps all of the encoder.
        dev_pairs: Columns sentence1, sentence2, score, to measure the average on.
        dev_name: What the results call them.
        progress: Over the sentences of the dev set.

    Raises:
        InputError: If there are fewer than two, or one is named twice.
        ModelError: If there is no such checkpoint, or its encoder cannot be had.
        ConfigError: If the rank is not positive, or would have no effect.
        CheckpointError: If they differ in encoder or pooling, or one is damaged.
    """
    parts = _parts(names)
    changes_encoder = any(part.contains != Contents.HEAD for part in parts)
    if rank is not None and rank < 1:
        raise ConfigError(f"rank is {rank}; it must be 1 or more.")
    if rank is not None and not changes_encoder:
        raise ConfigError(
            "rank would have no effect: these checkpoints leave their encoder as it is."
        )
    encoder = identify_encoder(parts[0].encoder)
    before = load(parts[0].encoder)
    model = load(str(parts[0].folder))
    _average_into(model, (load(str(part.folder)) for part in parts[1:]))
    contains, held = Contents.ENCODER if changes_encoder else Contents.HEAD, None
    if rank is not None:
        contains = Contents.ADAPTER
        changed = layerwise_transformer(model).model
        base = copy.deepcopy(layerwise_transformer(before).model)
        held = add_nearest_adapter(base, changed, rank)
        layerwise_transformer(model).model = base
    results = {}
    if dev_pairs is not None:
        dev = DevSet(before, dev_pairs, None, is_frozen=not changes_encoder, progress=progress)
        results = dev.results(model.eval(), dev_name, parts[0].pooling)
    return Average(model.eval(), parts, contains, encoder, rank, held, results)


def save_average(
    average: Average, folder: Path, *, name: str, dev_sha256: str = "", command: str = ""
) -> Path:
    """Write an average as a checkpoint, with its model card.

    Args:
        average: Of `average_checkpoints`.
        folder: Where to.
        name: The checkpoint's name.
        dev_sha256: Of the dev set's file.
        command: That gives it again.

    Raises:
        CheckpointError: If it cannot be written.
    """
    alike = {
        key: value
        for key in ALIKE
        if (value := average.parts[0].training.get(key)) is not None
        and all(part.training.get(key) == value for part in average.parts)
    }
    small = {} if average.rank is None else {"rank": average.rank, "held": round(average.held, 4)}
    training = {**alike, "averaged": [part.name for part in average.parts], **small}
    card = write_average_card(
        name,
        average.encoder["encoder_id"],
        [_card_part(part) for part in average.parts],
        options=average.parts[0].options,
        pooling=average.parts[0].pooling,
        training=training,
        contains=average.contains,
        results=average.results,
        dev_sha256=dev_sha256,
        command=command,
    )
    return save_checkpoint(
        average.model,
        folder,
        name=name,
        **average.encoder,
        training=training,
        results=average.results,
        card=card,
        contains=average.contains,
    )


def _parts(names: Sequence[str]) -> tuple[CheckpointInfo, ...]:
    folders: dict[Path, str] = {}
    for name in names:
        folder = find_checkpoint(name)
        if folder is None:
            raise ModelError(
                f"There is no checkpoint '{name}'. There are: "
                f"{', '.join(checkpoint_names()) or 'none'}."
            )
        if folder.resolve() in folders:
            raise InputError(f"'{name}' is named twice. Name each checkpoint once.")
        folders[folder.resolve()] = name
    if len(folders) < 2:
        raise InputError("An average needs two checkpoints or more.")
    parts = tuple(read_info(folder, _name_of(folder)) for folder in folders)
    for part in parts[1:]:
        for what, own, other in (
            ("encoder", parts[0].encoder, part.encoder),
            ("pooling", parts[0].pooling, part.pooling),
            ("options of the pooling", dict(parts[0].options), dict(part.options)),
        ):
            if own != other:
                raise CheckpointError(
                    f"'{parts[0].name}' and '{part.name}' cannot be averaged: their {what} "
                    f"differ, {own} and {other}. Average runs that differ in seed, temperature "
                    "or data alone."
                )
    return parts


def _name_of(folder: Path) -> str:
    """Return the name of a checkpoint by its folder: a run's, where it lies in one."""
    return folder.parent.name if folder.name == "model" else folder.name


def _average_into(model: nn.Module, others: Iterable[nn.Module]) -> None:
    """Give a model the average of its own weights and others', summed in double precision."""
    own = model.state_dict()
    sums = {key: value.double() for key, value in own.items() if value.is_floating_point()}
    count = 1
    for other in others:  # one at a time in memory
        state = other.state_dict()
        if {key: value.shape for key, value in state.items()} != {
            key: value.shape for key, value in own.items()
        }:
            raise CheckpointError("These checkpoints have weights of other names or shapes.")
        for key, value in sums.items():
            value += state[key]
        count += 1
    with torch.no_grad():
        for key, value in sums.items():
            own[key].copy_(value / count)


def _card_part(part: CheckpointInfo) -> AveragedPart:
    score = part.results.get("dev_spearman", {})
    own = [value for key, value in score.items() if key not in ("mean", "cls")]
    card = part.folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    _, _, after = text.partition("\n## Training\n")
    _, _, block = after.partition("```bash\n")
    return AveragedPart(
        name=part.name,
        settings={**part.training},
        dev=own[0]["value"] if own else None,
        command=block.partition("\n```")[0],
    )
