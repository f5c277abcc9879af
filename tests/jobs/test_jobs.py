"""Runs as processes: folders, states, queue, stop and resume, and what a killed one leaves."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from lwap import jobs
from lwap.errors import InputError, LwapError
from lwap.jobs import control, folder
from lwap.jobs.events import EventLog, Followed, History, read_history
from lwap.jobs.folder import Request, Run, Status
from lwap.jobs.state import Facts, Phase, State, state_of
from lwap.jobs.worker import Worker
from lwap.training import TrainConfig, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    shelf = tmp_path / "runs"
    monkeypatch.setenv("LWAP_RUNS", str(shelf))
    monkeypatch.setenv("LWAP_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield shelf
    for run in jobs.list_runs():  # a test that failed must not leave processes
        known = folder.read_json(run.folder / folder.WORKER)
        if known and known["pid"] != os.getpid() and control.is_at_work(run):
            os.kill(known["pid"], signal.SIGKILL)


@pytest.fixture
def make(runs, settings, triplets, dev_pairs):
    """Return a function that makes a run of a tiny encoder; 6 steps an epoch."""

    def make(name=None, **changes) -> Run:
        config = settings(**{"batch_size": 10, "eval_steps": 3, "learning_rate": 1e-3, **changes})
        return jobs.create(config, triplets, dev_pairs, name=name, data_name="examples")

    return make


def wait(condition, seconds=300.0) -> None:
    end = time.monotonic() + seconds  # a net: no test is meant to come near it
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def ended(run: Run) -> bool:
    return not control.state(run).is_active


def losses(run: Run) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_history(run.folder).steps}


def at_step(run: Run, step: int):
    return lambda: max(losses(run), default=0) >= step or ended(run)


def stop_after(run: Run, step: int):
    """Return what a worker is to say its events to, so that it stops after a step."""

    def say(event):
        if event["event"] == "step" and event["step"] == step - 1:
            jobs.stop(run)
            assert control.state(run) == "stopping"

    return say


def python(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, timeout=300, **options)


def kill(run: Run, number=signal.SIGKILL) -> None:
    """End a run's process, and wait until it is gone with all its threads and locks."""
    pid = folder.read_json(run.folder / folder.WORKER)["pid"]
    os.kill(pid, number)
    wait(lambda: ended(run) and not psutil.pid_exists(pid))


# --- the state is a pure function of facts ------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "is_alive", "wants_stop", "has_model"),
    list(itertools.product(Phase, [True, False], [True, False], [True, False])),
)
def test_every_combination_of_facts_has_one_state(phase, is_alive, wants_stop, has_model):
    found = state_of(Facts(phase, is_alive, wants_stop, has_model))
    last_word = {"finished": "finished", "stopped": "stopped", "failed": "failed"}.get(phase)
    if last_word:  # what a worker said last counts, whatever its process still does
        expected = last_word
    elif not is_alive:
        expected = "finished" if has_model else "vanished"
    elif wants_stop and phase != "saving":
        expected = "stopping"
    else:
        expected = {"new": "preparing"}.get(phase, phase)
    assert found == expected


def test_what_can_be_done_in_a_state():
    assert {state for state in State if state.can_resume} == {"stopped", "failed", "vanished"}
    assert {state for state in State if not state.is_active and not state.can_resume} == {
        "finished"
    }


# --- folders ------------------------------------------------------------------------------------


def test_a_run_is_what_was_asked_for(make, triplets, dev_pairs, runs):
    run = make("mine", temperature=0.1)
    assert run.folder == runs / "mine"
    assert [path.name for path in runs.iterdir()] == ["mine"]
    request = run.request
    assert TrainConfig(**request.config).temperature == 0.1
    assert (request.data_name, request.rows) == ("examples", 60)
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / folder.DATA), triplets)
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / folder.DEV), dev_pairs)
    assert control.state(run) == "vanished"  # made, never started
    assert control.find("mine") == run


def test_runs_of_one_name_get_numbers(make):
    assert [make("mine").name for _ in range(3)] == ["mine", "mine-2", "mine-3"]


def test_runs_have_names_of_their_own(make):
    names = [make().name for _ in range(4)]
    assert len(set(names)) == 4
    assert all(name.startswith("lwap-2") for name in names)
    assert make(residual="last_mean", mode="full").name.startswith("lwap-last-mean-full-2")
    assert make(pooling="scalar_mix").name.startswith("scalar-mix-2")


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "x" * 81, "a b", "a\n", "Zoë"])
def test_names_that_no_folder_can_have_are_refused(name, make, runs):
    with pytest.raises(InputError, match=r"cannot be a run's name\. Use letters, digits"):
        make(name)
    assert not runs.exists()


