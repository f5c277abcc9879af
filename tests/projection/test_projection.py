"""Neighbours, maps, their quality, clusters and what changes between spaces: against brute force.

UMAP itself is in test_umap, its process in test_umap_process.
"""

import math
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

import lwap
from lwap.checkpoints.cached import CachedModel
from lwap.encoding.diskcache import DiskCache
from lwap.errors import ConfigError, InputError, StrategyError
from lwap.evaluation import geometry
from lwap.evaluation.geometry import normalise
from lwap.projection import Method, maps, project, worker
from lwap.projection import neighbours as neighbours_module
from lwap.projection import quality as quality_module
from lwap.projection.clusters import HDBSCAN_UP_TO, KMEANS_BATCHES_FROM, hdbscan, kmeans
from lwap.projection.maps import (
    MapConfig,
    align,
    checked,
    is_constant,
    movement,
    place,
    place_principal,
    principal,
)
from lwap.projection.neighbours import Neighbours, content_hash, neighbours, overlap
from lwap.projection.quality import map_neighbours, quality
from lwap.projection.space import (
    COURSE_SENTENCES,
    Space,
    draw_maps,
    layer_course,
    layer_walk,
    map_quality,
    measure_labels,
    measure_spaces,
    neighbourhood_change,
    neighbours_kept,
    stability,
)


