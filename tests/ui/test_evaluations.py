"""Evaluations in threads: turns, stops, failures, and what is kept of them."""

import logging

import numpy as np
import pytest

from lwap.checkpoints.cached import WhitenOn
from lwap.errors import InputError, ModelError
from lwap.evaluation.benchmark import evaluate_sts
from lwap.evaluation.tasks import Task
from lwap.ui import cache
from lwap.ui.evaluate import evaluations
from lwap.ui.evaluate.evaluations import Evaluation, Request
from lwap.ui.work import DONE, FAILED, RUNNING, STOPPED, WAITING
from tests.holding import SECONDS, Gate, Watched

NAMES = ("mean", "layer_mean:1")  # of strategies


@pytest.fixture(autouse=True)
def own_registry(tmp_path, monkeypatch):
    """Give each test a server that was asked for nothing yet, with an empty cache on disk."""
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    evaluations._registry.clear()
    cache._load.clear()  # a model holds on to the folder of its cache
    yield
    for found in evaluations._registry().found.values():
        found.stop()
        assert found.wait(SECONDS)
    evaluations._registry.clear()


@pytest.fixture
def model(tiny_encoder_folder) -> str:
    return str(tiny_encoder_folder)


def task(name: str, words: str = "heron river rain boat") -> Task:
    """Return four pairs of sentences of their own."""
    sides = [(f"{name}: a {word}", f"{name}: the {word} here") for word in words.split()]
    first, second = map(tuple, zip(*sides, strict=True))
    return Task(name, first, second, np.array([0.0, 2, 3, 5]), None, sha256=f"hash of {name}")


def request_of(tasks, *models, **changes) -> Request:
    named = {
        "models": models,
        "data": tuple(entry.sha256 for entry in tasks),
        "titles": tuple(entry.name for entry in tasks),
    }
    return Request(**named | changes)


def start(tasks, *models, whiten_on=None) -> Evaluation:
    digest = whiten_on.digest if whiten_on else ""
    return evaluations.start(request_of(tasks, *models, whiten_on=digest), tasks, whiten_on)


def held(entry: Task, gate: Gate) -> Watched:
    """Return a task whose scores are read when the gate is opened; they are read last."""
    return Watched(entry, "gold", gate.pass_through)


def broken(entry: Task, error: Exception) -> Watched:
    """Return a task that ends its evaluation with an error."""

    def fail() -> None:
        raise error

    return Watched(entry, "gold", fail)


@pytest.fixture
def gate():
    found = Gate()
    yield found
    found.opened.set()


# --- one evaluation -----------------------------------------------------------------------------


def test_an_evaluation_runs_to_its_end(model):
    tasks = [task("birds"), task("boats")]
    found = start(tasks, model)
    assert found.wait(SECONDS)
    assert (found.state, found.is_active, found.error) == (DONE, False, "")
    assert found.done == found.total == 16
    assert found.seconds > 0
    expected = evaluate_sts(model, tasks)
    assert found.result.columns == expected.columns
    assert found.result.task_names == ["birds", "boats", "average"]
    np.testing.assert_allclose(found.result.values(), expected.values())


def test_two_models_are_compared(model, make_encoder):
    other = str(make_encoder("bert", seed=1))
    found = start([task("birds")], model, other)
    assert found.wait(SECONDS)
    assert found.result.models == [model, other]


def test_an_equal_request_finds_the_same_evaluation(model):
    tasks = [task("birds")]
    assert evaluations.find(request_of(tasks, model)) is None
    found = start(tasks, model)
    assert evaluations.find(request_of([task("birds")], model)) is found
    assert start([task("birds")], model) is found
    assert found.wait(SECONDS)
    assert start([task("birds")], model) is found


@pytest.mark.parametrize(
    "changes",
    [
        {"models": ("another",)},
        {"data": ("another",)},
        {"titles": ("another",)},
        {"whiten_on": "another"},
        {"fingerprints": ("another",)},
    ],
    ids=str,
)
def test_a_request_that_differs_finds_nothing(model, changes):
    tasks = [task("birds")]
    start(tasks, model)
    assert evaluations.find(request_of(tasks, model, **changes)) is None


