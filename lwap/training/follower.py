"""What goes beside the steps: dev evaluations, checkpoints, stops, divergence."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
)
from torch import distributed
from transformers import TrainerCallback

from lwap.errors import ConfigError, LwapError
from lwap.training.config import Mode, TrainConfig
from lwap.training.dev_evaluation import DevSet

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


def world_size() -> int:
    """Return how many processes train together under torchrun, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_first_process() -> bool:
    """Say whether this process is the one that reports and writes."""
    return int(os.environ.get("RANK", "0")) == 0


class Follower(TrainerCallback):
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

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
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

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step
        if _agreed(self.should_stop is not None and self.should_stop()):
            self.is_stopped = control.should_training_stop = True
            control.should_save = math.isfinite(self.save_seconds)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
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

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
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

    def look(self, state: Any) -> None:
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


def flush(file: Path) -> None:
    """Have the disk hold what was written, so that a rename never goes before its content."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
