"""The loop of a run: sentence-transformers' trainer, the looks at the dev set, checkpoints, stops.

A run's events are plain dictionaries, for whoever follows it:

    {"event": "start", "step", "steps", "untouched"}     the untouched encoder's dev score
    {"event": "step", "step", "steps", "loss", "grad_norm", "learning_rate", "seconds", "rows"}
    {"event": "look", "step", "steps", "loss", "dev", "alignment", "uniformity", "layer_weights"}
    {"event": "resume", "step"}      what was said of later steps is said again
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from safetensors import SafetensorError
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch import distributed, nn
from transformers.trainer_callback import PrinterCallback

from lwap.encoding.bank import layerwise_transformer
from lwap.encoding.hardware import Precision, resolve_precision
from lwap.errors import CheckpointError, LwapError
from lwap.registry import OBJECTIVES, resolve
from lwap.training.config import Mode, TrainConfig
from lwap.training.dev_evaluation import DevSet
from lwap.training.examples import Examples
from lwap.training.follower import (
    SAVE_SECONDS,
    Follower,
    Log,
    RunStopped,
    Stop,
    flush,
    is_first_process,
    world_size,
)
from lwap.training.frozen import VIEWS, view
from lwap.training.model import reading_at_most
from lwap.training.run_checkpoints import CHECKPOINT, checkpoints, last_checkpoint, remove


@dataclass(frozen=True)
class Course:
    """How a run went.

    Attributes:
        history: A row a look at the dev set.
        best_step: The step whose weights the model has now.
        diverged_at: The step at which the run was ended because its loss was no number, or far
            above where it began; None for a run that went to its end.
    """

    history: pd.DataFrame
    best_step: int
    diverged_at: int | None


def fit(
    config: TrainConfig,
    model: SentenceTransformer,
    seen: SentenceTransformer,
    examples: Examples,
    dev: DevSet,
    *,
    log: Log | None = None,
    folder: Path | None = None,
    should_stop: Stop | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> Course:
    """Train `model` in place and leave it at its best step.

    Args:
        config: The settings.
        model: What is trained and looked at.
        seen: What the trainer sees: the model, or its pooling behind summaries of an encoder.
        examples: The rows.
        dev: What the best step is chosen by.
        log: Called with each event.
        folder: Where checkpoints go; the run goes on from the last one that is there.
        should_stop: Asked after each step.
        save_seconds: Least time between two checkpoints.

    Raises:
        RunStopped: After the checkpoint is written.
        CheckpointError: If a checkpoint cannot be written or read.
        LwapError: If the run diverged before anything was learned, or memory is too small.
    """
    assert config.epochs is not None and config.learning_rate is not None  # the mode's
    is_frozen = seen is not model
    transformer = layerwise_transformer(model)
    device = torch.device("cpu") if is_frozen else transformer.device
    is_bf16 = not is_frozen and resolve_precision(config.precision, device) == Precision.BF16
    steps = planned_steps(config, len(dataset := _dataset(config, examples)), world_size())
    disable_progress_bar()
    rates: dict[str, Any] = {}
    if config.has_own_head_rate:
        rates[r"model\.[1-9]"] = config.head_learning_rate
    start = last_checkpoint(folder) if folder else None
    candidates = config.batch_size * world_size() * (len(dataset.column_names) - 1)
    follower = Follower(
        config, model, dev, log, should_stop, save_seconds if folder else math.inf, candidates
    )
    with (
        tempfile.TemporaryDirectory(prefix="lwap-train-") as scratch,
        reading_at_most(transformer, 0 if is_frozen else config.max_tokens),
    ):
        trainer = _Trainer(
            model=seen,
            args=SentenceTransformerTrainingArguments(
                output_dir=str(folder or scratch),
                num_train_epochs=config.epochs,
                max_steps=steps if config.max_steps else -1,
                per_device_train_batch_size=config.batch_size,
                gradient_accumulation_steps=config.accumulation,
                learning_rate=config.learning_rate,
                learning_rate_mapping=rates,
                warmup_steps=math.ceil(config.warmup * steps),
                weight_decay=config.weight_decay,
                seed=config.seed,
                bf16=is_bf16,
                dataloader_drop_last=True,
                logging_steps=1,
                logging_nan_inf_filter=False,  # it would log the mean of the losses before
                save_strategy="no",  # the follower says when
                report_to=[],
                disable_tqdm=True,
                use_cpu=device.type == "cpu",
                ddp_backend="gloo" if _is_gloo(device) else None,
            ),
            train_dataset=dataset,
            loss=_loss(config, seen),
            callbacks=[follower],
        )
        trainer.follower = follower
        trainer.remove_callback(PrinterCallback)  # `log` reports instead
        with _readable_failures(config, follower):
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    if follower.is_stopped:
        raise RunStopped(follower.step, steps)
    best_step = follower.finish()
    model.eval()
    return Course(pd.DataFrame(follower.rows), best_step, follower.diverged_at)


def planned_steps(config: TrainConfig, rows: int, processes: int = 1) -> int:
    """Return how many steps a run over that many rows of its dataset takes."""
    assert config.epochs is not None  # the mode's, where nobody said
    batches = rows // (config.batch_size * processes)
    steps = math.ceil(batches / config.accumulation) * config.epochs
    return min(steps, config.max_steps) if config.max_steps else steps


def dataset_rows(config: TrainConfig, rows: int) -> int:
    """Return the rows of the trainer's dataset: a frozen encoder gives several pairs of views."""
    has_views = config.mode == Mode.HEAD and not config.has_positives
    return rows * VIEWS // 2 if has_views else rows


