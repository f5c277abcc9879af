"""Maps of N vectors in the plane: PCA at once, UMAP in a process of its own. Knows arrays only.

A map is drawn from vectors at length 1, so that distance means cosine, as in all measures here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version

import numpy as np

from lwap.encoding.diskcache import DiskCache
from lwap.errors import ConfigError, InputError, check_choice
from lwap.evaluation.geometry import normalise
from lwap.projection.neighbours import Neighbours, content_hash, neighbours
from lwap.projection.process import UmapProcess

Progress = Callable[[int, int], None]

KIND = "maps"
FEWEST = 5  # sentences of a map
MOST_NEIGHBOURS = 200
SAME = 1e-6  # standard deviation of unit vectors below which they are all the same
START_SPREAD = 1.0  # of the first axis of a start; UMAP brings any to a box of its own


class Method(StrEnum):
    """How a map is made."""

    PCA = "pca"
    UMAP = "umap"


@dataclass(frozen=True)
class MapConfig:
    """What decides on a UMAP map beside the vectors.

    Attributes:
        n_neighbors: Neighbours that a point is tied to: few show fine structure, many the whole.
        min_dist: Least distance of points on the map, 0–1: how tightly clusters are packed.
        seed: Decides on the order of random steps.
    """

    n_neighbors: int = 15
    min_dist: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.n_neighbors <= MOST_NEIGHBOURS:
            raise ConfigError(
                f"n_neighbors is {self.n_neighbors}; it must be 2 to {MOST_NEIGHBOURS}."
            )
        if not 0 <= self.min_dist <= 1:
            raise ConfigError(f"min_dist is {self.min_dist}; it must be 0 to 1.")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}; it must be 0 to {2**32 - 1}.")


@dataclass(frozen=True, eq=False)
class Projection:
    """A map of N vectors.

    Attributes:
        coordinates: Their places, (N, 2) float32.
        method: How it was made.
        config: The settings of UMAP, with the neighbours that were used; None for PCA.
        variance: Share of the variance along both axes, PCA only.
    """

    coordinates: np.ndarray
    method: Method
    config: MapConfig | None = None
    variance: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.coordinates)


def project(
    vectors: np.ndarray,
    method: str = Method.UMAP,
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    start: np.ndarray | None = None,
    known: Neighbours | None = None,
    cache: DiskCache | None = None,
    process: UmapProcess | None = None,
    progress: Progress | None = None,
) -> Projection:
    """Draw a map of N vectors; the same vectors and settings give the same map in any process.

    UMAP starts from the two first principal components unless `start` says otherwise: two spaces
    that start from the same places can be compared. It works on the exact nearest neighbours.

    Args:
        vectors: N ≥ 5 vectors of any length, (N, D).
        method: "umap" or "pca".
        n_neighbors, min_dist, seed: As `MapConfig`; neighbours are clipped to N − 1.
        start: Where UMAP starts from, (N, 2); its scale does not matter.
        known: The nearest neighbours, if they are known.
        cache: Where UMAP maps are kept, by content of all that decides on them.
        process: Where UMAP runs; by default in one that ends with this call.
        progress: Called with (epochs done, epochs), and in between, so that it may raise to stop.

    Raises:
        InputError: If there are fewer than 5 vectors, one is zero or not finite, or all are the
            same.
        ConfigError: If a setting is out of range, or the process ended before it was done.
    """
    method = check_choice("method", method, Method)
    config = MapConfig(n_neighbors, min_dist, seed)
    unit = checked(vectors)
    if method == Method.PCA:
        return principal(unit)
    config = MapConfig(min(n_neighbors, len(unit) - 1), min_dist, seed)
    start = _checked_start(principal(unit).coordinates if start is None else start, len(unit))
    name = _name(unit, start, config)
    kept = cache.read(KIND, name) if cache is not None else None
    if kept is not None and kept[0].get("coordinates", unit).shape == (len(unit), 2):
        return Projection(kept[0]["coordinates"], method, config)
    if known is None or known.count < config.n_neighbors:
        known = neighbours(unit, config.n_neighbors, cache=cache)
    own = UmapProcess() if process is None else process
    try:
        coordinates = own.fit(
            known.indices[:, : config.n_neighbors],
            known.cosines[:, : config.n_neighbors],
            start,
            vars(config),
            progress=progress,
        )
    finally:
        if process is None:
            own.close()
    coordinates = (coordinates - coordinates.mean(axis=0)).astype(np.float32)
    if cache is not None:
        facts = {"config": json.dumps(vars(config)), "sentences": str(len(unit))}
        cache.write(KIND, name, {"coordinates": coordinates}, facts)
    return Projection(coordinates, method, config)


def checked(vectors: np.ndarray) -> np.ndarray:
    """Return vectors at length 1, if a map can be made of them.

    Raises:
        InputError: As `project`.
    """
    count = len(np.asarray(vectors))
    if count < FEWEST:
        raise InputError(
            f"A map needs {FEWEST} different sentences or more, not {count}. Add some."
        )
    unit = normalise(vectors)
    if is_constant(unit):
        raise InputError(
            "All vectors of this space are the same, so there is nothing to map. The first token "
            "of state 0 is such a space: choose another strategy or layer."
        )
    return unit


def is_constant(unit: np.ndarray) -> bool:
    """Say whether vectors at length 1 are all the same, but for rounding."""
    # In float64: of many rows, what float32 sums up is off by more than SAME.
    return float(unit.std(axis=0, dtype=np.float64).max()) < SAME


def principal(unit: np.ndarray) -> Projection:
    """Return the two first principal components of vectors at length 1 (scikit-learn)."""
    from sklearn.decomposition import PCA

    fitted = PCA(2, svd_solver="covariance_eigh").fit(np.asarray(unit, dtype=np.float64))
    coordinates = fitted.transform(np.asarray(unit, dtype=np.float64)).astype(np.float32)
    first, second = map(float, fitted.explained_variance_ratio_)
    return Projection(coordinates, Method.PCA, variance=(first, second))


def align(coordinates: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Return a map turned, mirrored and moved onto another of the same points, as wide, (N, 2).

    Orthogonal Procrustes: what moves between the two is as little as turning allows. Both have the
    same radius then, the root of the mean squared distance from the centre. The scale that least
    squares would choose shrinks a map the more, the less it fits, and so hides movement.

    Raises:
        InputError: If the shapes differ.
    """
    from scipy.linalg import orthogonal_procrustes

    coordinates, to = (np.asarray(array, dtype=np.float64) for array in (coordinates, to))
    if coordinates.shape != to.shape:
        raise InputError(
            f"Maps of {len(coordinates)} and {len(to)} points cannot be aligned; both need the "
            "same sentences in the same order."
        )
    if np.array_equal(coordinates, to):
        return to.astype(np.float32)
    centred, target = coordinates - coordinates.mean(axis=0), to - to.mean(axis=0)
    turn, _ = orthogonal_procrustes(centred, target)
    radius = _radius(centred)
    scale = _radius(target) / radius if radius > 0 else 1.0
    return (scale * centred @ turn + to.mean(axis=0)).astype(np.float32)


