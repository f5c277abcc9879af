"""UMAP itself: the same map anywhere, and what settings, seeds and spaces change of it.

One process for all tests, and another Python to compare with; each compiles for some seconds.
"""

import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lwap.checkpoints.cached import CachedModel
from lwap.encoding.diskcache import DiskCache
from lwap.errors import ConfigError
from lwap.evaluation.geometry import normalise
from lwap.projection import project
from lwap.projection.maps import MapConfig, movement, place, principal
from lwap.projection.process import UmapProcess
from lwap.projection.quality import quality
from lwap.projection.space import draw_maps, layer_walk, stability
from tests.projection.test_projection import Stub, make_space, radius

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"n_neighbors": 12, "min_dist": 0.2, "seed": 3}
PATIENCE = 600  # seconds; a wait that takes so long is a failure


def cloud(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    """Return vectors of length 1 in four groups that overlap, (N, D)."""
    random = np.random.default_rng(seed)
    centres = 1.2 * random.normal(size=(4, dimension))
    return normalise(centres[np.arange(count) % 4] + random.normal(size=(count, dimension)))


UNIT = cloud(120)

# The same map from another process, and what umap makes of the same numbers with nothing between.
ELSEWHERE = """
import sys, warnings
import numpy as np
import umap
from umap.umap_ import compute_membership_strengths, smooth_knn_dist
from lwap.projection import project, worker

class Here:
    def fit(self, indices, cosines, start, config, *, progress=None):
        return worker.fit(indices, cosines, start, **config)

warnings.simplefilter("ignore")
arrays, found = dict(np.load(sys.argv[1])), {}
found["mapped"] = project(
    arrays["unit"], n_neighbors=12, min_dist=0.2, seed=3, process=Here()
).coordinates

own = np.arange(len(arrays["indices"]))[:, None]
rows = np.hstack([own, arrays["indices"]])[:, :12].astype(np.int32)
distances = np.hstack([np.zeros(own.shape), 1 - arrays["cosines"].astype(np.float64)])[:, :12]
found["direct"] = umap.UMAP(
    n_neighbors=12,
    min_dist=0.2,
    metric="cosine",
    random_state=3,
    init=arrays["start"],
    n_epochs=500,
    precomputed_knn=(rows, distances.astype(np.float32)),
    force_approximation_algorithm=True,
).fit_transform(arrays["unit"])

# Each point as its own first neighbour, which umap leaves out of the sum.
apart = np.hstack([np.zeros((len(arrays["apart"]), 1)), arrays["apart"]]).astype(np.float32)
sigmas, rhos = smooth_knn_dist(apart, float(arrays["apart"].shape[1]))
columns = np.tile(np.arange(apart.shape[1], dtype=np.int32), (len(apart), 1))
_, _, weights, _ = compute_membership_strengths(columns + 10_000, apart, sigmas, rhos, False, True)
found["weights"] = weights.reshape(apart.shape)[:, 1:]
np.savez(sys.argv[2], **found)
"""
NEW = cloud(20, seed=9)
FAR = 1 - NEW.astype(float) @ UNIT.astype(float).T  # distances of new vectors to those of the map
NEAREST = np.argsort(FAR, axis=1)[:, :15]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Iterator[Callable[[], dict[str, np.ndarray]]]:
    """Return a function that waits for what another Python has found; it is started at once."""
    folder = tmp_path_factory.mktemp("elsewhere")
    stub = Stub()
    project(UNIT, process=stub, **SETTINGS)
    given = {name: stub.given[0][name] for name in ("indices", "cosines", "start")}
    apart = np.take_along_axis(FAR, NEAREST, axis=1)
    np.savez(folder / "given.npz", unit=UNIT, apart=apart, **given)
    run = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, folder / "given.npz", folder / "found.npz"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )

    def wait() -> dict[str, np.ndarray]:
        _, errors = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, errors
        return dict(np.load(folder / "found.npz"))

    found: dict[str, np.ndarray] = {}
    yield lambda: found or found.update(wait()) or found
    if run.poll() is None:
        run.kill()
        run.communicate()


