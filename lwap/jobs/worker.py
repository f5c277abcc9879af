"""The process of a run: waits for its turn, trains, writes the model. `python -m lwap.jobs.worker`.

Ends by itself: finished, stopped at a checkpoint (STOP in its folder, or SIGTERM), or failed, and
says which in `status.json`. Killed, it says nothing, and its folder is still whole.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lwap.errors import LwapError
from lwap.jobs.control import is_at_work, list_runs, with_phase, write_worker
from lwap.jobs.events import EventLog
from lwap.jobs.folder import DATA, DEV, Run, Status
from lwap.jobs.state import Phase
from lwap.training.run_checkpoints import checkpoint_step, drop_checkpoints

POLL_SECONDS = 0.5
STATUS_SECONDS = 1.0  # between two writings of the status
TURN = ".turn.lock"  # held by the run that is at work; the system frees it with the process
OWN = ".worker.lock"  # held by a run's worker, so that there are never two

Say = Callable[[dict[str, Any]], None]


class Worker:
    """Works on one run.

    Args:
        run: Its folder.
        say: Called with each event, beside what is written down.
        progress: Called with sentences encoded and to encode.
        tell: Called with lines for a person; by default they are printed.
    """

    def __init__(
        self,
        run: Run,
        *,
        say: Say | None = None,
        progress: Callable[[int, int], None] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.run = run
        self.say, self.progress = say, progress
        self.tell = tell or partial(print, flush=True)
        self.was_told = False  # by a signal
        self.status = replace(run.status, queued_at=run.status.queued_at or time.time())
        self._written_at = 0.0

    def should_stop(self) -> bool:
        """Say whether this run is asked to stop."""
        return self.was_told or self.run.wants_stop

    def tell_to_stop(self, *_: Any) -> None:
        """Ask it to stop; a signal handler."""
        self.was_told = True

    def work(self) -> Phase:
        """Do the run to its end; return how it ended. What went wrong is in the status.

        Raises:
            LwapError: If another process works on this run.
        """
        with self._alone():
            write_worker(self.run, os.getpid())
            try:
                if self.run.has_model:  # only the last word was missing
                    return self._end(Phase.FINISHED)
                if not self._wait():
                    return self._end(Phase.STOPPED, "Stopped while it waited.")
                try:
                    return self._train()
                finally:
                    self._turn.release()
            except LwapError as error:
                from lwap.training.follower import RunStopped

                if isinstance(error, RunStopped):
                    return self._end(Phase.STOPPED, str(error))
                return self._end(Phase.FAILED, str(error))
            except Exception as error:  # a bug: its traceback is in the log
                traceback.print_exc()
                return self._end(Phase.FAILED, f"{type(error).__name__}: {error} (see the log)")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with FileLock(self.run.folder / OWN, timeout=0):
                yield
        except Timeout as error:
            raise LwapError(f"Run '{self.run.name}' is at work already.") from error

    def _wait(self) -> bool:
        """Wait for the turn; return False if asked to stop meanwhile. Holds the turn after it."""
        self._turn = FileLock(self.run.folder.parent / TURN, timeout=0)
        before = None
        while not self.should_stop():
            waiting = self._before_me()
            if not waiting:
                with contextlib.suppress(Timeout):
                    self._turn.acquire()
                    return True
            said = f"Waits for {waiting[0]}." if waiting else "Waits for the run at work."
            if said != before:
                self.tell(said)
                self._write(with_phase(self.status, Phase.QUEUED, said))
                before = said
            time.sleep(POLL_SECONDS)
        return False

    def _before_me(self) -> list[str]:
        """Return the runs that have waited longer."""
        mine = (self.status.queued_at, self.run.name)
        return [
            other.name
            for other in list_runs()
            if other.name != self.run.name
            and (status := other.status).phase in (Phase.QUEUED, Phase.NEW)
            and (status.queued_at, other.name) < mine
            and is_at_work(other)
        ]

    def _train(self) -> Phase:
        import pandas as pd

        started = replace(self.status, started_at=time.time())
        self._write(with_phase(started, Phase.PREPARING))
        from lwap.checkpoints.load import identify_encoder
        from lwap.training import TrainConfig, train
        from lwap.training.follower import SAVE_SECONDS
        from lwap.training.save import save_result

        request = self.run.request
        self.tell(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self.run.name}: {dict(request.config)}")
        config = TrainConfig(**request.config)
        data = pd.read_parquet(self.run.folder / DATA)
        dev = self.run.folder / DEV
        pairs = pd.read_parquet(dev) if dev.exists() else None
        encoder = identify_encoder(config.encoder)
        log = EventLog(self.run)
        try:
            result = train(
                config,
                data["sentence"].tolist() if list(data.columns) == ["sentence"] else data,
                pairs,
                dev_name=request.dev_name or ("dev" if pairs is not None else "held-out"),
                progress=self._progress,
                log=lambda event: self._log(log, event),
                folder=self.run.folder,
                should_stop=self.should_stop,
                save_seconds=float(os.environ.get("LWAP_SAVE_SECONDS", SAVE_SECONDS)),
            )
        finally:
            log.close()
        self._write(with_phase(self.status, Phase.SAVING))
        save_result(
            result,
            self.run.model_folder,
            name=self.run.name,
            encoder=encoder,
            data_name=request.data_name,
            data_sha256=request.data_sha256,
            dev_sha256=request.dev_sha256,
            command=request.command,
        )
        said = ""
        if result.diverged_at is not None:
            said = (
                f"The run diverged at step {result.diverged_at}; the model is that of step "
                f"{result.best_step}, the best before it. A lower learning rate may go further."
            )
        elif result.best_step == 0:
            said = "No step was better than the untrained model, which was kept."
        return self._end(Phase.FINISHED, said)

    def _progress(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)
        self._write(replace(self.status, done=done, total=total), is_urgent=done == total)

    def _log(self, log: EventLog, event: dict[str, Any]) -> None:
        log.write(event)
        if event["event"] == "look":
            self.tell(_line(event))
        if event["event"] == "resume":
            self.tell(f"Goes on from step {event['step']}.")
        now = replace(
            self.status,
            phase=Phase.TRAINING,
            step=event["step"],
            steps=event.get("steps", self.status.steps),
        )
        self._write(now, is_urgent=now.phase != self.status.phase)
        if self.say is not None:
            self.say(event)

    def _end(self, phase: Phase, message: str = "") -> Phase:
        if phase == Phase.FINISHED:
            drop_checkpoints(self.run.folder)
        step = checkpoint_step(self.run.folder)
        now = with_phase(self.status, phase, message)
        if phase == Phase.STOPPED and step is not None:
            now = replace(now, step=step)
        self.tell(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {phase}. {message}".rstrip())
        self._write(now)
        return phase

    def _write(self, status: Status, is_urgent: bool = True) -> None:
        self.status = status
        now = time.monotonic()
        if is_urgent or now - self._written_at > STATUS_SECONDS:
            # A full disk ends the run where weights are written, not here.
            with contextlib.suppress(OSError):
                self.run.write_status(status)
            self._written_at = now


def _line(event: dict[str, Any]) -> str:
    loss = f"loss {event['loss']:.4f}" if event["step"] else "untrained"
    return f"step {event['step']:>6} of {event['steps']}   {loss:<12}   dev {event['dev']:.2f}"


def main() -> None:
    """Work on the run whose folder is the one argument."""
    faulthandler.enable()
    worker = Worker(Run(Path(sys.argv[1])))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.tell_to_stop)
    try:
        phase = worker.work()
    except LwapError as error:
        sys.exit(str(error))
    sys.exit(0 if phase in (Phase.FINISHED, Phase.STOPPED) else 1)


if __name__ == "__main__":
    main()