def cloud(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    """Return random vectors of length 1 around a common offset, (N, D) float32."""
    random = np.random.default_rng(seed)
    return normalise(random.normal(size=(count, dimension)) + 0.3)


def groups(sizes=(30, 20, 12), dimension: int = 16, width: float = 0.15, seed: int = 0):
    """Return vectors of length 1 around one centre a group, shuffled, and the group of each."""
    random = np.random.default_rng(seed)
    of = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = np.linalg.qr(random.normal(size=(dimension, dimension)))[0][: len(sizes)]
    vectors = centres[of] + width / math.sqrt(dimension) * random.normal(size=(len(of), dimension))
    return normalise(vectors), of


def brute_neighbours(unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and cosines of the k nearest others, by sorting everything in float64."""
    cosines = unit.astype(np.float64) @ unit.astype(np.float64).T
    np.fill_diagonal(cosines, -np.inf)
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(cosines, rows, axis=1)


def make_space(unit: np.ndarray, name: str = "mean") -> Space:
    return Space(
        model="mine",
        strategy=name,
        unit=unit,
        near=neighbours(unit),
        geometry=geometry.measure(unit),
        cosines=geometry.cosine_histogram(unit),
        variance=np.cumsum(geometry.spectrum(unit)),
    )


def radius(coordinates: np.ndarray) -> float:
    centred = coordinates.astype(float) - coordinates.astype(float).mean(axis=0)
    return math.sqrt(np.mean([x * x + y * y for x, y in centred]))


def turned(coordinates: np.ndarray, degrees: float, *, is_mirrored=False, scale=1.0, shift=(0, 0)):
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    if is_mirrored:
        turn = turn @ np.diag([1.0, -1.0])
    return scale * coordinates @ turn + np.asarray(shift)


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path / "cache", limit_bytes=10**9)


class Stub:
    """In the place of a `UmapProcess`: keeps what it is given, and draws the start."""

    def __init__(self) -> None:
        self.given: list[dict] = []
        self.closed = 0

    def fit(self, indices, cosines, start, config, *, progress=None):
        self.given.append({"indices": indices, "cosines": cosines, "start": start, **config})
        if progress is not None:
            progress(5, 10)
        return start + np.float32(7)

    def close(self) -> None:
        self.closed += 1


# --- neighbours ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "k"), [(2, 1), (7, 3), (90, 15), (90, 89)])
def test_neighbours_are_those_of_brute_force(count, k):
    unit = cloud(count)
    found = neighbours(unit, k)
    rows, cosines = brute_neighbours(unit, k)
    assert np.array_equal(found.indices, rows)
    assert found.cosines == pytest.approx(cosines, abs=1e-6)
    assert (found.indices.dtype, found.cosines.dtype) == (np.int32, np.float32)
    assert (len(found), found.count) == (count, k)


def test_blocks_of_rows_change_nothing_and_progress_is_told():
    block, calls = neighbours_module.BLOCK, []
    count = 2 * block + 10
    unit = cloud(count)
    found = neighbours(unit, 10, progress=lambda *call: calls.append(call))
    for row in (0, block - 1, block, 2 * block - 1, 2 * block, count - 1):
        cosines = unit.astype(np.float64) @ unit[row].astype(np.float64)
        cosines[row] = -np.inf
        assert found.indices[row].tolist() == np.argsort(-cosines)[:10].tolist()
        assert found.cosines[row] == pytest.approx(np.sort(-cosines)[:10] * -1, abs=1e-6)
    assert calls == [(block, count), (2 * block, count), (count, count)]


def test_k_is_clipped_to_all_others():
    found = neighbours(cloud(6), 30)
    assert found.count == 5
    assert all(
        sorted(row) == [i for i in range(6) if i != own] for own, row in enumerate(found.indices)
    )


def test_copies_of_a_vector_are_its_neighbours_and_it_itself_never_is():
    unit = cloud(20)
    unit = np.concatenate([unit, np.tile(unit[3], (9, 1)), np.tile(unit[5], (2, 1))])
    for k in (1, 3, 8, 12, 30):
        found = neighbours(unit, k)
        assert (found.indices != np.arange(len(unit))[:, None]).all()
        assert all(len(set(row)) == k for row in found.indices.tolist())
        assert found.cosines == pytest.approx(brute_neighbours(unit, k)[1], abs=1e-6)
    copies = {3, *range(20, 29)}
    found = neighbours(unit, 9)
    for row in copies:
        assert set(found.indices[row].tolist()) == copies - {row}


def test_equal_cosines_come_in_the_order_of_rows_and_never_above_one():
    unit = np.tile(cloud(1, 384), (12, 1))
    found = neighbours(unit, 5)
    assert found.cosines.max() <= 1
    assert (np.diff(found.indices, axis=1) > 0).all()


def test_neighbours_do_not_depend_on_the_number_of_threads():
    """faiss's scores do, in the last bit, and a UMAP map depends on that bit."""
    import faiss

    unit, threads = cloud(600, 384), faiss.omp_get_max_threads()
    results = []
    try:
        for number in (1, 2, 3):
            faiss.omp_set_num_threads(number)
            results.append(neighbours(unit, 20))
    finally:
        faiss.omp_set_num_threads(threads)
    for found in results[1:]:
        assert np.array_equal(found.indices, results[0].indices)
        assert np.array_equal(found.cosines, results[0].cosines)


def test_neighbours_are_kept_by_content(cache):
    unit, searched = cloud(40), []
    first = neighbours(unit, 6, cache=cache, progress=lambda *call: searched.append(call))
    assert len(searched) == len(cache.names("neighbours")) == 1
    for same in (unit.copy(), np.asfortranarray(unit)):
        again = neighbours(
            same, 6, cache=DiskCache(cache.folder), progress=lambda *call: pytest.fail("searched")
        )
        assert np.array_equal(again.indices, first.indices)
        assert np.array_equal(again.cosines, first.cosines)
    others = ((unit, 7), (unit[::-1], 6), (unit[:39], 6), (normalise(unit + 1e-3), 6))
    for other, k in others:
        neighbours(other, k, cache=cache, progress=lambda *call: searched.append(call))
    assert len(searched) == len(cache.names("neighbours")) == 5


def test_a_damaged_entry_is_made_again(cache):
    unit = cloud(40)
    first = neighbours(unit, 6, cache=cache)
    (file,) = cache.folder.rglob("*.lwap")
    content = bytearray(file.read_bytes())
    content[-3] ^= 255
    file.write_bytes(content)
    again = neighbours(unit, 6, cache=cache)
    assert np.array_equal(again.indices, first.indices)
    assert any("damaged entry" in note for note in cache.notes)
    assert neighbours(unit, 6, cache=DiskCache(cache.folder)).count == 6
    name = cache.names("neighbours")[0]
    cache.write("neighbours", name, {"indices": first.indices})  # whole, but of something else
    assert np.array_equal(neighbours(unit, 6, cache=cache).cosines, first.cosines)


@pytest.mark.parametrize(
    ("unit", "k", "message"),
    [
        (cloud(1), 3, r"array \(N, D\) of 2 vectors or more, not \(1, 16\)"),
        (cloud(4)[0], 3, r"not \(16,\)"),
        (cloud(4), 0, "k is 0; ask for 1 neighbour or more"),
    ],
)
def test_refuses_what_has_no_neighbours(unit, k, message):
    with pytest.raises(InputError, match=message):
        neighbours(unit, k)


def test_overlap_is_the_share_in_common():
    random = np.random.default_rng(0)
    first, second = (np.stack([random.permutation(30)[:8] for _ in range(50)]) for _ in range(2))
    expected = [len(set(a) & set(b)) / 8 for a, b in zip(first, second, strict=True)]
    assert overlap(first, second).tolist() == expected
    assert len(set(expected)) > 3
    assert (overlap(first, first[:, ::-1]) == 1).all()
    with pytest.raises(InputError, match=r"shapes \(50, 8\) and \(50, 7\) cannot be compared"):
        overlap(first, second[:, :7])


def test_a_hash_is_of_types_shapes_and_numbers():
    array = np.arange(6, dtype=np.int32)
    others = [array.astype(np.int64), array.reshape(2, 3), array[::-1], array[:5], array.view("f4")]
    hashes = {content_hash(each) for each in (array, *others)}
    assert len(hashes) == 6
    assert content_hash(array, array) != content_hash(array)
    assert content_hash(array.reshape(2, 3)) == content_hash(np.asfortranarray(array.reshape(2, 3)))


# --- quality ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 6, 41, 300])
@pytest.mark.parametrize("k", [1, 2, 5, 15, 100])
@pytest.mark.parametrize("kind", ["random", "grouped"])
def test_trustworthiness_is_that_of_scikit_learn(count, k, kind):
    unit = cloud(count) if kind == "random" else groups([count - 3, 3])[0]
    random = np.random.default_rng(1)
    for coordinates in (random.normal(size=(count, 2)), principal(unit).coordinates):
        found = quality(unit, coordinates, k=k)
        assert found.k == min(k, (count - 1) // 2)
        assert found.k < count / 2  # as scikit-learn demands
        expected = trustworthiness(
            unit.astype(float), coordinates, n_neighbors=found.k, metric="cosine"
        )
        assert found.trustworthiness == pytest.approx(expected, abs=1e-9)
        assert found.point_trustworthiness.mean() == pytest.approx(expected, abs=1e-9)
        assert found.measured == count
        assert found.point_trustworthiness.min() >= 0


def slow_recall(unit: np.ndarray, coordinates: np.ndarray, k: int) -> np.ndarray:
    distances = cdist(coordinates, coordinates)
    np.fill_diagonal(distances, np.inf)
    on_map = np.argsort(distances, axis=1)[:, :k]
    pairs = zip(brute_neighbours(unit, k)[0], on_map, strict=True)
    return np.array([len(set(full) & set(flat)) / k for full, flat in pairs])


@pytest.mark.parametrize("k", [1, 7, 15])
def test_recall_is_that_of_brute_force(k):
    unit, _ = groups()
    coordinates = principal(unit).coordinates
    expected = slow_recall(unit, coordinates.astype(float), k)
    for known in (None, neighbours(unit), neighbours(unit, 3)):
        found = quality(unit, coordinates, k=k, known=known)
        assert found.point_recall == pytest.approx(expected)
        assert found.knn_recall == pytest.approx(expected.mean())
    assert 0 < expected.mean() < 1


def test_a_map_without_loss_is_perfect_and_one_by_chance_is_not():
    random = np.random.default_rng(0)
    angles = np.sort(random.uniform(0, 1.2, size=80))
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = quality(unit, unit)
    assert (found.trustworthiness, found.knn_recall) == (1, 1)
    by_chance = quality(unit, random.normal(size=(80, 2)))
    assert by_chance.trustworthiness < 0.65
    assert by_chance.knn_recall < 0.35


def test_a_map_turned_inside_out_has_no_trust():
    """The farthest of all stand beside each point: the least value of the formula, 0."""
    unit = np.array([[1, 0], [0.999, 0.01], [0, 1], [0.01, 0.999], [-1, 0.0]], dtype=np.float32)
    coordinates = [[1, 0], [-1.05, 0], [0, 1.1], [0, -1.15], [0, 0]]
    near = map_neighbours(coordinates, 1)
    assert near.tolist() == [[4], [4], [4], [4], [0]]
    expected = []
    for row, (other,) in enumerate(near):
        cosines = normalise(unit).astype(float) @ normalise(unit)[row].astype(float)
        rank = (np.delete(cosines, row) > cosines[other]).sum() + 1
        expected.append(1 - 2 / (1 * (2 * 5 - 3 - 1)) * max(0, rank - 1))
    found = quality(normalise(unit), coordinates, k=1)
    assert found.point_trustworthiness.tolist() == pytest.approx(expected)
    assert min(expected) == pytest.approx(0)


@pytest.mark.parametrize("k", [1, 4, 15])
def test_copies_keep_all_shares_between_zero_and_one(k):
    unit = np.concatenate([np.tile(cloud(3), (12, 1)), cloud(9, seed=1)])
    random = np.random.default_rng(0)
    same_places = np.concatenate([np.tile(random.normal(size=(3, 2)), (12, 1)), np.zeros((9, 2))])
    for coordinates in (same_places, random.normal(size=(45, 2)), np.zeros((45, 2))):
        found = quality(unit, coordinates, k=k)
        for share in (found.point_trustworthiness, found.point_recall):
            assert ((share >= -1e-12) & (share <= 1)).all()
        near = map_neighbours(coordinates, k)
        assert (near != np.arange(45)[:, None]).all()
        assert all(len(set(row)) == k for row in near.tolist())


def test_a_sample_of_points_is_close_to_all_of_them():
    unit, _ = groups((300, 200, 100))
    coordinates = principal(unit).coordinates
    exact = quality(unit, coordinates)
    found = quality(unit, coordinates, measured_rows=250)
    is_measured = ~np.isnan(found.point_trustworthiness)
    assert found.measured == is_measured.sum() == 250
    assert np.array_equal(
        found.point_trustworthiness[is_measured], exact.point_trustworthiness[is_measured]
    )
    spread = exact.point_trustworthiness.std()
    assert found.trustworthiness == pytest.approx(
        exact.trustworthiness, abs=4 * spread / math.sqrt(250)
    )
    assert found.trustworthiness == pytest.approx(np.nanmean(found.point_trustworthiness))
    assert np.array_equal(found.point_recall, exact.point_recall)  # of all points all the same
    again, other = (quality(unit, coordinates, measured_rows=250, seed=seed) for seed in (0, 1))
    assert again.trustworthiness == found.trustworthiness != other.trustworthiness
    assert (is_measured[:300].mean(), is_measured[300:].mean()) == pytest.approx(
        (0.42, 0.42), abs=0.1
    )


def test_blocks_of_measured_points_change_nothing():
    block, calls = quality_module.BLOCK, []
    count = 2 * block + 6
    unit = cloud(count)
    coordinates = principal(unit).coordinates
    found = quality(unit, coordinates, progress=lambda *call: calls.append(call))
    expected = trustworthiness(unit.astype(float), coordinates, n_neighbors=15, metric="cosine")
    assert found.trustworthiness == pytest.approx(expected, abs=1e-9)
    assert calls == [(block, count), (2 * block, count), (count, count)]


@pytest.mark.parametrize(
    ("count", "shape"), [(4, (4, 2)), (9, (8, 2)), (9, (9, 3)), (9, (9,)), (4, (9, 2))]
)
def test_refuses_a_map_that_does_not_fit(count, shape):
    message = "quality of a map needs 5 vectors or more and a place for each, not"
    with pytest.raises(InputError, match=message):
        quality(np.ones((count, 3)), np.zeros(shape))


# --- what a map can be made of ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 1}, "n_neighbors is 1; it must be 2 to 200"),
        ({"n_neighbors": 201}, "n_neighbors is 201; it must be 2 to 200"),
        ({"min_dist": -0.1}, "min_dist is -0.1; it must be 0 to 1"),
        ({"min_dist": 1.1}, "min_dist is 1.1; it must be 0 to 1"),
        ({"min_dist": math.nan}, "min_dist is nan; it must be 0 to 1"),
        ({"seed": -1}, "seed is -1; it must be 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296; it must be 0 to 4294967295"),
    ],
)
def test_refuses_settings_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        MapConfig(**options)
    for method in Method:
        with pytest.raises(ConfigError, match=message):
            project(cloud(20), method, **options)


def test_settings_at_the_ends_of_their_ranges_are_taken():
    for options in ((2, 0, 0), (200, 1, 2**32 - 1)):
        assert tuple(vars(MapConfig(*options)).values()) == options


def test_an_unknown_method_is_told_which_there_are():
    with pytest.raises(ConfigError, match="method is 'tsne'; it must be one of 'pca', 'umap'"):
        project(cloud(20), "tsne")


UNFIT = [
    (cloud(4), r"A map needs 5 different sentences or more, not 4\. Add some"),
    (np.zeros((0, 3)), "A map needs 5 different sentences or more, not 0"),
    (np.tile(cloud(1), (9, 1)), "All vectors of this space are the same, so there is nothing"),
    (np.outer(np.arange(1, 8), cloud(1)[0]), "All vectors of this space are the same"),
    (cloud(1) + 1e-8 * cloud(50), "are the same.*choose another strategy or layer"),
    (np.where(np.arange(9)[:, None] == 4, np.nan, cloud(9)), "Vector 5 of 9 holds nan"),
    (np.where(np.arange(9)[:, None] == 4, np.inf, cloud(9)), "Vector 5 of 9 holds inf"),
    (np.where(np.arange(9)[:, None] == 4, 0, cloud(9)), "Vector 5 of 9 is zero and has no direc"),
]


@pytest.mark.parametrize(("vectors", "message"), UNFIT)
@pytest.mark.parametrize("method", Method)
def test_refuses_vectors_that_make_no_map(vectors, message, method):
    with pytest.raises(InputError, match=message):
        project(vectors, method, process=Stub())
    with pytest.raises(InputError, match=message):
        checked(vectors)


def test_equal_vectors_are_recognised_however_many_they_are():
    """The sum of 20,000 equal numbers is off by a hundred times the limit in float32."""
    assert is_constant(np.tile(cloud(1, 384), (20_000, 1)))
    assert not is_constant(np.concatenate([np.tile(cloud(1), (20_000, 1)), cloud(3, seed=1)]))


def test_five_vectors_are_enough_and_lengths_do_not_matter():
    unit = cloud(5)
    vectors = unit * np.array([[1], [2], [30], [0.4], [5e5]])
    assert checked(vectors) == pytest.approx(unit, abs=1e-6)
    found, again = project(unit, "pca"), project(vectors, "pca")
    assert found.coordinates == pytest.approx(again.coordinates, abs=1e-6)
    assert len(found) == 5


# --- PCA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 16), (9, 16), (2000, 5)])
def test_pca_is_that_of_the_singular_values(shape):
    unit = cloud(*shape).astype(float)
    centred = unit - unit.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    found = project(unit, Method.PCA)
    for axis in (0, 1):
        expected = left[:, axis] * singular[axis]
        sign = np.sign(expected @ found.coordinates[:, axis])
        assert found.coordinates[:, axis] == pytest.approx(sign * expected, abs=1e-5)
    assert found.variance == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()))
    assert (found.method, found.config) == (Method.PCA, None)
    assert found.coordinates.dtype == np.float32