def test_what_was_evaluated_before_needs_no_encoding(model):
    assert start([task("birds")], model).wait(SECONDS)
    evaluations._registry.clear()
    again = start([task("birds")], model)
    assert again.wait(SECONDS)
    assert (again.state, again.done, again.total) == (DONE, 0, 0)


def test_a_model_that_cannot_be_loaded_is_said_at_once():
    with pytest.raises(ModelError, match="nobody/no-such-model"):
        start([task("birds")], "nobody/no-such-model")
    assert evaluations.find(request_of([task("birds")], "nobody/no-such-model")) is None


def test_whitening_adds_a_twin_of_every_strategy_but_of_no_layer(model, sentences):
    found = start([task("birds")], model, whiten_on=WhitenOn("mine.txt", tuple(sentences)))
    assert found.wait(SECONDS)
    assert found.error == ""
    names = [column.strategy for column in found.result.columns]
    whitened = [name.removesuffix("+whiten") for name in names if name.endswith("+whiten")]
    layers = [name for name in names if name.startswith("layer_")]
    assert sorted(whitened + layers) == sorted(set(names) - {f"{n}+whiten" for n in whitened})
    assert len(layers) == 8


# --- how it can end otherwise -------------------------------------------------------------------


def test_an_error_of_ours_is_told_in_its_words(model):
    found = start([task("birds")], model, whiten_on=WhitenOn("mine.txt", ("Too", "few")))
    assert found.wait(SECONDS)
    assert found.state == FAILED
    assert "Whitening 32 dimensions needs more than 32 distinct sentences" in found.error
    assert found.result is None


def test_any_other_error_is_logged_and_told(model, caplog):
    with caplog.at_level(logging.ERROR, logger="lwap.ui.work"):
        found = start([broken(task("birds"), RuntimeError("a bug of ours"))], model)
        assert found.wait(SECONDS)
    assert found.state == FAILED
    assert found.error == "An unexpected error ended the evaluation; the server's log has it."
    (record,) = [record for record in caplog.records if record.name == "lwap.ui.work"]
    assert "a bug of ours" in str(record.exc_info[1])


def test_what_failed_is_started_anew(model):
    failed = start([broken(task("birds"), InputError("not today"))], model)
    assert failed.wait(SECONDS)
    again = start([task("birds")], model)
    assert again is not failed
    assert again.wait(SECONDS)
    assert again.state == DONE
    assert evaluations.find(again.request) is again


def test_a_failure_keeps_the_tasks_that_were_finished(model):
    found = start([task("birds"), broken(task("boats"), InputError("the second task"))], model)
    assert found.wait(SECONDS)
    assert (found.state, found.error) == (FAILED, "the second task")
    assert found.result.task_names == ["birds"]


def test_a_stop_keeps_the_tasks_that_were_finished(model, gate):
    found = start([task("birds"), held(task("boats"), gate), task("rain")], model)
    assert gate.reached.wait(SECONDS)
    assert found.state == RUNNING
    assert found.result.task_names == ["birds"]  # as it is drawn meanwhile
    found.stop()
    gate.opened.set()
    assert found.wait(SECONDS)
    assert (found.state, found.error) == (STOPPED, "")
    assert found.result.task_names == ["birds", "boats", "average"]  # it was at the second one


def test_what_was_stopped_goes_on_from_where_it_was(model, gate):
    tasks = [task("birds"), task("boats")]
    first = start([held(tasks[0], gate), tasks[1]], model)
    assert gate.reached.wait(SECONDS)
    first.stop()
    gate.opened.set()
    assert first.wait(SECONDS)
    assert (first.state, first.total) == (STOPPED, 16)
    again = start(tasks, model)
    assert again.wait(SECONDS)
    assert (again.state, again.total) == (DONE, 8)


# --- several ------------------------------------------------------------------------------------


def test_two_at_once_wait_for_their_turn(model, gate):
    first = start([held(task("birds"), gate)], model)
    assert gate.reached.wait(SECONDS)
    second = start([task("boats")], model)
    assert (first.state, second.state) == (RUNNING, WAITING)
    assert first.is_active and second.is_active
    assert not second.wait(0.3)
    assert second.state == WAITING
    gate.opened.set()
    assert first.wait(SECONDS) and second.wait(SECONDS)
    assert (first.state, second.state) == (DONE, DONE)


