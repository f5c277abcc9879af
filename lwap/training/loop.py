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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch import distributed, nn
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from lwap.encoding.bank import layerwise_transformer
from lwap.encoding.hardware import Precision, resolve_precision
from lwap.errors import CheckpointError, ConfigError, LwapError
from lwap.registry import OBJECTIVES, resolve
from lwap.training.config import Mode, TrainConfig
from lwap.training.dev_evaluation import DevSet
from lwap.training.examples import Examples
from lwap.training.frozen import VIEWS, view
from lwap.training.model import reading_at_most
from lwap.training.run_checkpoints import CHECKPOINT, checkpoints, last_checkpoint, remove

SAVE_SECONDS = 30.0  # between two checkpoints, which are written at looks
WEIGHTS, BEST, COURSE = "trained.safetensors", "best.safetensors", "course.json"
RECENT = 10  # steps over which a loss that went up is averaged

Log = Callable[[dict[str, Any]], None]
Stop = Callable[[], bool]


class RunStopped(LwapError):
    """A run was asked to stop, and did.

    Attributes:
        step: The step that it had reached; a checkpoint of it was written if it has a folder.
    """

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"Stopped at step {step} of {steps}." if steps else "Stopped.")
        self.step = step


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
    is_frozen = seen is not model
    transformer = layerwise_transformer(model)
    device = torch.device("cpu") if is_frozen else transformer.device
    is_bf16 = not is_frozen and resolve_precision(config.precision, device) == Precision.BF16
    steps = planned_steps(config, len(dataset := _dataset(config, examples)), world_size())
    disable_progress_bar()
    rates = {r"model\.[1-9]": config.head_learning_rate} if config.has_own_head_rate else {}
    start = last_checkpoint(folder) if folder else None
    candidates = config.batch_size * world_size() * (len(dataset.column_names) - 1)
    follower = _Follower(
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
                **({"ddp_backend": "gloo"} if _is_gloo(device) else {}),
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
    batches = rows // (config.batch_size * processes)
    steps = math.ceil(batches / config.accumulation) * config.epochs
    return min(steps, config.max_steps) if config.max_steps else steps


def dataset_rows(config: TrainConfig, rows: int) -> int:
    """Return the rows of the trainer's dataset: a frozen encoder gives several pairs of views."""
    has_views = config.mode == Mode.HEAD and not config.has_positives
    return rows * VIEWS // 2 if has_views else rows


def world_size() -> int:
    """Return how many processes train together under torchrun, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_first_process() -> bool:
    """Say whether this process is the one that reports and writes."""
    return int(os.environ.get("RANK", "0")) == 0


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


# --- following the trainer ----------------------------------------------------------------------


class _Follower(TrainerCallback):
    """Looks at the dev set every k steps, keeps the best weights, says when to save and stop."""

    def __init__(
        self,
        config: TrainConfig,
        model: SentenceTransformer,
        dev: DevSet,
        log: Log | None,
        should_stop: Stop | None,
        save_seconds: float,
        candidates: int,
    ) -> None:
        self.chance = math.log(candidates)
        self.config, self.model, self.dev, self.log = config, model, dev, log
        self.should_stop, self.save_seconds = should_stop, save_seconds
        self.rows: list[dict[str, Any]] = []
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None
        self.losses: list[float] = []  # since the last look
        self.recent: list[float] = []  # the last few
        self.lowest = math.inf  # of the medians of recent losses
        self.diverged_at: int | None = None
        self.is_stopped = False
        self.since_best = self.step = self.steps = 0
        self.saved_at = self.ticked_at = time.perf_counter()

    # What the trainer calls.

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.steps = state.max_steps
        if self.rows:
            self.step = state.global_step
            self.say({"event": "resume", "step": state.global_step})
        else:
            untouched = self.dev.untouched() if is_first_process() else None
            start = {"event": "start", "step": state.global_step, "steps": state.max_steps}
            self.say({**start, "untouched": untouched})
            self.look(state)
        self.ticked_at = self.saved_at = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.step = state.global_step
        if _agreed(self.should_stop is not None and self.should_stop()):
            self.is_stopped = control.should_training_stop = True
            control.should_save = math.isfinite(self.save_seconds)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        loss, now, step = float(logs["loss"]), time.perf_counter(), state.global_step
        self.losses.append(loss)
        self.recent = [*self.recent, loss][-RECENT:]
        self.lowest = min(self.lowest, float(np.median(self.recent)))
        self.say(
            {
                "event": "step",
                "step": step,
                "steps": state.max_steps,
                "loss": loss,
                "grad_norm": float(logs.get("grad_norm", math.nan)),
                "learning_rate": float(logs["learning_rate"]),
                "seconds": now - self.ticked_at,
                "rows": self.config.batch_size * self.config.accumulation * world_size(),
            }
        )
        if self.has_diverged():
            self.diverged_at = step
            self.is_stopped = control.should_save = False
            control.should_training_stop = True
        is_due = step % self.config.eval_steps == 0 or step == state.max_steps
        if self.diverged_at is not None or is_due:
            self.look(state)
            if len(self.rows) > 2 and all(math.isnan(row["dev"]) for row in self.rows[-2:]):
                # Twice the same vector for all sentences: nothing brings it back.
                self.diverged_at = self.diverged_at or step
                control.should_training_stop = True
            is_last = step == state.max_steps or self.diverged_at is not None
            if not is_last and _agreed(now - self.saved_at > self.save_seconds):
                control.should_save = True
        if self.config.patience and self.since_best >= self.config.patience:
            control.should_training_stop = True
        self.ticked_at = time.perf_counter()

    def on_save(self, args, state, control, **kwargs) -> None:
        self.saved_at = self.ticked_at = time.perf_counter()

    # What it keeps.

    def has_diverged(self) -> bool:
        """Say whether the loss is no number, or went up to chance or beyond and stays there.

        Chance is the loss of a model that takes all candidates of a batch for equally good.
        """
        if not math.isfinite(self.recent[-1]):
            return True
        if len(self.recent) < RECENT:
            return False
        median = float(np.median(self.recent))
        is_lost = median > 2 * self.lowest and median > 0.8 * self.chance
        return is_lost or median > 1.2 * max(self.lowest, self.chance)

    def look(self, state) -> None:
        """Measure the model on the dev set, in the first process, and keep it if it is the best."""
        found = None
        if is_first_process():
            was_training = self.model.training
            found = self.dev.look(self.model.eval())
            self.model.train(was_training)
        row = {
            "step": state.global_step,
            "steps": state.max_steps,
            "loss": float(np.mean(self.losses)) if self.losses else float("nan"),
            **_of_first(found),
        }
        self.losses = []
        self.rows.append(row)
        self.say({"event": "look", **row})
        self.since_best += 1
        if np.isfinite(row["dev"]) and (self.best is None or row["dev"] > self.best[0]):
            weights = {name: value.detach().cpu().clone() for name, value in self.weights().items()}
            self.best, self.since_best = (row["dev"], state.global_step, weights), 0

    def say(self, event: dict[str, Any]) -> None:
        """Hand an event to whoever follows."""
        if self.log is not None and is_first_process():
            self.log(event)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return what training changes, by name."""
        names = {name for name, value in self.model.named_parameters() if value.requires_grad}
        if self.config.mode == Mode.HEAD:  # the encoder is not part of what is trained
            names = {name for name in names if not name.startswith("0.")}
        return {name: value for name, value in self.model.state_dict().items() if name in names}

    def restore(self, weights: dict[str, torch.Tensor]) -> None:
        """Put weights back."""
        self.model.load_state_dict(weights, strict=False)

    def finish(self) -> int:
        """Put the best weights back and return their step.

        Raises:
            LwapError: If there are none that were learned, because the run diverged.
        """
        has_collapsed = not np.isfinite([row["dev"] for row in self.rows[1:]]).any()
        is_lost = self.diverged_at is not None and self.best is not None and self.best[1] == 0
        if self.best is None or has_collapsed or is_lost:
            last = self.rows[-1]
            raise LwapError(
                f"The run diverged: at step {last['step']} the loss is {last['loss']:.3g} and the "
                f"dev score {last['dev']:.3g}, and no step was better than the untrained model "
                f"(learning_rate {self.config.learning_rate}, temperature "
                f"{self.config.temperature}). Lower the learning rate."
            )
        _, best_step, weights = self.best
        self.restore(weights)
        return best_step

    # A checkpoint's part of it.

    def save(self, folder: Path) -> None:
        """Write weights, best weights and course into a folder of a checkpoint."""
        save_file(_plain(self.weights()), folder / WEIGHTS)
        value, step, weights = self.best or (math.nan, -1, {})
        if weights:
            save_file(weights, folder / BEST)
        course = {
            "config": self.config.to_dict(),
            "rows": self.rows,
            "best": [value, step],
            "losses": self.losses,
            "recent": self.recent,
            "lowest": self.lowest,
            "since_best": self.since_best,
        }
        (folder / COURSE).write_text(json.dumps(course), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: If it is one of a run with other settings.
        """
        course = json.loads((folder / COURSE).read_text(encoding="utf-8"))
        changed = _changed(course["config"], self.config.to_dict())
        if changed:
            raise ConfigError(
                f"'{folder}' is a checkpoint of a run with other settings ({', '.join(changed)}). "
                "A run resumes with its own settings; start another for others."
            )
        self.restore(load_file(folder / WEIGHTS))
        self.rows, self.losses = course["rows"], course["losses"]
        self.recent, self.lowest = course["recent"], course["lowest"]
        self.since_best = course["since_best"]
        value, step = course["best"]
        self.best = (value, step, load_file(folder / BEST)) if step >= 0 else None


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name} {before.get(name)!r} → {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _plain(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in weights.items()}


def _agreed(verdict: bool) -> bool:
    """Return the first process' verdict: all must take the same way."""
    return bool(_of_first(verdict))


def _of_first(value: Any) -> Any:
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


class _Trainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer with checkpoints that are whole or not there.

    A checkpoint holds what training changes, not the model, and no training arguments, which are a
    pickle. It is written beside and renamed. No model card: this project writes its own.
    """

    follower: _Follower

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        pass

    def _save_checkpoint(self, model, trial) -> None:
        final = Path(self.args.output_dir) / f"{CHECKPOINT}{self.state.global_step}"
        partial = final.parent / f".{final.name}"
        try:
            super()._save_checkpoint(model, trial)
            if distributed.is_available() and distributed.is_initialized():
                distributed.barrier()  # each process writes the state of its random numbers
            if is_first_process():
                made = partial / final.name
                for file in made.iterdir():
                    _flush(file)
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

    def _get_output_dir(self, trial) -> str:
        # Where `_save_checkpoint` writes: beside, until it is whole.
        folder = Path(self.args.output_dir)
        return str(folder / f".{CHECKPOINT}{self.state.global_step}")

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.follower.save(folder)

    def _load_from_checkpoint(self, checkpoint_path: str, model=None) -> None:
        self.follower.load(Path(checkpoint_path))


def _flush(file: Path) -> None:
    """Have the disk hold what was written, so that a rename never goes before its content."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


# --- failures -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _readable_failures(config: TrainConfig, follower: _Follower) -> Iterator[None]:
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
