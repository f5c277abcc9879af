"""Start, stop, resume and delete runs, and say how they are. Works on folders and processes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lwap.checkpoints.manifest import checkpoints_folder, runs_folder
from lwap.errors import InputError, LwapError
from lwap.jobs.events import read_history
from lwap.jobs.folder import (
    CONFIG,
    LOG,
    STOP,
    WORKER,
    Request,
    Run,
    Status,
    new_folder,
    read_json,
    write_whole,
)
from lwap.jobs.state import Facts, Phase, State, state_of
from lwap.training.run_checkpoints import remove

if TYPE_CHECKING:
    import pandas as pd

    from lwap.training.config import TrainConfig

TOLERANCE = 2.0  # seconds by which a process' start may be told differently
LEAVING = 15.0  # seconds that a process which said its last word may take to end
_children: list[subprocess.Popen] = []  # of this process: to be waited for when they end


def create(
    config: TrainConfig,
    data: pd.DataFrame | Sequence[str],
    dev_pairs: pd.DataFrame | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    name: str | None = None,
    data_name: str = "",
    data_sha256: str = "",
    dev_name: str = "",
    dev_sha256: str = "",
    command: str = "",
) -> Run:
    """Make the folder of a run; `start` starts it.

    Args:
        config: The settings, checked.
        data: Triplets or pairs, or sentences; as `lwap.training.train` takes them.
        dev_pairs: What the best step is chosen on.
        given: The settings that a person set.
        name: What to call the run and its model; by default after its settings and the time.
        data_name, data_sha256, dev_name, dev_sha256, command: For the model card.

    Raises:
        InputError: If the name cannot be a folder's, or is that of a shipped checkpoint.
        LwapError: If the folder cannot be written.
    """
    name = name or default_name(config)
    if (checkpoints_folder() / name).exists():
        raise InputError(f"'{name}' is the name of a shipped checkpoint. Choose another name.")
    request = Request(
        config=config.to_dict(),
        given=dict(given or {}),
        data_name=data_name,
        data_sha256=data_sha256,
        rows=len(data),
        dev_name=dev_name,
        dev_sha256=dev_sha256,
        command=command,
        created_at=time.time(),
    )
    return new_folder(runs_folder(), name, request, data, dev_pairs)


def default_name(config: TrainConfig) -> str:
    """Return a name that says what is trained and when: mean-full-20261124-101500."""
    kind = config.pooling if config.residual == "none" else f"{config.pooling}-{config.residual}"
    parts = [kind.replace("_", "-"), *([] if config.mode == "head" else [str(config.mode)])]
    return "-".join([*parts, time.strftime("%Y%m%d-%H%M%S")])


def start(run: Run) -> None:
    """Start a run's worker, a process of its own that outlives this one.

    Raises:
        LwapError: If one is at work already, or none can be started.
    """
    end = time.monotonic() + LEAVING
    while (found := facts_of(run)).is_alive and not state_of(found).is_active:
        if time.monotonic() > end:  # it said its last word, and does not go
            break
        time.sleep(0.05)
    if found.is_alive:
        raise LwapError(f"Run '{run.name}' is at work already.")
    (run.folder / STOP).unlink(missing_ok=True)
    run.write_status(Status(queued_at=time.time()))
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        with (run.folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lwap.jobs.worker", str(run.folder.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it lives on when the app ends
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            )
    except OSError as error:
        raise LwapError(f"Run '{run.name}' cannot be started ({error.strerror}).") from error
    _children.append(process)
    write_worker(run, process.pid)


def stop(run: Run) -> None:
    """Ask a run to stop: it writes a checkpoint after its step, and ends.

    Raises:
        LwapError: If nothing is at work on it.
    """
    if not state(run).is_active:
        raise LwapError(f"Run '{run.name}' is not at work, so there is nothing to stop.")
    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
        (run.folder / STOP).touch()


def resume(run: Run) -> None:
    """Let a run that ended before its time go on from its last checkpoint, or from the start.

    Raises:
        LwapError: If it is at work, or finished.
    """
    found = state(run)
    if not found.can_resume:
        raise LwapError(f"Run '{run.name}' is {found}; only one that ended early can be resumed.")
    start(run)


def delete(run: Run) -> None:
    """Delete a run with its checkpoints and its model.

    Raises:
        LwapError: If something is at work on it.
    """
    if state(run).is_active:
        raise LwapError(f"Run '{run.name}' is at work. Stop it before you delete it.")
    remove(run.folder)


# --- how they are -------------------------------------------------------------------------------


def list_runs() -> list[Run]:
    """Return all runs, the newest first. A model that was imported, without a request, is none."""
    folder = runs_folder()
    if not folder.is_dir():
        return []
    found = [
        Run(each)
        for each in folder.iterdir()
        if not each.name.startswith(".") and (each / CONFIG).is_file()
    ]
    return sorted(found, key=_created, reverse=True)


def _created(run: Run) -> tuple[float, str]:
    try:
        return run.request.created_at, run.name
    except LwapError:
        return 0.0, run.name


def find(name: str) -> Run:
    """Return a run by name.

    Raises:
        InputError: If there is none.
    """
    run = Run(runs_folder() / name)
    if Path(name).name != name or not (run.folder / CONFIG).is_file():
        names = ", ".join(each.name for each in list_runs()) or "none"
        raise InputError(f"There is no run '{name}'. There are: {names}.")
    return run


def state(run: Run) -> State:
    """Return a run's state."""
    return state_of(facts_of(run))


