"""`python -m lwap models rename`, `delete` and `import`; the other actions are in test_cli."""

import io
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from lwap import cli
from lwap.checkpoints.load import identify_encoder
from lwap.checkpoints.manifest import checkpoint_names
from lwap.checkpoints.save import save_checkpoint
from lwap.jobs import Run
from lwap.jobs.control import write_worker
from lwap.library.archive import zip_checkpoint


@pytest.fixture(scope="module")
def saved(tiny_lwap_model, tiny_encoder_folder, tmp_path_factory) -> Path:
    """A head on the tiny encoder. Do not change it."""
    return save_checkpoint(
        tiny_lwap_model,
        tmp_path_factory.mktemp("saved") / "mine",
        name="mine",
        **identify_encoder(str(tiny_encoder_folder)),
        training={},
        results={},
        card="# mine\n",
    )


@pytest.fixture(autouse=True)
def runs(saved, tmp_path, monkeypatch) -> Path:
    """The runs folder with "mine" in it, and shipped checkpoints with "paper"."""
    monkeypatch.setenv("LWAP_CHECKPOINTS", str(tmp_path / "shipped"))
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    shutil.copytree(saved, tmp_path / "shipped" / "paper")
    shutil.copytree(saved, tmp_path / "runs" / "mine" / "model")
    return tmp_path / "runs"


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that types an answer at a terminal; None is the end of input."""

    def terminal(answer: str | None) -> None:
        stream = io.StringIO("" if answer is None else f"{answer}\n")
        stream.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", stream)

    return terminal


def test_a_checkpoint_is_renamed(run, run_json, runs):
    assert run("models", "rename", "mine", "mine-v2")[0] == "'mine' is called 'mine-v2' now.\n"
    assert checkpoint_names() == ["paper", "mine-v2"]
    found = run_json("models", "rename", "mine-v2", "mine-v3")
    assert found == {"name": "mine-v3", "folder": str(runs / "mine-v3" / "model")}


@pytest.mark.parametrize("answer", ["y", "YES", " yes "])
def test_delete_asks_and_takes_yes(run, runs, terminal, answer):
    (runs / "mine" / "log.txt").write_text("x")
    terminal(answer)
    printed, _ = run("models", "delete", "mine")
    assert "0.0 MB, with its card and its scores.\nStays: log.txt.\nDelete it for good?" in printed
    assert printed.endswith("Deleted: mine (log.txt stay)\n")
    assert checkpoint_names() == ["paper"]


@pytest.mark.parametrize("answer", ["", "n", "no", "yes please", None])
def test_delete_asks_and_takes_nothing_else(run, terminal, answer):
    terminal(answer)
    printed, _ = run("models", "delete", "mine")
    assert "Nothing of the run stays." in printed
    assert printed.endswith("Not deleted.\n")
    assert checkpoint_names() == ["paper", "mine"]


def test_delete_without_a_terminal_needs_yes(run, run_json, refused, runs, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert "'mine' was not deleted: nobody can be asked here. Add --yes" in refused(
        "models", "delete", "mine"
    )
    assert checkpoint_names() == ["paper", "mine"]
    folder = str(runs / "mine" / "model")
    assert run_json("models", "delete", "mine", "--yes") == {
        "deleted": "mine",
        "folder": folder,
        "stays": [],
    }
    assert checkpoint_names() == ["paper"]


def test_json_does_not_ask(refused, terminal):
    terminal("yes")
    assert "Add --yes" in refused("models", "delete", "mine", "--json")
    assert checkpoint_names() == ["paper", "mine"]


def test_a_zip_and_a_folder_are_imported(run, run_json, runs, saved, tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_checkpoint("mine"))
    printed, _ = run("models", "import", tmp_path / "a.zip", "--name", "zipped")
    assert printed == "Imported: zipped (0.0 MB), verified.\n"
    found = run_json("models", "import", saved, "--name", "folder")
    assert found["folder"] == str(runs / "folder" / "model")
    assert checkpoint_names() == ["paper", "folder", "mine", "zipped"]
    assert run("models", "verify", "zipped")[0].startswith("zipped: good\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rename", "paper", "x"], "'paper' is shipped with LWAP Explorer and cannot be renamed"),
        (["rename", "mine", "paper"], "'paper' is taken: a shipped checkpoint"),
        (["rename", "mine", "../x"], "'../x' cannot be a name"),
        (["delete", "paper", "--yes"], "'paper' is shipped with LWAP Explorer and cannot be del"),
        (["delete", "gone", "--yes"], "There is no checkpoint 'gone'"),
        (["import", "nowhere.zip"], "There is no file or folder 'nowhere.zip'"),
        (["import", "ZIP"], "the entry '../x.json' is a path with '..'"),
        (["import", "FOLDER"], "'mine' is taken: a run is called 'mine'"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_one_line(arguments, message, refused, saved, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../x.json", "{}")
    paths = {"ZIP": str(tmp_path / "evil.zip"), "FOLDER": str(saved)}
    assert message in refused("models", *(paths.get(word, word) for word in arguments))
    assert checkpoint_names() == ["paper", "mine"]


def test_a_running_job_is_left_alone(refused, runs):
    (runs / "mine" / "status.json").write_text(json.dumps({"phase": "training"}))
    write_worker(Run(runs / "mine"), os.getpid())
    assert "'mine' is training, so it cannot be deleted now" in refused(
        "models", "delete", "mine", "--yes"
    )


@pytest.mark.parametrize("arguments", [["rename", "mine"], ["delete"], ["import"]], ids=" ".join)
def test_arguments_that_lack_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["models", *arguments])
    assert exit_info.value.code == 2
    assert "the following arguments are required" in capsys.readouterr().err
