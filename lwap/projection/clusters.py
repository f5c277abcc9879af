"""Clusters of vectors, found in the full space and never on a map. Knows arrays only."""

from __future__ import annotations

import numpy as np

from lwap.errors import InputError

KMEANS_BATCHES_FROM = 20_000  # vectors; below, k-means sees all of them in each step
HDBSCAN_UP_TO = 20_000  # vectors; it takes minutes beyond
HDBSCAN_DIRECTIONS = 15  # density means little in hundreds of dimensions
NO_CLUSTER = ""


def kmeans(unit: np.ndarray, count: int, *, seed: int = 0) -> list[str]:
    """Return a label for each of N vectors of length 1: "1" is the largest cluster.

    Raises:
        InputError: If there are fewer vectors than clusters, or fewer than 2 clusters.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if not 2 <= count <= len(unit):
        raise InputError(f"{len(unit)} sentences cannot be parted into {count} clusters.")
    kind = KMeans if len(unit) <= KMEANS_BATCHES_FROM else MiniBatchKMeans
    found = kind(count, n_init=4, random_state=seed).fit_predict(unit)
    return _by_size(found)


def hdbscan(unit: np.ndarray, *, least: int | None = None) -> list[str]:
    """Return a label for each of N vectors of length 1, "" for those in no dense region.

    Density is reckoned along the first principal directions (scikit-learn's HDBSCAN).

    Args:
        unit: (N, D).
        least: Fewest members of a cluster; by default one in a hundred, at least 5.

    Raises:
        InputError: If there are more vectors than it can take.
    """
    from sklearn.cluster import HDBSCAN
    from sklearn.decomposition import PCA

    if len(unit) > HDBSCAN_UP_TO:
        raise InputError(
            f"HDBSCAN takes up to {HDBSCAN_UP_TO:,} sentences here, not {len(unit):,}. Choose "
            "k-means."
        )
    directions = min(HDBSCAN_DIRECTIONS, *unit.shape)
    reduced = PCA(directions, random_state=0).fit_transform(unit.astype(np.float64))
    least = least or max(5, len(unit) // 100)
    least = min(least, max(2, len(unit) // 2))
    return _by_size(HDBSCAN(min_cluster_size=least, copy=True).fit_predict(reduced))


def _by_size(found: np.ndarray) -> list[str]:
    labels, counts = np.unique(found[found >= 0], return_counts=True)
    order = labels[np.lexsort((labels, -counts))]
    names = {label: str(place) for place, label in enumerate(order.tolist(), start=1)}
    return [names.get(label, NO_CLUSTER) for label in found.tolist()]