def test_a_shipped_checkpoints_name_is_refused(make, tmp_path):
    (tmp_path / "checkpoints" / "shipped").mkdir(parents=True)
    with pytest.raises(InputError, match="'shipped' is the name of a shipped checkpoint"):
        make("shipped")


def test_the_newest_run_is_first(make):
    names = [make(name).name for name in ("b", "c", "a")]
    assert [run.name for run in jobs.list_runs()] == names[::-1]


def test_what_is_no_run_is_not_listed(make, runs):
    make("mine")
    (runs / ".new-abc").mkdir()
    (runs / "imported" / "model").mkdir(parents=True)
    (runs / "file").touch()
    assert [run.name for run in jobs.list_runs()] == ["mine"]
    with pytest.raises(InputError, match=r"There is no run 'imported'\. There are: mine\."):
        control.find("imported")
    with pytest.raises(InputError, match="There is no run"):
        control.find("../runs/mine")


def test_no_runs_folder_is_no_runs(runs):
    assert jobs.list_runs() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read: config.json is missing or damaged"),
        ("[]", "cannot be read: config.json is missing or damaged"),
        ('{"format": "x"}', "cannot be read: config.json is missing or damaged"),
        ('{"format": 1}', "cannot be read: config.json is missing or damaged"),
        ('{"config": {}, "created_at": null}', "cannot be read: config.json is missing or"),
        ('{"format": 9}', "has format 9, newer than this version's 1"),
    ],
)
def test_a_damaged_request_is_told(content, message, make):
    run = make("mine")
    (run.folder / folder.CONFIG).write_text(content)
    with pytest.raises(LwapError, match=message):
        _ = run.request
    make("healthy")
    assert [each.name for each in jobs.list_runs()] == ["healthy", "mine"]
    jobs.delete(run)
    assert [each.name for each in jobs.list_runs()] == ["healthy"]


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"phase": "of a newer version"}', '{"step": "x", "message": 3}']
)
def test_a_damaged_status_is_that_of_a_new_run(content, make):
    run = make("mine")
    (run.folder / folder.STATUS).write_text(content)
    assert run.status == Status()
    assert control.state(run) == "vanished"


def test_a_folder_that_cannot_be_written_is_told(make, runs, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(LwapError, match=r"cannot be written .*No space left on device.* Free some"):
        make("mine")
    assert list(runs.iterdir()) == []


def test_a_reader_never_sees_half_a_status(tmp_path):
    run = Run(tmp_path)
    run.write_status(Status(message="x" * 10))
    script = (
        "import sys; from pathlib import Path; from lwap.jobs.folder import Run, Status\n"
        "run, n = Run(Path(sys.argv[1])), 0\n"
        "while not run.wants_stop:\n"
        "    n += 1; run.write_status(Status(message='x' * (n % 300 * 50)))"
    )
    seen = set()
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT) as writer:
        try:
            while len(seen) < 50 and writer.poll() is None:
                assert set(run.status.message) <= {"x"}
                seen.add(len(json.loads((tmp_path / folder.STATUS).read_text())["message"]))
        finally:
            (tmp_path / folder.STOP).touch()
    assert writer.returncode == 0
    assert len(seen) == 50


# --- events -------------------------------------------------------------------------------------


def step(number: int, loss: float = 1.0) -> dict:
    return {"event": "step", "step": number, "steps": 9, "loss": loss, "seconds": 0.5}


def look(number: int, dev: float) -> dict:
    return {"event": "look", "step": number, "steps": 9, "dev": dev}


def history(*events: dict) -> History:
    found = History()
    for event in events:
        found.add(event)
    return found


def test_what_a_resumed_run_says_again_counts_once():
    found = history(
        look(0, 1.0), step(1), step(2), look(2, 2.0), step(3, 5.0), look(3, 9.0),
        {"event": "resume", "step": 2}, step(3, 4.0), look(3, 3.0),
    )  # fmt: skip
    assert [row["step"] for row in found.steps] == [1, 2, 3]
    assert found.steps[-1]["loss"] == 4.0
    assert [row["dev"] for row in found.looks] == [1.0, 2.0, 3.0]
    assert found.resumed_at == [2]
    assert found.best["step"] == 3
    assert found.seconds_left() == 3.0


def test_a_run_that_starts_again_forgets_what_was():
    found = history(look(0, 1.0), step(1), step(2), look(0, 1.5), step(1, 7.0))
    assert [row["step"] for row in found.steps] == [1]
    assert [row["dev"] for row in found.looks] == [1.5]