def test_one_that_waits_can_be_stopped_before_its_turn(model, gate):
    first = start([held(task("birds"), gate)], model)
    assert gate.reached.wait(SECONDS)
    second = start([task("boats")], model)
    second.stop()
    assert second.wait(SECONDS)
    assert (second.state, second.result) == (STOPPED, None)
    assert first.state == RUNNING
    gate.opened.set()
    assert first.wait(SECONDS)
    third = start([task("rain")], model)  # the turn was not lost
    assert third.wait(SECONDS)
    assert (first.state, third.state) == (DONE, DONE)


def test_a_turn_is_passed_on_by_one_that_fails(model):
    assert start([broken(task("birds"), RuntimeError("a bug of ours"))], model).wait(SECONDS)
    second = start([task("boats")], model)
    assert second.wait(SECONDS)
    assert second.state == DONE


def kept(tasks, model) -> list[str]:
    registry = evaluations._registry().found
    return [entry.name for entry in tasks if request_of([entry], model) in registry]


def test_old_ones_are_dropped_but_never_one_that_is_at_work(model, gate):
    evaluations._registry().kept = 2
    tasks = [task(f"task {number}") for number in range(4)]
    started = [start([held(tasks[0], gate)], model)]
    started += [start([entry], model) for entry in tasks[1:]]
    assert kept(tasks, model) == ["task 0", "task 1", "task 2", "task 3"]
    gate.opened.set()
    assert all(entry.wait(SECONDS) for entry in started)
    last = start([task("last")], model)
    assert last.wait(SECONDS)
    assert kept([*tasks, task("last")], model) == ["task 3", "last"]


def test_one_that_is_looked_at_is_the_last_to_go(model):
    evaluations._registry().kept = 2
    tasks = [task(f"task {number}") for number in range(3)]
    for entry in tasks[:2]:
        assert start([entry], model).wait(SECONDS)
    assert evaluations.find(request_of([tasks[0]], model)) is not None
    assert start([tasks[2]], model).wait(SECONDS)
    assert kept(tasks, model) == ["task 0", "task 2"]


# --- what is asked of one that is there ---------------------------------------------------------


def test_geometry_is_computed_once_and_tells_how_far_it_is(model, make_encoder):
    other = str(make_encoder("bert", seed=1))
    tasks = [task("birds"), task("boats")]
    found = start(tasks, model, other)
    assert found.wait(SECONDS)
    seen = []

    def measure(name, entry, strategies):
        return evaluations.geometry(
            found, name, entry, strategies, lambda *counts: seen.append(counts)
        )

    first = measure(model, tasks[0], NAMES)
    assert seen == [(1, 2), (2, 2)]
    assert measure(model, tasks[0], list(NAMES)) is first
    assert len(seen) == 2  # nothing was measured
    assert measure(other, tasks[0], NAMES).model == other
    assert measure(model, tasks[1], NAMES).data == "boats"
    assert measure(model, tasks[0], ["max"]) is not first
    assert len(seen) == 7
    assert len(found.geometries) == 4
    assert first.sentences == 8
    assert first.table["strategy"].tolist() == list(NAMES)


def test_geometry_includes_the_whitened_twins(model, sentences):
    entry = task("birds")
    found = start([entry], model, whiten_on=WhitenOn("mine.txt", tuple(sentences)))
    assert found.wait(SECONDS)
    names = ["mean", "mean+whiten", "layer_mean:1"]
    table = evaluations.geometry(found, model, entry, names).table.set_index("strategy")
    assert table.index.tolist() == names
    plain, whitened = table.loc["mean"], table.loc["mean+whiten"]
    assert abs(whitened["mean_random_cosine"]) < abs(plain["mean_random_cosine"])


def test_a_failed_geometry_is_not_kept(model):
    found = start([task("birds")], model)
    assert found.wait(SECONDS)
    with pytest.raises(InputError, match="not today"):
        evaluations.geometry(found, model, broken(task("birds"), InputError("not today")), NAMES)
    assert found.geometries == {}
    assert evaluations.geometry(found, model, task("birds"), NAMES).data == "birds"
