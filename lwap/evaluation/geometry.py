"""Geometry of an embedding space: alignment, uniformity, isotropy. Knows arrays only.

N vectors of D numbers, P pairs of rows that mean the same. Alignment, uniformity and the mean
cosine are about directions and take vectors of length 1; effective rank and IsoScore are about
how variance spreads over directions and take the vectors as the encoder gives them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lwap.errors import InputError
from lwap.evaluation.declarations import space_measures
from lwap.evaluation.sts import Interval

EXACT_UP_TO = 10_000  # vectors; 50 million pairs take about a second
SAMPLED_PAIRS = 1_000_000
HISTOGRAM_UP_TO = 4_000  # vectors whose cosines are all counted; 8 million pairs
LENGTH_TOLERANCE = 1e-3  # how far from 1 the length of a "normalised" vector may be
LARGEST_T = 20.0  # exp(−4t) must stay a normal float32
NORMAL_95 = 1.959964
ROUNDING = 1e-12  # variance over squared length below which vectors differ by float32 bits only

BLOCK = 1024  # rows; a block of pairs is BLOCK × BLOCK
PAIR_CHUNK = 16_384  # sampled pairs gathered at once


@dataclass(frozen=True)
class Geometry:
    """Where N vectors lie, and how near their P positive pairs are.

    Attributes:
        alignment: Mean squared distance of positive pairs, 0–4, lower is better; NaN without pairs.
        uniformity: Log of the mean Gaussian potential, −4t–0, lower is more uniform.
        mean_random_cosine: Mean cosine of distinct vectors, −1–1; near 0 is isotropic.
        effective_rank: How many directions are used, 0–D.
        isoscore: How evenly variance spreads over all D directions, 0–1; 1 is isotropic.
        sentences: N.
        pairs: P, 0 without pairs.
        is_exact: Whether uniformity is over all pairs; else over a sample, with an interval.
        others: Measures of vectors that are declared beside these, by name.
    """

    alignment: float
    uniformity: Interval
    mean_random_cosine: float
    effective_rank: float
    isoscore: float
    sentences: int
    pairs: int
    is_exact: bool
    others: Mapping[str, float] = field(default_factory=dict)


def measure(
    vectors: np.ndarray,
    positives: np.ndarray | None = None,
    *,
    exact_up_to: int = EXACT_UP_TO,
    seed: int = 0,
) -> Geometry:
    """Return all measures of vectors (N, D), which need not be normalised.

    Alignment, uniformity and mean cosine see the vectors at length 1. Effective rank and IsoScore
    see them as given: both papers measure the point cloud itself, and lengths are part of it.

    Args:
        vectors: N ≥ 2 vectors of D ≥ 2 numbers, (N, D).
        positives: Rows of each positive pair, (P, 2), integers; None leaves alignment NaN.
        exact_up_to: As `uniformity`.
        seed: As `uniformity`.

    Raises:
        InputError: As `normalise`, `uniformity` and `isoscore`; or if `positives` is no (P, 2)
            array of row numbers.
    """
    unit = normalise(vectors)
    count = len(_at_least_two(unit))
    first, second = (None, None) if positives is None else _pairs(positives, count).T
    variances, is_constant = _variances(_numbers(vectors))
    return Geometry(
        alignment=math.nan if first is None else alignment(unit[first], unit[second]),
        uniformity=uniformity(unit, exact_up_to=exact_up_to, seed=seed),
        mean_random_cosine=mean_random_cosine(vectors),
        effective_rank=0.0 if is_constant else _effective_rank(variances),
        isoscore=0.0 if is_constant else _isoscore(variances),
        sentences=count,
        pairs=0 if first is None else len(first),
        is_exact=count <= exact_up_to,
        others={
            name: each.of_vectors(vectors)
            for name, each in space_measures().items()
            if each.compute is not None
        },
    )


def measure_varied(
    vectors: np.ndarray, positives: np.ndarray | None = None, **options: Any
) -> Geometry | None:
    """Return `measure`; None of vectors that are all the same, whose alignment looks perfect.

    CLS of state 0 is such a case: the same token at the same position in every sentence.
    """
    found = measure(vectors, positives, **options) if np.any(vectors) else None
    return None if found is None or found.effective_rank == 0 else found


def _pairs(positives: np.ndarray, count: int) -> np.ndarray:
    """Return `positives` as row numbers (P, 2) below `count`."""
    positives = np.asarray(positives)
    if positives.ndim != 2 or positives.shape[1] != 2 or not len(positives):
        raise InputError(
            f"Positive pairs come as an array of row numbers (P, 2); this one has shape "
            f"{positives.shape}. Without pairs, leave the argument out."
        )
    if positives.dtype.kind not in "iu":
        raise InputError(f"Positive pairs are row numbers, integers; these are {positives.dtype}.")
    if (is_outside := ((positives < 0) | (positives >= count)).any(axis=1)).any():
        pair = int(np.flatnonzero(is_outside)[0])
        raise InputError(
            f"Positive pair {pair + 1} names the rows {positives[pair].tolist()}; there are "
            f"{count} vectors, rows 0 to {count - 1}."
        )
    return positives


# --- length 1 -----------------------------------------------------------------------------------


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, D) at length 1, float32, (N, D).

    >>> normalise(np.array([[3.0, 4.0], [0.0, -2.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, -1.0]]

    Raises:
        InputError: If `vectors` is not (N, D), or a vector is zero or holds a number that is not
            finite; such a vector has no direction.
    """
    vectors = _numbers(vectors)
    unit = np.empty(vectors.shape, dtype=np.float32)
    for start, block in _unit_blocks(vectors):
        unit[start : start + len(block)] = block
    return unit


