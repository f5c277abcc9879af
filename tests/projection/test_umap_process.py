"""UMAP in its process: the same map anywhere, and a process that may be killed, stopped, closed.

What only concerns the process runs on a made-up umap that needs no compiling; see `made_up`.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lwap.checkpoints.cached import Source
from lwap.encoding.diskcache import SCRATCH, DiskCache
from lwap.errors import ConfigError
from lwap.evaluation import geometry
from lwap.evaluation.geometry import normalise
from lwap.projection import maps, project
from lwap.projection.maps import movement, principal
from lwap.projection.neighbours import neighbours
from lwap.projection.process import UmapProcess
from lwap.projection.quality import quality
from lwap.projection.space import Space, draw_maps, layer_walk, stability

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"n_neighbors": 12, "min_dist": 0.2, "seed": 3}
PATIENCE = 120  # seconds; a wait that takes so long is a failure


def cloud(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
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


class Recorder:
    def fit(self, indices, cosines, start, config, *, progress=None):
        self.given = {"indices": indices, "cosines": cosines, "start": start}
        return start


@pytest.fixture(scope="module")
def apart() -> np.ndarray:
    """Distances of new vectors to their 15 nearest, ascending, (20, 15)."""
    return np.sort(1 - cloud(20, seed=9).astype(float) @ UNIT.astype(float).T, axis=1)[:, :15]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, apart) -> Callable[[], dict[str, np.ndarray]]:
    """Return a function that waits for what another Python has found; it is started at once."""
    folder = tmp_path_factory.mktemp("elsewhere")
    recorder = Recorder()
    project(UNIT, process=recorder, **SETTINGS)
    np.savez(folder / "given.npz", unit=UNIT, apart=apart, **recorder.given)
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
    """A process for all tests; some kill it, and then it starts again."""
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


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The folder of temporary files from now on."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def make_space(unit: np.ndarray) -> Space:
    return Space(
        model="mine",
        strategy="mean",
        unit=unit,
        near=neighbours(unit),
        geometry=geometry.measure(unit),
        cosines=geometry.cosine_histogram(unit),
        variance=np.ones(unit.shape[1]),
    )


def radius(coordinates: np.ndarray) -> float:
    centred = coordinates.astype(float) - coordinates.mean(axis=0)
    return math.sqrt(np.square(centred).sum(axis=1).mean())


# --- the map ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_vectors_and_seed_give_the_same_map_anywhere(drawn, process, elsewhere):
    assert np.array_equal(project(UNIT.copy(), process=process, **SETTINGS).coordinates, drawn)
    assert np.array_equal(elsewhere()["mapped"], drawn)
    assert drawn.dtype == np.float32 and np.isfinite(drawn).all()
    assert drawn.mean(axis=0) == pytest.approx([0, 0], abs=1e-4)


def test_the_map_is_what_umap_gives_for_these_neighbours_and_this_start(drawn, elsewhere):
    direct = elsewhere()["direct"]
    assert np.array_equal((direct - direct.mean(axis=0)).astype(np.float32), drawn)


def test_new_sentences_are_weighed_as_umap_weighs_neighbours(elsewhere, apart):
    expected = elsewhere()["weights"]
    assert (expected[:, 0] == 1).all()
    assert expected.sum(axis=1) == pytest.approx(math.log2(15), abs=1e-3)
    assert maps._memberships(apart) == pytest.approx(expected, abs=1e-4)


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
    big = cloud(800)
    project(big, process=process, progress=lambda *call: calls.append(call))
    counted = [done for done, total in calls if total == 500]
    assert calls[0] == (0, 1)
    assert counted == sorted(counted) and len(set(counted)) > 2
    assert 0 < counted[-1] <= 500


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
    monkeypatch.setattr(UmapProcess, "_ensure", lambda self: pytest.fail("a process was started"))
    monkeypatch.setattr(UmapProcess, "fit", lambda *args, **options: pytest.fail("it was fitted"))
    again = project(UNIT * 2, cache=DiskCache(cache.folder), **SETTINGS)
    assert np.array_equal(again.coordinates, drawn)
    assert again.config == maps.MapConfig(**SETTINGS)
    with pytest.raises(pytest.fail.Exception, match="it was fitted"):
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
    source = Source(tiny_lwap_model)
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


# --- a process that ends ------------------------------------------------------------------------


class Stop(Exception):
    pass


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_after_a_kill_and_a_stop_the_next_map_is_right(process, drawn, cache, scratch):
    big = cloud(3000)
    known, pids, running = neighbours(big), [], threading.Event()

    def advance(done: int, total: int) -> None:
        if done > 0:
            running.set()

    def kill() -> None:
        assert running.wait(PATIENCE)
        pids.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    message = (
        r"process that draws UMAP maps ended before it was done \(by signal 9\); nothing was kept "
        r"of this map\. Draw it again; .* use fewer sentences, or PCA"
    )
    with pytest.raises(ConfigError, match=message):
        project(big, known=known, process=process, cache=cache, progress=advance)
    killer.join(PATIENCE)
    assert process.pid is None
    assert left_in(cache.folder) == left_in(scratch) == []

    def stop(done: int, total: int) -> None:
        if process.pid is not None:  # while it compiles
            pids.append(process.pid)
            raise Stop

    with pytest.raises(Stop):
        project(big, known=known, process=process, cache=cache, progress=stop)
    assert process.pid is None
    assert left_in(cache.folder) == left_in(scratch) == []

    found = project(UNIT, process=process, cache=cache, **SETTINGS)
    assert np.array_equal(found.coordinates, drawn)
    assert len({*pids, process.pid}) == 3
    assert len(cache.names("maps")) == 1
    assert not any(path.name.startswith(SCRATCH) for path in left_in(cache.folder))
    assert left_in(scratch) == []


def test_what_umap_refuses_is_told(scratch):
    process = UmapProcess()
    ones = np.ones((30, 5))
    try:
        with pytest.raises(
            ConfigError, match=r"UMAP failed: ValueError: min_dist must be .*, or PCA"
        ):
            process.fit(
                ones.astype(int), ones, ones[:, :2], {"n_neighbors": 5, "min_dist": 9, "seed": 0}
            )
        assert process.pid is None and left_in(scratch) == []
    finally:
        process.close()


# --- the process alone --------------------------------------------------------------------------

MADE_UP = """
import json, os, sys, time

