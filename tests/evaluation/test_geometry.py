"""Alignment, uniformity and isotropy: against loops in float64, and against the papers' steps."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import beta, entropy

from lwap.errors import InputError
from lwap.evaluation import geometry
from lwap.evaluation.geometry import (
    Geometry,
    alignment,
    cosine_histogram,
    effective_rank,
    isoscore,
    mean_random_cosine,
    measure,
    normalise,
    random_cosine_density,
    spectrum,
    uniformity,
)


def cloud(count: int, dimension: int, seed: int = 0, offset: float = 0.3) -> np.ndarray:
    """Return vectors around a common offset, some directions wider than others, (N, D) float32."""
    random = np.random.default_rng(seed)
    widths = np.linspace(0.2, 2, dimension)
    return (random.normal(size=(count, dimension)) * widths + offset).astype(np.float32)


def slow_uniformity(vectors: np.ndarray, t: float = 2.0) -> float:
    return float(np.log(np.exp(-t * pdist(vectors.astype(np.float64), "sqeuclidean")).mean()))


def isoscore_step_by_step(vectors: np.ndarray) -> float:
    """Return the score as algorithm 1 of Rudman et al. 2022 goes, with a PCA of scikit-learn."""
    from sklearn.decomposition import PCA

    dimension = vectors.shape[1]
    rotated = PCA(n_components=dimension).fit_transform(vectors.astype(np.float64))
    diagonal = np.diag(np.cov(rotated.T))
    diagonal = math.sqrt(dimension) * diagonal / np.linalg.norm(diagonal)
    defect = np.linalg.norm(diagonal - 1) / math.sqrt(2 * (dimension - math.sqrt(dimension)))
    share = (dimension - defect**2 * (dimension - math.sqrt(dimension))) ** 2 / dimension**2
    return (dimension * share - 1) / (dimension - 1)


# --- length 1 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_normalised_vectors_have_length_one_and_keep_their_direction(scale):
    vectors = cloud(50, 12)
    kept = vectors.copy()
    unit = normalise(vectors * np.float32(scale))
    assert unit.dtype == np.float32
    assert np.linalg.norm(unit.astype(float), axis=1) == pytest.approx(1, abs=1e-7)
    expected = vectors / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    assert unit == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(vectors, kept)


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_squares_that_leave_the_range_of_floats_do_not_matter(scale):
    vectors = cloud(5, 4).astype(float)
    assert normalise(vectors * scale) == pytest.approx(normalise(vectors), abs=1e-7)


# --- alignment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [1, 2, 3.5])
def test_alignment_is_the_mean_power_of_distances(exponent):
    first, second = normalise(cloud(2500, 6)), normalise(cloud(2500, 6, seed=1))
    pairs = zip(first.astype(float), second.astype(float), strict=True)
    expected = np.mean([math.dist(x, y) ** exponent for x, y in pairs])
    assert alignment(first, second, exponent) == pytest.approx(expected, rel=1e-9)


def test_alignment_ranges_from_identical_to_opposite():
    vectors = normalise(cloud(20, 5))
    assert alignment(vectors, vectors) == 0
    assert alignment(vectors, -vectors) == pytest.approx(4, abs=1e-6)


# --- uniformity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 100, geometry.BLOCK, geometry.BLOCK + 1, 2500])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_uniformity_is_the_brute_force_over_all_pairs(count, offset):
    unit = normalise(cloud(count, 24, offset=offset))
    found = uniformity(unit)
    assert found.value == pytest.approx(slow_uniformity(unit), abs=1e-6)
    assert found.low == found.value == found.high


@pytest.mark.parametrize("t", [0.1, 2, 20])
def test_t_is_the_width_of_the_potential(t):
    unit = normalise(cloud(300, 24))
    assert uniformity(unit, t=t).value == pytest.approx(slow_uniformity(unit, t), abs=1e-5)


def test_uniformity_of_three_known_points():
    # Squared distances 2, 2 and 4.
    points = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(points).value == pytest.approx(expected, abs=1e-6)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])).value == pytest.approx(-8, abs=1e-6)
    assert uniformity(np.array([[0.0, 1.0], [0.0, 1.0]])).value == 0


@pytest.mark.parametrize("count", [2, 1500])
def test_identical_vectors_are_at_distance_zero(count):
    unit = np.tile(normalise(cloud(1, 384)), (count, 1))
    assert uniformity(unit).value == pytest.approx(0, abs=1e-9)
    assert uniformity(unit, exact_up_to=1, sampled_pairs=100).value == 0


def test_near_duplicates_do_not_suffer_from_cancellation():
    vectors = cloud(1, 384).astype(float) + 1e-3 * cloud(500, 384, seed=1)
    unit = normalise(vectors)
    expected = slow_uniformity(unit)
    assert -1e-5 < expected < -1e-6
    assert uniformity(unit).value == pytest.approx(expected, abs=5e-8)  # float32 is 1.2e-7


def test_a_rotation_and_the_order_change_nothing():
    random = np.random.default_rng(0)
    unit = normalise(cloud(400, 16))
    rotation = np.linalg.qr(random.normal(size=(16, 16)))[0]
    value = uniformity(unit).value
    assert uniformity(unit @ rotation).value == pytest.approx(value, abs=1e-6)
    assert uniformity(unit[random.permutation(400)]).value == pytest.approx(value, abs=1e-6)


def test_vectors_on_a_sphere_are_more_uniform_than_in_a_cone():
    sphere, cone = normalise(cloud(500, 64, offset=0)), normalise(cloud(500, 64, offset=5))
    assert -4.2 < uniformity(sphere).value < -3.6 < uniformity(cone).value < 0


def test_a_sampled_interval_holds_the_exact_value_about_as_often_as_it_says():
    unit = normalise(cloud(200, 8))
    exact = uniformity(unit).value
    held, widths = 0, []
    for seed in range(100):
        found = uniformity(unit, exact_up_to=199, sampled_pairs=2000, seed=seed)
        assert found.low < found.value < found.high
        held += found.low <= exact <= found.high
        widths.append(found.high - found.low)
    assert 88 <= held <= 100
    wide = uniformity(unit, exact_up_to=199, sampled_pairs=125)
    assert (wide.high - wide.low) / np.mean(widths) == pytest.approx(4, rel=0.3)


def test_sampled_pairs_are_of_distinct_rows_all_equally_likely():
    # Of three vectors one pair coincides: a row paired with itself would make it more than 1/3.
    points = normalise(np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]))
    found = uniformity(points, exact_up_to=2, sampled_pairs=90_000)
    assert math.exp(found.value) == pytest.approx(1 / 3, abs=0.01)
    assert uniformity(points, exact_up_to=2, sampled_pairs=500, seed=1) != found
    assert uniformity(points, exact_up_to=2, sampled_pairs=90_000) == found


# --- isotropy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 0.3, 50.0])
def test_mean_random_cosine_is_the_mean_over_all_pairs(offset):
    vectors = cloud(2500, 12, offset=offset)
    expected = (1 - pdist(vectors.astype(float), "cosine")).mean()
    assert mean_random_cosine(vectors) == pytest.approx(expected, abs=1e-12)


def test_mean_random_cosine_of_known_vectors():
    assert mean_random_cosine(np.eye(5)) == pytest.approx(0, abs=1e-12)
    assert mean_random_cosine(np.array([[1.0, 1.0], [-2.0, -2.0]])) == pytest.approx(-1)
    assert mean_random_cosine(np.ones((2000, 7), np.float32)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", [(2500, 10), (40, 10), (10, 10), (6, 40), (2, 3)])
def test_spectrum_is_that_of_the_covariance(shape):
    vectors = cloud(*shape)
    expected = np.linalg.eigvalsh(np.cov(vectors.astype(float).T))[::-1]
    found = spectrum(vectors)
    assert found.shape == (shape[1],)
    assert found == pytest.approx(expected, abs=1e-9)
    assert (np.diff(found) <= 0).all() and (found >= 0).all()


@pytest.mark.parametrize("shape", [(200, 10), (6, 40)])
def test_effective_rank_is_the_entropy_of_the_singular_values(shape):
    vectors = cloud(*shape).astype(float)
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    assert effective_rank(vectors) == pytest.approx(math.exp(entropy(singular)), rel=1e-6)


def test_effective_rank_of_known_clouds():
    axes = np.concatenate([np.eye(4), -np.eye(4)])
    assert effective_rank(axes) == pytest.approx(4)
    assert effective_rank(axes + 100) == pytest.approx(4)  # the common offset is no direction
    assert effective_rank(axes * [1, 1, 1, 0]) == pytest.approx(3)
    line = np.outer(np.arange(50), [1.0, 2.0, 3.0])
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert effective_rank(cloud(2, 30)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(300, 2), (300, 3), (2500, 48), (50, 50)])
def test_isoscore_is_the_algorithm_of_the_paper(shape):
    vectors = cloud(*shape)
    assert isoscore(vectors) == pytest.approx(isoscore_step_by_step(vectors), abs=1e-9)


def test_isoscore_counts_directions_evenly_used():
    """Rudman et al. 2022, section 4: k of D directions, equally wide, score (k − 1) / (D − 1)."""
    axes = np.concatenate([np.eye(9), -np.eye(9)])
    for used in range(1, 10):
        score = isoscore(axes * (np.arange(9) < used))
        assert score == pytest.approx((used - 1) / 8, abs=1e-9)


def test_isoscore_of_a_ball_and_of_a_line():
    random = np.random.default_rng(0)
    assert isoscore(random.normal(size=(20_000, 8))) > 0.99
    line = np.outer(random.normal(size=500), [1.0, 2.0, 3.0])
    assert isoscore(line) == pytest.approx(0, abs=1e-9)
    stretched = random.normal(size=(5000, 8)) * [30, 1, 1, 1, 1, 1, 1, 1]
    assert isoscore(stretched) < 0.01


def test_isotropy_does_not_depend_on_place_scale_or_axes():
    vectors = cloud(500, 12).astype(float)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    for other in (vectors + 7, vectors * 1e-6, vectors * 1e6, vectors @ rotation):
        assert isoscore(other) == pytest.approx(isoscore(vectors), abs=1e-9)
        assert effective_rank(other) == pytest.approx(effective_rank(vectors), rel=1e-6)


def test_directions_without_variance_are_fine():
    vectors = cloud(300, 12)
    vectors[:, [2, 5, 11]] = 0.25
    assert isoscore(vectors) == pytest.approx(isoscore_step_by_step(vectors), abs=1e-9)
    assert effective_rank(vectors) < 9
    assert (spectrum(vectors)[-3:] < 1e-12).all()


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_vectors_that_are_all_the_same_use_no_direction(noise):
    """CLS of the embedding layer is the same for each sentence, but for the last float bits."""
    vectors = cloud(1, 64) + noise * np.random.default_rng(0).normal(size=(200, 64))
    vectors = vectors.astype(np.float32)
    assert (effective_rank(vectors), isoscore(vectors)) == (0, 0)
    found = measure(vectors)
    assert (found.effective_rank, found.isoscore) == (0, 0)
    assert found.mean_random_cosine == pytest.approx(1, abs=1e-9)
    assert found.uniformity.value == pytest.approx(0, abs=1e-9)


# --- the distribution of cosines ----------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 300, geometry.BLOCK, geometry.BLOCK + 1, 2500])
@pytest.mark.parametrize("bins", [7, 200])
def test_histogram_is_that_of_all_pairs(count, bins):
    unit = normalise(cloud(count, 24))
    gram = unit.astype(float) @ unit.astype(float).T
    cosines = gram[np.triu_indices(count, 1)]
    counts, edges = np.histogram(cosines, bins, range=(-1, 1))
    found = cosine_histogram(unit, bins=bins)
    assert found.edges == pytest.approx(edges)
    # A cosine on an edge may be rounded to either side.
    assert np.abs(found.density * len(cosines) * 2 / bins - counts).max() <= 1.001
    assert found.mean == pytest.approx(cosines.mean(), abs=1e-9)
    assert found.mean == pytest.approx(mean_random_cosine(unit), abs=1e-6)
    assert (found.density * np.diff(found.edges)).sum() == pytest.approx(1)
    assert found.is_exact


def test_equal_and_opposite_vectors_are_in_the_outer_bins():
    """Their cosines are beyond ±1 by rounding, and must not be lost."""
    one = normalise(cloud(1, 384))
    unit = np.concatenate([np.tile(one, (3, 1)), -one])
    for options in ({}, {"exact_up_to": 3, "sampled_pairs": 10_000}):
        found = cosine_histogram(unit, bins=4, **options)
        assert found.density[[1, 2]].tolist() == [0, 0]
        assert found.density[[0, 3]] / 2 == pytest.approx([0.5, 0.5], abs=0.03)
        assert found.mean == pytest.approx(0, abs=0.05)


def test_sampled_histogram_is_close_to_the_exact_one():
    unit = normalise(cloud(400, 12))
    exact = cosine_histogram(unit, bins=40)
    pairs = 100_000
    found = cosine_histogram(unit, bins=40, exact_up_to=399, sampled_pairs=pairs, seed=3)
    assert (exact.is_exact, found.is_exact) == (True, False)
    shares, sampled = exact.density / 20, found.density / 20
    assert sampled.sum() == pytest.approx(1)
    errors = np.sqrt(shares * (1 - shares) / pairs)
    assert (np.abs(sampled - shares) <= 5 * errors).all()
    assert found.mean == pytest.approx(exact.mean, abs=5 * 0.5 / math.sqrt(pairs))
    again, other = (
        cosine_histogram(unit, bins=40, exact_up_to=399, sampled_pairs=pairs, seed=seed)
        for seed in (3, 4)
    )
    assert np.array_equal(again.density, found.density)
    assert not np.array_equal(other.density, found.density)


def test_sampled_histogram_has_no_row_beside_itself():
    found = cosine_histogram(np.eye(5), exact_up_to=4, sampled_pairs=5000)
    assert found.density.max() * 2 / 200 == pytest.approx(1)  # all at 0, none at 1
    assert found.mean == 0


@pytest.mark.parametrize("dimension", [2, 3, 4, 5, 384, 4096])
def test_density_of_random_directions_is_the_beta_distribution(dimension):
    cosines = np.linspace(-0.999, 0.999, 401)
    shape = (dimension - 1) / 2
    expected = beta.pdf((1 + cosines) / 2, shape, shape) / 2
    found = random_cosine_density(cosines, dimension)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert random_cosine_density(-cosines, dimension) == pytest.approx(found)


@pytest.mark.parametrize("dimension", [2, 3, 4, 5, 384])
def test_density_of_random_directions_has_integral_one_and_its_spread(dimension):
    # Over the angle, so that the poles of D = 2 are no poles.
    angles = (np.arange(20_000) + 0.5) * np.pi / 20_000
    weights = random_cosine_density(np.cos(angles), dimension) * np.sin(angles) * np.pi / 20_000
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights @ np.cos(angles) == pytest.approx(0, abs=1e-9)
    assert weights @ np.cos(angles) ** 2 == pytest.approx(1 / dimension, rel=1e-5)


@pytest.mark.parametrize("dimension", [2, 3, 5, 384])
def test_random_directions_follow_the_density(dimension):
    count, bins = 1500, 50
    unit = normalise(np.random.default_rng(0).normal(size=(count, dimension)))
    found = cosine_histogram(unit, bins=bins)
    shape = (dimension - 1) / 2
    shares = np.diff(beta.cdf((1 + found.edges) / 2, shape, shape))
    pairs = count * (count - 1) / 2
    errors = np.sqrt(shares * (1 - shares) / pairs)
    # Of independent directions any two pairs are independent, even where they share a vector.
    assert (np.abs(found.density * 2 / bins - shares) <= 5 * errors + 1 / pairs).all()
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    inner = random_cosine_density(middles, dimension)[5:-5]
    assert found.density[5:-5] == pytest.approx(inner, rel=0.1, abs=0.08)


def test_density_at_and_beyond_the_ends():
    ends = np.array([-1.5, -1, 1, 1.01])
    assert random_cosine_density(ends, 2).tolist() == [0, math.inf, math.inf, 0]
    assert random_cosine_density(ends, 3).tolist() == pytest.approx([0, 0.5, 0.5, 0])
    assert random_cosine_density(ends, 50).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dimension", [1, 0, -3])
def test_one_dimension_has_no_directions(dimension):
    with pytest.raises(InputError, match=f"dimension is {dimension}; directions need 2 or more"):
        random_cosine_density(np.zeros(3), dimension)


# --- all at once --------------------------------------------------------------------------------


def test_measure_is_each_measure():
    vectors = cloud(300, 12)
    kept = vectors.copy()
    positives = np.random.default_rng(0).integers(0, 300, size=(40, 2))
    unit = normalise(vectors)
    assert measure(vectors, positives) == Geometry(
        alignment=alignment(unit[positives[:, 0]], unit[positives[:, 1]]),
        uniformity=uniformity(unit),
        mean_random_cosine=mean_random_cosine(vectors),
        effective_rank=effective_rank(vectors),  # of the vectors as given
        isoscore=isoscore(vectors),
        sentences=300,
        pairs=40,
        is_exact=True,
    )
    assert np.array_equal(vectors, kept)


def test_measure_without_pairs_and_with_a_sample():
    vectors = cloud(300, 12)
    found = measure(vectors, exact_up_to=299, seed=3)
    assert math.isnan(found.alignment)
    assert (found.pairs, found.is_exact) == (0, False)
    assert found.uniformity == uniformity(normalise(vectors), exact_up_to=299, seed=3)
    assert measure(vectors, exact_up_to=300).is_exact


def test_lengths_count_for_isoscore_only():
    vectors = cloud(300, 12)
    longer = vectors * np.random.default_rng(0).uniform(0.1, 10, size=(300, 1)).astype(np.float32)
    one, other = measure(vectors), measure(longer)
    assert one.uniformity.value == pytest.approx(other.uniformity.value, abs=1e-6)
    assert one.mean_random_cosine == pytest.approx(other.mean_random_cosine, abs=1e-6)
    assert one.isoscore != pytest.approx(other.isoscore, abs=1e-3)


@pytest.mark.parametrize("count", [2, 3])
def test_few_vectors_have_defined_measures(count):
    found = measure(cloud(count, 5), [[0, 1]])
    distances = squareform(pdist(normalise(cloud(count, 5)).astype(float), "sqeuclidean"))
    assert found.alignment == pytest.approx(distances[0, 1], rel=1e-6)
    assert all(map(math.isfinite, (found.effective_rank, found.isoscore, found.uniformity.value)))
    assert 1 <= found.effective_rank <= count - 1 + 1e-9


def test_a_memory_map_is_read_as_an_array(tmp_path):
    vectors = cloud(70, 12)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert measure(mapped, [[0, 1]]) == measure(vectors, [[0, 1]])


# --- what has no geometry -----------------------------------------------------------------------

MEASURES_OF_VECTORS = [
    normalise,
    uniformity,
    mean_random_cosine,
    spectrum,
    effective_rank,
    isoscore,
    measure,
    cosine_histogram,
]


@pytest.mark.parametrize("function", MEASURES_OF_VECTORS)
@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros(5), r"array of numbers \(N, D\); this is float64 of shape \(5,\)"),
        (np.zeros((0, 5)), r"of shape \(0, 5\)\. Put one vector in each row"),
        (np.zeros((5, 0)), r"of shape \(5, 0\)"),
        ([["a", "b"]], "array of numbers"),
        (np.array([[1, 0], [0, np.nan], [0, 1]]), "Vector 2 of 3 holds nan, not a finite number"),
        (np.array([[1, 0], [0, 1], [0, -np.inf]]), "Vector 3 of 3 holds -inf.* encode in fp32"),
    ],
)
def test_refuses_what_is_no_set_of_vectors(function, vectors, message):
    with pytest.raises(InputError, match=message):
        function(vectors)


@pytest.mark.parametrize("function", MEASURES_OF_VECTORS[1:])
def test_one_vector_has_no_geometry(function):
    with pytest.raises(InputError, match=r"There is 1 vector; .* needs at least 2"):
        function(np.array([[1.0, 0.0]]))


@pytest.mark.parametrize("function", [normalise, mean_random_cosine, measure])
def test_a_zero_vector_has_no_direction(function):
    vectors = cloud(geometry.BLOCK + 5, 3)
    vectors[geometry.BLOCK + 2] = 0
    message = f"Vector {geometry.BLOCK + 3} of {geometry.BLOCK + 5} is zero and has no direction"
    with pytest.raises(InputError, match=message):
        function(vectors)


def test_unnormalised_vectors_are_an_error_not_a_number():
    unit = normalise(cloud(geometry.BLOCK + 5, 3))
    for length in (0.998, 1.002, 0.0):
        off = unit.copy()
        off[geometry.BLOCK + 1] *= np.float32(length)
        message = rf"Vector {geometry.BLOCK + 2} of .* has length {length:g}.*through normalise\(\)"
        for call in (
            lambda off=off: uniformity(off),
            lambda off=off: cosine_histogram(off),
            lambda off=off: alignment(off, unit),
            lambda off=off: alignment(unit, off),
        ):
            with pytest.raises(InputError, match=message):
                call()
    for length in (0.9995, 1.0005):  # rounding of half precision
        assert math.isfinite(uniformity(unit * np.float32(length)).value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda unit: uniformity(unit, t=0), "t is 0; uniformity takes 0 < t <= 20, usually 2"),
        (lambda unit: uniformity(unit, t=20.1), "t is 20.1"),
        (lambda unit: uniformity(unit, t=math.nan), "t is nan"),
        (lambda unit: uniformity(unit, sampled_pairs=1), "sampled_pairs is 1; .* at least 2"),
        (lambda unit: alignment(unit, unit, exponent=0), "The exponent is 0; .* above 0, usually"),
        (lambda unit: alignment(unit, unit[:4]), r"shapes \(5, 3\) and \(4, 3\); give two arrays"),
        (lambda unit: alignment(unit[:0], unit[:0]), r"of shape \(0, 3\)"),
        (lambda unit: isoscore(unit[:, :1]), "undefined for vectors of 1 number"),
        (lambda unit: measure(unit, [0, 1]), r"row numbers \(P, 2\); this one has shape \(2,\)"),
        (lambda unit: measure(unit, [[0, 1, 2]]), r"has shape \(1, 3\)"),
        (lambda unit: measure(unit, np.zeros((0, 2), int)), "Without pairs, leave the argument"),
        (lambda unit: measure(unit, [[0.0, 1.0]]), "integers; these are float64"),
        (
            lambda unit: measure(unit, [[0, 1], [2, 5]]),
            r"Positive pair 2 names the rows \[2, 5\]; there are 5 vectors, rows 0 to 4",
        ),
        (lambda unit: measure(unit, [[-1, 1]]), r"Positive pair 1 names the rows \[-1, 1\]"),
    ],
)
def test_refuses_settings_out_of_range(call, message):
    with pytest.raises(InputError, match=message):
        call(normalise(cloud(5, 3)))
