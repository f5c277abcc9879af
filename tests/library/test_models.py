"""Checkpoints renamed, deleted, passed on and imported; and everything that must be refused."""

import errno
import io
import json
import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import lwap
from lwap.checkpoints.load import identify_encoder
from lwap.checkpoints.manifest import CARD, MANIFEST, checkpoint_names, find_checkpoint, read_info
from lwap.checkpoints.save import save_checkpoint
from lwap.checkpoints.verify import verify
from lwap.errors import CheckpointError, InputError, ModelError
from lwap.jobs import Run
from lwap.jobs.control import write_worker
from lwap.library import archive, edit
from lwap.library.archive import import_checkpoint, zip_checkpoint
from lwap.library.edit import delete, rename, what_stays
from lwap.library.results import Score, dev_score, gain, layer_weights
from lwap.library.stored import list_models, read_card

TEXTS = ["The bridge is safe.", "Nobody missed the deadline, not even once."]
HEAD = "1_LayerwiseAttentionPooling"
RESULTS = {
    "dev_set": "a made-up set",
    "dev_spearman": {"lwap": {"value": 71.25, "low": 70.5, "high": 72.0}},
    "dev_difference_to_mean": {"value": -1.5, "low": -2, "high": -1, "p_value": 0.01},
    "layer_weights": [0.1, 0.2, 0.3, 0.4],
}


@pytest.fixture(scope="module")
def saved(tiny_lwap_model, tiny_encoder_folder, tmp_path_factory) -> Path:
    """A head on the tiny encoder. Do not change it."""
    return save_checkpoint(
        tiny_lwap_model,
        tmp_path_factory.mktemp("saved") / "mine",
        name="mine",
        **identify_encoder(str(tiny_encoder_folder)),
        training={"data": "ten triplets"},
        results=RESULTS,
        card='---\nlicense: mit\n---\n\n# mine\n\nlwap.load("mine")\n',
    )


@pytest.fixture(scope="module")
def stock(tiny_encoder_folder, tmp_path_factory) -> Path:
    """A model that sentence-transformers saved: mean pooling and a dense layer. Do not change."""
    transformer = Transformer(str(tiny_encoder_folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = Dense(32, 8)
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean"), dense], device="cpu")
    folder = tmp_path_factory.mktemp("stock") / "stock"
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.fixture
def shipped(saved, tmp_path, monkeypatch) -> Path:
    """The folder of shipped checkpoints, with "paper" in it."""
    folder = tmp_path / "shipped"
    shutil.copytree(saved, folder / "paper")
    monkeypatch.setenv("LWAP_CHECKPOINTS", str(folder))
    return folder


@pytest.fixture
def runs(shipped, tmp_path, monkeypatch) -> Path:
    """The runs folder; there is none yet."""
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def mine(saved, runs) -> Path:
    """The run "mine", with a checkpoint in it."""
    shutil.copytree(saved, runs / "mine" / "model")
    return runs / "mine"


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    """A copy of the checkpoint outside the runs folder, to be changed and imported."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def zip_of(files, top: str = "", method=zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file of names and contents; a folder stands for the files in it."""
    if isinstance(files, Path):
        files = {
            file.relative_to(files).as_posix(): file.read_bytes()
            for file in sorted(files.rglob("*"))
            if file.is_file()
        }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(f"{top}{name}", content)
    return stream.getvalue()


def with_entry(folder: Path, entry: zipfile.ZipInfo | str, content: bytes = b"x") -> bytes:
    """Return a checkpoint as a zip file with one more entry."""
    stream = io.BytesIO(zip_of(folder))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(entry, content)
    return stream.getvalue()


def change_manifest(folder: Path, **changes) -> None:
    file = folder / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def nothing_is_left(runs: Path) -> bool:
    return not runs.exists() or os.listdir(runs) == []


# --- what there is ------------------------------------------------------------------------------


def test_shipped_come_first_and_damaged_ones_are_there(mine, runs):
    shutil.copytree(mine / "model", runs / "broken" / "model")
    (runs / "broken" / "model" / MANIFEST).write_text("{")
    shutil.copytree(mine / "model", runs / "half" / "model")
    (runs / "half" / "model" / MANIFEST).unlink()
    (runs / "going-on").mkdir()  # a run without a model
    (runs / ".mine-abc").mkdir()  # what a killed save leaves
    found = list_models()
    assert [model.name for model in found] == ["paper", "broken", "half", "mine"]
    assert [model.is_shipped for model in found] == [True, False, False, False]
    assert "is not readable JSON" in found[1].problem and found[1].info is None
    assert "is incomplete: 'lwap.json' is missing" in found[2].problem
    assert found[3].problem == "" and found[3].info.name == "mine"
    assert found[3].size_bytes == sum(
        file.stat().st_size for file in (mine / "model").rglob("*") if file.is_file()
    )


def test_without_any_folder_there_is_nothing(tmp_path, monkeypatch):
    for name in ("LWAP_CHECKPOINTS", "LWAP_RUNS"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    assert list_models() == []


def test_a_name_that_is_shipped_too_is_told(mine, runs):
    os.rename(mine, runs / "paper")
    shipped, own = list_models()
    assert shipped.problem == "" and shipped.is_shipped
    assert "A shipped checkpoint has the name 'paper' too" in own.problem
    rename("paper", "other")  # the person's own one, as the shipped one cannot be
    assert checkpoint_names() == ["paper", "other"]


def test_scores_are_read(saved):
    info = read_info(saved)
    assert dev_score(info) == Score(71.25, 70.5, 72.0)
    assert gain(info) == Score(-1.5, -2.0, -1.0)
    assert layer_weights(info) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"dev_spearman": 3, "dev_difference_to_mean": [1], "layer_weights": "many"},
        {"dev_spearman": {"lwap": 71}, "layer_weights": [0.5, 0.5]},
        {"dev_spearman": {"lwap": {"value": "high", "low": 1, "high": 2}}},
        {"dev_spearman": {"lwap": {"value": float("nan"), "low": 1, "high": 2}}},
        {"layer_weights": [0.1, 0.2, 0.3, None]},
    ],
)
def test_results_that_are_none_are_none(copy, results):
    change_manifest(copy, results=results)
    info = read_info(copy)
    assert dev_score(info) is gain(info) is layer_weights(info) is None


