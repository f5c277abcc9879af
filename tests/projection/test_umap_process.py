"""The process that draws UMAP maps: it may be killed, stopped, closed, and it ends with the app.

Its umap is made up (see `made_up_umap`); UMAP itself is in test_umap.
"""

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

from lwap.encoding.diskcache import SCRATCH, DiskCache
from lwap.errors import ConfigError
from lwap.projection import project
from lwap.projection.neighbours import neighbours
from lwap.projection.process import UmapProcess
from tests.projection.test_projection import cloud

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds; a wait that takes so long is a failure


@pytest.fixture(scope="module")
def shared(made_up_umap) -> Iterator[UmapProcess]:
    process = UmapProcess()
    yield process
    process.close()


@pytest.fixture
def process(shared, umap) -> UmapProcess:
    """A process for all tests, which runs or not; some end it, and then it starts again."""
    return shared


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


class Stop(Exception):
    pass


def fit(process: UmapProcess, seed: int = 2, **options) -> np.ndarray:
    indices = np.zeros((6, 3), dtype=np.int32)
    start = np.arange(12, dtype=np.float32).reshape(6, 2)
    config = {"n_neighbors": 3, "min_dist": 0.1, "seed": seed}
    return process.fit(indices, np.zeros((6, 3)), start, config, **options)


