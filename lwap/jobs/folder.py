"""A run's folder: request, data, status. What is written there is whole or not there.

runs/<id>/
  config.json     what was asked for; never changes
  data.parquet    the training rows
  dev.parquet     scored pairs, if there are any
  worker.json     the process that works on it
  status.json     what that process last said of itself
  metrics.jsonl   events, see `lwap.training.loop`; only ever grows
  log.txt         what a person reads when something went wrong
  STOP            there while it is asked to stop
  checkpoint-N/   from which it goes on
  model/          what came out
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lwap.checkpoints.manifest import MANIFEST
from lwap.errors import InputError, LwapError
from lwap.jobs.state import Phase
from lwap.training.run_checkpoints import checkpoint_step

CONFIG, STATUS, WORKER, METRICS = "config.json", "status.json", "worker.json", "metrics.jsonl"
DATA, DEV, LOG, STOP, MODEL = "data.parquet", "dev.parquet", "log.txt", "STOP", "model"
FORMAT = 1
LONGEST_NAME = 80


@dataclass(frozen=True)
class Status:
    """What a worker last said.

    Attributes:
        phase: Of `Phase`.
        step, steps: Of the training; 0 before.
        done, total: Sentences encoded while preparing.
        message: Why it ended, or what it waits for.
        queued_at, started_at, updated_at: Seconds since 1970; 0 for what was not yet.
    """

    phase: Phase = Phase.NEW
    step: int = 0
    steps: int = 0
    done: int = 0
    total: int = 0
    message: str = ""
    queued_at: float = 0.0
    started_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True)
class Request:
    """What a run is asked for.

    Attributes:
        config: Fields of `TrainConfig`, all of them.
        given: Those that a person set.
        data_name, data_sha256: Of the training file.
        rows: In it.
        dev_name, dev_sha256: Of the scored pairs; "" without.
        command: That gives the run again.
        created_at: Seconds since 1970.
    """

    config: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    data_name: str = ""
    data_sha256: str = ""
    rows: int = 0
    dev_name: str = ""
    dev_sha256: str = ""
    command: str = ""
    created_at: float = 0.0


_REQUEST_TYPES = {
    **dict.fromkeys(("config", "given"), dict),
    **dict.fromkeys(("data_name", "data_sha256", "dev_name", "dev_sha256", "command"), str),
    "rows": int,
    "created_at": int | float,
}
_STATUS_TYPES = {
    **dict.fromkeys(("step", "steps", "done", "total"), int),
    "message": str,
    **dict.fromkeys(("queued_at", "started_at", "updated_at"), int | float),
}


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The run's name, which is its model's name, too."""
        return self.folder.name

    @property
    def model_folder(self) -> Path:
        """Where its model is, once it has one."""
        return self.folder / MODEL

    @property
    def has_model(self) -> bool:
        """Whether its model is written."""
        return (self.model_folder / MANIFEST).is_file()

    @property
    def checkpoint(self) -> int | None:
        """The step from which it would go on; None if from the first."""
        return checkpoint_step(self.folder)

    @property
    def wants_stop(self) -> bool:
        """Whether it is asked to stop."""
        return (self.folder / STOP).exists()

    @property
    def request(self) -> Request:
        """What was asked for.

        Raises:
            LwapError: If it cannot be read.
        """
        content = read_json(self.folder / CONFIG) or {}
        version = content.get("format", 0)
        if isinstance(version, int) and version > FORMAT:
            raise LwapError(
                f"Run '{self.name}' has format {version}, newer than this version's {FORMAT}. Use "
                "a newer LWAP Explorer."
            )
        known = {name: value for name, value in content.items() if name in _REQUEST_TYPES}
        if "config" not in known or not all(
            isinstance(value, _REQUEST_TYPES[name]) for name, value in known.items()
        ):
            raise LwapError(f"Run '{self.name}' cannot be read: {CONFIG} is missing or damaged.")
        return Request(**known)

    @property
    def status(self) -> Status:
        """What its worker last said; a new run's where nothing can be read."""
        content = read_json(self.folder / STATUS) or {}
        try:
            phase = Phase(content.get("phase", Phase.NEW))
        except ValueError:  # of a newer version
            phase = Phase.NEW
        rest = {
            name: content[name]
            for name, kind in _STATUS_TYPES.items()
            if isinstance(content.get(name), kind)
        }
        return Status(phase=phase, **rest)

    def write_status(self, status: Status) -> None:
        """Write what the worker says of itself."""
        write_whole(self.folder / STATUS, {**asdict(status), "updated_at": time.time()})

    def log_tail(self, lines: int = 200) -> str:
        """Return the last lines of the log."""
        try:
            with (self.folder / LOG).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    @property
    def size_bytes(self) -> int:
        """What it takes on the disk."""
        total = 0
        for file in self.folder.rglob("*"):
            try:
                total += file.stat().st_size if file.is_file() else 0
            except OSError:  # removed meanwhile
                continue
        return total


def new_folder(runs: Path, name: str, request: Request, data: Any, dev: Any = None) -> Run:
    """Make a run's folder, whole; a name that is taken gets a number.

    Args:
        runs: Where runs are.
        name: What to call it.
        request: What is asked for.
        data: Training rows, a table or a list of sentences.
        dev: Scored pairs, or None.

    Raises:
        InputError: If the name cannot be a folder's.
        LwapError: If it cannot be written.
    """
    check_name(name)
    try:
        runs.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=runs))
        try:
            write_whole(scratch / CONFIG, {"format": FORMAT, **asdict(request)})
            _table(data).to_parquet(scratch / DATA, index=False)
            if dev is not None:
                _table(dev).to_parquet(scratch / DEV, index=False)
            write_whole(scratch / STATUS, asdict(Status(updated_at=time.time())))
            scratch.chmod(0o755)
            return Run(_settle(scratch, runs, name))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise LwapError(
            f"The run cannot be written into '{runs}' ({error.strerror or error}). Free some "
            "space, or name another folder in LWAP_RUNS."
        ) from error


def _settle(scratch: Path, runs: Path, name: str) -> Path:
    """Give a finished folder the first free one of NAME, NAME-2, NAME-3 …"""
    number = 1
    while True:
        target = runs / (name if number == 1 else f"{name}-{number}")
        try:
            if not target.exists():
                os.rename(scratch, target)  # onto an empty folder it would succeed, so ask first
                return target
        except OSError:
            if not target.exists():
                raise
        number += 1


def check_name(name: str) -> None:
    """Refuse a name that no folder can have.

    Raises:
        InputError: With what is accepted.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > LONGEST_NAME:
        raise InputError(
            f"'{name[:100]}' cannot be a run's name. Use letters, digits, '-', '_' and '.', at "
            f"most {LONGEST_NAME}, with a letter or digit first."
        )


def write_whole(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON beside and rename, so that a reader never sees half of it."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace") as opened:
            json.dump(content, opened, indent=1, default=str)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(beside, file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None where there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _table(data: Any) -> Any:
    import pandas as pd

    from lwap.encoding.bank import is_unicode  # which loads torch: a run is made where it is loaded

    table = data if isinstance(data, pd.DataFrame) else pd.DataFrame({"sentence": list(data)})
    broken = [
        name
        for name in table.columns
        if any(isinstance(text, str) and not is_unicode(text) for text in table[name])
    ]
    if broken:
        raise InputError(f"Column '{broken[0]}' holds half a character, which no file can hold.")
    return table
