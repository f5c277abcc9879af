"""Spearman and its bootstrap, against scipy and against a slow loop over the same resamples."""

import math

import numpy as np
import pytest
from scipy import stats

from lwap.errors import InputError
from lwap.evaluation.bootstrap import holm, paired_difference, spearman_draws
from lwap.evaluation.sts import (
    check_scores,
    correlations,
    spearman,
    spearman_difference,
    spearman_interval,
)


def scored_pairs(count: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines that follow gold scores 0–5 in half steps, as STS sets have them."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, 11, size=count) / 2
    cosines = np.tanh((gold - 2.5 + noise * random.normal(size=count)) / 4)
    return cosines, gold


def slow_bootstrap(statistic, count: int, resamples: int, seed: int) -> list[float]:
    """Return a statistic of the rows of each resample, one after the other; NaN is left out."""
    rows = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    return [value for row in rows if not math.isnan(value := statistic(row))]


# --- the correlation ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_scipys(seed):
    cosines, gold = scored_pairs(200, seed)
    assert len(np.unique(gold)) < len(gold)  # there are ties
    expected = 100 * stats.spearmanr(np.round(cosines, 6), gold).statistic
    assert spearman(cosines, gold) == pytest.approx(expected, abs=1e-9)


def test_cosines_that_differ_by_float_noise_are_ties():
    cosines, gold = scored_pairs(60, seed=0)
    cosines[:30] = 1.0
    noisy = cosines + np.random.default_rng(1).normal(size=60) * 1e-8
    assert spearman(noisy, gold) == spearman(cosines, gold)
    assert 100 * stats.spearmanr(noisy, gold).statistic != pytest.approx(spearman(cosines, gold))


def test_only_the_order_counts():
    cosines, gold = scored_pairs(50, seed=2)
    value = spearman(cosines, gold)
    assert spearman(cosines**3 * 0.5, gold) == pytest.approx(value, abs=1e-9)
    assert spearman(cosines, gold * 7 - 3) == pytest.approx(value, abs=1e-9)
    assert spearman(-cosines, gold) == pytest.approx(-value, abs=1e-9)
    assert spearman([0.1, 0.2, 0.9], [1, 2, 3]) == pytest.approx(100)
    assert spearman([0.9, 0.2, 0.1], [1, 2, 3]) == pytest.approx(-100)


def test_single_precision_and_lists_are_taken():
    cosines, gold = scored_pairs(40, seed=3)
    value = spearman(cosines.astype(np.float32), gold.astype(int))
    expected = spearman(list(map(float, cosines.astype(np.float32))), [int(g) for g in gold])
    assert value == expected


# --- the interval -------------------------------------------------------------------------------


# All resamples in a few blocks, in many, and each of them more than a block.
@pytest.mark.parametrize(("count", "resamples"), [(40, 150), (2500, 150), (100_001, 3)])
def test_interval_is_the_percentiles_of_a_slow_bootstrap(count, resamples):
    cosines, gold = scored_pairs(count, seed=4)
    rounded = np.round(cosines, 6)

    def statistic(row):
        return 100 * stats.spearmanr(rounded[row], gold[row]).statistic

    draws = slow_bootstrap(statistic, count, resamples, seed=7)
    found = spearman_interval(cosines, gold, resamples=resamples, seed=7)
    assert found.value == spearman(cosines, gold)
    assert [found.low, found.high] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-9)


def test_interval_surrounds_the_value_and_its_seed_decides():
    cosines, gold = scored_pairs(80, seed=5)
    first = spearman_interval(cosines, gold)
    assert first.low < first.value < first.high
    assert spearman_interval(cosines, gold) == first
    assert spearman_interval(cosines, gold, seed=1) != first


def test_interval_narrows_with_the_root_of_the_pairs():
    def width(count):
        found = spearman_interval(*scored_pairs(count, seed=6), resamples=300)
        return found.high - found.low

    assert width(100) / width(1600) == pytest.approx(4, rel=0.35)