@pytest.fixture(scope="module")
def process(elsewhere) -> Iterator[UmapProcess]:
    own = UmapProcess()
    own.warm_up()
    yield own
    own.close()


@pytest.fixture(scope="module")
def drawn(process) -> np.ndarray:
    return project(UNIT, process=process, **SETTINGS).coordinates


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path / "cache", limit_bytes=10**9)


# --- the map ------------------------------------------------------------------------------------


def test_the_same_vectors_and_seed_give_the_same_map_anywhere(drawn, process, elsewhere):
    assert np.array_equal(project(UNIT.copy(), process=process, **SETTINGS).coordinates, drawn)
    assert np.array_equal(elsewhere()["mapped"], drawn)
    assert drawn.dtype == np.float32 and np.isfinite(drawn).all()
    assert drawn.mean(axis=0) == pytest.approx([0, 0], abs=1e-4)


def test_the_map_is_what_umap_gives_for_these_neighbours_and_this_start(drawn, elsewhere):
    direct = elsewhere()["direct"]
    assert np.array_equal((direct - direct.mean(axis=0)).astype(np.float32), drawn)


def test_new_sentences_are_weighed_as_umap_weighs_neighbours(elsewhere):
    expected = elsewhere()["weights"]
    assert (expected[:, 0] == 1).all()
    assert expected.sum(axis=1) == pytest.approx(math.log2(15), abs=1e-3)
    axes = np.eye(len(UNIT))  # each vector on an axis of its own, so that a place is its weights
    found = np.take_along_axis(place(NEW, UNIT, axes), NEAREST, axis=1)
    assert found == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"n_neighbors": 13},
        {"min_dist": 0.3},
        {"start": np.random.default_rng(0).normal(size=(120, 2))},
    ],
)
def test_other_settings_give_another_map(changes, drawn, process):
    other = project(UNIT, process=process, **SETTINGS | changes).coordinates
    assert np.abs(other - drawn).max() > 0.05 * radius(drawn)


def test_a_map_keeps_neighbourhoods_and_groups(drawn):
    found = quality(UNIT, drawn)
    assert found.trustworthiness > quality(UNIT, principal(UNIT).coordinates).trustworthiness
    assert found.trustworthiness > 0.85
    of = np.arange(120) % 4
    centres = np.stack([drawn[of == group].mean(axis=0) for group in range(4)])
    nearest = np.linalg.norm(drawn[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == of).mean() > 0.9


def test_progress_goes_up_to_the_last_epoch(process, drawn):
    calls = []
    project(UNIT, process=process, progress=lambda *call: calls.append(call))
    counted = [done for done, total in calls if total == 500]
    assert calls[0] == (0, 1)
    assert counted == sorted(counted)
    assert (counted[0], counted[-1]) == (0, 500)


DEGENERATE = {
    "five": cloud(5),
    "two places": cloud(2)[[0, 1] * 8],
    "one apart from all others": cloud(2)[[0] * 15 + [1]],
    "opposite": np.concatenate([np.tile(cloud(1), (8, 1)), -cloud(1)]),
    "on a circle": np.stack([np.cos(np.arange(30)), np.sin(np.arange(30))], axis=1),
}


@pytest.mark.parametrize("kind", DEGENERATE)
def test_odd_spaces_have_a_finite_map(kind, process, drawn):
    found = project(DEGENERATE[kind], process=process)
    assert np.isfinite(found.coordinates).all()
    assert found.config.n_neighbors == min(15, len(DEGENERATE[kind]) - 1)
    assert (np.ptp(found.coordinates, axis=0) > 0.1).all()


def test_more_neighbours_than_vectors_are_clipped(process, drawn):
    found = project(UNIT[:20], n_neighbors=150, process=process)
    assert found.config.n_neighbors == 19
    again = project(UNIT[:20], n_neighbors=19, process=process)
    assert np.array_equal(found.coordinates, again.coordinates)


def test_a_map_is_found_again_without_a_process(process, drawn, cache, monkeypatch):
    assert np.array_equal(
        project(UNIT, process=process, cache=cache, **SETTINGS).coordinates, drawn
    )
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("started"))
    again = project(UNIT * 2, cache=DiskCache(cache.folder), **SETTINGS)
    assert np.array_equal(again.coordinates, drawn)
    assert again.config == MapConfig(**SETTINGS)
    with pytest.raises(pytest.fail.Exception, match="started"):
        project(UNIT, cache=cache, **SETTINGS | {"seed": 4})


