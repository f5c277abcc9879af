"""How long a run takes on this machine, and how much memory and disk it needs.

Time is measured: a probe on the real encoder with some of the real sentences, scaled by tokens.
Memory and disk are formulas.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sentence_transformers import SentenceTransformer

from lwap.encoding.bank import layerwise_transformer
from lwap.training.check import DataCheck
from lwap.training.config import TrainConfig
from lwap.training.examples import Examples
from lwap.training.follower import world_size
from lwap.training.loop import dataset_rows, planned_steps
from lwap.training.memory import (
    Memory,
    Size,
    disk_bytes,
    disk_problems,
    existing_parent,
    memory_of,
    memory_problems,
)
from lwap.training.probe import Probe
from lwap.training.timing import seconds_of


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        seconds: By part: start, encoding, training, looks. A run that `patience` ends takes less.
        steps: Of the optimiser.
        memory: Of the machine, and of the accelerator if the encoder is on one.
        disk: Bytes that are written at most at one time: the model, and two checkpoints, since one
            is written beside the one before.
        disk_free: Bytes free where they are written; None without a folder.
        problems: Why the run would not end well, a sentence each or more.
    """

    seconds: dict[str, float]
    steps: int
    memory: tuple[Memory, ...]
    disk: int
    disk_free: int | None
    problems: tuple[str, ...]

    @property
    def total_seconds(self) -> float:
        """From the start to the finished model."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, totals included."""
        memory = [asdict(each) | {"total": each.total} for each in self.memory]
        found = asdict(self) | {"memory": memory, "problems": list(self.problems)}
        return found | {"total_seconds": self.total_seconds}


def estimate(
    config: TrainConfig,
    data: DataCheck | Examples,
    encoder: SentenceTransformer,
    dev_pairs: pd.DataFrame | None = None,
    *,
    folder: str | Path | None = None,
) -> Estimate:
    """Say what a run would take, before it is started.

    Within a factor of 1.3 of what nine runs on a processor took (docs/experiments.md): memory 0.96
    to 1.22 times the measured peak, time 1.12 to 1.26. A machine that is busy with other work is
    slower by what that takes. On an accelerator neither was measured.

    Args:
        config: The settings.
        data: What `check_data` gave, or the examples: all of them are trained on.
        encoder: From `lwap.load`; it is copied and not changed.
        dev_pairs: As for `train`.
        folder: Where the run writes.

    Raises:
        InputError, ModelError: As `encode_layers`.
    """
    examples = data.examples if isinstance(data, DataCheck) else data
    device = layerwise_transformer(encoder).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return _estimate(config, data, examples, encoder, dev_pairs, folder)


def _estimate(
    config: TrainConfig,
    data: DataCheck | Examples,
    examples: Examples,
    encoder: SentenceTransformer,
    dev_pairs: pd.DataFrame | None,
    folder: str | Path | None,
) -> Estimate:
    probe = Probe(config, examples, encoder)
    steps = planned_steps(config, dataset_rows(config, len(examples)), world_size())
    dev_texts = _dev_texts(data, dev_pairs)
    size = Size.of(config, probe.model)
    memory = memory_of(config, examples, len(dev_texts), size, probe)
    disk = disk_bytes(config, size)
    disk_free = None if folder is None else shutil.disk_usage(existing_parent(Path(folder))).free
    problems = [*memory_problems(config, memory), *disk_problems(disk, disk_free, folder)]
    return Estimate(
        seconds=seconds_of(config, examples, dev_texts, steps, size, probe),
        steps=steps,
        memory=memory,
        disk=disk,
        disk_free=disk_free,
        problems=tuple(problems),
    )


def _dev_texts(data: DataCheck | Examples, pairs: pd.DataFrame | None) -> list[str]:
    if pairs is not None:
        return list(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))
    if not isinstance(data, DataCheck):
        return []
    # The rows that are held out are not here; rows that are trained on are as long.
    rows = data.examples.table.iloc[: data.rows_held_out]
    return list(dict.fromkeys(text for name in rows for text in rows[name]))
