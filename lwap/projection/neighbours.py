"""The nearest neighbours of every vector in the full space, by cosine. Knows arrays only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xxhash

from lwap.encoding.diskcache import DiskCache
from lwap.errors import InputError

Progress = Callable[[int, int], None]

KIND = "neighbours"
KEPT = 30  # neighbours a point that are kept; UMAP, quality and lists need no more by default
BLOCK = 2048  # rows that are searched at once, between two calls of `progress`


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The K nearest other vectors of each of N vectors, nearest first.

    Attributes:
        indices: Their rows, (N, K) int32; never the row itself.
        cosines: Their cosines, (N, K) float32.
    """

    indices: np.ndarray
    cosines: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def count(self) -> int:
        """K."""
        return self.indices.shape[1]


def neighbours(
    unit: np.ndarray,
    k: int = KEPT,
    *,
    cache: DiskCache | None = None,
    progress: Progress | None = None,
) -> Neighbours:
    """Return the k nearest other vectors of each; exact, every pair is compared (faiss).

    Args:
        unit: N ≥ 2 vectors of length 1, (N, D) float32.
        k: Neighbours, clipped to N − 1.
        cache: Where the result is kept, by content.
        progress: Called with (rows searched, N).

    Raises:
        InputError: If there are fewer than 2 vectors, or k is below 1.
    """
    unit = np.ascontiguousarray(unit, dtype=np.float32)
    if unit.ndim != 2 or len(unit) < 2:
        raise InputError(f"Neighbours need an array (N, D) of 2 vectors or more, not {unit.shape}.")
    if k < 1:
        raise InputError(f"k is {k}; ask for 1 neighbour or more.")
    k = min(k, len(unit) - 1)
    name = f"{content_hash(unit)}-{k}"
    kept = cache.read(KIND, name) if cache is not None else None
    if kept is not None and kept[0].keys() >= {"indices", "cosines"}:
        return Neighbours(kept[0]["indices"], kept[0]["cosines"])
    found = _search(unit, k, progress)
    if cache is not None:
        cache.write(KIND, name, vars(found))
    return found


def content_hash(*arrays: np.ndarray) -> str:
    """Return a hash of arrays: their types, shapes and numbers."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _search(unit: np.ndarray, k: int, progress: Progress | None) -> Neighbours:
    import faiss

    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    indices = np.empty((len(unit), k), dtype=np.int32)
    cosines = np.empty((len(unit), k), dtype=np.float32)
    for start in range(0, len(unit), BLOCK):
        rows = slice(start, start + BLOCK)
        _, found = index.search(unit[rows], k + 1)
        # Its own row, which copies of the vector may have pushed out of the first place, or out.
        own = found == np.arange(start, start + len(found))[:, None]
        own[~own.any(axis=1), -1] = True
        found = found[~own].reshape(-1, k)
        # The last bit of faiss's scores depends on the number of threads, and a map on that bit.
        scores = [np.einsum("ij,ij->i", unit[rows], unit[column]) for column in found.T]
        scores = np.clip(np.stack(scores, axis=1), -1, 1)
        order = np.lexsort((found, -scores))
        indices[rows] = np.take_along_axis(found, order, axis=1)
        cosines[rows] = np.take_along_axis(scores, order, axis=1)
        if progress is not None:
            progress(start + len(found), len(unit))
    return Neighbours(indices, cosines)


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the share of each row's entries that two lists of neighbours have in common, (N,).

    Args:
        first, second: Rows of neighbours, (N, k) each; no entry twice in a row.

    >>> overlap(np.array([[1, 2], [0, 2]]), np.array([[2, 1], [2, 3]])).tolist()
    [1.0, 0.5]
    """
    if np.shape(first) != np.shape(second):
        raise InputError(
            f"Neighbours of shapes {np.shape(first)} and {np.shape(second)} cannot be compared; "
            "both need the same sentences and the same k."
        )
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return (both[:, 1:] == both[:, :-1]).sum(axis=1) / first.shape[1]
