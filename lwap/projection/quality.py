"""How much of the full space a map keeps: trustworthiness and k-NN recall. Knows arrays only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lwap.errors import InputError
from lwap.evaluation.geometry import normalise
from lwap.projection.neighbours import Neighbours, neighbours, overlap

Progress = Callable[[int, int], None]

NEIGHBOURS = 15
MEASURED_ROWS = 5000  # points whose neighbours' ranks are counted; above it a sample of so many
BLOCK = 512  # rows of cosines held at once


@dataclass(frozen=True, eq=False)
class Quality:
    """What a map keeps of the neighbourhoods of the full space.

    Attributes:
        trustworthiness: 0–1, higher is better; 1 if no point has a neighbour on the map that is
            not one of its k nearest in the full space (Venna & Kaski 2001).
        knn_recall: Share of the k nearest in the full space that are also the k nearest on the
            map, 0–1, mean over points.
        point_trustworthiness: The same for each point, (N,); NaN for points beyond the sample.
        point_recall: The same for each point, (N,).
        k: Neighbours looked at.
        measured: Points whose trustworthiness was computed; all N up to `MEASURED_ROWS`.
    """

    trustworthiness: float
    knn_recall: float
    point_trustworthiness: np.ndarray
    point_recall: np.ndarray
    k: int
    measured: int


def quality(
    vectors: np.ndarray,
    coordinates: np.ndarray,
    *,
    k: int = NEIGHBOURS,
    known: Neighbours | None = None,
    measured_rows: int = MEASURED_ROWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Quality:
    """Measure a map of vectors against the space that it was made of, whose distance is the cosine.

    Args:
        vectors: N ≥ 5 vectors of any length, (N, D).
        coordinates: Their places on the map, (N, 2).
        k: Neighbours, clipped to the largest number below N/2, for which the measure is defined.
        known: The neighbours in the full space, k or more, if they are known.
        measured_rows: Points whose trustworthiness is computed; above it an even random sample.
        seed: Decides on that sample.
        progress: Called with (points measured, points to measure).

    Raises:
        InputError: If the shapes do not agree, N is below 5, or a vector is zero or not finite.
    """
    unit, coordinates = normalise(vectors), np.asarray(coordinates)
    if coordinates.shape != (len(unit), 2) or len(unit) < 5:
        raise InputError(
            f"The quality of a map needs 5 vectors or more and a place for each, not "
            f"{unit.shape} and {coordinates.shape}."
        )
    count = len(unit)
    k = max(1, min(k, (count - 1) // 2))
    if known is None or known.count < k:
        known = neighbours(unit, k)
    near = map_neighbours(coordinates, k)
    recall = overlap(known.indices[:, :k], near)
    rows = np.arange(count)
    if count > measured_rows:
        rows = np.sort(np.random.default_rng(seed).choice(count, measured_rows, replace=False))
    trust = np.full(count, np.nan)
    scale = 2 / (k * (2 * count - 3 * k - 1))
    everything = unit.astype(np.float64)
    everything /= np.linalg.norm(everything, axis=1, keepdims=True)  # 1 in float32 is not 1
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        cosines = everything[some] @ everything.T
        cosines[np.arange(len(some)), some] = np.inf  # itself: rank 0
        ranks = np.stack(
            [
                (cosines > cosines[np.arange(len(some)), column][:, None]).sum(axis=1)
                for column in near[some].T
            ],
            axis=1,
        )
        trust[some] = 1 - scale * np.clip(ranks - k, 0, None).sum(axis=1)
        if progress is not None:
            progress(start + len(some), len(rows))
    return Quality(
        trustworthiness=float(np.nanmean(trust)),
        knn_recall=float(recall.mean()),
        point_trustworthiness=trust,
        point_recall=recall,
        k=k,
        measured=len(rows),
    )


def map_neighbours(coordinates: np.ndarray, k: int) -> np.ndarray:
    """Return the rows of the k nearest other points on the map, (N, k)."""
    from scipy.spatial import KDTree

    coordinates = np.asarray(coordinates, dtype=np.float64)
    _, found = KDTree(coordinates).query(coordinates, k + 1)
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True  # copies of the point came first
    return found[~own].reshape(-1, k)
