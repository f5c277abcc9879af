"""`train` without --output, and `jobs`: runs that can be stopped and resumed."""

import io
import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from lwap import cli, jobs
from lwap.jobs import control
from lwap.jobs.events import read_history

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LWAP_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "runs"
    for run in jobs.list_runs():
        pid = json.loads((run.folder / "worker.json").read_text())["pid"]
        if pid != os.getpid() and control.is_at_work(run):
            os.kill(pid, signal.SIGKILL)
            wait(lambda run=run: not control.is_at_work(run))


@pytest.fixture
def train_arguments(tiny_encoder_folder, tmp_path) -> list[str]:
    pd.read_csv(ROOT / "assets/triplets.csv").head(60).to_csv(tmp_path / "t.csv", index=False)
    pd.read_csv(ROOT / "assets/pairs.csv").head(40).to_csv(tmp_path / "d.csv", index=False)
    options = {
        "--triplets": tmp_path / "t.csv",
        "--dev": tmp_path / "d.csv",
        "--encoder": tiny_encoder_folder,
        "--batch-size": 10,
        "--eval-steps": 3,
        "--precision": "fp32",
        "--name": "mine",
    }
    return ["train", *(str(part) for option in options.items() for part in option)]


def losses(name: str) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_history(control.find(name).folder).steps}


def wait(condition) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Terminal(io.TextIOWrapper):
    """A terminal at which somebody presses Ctrl-C as soon as a text is shown."""

    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.text, self.shown = text, ""

    def write(self, text: str) -> int:
        self.shown += text
        if self.text in text:
            signal.raise_signal(signal.SIGINT)
        return len(text)


@pytest.mark.slow
def test_ctrl_c_stops_at_a_checkpoint_and_resume_goes_on(
    run, run_json, train_arguments, shelf, monkeypatch, capsys
):
    run_json(*[part if part != "mine" else "whole" for part in train_arguments])
    terminal = Terminal("step     3 of 18")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        with pytest.raises(SystemExit) as exit_info:
            cli.main(train_arguments)
    errors = capsys.readouterr().err
    assert exit_info.value.code == 130
    step = control.find("mine").checkpoint
    assert f"Stopped; a checkpoint of step {step} is kept." in errors
    assert errors.strip().endswith("Resume: python -m lwap jobs resume mine")
    assert "step     3 of 18" in terminal.shown and "step     6 of 18" not in terminal.shown

    (listed,) = [each for each in run_json("jobs", "list")["runs"] if each["name"] == "mine"]
    assert (listed["state"], listed["checkpoint"]) == ("stopped", step)
    (shelf / "mine" / "worker.json").unlink()  # as if the process, which is this one, had ended
    run("jobs", "resume", "mine")
    wait(lambda: not control.state(control.find("mine")).is_active)
    found = run_json("jobs", "show", "mine")
    assert (found["state"], found["resumed_at"]) == ("finished", [step])
    assert losses("mine") == pytest.approx(losses("whole"), abs=5e-5)
    assert "mine" in run("models", "list")[0]


@contextmanager
def held(name: str):
    """Hold a run's process, so that it is where it is however slow the one who looks is."""
    pid = json.loads((control.find(name).folder / "worker.json").read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_detached_run_is_followed_stopped_and_deleted(run, refused, train_arguments, shelf):
    printed, _ = run(*train_arguments, "--epochs", "200", "--detach")
    assert printed.startswith("Started: mine\n  python -m lwap jobs show mine\n")
    wait(lambda: len(losses("mine")) >= 4)
    with held("mine"):
        printed, _ = run("jobs", "show", "mine")
        assert printed.startswith("mine: training.")
        assert "step     3 of 1200   loss " in printed
        assert "s left.\n" in printed
        assert "mine" in run("jobs", "list")[0]
        assert "is at work. Stop it before" in refused("jobs", "delete", "mine")
        assert "is training; only one that ended early" in refused("jobs", "resume", "mine")
    assert run("jobs", "stop", "mine", "--wait")[0] == "mine: stopped\n"
    assert "is not at work" in refused("jobs", "stop", "mine")
    assert "step      3 of 1200" in run("jobs", "log", "mine")[0]
    assert run("jobs", "delete", "mine")[0] == "Deleted: mine\n"
    assert run("jobs", "list")[0] == "There are no runs.\n"


def test_a_model_is_not_deleted_without_asking(run, refused, train_arguments, shelf):
    run(*train_arguments, "--epochs", "1")
    assert "has a model, which would be deleted too" in refused("jobs", "delete", "mine")
    assert (shelf / "mine" / "model" / "lwap.json").exists()
    run("jobs", "delete", "mine", "--yes")
    assert not (shelf / "mine").exists()


def test_a_run_that_fails_is_an_error_and_stays_to_be_looked_at(
    run_json, train_arguments, shelf, monkeypatch, capsys
):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        patch.setattr(sys, "stdout", Terminal("step     3 of 18"))  # it writes a checkpoint then
        assert cli.main(train_arguments) == 2
    message = "could not be written (No space left on device). Free some space"
    assert message in capsys.readouterr().err
    why = run_json("jobs", "show", "mine")["why"]
    assert message in why and why.endswith("It starts again at the first step.")


def test_the_check_says_what_a_run_would_take(run, run_json, train_arguments, shelf, capsys):
    printed, _ = run(*train_arguments, "--check")
    assert printed.startswith("60 triplets read, 60 kept\n")
    assert "steps: 18 (6 an epoch)" in printed
    assert "Takes about " in printed and " GB free (cpu)" in printed
    found = run_json(*train_arguments, "--check")
    assert found["check"]["rows_kept"] == 60
    assert found["estimate"]["total_seconds"] > 0
    assert not shelf.exists()
    assert cli.main([*train_arguments, "--check", "--batch-size", "500"]) == 2
    printed, errors = capsys.readouterr()
    assert printed.startswith("60 triplets read, 60 kept\n")
    assert "batch_size is 500" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs", "show", "nothing"], "There is no run 'nothing'. There are: none."),
        (["jobs", "stop", "../x"], "There is no run '../x'"),
    ],
)
def test_runs_that_are_not_there(arguments, message, refused, shelf):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "a/b"], "cannot be a run's name"),
        (["--preset", "an-hour"], "There is no preset 'an-hour'. There are: minute"),
        (["--batch-size", "100"], "batch_size is 100"),
    ],
)
def test_what_cannot_be_run_leaves_no_run(options, message, refused, train_arguments, shelf):
    assert message in refused(*train_arguments, *options)
    assert not shelf.exists()


def test_under_torchrun_a_folder_is_needed(refused, train_arguments, shelf, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "Under torchrun give --output" in refused(*train_arguments)


def test_the_verbs_are_in_the_help(capsys):
    for arguments in (["jobs", "--help"], ["jobs", "stop", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
    assert "write a checkpoint after the step at hand, and end" in capsys.readouterr().out