print("a library that talks")


class UMAP:
    def __init__(self, **options):
        self.options = options

    def fit_transform(self, start):
        plan = json.loads(os.environ["PLAN"])
        file = self.options["tqdm_kwds"]["file"]
        with open(plan["log"], "a") as log:
            log.write(f"begin {time.monotonic()}\\n")
        print('{"done": 77, "total": 77}')
        for epoch in range(1, plan["epochs"] + 1):
            file.write(f"\\r{epoch} {plan['epochs']}")
            file.flush()
            time.sleep(plan["seconds"])
        file.write("\\n")
        if plan.get("exit") is not None:
            print("out of luck", file=sys.stderr)
            os._exit(plan["exit"])
        if plan.get("error"):
            raise ValueError(plan["error"])
        with open(plan["log"], "a") as log:
            log.write(f"end {time.monotonic()}\\n")
        return start * self.options["random_state"]
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch) -> Iterator[Callable[..., UmapProcess]]:
    """Return a function that makes a process whose umap takes its time and does as planned.

    It gives the start times the seed. `log` has a line for the beginning and end of each fit.
    """
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "umap.py").write_text(MADE_UP, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    made = []

    def make(epochs: int = 3, seconds: float = 0.01, **plan) -> UmapProcess:
        plan |= {"epochs": epochs, "seconds": seconds, "log": str(tmp_path / "log")}
        monkeypatch.setenv("PLAN", json.dumps(plan))
        made.append(UmapProcess())
        return made[-1]

    yield make
    for process in made:
        process.close()


def fit(process: UmapProcess, seed: int = 2, **options) -> np.ndarray:
    indices = np.zeros((6, 3), dtype=np.int32)
    start = np.arange(12, dtype=np.float32).reshape(6, 2)
    config = {"n_neighbors": 3, "min_dist": 0.1, "seed": seed}
    return process.fit(indices, np.zeros((6, 3)), start, config, **options)


EXPECTED = 2 * np.arange(12).reshape(6, 2)


def test_what_libraries_print_is_no_answer(made_up, scratch):
    calls = []
    process = made_up()
    assert np.array_equal(fit(process, progress=lambda *call: calls.append(call)), EXPECTED)
    assert [call for call in dict.fromkeys(calls) if call != (0, 1)] == [(1, 3), (2, 3), (3, 3)]
    assert left_in(scratch) == []
    pid = process.pid
    assert np.array_equal(fit(process, seed=3), EXPECTED * 1.5)
    assert process.pid == pid  # one process for all


def test_progress_is_called_though_there_is_no_news(made_up):
    calls = []
    fit(made_up(epochs=1, seconds=1.5), progress=lambda *call: calls.append(call))
    assert calls.count((1, 1)) >= 4


def test_warm_up_starts_and_close_ends_the_process(made_up):
    process = made_up()
    assert process.pid is None
    process.close()  # nothing to end
    process.warm_up()
    pid = process.pid
    assert pid is not None
    process.warm_up()
    assert process.pid == pid
    process.close()
    assert process.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert np.array_equal(fit(process), EXPECTED)


def test_a_fit_waits_for_the_one_before(made_up, tmp_path):
    process, found, waited = made_up(epochs=4, seconds=0.1), {}, []

    def run(seed: int) -> None:
        found[seed] = fit(process, seed, progress=lambda *call: waited.append((seed, *call)))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (2, 4, 6)]
    for thread in threads:
        thread.start()
    process.warm_up()  # while it is at work: nothing to do
    for thread in threads:
        thread.join(PATIENCE)
    for seed in (2, 4, 6):
        assert np.array_equal(found[seed], EXPECTED * seed / 2)
    log = [line.split()[0] for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert log == ["begin", "end"] * 3
    for seed in (2, 4, 6):  # whoever waits is asked whether to stop, too
        assert sum(call[0] == seed for call in waited) >= 3


def test_whoever_stops_waiting_does_not_disturb_the_fit_before(made_up):
    process, found, began = made_up(epochs=8, seconds=0.1), [], threading.Event()
    first = threading.Thread(
        target=lambda: found.append(fit(process, progress=lambda done, total: done and began.set()))
    )
    first.start()
    assert began.wait(PATIENCE)

    def stop(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        fit(process, seed=9, progress=stop)
    first.join(PATIENCE)
    assert np.array_equal(found[0], EXPECTED)


@pytest.mark.parametrize("how", ["kill", "close", "stop"])
def test_a_fit_may_be_ended_at_any_time(how, made_up, scratch):
    process = made_up(epochs=200, seconds=0.1)
    end = {
        "kill": lambda: os.kill(process.pid, signal.SIGKILL),
        "close": process.close,
        "stop": lambda: (_ for _ in ()).throw(Stop),
    }[how]
    ended = []

    def advance(done: int, total: int) -> None:
        if done >= 2 and not ended:
            ended.append(time.monotonic())
            end()

    error, message = ConfigError, r"ended before it was done \(by signal 9\)"
    if how == "stop":
        error, message = Stop, None
    with pytest.raises(error, match=message):
        fit(process, progress=advance)
    assert time.monotonic() - ended[0] < 5
    assert process.pid is None
    assert left_in(scratch) == []
    assert not process._turn.locked()


@pytest.mark.parametrize("seconds", [0, 0.05, 0.3, 1.0])
def test_closing_from_another_thread_is_an_error_of_ours(seconds, made_up, scratch):
    process, errors = made_up(epochs=200, seconds=0.05), []

    def run() -> None:
        try:
            fit(process)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while process.pid is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    process.close()
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [ConfigError]
    assert "ended before it was done" in str(errors[0])
    assert left_in(scratch) == []


def test_a_process_that_ends_by_itself_says_how(made_up, scratch):
    process = made_up(exit=3)
    message = r"ended before it was done \(with status 3: out of luck\); nothing was kept"
    with pytest.raises(ConfigError, match=message):
        fit(process)
    assert left_in(scratch) == []


def test_a_process_that_cannot_start_says_why(made_up, tmp_path):
    (tmp_path / "modules" / "umap.py").write_text("raise ImportError('no llvm here')", "utf-8")
    message = r"\(with status 1: ImportError: no llvm here\)"
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            fit(made_up())


def test_an_error_in_the_process_is_told_in_one_line_and_the_next_fit_works(made_up, scratch):
    process = made_up(error="too\n  many\nlines " + "x" * 500)
    with pytest.raises(ConfigError) as raised:
        fit(process)
    text = str(raised.value)
    assert text.startswith("UMAP failed: ValueError: too many lines xxx")
    assert text.endswith("x. Try other settings, or PCA.") and len(text) < 400
    assert left_in(scratch) == []
    made_up()  # another plan, for whatever starts now
    assert np.array_equal(fit(process), EXPECTED)


def test_a_disk_that_is_full_ends_nothing(made_up, monkeypatch):
    process = made_up()
    assert np.array_equal(fit(process), EXPECTED)
    pid = process.pid

    def refuse(*args) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", refuse)
        with pytest.raises(OSError, match="No space left"):
            fit(process)
    assert process.pid == pid
    assert np.array_equal(fit(process), EXPECTED)


def has_ended(pid: int) -> bool:
    """Say whether a process is gone, or waits for a parent that will not ask."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text("utf-8").rpartition(")")[2].split()[0] == "Z"


def test_the_process_ends_with_its_standard_input(made_up):
    process = made_up()
    process.warm_up()
    running = process._process
    running.stdin.close()
    assert running.wait(PATIENCE) == 0


PARENT = """
import threading, time
import numpy as np
from lwap.projection.process import UmapProcess

process = UmapProcess()
process.warm_up()
print(process.pid, flush=True)
time.sleep(600)
"""


def test_the_process_ends_when_its_parent_is_killed(made_up):
    made_up()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])},
    )
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while not has_ended(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert has_ended(pid)


def test_the_process_imports_no_model(made_up, tmp_path):
    """It is one more Python beside the app: torch would cost it hundreds of megabytes."""
    heavy = "{'torch', 'transformers', 'streamlit'}"
    code = f"import sys, lwap.projection.worker; print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr
