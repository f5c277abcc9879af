"""Fits UMAP maps, one a line of standard input; the other end is `lwap.projection.process`.

A request names a folder with indices.npy, cosines.npy and start.npy, and the settings. Answers are
lines of JSON: done and total epochs, then the file of the coordinates, or what went wrong. Ends
with its standard input, so it never outlives the app.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

import numpy as np

NICENESS = 5  # the app answers first
EPOCHS = ((10_000, 500), (50_000, 200), (1_000_000_000, 120))  # by points: (up to, epochs)


def main() -> None:
    """Answer requests until standard input ends."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    with contextlib.suppress(AttributeError, OSError):
        os.nice(NICENESS)
    warnings.simplefilter("ignore")  # of umap: no transform without an index, seed means one thread
    import umap  # noqa: F401  (now, not with the first request: it takes seconds)

    for line in sys.stdin:
        try:
            answer(json.loads(line), channel)
        except Exception as error:
            say(channel, error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def answer(request: dict[str, Any], channel: TextIO) -> None:
    """Fit one map, and say how far it is and where it lies."""
    folder = Path(request["folder"])
    arrays = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False)
        for name in ("indices", "cosines", "start")
    }
    coordinates = fit(
        **arrays,
        n_neighbors=request["n_neighbors"],
        min_dist=request["min_dist"],
        seed=request["seed"],
        progress=_Epochs(channel),
    )
    file = folder / "coordinates.npy"
    np.save(file, coordinates)
    say(channel, coordinates=str(file))


def fit(
    indices: np.ndarray,
    cosines: np.ndarray,
    start: np.ndarray,
    *,
    n_neighbors: int,
    min_dist: float,
    seed: int,
    progress: Any = None,
) -> np.ndarray:
    """Return UMAP coordinates of N points from their exact neighbours, (N, 2).

    UMAP counts a point as its own first neighbour, at distance 0; so does this.
    """
    import umap

    count = len(indices)
    own = np.arange(count)[:, None]
    rows = np.concatenate([own, indices], axis=1).astype(np.int32)[:, :n_neighbors]
    distances = np.concatenate([np.zeros((count, 1)), 1 - cosines.astype(np.float64)], axis=1)
    distances = np.clip(distances, 0, None).astype(np.float32)[:, :n_neighbors]
    mapper = umap.UMAP(
        n_neighbors=rows.shape[1],
        min_dist=min_dist,
        metric="cosine",
        random_state=seed,
        n_jobs=1,
        init=start,
        n_epochs=next(epochs for most, epochs in EPOCHS if count <= most),
        precomputed_knn=(rows, distances),
        force_approximation_algorithm=True,  # else the neighbours are not used for few points
        disconnection_distance=np.inf,  # else a vector opposite to all others has no place
        verbose=progress is not None,
        tqdm_kwds={"file": progress, "bar_format": "{n_fmt} {total_fmt}", "mininterval": 0.2},
    )
    # The vectors themselves are not needed: neighbours and start say all.
    return mapper.fit_transform(start)


def say(channel: TextIO, **words: Any) -> None:
    """Write one answer; the other end may be gone."""
    channel.write(json.dumps(words) + "\n")
    channel.flush()


class _Epochs:
    """A file that tqdm writes its bar to, which passes the numbers on."""

    def __init__(self, channel: TextIO) -> None:
        self._channel = channel

    def write(self, text: str) -> None:
        numbers = text.replace("\r", " ").split()
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            say(self._channel, done=int(numbers[0]), total=int(numbers[1]))

    def flush(self) -> None:
        """Nothing is held back."""


if __name__ == "__main__":
    main()
