"""The STS table against scipy and slow loops over the same resamples; tasks, models, caches."""

import copy
import errno
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lwap.analysis.comparison import compare
from lwap.checkpoints.cached import WhitenOn
from lwap.datasets.readers import read_pairs
from lwap.encoding import diskcache
from lwap.encoding.diskcache import SUFFIX, DiskCache
from lwap.encoding.sources import file_sha256
from lwap.errors import ConfigError, InputError, ModelError, StrategyError
from lwap.evaluation.benchmark import evaluate_sts
from lwap.evaluation.result import AVERAGE, Column, StsResult, versions
from lwap.evaluation.sts import correlations, spearman
from lwap.evaluation.tasks import Task, standard_tasks
from lwap.pooling.strategies import strategies

RESAMPLES = 60
AGGREGATIONS = ("all", "mean", "wmean")
SUBSETS = ("news",) * 8 + ("images",) * 16 + ("forum",) * 16


def frame(count: int = 40, seed: int = 0, subsets=None, texts=None) -> pd.DataFrame:
    """Return scored pairs, 0–5 in half steps, of neighbours among the texts."""
    random = np.random.default_rng(seed)
    texts = texts or [f"sentence {place}" for place in range(count + 1)]
    columns = {
        "sentence1": texts[:count],
        "sentence2": texts[1 : count + 1],
        "score": random.integers(0, 11, size=count) / 2,
    }
    return pd.DataFrame(columns | ({"subset": subsets} if subsets else {}))


