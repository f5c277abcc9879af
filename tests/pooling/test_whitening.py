"""BERT-whitening against its definition and against an SVD."""

import numpy as np
import pytest

from lwap.errors import StrategyError
from lwap.pooling.whitening import Whitening


def correlated(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Return embeddings far from isotropic: a random mixture, an offset, very different scales."""
    random = np.random.default_rng(seed)
    mixture = random.normal(size=(dimension, dimension)) * np.logspace(0, 2, dimension)
    return (random.normal(size=(count, dimension)) @ mixture + 30).astype(np.float32)


def test_the_corpus_has_zero_mean_and_identity_covariance_afterwards():
    data = correlated(200, 8)
    whitening = Whitening.fit(data, corpus="random")
    white = whitening.apply(data)
    assert white.dtype == np.float32
    assert np.abs(white.mean(axis=0)).max() <= 1e-4
    assert np.abs(np.cov(white.astype(float).T) - np.eye(8)).max() <= 1e-4
    assert (whitening.corpus, whitening.count) == ("random", 200)


def test_equals_an_svd_up_to_rotation():
    """Any two whitenings differ by a rotation, so inner products of new points agree."""
    data, points = correlated(200, 8).astype(float), correlated(20, 8, seed=1).astype(float)
    centre = data.mean(axis=0)
    _, singular, right = np.linalg.svd(data - centre, full_matrices=False)
    expected = (points - centre) @ right.T / singular * np.sqrt(len(data) - 1)
    found = Whitening.fit(data, corpus="random").apply(points).astype(float)
    gram = expected @ expected.T
    assert np.abs(found @ found.T - gram).max() <= 1e-5 * np.abs(gram).max()


@pytest.mark.parametrize(
    "flatten",
    [
        lambda data: np.column_stack([data[:, :7], np.full(len(data), 3.0)]),  # a dead dimension
        lambda data: np.column_stack([data[:, :7], data[:, 0]]),  # the same dimension twice
        lambda data: data - data.mean(axis=1, keepdims=True),  # what a LayerNorm does
    ],
)
def test_directions_without_variance_become_zero_and_no_noise(flatten):
    data = flatten(correlated(200, 8)).astype(np.float32)
    white = Whitening.fit(data, corpus="random").apply(data).astype(float)
    assert white.shape == (200, 8)
    expected = np.diag([1.0] * 7 + [0.0])
    assert np.abs(np.cov(white.T) - expected).max() <= 1e-4
    # The same points without the empty direction give the same inner products.
    basis = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)[2][:7]
    inside = (data.astype(float) - data.mean(axis=0, dtype=float)) @ basis.T
    alone = Whitening.fit(inside, corpus="random").apply(inside).astype(float)
    assert np.abs(white @ white.T - alone @ alone.T).max() <= 1e-3 * np.abs(white @ white.T).max()


def test_components_come_in_falling_order_of_variance():
    whitening = Whitening.fit(correlated(200, 8), corpus="random")
    scales = np.linalg.norm(whitening.matrix, axis=0)  # 1 / standard deviation
    assert (np.diff(scales) > 0).all()


def test_points_outside_the_corpus_are_shifted_by_its_mean():
    data = correlated(50, 3)
    whitening = Whitening.fit(data, corpus="random")
    assert np.abs(whitening.apply(data.mean(axis=0, dtype=float)[None])).max() <= 1e-5


def test_data_is_not_written_to():
    data = correlated(50, 3)
    kept = data.copy()
    Whitening.fit(data, corpus="random").apply(data)
    assert np.array_equal(data, kept)


@pytest.mark.parametrize("count", [1, 7, 8])
def test_refuses_a_corpus_of_no_more_sentences_than_dimensions(count):
    message = f"Whitening 8 dimensions needs more than 8 distinct sentences; 'few' has {count}"
    with pytest.raises(StrategyError, match=message):
        Whitening.fit(correlated(count, 8), corpus="few")


def test_one_sentence_more_than_dimensions_is_enough():
    white = Whitening.fit(correlated(9, 8), corpus="just enough").apply(correlated(9, 8))
    assert np.abs(np.cov(white.astype(float).T) - np.eye(8)).max() <= 1e-3


def test_refuses_a_corpus_of_few_sentences_over_and_over():
    data = correlated(50, 8)[np.arange(50) % 5]
    with pytest.raises(
        StrategyError, match="the 50 sentences of 'poor' have 5 under this strategy"
    ):
        Whitening.fit(data, corpus="poor")


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_refuses_embeddings_that_are_all_alike(noise):
    """The first token of state 0 is the same vector in every sentence, but for rounding."""
    random = np.random.default_rng(0)
    data = np.ones((50, 8)) + noise * random.normal(size=(50, 8))
    message = "needs more than 8 different" if noise == 0 else "'poor' are all alike under this"
    with pytest.raises(StrategyError, match=message):
        Whitening.fit(data, corpus="poor")
