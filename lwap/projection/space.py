"""Two embedding spaces of the same sentences: their measures, maps, and what changed between them.

A space is what one strategy of one model makes of N sentences. Knows models as `CachedModel` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lwap.checkpoints.cached import CachedModel
from lwap.encoding.diskcache import DiskCache
from lwap.errors import InputError
from lwap.evaluation import geometry
from lwap.evaluation.declarations import space_measures
from lwap.evaluation.geometry import CosineHistogram, Geometry
from lwap.projection.maps import (
    Method,
    Projection,
    align,
    checked,
    is_constant,
    movement,
    project,
)
from lwap.projection.neighbours import KEPT, Neighbours, neighbours, overlap
from lwap.projection.process import UmapProcess
from lwap.projection.quality import Quality, quality

Progress = Callable[[int, int], None]

CHANGE_K = 10  # neighbours that the change of a neighbourhood is counted over
COURSE_SENTENCES = 5_000  # sentences of the layer-by-layer measures; above it an even sample
STABILITY_SEEDS = 2  # further seeds that a map is compared with


@dataclass(frozen=True, eq=False)
class Space:
    """What one strategy of one model makes of N sentences.

    Attributes:
        model, strategy: Whose it is.
        unit: Embeddings at length 1, (N, D) float32.
        near: Their nearest neighbours in the full space.
        geometry: Uniformity, alignment and isotropy.
        cosines: Distribution of the cosines of its pairs.
        variance: Cumulative share of the variance along the principal directions, (D,).
    """

    model: str
    strategy: str
    unit: np.ndarray
    near: Neighbours
    geometry: Geometry
    cosines: CosineHistogram
    variance: np.ndarray

    def __len__(self) -> int:
        return len(self.unit)

    def numbers(self) -> dict[str, float]:
        """Return the measures by their labels."""
        return _by_name(self.geometry)


def _by_name(found: Geometry) -> dict[str, float]:
    return {each.label: each.of_geometry(found) for each in space_measures().values()}


def measure_labels() -> list[str]:
    """Return what the measures of a space are called in tables and figures."""
    return [each.label for each in space_measures().values()]


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of two spaces, the second aligned to the first.

    Attributes:
        method: How both were made.
        first, second: Places of the N sentences, (N, 2).
        moved: How far each moves between them, in radii of the first map, (N,).
        variance: Shares of the variance along the axes of each, PCA only.
    """

    method: Method
    first: np.ndarray
    second: np.ndarray
    moved: np.ndarray
    variance: tuple[tuple[float, float] | None, tuple[float, float] | None]


@dataclass(frozen=True, eq=False)
class Stability:
    """How much of a map is left to chance: the same space drawn again with other seeds.

    Attributes:
        seeds: All seeds, that of the map first.
        maps: The other maps, aligned to the first, (seeds − 1, N, 2).
        kept: Share of each point's neighbours on the map that other seeds agree on, (N,).
        moved: How far each point moves on average, in radii of the map, (N,).
    """

    seeds: tuple[int, ...]
    maps: np.ndarray
    kept: np.ndarray
    moved: np.ndarray


def measure_spaces(
    sources: Sequence[CachedModel],
    strategies: Sequence[str],
    texts: Sequence[str],
    *,
    positives: np.ndarray | None = None,
    cache: DiskCache | None = None,
    progress: Progress | None = None,
) -> list[Space]:
    """Return the space of each (source, strategy) on the same sentences.

    Args:
        sources, strategies: One of each a space; the same source twice is read once.
        texts: N ≥ 5 different sentences.
        positives: Rows of pairs that mean the same, (P, 2), for the alignment.
        cache: Where neighbours are kept.
        progress: Called with (sentences encoded, sentences to encode), where there are any.

    Raises:
        InputError: If there are fewer than 5 sentences, or a space has one vector for all.
        StrategyError: If a model has no such strategy.
    """
    found: dict[tuple[int, str], Space] = {}
    for source in dict.fromkeys(sources):
        own = [name for each, name in zip(sources, strategies, strict=True) if each is source]
        for name, vectors in source.vectors(texts, list(dict.fromkeys(own)), progress=progress):
            unit = _checked(vectors, source, name)
            shares = geometry.spectrum(vectors)
            found[id(source), name] = Space(
                model=source.facts.name,
                strategy=name,
                unit=unit,
                near=neighbours(unit, KEPT, cache=cache),
                geometry=geometry.measure(vectors, positives),
                cosines=geometry.cosine_histogram(unit),
                variance=np.cumsum(shares) / shares.sum(),
            )
    return [found[id(each), name] for each, name in zip(sources, strategies, strict=True)]