def test_a_card_is_read_without_its_header(copy):
    assert read_card(copy) == '# mine\n\nlwap.load("mine")'
    (copy / CARD).write_bytes(b"# caf\xe9")
    assert read_card(copy) == "# caf�"
    (copy / CARD).write_text("x" * 300)
    assert len(read_card(copy, most=200)) == 200
    (copy / CARD).unlink()
    assert read_card(copy) == ""


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "cls+max"),
    ],
)
def test_older_pooling_configurations_are_read(runs, stock, options, mode):
    import_checkpoint(stock)
    folder = runs / "stock" / "model"
    file = folder / "1_Pooling" / "config.json"
    file.write_text(json.dumps({"word_embedding_dimension": 32} | options))
    assert read_info(folder).pooling == mode


# --- rename -------------------------------------------------------------------------------------


def test_a_renamed_model_is_found_by_its_new_name_alone(mine, runs):
    (mine / "log.txt").write_text("kept")
    before = lwap.load("mine", device="cpu").encode(TEXTS)
    model = rename("mine", "mine-v2.1")
    assert (model.name, model.folder) == ("mine-v2.1", runs / "mine-v2.1" / "model")
    assert checkpoint_names() == ["paper", "mine-v2.1"]
    assert find_checkpoint("mine") is None
    assert (runs / "mine-v2.1" / "log.txt").read_text() == "kept"
    assert read_info(model.folder).name == "mine-v2.1"  # of the manifest
    assert '# mine-v2.1\n\nlwap.load("mine-v2.1")' in (model.folder / CARD).read_text()
    np.testing.assert_array_equal(lwap.load("mine-v2.1", device="cpu").encode(TEXTS), before)
    assert verify("mine-v2.1")[-1].startswith("loads")


def test_upper_case_alone_can_be_changed(mine):
    assert rename("mine", "Mine").name == "Mine"
    assert checkpoint_names() == ["paper", "Mine"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", "/abs", ".hidden", "-x", "a b", "x.", "é", "C:"]
)
def test_what_is_no_name_is_refused(mine, name):
    with pytest.raises(InputError, match=r"cannot be a name\. A name has 1 to 64 letters"):
        rename("mine", name)
    assert checkpoint_names() == ["paper", "mine"]


