"""Several trained checkpoints of one encoder as one: their changes added up, small if wanted.

Runs that start from the same encoder end near one another. The average of runs that differ in seed
or temperature is often better than each, for the cost of one (Wortsman et al. 2022, Model soups);
the sum of what two objectives changed has the good of both (Ilharco et al. 2023, Editing models
with task arithmetic).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.manifest import (
    CheckpointInfo,
    Contents,
    checkpoint_names,
    find_checkpoint,
    read_info,
)
from lwap.checkpoints.save import save_checkpoint
from lwap.encoding.adapters import add_nearest_adapter
from lwap.encoding.bank import Progress, layerwise_transformer
from lwap.errors import CheckpointError, ConfigError, InputError, ModelError
from lwap.training.card import MergedPart, write_merge_card
from lwap.training.dev_evaluation import DevSet
from lwap.training.save import command_of_card

ALIKE = ("objective", "mode", "pooling", "triplets", "metric")  # kept where all agree


@dataclass(frozen=True)
class Merged:
    """Several checkpoints as one.

    Attributes:
        model: In eval mode; with adapters in its encoder where `contains` is "adapter".
        parts: What each of the checkpoints says of itself.
        weights: Of their changes, one each.
        contains: What of the encoder is to be saved: "head", "adapter" or "encoder".
        encoder: From `identify_encoder`.
        rank: Of the adapters; None where there are none.
        held: Share of the encoder's squared change that they hold.
        results: Measured on the dev set; empty without one.
    """

    model: SentenceTransformer
    parts: tuple[CheckpointInfo, ...]
    weights: tuple[float, ...]
    contains: str
    encoder: Mapping[str, Any]
    rank: int | None
    held: float | None
    results: Mapping[str, Any]

    @property
    def is_average(self) -> bool:
        """Whether all weights are one over their number."""
        return all(math.isclose(weight * len(self.weights), 1) for weight in self.weights)


def merge_checkpoints(
    names: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    dev_pairs: pd.DataFrame | None = None,
    dev_name: str = "dev",
    progress: Progress | None = None,
) -> Merged:
    """Add up what several runs changed in the same encoder.

    With θ₀ the encoder before, θ_i and φ_i the encoder and the pooling of run i:

        θ = θ₀ + Σ_i w_i (θ_i − θ₀)        φ = Σ_i w_i φ_i / Σ_i w_i

    The poolings have no common start that is known, so they are averaged.

    Args:
        names: Two or more checkpoints of one encoder and one pooling, as `lwap.load` takes them.
        weights: w, above 0, one a name; None is 1/n, the average.
        rank: Keep the change of the encoder as low-rank adapters of this rank, which take a
            fraction of its size; None keeps all of the encoder.
        dev_pairs: Columns sentence1, sentence2, score, to measure the result on.
        dev_name: What the results call them.
        progress: Over the sentences of the dev set.

    Raises:
        InputError: If there are fewer than two, or one is named twice.
        ModelError: If there is no such checkpoint, or its encoder cannot be had.
        ConfigError: If the weights or the rank are not positive, are not one a name, or would have
            no effect.
        CheckpointError: If they differ in encoder or pooling, or one is damaged.

    Sources: Wortsman et al. 2022 (Model soups); Ilharco et al. 2023 (Editing models with task
    arithmetic), where the weights are scaling coefficients.
    """
    parts = _parts(names)
    weights = _weights(weights, names)
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
    _merge_into(
        model,
        (load(str(part.folder)) for part in parts[1:]),
        weights,
        dict(layerwise_transformer(before).model.named_parameters()),
    )
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
    return Merged(model.eval(), parts, weights, contains, encoder, rank, held, results)


def save_merged(
    merged: Merged, folder: Path, *, name: str, dev_sha256: str = "", command: str = ""
) -> Path:
    """Write a merged model as a checkpoint, with its model card.

    Args:
        merged: Of `merge_checkpoints`.
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
        if (value := merged.parts[0].training.get(key)) is not None
        and all(part.training.get(key) == value for part in merged.parts)
    }
    small = {} if merged.held is None else {"rank": merged.rank, "held": round(merged.held, 4)}
    data = " + ".join(dict.fromkeys(filter(None, (part.trained_on for part in merged.parts))))
    training = {
        **alike,
        **({"data": data} if data else {}),
        "merged": [part.name for part in merged.parts],
        "weights": list(merged.weights),
        **small,
    }
    card = write_merge_card(
        name,
        merged.encoder["encoder_id"],
        [_card_part(part, merged, place) for place, part in enumerate(merged.parts)],
        is_average=merged.is_average,
        options=merged.parts[0].options,
        pooling=merged.parts[0].pooling,
        training=training,
        contains=merged.contains,
        results=merged.results,
        dev_sha256=dev_sha256,
        command=command,
    )
    return save_checkpoint(
        merged.model,
        folder,
        name=name,
        **merged.encoder,
        training=training,
        results=merged.results,
        card=card,
        contains=merged.contains,
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
        raise InputError("A merge needs two checkpoints or more.")
    parts = tuple(read_info(folder, _name_of(folder)) for folder in folders)
    for part in parts[1:]:
        for what, own, other in (
            ("encoder", parts[0].encoder, part.encoder),
            ("pooling", parts[0].pooling, part.pooling),
            ("options of the pooling", dict(parts[0].options), dict(part.options)),
        ):
            if own != other:
                raise CheckpointError(
                    f"'{parts[0].name}' and '{part.name}' cannot be merged: their {what} "
                    f"differ, {own} and {other}. Merge runs that differ in seed, data, objective "
                    "or temperature alone."
                )
    return parts


def _name_of(folder: Path) -> str:
    """Return the name of a checkpoint by its folder: a run's, where it lies in one."""
    return folder.parent.name if folder.name == "model" else folder.name


def _weights(weights: Sequence[float] | None, names: Sequence[str]) -> tuple[float, ...]:
    if weights is None:
        return (1 / len(names),) * len(names)
    if len(weights) != len(names):
        raise ConfigError(
            f"weights has {len(weights)} values for {len(names)} checkpoints; give one each."
        )
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"weights has {weight}; each must be a number above 0.")
    return tuple(map(float, weights))


