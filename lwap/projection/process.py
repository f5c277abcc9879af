"""UMAP in a process of its own: numba's compiler and threads stay out of the app.

One process fits one map at a time and stays for the next, since compiling takes longer than a map
of a few thousand points. Stopping a fit ends the process; the next fit starts another.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lwap.errors import ConfigError

Progress = Callable[[int, int], None]

HEARD = 0.2  # seconds after which `progress` is called though there is no news
WORKER = Path(__file__).with_name("worker.py")


class UmapProcess:
    """Starts the process when it is needed, hands it one fit at a time, ends it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._change = threading.RLock()  # held while it starts or ends: anyone may close it
        self._process: subprocess.Popen | None = None
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._log: Any = None

    def warm_up(self) -> None:
        """Start the process, so that it imports and compiles while others compute."""
        if self._turn.acquire(blocking=False):
            try:
                self._ensure()
            finally:
                self._turn.release()

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def fit(
        self,
        indices: np.ndarray,
        cosines: np.ndarray,
        start: np.ndarray,
        config: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Return the coordinates that UMAP finds for N points, (N, 2); waits for its turn.

        Args:
            indices, cosines: The n_neighbors nearest others of each point, (N, n_neighbors).
            start: Where it starts from, (N, 2).
            config: As `MapConfig`.
            progress: Called with (epochs done, epochs), at least every 0.2 s; what it raises ends
                the fit and the process.

        Raises:
            ConfigError: If the process ended, or failed, before it was done.
        """
        advance = progress or (lambda done, total: None)
        while not self._turn.acquire(timeout=HEARD):
            advance(0, 1)
        try:
            with tempfile.TemporaryDirectory(prefix="lwap-map-") as folder:
                for name, array in (("indices", indices), ("cosines", cosines), ("start", start)):
                    np.save(Path(folder, f"{name}.npy"), array)
                try:
                    return self._fit(folder, dict(config), advance)
                except BaseException:
                    self._end()  # before the folder goes, which it may be writing to
                    raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the process; a fit that waits for it fails."""
        self._end()

    def _fit(self, folder: str, config: dict[str, Any], advance: Progress) -> np.ndarray:
        process = self._ensure()
        assert process.stdin is not None  # it was asked for
        with contextlib.suppress(OSError, ValueError):  # it ended, or was: said below
            process.stdin.write(json.dumps({"folder": folder, **config}) + "\n")
            process.stdin.flush()
        done, total = 0, 1
        while True:
            advance(done, total)
            try:
                answer = self._answers.get(timeout=HEARD)
            except queue.Empty:
                continue
            if answer is None:
                raise ConfigError(
                    f"The process that draws UMAP maps ended before it was done"
                    f"{self._exit(process)}; nothing was kept of this map. Draw it again; if that "
                    "fails too, there may be too little memory: use fewer sentences, or PCA."
                )
            if "error" in answer:
                raise ConfigError(f"UMAP failed: {answer['error']}. Try other settings, or PCA.")
            if "coordinates" in answer:
                return np.load(answer["coordinates"], allow_pickle=False)
            done, total = answer["done"], answer["total"]

    def _ensure(self) -> subprocess.Popen:
        with self._change:
            return self._running()

    def _running(self) -> subprocess.Popen:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the process ends)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],  # by path: the package would import scipy
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answers = queue.Queue()
        threading.Thread(
            target=_read, args=(self._process, self._answers), daemon=True, name="umap-answers"
        ).start()
        return self._process

    def _exit(self, process: subprocess.Popen) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        code, log = process.returncode, self._log
        said = ""
        with contextlib.suppress(AttributeError, ValueError):  # closed by now
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            lines = log.read().decode(errors="replace").strip().splitlines()
            said = f": {lines[-1].strip()}" if lines and code and code > 0 else ""
        how = f" by signal {-code}" if code and code < 0 else f" with status {code}"
        return f" ({how.strip()}{said})"

    def _end(self) -> None:
        with self._change:
            process, self._process = self._process, None
            if process is not None:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    with contextlib.suppress(OSError):
                        if stream is not None:
                            stream.close()
            if self._log is not None:
                self._log.close()
                self._log = None


def _read(process: subprocess.Popen, answers: queue.Queue) -> None:
    """Put what the process says into the queue; None when it ended."""
    with contextlib.suppress(OSError, ValueError):  # closed while it was read
        for line in process.stdout or ():
            answers.put(json.loads(line))
    answers.put(None)