def test_the_best_look_is_the_first_of_equals_and_a_number():
    assert history().best is None
    assert history(look(0, float("nan"))).best is None
    assert history(look(0, 1.0), look(1, 2.0), look(2, 2.0)).best["step"] == 1


def test_events_are_read_on_while_they_are_written(tmp_path):
    run, log = Run(tmp_path), EventLog(Run(tmp_path))
    followed = Followed(run)
    assert followed.read().steps == []
    log.write(step(1))
    assert len(followed.read().steps) == 1
    with (tmp_path / folder.METRICS).open("a") as torn:  # half a line
        torn.write('{"event": "st')
    assert len(followed.read().steps) == 1
    log.close()
    again = EventLog(run)
    again.write(step(2))
    again.close()
    assert [row["step"] for row in followed.read().steps] == [1, 2]
    assert [row["step"] for row in read_history(tmp_path).steps] == [1, 2]
    (tmp_path / folder.METRICS).unlink()
    another = EventLog(run)
    another.write(step(1, 3.0))
    another.close()
    assert followed.read().steps[0]["loss"] == 3.0


def test_what_is_no_number_is_null_in_the_file_and_nan_for_the_reader(tmp_path):
    log = EventLog(Run(tmp_path))
    log.write({**look(0, float("nan")), "loss": float("inf")})
    log.close()
    text = (tmp_path / folder.METRICS).read_text()
    assert '"dev": null' in text and '"loss": null' in text
    (row,) = read_history(tmp_path).looks
    assert math.isnan(row["dev"]) and math.isnan(row["loss"])


def test_a_newer_versions_events_are_skipped():
    found = history({"event": "confetti", "step": 1}, {"event": "step"}, {"step": 3}, step(1))
    assert len(found.steps) == 1


# --- a run in this process ----------------------------------------------------------------------


def test_a_worker_trains_and_saves(make, triplets, dev_pairs):
    run, said, lines = make("mine"), [], []
    expected = train(TrainConfig(**run.request.config), triplets, dev_pairs)
    assert Worker(run, say=said.append, tell=lines.append).work() == "finished"
    assert control.state(run) == "finished"
    assert run.has_model and run.checkpoint is None
    assert read_history(run.folder).looks[-1]["dev"] == pytest.approx(expected.history.dev.iloc[-1])
    assert [event for event in said if event["event"] == "step"]
    assert any("step      3 of 12" in line for line in lines)
    assert sorted(losses(run)) == list(range(1, 13))
    card = (run.model_folder / "README.md").read_text("utf-8")
    assert "# mine" in card and "- Data: examples, 60 triplets" in card
    assert Worker(run, tell=lines.append).work() == "finished"  # nothing is trained again


def test_a_worker_that_only_missed_its_last_word(make):
    run = make("mine")
    Worker(run, tell=str).work()
    run.write_status(Status(phase=Phase.SAVING))
    (run.folder / folder.WORKER).unlink()
    assert control.state(run) == "finished"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run.folder / folder.CONFIG).write_text("{"), "config.json is missing"),
        (lambda run: (run.folder / folder.DATA).write_text("x"), "ArrowInvalid: .* \\(see the log"),
    ],
)
def test_what_goes_wrong_is_in_the_status(break_it, message, make):
    run = make("mine")
    break_it(run)
    assert Worker(run, tell=str).work() == "failed"
    assert control.state(run) == "failed"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(run.status.message)


def test_a_run_that_diverged_says_so(make):
    run = make("mine", epochs=20, eval_steps=1, temperature=0.001, learning_rate=100.0)
    assert Worker(run, tell=str).work() == "finished"
    last, best = max(losses(run)), read_history(run.folder).best["step"]
    assert 0 < best < last < 120
    said = f"The run diverged at step {last}; the model is that of step {best}, the best before"
    assert run.status.message.startswith(said)
    assert control.why(run) == run.status.message


def test_a_stopped_run_goes_on_to_the_same_losses(make):
    run, whole = make("mine"), make("whole")
    assert Worker(run, say=stop_after(run, 4), tell=str).work() == "stopped"
    assert control.state(run) == "stopped"
    assert (run.checkpoint, sorted(losses(run))) == (4, [1, 2, 3, 4])
    assert control.why(run) == "Stopped at step 4 of 12. It resumes from step 4."
    (run.folder / folder.STOP).unlink()
    for each in (run, whole):
        assert Worker(each, tell=str).work() == "finished"
    assert losses(run) == pytest.approx(losses(whole), abs=5e-5)
    assert read_history(run.folder).resumed_at == [4]
    assert [path.name for path in run.folder.iterdir() if "checkpoint" in path.name] == []