# --- two maps, seeds and walks ------------------------------------------------------------------


def test_the_same_space_twice_does_not_move(process, drawn, cache):
    one = make_space(UNIT)
    for kept in (None, cache):  # drawn twice, and drawn once and read
        found = draw_maps(one, make_space(UNIT.copy()), process=process, cache=kept, **SETTINGS)
        assert np.array_equal(found.first, found.second)
        assert (found.moved == 0).all()
    assert len(cache.names("maps")) == 1


def test_another_space_is_drawn_as_wide_as_the_first(process, drawn):
    other = normalise(UNIT + 0.5 * cloud(120, seed=7))
    found = draw_maps(make_space(UNIT), make_space(other), process=process, **SETTINGS)
    assert radius(found.second) == pytest.approx(radius(found.first), rel=1e-4)
    assert 0 < np.median(found.moved) < 1.5
    # Further than by another turn of the same map: vectors have changed.
    again = draw_maps(make_space(UNIT), make_space(other), process=process, **SETTINGS)
    assert np.array_equal(again.second, found.second)


def test_other_seeds_are_other_maps_of_the_same_groups(process, drawn):
    found = stability(
        make_space(UNIT), drawn, seed=3, process=process, n_neighbors=12, min_dist=0.2
    )
    assert found.seeds == (3, 4, 5)
    assert not np.array_equal(found.maps[0], found.maps[1])
    for other in found.maps:
        assert radius(other) == pytest.approx(radius(drawn), rel=1e-4)
    assert ((found.kept > 0) & (found.kept <= 1)).all() and 0.4 < found.kept.mean() < 1
    assert found.moved.min() > 0


def test_a_walk_by_umap(process, drawn, tiny_lwap_model, sentences):
    names = ["layer_cls:0", "layer_mean:1", "lwap", "lwap"]
    source = CachedModel(tiny_lwap_model)
    found = layer_walk(source, names, sentences, "umap", process=process, n_neighbors=8)
    assert found.shape == (4, len(sentences), 2)
    assert not found[0].any()
    assert found[2] == pytest.approx(found[3], abs=1e-4)
    for frame in found[1:]:
        assert radius(frame) == pytest.approx(1, rel=1e-4)
    assert movement(found[3], found[1]).mean() > 0.01


def test_two_threads_are_served_one_after_the_other(process, drawn):
    others = {seed: cloud(200, seed=seed) for seed in (1, 2)}
    alone = {seed: project(unit, process=process).coordinates for seed, unit in others.items()}
    found, failed = {}, []

    def draw(seed: int) -> None:
        try:
            found[seed] = project(others[seed], process=process).coordinates
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failed == []
    for seed, coordinates in alone.items():
        assert np.array_equal(found[seed], coordinates)


def test_what_umap_refuses_is_told():
    process, ones = UmapProcess(), np.ones((30, 5))
    try:
        with pytest.raises(
            ConfigError, match=r"UMAP failed: ValueError: min_dist must be .*, or PCA"
        ):
            process.fit(
                ones.astype(int), ones, ones[:, :2], {"n_neighbors": 5, "min_dist": 9, "seed": 0}
            )
        assert process.pid is None
    finally:
        process.close()
