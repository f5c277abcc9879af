"""A run's events: written one a line, read again while they are written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lwap.jobs.folder import METRICS, Run


class EventLog:
    """Appends events to a run's metrics, each on a line of its own."""

    def __init__(self, run: Run) -> None:
        file = run.folder / METRICS
        is_torn = False  # by a worker that was killed while it wrote
        if file.exists() and file.stat().st_size:
            with file.open("rb") as opened:
                opened.seek(-1, os.SEEK_END)
                is_torn = opened.read(1) != b"\n"
        self._file = file.open("a", encoding="utf-8")
        if is_torn:
            self._file.write("\n")

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event; it can be read at once."""
        # JSON knows no NaN: what is no number is null.
        plain = {name: None if _is_no_number(value) else value for name, value in event.items()}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """End it."""
        self._file.close()


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


@dataclass
class History:
    """What happened in a run so far, by step; what a resumed run said again counts once.

    Attributes:
        steps: An event a step: step, loss, grad_norm, learning_rate, seconds, rows.
        looks: An event a look, NaN where there is no number: step, loss, dev, alignment,
            uniformity, perhaps layer_weights.
        planned: Steps of the whole run; 0 while that is not known.
        untouched: Dev score of the untouched encoder's mean; None while that is not known.
        resumed_at: The steps from which it went on.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    planned: int = 0
    untouched: float | None = None
    resumed_at: list[int] = field(default_factory=list)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one more event in."""
        kind, step = event.get("event"), event.get("step")
        if not isinstance(step, int):
            return
        if kind == "resume":
            self.resumed_at.append(step)
            _cut(self.steps, step)
            _cut(self.looks, step)
        elif kind == "start":
            self.planned = int(event.get("steps", self.planned))
            self.untouched = event.get("untouched")
        elif kind in ("step", "look"):
            rows = self.steps if kind == "step" else self.looks
            _cut(rows, step - 1)  # a run without a checkpoint begins again at the first step
            rows.append(
                {
                    name: math.nan if value is None else value
                    for name, value in event.items()
                    if name != "event"
                }
            )
            self.planned = int(event.get("steps", self.planned))

    @property
    def best(self) -> dict[str, Any] | None:
        """The look with the highest dev score, the first of equals; None without any."""
        finite = [look for look in self.looks if look.get("dev") == look.get("dev")]
        return max(finite, key=lambda look: look["dev"], default=None)

    def seconds_left(self, last: int = 20) -> float | None:
        """Return how long the remaining steps take at the pace of the last ones."""
        recent = [row["seconds"] for row in self.steps[-last:] if "seconds" in row]
        if not recent or not self.planned:
            return None
        return (self.planned - self.steps[-1]["step"]) * sum(recent) / len(recent)


def _cut(rows: list[dict[str, Any]], step: int) -> None:
    while rows and rows[-1]["step"] > step:
        rows.pop()


class Followed:
    """A run's history, read on from where the last reading ended."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.history = History()
        self._offset = 0
        self._file: tuple[int, int] | None = None

    def read(self) -> History:
        """Return the history up to now."""
        path = self.run.folder / METRICS
        try:
            with path.open("rb") as file:
                known = os.fstat(file.fileno())
                if self._file != (known.st_dev, known.st_ino) or known.st_size < self._offset:
                    self.history, self._offset = History(), 0  # another file under the name
                    self._file = (known.st_dev, known.st_ino)
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return self.history
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # torn
                continue
            if isinstance(event, dict):
                self.history.add(event)
        return self.history


def read_history(folder: Path) -> History:
    """Return the whole history of a run's folder."""
    return Followed(Run(folder)).read()