def _radius(centred: np.ndarray) -> float:
    return math.sqrt(np.square(centred).sum(axis=1).mean())


def movement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how far each point moves between aligned maps, in radii of the first map, (N,).

    The radius is the root of the mean squared distance from the centre.
    """
    first, second = (np.asarray(array, dtype=np.float64) for array in (first, second))
    radius = _radius(first - first.mean(axis=0))
    return np.linalg.norm(second - first, axis=1) / max(radius, np.finfo(float).tiny)


def place(new: np.ndarray, unit: np.ndarray, coordinates: np.ndarray, *, k: int = 15) -> np.ndarray:
    """Return places of M new vectors on an existing map, which stays as it is, (M, 2).

    Each lies at the mean of its k nearest neighbours' places, weighted as UMAP weighs the
    neighbours of a point that it maps. A vector that is on the map already gets its place there.

    Args:
        new: M vectors of any length, (M, D).
        unit: The N vectors of the map, of length 1, (N, D).
        coordinates: Their places, (N, 2).
        k: Neighbours, clipped to N.

    Raises:
        InputError: If a vector is zero or not finite.
    """
    import faiss

    new = normalise(new)
    unit = np.ascontiguousarray(unit, dtype=np.float32)
    k = min(k, len(unit))
    cosines, found = faiss.knn(new, unit, k, metric=faiss.METRIC_INNER_PRODUCT)
    distances = np.clip(1 - cosines.astype(np.float64), 0, None)
    weights = _memberships(distances)
    same = distances[:, 0] < SAME
    weights[same] = (distances[same] < SAME).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("mk,mkd->md", weights, coordinates[found].astype(np.float64)).astype(
        np.float32
    )


def place_principal(new: np.ndarray, unit: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return places of M new vectors on a PCA map, exactly where PCA puts them, (M, 2).

    Args:
        new: M vectors of any length, (M, D).
        unit: The N vectors of the map, of length 1, (N, D).
        coordinates: Their places on the map, which may have been aligned since, (N, 2).

    Raises:
        InputError: If a vector is zero or not finite.
    """
    from sklearn.decomposition import PCA

    fitted = PCA(2, svd_solver="covariance_eigh").fit(np.asarray(unit, dtype=np.float64))
    own = fitted.transform(np.asarray(unit, dtype=np.float64))
    # What aligning did to the map: a turn, a scale and a shift.
    ones = np.ones((len(own), 1))
    turn, *_ = np.linalg.lstsq(np.hstack([own, ones]), coordinates, rcond=None)
    places = fitted.transform(normalise(new).astype(np.float64))
    return np.hstack([places, np.ones((len(places), 1))]).astype(np.float64) @ turn