def test_pca_needs_neither_cache_nor_process(cache, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("started"))
    first = project(cloud(30), "pca", cache=cache)
    assert np.array_equal(first.coordinates, project(cloud(30), "pca").coordinates)
    assert not cache.folder.exists()


# --- what UMAP is given -------------------------------------------------------------------------


def test_umap_gets_exact_neighbours_the_settings_and_the_principal_components():
    unit, stub, calls = cloud(40), Stub(), []
    found = project(
        unit,
        n_neighbors=12,
        min_dist=0.3,
        seed=5,
        process=stub,
        progress=lambda *call: calls.append(call),
    )
    (given,) = stub.given
    rows, cosines = brute_neighbours(unit, 12)
    assert np.array_equal(given["indices"], rows)
    assert given["cosines"] == pytest.approx(cosines, abs=1e-6)
    settings = {"n_neighbors": 12, "min_dist": 0.3, "seed": 5}
    assert {name: given[name] for name in settings} == settings
    assert found.config == MapConfig(**settings)
    start = PCA(2).fit_transform(unit.astype(float))
    start = start / start[:, 0].std()
    signs = np.sign((start * given["start"]).sum(axis=0))
    assert given["start"] == pytest.approx(start * signs, abs=1e-4)
    # What it draws is moved to the centre, and nothing else.
    assert found.coordinates == pytest.approx(given["start"], abs=1e-5)
    assert found.coordinates.mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert (found.method, found.variance, calls) == (Method.UMAP, None, [(5, 10)])
    assert stub.closed == 0  # it belongs to the caller


