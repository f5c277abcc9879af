"""The work of the Space page in threads: shared, stopped, failed, tried again, pushed out."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from lwap.datasets.readers import SentenceTable
from lwap.errors import ConfigError, InputError, ModelError
from lwap.projection import clusters
from lwap.projection.process import UmapProcess
from lwap.ui import cache
from lwap.ui.space import mapping
from lwap.ui.space.mapping import MapRequest, Request
from lwap.ui.work import DONE, FAILED, RUNNING, STOPPED, WAITING, Registry, Work
from tests.holding import SECONDS, Gate, Watched

TABLE = SentenceTable.of([f"The {word} is {number} here." for word in "ab" for number in range(15)])
REGISTRIES = (mapping._spaces, mapping._maps, mapping._lookups)


@pytest.fixture(autouse=True)
def own_registries(tmp_path, monkeypatch):
    """Give each test a server that was asked for nothing yet, with an empty cache on disk."""
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    for registry in REGISTRIES:
        registry.clear()
    cache._load.clear()  # a model holds on to the folder of its cache
    yield
    for registry in REGISTRIES:
        for found in registry().found.values():
            found.stop()
            assert found.wait(SECONDS)
        registry.clear()
    mapping.umap_process().close()
    mapping.umap_process.clear()


@pytest.fixture
def model(tiny_encoder_folder) -> str:
    return str(tiny_encoder_folder)


@pytest.fixture
def request_of(model):
    """Return a function that makes a request for two spaces of the plain encoder."""

    def request_of(**changes) -> Request:
        named = {
            "models": (model, model),
            "fingerprints": (cache.fingerprint(model),) * 2,
            "strategies": ("mean", "cls"),
            "data": "hash of the table",
        }
        return Request(**named | changes)

    return request_of


@pytest.fixture
def fits(monkeypatch) -> list[dict]:
    """The settings of each UMAP map; in place of one it draws its start, mirrored at the seed."""
    calls = []

    def fit(process, indices, cosines, start, config, *, progress=None):
        calls.append(config)
        for done, total in ((0, 1), (0, 1), (250, 500), (500, 500)):
            progress(done, total)
        return start * [1, (-1) ** config["seed"]]

    monkeypatch.setattr(UmapProcess, "fit", fit)
    return calls


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.opened.set()


def held(table: SentenceTable, gate: Gate) -> Watched:
    """Return a table whose sentences are read when the gate is opened."""
    return Watched(table, "sentences", gate.pass_through)


def finished(work):
    assert work.wait(SECONDS)
    assert (work.state, work.error) == (DONE, "")
    return work


def ask_at_once(ask, count: int = 4) -> list:
    """Call a function in several threads at the same time; return what each got."""
    start, found = threading.Barrier(count), []

    def run() -> None:
        start.wait(SECONDS)
        found.append(ask())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(found) == count
    return found


# --- two spaces ---------------------------------------------------------------------------------


def test_spaces_are_measured_and_drawn_by_pca(request_of, model):
    found = finished(mapping.spaces(request_of(), TABLE))
    assert [space.strategy for space in found.spaces] == ["mean", "cls"]
    assert [space.model for space in found.spaces] == [model, model]
    assert found.pca.maps.method == "pca"
    assert found.pca.maps.first.shape == found.pca.maps.second.shape == (30, 2)
    assert len(found.pca.quality) == 2
    assert found.done == found.total == 30
    texts = list(TABLE.sentences)
    for space in found.spaces:
        vectors = cache.vectors(model, texts, space.strategy)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(space.unit, vectors / lengths, atol=1e-5)


def test_sessions_at_once_get_one_measuring(request_of):
    request = request_of()
    assert mapping.find_spaces(request) is None
    found = ask_at_once(lambda: mapping.spaces(request_of(), TABLE))
    assert all(other is found[0] for other in found)
    finished(found[0])
    assert mapping.spaces(request_of(), TABLE) is mapping.find_spaces(request) is found[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"models": ("another", "another")},
        {"fingerprints": ("of one trained anew", "of one trained anew")},
        {"strategies": ("cls", "mean")},
        {"data": "another"},
    ],
    ids=str,
)
def test_spaces_that_differ_are_others(request_of, changes):
    finished(mapping.spaces(request_of(), TABLE))
    assert mapping.find_spaces(request_of(**changes)) is None


def test_the_same_strategy_twice_is_one_space(request_of):
    found = finished(mapping.spaces(request_of(strategies=("mean", "mean")), TABLE))
    assert found.spaces[0] is found.spaces[1]
    assert found.pca.quality[0] is found.pca.quality[1]
    assert not found.pca.maps.moved.any()


def test_what_was_encoded_before_is_not_encoded_again(request_of):
    finished(mapping.spaces(request_of(), TABLE))
    again = finished(mapping.spaces(request_of(strategies=("max", "mean")), TABLE))
    assert (again.done, again.total) == (0, 0)


def test_a_model_that_cannot_be_loaded_is_said_at_once(request_of):
    request = request_of(models=("nobody/no-such-model",) * 2)
    with pytest.raises(ModelError, match="nobody/no-such-model"):
        mapping.spaces(request, TABLE)
    assert mapping.find_spaces(request) is None


def test_a_stop_while_encoding_ends_it_and_it_can_begin_anew(request_of, gate):
    found = mapping.spaces(request_of(), held(TABLE, gate))
    assert gate.reached.wait(SECONDS)
    assert (found.state, found.is_active) == (RUNNING, True)
    found.stop()
    gate.opened.set()
    assert found.wait(SECONDS)
    assert (found.state, found.error, found.is_active) == (STOPPED, "", False)
    assert found.total == 30
    assert found.spaces is None and found.pca is None
    assert mapping.find_spaces(request_of()) is found  # as the page says that it was stopped
    again = mapping.spaces(request_of(), TABLE)
    assert again is not found
    assert finished(again).spaces is not None
    assert mapping.find_spaces(request_of()) is again


def test_two_at_once_wait_for_their_turn(request_of, gate):
    first = mapping.spaces(request_of(), held(TABLE, gate))
    assert gate.reached.wait(SECONDS)
    second = mapping.spaces(request_of(strategies=("max", "mean")), TABLE)
    assert not second.wait(0.3)
    assert (first.state, second.state) == (RUNNING, WAITING)
    third = mapping.spaces(request_of(strategies=("max", "cls")), TABLE)
    third.stop()
    assert third.wait(SECONDS)
    assert (third.state, first.state) == (STOPPED, RUNNING)
    gate.opened.set()
    finished(first)
    finished(second)


def test_sentences_that_cannot_be_mapped_are_told(request_of):
    found = mapping.spaces(request_of(strategies=("mean", "layer_cls:0")), TABLE)
    assert found.wait(SECONDS)
    assert found.state == FAILED
    assert "strategy 'layer_cls:0': All vectors of this space are the same" in found.error


def test_any_other_error_is_logged_and_told(request_of, caplog):
    def fail() -> None:
        raise RuntimeError("a bug of ours")

    with caplog.at_level(logging.ERROR, logger="lwap.ui.work"):
        found = mapping.spaces(request_of(), Watched(TABLE, "sentences", fail))
        assert found.wait(SECONDS)
    assert found.state == FAILED
    assert found.error == (
        "An unexpected error ended the measuring of the spaces; the server's log has it."
    )
    (record,) = [record for record in caplog.records if record.name == "lwap.ui.work"]
    assert "a bug of ours" in str(record.exc_info[1])
    assert finished(mapping.spaces(request_of(), TABLE)) is not found


def test_only_the_latest_spaces_are_kept(request_of):
    pairs = [("mean", "cls"), ("cls", "mean"), ("mean", "max"), ("max", "mean")]
    for pair in pairs[:3]:
        finished(mapping.spaces(request_of(strategies=pair), TABLE))
    mapping.find_spaces(request_of(strategies=pairs[0]))  # looked at: the last to go
    finished(mapping.spaces(request_of(strategies=pairs[3]), TABLE))
    kept = [pair for pair in pairs if mapping.find_spaces(request_of(strategies=pair))]
    assert mapping.KEPT_SPACES == 3
    assert kept == [pairs[0], pairs[2], pairs[3]]


def test_spaces_at_work_are_never_pushed_out(request_of, gate):
    pairs = [("mean", "cls"), ("cls", "mean"), ("mean", "max"), ("max", "mean"), ("max", "cls")]
    started = [mapping.spaces(request_of(strategies=pairs[0]), held(TABLE, gate))]
    started += [mapping.spaces(request_of(strategies=pair), TABLE) for pair in pairs[1:]]
    assert [mapping.find_spaces(request_of(strategies=pair)) for pair in pairs] == started
    gate.opened.set()
    for work in started:
        finished(work)
    pairs.append(("cls", "max"))
    finished(mapping.spaces(request_of(strategies=pairs[-1]), TABLE))
    kept = [pair for pair in pairs if mapping.find_spaces(request_of(strategies=pair))]
    assert kept == pairs[-mapping.KEPT_SPACES :]


# --- UMAP ---------------------------------------------------------------------------------------


@pytest.fixture
def spaces(request_of):
    return finished(mapping.spaces(request_of(), TABLE))


def test_sessions_at_once_get_one_fit(spaces, fits):
    request = MapRequest(spaces.request, "umap", 7, 0.3, 2)
    assert mapping.find_umap(request) is None
    found = ask_at_once(lambda: mapping.umap(replace(request), spaces))
    assert all(other is found[0] for other in found)
    drawn = finished(found[0]).result
    assert fits == [{"n_neighbors": 7, "min_dist": 0.3, "seed": 2}] * 2  # one of each space
    assert drawn.maps.method == "umap"
    assert drawn.maps.first.shape == (30, 2)
    assert mapping.find_umap(request) is found[0]
    assert (found[0].done, found[0].total) == (1000, 1000)


@pytest.mark.parametrize(
    "changes", [{"n_neighbors": 8}, {"min_dist": 0.4}, {"seed": 3}, {"spaces": None}], ids=str
)
def test_other_settings_are_another_map(spaces, fits, request_of, changes):
    request = MapRequest(spaces.request, "umap", 7, 0.3, 2)
    first = finished(mapping.umap(request, spaces))
    if "spaces" in changes:
        changes = {"spaces": request_of(data="another")}
    assert mapping.find_umap(replace(request, **changes)) is None
    assert finished(mapping.umap(replace(request, **changes), spaces)) is not first


def test_a_map_of_before_needs_no_fit(spaces, fits):
    request = MapRequest(spaces.request, "umap")
    work = finished(mapping.umap(request, spaces))
    mapping.forget(work)
    again = finished(mapping.umap(request, spaces))
    assert again is not work
    assert len(fits) == 2
    before, after = work.result, again.result
    np.testing.assert_array_equal(after.maps.first, before.maps.first)
    np.testing.assert_array_equal(after.maps.second, before.maps.second)


def test_a_fit_without_a_step_yet_counts_none(spaces, monkeypatch):
    seen, started, works = [], threading.Event(), []

    def fit(process, indices, cosines, start, config, *, progress):
        assert started.wait(SECONDS)
        progress(0, 1)
        seen.append((works[0].done, works[0].total))
        progress(500, 500)
        return start

    monkeypatch.setattr(UmapProcess, "fit", fit)
    works.append(mapping.umap(MapRequest(spaces.request, "umap"), spaces))
    started.set()
    finished(works[0])
    assert seen == [(0, 0), (500, 1000)]


def test_a_fit_that_fails_is_told_and_can_be_tried_again(spaces, fits, monkeypatch):
    def failing(*arguments, **options):
        raise ConfigError("The process that draws UMAP maps ended before it was done.")

    request = MapRequest(spaces.request, "umap")
    with monkeypatch.context() as patch:
        patch.setattr(UmapProcess, "fit", failing)
        failed = mapping.umap(request, spaces)
        assert failed.wait(SECONDS)
    assert failed.state == FAILED
    assert failed.error == "The process that draws UMAP maps ended before it was done."
    assert mapping.find_umap(request) is failed
    assert finished(mapping.umap(request, spaces)) is not failed


# In the place of umap, which takes ten seconds to compile: it draws the start, once it may.
HELD_UMAP = """
import os, time


