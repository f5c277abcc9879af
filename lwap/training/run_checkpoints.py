"""The checkpoints of a run's folder, as files. Knows no models, and loads no torch."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

CHECKPOINT = "checkpoint-"  # and the step


def last_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the highest step in a run's folder; None without one."""
    found = sorted(checkpoints(folder))
    return found[-1][1] if found else None


def checkpoint_step(folder: Path) -> int | None:
    """Return the step from which a run in `folder` would go on; None without a checkpoint."""
    last = last_checkpoint(folder)
    return int(last.name.removeprefix(CHECKPOINT)) if last else None


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that needs them no longer, and what a killed one left."""
    for _, each in checkpoints(folder):
        remove(each)
    for left in folder.glob(f".{CHECKPOINT}*"):
        shutil.rmtree(left, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a folder; killed on the way, it is not found under its name."""
    hidden = folder.with_name(f".{folder.name}.gone")
    with contextlib.suppress(OSError):
        os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield step and folder of each checkpoint of a run that is whole."""
    for each in folder.glob(f"{CHECKPOINT}*"):
        number = each.name.removeprefix(CHECKPOINT)
        if number.isdigit() and each.is_dir():
            yield int(number), each