def noisy(gold: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Return cosines that follow the scores as well as the noise lets them."""
    return np.tanh((gold - 2.5 + noise * np.random.default_rng(seed).normal(size=len(gold))) / 4)


def result_of(tasks, noises=(0.3, 2.0, 4.0), names=("lwap", "mean", "layer_mean:1"), **changes):
    """Return a result of made-up cosines; the first task's seeds are 1, 2, …, the second's 11 …"""
    cosines = tuple(
        np.stack(
            [noisy(task.gold, noise, 10 * place + row) for row, noise in enumerate(noises, start=1)]
        )
        for place, task in enumerate(tasks)
    )
    facts = {
        "columns": tuple(Column("tiny", name) for name in names),
        "tasks": tuple(tasks),
        "correlations": tuple(
            correlations(some, task.gold, task.subsets, resamples=RESAMPLES, seed=3)
            for some, task in zip(cosines, tasks, strict=True)
        ),
        "cosines": cosines,
        "own": {"tiny": "lwap"},
        "encoders": {"tiny": "tiny"},
        "precision": {"tiny": "fp32"},
        "resamples": RESAMPLES,
        "seed": 3,
    }
    return StsResult(**(facts | changes))


@pytest.fixture(scope="session")
def two_tasks() -> list[Task]:
    """A task of three subsets, and one of a single set and another size."""
    return [
        Task.from_pairs(frame(40, 1, list(SUBSETS)), "divided"),
        Task.from_pairs(frame(30, 2), "whole"),
    ]


@pytest.fixture(scope="session")
def result(two_tasks) -> StsResult:
    return result_of(two_tasks)


@pytest.fixture(scope="session")
def tasks(sentences) -> list[Task]:
    """Two small tasks of real sentences that share some of them."""
    return [
        Task.from_pairs(frame(9, 1, ["a"] * 4 + ["b"] * 5, sentences), "first"),
        Task.from_pairs(frame(7, 2, texts=sentences[5:]), "second"),
    ]


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path / "cache", limit_bytes=10**9)


@pytest.fixture(scope="session")
def two_heads(tiny_lwap_model) -> list:
    """Two models with other heads on one encoder."""
    models = [copy.deepcopy(tiny_lwap_model) for _ in range(2)]
    with torch.no_grad():
        models[1][1].dense.weight.mul_(-1).add_(0.05)
    for name, model in zip(("plain", "turned"), models, strict=True):
        model.lwap_name = name
    return models


def assert_equal(first: StsResult, second: StsResult) -> None:
    assert first.columns == second.columns
    for kind in AGGREGATIONS:
        assert np.array_equal(first.values(kind), second.values(kind), equal_nan=True)
        for one, other in zip(first.bounds(kind), second.bounds(kind), strict=True):
            assert np.array_equal(one, other, equal_nan=True)
        for one, other in zip(first.correlations, second.correlations, strict=True):
            assert np.array_equal(one.draws[kind], other.draws[kind], equal_nan=True)


# --- the numbers --------------------------------------------------------------------------------


def scipys(cosines: np.ndarray, gold: np.ndarray) -> float:
    return 100 * stats.spearmanr(np.round(cosines, 6), gold).statistic


def test_values_and_their_average_are_scipys(result, two_tasks):
    for column in range(3):
        expected = [
            scipys(some[column], task.gold)
            for some, task in zip(result.cosines, two_tasks, strict=True)
        ]
        assert result.values()[column].tolist() == pytest.approx([*expected, np.mean(expected)])
        each = {
            name: scipys(result.cosines[0][column, mask], two_tasks[0].gold[mask])
            for name in ("news", "images", "forum")
            for mask in [np.array(SUBSETS) == name]
        }
        mean = np.mean(list(each.values()))
        weighted = (8 * each["news"] + 16 * each["images"] + 16 * each["forum"]) / 40
        for kind, first in (("mean", mean), ("wmean", weighted)):
            found = result.values(kind)[column].tolist()
            assert found == pytest.approx([first, expected[1], (first + expected[1]) / 2])
    assert result.task_names == ["divided", "whole", AVERAGE]


def slow_draws(cosines: np.ndarray, gold: np.ndarray) -> np.ndarray:
    rows = np.random.default_rng(3).integers(0, len(gold), size=(RESAMPLES, len(gold)))
    return np.array([scipys(cosines[row], gold[row]) for row in rows])


def test_bounds_are_percentiles_of_a_slow_bootstrap_the_average_draw_by_draw(result, two_tasks):
    low, high = result.bounds()
    assert low.shape == high.shape == (3, 3)
    for column in range(3):
        draws = [
            slow_draws(some[column], task.gold)
            for some, task in zip(result.cosines, two_tasks, strict=True)
        ]
        draws.append((draws[0] + draws[1]) / 2)
        ends = np.percentile(draws, [2.5, 97.5], axis=1)
        assert low[column] == pytest.approx(ends[0], abs=1e-9)
        assert high[column] == pytest.approx(ends[1], abs=1e-9)


def test_a_difference_is_paired_over_the_same_resamples(result, two_tasks):
    for task, name in enumerate(result.task_names[:2]):
        first, second = (
            slow_draws(result.cosines[task][column], two_tasks[task].gold) for column in (1, 2)
        )
        found = result.difference(1, 2, task)
        assert found.value == pytest.approx(result.values()[1, task] - result.values()[2, task])
        ends = np.percentile(first - second, [2.5, 97.5])
        assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1e-9), name
    same = result.difference(1, 1, 2)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_columns_that_are_the_same_vectors_do_not_differ(two_tasks):
    found = result_of(two_tasks)
    twice = [np.concatenate([some, some[:1]]) for some in found.cosines]
    found = result_of(
        two_tasks,
        columns=(*found.columns, Column("tiny", "layer_mean:3")),
        correlations=tuple(
            correlations(some, task.gold, resamples=RESAMPLES)
            for some, task in zip(twice, two_tasks, strict=True)
        ),
    )
    for task in range(3):
        same = found.difference(0, 3, task)
        assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert found.tied()[0].tolist() == found.tied()[3].tolist() == [True] * 3


def slow_holm(p_values: list[float]) -> list[float]:
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_differences_are_corrected_for_the_columns_of_a_task(two_tasks, kind):
    noises = (0.8, 1.0, 2.0, 1.1)
    result = result_of(two_tasks, noises, ("lwap", "mean", "cls", "max"))
    table = result.differences(1, kind)
    assert list(table.columns) == [
        *("task", "model", "strategy", "baseline", "difference"),
        *("low", "high", "p_value", "p_holm", "significant"),
    ]
    assert table["task"].tolist() == [name for name in result.task_names for _ in range(4)]
    assert set(table["baseline"]) == {"mean"}
    for task in range(3):
        part = table.iloc[4 * task : 4 * task + 4].reset_index()
        found = [result.difference(place, 1, task, kind) for place in range(4)]
        assert part["difference"].tolist() == [entry.value for entry in found]
        assert part["low"].tolist() == [entry.low for entry in found]
        assert part["p_value"].tolist() == [entry.p_value for entry in found]
        others = part[part["strategy"] != "mean"]
        assert others["p_holm"].tolist() == pytest.approx(slow_holm(others["p_value"].tolist()))
        assert part["significant"].tolist() == (part["p_holm"] < 0.05).tolist()
        assert part.loc[1, ["difference", "p_value", "p_holm"]].tolist() == [0, 1, 1]
    assert table["significant"].any() and not table["significant"].all()


def test_the_best_of_each_task_is_the_baseline_where_none_is_named(two_tasks):
    result = result_of(two_tasks, (2.0, 0.3, 0.31), ("cls", "lwap", "mean"))
    table = result.differences()
    for task, name in enumerate(result.task_names):
        best = result.best(task)
        assert best == result.values()[:, task].argmax() != 0
        part = table[table["task"] == name]
        assert set(part["baseline"]) == {result.labels[best]}
        assert part["difference"].max() == 0
    tied = result.tied()
    assert tied.tolist() == [[False] * 3, [True] * 3, [True] * 3]
    assert tied.tolist() == (~table["significant"].to_numpy().reshape(3, 3).T).tolist()


def test_a_table_may_be_changed_by_its_reader(result):
    table = result.differences()
    table["difference"] = 7
    assert 7 not in result.differences()["difference"].tolist()
    fewer = replace(result, tasks=result.tasks[1:], correlations=result.correlations[1:])
    assert fewer.bounds()[0].tolist() == result.bounds()[0][:, 1:2].tolist()
    assert len(fewer.differences()) == 3


# --- what is undefined --------------------------------------------------------------------------


def test_a_column_without_correlation_is_nan_everywhere_and_never_tied(two_tasks):
    found = result_of(two_tasks)
    for some in found.cosines:
        some[2] = 1.0
    found = result_of(
        two_tasks,
        correlations=tuple(
            correlations(some, task.gold, task.subsets, resamples=RESAMPLES)
            for some, task in zip(found.cosines, two_tasks, strict=True)
        ),
    )
    for kind in AGGREGATIONS:
        for array in (found.values(kind), *found.bounds(kind)):
            assert np.isnan(array).tolist() == [[False] * 3, [False] * 3, [True] * 3]
        table = found.differences(0, kind)
        undefined = table["strategy"] == "layer_mean:1"
        assert (
            table.loc[undefined, ["difference", "low", "p_value", "p_holm"]].isna().all(axis=None)
        )
        assert not table.loc[undefined, "significant"].any()
        # The others are corrected for one comparison, not two.
        others = table[table["strategy"] == "mean"]
        assert others["p_holm"].tolist() == others["p_value"].tolist()
        assert not found.tied(kind)[2].any()
        assert found.best(0, kind) == 0
    rows = found.rows()
    assert rows["spearman"].isna().tolist() == (rows["strategy"] == "layer_mean:1").tolist()


def test_nothing_is_best_where_nothing_is_defined(two_tasks):
    nothing = correlations(np.ones((3, 40)), two_tasks[0].gold, resamples=RESAMPLES)
    found = result_of(two_tasks[:1], correlations=(nothing,))
    assert found.best(0) is None
    assert found.differences()["difference"].isna().all()
    assert not found.tied().any()
    assert found.mismatch()["cost"].isna().all()


# --- tables -------------------------------------------------------------------------------------


def test_rows_are_one_a_number(result):
    rows = result.rows()
    assert list(rows.columns) == [
        *("task", "model", "strategy", "aggregation", "spearman", "low", "high", "pairs")
    ]
    assert len(rows) == 3 * 3 * 3  # columns, tasks with their average, aggregations
    assert rows.groupby("task")["pairs"].unique().to_dict() == {
        "divided": [40],
        "whole": [30],
        AVERAGE: [70],
    }
    for kind in AGGREGATIONS:
        part = rows[rows["aggregation"] == kind]
        found = part.pivot(index="strategy", columns="task", values="spearman")
        found = found.loc[["lwap", "mean", "layer_mean:1"], result.task_names]
        assert np.array_equal(found.to_numpy(), result.values(kind))
        assert part["low"].to_numpy().reshape(3, 3).T.tolist() == result.bounds(kind)[0].tolist()
    json.dumps(rows.to_dict(orient="records"))


def test_means_over_subsets_that_a_copy_does_not_name_are_left_out(two_tasks):
    hidden = replace(two_tasks[0], subsets=None, has_hidden_subsets=True)
    found = result_of([hidden, two_tasks[1]])
    for kind in ("mean", "wmean"):
        for array in (found.values(kind), *found.bounds(kind)):
            assert np.isnan(array).tolist() == [[True, False, True]] * 3
        assert found.best(0, kind) is None
    counts = found.rows().groupby(["aggregation", "task"]).size().to_dict()
    assert counts == {
        **{("all", name): 3 for name in found.task_names},
        ("mean", "whole"): 3,
        ("wmean", "whole"): 3,
    }
    alone = result_of([hidden]).rows()
    assert set(alone["aggregation"]) == {"all"}


def test_mismatch_is_own_minus_other_on_the_last_task(two_tasks):
    names = ("mean", "lwap", "layer_mean:1", "cls", "layer_cls:2", "mean+whiten")
    result = result_of(two_tasks, (0.5, 1.0, 3.0, 4.0, 4.0, 0.6), names)
    table = result.mismatch()
    assert table["strategy"].tolist() == ["mean", "cls", "mean+whiten"]
    assert set(table["model"]) == {"tiny"} and set(table["trained_with"]) == {"lwap"}
    found = [result.difference(1, place, 2) for place in (0, 3, 5)]
    assert table["cost"].tolist() == [entry.value for entry in found]
    assert table["cost"][0] < 0 < table["cost"][1]
    assert (table["low"] < table["cost"]).all() and (table["cost"] < table["high"]).all()
    p_values = [entry.p_value for entry in found]
    assert table["p_value"].tolist() == p_values
    assert table["p_holm"].tolist() == pytest.approx(slow_holm(p_values))
    assert table["significant"].tolist() == (table["p_holm"] < 0.05).tolist()
    alone = result_of(two_tasks[:1], (1.0, 3.0), ("lwap", "mean"))
    assert alone.mismatch()["cost"].tolist() == [alone.difference(0, 1, 0).value]


@pytest.mark.parametrize(
    ("own", "names"),
    [
        (None, ("lwap", "mean", "cls")),
        ("max", ("lwap", "mean", "cls")),
        ("lwap", ("lwap", "layer_mean:1", "layer_cls:1")),
    ],
)
def test_there_is_no_mismatch_without_the_own_pooling_and_another(result, two_tasks, own, names):
    found = result_of(two_tasks, names=names, own={"tiny": own}).mismatch()
    assert found.empty
    assert list(found.columns) == list(result.mismatch().columns)


# --- an evaluation ------------------------------------------------------------------------------


def test_an_evaluation_scores_every_strategy_and_layer(tiny_lwap_model, tasks):
    found = evaluate_sts(tiny_lwap_model, tasks, resamples=20)
    names = list(strategies(tiny_lwap_model))
    assert found.labels == names
    assert [column.is_layer for column in found.columns] == [name[:6] == "layer_" for name in names]
    assert (found.models, found.own) == (
        [tiny_lwap_model.lwap_name],
        {tiny_lwap_model.lwap_name: "lwap"},
    )
    for place, task in enumerate(tasks):
        table = compare(tiny_lwap_model, list(zip(task.first, task.second, strict=True)), names)
        for column, name in enumerate(names):
            if name == "layer_cls:0":  # the first token before any layer is always the same
                assert np.isnan(found.values()[column, place])
                continue
            expected = spearman(table[name].to_numpy(), task.gold)
            assert found.values()[column, place] == pytest.approx(expected, abs=1e-9), name
    assert np.isfinite(np.delete(found.values(), names.index("layer_cls:0"), axis=0)).all()
    assert found.best(2) is not None


@pytest.mark.parametrize("with_cache", [True, False])
@pytest.mark.parametrize("with_progress", [True, False])
def test_models_on_one_encoder_encode_a_sentence_once(
    two_heads, tasks, cache, encoded, read_as, with_cache, with_progress
):
    calls = []
    found = evaluate_sts(
        two_heads,
        tasks,
        ["lwap", "mean"],
        resamples=20,
        cache=cache if with_cache else None,
        progress=(lambda *call: calls.append(call)) if with_progress else None,
    )
    distinct = {text for task in tasks for text in (*task.first, *task.second)}
    assert encoded == read_as(distinct)
    if with_progress:
        assert {total for _, total in calls} == {len(distinct)}
        assert [done for done, _ in calls] == sorted({done for done, _ in calls})
        assert calls[-1] == (len(distinct), len(distinct))
    assert found.models == ["plain", "turned"]
    assert found.labels == ["plain · lwap", "plain · mean", "turned · lwap", "turned · mean"]
    values = found.values()
    assert values[1].tolist() == values[3].tolist()
    assert values[0].tolist() != values[2].tolist()
    assert found.mismatch()["model"].tolist() == ["plain", "turned"]
    alone = evaluate_sts(two_heads[1], tasks, ["lwap", "mean"], resamples=20)
    assert alone.values() == pytest.approx(values[2:], abs=1e-9)


def test_models_on_different_encoders_share_nothing(
    tiny_model, make_encoder, tasks, cache, encoded
):
    other = str(make_encoder("bert", seed=1))
    calls = []
    found = evaluate_sts(
        [tiny_model, other],
        tasks,
        ["mean"],
        device="cpu",
        resamples=20,
        cache=cache,
        progress=lambda *call: calls.append(call),
    )
    assert set(encoded.values()) == {2}
    assert calls[-1] == (2 * len(encoded),) * 2
    assert found.encoders == {tiny_model.lwap_name: tiny_model.lwap_name, other: other}
    assert found.provenance()["encoder"] == found.encoders
    assert found.values()[0].tolist() != found.values()[1].tolist()


def test_a_strategy_that_one_model_lacks_is_left_out_there(tiny_model, two_heads, tasks):
    found = evaluate_sts([tiny_model, two_heads[0]], tasks, ["lwap", "mean", "mean"], resamples=20)
    assert found.columns == (
        Column(tiny_model.lwap_name, "mean"),
        Column("plain", "lwap"),
        Column("plain", "mean"),
    )


def test_results_grow_task_by_task(tiny_model, tasks):
    seen = []
    found = evaluate_sts(tiny_model, tasks, ["mean", "cls"], resamples=20, on_task=seen.append)
    assert [part.task_names for part in seen] == [["first"], ["first", "second", AVERAGE]]
    assert seen[0].values().shape == (2, 1)
    assert seen[0].values()[:, 0].tolist() == found.values()[:, 0].tolist()
    assert_equal(seen[1], found)


def test_whitening_says_what_it_was_fitted_on(tiny_model, tasks, sentences):
    corpus = WhitenOn("own.txt", tuple(f"{a} {b}" for a in sentences[:7] for b in sentences[:7]))
    names = ["mean+whiten", "mean"]
    found = evaluate_sts(tiny_model, tasks, names, whiten_on=corpus, resamples=20)
    assert found.labels == names
    assert found.whiten_on == found.provenance()["whiten_on"] == "own.txt"
    assert found.values()[0].tolist() != found.values()[1].tolist()


def test_provenance_says_what_a_number_must_be_read_with(tiny_model, tasks):
    found = evaluate_sts(tiny_model, tasks, ["mean"], resamples=20, seed=5).provenance()
    name = tiny_model.lwap_name
    assert found["model"] == found["encoder"] == name
    assert found["data_sha256"] == {task.name: task.sha256 for task in tasks}
    assert found["pairs"] == {"first": 9, "second": 7}
    assert (found["precision"], found["resamples"], found["seed"]) == ("fp32", 20, 5)
    assert found["trained_with"] == {name: "mean"}
    assert found["versions"] == versions()
    assert versions().keys() > {"lwap", "python", "torch", "transformers", "numpy", "scipy"}
    assert versions()["numpy"] == np.__version__
    json.dumps(found)


# --- what is kept -------------------------------------------------------------------------------


def test_what_was_kept_is_what_is_computed_afresh(tiny_model, tasks, cache):
    fresh = evaluate_sts(tiny_model, tasks, resamples=20, seed=1)
    first = evaluate_sts(tiny_model, tasks, resamples=20, seed=1, cache=cache)
    assert_equal(first, fresh)
    other_seed = evaluate_sts(tiny_model, tasks, resamples=20, seed=2, cache=cache)
    fewer = evaluate_sts(tiny_model, tasks, resamples=19, seed=1, cache=cache)
    assert_equal(evaluate_sts(tiny_model, tasks, resamples=20, seed=1, cache=cache), fresh)

    assert np.array_equal(other_seed.values(), fresh.values(), equal_nan=True)
    assert other_seed.bounds()[0].tolist() != fresh.bounds()[0].tolist()
    assert fewer.correlations[0].draws["all"].shape[1] == 19
    assert len(cache.names("draws")) == 2 * 3
    for name in cache.names("draws"):  # other draws in their places are taken for them
        arrays, facts = cache.read("draws", name)
        moved = {key: array + 1 for key, array in arrays.items()}
        cache.write("draws", name, moved, facts)
    again = evaluate_sts(tiny_model, tasks, resamples=20, seed=1, cache=cache)
    assert not np.allclose(again.bounds()[0], fresh.bounds()[0], equal_nan=True)


def test_other_scores_or_subsets_are_not_taken_for_the_same(tiny_model, tasks, cache):
    task = tasks[0]
    turned = replace(task, gold=task.gold[::-1].copy())
    divided = replace(task, subsets=("a",) * 5 + ("b",) * 4)
    for changed in (task, turned, divided):
        found = evaluate_sts(tiny_model, [changed], ["mean"], resamples=20, cache=cache)
        assert_equal(found, evaluate_sts(tiny_model, [changed], ["mean"], resamples=20))
    assert len(cache.names("draws")) == 3


def test_damaged_draws_are_drawn_again_and_said(tiny_model, tasks, cache):
    fresh = evaluate_sts(tiny_model, tasks, ["mean"], resamples=20, cache=cache)
    assert fresh.notes == ()
    place = min(cache.folder.glob(f"draws/*{SUFFIX}"))
    place.write_bytes(place.read_bytes()[:-9])
    again = evaluate_sts(tiny_model, tasks, ["mean"], resamples=20, cache=cache)
    assert_equal(again, fresh)
    assert len(again.notes) == 1
    assert "is made again: draws/" in again.notes[0]


def test_a_full_disk_changes_no_number_and_is_said(tiny_model, tasks, cache, monkeypatch):
    fresh = evaluate_sts(tiny_model, tasks, resamples=20)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(diskcache, "save_file", refuse)
    found = evaluate_sts(tiny_model, tasks, resamples=20, cache=cache)
    assert_equal(found, fresh)
    (note,) = found.notes
    assert "no space is left on the disk" in note


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"tasks": []}, InputError, "No task was given"),
        ({"tasks": ["first", "second", "first"]}, InputError, "Two tasks are called 'first'"),
        ({"tasks": ["first", "average"]}, InputError, "A task is called 'average'"),
        ({"models": []}, InputError, "No model was given"),
        ({"models": ["plain", "turned", "turned"]}, InputError, "'turned' is named twice"),
        ({"resamples": 9}, ConfigError, "resamples is 9; it must be between 10 and 100,000"),
        ({"resamples": 100_001}, ConfigError, "resamples is 100001"),
        ({"strategies": ["mean", "median"]}, StrategyError, "'plain' has no strategy 'median'"),
        ({"strategies": ["mean+whiten"]}, StrategyError, "'mean.whiten' needs a corpus"),
        ({"models": ["no/such/model"]}, ModelError, "neither a folder here nor"),
        ({"precision": "fp64"}, ConfigError, "precision is 'fp64'"),
    ],
)
def test_refuses_what_cannot_be_evaluated_before_it_encodes(
    two_heads, tasks, encoded, changes, kind, message
):
    known = {model.lwap_name: model for model in two_heads}
    options = {"models": ["plain"], "tasks": ["first"], "resamples": 20} | changes
    options["models"] = [known.get(name, name) for name in options["models"]]
    options["tasks"] = [replace(tasks[0], name=name) for name in options["tasks"]]
    with pytest.raises(kind, match=message):
        evaluate_sts(**options)
    assert not encoded


def test_one_task_may_be_called_average(tiny_model, tasks):
    task = replace(tasks[0], name=AVERAGE)
    assert evaluate_sts(tiny_model, [task], ["mean"], resamples=20).task_names == [AVERAGE]


# --- tasks --------------------------------------------------------------------------------------


def test_a_task_holds_what_the_table_says():
    pairs = frame(40, subsets=list(SUBSETS))
    task = Task.from_pairs(pairs, "own", low=0, high=5)
    assert (task.name, len(task), task.notes, task.subsets) == ("own", 40, (), SUBSETS)
    assert (task.first, task.second) == (tuple(pairs["sentence1"]), tuple(pairs["sentence2"]))
    assert task.gold.tolist() == pairs["score"].tolist()
    assert len(task.sha256) == 64 == len(Task.from_pairs(pairs[::-1], "own").sha256)
    assert task.sha256 != Task.from_pairs(pairs[::-1], "own").sha256
    assert Task.from_pairs(pairs, "other").sha256 == task.sha256
    task.gold[0] = 99
    assert pairs["score"][0] != 99
    # A copy that names its subsets hides none.
    assert not Task.from_pairs(pairs, "own", has_hidden_subsets=True).has_hidden_subsets
    assert Task.from_pairs(frame(), "own", has_hidden_subsets=True).has_hidden_subsets


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"score": [1, float("nan"), 3]}, {}, "'own', row 2: the score is nan"),
        ({"score": [1, 2, math.inf]}, {}, "'own', row 3: the score is inf"),
        ({"score": [1, "high", 3]}, {}, "'own', row 2: the score is high; scores are numbers"),
        ({"score": [2, 2, 2]}, {}, r"All 3 pairs of 'own' have the same score \(2\)"),
        ({"score": [1, 2, 6]}, {"low": 0, "high": 5}, "row 3: the score is 6; this set has scores"),
        ({"score": [-1, 2, 3]}, {"low": 0}, "row 1: the score is -1"),
        ({"sentence1": ["a", " ", "c"]}, {}, "'own', row 2: 'sentence1' is empty"),
        ({"sentence2": ["d", "e", None]}, {}, "'own', row 3: 'sentence2' is empty"),
    ],
)
def test_refuses_pairs_that_cannot_be_ranked(rows, options, message):
    table = {"sentence1": list("abc"), "sentence2": list("def"), "score": [1, 2, 3]} | rows
    with pytest.raises(InputError, match=message):
        Task.from_pairs(pd.DataFrame(table), "own", **options)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_refuses_fewer_than_three_pairs_and_no_scores(count):
    with pytest.raises(InputError, match=f"'own' has {count} scored pair.* at least 3"):
        Task.from_pairs(frame(5)[:count], "own")
    with pytest.raises(InputError, match="'own' has no column 'score'"):
        Task.from_pairs(frame(5)[["sentence1", "sentence2"]], "own")


def test_scores_that_are_words_are_refused_with_their_row():
    content = b"sentence1,sentence2,score\na,b,1\nc,d,high\ne,f,3\n"
    with pytest.raises(InputError, match=r"'own.csv', row 2: 'score' is 'high'; scores are num"):
        Task.from_pairs(read_pairs(content, "own.csv"), "own")


def test_pairs_that_occur_twice_are_noted(tiny_model):
    pairs = frame(12)
    twice = pd.concat([pairs, pairs[:2]], ignore_index=True)
    task = Task.from_pairs(twice, "own")
    (note,) = task.notes
    assert note.startswith("own: 2 ")
    found = evaluate_sts(tiny_model, [task], ["mean"], resamples=20)
    assert found.notes == task.notes


def test_a_file_is_known_by_its_name_and_hash(tmp_path):
    file = tmp_path / "my pairs.csv"
    frame(6).to_csv(file, index=False)
    task = Task.from_file(file, low=0, high=5)
    assert (task.name, task.sha256, len(task)) == ("my pairs", file_sha256(file), 6)
    assert Task.from_file(str(file), "another").name == "another"
    with pytest.raises(InputError, match=r"row \d: the score is .* scores from 5 to 6"):
        Task.from_file(file, low=5, high=6)
    with pytest.raises(InputError, match="There is no file"):
        Task.from_file(tmp_path / "nothing.csv")


def test_standard_tasks_come_by_key_and_know_their_subsets(tmp_path):
    (tmp_path / "sts").mkdir()
    for name, pairs in (("sts12", frame(6)), ("stsb-test", frame(6))):
        pairs.to_csv(tmp_path / "sts" / f"{name}.csv", index=False)
    found = standard_tasks(tmp_path, ["stsb", "sts12", "stsb"])
    assert [task.name for task in found] == ["STS-B", "STS12"]
    assert [task.has_hidden_subsets for task in found] == [False, True]
    assert found[0].sha256 == file_sha256(tmp_path / "sts/stsb-test.csv")
    assert any("only the aggregation 'all'" in note for note in found[1].notes)
    assert all(note.startswith("STS12: ") for note in found[1].notes)
    with pytest.raises(InputError, match=r"'sts13.csv' of STS13 is not in"):
        standard_tasks(tmp_path, ["sts13"])