def test_resamples_that_are_constant_are_left_out():
    # A third of the resamples of these three pairs has a constant score.
    cosines, gold = np.array([0.1, 0.4, 0.8]), np.array([0.0, 0.0, 1.0])
    found = spearman_interval(cosines, gold)
    assert np.isfinite([found.low, found.high]).all()
    difference = spearman_difference(cosines, cosines[::-1], gold)
    assert np.isfinite([difference.low, difference.high]).all()
    assert 0 < difference.p_value <= 1


def test_interval_covers_the_true_correlation_about_as_often_as_it_says():
    correlation = 0.7
    true = 100 * 6 / math.pi * math.asin(correlation / 2)  # Spearman of a bivariate normal
    random = np.random.default_rng(9)
    covered = 0
    for _ in range(100):
        first, noise = random.normal(size=(2, 60))
        second = correlation * first + math.sqrt(1 - correlation**2) * noise
        found = spearman_interval(first, second, resamples=150)
        covered += found.low <= true <= found.high
    assert 86 <= covered <= 100


# --- the paired difference ----------------------------------------------------------------------


def test_difference_is_a_slow_paired_bootstrap():
    first, gold = scored_pairs(40, seed=10, noise=2)
    second = first + np.random.default_rng(11).normal(size=40) * 0.1
    a, b = np.round(first, 6), np.round(second, 6)

    def statistic(row):
        return 100 * (
            stats.spearmanr(a[row], gold[row]).statistic
            - stats.spearmanr(b[row], gold[row]).statistic
        )

    draws = np.array(slow_bootstrap(statistic, 40, 150, seed=3))
    found = spearman_difference(first, second, gold, resamples=150, seed=3)
    assert found.value == pytest.approx(spearman(first, gold) - spearman(second, gold))
    assert [found.low, found.high] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-9)
    on_one_side = min((draws <= 0).sum(), (draws >= 0).sum())
    assert on_one_side >= 10
    assert found.p_value == pytest.approx(min(1, 2 * (on_one_side + 1) / 151))


def test_difference_changes_its_sign_with_the_order():
    first, gold = scored_pairs(60, seed=12)
    second = scored_pairs(60, seed=12, noise=1.5)[0]
    one, other = (
        spearman_difference(first, second, gold),
        spearman_difference(second, first, gold),
    )
    assert one.value == pytest.approx(-other.value)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == other.p_value


def test_identical_scores_do_not_differ():
    cosines, gold = scored_pairs(30, seed=13)
    found = spearman_difference(cosines, cosines, gold)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_clear_difference_has_a_p_value_below_what_counting_can_give_but_never_zero():
    first, gold = scored_pairs(200, seed=14, noise=0.2)
    second = scored_pairs(200, seed=15)[0]  # follows other scores
    found = spearman_difference(first, second, gold, resamples=199)
    assert found.low > 0
    assert 0 < found.p_value < 2 / 200 / 1000


def test_paired_interval_is_narrower_than_two_of_their_own():
    first, gold = scored_pairs(150, seed=16)
    second = first + np.random.default_rng(0).normal(size=150) * 0.02
    difference = spearman_difference(first, second, gold)
    alone = spearman_interval(first, gold)
    assert difference.high - difference.low < (alone.high - alone.low) / 2


def test_equally_good_scores_seldom_differ_significantly():
    random = np.random.default_rng(17)
    significant = 0
    for _ in range(60):
        gold = random.normal(size=50)
        first, second = gold + random.normal(size=(2, 50))
        significant += spearman_difference(first, second, gold, resamples=100).p_value < 0.05
    assert significant <= 9  # 3 expected


# --- what has no correlation --------------------------------------------------------------------