def test_a_long_name_is_refused(mine):
    with pytest.raises(InputError, match=r"'x{79}…' cannot be a name"):
        rename("mine", "x" * 500)
    assert rename("mine", "x" * 64).name == "x" * 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper", "'paper' is taken: a shipped checkpoint is called 'paper'. Choose another"),
        ("PAPER", "'PAPER' is taken: a shipped checkpoint is called 'paper'"),
        ("other", "'other' is taken: a run is called 'other'"),
        ("mine", "'mine' has this name already"),
        ("all-MiniLM-L6-v2", "is the bundled encoder's name. Choose another"),
        ("All-minilm-l6-V2", "is the bundled encoder's name"),
        ("bundled", "is the bundled encoder's name"),
    ],
)
def test_a_taken_name_is_refused(mine, runs, name, message):
    (runs / "other").mkdir()
    with pytest.raises(InputError, match=message):
        rename("mine", name)
    assert checkpoint_names() == ["paper", "mine"]


def test_a_damaged_one_can_be_renamed(mine, runs):
    (mine / "model" / MANIFEST).write_text("{")
    assert "not readable JSON" in rename("mine", "damaged").problem
    assert os.listdir(runs) == ["damaged"]


def test_a_failed_rename_leaves_all_as_it_was(mine, monkeypatch):
    def fail(*paths):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(CheckpointError, match="'mine' cannot be renamed: Permission denied"):
        rename("mine", "other")
    assert read_info(mine / "model").name == "mine"