def test_neighbours_are_clipped_to_what_there_is():
    stub = Stub()
    found = project(cloud(8), n_neighbors=15, process=stub)
    assert stub.given[0]["n_neighbors"] == found.config.n_neighbors == 7
    assert stub.given[0]["indices"].shape == (8, 7)


def test_known_neighbours_are_used_where_they_are_enough():
    unit, stub = cloud(40), Stub()
    known = neighbours(unit, 20)
    marked = Neighbours(known.indices, known.cosines - 1)
    project(unit, n_neighbors=20, known=marked, process=stub)
    assert np.array_equal(stub.given[0]["cosines"], known.cosines - 1)
    project(unit, n_neighbors=21, known=marked, process=stub)
    assert stub.given[1]["cosines"] == pytest.approx(brute_neighbours(unit, 21)[1], abs=1e-6)


def test_a_map_is_kept_by_all_that_decides_on_it(cache, monkeypatch):
    unit, stub = cloud(40), Stub()
    start = np.random.default_rng(0).normal(size=(40, 2))
    options = {"n_neighbors": 10, "min_dist": 0.25, "seed": 3, "start": start}

    def entries(vectors=unit, **changes) -> int:
        project(vectors, process=stub, cache=cache, **options | changes)
        return len(cache.names("maps"))

    assert entries() == entries() == 1
    # Neither lengths, nor scale and place of the start.
    assert entries(unit * 4) == entries(start=start * 8) == entries(start=start - 0.5) == 1
    assert len(stub.given) == 1
    other = start.copy()
    other[7] += 0.01
    assert entries(start=other) == 2
    assert entries(start=start[:, ::-1]) == 3
    assert entries(start=start * [1, -1]) == 4
    assert entries(start=None) == 5
    assert entries(n_neighbors=11) == 6
    assert entries(min_dist=0.26) == 7
    assert entries(seed=4) == 8
    assert entries(normalise(unit + np.eye(40, 16) * 1e-3)) == 9
    assert entries(unit[::-1]) == 10
    assert len(stub.given) == 10
    # Clipped settings are the same settings.
    assert entries(n_neighbors=39) == entries(n_neighbors=100) == 11
    monkeypatch.setattr(maps, "version", lambda name: version(name) + "1")
    assert entries() == 12


def test_the_default_start_is_that_of_the_pca_map():
    unit, stub = cloud(40), Stub()
    project(unit, process=stub)
    project(unit, start=project(unit, "pca").coordinates, process=stub)
    assert np.array_equal(stub.given[0]["start"], stub.given[1]["start"])


def test_a_map_of_another_size_in_the_cache_is_drawn_again(cache):
    unit, stub = cloud(40), Stub()
    first = project(unit, process=stub, cache=cache)
    (name,) = cache.names("maps")
    for wrong in ({"coordinates": np.zeros((39, 2))}, {"places": np.zeros((40, 2))}):
        cache.write("maps", name, wrong)
        again = project(unit, process=stub, cache=cache)
        assert np.array_equal(again.coordinates, first.coordinates)
    assert len(stub.given) == 3
    arrays, facts = cache.read("maps", name)
    assert np.array_equal(arrays["coordinates"], first.coordinates)
    assert facts["sentences"] == "40"


@pytest.mark.parametrize(
    "start",
    [
        np.zeros((40, 2)),
        np.stack([np.arange(40.0), np.full(40, 3.0)], axis=1),
        np.stack([np.full(40, -2.0), np.arange(40.0)], axis=1),
        np.stack([np.arange(40.0), 1e-15 * np.cos(np.arange(40.0))], axis=1),
    ],
)
def test_an_axis_of_a_start_without_extent_gets_one(start):
    """UMAP stretches each axis to a box of its own, and would divide by zero."""
    stub = Stub()
    for scale in (1, 16):
        project(cloud(40), start=start * scale, process=stub)
    given = stub.given[0]["start"]
    assert np.array_equal(given, stub.given[1]["start"])
    assert np.isfinite(given).all() and (np.ptp(given, axis=0) > 1).all()
    for axis in (0, 1):
        if start[:, axis].std() > 1e-6:  # this one is as it was
            assert abs(np.corrcoef(given[:, axis], start[:, axis])[0, 1]) == pytest.approx(1)


@pytest.mark.parametrize(
    "start", [np.zeros((39, 2)), np.zeros((40, 3)), np.zeros(40), np.full((40, 2), np.nan)]
)
def test_refuses_a_start_that_does_not_fit(start):
    with pytest.raises(InputError, match=r"start of a map has shape .*each of the 40 vectors"):
        project(cloud(40), start=start, process=Stub())


@pytest.mark.parametrize(
    ("count", "epochs"), [(20, 500), (10_000, 500), (10_001, 200), (50_001, 120)]
)
def test_umap_is_called_with_each_point_as_its_own_first_neighbour(count, epochs, monkeypatch):
    called = {}

    class Umap:
        def __init__(self, **options):
            called.update(options)

        def fit_transform(self, start):
            return start

    monkeypatch.setitem(sys.modules, "umap", type("module", (), {"UMAP": Umap}))
    indices = np.tile(np.arange(4), (count, 1)).astype(np.int32)
    cosines = np.tile(np.array([0.9, 0.5, 0.25, -1], dtype=np.float32), (count, 1))
    start = np.zeros((count, 2), dtype=np.float32)
    worker.fit(indices, cosines, start, n_neighbors=4, min_dist=0.3, seed=9)
    rows, distances = called["precomputed_knn"]
    assert np.array_equal(rows[:, 0], np.arange(count)) and (distances[:, 0] == 0).all()
    assert np.array_equal(rows[:, 1:], indices[:, :3])
    assert distances[0, 1:].tolist() == pytest.approx([0.1, 0.5, 0.75])
    assert (called["n_neighbors"], called["min_dist"], called["random_state"]) == (4, 0.3, 9)
    assert (called["n_epochs"], called["n_jobs"], called["metric"]) == (epochs, 1, "cosine")
    assert called["init"] is start
    assert called["tqdm_kwds"]["mininterval"] <= 0.2  # progress is told while it draws