def _checked(vectors: np.ndarray, source: CachedModel, strategy: str) -> np.ndarray:
    try:
        return checked(vectors)
    except InputError as error:
        raise InputError(f"'{source.facts.name}', strategy '{strategy}': {error}") from error


def draw_maps(
    first: Space,
    second: Space,
    method: str = Method.UMAP,
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    cache: DiskCache | None = None,
    process: UmapProcess | None = None,
    progress: Progress | None = None,
) -> Maps:
    """Draw both spaces so that movement means change.

    Both UMAP maps start from the same places, the first space's principal components, with the
    same seed: equal spaces give equal maps. The second is then turned and scaled onto the first
    (Procrustes).

    Args:
        first, second: The spaces; they may be the same.
        method, n_neighbors, min_dist, seed, cache, process: As `project`.
        progress: Called with (steps done, steps) over both maps.

    Raises:
        InputError: If the spaces have other numbers of sentences.
        ConfigError: As `project`.
    """
    if len(first) != len(second):
        raise InputError(
            f"The spaces have {len(first)} and {len(second)} sentences; two maps are drawn of the "
            "same ones."
        )
    drawn: list[Projection] = []
    start = project(first.unit, Method.PCA).coordinates
    for place, space in enumerate((first, second)):

        def advance(done: int, total: int, place: int = place) -> None:
            if progress is not None:
                progress(place * total + done, 2 * total)

        drawn.append(
            project(
                space.unit,
                method,
                n_neighbors=n_neighbors,
                min_dist=min_dist,
                seed=seed,
                start=None if method == Method.PCA else start,
                known=space.near,
                cache=cache,
                process=process,
                progress=advance,
            )
        )
    aligned = align(drawn[1].coordinates, drawn[0].coordinates)
    return Maps(
        method=Method(method),
        first=drawn[0].coordinates,
        second=aligned,
        moved=movement(drawn[0].coordinates, aligned),
        variance=(drawn[0].variance, drawn[1].variance),
    )


def numbers_table(
    names: Sequence[str], spaces: Sequence[Space], quality: Sequence[Quality]
) -> pd.DataFrame:
    """Return a row a space: its name, the measures, and what its map keeps."""
    return pd.DataFrame(
        [
            {
                "space": name,
                **space.numbers(),
                "trustworthiness": kept.trustworthiness,
                "k-NN recall": kept.knn_recall,
            }
            for name, space, kept in zip(names, spaces, quality, strict=True)
        ]
    )


def map_quality(space: Space, coordinates: np.ndarray, progress: Progress | None = None) -> Quality:
    """Return what a map keeps of a space's neighbourhoods."""
    return quality(space.unit, coordinates, known=space.near, progress=progress)


def neighbours_kept(first: Space, second: Space, *, k: int = CHANGE_K) -> np.ndarray:
    """Return the share of each sentence's k nearest in the first full space that are also among its
    k nearest in the second, (N,), 0–1. Independent of any map.

    Raises:
        InputError: If the spaces have other numbers of sentences.
    """
    k = min(k, first.near.count, second.near.count)
    return overlap(first.near.indices[:, :k], second.near.indices[:, :k])


def neighbourhood_change(
    first: Space,
    second: Space,
    texts: Sequence[str],
    *,
    k: int = CHANGE_K,
    most: int | None = None,
) -> pd.DataFrame:
    """Return how much each sentence's neighbourhood in the full space changes, most first.

    Columns: row, sentence, kept (as `neighbours_kept`; ties are broken by more neighbours), lost
    (the nearest of the first space that is gone), gained (the nearest of the second that is new);
    "" where nothing is lost.

    Args:
        first, second, k: As `neighbours_kept`.
        texts: The N sentences.
        most: Sentences that are returned; None for all.

    Raises:
        InputError: As `neighbours_kept`.
    """
    kept = neighbours_kept(first, second, k=k)
    k = min(k, first.near.count, second.near.count)
    before, after = first.near.indices[:, :k], second.near.indices[:, :k]
    # Equal shares of few neighbours are frequent: more of them decide which comes first.
    finer = neighbours_kept(first, second, k=KEPT)
    order = np.lexsort((np.arange(len(kept)), finer, kept))[:most]
    rows = []
    for row in order.tolist():
        lost = next((i for i in before[row].tolist() if i not in after[row]), None)
        gained = next((i for i in after[row].tolist() if i not in before[row]), None)
        rows.append(
            {
                "row": row,
                "sentence": texts[row],
                "kept": float(kept[row]),
                "lost": "" if lost is None else texts[lost],
                "gained": "" if gained is None else texts[gained],
            }
        )
    return pd.DataFrame(rows)