def test_a_manifest_that_cannot_be_written_stays_whole(mine, runs, monkeypatch):
    write = Path.write_text

    def fail(file, text, **options):
        write(file, text[:5], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    rename("mine", "other")
    folder = runs / "other" / "model"
    assert read_info(folder).name == "mine"  # the folder's name is what counts
    assert checkpoint_names() == ["paper", "other"]
    assert [name for name in os.listdir(folder) if name.startswith(".")] == []


# --- delete -------------------------------------------------------------------------------------


def test_a_checkpoint_alone_in_its_run_goes_with_it(mine, runs):
    assert what_stays(list_models()[1]) == []
    assert delete("mine") == []
    assert os.listdir(runs) == []


def test_what_else_a_run_wrote_stays(mine):
    (mine / "log.txt").write_text("x")
    (mine / "checkpoint-20").mkdir()
    assert what_stays(list_models()[1]) == ["checkpoint-20", "log.txt"]
    assert delete("mine") == ["checkpoint-20", "log.txt"]
    assert sorted(os.listdir(mine)) == ["checkpoint-20", "log.txt"]
    assert [model.name for model in list_models()] == ["paper"]


def test_damaged_ones_can_be_deleted(mine, runs):
    (mine / "model" / MANIFEST).unlink()
    delete("mine")
    assert os.listdir(runs) == []


def test_a_link_goes_and_what_it_leads_to_stays(saved, runs, tmp_path):
    elsewhere = Path(shutil.copytree(saved, tmp_path / "elsewhere" / "model"))
    runs.mkdir()
    (runs / "linked").symlink_to(elsewhere.parent)
    (runs / "inner").mkdir()
    (runs / "inner" / "model").symlink_to(elsewhere)
    delete("linked")
    delete("inner")
    assert os.listdir(runs) == []
    assert (elsewhere / MANIFEST).is_file()


def test_a_failed_delete_says_so(mine, runs, monkeypatch):
    def fail(*paths):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(CheckpointError, match="'mine' cannot be deleted: Permission denied"):
        delete("mine")
    assert verify("mine")
    assert os.listdir(runs) == ["mine"]


@pytest.mark.parametrize("do", [delete, lambda name: rename(name, "new")], ids=["delete", "rename"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper", "'paper' is shipped with LWAP Explorer and cannot be"),
        ("all-MiniLM-L6-v2", "'all-MiniLM-L6-v2' is the bundled encoder and cannot be"),
        ("gone", "There is no checkpoint 'gone'; it may have been .* there are: mine"),
        ("../runs/mine", "There is no checkpoint '../runs/mine'"),
        ("..", "There is no checkpoint '..'"),
        ("", "There is no checkpoint ''"),
    ],
)
def test_only_ones_own_can_be_changed(mine, do, name, message):
    with pytest.raises(ModelError, match=message):
        do(name)
    assert checkpoint_names() == ["paper", "mine"]


@pytest.mark.parametrize("do", [delete, lambda name: rename(name, "new")], ids=["delete", "rename"])
@pytest.mark.parametrize("state", ["training", "queued", "saving"])
def test_a_run_that_goes_on_is_left_alone(mine, do, state):
    (mine / "status.json").write_text(json.dumps({"phase": state}))
    write_worker(Run(mine), os.getpid())  # a process that is there
    with pytest.raises(ModelError, match=f"'mine' is {state}, so it cannot be .* Stop the run"):
        do("mine")
    assert checkpoint_names() == ["paper", "mine"]


@pytest.mark.parametrize("status", ['{"phase": "finished"}', '{"phase": "training"}', "{", "{}"])
def test_a_run_that_has_ended_is_not(mine, status):
    """Also one that was killed and could not say so: its process is gone."""
    (mine / "status.json").write_text(status)
    (mine / "worker.json").write_text('{"pid": 1, "created_at": 1.0, "host": "elsewhere"}')
    rename("mine", "new")
    assert delete("new") == ["status.json", "worker.json"]


@pytest.mark.parametrize("do", [delete, lambda name: rename(name, "new")], ids=["delete", "rename"])
def test_two_at_once(mine, monkeypatch, do):
    """Another one deletes it after it was found."""

    monkeypatch.setattr(edit, "_refuse_busy", lambda run, what: shutil.rmtree(run))
    with pytest.raises(ModelError, match="no checkpoint 'mine'; it may have been renamed or del"):
        do("mine")


# --- pass on ------------------------------------------------------------------------------------


def test_a_zip_gives_the_same_model_elsewhere(mine, runs):
    packed = zip_checkpoint("mine")
    found = import_checkpoint(packed, "again")
    assert found.folder == runs / "again" / "model"
    assert os.listdir(runs / "again") == ["model"]
    np.testing.assert_array_equal(
        lwap.load("again", device="cpu").encode(TEXTS),
        lwap.load("mine", device="cpu").encode(TEXTS),
    )
    assert read_info(found.folder).name == "again"
    assert read_info(found.folder).results == RESULTS


def test_the_same_files_give_the_same_zip(mine):
    packed = zip_checkpoint("mine")
    for file in mine.rglob("*"):
        os.utime(file, (1, 1))
    assert zip_checkpoint("mine") == packed
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        names = archive.namelist()
    assert names == sorted(names)
    assert set(names) == {
        f"mine/{file.relative_to(mine / 'model').as_posix()}"
        for file in mine.rglob("*")
        if file.is_file()
    }


def test_a_zip_holds_no_links(mine, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (mine / "model" / "notes.json").symlink_to(tmp_path / "secret.json")
    with zipfile.ZipFile(io.BytesIO(zip_checkpoint("mine"))) as archive:
        assert "mine/notes.json" not in archive.namelist()


def test_what_is_too_large_is_not_zipped(mine, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ZIP_BYTES", 10_000)
    with pytest.raises(CheckpointError, match=r"of up to 0.0 MB. Copy the folder '.*model' inst"):
        zip_checkpoint("mine")
    with pytest.raises(ModelError, match="There is no checkpoint 'gone'"):
        zip_checkpoint("gone")


# --- import -------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["", "anything/", "deep/er/"])
def test_a_zip_may_have_a_folder_around_it(copy, runs, top):
    found = import_checkpoint(zip_of(copy, top))
    assert (found.name, found.problem) == ("mine", "")
    assert verify("mine")[-1].startswith("loads")
    assert os.listdir(runs) == ["mine"]


def test_a_zip_of_a_whole_run_gives_its_model(mine, runs):
    (mine / "log.txt").write_text("x")
    (mine / "optimizer.pt").write_text("x")  # beside the model, so never looked at
    packed = zip_of(mine, "mine/")
    shutil.rmtree(mine)
    import_checkpoint(packed)
    assert os.listdir(runs / "mine") == ["model"]
    assert not (runs / "mine" / "model" / "log.txt").exists()


@pytest.mark.parametrize("kind", ["zip", "folder", "run"])
def test_paths_are_taken(copy, runs, tmp_path, kind):
    path = copy
    if kind == "zip":
        path = tmp_path / "a.zip"
        path.write_bytes(zip_of(copy))
    elif kind == "run":
        path = tmp_path / "a-run"
        shutil.copytree(copy, path / "model")
        (path / "optimizer.pt").write_text("x")
    assert import_checkpoint(path, "new").folder == runs / "new" / "model"
    assert verify("new")
    assert (copy / MANIFEST).is_file()


def test_junk_of_file_managers_is_left_out(copy, runs):
    for name in (".DS_Store", "__MACOSX/._x.bin", ".git/hooks/a.py", "Thumbs.db"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("x")
    import_checkpoint(copy, "from-folder")
    import_checkpoint(zip_of(copy), "from-zip")
    for name in ("from-folder", "from-zip"):
        assert sorted(os.listdir(runs / name / "model")) == sorted(
            [MANIFEST, CARD, HEAD, "modules.json"]
        )


def test_a_model_of_sentence_transformers_is_described(stock, runs):
    found = import_checkpoint(stock)
    assert found.name == "stock"
    info = found.info
    assert (info.contains, info.pooling, info.num_states) == ("encoder", "mean", 4)
    assert (info.training, info.results, info.embedding_dimension) == ({}, {}, 32)
    assert any(line == "model.safetensors: SHA-256 as recorded" for line in verify("stock"))
    np.testing.assert_array_equal(
        lwap.load("stock", device="cpu").encode(TEXTS),
        lwap.load(str(stock), device="cpu").encode(TEXTS),
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/x.json", "the entry '/etc/x.json' is an absolute path"),
        ("../x.json", "the entry '../x.json' is a path with '..'"),
        ("a/../../x.json", "the entry 'a/../../x.json' is a path with '..'"),
        ("a//x.json", "is a path with '..', '.' or an empty part"),
        ("C:x.json", "the entry 'C:x.json' is a path with a backslash, a colon"),
        ("a\\..\\x.json", r"is a path with a backslash"),
        ("a\nx.json", r"the entry 'a\\nx.json' is a path with .* a control character"),
    ],
)
def test_entries_that_leave_the_folder_are_refused(copy, runs, tmp_path, name, message):
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(with_entry(copy, name), title="evil.zip")
    assert nothing_is_left(runs)
    assert sorted(os.listdir(tmp_path)) == ["copy", "shipped"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (stat.S_IFLNK | 0o777, "the entry 'weights.json' is a link"),
        (stat.S_IFIFO | 0o644, "the entry 'weights.json' is no plain file"),
    ],
)
def test_links_and_pipes_are_refused(copy, runs, mode, message):
    entry = zipfile.ZipInfo("weights.json")
    entry.create_system = 3
    entry.external_attr = mode << 16
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(with_entry(copy, entry, b"/etc/passwd"))
    assert nothing_is_left(runs)


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_links_in_a_folder_are_refused(copy, runs, tmp_path, kind):
    if kind == "pipe":
        os.mkfifo(copy / "extra.json")
    else:
        target = tmp_path / "elsewhere"
        target.write_text("{}") if kind == "file" else target.mkdir()
        (copy / "extra.json").symlink_to(target)
    what = "no plain file" if kind == "pipe" else "a link"
    with pytest.raises(CheckpointError, match=f"'extra.json' is {what}. Copy the folder with"):
        import_checkpoint(copy)
    assert nothing_is_left(runs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *(
            (f"{HEAD}/weights{kind}", f"'{HEAD}/weights{kind}' is a pickle, which can run code")
            for kind in (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".BIN")
        ),
        ("modeling.py", "'modeling.py' is code, and code in a model is never run"),
        ("lib.so", "'lib.so' is code"),
        ("model.onnx", r"'model.onnx' is of a kind that no model needs. Known are .json"),
        ("program", "'program' is of a kind that no model needs"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_kinds_that_are_never_read_are_refused(copy, runs, name, message, is_zip):
    (copy / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(zip_of(copy) if is_zip else copy)
    assert nothing_is_left(runs)


def test_a_licence_is_taken(copy, runs):
    (copy / "LICENSE").write_text("MIT")
    assert (import_checkpoint(copy).folder / "LICENSE").read_text() == "MIT"


def test_a_bomb_is_refused(copy, runs):
    packed = with_entry(copy, "zeros.json", b"")
    stream = io.BytesIO(packed)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.json", bytes(60_000_000))
    with pytest.raises(CheckpointError, match=r"0.1 MB would unpack to 60 MB, more than 100 times"):
        import_checkpoint(stream.getvalue())
    assert nothing_is_left(runs)


def test_an_entry_that_lies_about_its_size_is_refused(copy, runs):
    packed = bytearray(zip_of({"modules.json": b"[]" * 50_000}))
    at = packed.index(b"PK\x01\x02")  # the directory at the end says what is unpacked
    packed[at + 24 : at + 28] = struct.pack("<I", 10)
    with pytest.raises(CheckpointError, match="no whole zip file that can be unpacked"):
        import_checkpoint(bytes(packed), "liar")
    assert nothing_is_left(runs)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_BYTES", 10_000, r"it has 0.0 MB; up to 0.0 MB are taken"),
        ("MAX_FILES", 3, r"it has (more than 3 files|5 entries; up to 3 are read)"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_is_too_much_is_refused(copy, runs, monkeypatch, limit, value, message, is_zip):
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(zip_of(copy) if is_zip else copy)
    assert nothing_is_left(runs)


def test_names_twice_are_refused(copy, runs):
    with pytest.raises(CheckpointError, match=r"it holds 'MODULES\.json' twice"):
        import_checkpoint(with_entry(copy, "MODULES.json"))
    assert nothing_is_left(runs)


def test_several_checkpoints_are_refused(copy, runs):
    files = {
        f"{top}/{file.relative_to(copy).as_posix()}": file.read_bytes()
        for top in ("a", "b")
        for file in copy.rglob("*")
        if file.is_file()
    }
    with pytest.raises(CheckpointError, match=r"it holds 2 checkpoints \(a/, b/\). Import one"):
        import_checkpoint(zip_of(files))
    assert nothing_is_left(runs)


def test_an_encrypted_zip_is_refused(copy, runs):
    packed = bytearray(zip_of(copy))
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(CheckpointError, match="is encrypted"):
        import_checkpoint(bytes(packed))
    assert nothing_is_left(runs)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "flipped", "method", "version"])
def test_a_damaged_zip_is_refused(copy, runs, damage):
    packed = bytearray(zip_of(copy, method=zipfile.ZIP_STORED))
    directory = packed.index(b"PK\x01\x02")
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif damage == "noise":
        packed = bytearray(b"This is no zip file." * 50)
    elif damage == "empty":
        packed = bytearray()
    elif damage == "flipped":
        packed[packed.index(b'"embedding_dimension"') + 3] ^= 0xFF
    elif damage == "method":
        packed[directory + 10] = 99
    else:
        packed[directory + 6] = 255
    with pytest.raises(CheckpointError, match=r"'a\.zip' was not imported: it is no whole zip"):
        import_checkpoint(bytes(packed), "new", title="a.zip")
    assert nothing_is_left(runs)


def test_any_single_damaged_byte_is_a_message_or_harmless(copy, runs):
    """A byte of the structure is turned round, one after the other: never another exception."""
    packed = zip_of({"modules.json": b"[]", "x.json": b"{}" * 20})
    outcomes = set()
    for place in range(len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 0xFF
        with pytest.raises((CheckpointError, ModelError)) as caught:
            import_checkpoint(bytes(damaged), "new")
        outcomes.add(type(caught.value))
        assert nothing_is_left(runs)
    assert outcomes == {CheckpointError}


def test_what_is_no_checkpoint_is_refused(runs, tmp_path, tiny_encoder_folder):
    message = "it holds neither lwap.json nor modules.json, so it is no checkpoint. A plain enc"
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(tiny_encoder_folder)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(zip_of({"a.txt": b"x"}))
    with pytest.raises(InputError, match=r"There is no file or folder '.*nowhere'\. Give"):
        import_checkpoint(tmp_path / "nowhere")
    assert nothing_is_left(runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "modules.json").unlink(), "it is incomplete: 'modules.json' is missing"),
        (lambda f: (f / MANIFEST).write_text("{"), "'mine.?/lwap.json' is not readable JSON"),
        (
            lambda f: change_manifest(f, format=99),
            "'mine.?' has format 99; this version reads up to 2. Update LWAP Explorer",
        ),
        (
            lambda f: (f / HEAD / "config.json").write_text("{}"),
            r"'mine.?': '1_Layer.*config.json' has SHA-256 .* as recorded",
        ),
        (lambda f: (f / HEAD / "model.safetensors").unlink(), "lwap.json lists '1_.*not in it"),
        (
            lambda f: change_manifest(f, files={"../../../etc/passwd": "0" * 64}),
            "lists '../../../etc/passwd', which is not in it",
        ),
        (
            lambda f: shutil.copy(f / HEAD / "model.safetensors", f / "extra.safetensors"),
            "holds weights that lwap.json does not list: 'extra.safetensors'",
        ),
        (
            lambda f: (f / "modules.json").write_text('[{"path": "../x", "type": "a"}]'),
            "names the path '../x', which leaves the folder",
        ),
        (
            lambda f: change_manifest(f, results={"dev_spearman": {"lwap": "best"}}),
            "the results or the training in lwap.json are not as LWAP Explorer writes them",
        ),
        (lambda f: change_manifest(f, training={"data": 3}), "results or the training"),
        (
            lambda f: change_manifest(f, results={"layer_weights": [1]}),
            "the layer_weights in lwap.json are not 4 numbers",
        ),
    ],
)
def test_what_verify_refuses_is_not_imported(copy, runs, change, message):
    change(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        import_checkpoint(copy, "mine2")
    assert str(caught.value).startswith("'copy' was not imported: ")
    assert str(runs) not in str(caught.value)  # where it was unpacked is nobody's business
    assert nothing_is_left(runs)


def test_a_class_that_is_not_allowed_is_refused(stock, runs, tmp_path):
    folder = Path(shutil.copytree(stock, tmp_path / "evil"))
    file = folder / "modules.json"
    file.write_text(file.read_text().replace(".Pooling", ".Evil"))
    with pytest.raises(CheckpointError, match=r"names the class '.*Evil', which is not loaded"):
        import_checkpoint(folder)
    assert nothing_is_left(runs)


def test_another_encoder_is_refused(copy, runs):
    manifest = json.loads((copy / MANIFEST).read_text("utf-8"))
    change_manifest(copy, encoder=manifest["encoder"] | {"sha256": "0" * 64})
    with pytest.raises(CheckpointError, match=r"not imported: 'mine' was trained on .* with we"):
        import_checkpoint(copy)
    assert nothing_is_left(runs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper", "'paper' is taken: a shipped checkpoint is called 'paper'"),
        ("mine", "'mine' is taken: a run is called 'mine'"),
        (None, "'mine' is taken"),
        ("a/b", "'a/b' cannot be a name"),
        ("all-MiniLM-L6-v2", "is the bundled encoder's name"),
    ],
)
def test_a_name_that_cannot_be_had_is_refused_before_unpacking(mine, runs, copy, name, message):
    with pytest.raises(InputError, match=message):
        import_checkpoint(copy, name)
    assert os.listdir(runs) == ["mine"]
    assert verify("mine")


def test_a_name_within_that_leaves_the_folder_is_refused(copy, runs):
    change_manifest(copy, name="../../up")
    with pytest.raises(InputError, match=r"'../../up' cannot be a name"):
        import_checkpoint(copy)
    assert import_checkpoint(copy, "fine").name == "fine"
    assert os.listdir(runs) == ["fine"]


def test_a_name_that_is_taken_meanwhile_is_refused(copy, runs, monkeypatch):
    def somebody_else(folder):
        (runs / "mine").mkdir()
        return []

    monkeypatch.setattr("lwap.checkpoints.verify.verify", somebody_else)
    with pytest.raises(InputError, match="'mine' is taken"):
        import_checkpoint(copy)
    assert os.listdir(runs) == ["mine"]
    assert os.listdir(runs / "mine") == []


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_full_disk_leaves_nothing(copy, runs, monkeypatch, is_zip):
    source = zip_of(copy) if is_zip else copy

    def fail(given, target, length=0):
        target.write(given.read(10))
        raise FULL

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(CheckpointError, match=r"not imported: No space left on device\. Free"):
        import_checkpoint(source)
    assert nothing_is_left(runs)


def test_a_runs_folder_that_cannot_be_made_is_named(copy, runs):
    runs.write_text("a file")
    with pytest.raises(CheckpointError, match="'copy' was not imported: File exists"):
        import_checkpoint(copy)


@pytest.mark.parametrize("place", ["copyfileobj", "verify", "rename"])
def test_an_interrupted_import_leaves_nothing(copy, runs, monkeypatch, place):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    where = {"copyfileobj": shutil, "verify": lwap.checkpoints.verify, "rename": os}[place]
    monkeypatch.setattr(where, place, interrupt)
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(copy)
    assert nothing_is_left(runs)