def facts_of(run: Run) -> Facts:
    """Look at a run's folder and its process."""
    # The process before its last word: else one that ends in between looks as if it had vanished.
    is_alive = is_at_work(run)
    return Facts(
        phase=run.status.phase,
        is_alive=is_alive,
        wants_stop=run.wants_stop,
        has_model=run.has_model,
    )


def is_at_work(run: Run) -> bool:
    """Say whether the process that was started for a run is there."""
    known = read_json(run.folder / WORKER)
    if known is None or known.get("host") != socket.gethostname():
        return False
    _reap()
    try:
        process = psutil.Process(int(known["pid"]))
        # A number is given to another process some time after the first one is gone.
        is_same = abs(process.create_time() - float(known["created_at"])) < TOLERANCE
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def write_worker(run: Run, pid: int) -> None:
    """Write down which process works on a run."""
    with contextlib.suppress(psutil.Error, OSError):  # it is gone already, or the folder is
        created = psutil.Process(pid).create_time()
        write_whole(
            run.folder / WORKER,
            {"pid": pid, "created_at": created, "host": socket.gethostname()},
        )


def _reap() -> None:
    for process in list(_children):
        if process.poll() is not None:
            with contextlib.suppress(ValueError):  # another thread was faster
                _children.remove(process)


def why(run: Run) -> str:
    """Return in a sentence how a run ended, or what it does; for a person."""
    found, status = state(run), run.status
    place = f"step {status.step} of {status.steps}" if status.steps else "before the first step"
    if found == State.VANISHED and (steps := read_history(run.folder).steps):
        place = f"step {steps[-1]['step']} of {steps[-1]['steps']}"  # the status is behind
    checkpoint = run.checkpoint
    rest = f"resumes from step {checkpoint}" if checkpoint else "starts again at the first step"
    if found == State.VANISHED:
        return (
            f"Its process vanished {_at(place)} without a word: killed, out of memory, or the "
            f"machine went off. It {rest}."
        )
    if found == State.FAILED:
        return f"{_sentence(status.message)} It {rest}."
    if found == State.STOPPED:
        return f"Stopped {_at(place)}. It {rest}."
    if found == State.QUEUED:
        return status.message or "Waits for the run before it."
    return status.message


def _at(place: str) -> str:
    return place if place.startswith("before") else f"at {place}"


def _sentence(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip() or "It failed."
    return text if text.endswith((".", "!", "?")) else f"{text}."


def with_phase(status: Status, phase: Phase, message: str = "") -> Status:
    """Return a status in another phase."""
    return replace(status, phase=phase, message=message)