def test_a_run_has_one_worker(make):
    run, second = make("mine"), []

    def say(event):
        assert control.state(run) == "training"
        if event["event"] == "look" and not second:
            with pytest.raises(LwapError, match="is at work already"):
                jobs.start(run)
            with pytest.raises(LwapError, match=r"at work\. Stop it before you delete it"):
                jobs.delete(run)
            with pytest.raises(LwapError, match="is training; only one that ended early can be"):
                jobs.resume(run)
            command = ("-m", "lwap.jobs.worker", run.folder)
            second.append(python(*command, capture_output=True, text=True))

    assert Worker(run, say=say, tell=str).work() == "finished"
    assert second[0].returncode == 1
    assert "Run 'mine' is at work already." in second[0].stderr


# --- a run in a process of its own --------------------------------------------------------------


@pytest.mark.slow
def test_told_to_end_and_killed_it_resumes_to_the_same_losses(make):
    run = make("parts", epochs=1000)  # ends when it is told to, never by itself
    script = "import sys; from lwap import jobs; jobs.start(jobs.find(sys.argv[1]))"
    python("-c", script, run.name, check=True)  # ends, and the run goes on
    wait(at_step(run, 3))
    assert control.state(run) == "training"
    kill(run, signal.SIGTERM)  # as a machine that shuts down
    assert control.state(run) == "stopped", run.log_tail()
    first = run.checkpoint
    assert first >= 3
    assert control.why(run) == f"Stopped at step {first} of 6000. It resumes from step {first}."

    jobs.resume(run)
    wait(at_step(run, first + 5))
    kill(run)
    assert control.state(run) == "vanished"
    assert "vanished at step" in control.why(run)
    assert f"It resumes from step {first}." in control.why(run)

    last = max(losses(run)) + 3
    assert Worker(run, say=stop_after(run, last), tell=str).work() == "stopped"
    assert read_history(run.folder).resumed_at == [first, first]
    whole = make("whole", epochs=1000)
    assert Worker(whole, say=stop_after(whole, last), tell=str).work() == "stopped"
    assert sorted(losses(run)) == list(range(1, last + 1))
    assert losses(run) == pytest.approx(losses(whole), abs=5e-5)


@pytest.mark.slow
def test_runs_wait_for_each_other_in_order(make):
    first, second, third = (make(name) for name in ("c", "b", "a"))

    def say(event):
        if event["event"] != "start":
            return
        for run in (second, third):
            jobs.start(run)
        wait(lambda: all(run.status.phase == "queued" and run.status.message for run in waiting))
        assert [control.state(run) for run in made] == ["training", "queued", "queued"]
        assert control.why(third) == "Waits for b."
        jobs.stop(third)
        wait(lambda: ended(third))
        assert control.state(second) == "queued"

    made, waiting = (first, second, third), (second, third)
    assert Worker(first, say=say, tell=str).work() == "finished"
    wait(lambda: ended(second))
    assert control.state(second) == "finished", second.log_tail()
    assert control.state(third) == "stopped"
    assert losses(third) == {}


def test_a_process_of_the_same_number_is_not_the_worker(make):
    run = make("mine")
    me = {"pid": os.getpid(), "created_at": psutil.Process().create_time()}
    own = {**me, "host": control.socket.gethostname()}
    file = run.folder / folder.WORKER
    folder.write_whole(file, own)
    assert control.is_at_work(run)
    for changes in ({"created_at": 1.0}, {"host": "elsewhere"}, {"pid": 2**22 + 1}, {"pid": "x"}):
        folder.write_whole(file, own | changes)
        assert not control.is_at_work(run)
    file.write_text("{")
    assert not control.is_at_work(run)


def test_a_run_is_deleted_whole(make, runs):
    run = make("mine")
    Worker(run, tell=str).work()
    jobs.delete(run)
    assert [path.name for path in runs.iterdir() if path.name != ".turn.lock"] == []


def test_nothing_to_stop(make):
    run = make("mine")
    with pytest.raises(LwapError, match="is not at work, so there is nothing to stop"):
        jobs.stop(run)


def test_jobs_load_no_torch():
    script = "import sys, lwap.jobs; sys.exit('torch' in sys.modules or 'streamlit' in sys.modules)"
    python("-c", script, check=True)


def test_a_request_is_read_without_what_it_does_not_know(tmp_path):
    # A field that a later version adds does not make the folder unreadable.
    content = {"format": 1, "config": {}, "colour": "green"}
    folder.write_whole(tmp_path / folder.CONFIG, content)
    assert Run(tmp_path).request == Request(config={})