def _merge_into(
    model: SentenceTransformer,
    others: Iterable[SentenceTransformer],
    weights: Sequence[float],
    before: Mapping[str, torch.Tensor],
) -> None:
    """Give a model the merged weights of itself and others, summed in double precision.

    Args:
        model: The first; becomes the result.
        others: The rest, in the order of their weights.
        weights: w, one each.
        before: The encoder's parameters before any run, by name.
    """
    total = sum(weights)
    own = _state(model)
    sums = {key: weights[0] * value.double() for key, value in own.items()}
    for other, weight in zip(others, weights[1:], strict=True):  # one at a time in memory
        state = _state(other)
        if {key: value.shape for key, value in state.items()} != {
            key: value.shape for key, value in own.items()
        }:
            raise CheckpointError("These checkpoints have weights of other names or shapes.")
        for key, value in sums.items():
            value.add_(state[key], alpha=weight)
    prefix = "0.model."  # of the encoder's parameters in the whole model
    with torch.no_grad():
        for key, value in sums.items():
            start = before.get(key.removeprefix(prefix)) if key.startswith(prefix) else None
            if start is None:  # of the pooling
                own[key].copy_(value / total)
            else:
                own[key].copy_(start.double() * (1 - total) + value)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {key: value for key, value in state.items() if value.is_floating_point()}


def _card_part(part: CheckpointInfo, merged: Merged, place: int) -> MergedPart:
    score = part.results.get("dev_spearman", {})
    own = [value for key, value in score.items() if key not in ("mean", "cls")]
    return MergedPart(
        name=part.name,
        weight=merged.weights[place],
        settings={**part.training},
        dev=own[0]["value"] if own else None,
        command=command_of_card(part),
    )
