"""One training run: data, what is trained, the loop, the best step.

The loop is sentence-transformers' trainer. A head sees cached summaries of a frozen encoder; LoRA
and full runs see the encoder itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from lwap.checkpoints.cached import Count
from lwap.checkpoints.load import load
from lwap.checkpoints.manifest import Contents, starting_checkpoint
from lwap.encoding.bank import Progress
from lwap.errors import ConfigError
from lwap.pooling.head import LayerHead
from lwap.training.config import Mode, TrainConfig
from lwap.training.dev_evaluation import DevSet, check_dev, dev_texts
from lwap.training.examples import Examples
from lwap.training.follower import SAVE_SECONDS, Log, RunStopped, Stop
from lwap.training.loop import fit
from lwap.training.model import new_model, on_summaries


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        model: The encoder with its trained pooling, in eval mode.
        config: The settings.
        metric: What the best step was chosen by: "Spearman × 100 on NAME", or "in-batch accuracy".
        history: A row a look at the dev set: step, loss (mean since the last look), dev,
            alignment, uniformity, layer_weights.
        best_step: The step that was kept.
        diverged_at: The step at which the run was ended because it diverged; None if it was not.
        results: Measured on the dev set, as written into the manifest.
        triplets: Rows trained on.
        unit: What a row is: "triplets", "pairs" or "sentences".
        dropped: What was left out of the rows, by reason: how many.
        seconds: Duration by part: encoding, training, dev.
    """

    model: SentenceTransformer
    config: TrainConfig
    metric: str
    history: pd.DataFrame
    best_step: int
    diverged_at: int | None
    results: dict[str, Any]
    triplets: int
    unit: str
    dropped: dict[str, int]
    seconds: dict[str, float]


def train(
    config: TrainConfig,
    data: pd.DataFrame | Sequence[str],
    dev_pairs: pd.DataFrame | None = None,
    *,
    dev_name: str = "dev",
    progress: Progress | None = None,
    log: Log | None = None,
    folder: Path | None = None,
    should_stop: Stop | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> TrainResult:
    """Train a pooling, and its encoder if so configured, with a contrastive objective.

    Args:
        config: The settings.
        data: Supervised: columns sent0, sent1 (positive) and perhaps hard_neg, from
            `lwap.datasets.readers.read_triplets`. Unsupervised: sentences. Rows that cannot be
            used are left out, see `lwap.training.examples`.
        dev_pairs: Columns sentence1, sentence2, score: the best step is chosen by Spearman on
            them. Without it a tenth of the rows is held out, and the step chosen by how often
            the positive comes first among all candidates; needs the supervised objective.
        dev_name: What to call the dev set in the results.
        progress: As in `encode_layers`, over what is encoded before the first step.
        log: Called with each event of the run, see `lwap.training.loop`.
        folder: Where checkpoints go, at looks and at a stop. A run goes on from the last one that
            is there, to the same losses and weights as if it had not been interrupted.
        should_stop: Asked before the first step while sentences are encoded, and after each step.
        save_seconds: Least time between two checkpoints.

    Raises:
        InputError: If a column is missing, or the dev pairs have no scores that can be ranked.
        ConfigError: If a batch is larger than the data, or a setting would be ignored.
        ModelError: If the encoder cannot be had.
        RunStopped: If it was stopped; resume it by the same call.
        CheckpointError: If a checkpoint cannot be written or read.
        LwapError: If the run diverged before anything was learned, or memory is too small.
    """
    started = time.perf_counter()
    examples = Examples.of(data, config.objective)
    check_dev(config, dev_pairs)
    encoder = load(config.encoder)
    start = starting_checkpoint(config.encoder)
    is_head = start is None or start.contains == Contents.HEAD
    if is_head and any(isinstance(module, LayerHead) for module in encoder):
        raise ConfigError(
            f"'{config.encoder}' is a checkpoint with a head. Train from its encoder instead."
        )
    held_out = None
    if dev_pairs is None:
        examples, held_out = examples.hold_out(config.seed)
    examples.check_batch(config)

    encoded_now = examples.texts if config.mode == Mode.HEAD else []
    counted = Count(
        _stoppable(progress, should_stop), len(encoded_now) + len(dev_texts(dev_pairs, held_out))
    )
    dev = DevSet(
        encoder,
        dev_pairs,
        held_out,
        is_frozen=config.mode == Mode.HEAD,
        precision=config.precision,
        progress=counted.advance,
    )
    counted.close()
    set_seed(config.seed)
    model = new_model(config, encoder)
    seen = model
    if config.mode == Mode.HEAD:
        seen = on_summaries(config, model, examples, counted.advance)
    encoded = time.perf_counter()
    course = fit(
        config,
        model,
        seen,
        examples,
        dev,
        log=log,
        folder=folder,
        should_stop=should_stop,
        save_seconds=save_seconds,
    )
    done = time.perf_counter()

    model.lwap_name = config.encoder  # type: ignore[assignment]  # torch expects tensors
    results = {
        **dev.results(
            model,
            dev_name,
            config.pooling,
            published=None if start is None else load(start.encoder),
        ),
        "best_step": course.best_step,
    }
    if course.diverged_at is not None:
        results["diverged_at"] = course.diverged_at
    metric = f"Spearman × 100 on {dev_name}"
    if held_out is not None:
        metric = f"in-batch accuracy on {len(held_out)} held-out {held_out.unit}"
    return TrainResult(
        model=model.eval(),
        config=config,
        metric=metric,
        history=course.history,
        best_step=course.best_step,
        diverged_at=course.diverged_at,
        results=results,
        triplets=len(examples),
        unit=examples.unit,
        dropped={str(each.reason): each.count for each in examples.dropped},
        seconds={
            "encoding": encoded - started,
            "training": done - encoded,
            "dev": time.perf_counter() - done,
        },
    )


def _stoppable(progress: Progress | None, should_stop: Stop | None) -> Progress | None:
    if should_stop is None:
        return progress

    def checked(done: int, total: int) -> None:
        if should_stop():
            raise RunStopped(0, 0)
        if progress is not None:
            progress(done, total)

    return checked