class UMAP:
    def __init__(self, **options):
        pass

    def fit_transform(self, start):
        while not os.path.exists(os.environ["MAY_DRAW"]):
            time.sleep(0.01)
        return start
"""


def test_a_stop_ends_the_process_and_the_next_fit_starts_another(spaces, tmp_path, monkeypatch):
    (tmp_path / "umap.py").write_text(HELD_UMAP, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("MAY_DRAW", str(tmp_path / "may draw"))
    request = MapRequest(spaces.request, "umap")
    work = mapping.umap(request, spaces)
    deadline = time.monotonic() + SECONDS
    while (pid := mapping.umap_process().pid) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert work.is_active
    work.stop()
    assert work.wait(SECONDS)
    assert (work.state, work.result) == (STOPPED, None)
    assert mapping.umap_process().pid is None
    assert spaces.pca.maps.first.shape == (30, 2)  # what is shown meanwhile
    (tmp_path / "may draw").touch()
    again = finished(mapping.umap(request, spaces))
    assert again is not work
    assert mapping.find_umap(request) is again
    assert again.result.maps.method == "umap"
    assert again.result.maps.first.shape == (30, 2)
    assert mapping.umap_process().pid not in (None, pid)


def test_other_seeds_are_drawn_of_both_spaces(spaces, fits):
    request = MapRequest(spaces.request, "umap", 7, 0.3, 4)
    drawn = finished(mapping.umap(request, spaces)).result
    fits.clear()
    work = finished(mapping.seeds(request, spaces, drawn.maps))
    assert sorted(config["seed"] for config in fits) == [5, 5, 6, 6]
    assert {(config["n_neighbors"], config["min_dist"]) for config in fits} == {(7, 0.3)}
    assert [found.seeds for found in work.result] == [(4, 5, 6)] * 2
    assert (work.done, work.total) == (2000, 2000)  # four fits as one count
    # A mirrored map is the same map.
    for found in work.result:
        np.testing.assert_allclose(found.kept, 1)
        np.testing.assert_allclose(found.moved, 0, atol=1e-5)
    assert mapping.seeds(replace(request), spaces, drawn.maps) is work


# --- what is looked up --------------------------------------------------------------------------


def test_layers_are_measured_once(spaces, model):
    work = finished(mapping.course(spaces, 1, ("cls",)))
    names = [f"layer_{kind}:{state}" for kind in ("cls", "mean") for state in range(4)]
    assert work.result["strategy"].tolist() == [*names, "cls"]
    assert (work.done, work.total) == (9, 9)
    assert mapping.course(spaces, 0, ("cls",)) is work  # the same model
    assert mapping.course(spaces, 1, ("mean",)) is not work
    row = work.result.set_index("strategy").loc["cls"]
    assert row["mean cosine"] == pytest.approx(spaces.spaces[1].geometry.mean_random_cosine)


def test_a_walk_is_drawn_once_for_its_rows(spaces):
    request = MapRequest(spaces.request, "pca")
    rows = np.arange(0, 30, 2)
    work = finished(mapping.walk(request, spaces, 1, ("layer_mean:0", "cls"), rows))
    assert work.result.shape == (2, 15, 2)
    assert mapping.walk(request, spaces, 1, ("layer_mean:0", "cls"), rows) is work
    assert mapping.walk(request, spaces, 1, ("layer_mean:1", "cls"), rows) is not work


def test_a_walk_by_umap_counts_the_steps_of_all_its_maps(spaces, fits):
    request = MapRequest(spaces.request, "umap", 5)
    names = ("layer_mean:0", "layer_mean:1", "cls")
    work = finished(mapping.walk(request, spaces, 1, names, np.arange(30)))
    assert [config["n_neighbors"] for config in fits] == [5, 5, 5]
    assert (work.done, work.total) == (1500, 1500)


def test_clusters_are_those_of_the_first_space(spaces):
    work = finished(mapping.clusters(spaces, "kmeans", 3))
    assert work.result == clusters.kmeans(spaces.spaces[0].unit, 3)
    assert set(work.result) == {"1", "2", "3"}
    assert mapping.clusters(spaces, "kmeans", 3) is work
    dense = finished(mapping.clusters(spaces, "hdbscan", 3))
    assert dense.result == clusters.hdbscan(spaces.spaces[0].unit)


def test_what_failed_is_not_started_by_the_next_look_but_when_forgotten(spaces):
    work = mapping.layer_weights(spaces, 0)
    assert work.wait(SECONDS)
    assert work.state == FAILED
    assert "has no trained layer attention to look at" in work.error
    assert mapping.layer_weights(spaces, 0) is work
    mapping.forget(work)
    again = mapping.layer_weights(spaces, 0)
    assert again is not work
    assert again.wait(SECONDS)


def test_what_was_stopped_is_not_started_by_the_next_look(spaces, gate):
    spaces.table = held(TABLE, gate)
    work = mapping.course(spaces, 1, ("mean",))
    assert gate.reached.wait(SECONDS)
    work.stop()
    gate.opened.set()
    assert work.wait(SECONDS)
    assert mapping.course(spaces, 1, ("mean",)) is work
    assert (work.state, work.result) == (STOPPED, None)


def test_a_lookup_does_not_wait_for_a_map(spaces, gate, monkeypatch):
    def fit(process, indices, cosines, start, config, *, progress):
        gate.pass_through()
        return start

    monkeypatch.setattr(UmapProcess, "fit", fit)
    drawn = mapping.umap(MapRequest(spaces.request, "umap"), spaces)
    assert gate.reached.wait(SECONDS)
    finished(mapping.clusters(spaces, "kmeans", 2))
    assert drawn.state == RUNNING
    gate.opened.set()
    finished(drawn)


# --- the base of all work -----------------------------------------------------------------------


class Counting(Work):
    """Counts its steps; between two of them it passes through a gate."""

    NAME = "the counting"

    def __init__(self, gate: Gate | None = None) -> None:
        super().__init__()
        self.gate = gate

    def compute(self, models) -> None:
        assert models == {"a name": "a model"}
        self.advance(7, 30)
        if self.gate is not None:
            self.gate.pass_through()
        self.advance(30, 30)


def start(registry: Registry, key: str, gate: Gate | None = None) -> Counting:
    return registry.start(key, lambda: Counting(gate), {"a name": "a model"})


def test_work_knows_how_far_it_is(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    work = Counting()
    assert (work.state, work.is_active, work.remaining) == (WAITING, True, None)
    assert not work.wait(0)
    work.advance(0, 100)
    now += 10
    assert work.remaining is None  # nothing is done yet
    work.advance(25, 100)
    assert (work.done, work.total) == (25, 100)
    assert work.remaining == pytest.approx(30)
    work.advance(100, 100)
    assert work.remaining == 0
    now -= 9
    assert work.remaining is None  # too early to say


def test_work_that_is_stopped_ends_at_its_next_step(gate):
    registry = Registry(3)
    work = start(registry, "one", gate)
    assert gate.reached.wait(SECONDS)
    assert (work.state, work.done) == (RUNNING, 7)
    work.check()  # no stop yet
    work.stop()
    gate.opened.set()
    assert work.wait(SECONDS)
    assert (work.state, work.seconds) == (STOPPED, 0)
    assert finished(start(registry, "one")).done == 30


def test_an_error_of_ours_is_told_in_its_words():
    class Failing(Counting):
        def compute(self, models):
            raise InputError("Not these sentences.")

    work = Registry(3).start("one", Failing, {})
    assert work.wait(SECONDS)
    assert (work.state, work.error) == (FAILED, "Not these sentences.")


def test_the_oldest_goes_but_never_one_that_is_at_work(gate):
    registry = Registry(2)
    first = start(registry, "first", gate)
    assert gate.reached.wait(SECONDS)
    later = [start(registry, name) for name in ("second", "third", "fourth")]
    assert list(registry.found) == ["first", "second", "third", "fourth"]  # all wait for the first
    gate.opened.set()
    for work in (first, *later):
        finished(work)
    finished(start(registry, "last"))
    assert list(registry.found) == ["fourth", "last"]
    counts = Counter(work.state for work in registry.found.values())
    assert counts == {DONE: 2}


def test_what_is_forgotten_is_started_anew():
    registry = Registry(2)
    work = finished(start(registry, "one"))
    other = finished(start(registry, "two"))
    assert start(registry, "one") is work
    registry.forget(work)
    registry.forget(work)  # it is gone already
    assert registry.find("one") is None
    assert registry.find("two") is other
    assert finished(start(registry, "one")) is not work
