"""Cosine and percentile against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cosine as scipy_distance
from scipy.stats import percentileofscore

from lwap.scores import cosine, percentile_among, rank_among


def random_vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_cosine_equals_scipy():
    first, second = random_vectors(20, 8), random_vectors(20, 8, seed=1)
    found = cosine(first, second)
    assert found.shape == (20,)
    assert found.dtype == np.float64
    for row in range(20):
        expected = 1 - scipy_distance(first[row].astype(float), second[row].astype(float))
        assert found[row] == pytest.approx(expected, abs=1e-12)


def test_cosine_is_broadcast_over_all_but_the_last_axis():
    vectors = random_vectors(3, 4, 8)
    found = cosine(vectors[:, :, None], vectors[:, None, :])
    assert found.shape == (3, 4, 4)
    for row in range(3):
        for i in range(4):
            for j in range(4):
                expected = cosine(vectors[row, i], vectors[row, j])
                assert found[row, i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e15])
def test_length_is_irrelevant_and_a_vector_equals_itself(scale):
    vectors = random_vectors(50, 384).astype(float)
    assert np.abs(cosine(vectors, scale * vectors) - 1).max() <= 1e-12
    assert np.abs(cosine(vectors, -scale * vectors) + 1).max() <= 1e-12


def test_cosine_never_leaves_its_range():
    vectors = random_vectors(2000, 3)
    assert cosine(vectors, vectors).max() <= 1
    assert cosine(vectors, -vectors).min() >= -1


def test_cosine_with_a_zero_vector_is_zero():
    zero = np.zeros(4, dtype=np.float32)
    assert cosine(zero, random_vectors(4)) == 0
    assert cosine(zero, zero) == 0
    assert cosine(np.stack([zero, zero + 1]), zero + 1).tolist() == pytest.approx([0, 1])


def test_inputs_are_not_written_to():
    first, second = random_vectors(5, 8), random_vectors(5, 8, seed=1)
    kept = first.copy(), second.copy()
    cosine(first, second)
    percentile_among(first[:, 0], second[:, 0])
    assert np.array_equal(first, kept[0])
    assert np.array_equal(second, kept[1])


@pytest.mark.parametrize("decimals", [1, 12])
def test_percentile_equals_scipy_ties_included(decimals):
    reference = random_vectors(200).astype(float).round(decimals)
    values = np.concatenate([reference[:20], random_vectors(20, seed=1).round(decimals), [-9, 9]])
    found = percentile_among(values, reference)
    for value, percentile in zip(values, found, strict=True):
        expected = percentileofscore(reference, value, kind="mean")
        assert percentile == pytest.approx(expected, abs=1e-9)


def test_percentile_at_the_ends():
    reference = np.array([0.1, 0.2, 0.3, 0.4])
    assert percentile_among(np.array([0.0, 0.1, 0.4, 1.0]), reference).tolist() == [
        0,
        12.5,
        87.5,
        100,
    ]


def test_ranks_are_pandas_ties_and_gaps_included():
    values = random_vectors(50).astype(float).round(1)
    values[[3, 7]] = np.nan
    expected = 100 * (pd.Series(values).rank() - 1) / 47
    np.testing.assert_allclose(rank_among(values), expected)
    assert rank_among(np.array([np.nan, 0.3])).tolist()[1] == 100
    assert rank_among(np.array([])).tolist() == []