def _memberships(distances: np.ndarray) -> np.ndarray:
    """Return UMAP's weights exp(−(d − ρ)/σ) with Σ = log2 k, by bisection.  (M, k)"""
    rest = distances - distances[:, :1]
    wanted = math.log2(max(distances.shape[1], 2))
    low = np.full(len(rest), 1e-12)
    high = np.full(len(rest), 1e6)
    for _ in range(64):
        middle = np.sqrt(low * high)
        is_small = np.exp(-rest / middle[:, None]).sum(axis=1) < wanted
        low, high = np.where(is_small, middle, low), np.where(is_small, high, middle)
    return np.exp(-rest / high[:, None])


def _checked_start(start: np.ndarray, count: int) -> np.ndarray:
    """Return a start as UMAP gets it, float32.

    UMAP stretches each axis to a box of its own. So scale and place do not matter, and must not
    make another entry of the cache; and an axis without extent would be divided by zero.
    """
    start = np.asarray(start, dtype=np.float64)
    if start.shape != (count, 2) or not np.isfinite(start).all():
        raise InputError(
            f"The start of a map has shape {start.shape}; it needs a place in the plane for each "
            f"of the {count} vectors."
        )
    start = start - start.mean(axis=0)
    spread = start.std(axis=0)
    for axis in np.flatnonzero(spread <= SAME * spread.max()):
        noise = np.random.default_rng(axis).normal(size=count)
        start[:, axis] = noise * (spread.max() or 1.0)
    return (start * (START_SPREAD / start[:, 0].std())).astype(np.float32)


def _name(unit: np.ndarray, start: np.ndarray, config: MapConfig) -> str:
    """Return a hash of all that decides on a map."""
    facts = [vars(config), {name: version(name) for name in ("umap-learn", "numba")}]
    words = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), dtype=np.uint8)
    return content_hash(unit, start, words)