# --- aligning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 37, 90, 180, 299])
def test_align_undoes_turn_mirror_scale_and_shift(degrees, is_mirrored):
    target = np.random.default_rng(0).normal(size=(30, 2)) * [3, 1] + [5, -2]
    moved = turned(target, degrees, is_mirrored=is_mirrored, scale=0.02, shift=(100, 7))
    found = align(moved, target)
    assert found == pytest.approx(target, abs=1e-4)
    assert movement(target, found).max() < 1e-5
    assert found.dtype == np.float32


def test_align_turns_as_little_as_it_can_and_keeps_the_radius_of_the_target():
    random = np.random.default_rng(1)
    target = random.normal(size=(40, 2))
    other = turned(target + 0.6 * random.normal(size=(40, 2)), 70, scale=9)
    found = align(other, target)
    assert radius(found) == pytest.approx(radius(target), rel=1e-5)
    assert found.mean(axis=0) == pytest.approx(target.mean(axis=0), abs=1e-5)
    best = np.square(found - target).sum()
    for degrees in np.arange(0, 360, 2):
        for is_mirrored in (False, True):
            tried = turned(
                found - found.mean(axis=0),
                degrees,
                is_mirrored=is_mirrored,
                shift=found.mean(axis=0),
            )
            assert np.square(tried - target).sum() >= best - 1e-4


def test_identical_maps_are_given_back_as_they_are():
    coordinates = (np.random.default_rng(0).normal(size=(30, 2)) * 1e3).astype(np.float32)
    found = align(coordinates.copy(), coordinates)
    assert np.array_equal(found, coordinates)
    assert (movement(coordinates, found) == 0).all()


def test_a_map_of_one_point_stays_one():
    target = np.random.default_rng(0).normal(size=(30, 2)) * 20 + 3
    found = align(np.full((30, 2), 4.0), target)
    assert found == pytest.approx(np.tile(target.mean(axis=0), (30, 1)), abs=1e-5)
    found = align(target, np.full((30, 2), 4.0))
    assert (found == 4).all()


def test_maps_of_other_sentences_cannot_be_aligned():
    with pytest.raises(InputError, match="Maps of 30 and 29 points cannot be aligned; both need"):
        align(np.zeros((30, 2)), np.zeros((29, 2)))


def test_movement_is_in_radii_of_the_first_map():
    first = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]) * 5 + [3, 4]
    second = first + np.array([[0, 0], [3, 4], [10, 0], [0, -2.5]])
    assert movement(first, second).tolist() == pytest.approx([0, 1, 2, 0.5])
    assert movement(first * 7, second * 7).tolist() == pytest.approx([0, 1, 2, 0.5])


# --- new sentences on a map ---------------------------------------------------------------------


def test_a_vector_on_the_map_gets_its_place_there():
    unit = cloud(60, 384)
    coordinates = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    for k in (1, 15, 100):
        found = place(unit * 3, unit, coordinates, k=k)
        assert found == pytest.approx(coordinates, abs=1e-6)
        assert (found.shape, found.dtype) == ((60, 2), np.float32)


def test_a_vector_that_stands_on_the_map_twice_is_between_its_copies():
    unit = np.concatenate([cloud(20), cloud(20)[:1]])
    coordinates = np.random.default_rng(0).normal(size=(21, 2))
    found = place(unit[:1], unit, coordinates)
    assert found[0] == pytest.approx((coordinates[0] + coordinates[20]) / 2, abs=1e-6)


def test_neighbours_at_one_distance_weigh_the_same():
    corners = np.eye(6, dtype=np.float32)
    coordinates = np.arange(12.0).reshape(6, 2)
    assert place(np.ones((1, 6)), corners, coordinates)[0] == pytest.approx(
        coordinates.mean(axis=0)
    )
    found = place([[1, 1, 1, 0.2, 0.1, 0]], corners, coordinates, k=3)
    assert found[0] == pytest.approx(coordinates[:3].mean(axis=0))


@pytest.mark.parametrize("k", [3, 15])
def test_places_are_means_of_neighbours_with_the_weights_of_umap(k):
    """Σ exp(−(d − ρ)/σ) over the k neighbours is log2 k, with ρ the least distance."""
    from scipy.optimize import brentq

    unit, new = cloud(80), cloud(9, seed=5)
    coordinates = np.random.default_rng(0).normal(size=(80, 2))
    found = place(new, unit, coordinates, k=k)
    for row, vector in enumerate(new.astype(float)):
        distances = 1 - unit.astype(float) @ vector
        near = np.argsort(distances)[:k]
        rest = distances[near] - distances[near[0]]
        sigma = brentq(lambda s, rest=rest: np.exp(-rest / s).sum() - math.log2(k), 1e-9, 1e3)
        weights = np.exp(-rest / sigma)
        expected = weights @ coordinates[near] / weights.sum()
        assert found[row] == pytest.approx(expected, abs=1e-4)
        assert weights.sum() == pytest.approx(math.log2(k))


def test_a_new_vector_lands_among_its_kind():
    unit, of = groups()
    coordinates = np.array([[0, 0], [10, 0], [0, 10]], dtype=float)[of]
    new = normalise(np.stack([unit[of == group].mean(axis=0) for group in range(3)]) + 0.02)
    assert place(new, unit, coordinates) == pytest.approx(
        np.array([[0, 0], [10, 0], [0, 10]]), abs=1e-6
    )


@pytest.mark.parametrize("function", [place, place_principal])
@pytest.mark.parametrize(
    ("row", "message"), [(0, "Vector 2 of 2 is zero"), (np.nan, "Vector 2 of 2 holds nan")]
)
def test_refuses_new_vectors_without_direction(function, row, message):
    new = np.stack([np.ones(16), np.full(16, row)])
    with pytest.raises(InputError, match=message):
        function(new, cloud(20), np.zeros((20, 2)))


def test_pca_places_new_vectors_where_it_would_have():
    unit, new = cloud(50), cloud(7, seed=3)
    fitted = PCA(2).fit(unit.astype(float))
    own = fitted.transform(unit.astype(float))
    signs = np.sign((own * principal(unit).coordinates).sum(axis=0))
    found = place_principal(new * 4, unit, principal(unit).coordinates)
    assert found == pytest.approx(fitted.transform(new.astype(float)) * signs, abs=1e-5)
    assert place_principal(unit, unit, principal(unit).coordinates) == pytest.approx(
        principal(unit).coordinates, abs=1e-5
    )