EXPECTED = 2 * np.arange(12).reshape(6, 2)


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def has_ended(pid: int) -> bool:
    """Say whether a process is gone, or waits for a parent that will not ask."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text("utf-8").rpartition(")")[2].split()[0] == "Z"


# --- one after the other ------------------------------------------------------------------------


def test_what_libraries_print_is_no_answer(process, scratch):
    calls = []
    assert np.array_equal(fit(process, progress=lambda *call: calls.append(call)), EXPECTED)
    assert [call for call in dict.fromkeys(calls) if call != (0, 1)] == [(1, 3), (2, 3), (3, 3)]
    assert left_in(scratch) == []
    pid = process.pid
    assert np.array_equal(fit(process, seed=3), EXPECTED * 1.5)
    assert process.pid == pid  # one process for all


def test_progress_is_called_though_there_is_no_news(process, umap):
    umap.plan(epochs=1, waits=True)
    calls = []

    def advance(*call: int) -> None:
        calls.append(call)
        if calls.count((1, 1)) == 4:
            umap.gate.touch()

    assert np.array_equal(fit(process, progress=advance), EXPECTED)
    assert calls.count((1, 1)) >= 4


def test_warm_up_starts_and_close_ends_the_process(process, umap):
    process.close()  # it runs, or there is nothing to end
    assert process.pid is None
    process.close()
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


def test_the_process_imports_no_model(process, umap):
    """It is one more Python beside the app: torch would cost it hundreds of megabytes."""
    process.close()
    fit(process)
    assert umap.log()[-3] == ["import", str(process.pid)]


def test_a_fit_waits_for_the_one_before(process, umap):
    umap.plan(waits=True)
    found, asked = {}, []

    def run(seed: int) -> None:
        def advance(*call: int) -> None:
            asked.append(seed)
            if min(map(asked.count, seeds)) >= 3:  # whoever waits is asked whether to stop, too
                umap.gate.touch()

        found[seed] = fit(process, seed, progress=advance)

    seeds = (2, 4, 6)
    threads = [threading.Thread(target=run, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    wait(lambda: ["begin"] in umap.log())
    process.warm_up()  # while it is at work: nothing to do
    for thread in threads:
        thread.join(PATIENCE)
    assert umap.gate.exists()
    for seed in seeds:
        assert np.array_equal(found[seed], EXPECTED * seed / 2)
    assert [line[0] for line in umap.log() if line[0] != "import"] == ["begin", "end"] * 3


def test_whoever_stops_waiting_does_not_disturb_the_fit_before(process, umap):
    umap.plan(waits=True)
    found = []
    first = threading.Thread(target=lambda: found.append(fit(process)))
    first.start()
    wait(lambda: ["begin"] in umap.log())

    def stop(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        fit(process, seed=9, progress=stop)
    umap.gate.touch()
    first.join(PATIENCE)
    assert np.array_equal(found[0], EXPECTED)


def test_a_disk_that_is_full_ends_nothing(process, monkeypatch):
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


# --- a process that ends ------------------------------------------------------------------------

KILLED = (
    r"process that draws UMAP maps ended before it was done \(by signal 9\); nothing was kept "
    r"of this map\. Draw it again; .* use fewer sentences, or PCA"
)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("kill", ConfigError, KILLED),
        ("close", ConfigError, KILLED),
        ("stop", Stop, None),
        ("stop while it starts", Stop, None),
    ],
)
def test_after_any_end_nothing_is_left_and_the_next_map_is_right(
    how, error, message, process, umap, cache, scratch
):
    unit, pids = cloud(20), []
    options = {"seed": 2, "known": neighbours(unit), "process": process, "cache": cache}
    umap.plan(waits=True)
    if how == "stop while it starts":
        process.close()

    def end() -> None:
        if how == "kill":
            os.kill(process.pid, signal.SIGKILL)
        elif how == "close":
            process.close()
        else:
            raise Stop

    def advance(done: int, total: int) -> None:
        assert time.monotonic() < deadline, "it has not ended"
        if not pids and process.pid and done >= (0 if how == "stop while it starts" else 2):
            pids.append(process.pid)
            end()

    deadline = time.monotonic() + PATIENCE
    with pytest.raises(error, match=message):
        project(unit, progress=advance, **options)
    assert process.pid is None
    assert left_in(cache.folder) == left_in(scratch) == []
    assert ["end"] not in umap.log()

    umap.gate.touch()
    found = project(unit, **options).coordinates
    start = project(unit, "pca").coordinates
    assert found == pytest.approx(2 * start / start[:, 0].std(), abs=1e-5)
    assert process.pid not in (None, *pids)
    assert len(cache.names("maps")) == 1
    assert not any(path.name.startswith(SCRATCH) for path in left_in(cache.folder))
    assert left_in(scratch) == []


@pytest.mark.parametrize("moment", ["at once", "import", "begin"])
def test_closing_from_another_thread_is_an_error_of_ours(moment, process, umap, scratch):
    process.close()
    umap.plan(waits=True)
    errors = []

    def run() -> None:
        try:
            fit(process)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait(lambda: process.pid is not None)
    if moment != "at once":
        wait(lambda: moment in [line[0] for line in umap.log()])
    process.close()
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [ConfigError]
    assert "ended before it was done" in str(errors[0])
    assert left_in(scratch) == []


def test_a_process_that_ends_by_itself_says_how(process, umap, scratch):
    umap.plan(exit=3)
    message = r"ended before it was done \(with status 3: out of luck\); nothing was kept"
    with pytest.raises(ConfigError, match=message):
        fit(process)
    assert left_in(scratch) == []


def test_a_process_that_cannot_start_says_why(process, umap):
    process.close()
    umap.plan(import_error="no llvm here")
    message = r"\(with status 1: ImportError: no llvm here\)"
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            fit(process)


def test_an_error_in_the_process_is_told_in_one_line_and_the_next_fit_works(process, umap, scratch):
    umap.plan(error="too\n  many\nlines " + "x" * 500)
    with pytest.raises(ConfigError) as raised:
        fit(process)
    text = str(raised.value)
    assert text.startswith("UMAP failed: ValueError: too many lines xxx")
    assert text.endswith("x. Try other settings, or PCA.") and len(text) < 400
    assert left_in(scratch) == []
    umap.plan()
    assert np.array_equal(fit(process), EXPECTED)


def test_a_map_without_a_process_has_its_own_and_closes_it(umap):
    unit, known = cloud(20), neighbours(cloud(20))
    project(unit, known=known, progress=lambda *call: None)

    def stop(done: int, total: int) -> None:
        if ["begin"] in umap.log()[3:]:
            raise Stop

    umap.plan(waits=True)
    with pytest.raises(Stop):
        project(unit, known=known, progress=stop)
    pids = [int(line[1]) for line in umap.log() if line[0] == "import"]
    assert len(set(pids)) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# --- its parent ---------------------------------------------------------------------------------


def test_the_process_ends_with_its_standard_input(umap):
    found = subprocess.run(
        [sys.executable, "-P", ROOT / "lwap/projection/worker.py"],
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (found.returncode, found.stdout) == (0, "")
    assert [line[0] for line in umap.log()] == ["import"]


PARENT = """
import time
from lwap.projection.process import UmapProcess

process = UmapProcess()
process.warm_up()
print(process.pid, flush=True)
time.sleep(600)
"""


def test_the_process_ends_when_its_parent_is_killed(umap):
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
    wait(lambda: has_ended(pid))
