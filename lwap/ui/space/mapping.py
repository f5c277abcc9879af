"""What the Space page computes: spaces, maps and what is looked at below them, in threads.

All of it is shared by the sessions of the server and found again by what was asked: two browsers
that ask for the same map get one fit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st

from lwap.datasets.readers import SentenceTable
from lwap.encoding.diskcache import DiskCache
from lwap.projection import space as projection
from lwap.projection.maps import principal
from lwap.projection.process import UmapProcess
from lwap.projection.quality import Quality
from lwap.ui import cache
from lwap.ui.work import Registry, Work

KEPT = 12  # of each kind
KEPT_SPACES = 3  # pairs of spaces: up to 300 MB each for 100,000 sentences


@dataclass(frozen=True)
class Request:
    """Which two spaces of which sentences: plain values, by which the same request is recognised.

    Attributes:
        models: The name of the model of each space.
        fingerprints: Hash of each: one trained anew under its name is another.
        strategies: The strategy of each space.
        data: Hash of the sentences and their pairs.
    """

    models: tuple[str, str]
    fingerprints: tuple[str, str]
    strategies: tuple[str, str]
    data: str

    @property
    def names(self) -> tuple[str, str]:
        """What the spaces are called: their strategies, with the model where there are two."""
        if self.models[0] == self.models[1]:
            return self.strategies
        first, second = map(" · ".join, zip(self.models, self.strategies, strict=True))
        return first, second


@dataclass(frozen=True)
class MapRequest:
    """Which maps of two spaces."""

    spaces: Request
    method: str
    n_neighbors: int = 15
    min_dist: float = 0.1
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of UMAP."""
        return {"n_neighbors": self.n_neighbors, "min_dist": self.min_dist, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Drawn:
    """Maps of two spaces, and what each keeps."""

    maps: projection.Maps
    quality: tuple[Quality, Quality]


@dataclass(eq=False)
class Spaces(Work):
    """Two spaces and their PCA maps; its steps are sentences to encode.

    Attributes:
        request: What was asked for.
        table: The sentences.
        spaces: Both, once they are measured.
        pca: Their PCA maps.
        notes: What a person should know of.
    """

    NAME = "the measuring of the spaces"

    request: Request
    table: SentenceTable
    spaces: tuple[projection.Space, projection.Space] | None = None
    pca: Drawn | None = None
    notes: tuple[str, ...] = ()
    sources: tuple[Any, ...] = ()

    def compute(self, models: dict[str, Any]) -> None:
        """Encode what is missing, measure both spaces, draw their PCA maps."""
        self.sources = tuple(models[name] for name in self.request.models)
        disk = self.sources[0].cache
        disk.begin()
        spaces = projection.measure_spaces(
            self.sources,
            self.request.strategies,
            self.table.sentences,
            positives=self.table.positives,
            cache=disk,
            progress=self.advance,
        )
        self.check()
        self.pca = _draw(spaces, "pca")
        self.spaces = spaces[0], spaces[1]
        self.notes = tuple(disk.notes)

    @functools.cached_property
    def neighbours_kept(self) -> np.ndarray:
        """The share of each sentence's nearest neighbours that both spaces have, (N,)."""
        return projection.neighbours_kept(*self.spaces)


@dataclass(eq=False)
class Lookup(Work):
    """Something else of spaces that are known, computed by a function; its result is kept.

    Attributes:
        call: Gets the work, to say how far it is and to hear a stop, and gives the result; None
            once it began.
        result: What it gave.
    """

    NAME = "the computation"

    call: Callable[[Lookup], Any] | None
    result: Any = None
    notes: list[str] = field(default_factory=list)

    def compute(self, models: dict[str, Any]) -> None:
        """Call the function, and let go of it: it holds the spaces, which may be large."""
        call, self.call = self.call, None
        self.result = call(self)


@st.cache_resource(show_spinner=False)
def _spaces() -> Registry[Spaces]:
    return Registry(KEPT_SPACES)


@st.cache_resource(show_spinner=False)
def _lookups() -> Registry[Lookup]:
    return Registry(KEPT)


@st.cache_resource(show_spinner=False)
def _maps() -> Registry[Lookup]:
    # A registry of their own: whoever only looks something up does not wait for a map.
    return Registry(KEPT)


@st.cache_resource(show_spinner=False)
def umap_process():
    """Return the process that draws all UMAP maps of this server, not yet started."""
    return UmapProcess()


def spaces(request: Request, table: SentenceTable) -> Spaces:
    """Return the work on two spaces; start it where there is none, or it was stopped.

    Raises:
        LwapError: If a model cannot be loaded.
    """
    models = {name: cache.cached(name) for name in request.models}
    return _spaces().start(request, lambda: Spaces(request, table), models)


def find_spaces(request: Request) -> Spaces | None:
    """Return the work on two spaces, if it was asked for."""
    return _spaces().find(request)


def umap(request: MapRequest, found: Spaces) -> Lookup:
    """Return the work on the UMAP maps of two spaces; its result is a `Drawn`."""

    def run(work: Lookup) -> Drawn:
        disk = DiskCache()
        drawn = _draw(
            found.spaces,
            "umap",
            cache=disk,
            process=umap_process(),
            # A fit that has no step yet says 0 of 1; of both maps that is of 2.
            progress=lambda done, total: work.advance(done, total) if total > 2 else work.check(),
            **request.settings,
        )
        work.notes += disk.notes
        return drawn

    return _maps().start(request, lambda: Lookup(run), {})


def find_umap(request: MapRequest) -> Lookup | None:
    """Return the work on UMAP maps, if it was asked for."""
    return _maps().find(request)


def seeds(request: MapRequest, found: Spaces, maps: projection.Maps) -> Lookup:
    """Return the work on the stability of both maps over seeds; its result is two `Stability`."""

    def run(work: Lookup) -> tuple:
        settings = request.settings
        settings.pop("seed")
        start = principal(found.spaces[0].unit).coordinates
        progress = _steps(work, 2 * projection.STABILITY_SEEDS)
        # The second map is turned onto the first; its own start is the same.
        return tuple(
            projection.stability(
                space,
                coordinates,
                seed=request.seed,
                start=start,
                cache=DiskCache(),
                process=umap_process(),
                progress=progress,
                **settings,
            )
            for space, coordinates in zip(found.spaces, (maps.first, maps.second), strict=True)
        )

    return _look_up(_maps(), ("seeds", request), run)


def course(found: Spaces, place: int, strategies: Sequence[str]) -> Lookup:
    """Return the work on the layer-by-layer measures of one space's model; a table."""

    def run(work: Lookup):
        return projection.layer_course(
            found.sources[place],
            strategies,
            found.table.sentences,
            positives=found.table.positives,
            on_strategy=work.advance,
        )

    key = ("course", found.request.fingerprints[place], found.request.data, tuple(strategies))
    return _look_up(_lookups(), key, run)


def walk(
    request: MapRequest, found: Spaces, place: int, strategies: Sequence[str], rows: np.ndarray
) -> Lookup:
    """Return the work on the maps of several strategies of one space's model, (F, N, 2)."""

    def run(work: Lookup) -> np.ndarray:
        texts = [found.table.sentences[row] for row in rows]
        options: dict[str, Any] = {}
        if request.method == "umap":
            options = request.settings | {
                "cache": DiskCache(),
                "process": umap_process(),
                "progress": _steps(work, len(strategies)),
            }
        return projection.layer_walk(
            found.sources[place], strategies, texts, request.method, **options
        )

    key = ("walk", request, place, tuple(strategies), len(rows))
    return _look_up(_maps() if request.method == "umap" else _lookups(), key, run)


def layer_weights(found: Spaces, place: int) -> Lookup:
    """Return the work on the weights of the states in each sentence, (N, S)."""

    def run(work: Lookup) -> np.ndarray:
        return found.sources[place].layer_weights(found.table.sentences)

    key = ("weights", found.request.fingerprints[place], found.request.data)
    return _look_up(_lookups(), key, run)


def clusters(found: Spaces, kind: str, count: int) -> Lookup:
    """Return the work on the clusters of the first space, N labels."""

    def run(work: Lookup) -> list[str]:
        from lwap.projection import clusters as run_clusters

        unit = found.spaces[0].unit
        if kind == "hdbscan":
            return run_clusters.hdbscan(unit)
        return run_clusters.kmeans(unit, min(count, len(unit)))

    key = ("clusters", found.request, kind, count)
    return _look_up(_lookups(), key, run)


def forget(work: Work) -> None:
    """Drop what failed or was stopped, so that the next look starts it anew."""
    registries: tuple[Registry[Any], ...] = (_spaces(), _lookups(), _maps())
    for registry in registries:
        registry.forget(work)


def _look_up(registry: Registry[Lookup], key: Hashable, run: Callable[[Lookup], Any]) -> Lookup:
    """Return what was asked for before, however it ended, or start it.

    A page asks with every run: to start what failed or was stopped would never end.
    """
    found = registry.find(key)
    return registry.start(key, lambda: Lookup(run), {}) if found is None else found


def _steps(work: Lookup, fits: int) -> Callable[[int, int], None]:
    """Return a function that counts the steps of several fits, one after the other, as one."""
    ended, reached = 0, 0

    def advance(done: int, total: int) -> None:
        nonlocal ended, reached
        if total > 1:
            reached = done
            work.advance(ended * total + done, fits * total)
            return
        ended, reached = ended + bool(reached), 0  # a fit that has no step yet
        work.check()

    return advance


def _draw(spaces: Sequence[projection.Space], method: str, **options: Any) -> Drawn:
    first, second = spaces
    maps = projection.draw_maps(first, second, method, **options)
    is_same = first is second
    before = projection.map_quality(first, maps.first)
    after = before if is_same else projection.map_quality(second, maps.second)
    return Drawn(maps, (before, after))