@pytest.mark.parametrize("measure", [spearman, spearman_interval])
@pytest.mark.parametrize(
    ("cosines", "gold", "message"),
    [
        ([], [], "at least 3 scored pairs; there are 0"),
        ([0.1, 0.2], [1, 2], "at least 3 scored pairs; there are 2"),
        ([0.1, 0.2, 0.3], [1, 2], "3 cosines for 2 scores"),
        ([0.1, float("nan"), 0.3], [1, 2, 3], "Pair 2: the cosine is nan"),
        ([0.1, 0.2, 0.3], [1, 2, float("inf")], "Pair 3: the score is inf"),
        ([0.5, 0.5, 0.5], [1, 2, 3], r"All 3 pairs have the same cosine \(0.5\)"),
        ([1.0, 1.0 - 1e-9, 1.0], [1, 2, 3], r"All 3 pairs have the same cosine \(1\)"),
        ([0.1, 0.2, 0.3], [4, 4, 4], r"same score \(4\).*Add pairs with other scores"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(measure, cosines, gold, message):
    with pytest.raises(InputError, match=message):
        measure(cosines, gold)


def test_difference_checks_both_sides():
    good, gold = scored_pairs(10, seed=18)
    for bad, message in (
        (np.full(10, 0.3), "same cosine"),
        (good[:9], "9 cosines for 10 scores"),
        (np.where(np.arange(10) == 4, np.nan, good), "Pair 5"),
    ):
        with pytest.raises(InputError, match=message):
            spearman_difference(good, bad, gold)
        with pytest.raises(InputError, match=message):
            spearman_difference(bad, good, gold)


# --- many columns, three aggregations -----------------------------------------------------------


def task(pairs: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return cosines (K, P), gold (P,), and a subset a pair, of unequal sizes."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, 11, size=pairs) / 2
    noise = random.normal(size=(columns, pairs)) * np.arange(1, columns + 1)[:, None]
    subsets = [["news", "images", "forum"][min(place * 5 // pairs, 2)] for place in range(pairs)]
    return np.tanh((gold - 2.5 + noise) / 4), gold, subsets


def test_the_three_aggregations_are_those_computed_by_hand():
    cosines, gold, subsets = task(100, 3, seed=20)
    found = correlations(cosines, gold, subsets, resamples=20)
    sizes = {name: subsets.count(name) for name in ("news", "images", "forum")}
    assert sizes == {"news": 20, "images": 20, "forum": 60}
    for column in range(3):
        each = {}
        for name in sizes:
            rows = [row for row, subset in enumerate(subsets) if subset == name]
            rounded = np.round(cosines[column, rows], 6)
            each[name] = 100 * stats.spearmanr(rounded, gold[rows]).statistic
        mean = (each["news"] + each["images"] + each["forum"]) / 3
        weighted = (20 * each["news"] + 20 * each["images"] + 60 * each["forum"]) / 100
        whole = 100 * stats.spearmanr(np.round(cosines[column], 6), gold).statistic
        assert found.values["all"][column] == pytest.approx(whole, abs=1e-9)
        assert found.values["mean"][column] == pytest.approx(mean, abs=1e-9)
        assert found.values["wmean"][column] == pytest.approx(weighted, abs=1e-9)
    assert found.pairs == 100


def test_intervals_of_means_resample_within_the_subsets():
    cosines, gold, subsets = task(100, 1, seed=21)
    found = correlations(cosines, gold, subsets, resamples=400, seed=3)
    random = np.random.default_rng(9)
    rows_of = [np.flatnonzero(np.array(subsets) == name) for name in ("news", "images", "forum")]
    slow = []
    for _ in range(400):
        drawn = [random.choice(rows, size=len(rows)) for rows in rows_of]
        each = [100 * stats.spearmanr(cosines[0, rows], gold[rows]).statistic for rows in drawn]
        slow.append(np.average(each, weights=[20, 20, 60]))
    assert found.draws["wmean"].std() == pytest.approx(np.std(slow), rel=0.15)
    assert found.draws["wmean"].mean() == pytest.approx(np.mean(slow), abs=0.5)


@pytest.mark.parametrize("subsets", [None, ["one"] * 40])
def test_a_task_of_one_set_has_one_number(subsets):
    cosines, gold, _ = task(40, 2, seed=22)
    found = correlations(cosines, gold, subsets, resamples=30)
    for name in ("mean", "wmean"):
        assert np.array_equal(found.values[name], found.values["all"])
        assert np.array_equal(found.draws[name], found.draws["all"])


def test_columns_share_their_resamples_and_do_not_touch_each_other():
    cosines, gold, _ = task(50, 4, seed=23)
    cosines[1], cosines[2, 7] = 0.5, np.nan
    together = correlations(cosines, gold, resamples=60)
    assert np.isnan(together.values["all"][[1, 2]]).all()
    assert np.isnan(together.draws["all"][[1, 2]]).all()
    for place in (0, 3):
        alone = correlations(cosines[[place]], gold, resamples=60)
        assert np.array_equal(alone.draws["all"][0], together.draws["all"][place])
    draws = [
        100 * stats.spearmanr(np.round(cosines[3], 6)[row], gold[row]).statistic
        for row in np.random.default_rng(0).integers(0, 50, size=(60, 50))
    ]
    assert together.draws["all"][3] == pytest.approx(np.array(draws), abs=1e-9)


def test_ties_and_repeated_pairs_get_average_ranks_in_every_resample():
    random = np.random.default_rng(24)
    columns = random.integers(0, 4, size=(2, 25)).astype(float)
    gold = random.integers(0, 3, size=25).astype(float)
    found = spearman_draws(columns, gold, resamples=40, seed=5)
    for place, row in enumerate(np.random.default_rng(5).integers(0, 25, size=(40, 25))):
        for column in range(2):
            expected = 100 * stats.spearmanr(columns[column, row], gold[row]).statistic
            assert found[column, place] == pytest.approx(expected, abs=1e-9)


def test_a_subset_without_a_correlation_leaves_only_the_whole():
    cosines, gold, subsets = task(40, 1, seed=25)
    gold[[place for place, name in enumerate(subsets) if name == "news"]] = 3
    found = correlations(cosines, gold, subsets, resamples=10)
    assert np.isfinite(found.values["all"]).all()
    assert np.isnan(found.values["mean"]).all()
    assert np.isnan(found.values["wmean"]).all()


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ([1, 2], "at least 3 scored pairs; there are 2"),
        ([1, float("nan"), 2], "Pair 2: the score is nan"),
        ([2, 2, 2, 2], r"All 4 pairs have the same score \(2\)"),
    ],
)
def test_scores_are_checked_before_anything_is_encoded(gold, message):
    with pytest.raises(InputError, match=message):
        check_scores(gold)


# --- what the statistics promise ------------------------------------------------------------------


@pytest.mark.slow
def test_intervals_cover_the_true_value_in_95_of_100_cases():
    correlation = 0.6
    true = 100 * 6 / math.pi * math.asin(correlation / 2)  # Spearman of a bivariate normal
    random = np.random.default_rng(26)
    covered = 0
    for simulation in range(500):
        first, noise = random.normal(size=(2, 200))
        second = correlation * first + math.sqrt(1 - correlation**2) * noise
        draws = spearman_draws(first, second, seed=simulation)[0]
        low, high = np.percentile(draws, [2.5, 97.5])
        covered += low <= true <= high
    assert 0.93 <= covered / 500 <= 0.97


@pytest.mark.slow
def test_p_values_are_uniform_where_there_is_no_difference():
    random = np.random.default_rng(1)
    p_values = []
    for simulation in range(500):
        gold = random.normal(size=150)
        columns = gold + random.normal(size=(2, 150))
        draws = spearman_draws(columns, gold, seed=100_000 + simulation)
        value = np.subtract(*[stats.spearmanr(column, gold).statistic for column in columns])
        p_values.append(paired_difference(100 * value, *draws).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.05
    assert 0.03 <= np.mean(np.array(p_values) < 0.05) <= 0.07


def test_holm_is_the_step_down_by_hand():
    # 5 · 0.001; 4 · 0.01; 3 · 0.012 = 0.036 is raised to 0.04; 2 · 0.3; 1 · 0.5 is raised to 0.6.
    found = holm([0.3, 0.001, 0.5, 0.012, 0.01])
    assert found.tolist() == pytest.approx([0.6, 0.005, 0.6, 0.04, 0.04])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    with_gap = holm([0.02, float("nan"), 0.01])
    assert with_gap[[0, 2]].tolist() == pytest.approx([0.02, 0.02])
    assert math.isnan(with_gap[1])
    assert holm([]).tolist() == []