def _unit_blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first row and rows of each block at length 1, as float64, (BLOCK, D)."""
    for start, block in _blocks(vectors):
        largest = np.abs(block).max(axis=1, keepdims=True)
        if (largest == 0).any():
            row = start + int(np.flatnonzero(largest == 0)[0]) + 1
            raise InputError(
                f"Vector {row} of {len(vectors)} is zero and has no direction. Leave it out, or "
                "look at how it was made: pooling over no token at all gives zeros."
            )
        block = block / largest  # so that squares neither vanish nor overflow
        yield start, block / np.linalg.norm(block, axis=1, keepdims=True)


def _numbers(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` as an array (N, D) of at least one finite vector, not copied."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiub":
        raise InputError(
            f"Vectors come as an array of numbers (N, D); this is {vectors.dtype} of shape "
            f"{vectors.shape}. Put one vector in each row."
        )
    for start, block in _blocks(vectors):
        if not (is_finite := np.isfinite(block).all(axis=1)).all():
            row = start + int(np.flatnonzero(~is_finite)[0])
            wrong = vectors[row][~np.isfinite(vectors[row].astype(np.float64))][0]
            raise InputError(
                f"Vector {row + 1} of {len(vectors)} holds {wrong}, not a finite number. Leave it "
                "out, or encode in fp32: half precision overflows."
            )
    return vectors


def _blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first row and rows of each block, as float64, (BLOCK, D); reads a memory map once."""
    for start in range(0, len(vectors), BLOCK):
        yield start, np.asarray(vectors[start : start + BLOCK], dtype=np.float64)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` if they have length 1; a distance of others would mean nothing."""
    vectors = _numbers(vectors)
    for start, block in _blocks(vectors):
        lengths = np.linalg.norm(block, axis=1)
        if (is_off := np.abs(lengths - 1) > LENGTH_TOLERANCE).any():
            row = int(np.flatnonzero(is_off)[0])
            raise InputError(
                f"Vector {start + row + 1} of {len(vectors)} has length {lengths[row]:.6g}; this "
                f"measure is defined on vectors of length 1 (± {LENGTH_TOLERANCE:g}). Pass them "
                "through normalise() first."
            )
    return vectors


def _at_least_two(vectors: np.ndarray) -> np.ndarray:
    if len(vectors) < 2:
        raise InputError(
            f"There is {len(vectors)} vector; what vectors are to each other needs at least 2."
        )
    return vectors


# --- Wang & Isola 2020 --------------------------------------------------------------------------


def alignment(first: np.ndarray, second: np.ndarray, exponent: float = 2) -> float:
    """Return the mean of ‖x − y‖^exponent over positive pairs; lower is better, 0 is the least.

    Wang & Isola 2020 (arXiv 2005.10242), section 4.1, whose α is our exponent.

    Args:
        first: One vector of each pair, of length 1, (P, D).
        second: The other, (P, D).
        exponent: Above 0.

    Raises:
        InputError: If the shapes differ, a vector has not length 1 (± 1e-3), or the exponent is
            not above 0.
    """
    if not exponent > 0:
        raise InputError(f"The exponent is {exponent}; alignment takes one above 0, usually 2.")
    if np.shape(first) != np.shape(second):
        raise InputError(
            f"The two sides of the pairs have shapes {np.shape(first)} and {np.shape(second)}; "
            "give two arrays (P, D)."
        )
    first, second = _unit(first), _unit(second)
    total = 0.0
    for (_, one), (_, other) in zip(_blocks(first), _blocks(second), strict=True):
        total += (np.linalg.norm(one - other, axis=1) ** exponent).sum()
    return float(total / len(first))


def uniformity(
    vectors: np.ndarray,
    *,
    t: float = 2.0,
    exact_up_to: int = EXACT_UP_TO,
    sampled_pairs: int = SAMPLED_PAIRS,
    seed: int = 0,
) -> Interval:
    """Return log mean exp(−t‖x − y‖²) over all distinct unordered pairs; lower is more uniform.

    Wang & Isola 2020 (arXiv 2005.10242), section 4.1. 0 is the worst (all vectors the same); an
    even spread over a sphere of many dimensions comes to about −2t.

    Exact, with an interval of no width, up to `exact_up_to` vectors. Above, the mean is over
    `sampled_pairs` pairs of distinct rows drawn with replacement, and the interval (95 %) is that
    of the sampling, by the delta method; it says nothing about other sentences.

    Args:
        vectors: N ≥ 2 vectors of length 1, (N, D).
        t: Above 0, at most 20.
        exact_up_to: Vectors up to which all pairs are taken.
        sampled_pairs: Pairs taken above that, at least 2.
        seed: Decides on the sampled pairs.

    Raises:
        InputError: If there are fewer than 2 vectors, one has not length 1 (± 1e-3), `t` is
            outside its range, or `sampled_pairs` is below 2.
    """
    if not 0 < t <= LARGEST_T:
        raise InputError(f"t is {t}; uniformity takes 0 < t <= {LARGEST_T:g}, usually 2.")
    if sampled_pairs < 2:
        raise InputError(f"sampled_pairs is {sampled_pairs}; an interval needs at least 2.")
    vectors = _at_least_two(_unit(vectors))
    if len(vectors) <= exact_up_to:
        value = math.log(_mean_potential(vectors, t))
        return Interval(value, value, value)
    potentials = _sampled_potentials(vectors, t, sampled_pairs, seed)
    mean = potentials.mean()
    value = math.log(mean)
    margin = NORMAL_95 * potentials.std(ddof=1) / (mean * math.sqrt(sampled_pairs))
    return Interval(value, float(value - margin), float(value + margin))


def _mean_potential(vectors: np.ndarray, t: float) -> float:
    """Return the mean of exp(−t‖x − y‖²) over distinct pairs, in blocks of float32.

    ‖x‖² + ‖y‖² − 2xy cancels where vectors are near each other, all the more in float32. Distances
    do not change when the mean is subtracted, and then what cancels is as small as the spread.
    """
    count = len(vectors)
    mean = sum(block.sum(axis=0) for _, block in _blocks(vectors)) / count
    centred = np.empty(vectors.shape, dtype=np.float32)
    squares = np.empty(count, dtype=np.float32)
    for start, block in _blocks(vectors):
        rows = slice(start, start + len(block))
        centred[rows] = block - mean
        squares[rows] = np.square(centred[rows], dtype=np.float64).sum(axis=1)

    total = 0.0
    for start in range(0, count, BLOCK):
        rows = slice(start, start + BLOCK)
        for other in range(start, count, BLOCK):
            columns = slice(other, other + BLOCK)
            potentials = centred[rows] @ centred[columns].T
            potentials *= 2
            potentials -= squares[rows, None]
            potentials -= squares[columns]  # −‖x − y‖²
            np.minimum(potentials, 0, out=potentials)
            potentials *= t
            np.exp(potentials, out=potentials)
            block_sum = potentials.sum(dtype=np.float64)
            if other == start:  # each pair is here twice, and each vector with itself
                block_sum = (block_sum - np.trace(potentials, dtype=np.float64)) / 2
            total += block_sum
    return total / (count * (count - 1) / 2)


def _sampled_potentials(vectors: np.ndarray, t: float, pairs: int, seed: int) -> np.ndarray:
    """Return exp(−t‖x − y‖²) of random pairs of distinct rows, (pairs,), float64."""
    random = np.random.default_rng(seed)
    first = random.integers(0, len(vectors), size=pairs)
    second = random.integers(0, len(vectors) - 1, size=pairs)
    second += second >= first  # skips the row itself and leaves the others equally likely
    squares = np.empty(pairs)
    for start in range(0, pairs, PAIR_CHUNK):
        rows = slice(start, start + PAIR_CHUNK)
        difference = np.subtract(vectors[first[rows]], vectors[second[rows]], dtype=np.float32)
        squares[rows] = np.einsum("ij,ij->i", difference, difference)
    return np.exp(-t * squares)


# --- isotropy -----------------------------------------------------------------------------------


def mean_random_cosine(vectors: np.ndarray) -> float:
    """Return the mean cosine over all distinct pairs of vectors (N, D); near 0 is isotropic.

    Exact, without going through the pairs: (‖Σu‖² − N) / (N(N − 1)) for u of length 1. Ethayarajh
    (2019) estimates the same from random pairs and calls it anisotropy.

    >>> mean_random_cosine(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))  # (1 + 0 + 0) / 3
    0.333...

    Raises:
        InputError: As `normalise`; or if there are fewer than 2 vectors.
    """
    vectors = _at_least_two(_numbers(vectors))
    count = len(vectors)
    total = sum(block.sum(axis=0) for _, block in _unit_blocks(vectors))
    return float(np.clip((total @ total - count) / (count * (count - 1)), -1, 1))


@dataclass(frozen=True, eq=False)
class CosineHistogram:
    """How the cosines of N vectors' pairs are distributed.

    Attributes:
        edges: Of the bins, −1 to 1, (bins + 1,).
        density: Share of the pairs in each bin over its width, (bins,); its integral is 1.
        mean: Mean cosine of the pairs that were counted.
        is_exact: Whether every pair was counted; else a sample was.
    """

    edges: np.ndarray
    density: np.ndarray
    mean: float
    is_exact: bool


def cosine_histogram(
    vectors: np.ndarray,
    *,
    bins: int = 200,
    exact_up_to: int = HISTOGRAM_UP_TO,
    sampled_pairs: int = SAMPLED_PAIRS,
    seed: int = 0,
) -> CosineHistogram:
    """Return the distribution of the cosine over distinct pairs of vectors of length 1, (N, D).

    Args:
        vectors: N ≥ 2 vectors of length 1, (N, D).
        bins: Equal bins from −1 to 1.
        exact_up_to: Vectors up to which every pair is counted; above it a sample of them.
        sampled_pairs: Pairs in that sample.
        seed: Decides on it.

    Raises:
        InputError: If there are fewer than 2 vectors, or one has not length 1 (± 1e-3).
    """
    vectors = _at_least_two(_unit(vectors))
    count = len(vectors)
    edges = np.linspace(-1, 1, bins + 1)
    counts, total, pairs = np.zeros(bins, dtype=np.int64), 0.0, 0

    def add(cosines: np.ndarray) -> None:
        nonlocal counts, total, pairs
        counts += np.histogram(np.clip(cosines, -1, 1), edges)[0]
        total, pairs = total + float(cosines.sum(dtype=np.float64)), pairs + cosines.size

    if count <= exact_up_to:
        for start, block in _blocks(vectors):
            cosines = block @ np.asarray(vectors[start:], dtype=np.float64).T
            # Each pair once: what lies right of the diagonal.
            add(cosines[np.triu_indices(len(cosines), 1, cosines.shape[1])])
    else:
        random = np.random.default_rng(seed)
        first = random.integers(0, count, size=sampled_pairs)
        second = random.integers(0, count - 1, size=sampled_pairs)
        second += second >= first
        for start in range(0, sampled_pairs, PAIR_CHUNK):
            rows = slice(start, start + PAIR_CHUNK)
            add(np.einsum("ij,ij->i", vectors[first[rows]], vectors[second[rows]]))
    density = counts / (pairs * (edges[1] - edges[0]))
    return CosineHistogram(edges, density, total / pairs, count <= exact_up_to)


def random_cosine_density(cosines: np.ndarray, dimension: int) -> np.ndarray:
    """Return the density of the cosine of two random directions in D dimensions; exact.

    Γ(D/2) / (√π Γ((D−1)/2)) · (1 − t²)^((D−3)/2), what remains of the uniform distribution on the
    sphere along one axis. Mean 0, standard deviation 1/√D.

    >>> random_cosine_density(np.array([-0.5, 0.0, 0.9]), 3).round(9).tolist()  # Archimedes
    [0.5, 0.5, 0.5]

    Raises:
        InputError: If D is below 2.
    """
    from scipy.special import gammaln

    if dimension < 2:
        raise InputError(f"The dimension is {dimension}; directions need 2 or more.")
    cosines = np.asarray(cosines, dtype=np.float64)
    scale = gammaln(dimension / 2) - gammaln((dimension - 1) / 2) - math.log(math.pi) / 2
    rest = np.clip(1 - np.square(cosines), 0, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.where(dimension == 3, 0.0, (dimension - 3) / 2 * np.log(rest))
    return np.where(np.abs(cosines) > 1, 0.0, np.exp(scale + power))


def spectrum(vectors: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of the covariance (divisor N − 1) of vectors (N, D), descending, (D,).

    Raises:
        InputError: If `vectors` is not (N, D), holds a number that is not finite, or N < 2.
    """
    return _variances(_at_least_two(_numbers(vectors)))[0]


def effective_rank(vectors: np.ndarray) -> float:
    """Return how many directions vectors (N, D) use: exp of the entropy of the singular values.

    Roy & Vetterli 2007: singular values σ normalised to sum 1, then exp(−Σ p log p). Taken of the
    *centred* matrix, so that a common offset of all vectors, which is what
    `mean_random_cosine` measures, does not count as a direction. Between 1 and min(N − 1, D);
    0 where all vectors are the same.

    Raises:
        InputError: As `spectrum`.
    """
    variances, is_constant = _variances(_at_least_two(_numbers(vectors)))
    return 0.0 if is_constant else _effective_rank(variances)


def isoscore(vectors: np.ndarray) -> float:
    """Return the IsoScore of vectors (N, D): 1 if variance is even over directions, 0 on a line.

    Rudman et al. 2022 (Findings of ACL; arXiv 2108.07344), algorithm 1: the variances λ along the
    principal axes are brought to length √D; δ = ‖λ̂ − 1‖ / √(2(D − √D)) is the isotropy defect,
    φ = (D − δ²(D − √D))² / D² the share of the dimensions in use, (Dφ − 1) / (D − 1) the score.
    Multiplied out, D − δ²(D − √D) is Σλ̂, and the score is ((Σλ)² / Σλ² − 1) / (D − 1).

    Directions without variance are fine; the score is 0 where all vectors are the same. It cannot
    exceed (N − 2) / (D − 1), so compare scores of the same N, well above D.

    Raises:
        InputError: As `spectrum`; or if D < 2.
    """
    variances, is_constant = _variances(_at_least_two(_numbers(vectors)))
    return 0.0 if is_constant else _isoscore(variances)


def _variances(vectors: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the spectrum (D,), and whether the vectors differ by rounding at most.

    CLS of state 0 is such a case: the same token at the same position in every sentence.
    """
    count, dimension = vectors.shape
    mean = sum(block.sum(axis=0) for _, block in _blocks(vectors)) / count
    if count <= dimension:  # the Gram matrix has the same eigenvalues, but for zeros
        centred = np.asarray(vectors, dtype=np.float64) - mean
        moments = centred @ centred.T
    else:
        moments = np.zeros((dimension, dimension))
        for _, block in _blocks(vectors):
            centred = block - mean
            moments += centred.T @ centred
    variances = np.zeros(dimension)
    variances[: len(moments)] = np.linalg.eigvalsh(moments)[::-1].clip(0) / (count - 1)
    scale = sum(np.square(block).sum() for _, block in _blocks(vectors)) / count
    return variances, bool(variances.sum() <= ROUNDING * scale)


def _effective_rank(variances: np.ndarray) -> float:
    singular = np.sqrt(variances)  # but for a factor, which cancels
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _isoscore(variances: np.ndarray) -> float:
    if len(variances) < 2:
        raise InputError("IsoScore is undefined for vectors of 1 number; it takes 2 or more.")
    shares = variances / variances.sum()
    participation = 1 / np.square(shares).sum()  # (Σλ)² / Σλ²
    return float(np.clip((participation - 1) / (len(variances) - 1), 0, 1))