def test_pca_places_new_vectors_on_an_aligned_map():
    unit, new = cloud(50), cloud(7, seed=3)
    plain = place_principal(new, unit, principal(unit).coordinates)
    change = {"is_mirrored": True, "scale": 3.5, "shift": (2, -9)}
    aligned = turned(principal(unit).coordinates, 130, **change)
    assert place_principal(new, unit, aligned) == pytest.approx(
        turned(plain, 130, **change), abs=1e-4
    )


# --- clusters -----------------------------------------------------------------------------------


def parted(labels: list[str]) -> set[frozenset[int]]:
    return {
        frozenset(row for row, other in enumerate(labels) if other == label)
        for label in set(labels)
    }


@pytest.mark.parametrize("scale", [1, KMEANS_BATCHES_FROM // 60])  # all at once, and in batches
def test_kmeans_finds_groups_and_names_them_by_size(scale):
    unit, of = groups((12 * scale, 30 * scale, 20 * scale))
    labels = kmeans(unit, 3)
    assert labels == [{1: "1", 2: "2", 0: "3"}[group] for group in of.tolist()]
    assert labels == kmeans(unit, 3)


def test_kmeans_is_that_of_scikit_learn():
    unit = cloud(80)
    found = KMeans(6, n_init=4, random_state=2).fit_predict(unit)
    labels = kmeans(unit, 6, seed=2)
    assert parted(labels) == parted(found.tolist())
    sizes = [labels.count(str(number)) for number in range(1, 7)]
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == 80


@pytest.mark.parametrize("count", [0, 1, 21])
def test_refuses_a_number_of_clusters(count):
    with pytest.raises(InputError, match=f"20 sentences cannot be parted into {count} clusters"):
        kmeans(cloud(20), count)


def test_hdbscan_finds_groups_and_leaves_out_the_rest():
    unit, of = groups((60, 40), dimension=8, width=0.1)
    stray = normalise(np.random.default_rng(3).normal(size=(6, 8)))
    labels = hdbscan(np.concatenate([unit, stray]))
    assert labels[:100] == [{0: "1", 1: "2"}[group] for group in of.tolist()]
    assert set(labels[100:]) <= {"", "1", "2"} and labels[100:].count("") >= 4


def test_hdbscan_takes_few_and_many_directions():
    for unit in (groups((3, 3), dimension=8)[0], groups((40, 30), dimension=200)[0]):
        labels = hdbscan(unit, least=2)
        assert len(labels) == len(unit)
    assert parted(labels) == parted(groups((40, 30), dimension=200)[1].tolist())
    unit, _ = groups((40, 30))
    assert set(hdbscan(unit, least=35)) != set(hdbscan(unit, least=10))


def test_hdbscan_says_where_its_limit_is():
    assert HDBSCAN_UP_TO == 20_000
    with pytest.raises(InputError, match="HDBSCAN takes up to 20,000 sentences here, not 20,001"):
        hdbscan(np.ones((20_001, 2)))


# --- spaces of a model --------------------------------------------------------------------------


@pytest.fixture
def source(tiny_lwap_model) -> CachedModel:
    return CachedModel(tiny_lwap_model)


class Watched(CachedModel):
    """A source that writes down the strategies of each reading."""

    def __init__(self, model, reads: list[tuple]) -> None:
        super().__init__(model)
        self.reads = reads

    def vectors(self, texts, strategies, **options):
        self.reads.append((self, tuple(strategies)))
        return super().vectors(texts, strategies, **options)


def by_hand(model, texts, strategy) -> np.ndarray:
    return lwap.embed(lwap.encode_layers(model, list(texts)), strategy)


def test_a_space_is_what_embeddings_by_hand_say(source, tiny_lwap_model, sentences):
    positives = np.array([[0, 1], [4, 9]])
    (found,) = measure_spaces([source], ["lwap"], sentences, positives=positives)
    vectors = by_hand(tiny_lwap_model, sentences, "lwap")
    assert (found.model, found.strategy, len(found)) == (source.facts.name, "lwap", len(sentences))
    assert found.unit == pytest.approx(normalise(vectors), abs=1e-5)
    expected = geometry.measure(vectors, positives)
    assert found.numbers() == pytest.approx(
        {
            "uniformity": expected.uniformity.value,
            "alignment": expected.alignment,
            "mean cosine": expected.mean_random_cosine,
            "effective rank": expected.effective_rank,
            "IsoScore": expected.isoscore,
        },
        rel=1e-3,
    )
    assert list(found.numbers()) == measure_labels()
    assert found.near.indices.tolist() == brute_neighbours(found.unit, 30)[0].tolist()
    histogram = geometry.cosine_histogram(found.unit)
    assert np.array_equal(found.cosines.density, histogram.density)
    shares = np.linalg.eigvalsh(np.cov(vectors.astype(float).T))[::-1]
    assert found.variance == pytest.approx(np.cumsum(shares) / shares.sum(), abs=1e-4)
    assert found.variance[-1] == pytest.approx(1)


def test_the_measures_are_those_of_geometry_and_no_others(source, sentences):
    """One implementation: what `geometry` says is what a space says."""
    vectors = dict(source.vectors(sentences, ["mean"]))["mean"]
    (found,) = measure_spaces([source], ["mean"], sentences)
    assert found.numbers()["effective rank"] == geometry.effective_rank(vectors)
    assert found.numbers()["IsoScore"] == geometry.isoscore(vectors)
    assert found.numbers()["mean cosine"] == geometry.mean_random_cosine(vectors)
    course = layer_course(source, ["mean"], sentences).set_index("strategy").loc["mean"]
    assert course["effective rank"] == geometry.effective_rank(vectors)
    assert course["IsoScore"] == geometry.isoscore(vectors)
    assert course["mean cosine"] == geometry.mean_random_cosine(vectors)


def test_a_source_is_read_once_and_the_order_is_kept(tiny_lwap_model, tiny_model, sentences):
    reads: list[tuple] = []
    source, other = Watched(tiny_lwap_model, reads), Watched(tiny_model, reads)
    asked = [(source, "mean"), (other, "cls"), (source, "lwap"), (source, "mean"), (other, "mean")]
    found = measure_spaces(*zip(*asked, strict=True), sentences)
    assert reads == [(source, ("mean", "lwap")), (other, ("cls", "mean"))]
    assert [each.strategy for each in found] == ["mean", "cls", "lwap", "mean", "mean"]
    assert found[0] is found[3] and found[0] is not found[4]
    assert [each.model for each in found] == [each.facts.name for each, _ in asked]
    assert found[1].unit == pytest.approx(
        normalise(by_hand(tiny_model, sentences, "cls")), abs=1e-5
    )


def test_without_pairs_there_is_no_alignment(source, sentences):
    (without,) = measure_spaces([source], ["mean"], sentences)
    assert math.isnan(without.numbers()["alignment"]) and without.geometry.pairs == 0
    (found,) = measure_spaces([source], ["mean"], sentences, positives=np.array([[2, 3]]))
    expected = np.square(found.unit[2].astype(float) - found.unit[3]).sum()
    assert found.numbers()["alignment"] == pytest.approx(expected, rel=1e-5)
    others = [name for name in measure_labels() if name != "alignment"]
    assert [found.numbers()[name] for name in others] == [
        without.numbers()[name] for name in others
    ]


def test_neighbours_of_a_space_are_kept_and_progress_is_told(source, sentences, cache):
    calls = []
    measure_spaces(
        [source], ["mean"], sentences, cache=cache, progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (len(sentences), len(sentences))
    assert len(cache.names("neighbours")) == 1


@pytest.mark.parametrize(
    ("strategy", "count", "error", "message"),
    [
        (
            "layer_cls:0",
            10,
            InputError,
            "strategy 'layer_cls:0': All vectors of this space are the",
        ),
        (
            "mean",
            4,
            InputError,
            "strategy 'mean': A map needs 5 different sentences or more, not 4",
        ),
        (
            "mean",
            0,
            InputError,
            "strategy 'mean': A map needs 5 different sentences or more, not 0",
        ),
        ("median", 10, StrategyError, "has no strategy 'median'. It has cls, mean"),
    ],
)
def test_refuses_what_is_no_space(strategy, count, error, message, source, sentences):
    with pytest.raises(error, match=message) as raised:
        measure_spaces([source, source], [strategy, "lwap"], sentences[:count])
    if count:
        assert f"'{source.facts.name}'" in str(raised.value)


# --- two maps -----------------------------------------------------------------------------------


def test_the_same_space_twice_does_not_move():
    one = make_space(cloud(40))
    for method, given in (("pca", None), ("umap", Stub())):
        found = draw_maps(one, replace(one, strategy="again"), method, process=given)
        assert np.array_equal(found.first, found.second)
        assert (found.moved == 0).all() and found.moved.shape == (40,)
        assert found.method == method


def test_the_second_map_is_turned_onto_the_first():
    first, second = make_space(cloud(40)), make_space(cloud(40, seed=1))
    found = draw_maps(first, second, "pca")
    assert np.array_equal(found.first, project(first.unit, "pca").coordinates)
    own = project(second.unit, "pca").coordinates
    assert found.second == pytest.approx(align(own, found.first))
    assert radius(found.second) == pytest.approx(radius(found.first), rel=1e-5)
    assert radius(own) != pytest.approx(radius(found.first), rel=1e-3)
    expected = np.linalg.norm(found.second - found.first, axis=1) / radius(found.first)
    assert found.moved == pytest.approx(expected, rel=1e-4)
    assert found.moved.min() > 0
    assert found.variance == (
        project(first.unit, "pca").variance,
        project(second.unit, "pca").variance,
    )


def test_both_umap_maps_start_from_the_first_space(cache):
    first, second = make_space(cloud(40)), make_space(cloud(40, seed=1))
    stub, calls = Stub(), []
    settings = {"n_neighbors": 9, "min_dist": 0.5, "seed": 4}
    found = draw_maps(
        first,
        second,
        cache=cache,
        process=stub,
        progress=lambda *call: calls.append(call),
        **settings,
    )
    one, other = stub.given
    assert np.array_equal(one["start"], other["start"])
    assert {name: other[name] for name in settings} == settings
    assert np.array_equal(one["indices"], first.near.indices[:, :9])
    assert np.array_equal(other["indices"], second.near.indices[:, :9])
    assert calls == [(5, 20), (15, 20)]
    assert found.variance == (None, None)
    assert len(cache.names("maps")) == 2 and cache.names("neighbours") == []


def test_spaces_of_other_sentences_are_not_compared():
    first, second = make_space(cloud(40)), make_space(cloud(39))
    with pytest.raises(InputError, match="The spaces have 40 and 39 sentences; two maps are drawn"):
        draw_maps(first, second, "pca")
    with pytest.raises(InputError, match="cannot be compared"):
        neighbours_kept(first, second)


def test_quality_of_a_space_is_that_of_its_vectors():
    one = make_space(cloud(40))
    coordinates = project(one.unit, "pca").coordinates
    found, expected = map_quality(one, coordinates), quality(one.unit, coordinates)
    assert found.trustworthiness == expected.trustworthiness
    assert np.array_equal(found.point_recall, expected.point_recall)


# --- what changed -------------------------------------------------------------------------------

TEXTS = [f"sentence {row}" for row in range(40)]


@pytest.mark.parametrize(("k", "count"), [(10, 40), (3, 40), (10, 8)])
def test_neighbours_kept_are_those_in_both_full_spaces(k, count):
    first, second = cloud(count), normalise(cloud(count) + 0.4 * cloud(count, seed=1))
    found = neighbours_kept(make_space(first), make_space(second), k=k)
    k = min(k, count - 1)
    pairs = zip(brute_neighbours(first, k)[0], brute_neighbours(second, k)[0], strict=True)
    assert found.tolist() == [len(set(a) & set(b)) / k for a, b in pairs]
    if count > 8:
        assert len(set(found.tolist())) > 2


def test_change_is_listed_from_the_most_to_the_least():
    units = cloud(40), normalise(cloud(40) + 0.4 * cloud(40, seed=1))
    first, second = map(make_space, units)
    found = neighbourhood_change(first, second, TEXTS)
    assert list(found.columns) == ["row", "sentence", "kept", "lost", "gained"]
    assert sorted(found["row"]) == list(range(40))
    kept, finer = (neighbours_kept(first, second, k=k) for k in (10, 30))
    order = sorted(range(40), key=lambda row: (kept[row], finer[row], row))
    assert found["row"].tolist() == order
    assert len(set(kept)) < 40  # so that the finer shares decide somewhere
    before, after = (brute_neighbours(unit, 10)[0].tolist() for unit in units)
    for entry in found.itertuples():
        assert entry.sentence == TEXTS[entry.row] and entry.kept == kept[entry.row]
        lost = [i for i in before[entry.row] if i not in after[entry.row]]
        gained = [i for i in after[entry.row] if i not in before[entry.row]]
        assert entry.lost == (TEXTS[lost[0]] if lost else "")
        assert entry.gained == (TEXTS[gained[0]] if gained else "")
    few = neighbourhood_change(first, second, TEXTS, most=3)
    assert few["row"].tolist() == order[:3]


def test_nothing_changes_from_a_space_to_itself():
    one = make_space(cloud(40))
    found = neighbourhood_change(one, one, TEXTS)
    assert found["row"].tolist() == list(range(40))
    assert (found["kept"] == 1).all() and (found["lost"] == "").all()
    assert (found["gained"] == "").all()


def test_stability_compares_further_seeds_with_the_map():
    one = make_space(cloud(40))

    class Shaken(Stub):
        def fit(self, indices, cosines, start, config, *, progress=None):
            super().fit(indices, cosines, start, config)
            noise = np.random.default_rng(config["seed"]).normal(size=start.shape)
            return turned(start + 0.3 * (config["seed"] != 5) * noise, 20 * config["seed"], scale=3)

    shaken = Shaken()
    own = project(one.unit, seed=5, process=shaken).coordinates
    found = stability(one, own, seed=5, seeds=3, process=shaken, min_dist=0.4)
    assert found.seeds == (5, 6, 7, 8)
    assert [given["seed"] for given in shaken.given] == [5, 6, 7, 8]
    assert {given["min_dist"] for given in shaken.given[1:]} == {0.4}
    assert found.maps.shape == (3, 40, 2)
    for drawn in found.maps:
        assert radius(drawn) == pytest.approx(radius(own), rel=1e-5)
    near = map_neighbours(own, 15)
    kept = np.mean([overlap(near, map_neighbours(drawn, 15)) for drawn in found.maps], axis=0)
    moved = np.mean([movement(own, drawn) for drawn in found.maps], axis=0)
    assert found.kept == pytest.approx(kept) and found.moved == pytest.approx(moved)
    assert 0.3 < kept.mean() < 1 and 0 < moved.mean() < 1
    assert stability(make_space(cloud(6)), np.zeros((6, 2)), process=Stub()).kept.shape == (6,)


def test_a_map_that_no_seed_changes_is_stable():
    one, stub = make_space(cloud(40)), Stub()
    found = stability(one, project(one.unit, process=stub).coordinates, process=stub)
    assert (found.kept == 1).all() and found.moved == pytest.approx(0, abs=1e-6)
    assert found.seeds == (0, 1, 2)


# --- layer by layer -----------------------------------------------------------------------------

LAYERS = [f"layer_{kind}:{state}" for kind in ("cls", "mean") for state in range(4)]


def test_the_course_measures_every_layer_and_what_stands_beside(source, tiny_lwap_model, sentences):
    positives, calls = np.array([[0, 1], [4, 9]]), []
    names = ["lwap", "layer_mean:2", "lwap"]
    found = layer_course(
        source,
        names,
        sentences,
        positives=positives,
        on_strategy=lambda *call: calls.append(call),
    )
    assert list(found.columns) == ["strategy", *measure_labels()]
    assert found["strategy"].tolist() == [*LAYERS, "lwap"]
    assert calls == [(number, 9) for number in range(1, 10)]
    rows = found.set_index("strategy")
    assert rows.loc["layer_cls:0"].isna().all()  # the same token in every sentence
    assert rows.drop("layer_cls:0").notna().all(axis=None)
    for name in ("lwap", "layer_cls:2", "layer_mean:0"):
        expected = geometry.measure(by_hand(tiny_lwap_model, sentences, name), positives)
        assert rows.loc[name].tolist() == pytest.approx(
            [
                expected.uniformity.value,
                expected.alignment,
                expected.mean_random_cosine,
                expected.effective_rank,
                expected.isoscore,
            ],
            rel=1e-3,
        )
    without = layer_course(source, [], sentences).set_index("strategy")
    assert without.index.tolist() == LAYERS and without["alignment"].isna().all()
    (measured,) = measure_spaces([source], ["layer_mean:3"], sentences)
    assert without.loc["layer_mean:3", "IsoScore"] == measured.numbers()["IsoScore"]


class Numbers:
    """In the place of a source: a "sentence" is a number, which decides on its vectors."""

    facts = SimpleNamespace(name="numbers", num_states=1)

    def vectors(self, texts, strategies):
        numbers = np.array([int(text) for text in texts], dtype=np.float64)[:, None]
        for name in strategies:
            yield name, np.sin(numbers * [[0.1, 0.2, 0.7]] + len(name)).astype(np.float32)


def test_the_course_of_many_sentences_is_that_of_an_even_sample():
    texts = [str(number) for number in range(2 * COURSE_SENTENCES - 1)]
    positives = np.array([[0, len(texts) - 1]])
    found = layer_course(Numbers(), [], texts, positives=positives)
    assert found.equals(layer_course(Numbers(), [], texts[::2]))  # the first and the last, too
    assert found["alignment"].isna().all()
    fewer = layer_course(Numbers(), [], texts[:COURSE_SENTENCES], positives=np.array([[0, 1]]))
    assert fewer["alignment"].notna().all()


WALK = ["layer_cls:0", *LAYERS[4:], "lwap"]


def test_a_walk_is_a_map_of_each_strategy_turned_onto_the_next(source, sentences):
    found = layer_walk(source, WALK, sentences, "pca")
    assert (found.shape, found.dtype) == ((6, len(sentences), 2), np.float32)
    assert not found[0].any()  # one vector for all
    vectors = dict(source.vectors(sentences, WALK))
    for frame, strategy in zip(found[1:], WALK[1:], strict=True):
        assert radius(frame) == pytest.approx(1, rel=1e-5)
        assert frame.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
        own = project(vectors[strategy], "pca").coordinates
        assert movement(frame, align(own, frame)).max() < 1e-4  # its own map, turned
    # The last frame is not turned: it is the map that the page shows.
    last = project(vectors["lwap"], "pca").coordinates
    assert found[-1] == pytest.approx(last / radius(last), abs=1e-5)
    for frame, following in pairwise(found[1:]):
        assert frame == pytest.approx(align(frame, following), abs=1e-5)


def test_a_walk_of_umap_starts_from_its_last_map(source, sentences):
    stub = Stub()
    found = layer_walk(source, ["lwap", "layer_mean:1", "mean"], sentences, "umap", process=stub)
    assert len(stub.given) == 3
    last = project(dict(source.vectors(sentences, ["mean"]))["mean"], "pca").coordinates
    for given in stub.given:
        assert movement(last, align(given["start"], last)).max() < 1e-4
    assert found[-1] == pytest.approx(last / radius(last), abs=1e-4)


@pytest.mark.parametrize("method", Method)
def test_a_walk_may_end_or_consist_of_one_point(method, source, sentences):
    options = {"process": Stub()}
    found = layer_walk(source, ["mean", "layer_cls:0"], sentences, method, **options)
    assert not found[1].any() and radius(found[0]) == pytest.approx(1, rel=1e-5)
    assert not layer_walk(source, ["layer_cls:0"], sentences, method, **options).any()


@pytest.mark.parametrize("method", Method)
def test_a_walk_of_too_few_sentences_is_refused_not_empty(method, source, sentences):
    with pytest.raises(InputError, match="A map needs 5 different sentences or more, not 4"):
        layer_walk(source, ["mean", "lwap"], sentences[:4], method, process=Stub())