def _is_gloo(device: torch.device) -> bool:
    return world_size() > 1 and device.type == "cpu"


def _loss(config: TrainConfig, seen: SentenceTransformer) -> nn.Module:
    """Return the objective; under torchrun the candidates of all processes are negatives."""
    return resolve(OBJECTIVES[config.objective].loss)(seen, config, world_size() > 1)


def _dataset(config: TrainConfig, examples: Examples) -> Dataset:
    """Return the columns that the loss takes."""
    if config.has_positives:
        names = ("anchor", "positive", "negative")
        return Dataset.from_dict(dict(zip(names, examples.columns, strict=False)))
    (texts,) = examples.columns
    if config.mode != Mode.HEAD:  # the same twice: dropout differs
        return Dataset.from_dict({"anchor": texts, "positive": texts})
    pairs = [(view(t, n), view(t, n + 1)) for n in range(0, VIEWS, 2) for t in texts]
    anchors, positives = zip(*pairs, strict=True)
    return Dataset.from_dict({"anchor": list(anchors), "positive": list(positives)})


class _Trainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer with checkpoints that are whole or not there.

    A checkpoint holds what training changes, not the model, and no training arguments, which are a
    pickle. It is written beside and renamed. No model card: this project writes its own.
    """

    follower: Follower

    @property
    def _folder(self) -> Path:
        assert self.args.output_dir is not None  # `fit` sets it
        return Path(self.args.output_dir)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        pass

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = self._folder / f"{CHECKPOINT}{self.state.global_step}"
        partial = final.parent / f".{final.name}"
        try:
            super()._save_checkpoint(model, trial)
            if distributed.is_available() and distributed.is_initialized():
                distributed.barrier()  # each process writes the state of its random numbers
            if is_first_process():
                made = partial / final.name
                for file in made.iterdir():
                    flush(file)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(made, final)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"The checkpoint of step {self.state.global_step} could not be written "
                f"({getattr(error, 'strerror', None) or error}). Free some space on the disk of "
                f"'{self.args.output_dir}' and resume: the run goes on from the checkpoint before."
            ) from error
        finally:
            if is_first_process():
                shutil.rmtree(partial, ignore_errors=True)
        for step, older in checkpoints(final.parent):
            if step < self.state.global_step and is_first_process():
                remove(older)

    def _get_output_dir(self, trial: Any) -> str:
        # Where `_save_checkpoint` writes: beside, until it is whole.
        return str(self._folder / f".{CHECKPOINT}{self.state.global_step}")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir) if output_dir else self._folder
        folder.mkdir(parents=True, exist_ok=True)
        self.follower.save(folder)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        self.follower.load(Path(checkpoint_path))


@contextlib.contextmanager
def _readable_failures(config: TrainConfig, follower: Follower) -> Iterator[None]:
    """Turn what memory and damaged checkpoints raise into errors that say what to do."""
    try:
        yield
    except LwapError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(config, follower.step) from error
    except RuntimeError as error:
        if "allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise _out_of_memory(config, follower.step) from error
        raise
    except (SafetensorError, json.JSONDecodeError, KeyError, FileNotFoundError) as error:
        if follower.step:  # not on the way in
            raise
        raise CheckpointError(
            f"The checkpoint of this run cannot be read ({error}). Delete its folder "
            f"'{CHECKPOINT}N' to start from the first step."
        ) from error


def _out_of_memory(config: TrainConfig, step: int) -> LwapError:
    advice = "a smaller batch_size"
    if config.mode != Mode.HEAD:
        advice = (
            "mini_batch, which keeps the batch and its negatives (GradCache), a smaller "
            "batch_size, a lower max_tokens"
        )
        if config.mode == Mode.FULL:
            advice += ", or mode 'lora'"
    return LwapError(
        f"Memory did not suffice at step {step + 1} with batch_size {config.batch_size}. Try "
        f"{advice}."
    )