def stability(
    space: Space,
    coordinates: np.ndarray,
    *,
    seed: int = 0,
    seeds: int = STABILITY_SEEDS,
    k: int = 15,
    start: np.ndarray | None = None,
    **options: Any,
) -> Stability:
    """Draw a UMAP map again with further seeds, and return what stays.

    Args:
        space, coordinates: A space and its map.
        seed: The map's own.
        seeds: How many further ones, seed + 1, seed + 2, ….
        k: Neighbours on the map that are compared, clipped below N/2.
        start: Where the map started from.
        options: As `project`.
    """
    from lwap.projection.quality import map_neighbours

    k = max(1, min(k, (len(space) - 1) // 2))
    own = map_neighbours(coordinates, k)
    maps, kept, moved = [], [], []
    for other in range(seed + 1, seed + 1 + seeds):
        drawn = project(
            space.unit, Method.UMAP, seed=other, start=start, known=space.near, **options
        )
        maps.append(align(drawn.coordinates, coordinates))
        kept.append(overlap(own, map_neighbours(maps[-1], k)))
        moved.append(movement(coordinates, maps[-1]))
    return Stability(
        seeds=tuple(range(seed, seed + 1 + seeds)),
        maps=np.stack(maps),
        kept=np.mean(kept, axis=0),
        moved=np.mean(moved, axis=0),
    )


def layer_course(
    source: CachedModel,
    strategies: Sequence[str],
    texts: Sequence[str],
    *,
    positives: np.ndarray | None = None,
    on_strategy: Progress | None = None,
) -> pd.DataFrame:
    """Return the measures of every layer alone, and of strategies, a row each.

    Columns: strategy and `measure_labels`; NaN where a strategy gives one vector for every
    sentence, and for the alignment without positive pairs. Above `COURSE_SENTENCES` sentences it
    takes an even sample, to which the pairs do not apply.

    Args:
        source: A model.
        strategies: What stands beside the layers.
        texts, positives: As `measure_spaces`.
        on_strategy: Called with (strategies measured, strategies in all).
    """
    if len(texts) > COURSE_SENTENCES:
        chosen = np.linspace(0, len(texts) - 1, COURSE_SENTENCES).round().astype(int)
        texts, positives = [texts[row] for row in chosen], None
    states = range(source.facts.num_states)
    layers = [f"{kind}:{state}" for kind in ("layer_cls", "layer_mean") for state in states]
    names = list(dict.fromkeys([*layers, *strategies]))
    rows = []
    for name, vectors in source.vectors(texts, names):
        measured = geometry.measure_varied(vectors, positives)
        numbers = (
            dict.fromkeys(measure_labels(), math.nan) if measured is None else _by_name(measured)
        )
        rows.append({"strategy": name, **numbers})
        if on_strategy is not None:
            on_strategy(len(rows), len(names))
    return pd.DataFrame(rows)


def layer_walk(
    source: CachedModel,
    strategies: Sequence[str],
    texts: Sequence[str],
    method: str,
    **options: Any,
) -> np.ndarray:
    """Return maps of the same sentences under several strategies, each aligned to the next one.

    All UMAP maps start from the principal components of the last; a strategy that gives one vector
    for every sentence is a map of one point.

    Args:
        source: A model.
        strategies: F names, such as layer_mean:0 … layer_mean:L, lwap.
        texts: N sentences.
        method, options: As `project`.

    Returns:
        Places, (F, N, 2) float32, each map of radius 1.

    Raises:
        InputError, ConfigError: As `project`, but for strategies of one vector.
    """
    vectors = dict(source.vectors(texts, list(dict.fromkeys(strategies))))
    varied = [
        name
        for name in strategies
        if vectors[name].any() and not is_constant(geometry.normalise(vectors[name]))
    ]
    if method == Method.UMAP and varied:
        start = project(vectors[varied[-1]], Method.PCA).coordinates
        options = options | {"start": start}
    frames: list[np.ndarray] = []
    for name in reversed(strategies):  # the last is what the walk leads to: it sets the turn
        if name not in varied:
            frames.append(np.zeros((len(texts), 2), dtype=np.float32))
            continue
        drawn = project(vectors[name], method, **options).coordinates
        drawn = drawn - drawn.mean(axis=0)
        known = next((frame for frame in reversed(frames) if frame.any()), None)
        if known is None:
            known = drawn / max(math.sqrt(np.square(drawn).sum(axis=1).mean()), 1e-12)
        frames.append(align(drawn, known))
    return np.stack(frames[::-1])
