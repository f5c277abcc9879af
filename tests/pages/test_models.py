"""The Models page: all checkpoints compared, one managed, a zip file or a folder imported."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lwap.checkpoints.manifest import checkpoint_names, read_info
from lwap.encoding.sources import BUNDLED
from lwap.jobs import Run
from lwap.jobs.control import write_worker
from lwap.library.archive import MAX_ZIP_BYTES, import_checkpoint, zip_checkpoint
from lwap.library.edit import delete
from lwap.ui.models import one as ui_models
from tests.pages.driving import FEW, PAGES, figures, is_dark, shown, texts_in, trace


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """An empty folder for runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("LWAP_RUNS", str(folder))
    return folder


@pytest.fixture
def mine(runs, tiny_checkpoints, monkeypatch) -> Path:
    """The run "mine": a checkpoint with layer weights, and a log beside it."""
    folder = runs / "mine" / "model"
    shutil.copytree(tiny_checkpoints / "beta", folder)
    change_manifest(
        folder,
        name="mine",
        results={
            "dev_set": "a *dev* set",
            "dev_spearman": {"lwap": {"value": 80.5, "low": 79.25, "high": 81.0}},
            "dev_difference_to_mean": {"value": -1.5, "low": -2.0, "high": -1.0},
            "layer_weights": [0.1, 0.2, 0.3, 0.4],
        },
    )
    (runs / "mine" / "log.txt").write_text("x")
    return runs / "mine"


@pytest.fixture
def open_models(open_page):
    """Return a function that opens the page in a session of its own; by keyword, the link."""

    def open_models(**link):
        return open_page("models", **link)

    return open_models


def change_manifest(folder: Path, **changes) -> None:
    file = folder / "lwap.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def look_into(app, name):
    return app.selectbox(key="checkpoint").set_value(name).run()


def press(app, key):
    return app.button(key=f"model_{key}").click().run()


def table(app):
    return app.dataframe[0].value.set_index("Model")


def said(app) -> str:
    return shown(app.main.markdown)


def assert_is_whole(app):
    assert not app.exception
    assert not app.error
    assert "model-weights" in figures(app)


# --- what there is ------------------------------------------------------------------------------


def test_all_checkpoints_and_the_encoder_are_compared(open_models, mine):
    app = open_models()
    assert_is_whole(app)
    rows = table(app)
    assert rows.index.tolist() == ["alpha", "beta", "last", "mix", "mine", BUNDLED]
    assert rows["Origin"].tolist() == ["shipped"] * 4 + ["yours", "package"]
    assert rows.loc["mine", "Dev score"] == "80.50 [79.25, 81.00]"
    assert rows.loc["mine", "Against mean"] == "−1.50 [−2.00, −1.00]"
    assert rows.loc["last", "Pooling"] == "lwap, last query"
    assert rows.loc["mix", "Pooling"] == "scalar mix"
    assert rows.loc["alpha", "Data"] == "ten made-up triplets"
    assert "State" not in rows.columns
    size = sum(file.stat().st_size for file in (mine / "model").rglob("*") if file.is_file())
    assert rows.loc["mine", "MB"] == pytest.approx(size / 1e6)


def test_the_figure_has_the_recorded_weights(open_models, mine):
    app = open_models()
    drawn = np.asarray(trace(app, "model-weights", "layer weights")["z"], dtype=float)
    assert drawn.shape == (2, 7)
    np.testing.assert_allclose(drawn[0, :4], [0.1, 0.2, 0.3, 0.4])
    assert np.isnan(drawn[0, 4:]).all()  # it has four states
    assert drawn[1].tolist() == [0, 0, 0, 0, 0, 0, 1]  # the mean of the last layer
    assert "No weights recorded: alpha, beta, last, mix." in shown(app.main.caption)
    assert not is_dark(app)


@pytest.mark.slow
def test_the_shipped_ones_are_drawn(open_page, runs):
    app = open_page("models", shipped=True)
    assert_is_whole(app)
    names = ("lwap-minilm", "lwap-minilm-paper", "lwap-minilm-residual")
    weights = [read_info(Path("checkpoints") / name).results["layer_weights"] for name in names]
    drawn = np.asarray(trace(app, "model-weights", "layer weights")["z"])
    np.testing.assert_allclose(drawn[:3], weights)
    assert "+1.30 [+0.75, +1.83]: better on this set" in said(app)
    assert "+0.10 [−0.04, +0.26]" in said(app)  # against what it started from
    look_into(app, "lwap-minilm-paper")
    assert "−2.43 [−3.21, −1.67]: worse on this set" in said(app)
    assert "Spearman × 100 of the cosine on STS-B dev" in said(app)


def test_a_model_that_was_trained_in_another_way_says_so(open_models, mine):
    change_manifest(mine / "model", training={"mode": "lora", "data": "d", "triplets": 1234})
    app = open_models(checkpoint="mine")
    assert table(app).loc["mine", "Trained"] == "LoRA"
    assert "**Trained** LoRA on d, 1,234 rows" in said(app)


@pytest.mark.slow
def test_a_dark_browser_gets_a_dark_figure(open_models, mine):
    assert is_dark(open_models(theme="dark"))


@pytest.mark.parametrize("damage", ["manifest", "missing", "newer"])
def test_a_damaged_one_is_shown_with_its_problem_and_can_be_deleted(open_models, mine, damage):
    file = mine / "model" / "lwap.json"
    if damage == "manifest":
        file.write_text("{")
    elif damage == "missing":
        file.unlink()
    else:
        change_manifest(mine / "model", format=99)
    app = open_models()
    assert not app.error
    assert table(app).loc["mine", "State"] == "damaged"
    look_into(app, "mine")
    message = {"manifest": "is not readable JSON", "missing": "is missing", "newer": "format 99"}
    assert message[damage] in shown(app.error)
    assert app.button(key="model_use").disabled
    press(press(app, "delete"), "delete_now")
    assert "'mine' is deleted. Kept from its run: log.txt." in shown(app.success)
    assert "mine" not in table(app).index
    assert not (mine / "model").exists()


@pytest.mark.slow
def test_two_of_one_name_are_kept_apart(open_models, mine, runs, taken):
    (runs / "mine").rename(runs / "alpha")
    app = open_models()
    assert table(app).loc["alpha (yours)", "State"] == "name taken"
    look_into(app, "alpha (yours)")
    assert "A shipped checkpoint has the name 'alpha' too" in shown(app.error)
    with zipfile.ZipFile(io.BytesIO(taken("alpha.zip"))) as archive:
        packed = json.loads(archive.read("alpha/lwap.json"))
    assert packed["results"]["dev_set"] == "a *dev* set"  # of this one, not of the shipped one
    press(app, "rename")
    app.text_input(key="models_new_name").set_value("mine")
    press(app, "rename_now")
    assert not app.error
    assert app.selectbox(key="checkpoint").value == "mine"
    assert "alpha" in table(app).index and "mine" in table(app).index


def test_results_that_are_none_break_nothing(open_models, mine):
    change_manifest(
        mine / "model",
        results={"dev_spearman": 3, "layer_weights": "x", "dev_set": 4},
        training={"data": [1], "mode": ["x"], "triplets": "y"},
    )
    app = open_models(checkpoint="mine")
    assert_is_whole(app)
    assert table(app).loc["mine", "Dev score"] == ""


# --- the card -----------------------------------------------------------------------------------


def test_a_card_fetches_no_picture_and_keeps_its_code(open_models, mine):
    (mine / "model" / "README.md").write_text(
        "---\nlicense: mit\n---\n\n# A card\n\n![seen](http://example.org/me.png)\n\n"
        "```bash\n# a comment\necho ![x]\n```\n"
    )
    app = open_models(checkpoint="mine")
    text = app.main.markdown[-1].value
    assert text.startswith("#### A card")
    assert "![seen]" not in text
    assert "```bash\n# a comment\necho ![x]\n```" in text
    assert "license" not in text


@pytest.mark.parametrize(
    ("card", "shown_as"),
    [
        ("\\![a](b)", "\\&#33;[a](b)"),
        ("![a][b]", "&#33;[a][b]"),
        (
            "~~~\n![a](b)\n```\n![a](b)\n~~~\n![a](b)",
            "~~~\n![a](b)\n```\n![a](b)\n~~~\n&#33;[a](b)",
        ),
        ("````\n```\n![a](b)\n````\n![a](b)", "````\n```\n![a](b)\n````\n&#33;[a](b)"),
        ("#### deep\n## two", "#### deep\n##### two"),
    ],
)
def test_cards_are_made_harmless(card, shown_as):
    assert ui_models.card_markdown(card) == shown_as


def test_a_checkpoint_without_a_card_says_so(open_models, mine):
    (mine / "model" / "README.md").unlink()
    assert "This checkpoint has no card" in said(open_models(checkpoint="mine"))


# --- what can be done ---------------------------------------------------------------------------


@pytest.mark.slow
def test_use_puts_it_into_the_picker(open_models, mine):
    app = press(open_models(checkpoint="mine"), "use")
    assert app.selectbox(key="model").value == "mine"
    assert app.button(key="model_use").disabled
    assert "a *dev* set" in shown(app.sidebar.caption)
    app.switch_page(PAGES["layers"]).run()
    assert app.selectbox(key="model").value == "mine"
    assert not app.error


def test_verify_says_what_was_checked(open_models, mine):
    app = press(open_models(checkpoint="mine"), "verify")
    assert "Verified" in shown(app.success)
    assert "- modules.json: SHA-256 as recorded" in said(app)
    assert "loads, and encodes into 32 dimensions" in said(app)
    look_into(app, "alpha")
    assert not app.success  # it was not of this one
    look_into(app, "mine")
    assert "Verified" in shown(app.success)
    change_manifest(mine / "model", name="other")
    app.run()
    assert not app.success  # nor is it of what was put in its place


def test_verify_says_what_is_wrong(open_models, mine):
    weights = next(mine.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4])
    app = press(open_models(checkpoint="mine"), "verify")
    assert "Not to be trusted." in shown(app.error)
    assert "has SHA-256" in shown(app.error)
    assert not app.success


@pytest.mark.parametrize("name", ["alpha", BUNDLED])
def test_what_is_not_ones_own_cannot_be_changed(open_models, mine, name):
    app = open_models(checkpoint=name)
    assert app.button(key="model_rename").disabled
    assert app.button(key="model_delete").disabled


@pytest.mark.slow
def test_rename_asks_for_a_name_and_the_picker_follows(open_models, mine, runs):
    app = open_models(checkpoint="mine", model="mine")
    press(app, "rename")
    assert app.text_input(key="models_new_name").value == "mine"
    app.text_input(key="models_new_name").set_value("alpha")
    press(app, "rename_now")
    assert "'alpha' is taken: a shipped checkpoint" in shown(app.error)
    app.text_input(key="models_new_name").set_value(" mine-v2 ")
    press(app, "rename_now")
    assert not app.error and not app.sidebar.warning
    assert "'mine' is now called 'mine-v2'." in shown(app.success)
    assert app.selectbox(key="checkpoint").value == "mine-v2"
    assert app.selectbox(key="model").value == "mine-v2"
    assert not [field for field in app.text_input if field.key == "models_new_name"]
    assert checkpoint_names()[-1] == "mine-v2"


def test_delete_asks_says_what_is_lost_and_the_picker_falls_back(open_models, mine, runs):
    app = press(open_models(checkpoint="mine", model="mine"), "delete")
    assert "Delete mine? Its weights, its card and its scores are lost" in said(app).replace(
        "*", ""
    )
    assert "Other files of the run are kept: log.txt." in said(app)
    assert (mine / "model").is_dir()
    press(app, "delete_not")
    assert "Delete mine?" not in said(app)
    press(press(app, "delete"), "delete_now")
    assert not app.error and not app.exception
    assert "'mine' is deleted. Kept from its run: log.txt." in shown(app.success)
    assert app.selectbox(key="model").value == "alpha"
    assert "'mine' is no longer there" in shown(app.sidebar.warning)
    assert app.selectbox(key="checkpoint").value == "alpha"
    assert not (mine / "model").exists()
    app.run()
    assert not app.sidebar.warning


def test_looking_at_another_one_asks_no_more(open_models, mine, runs):
    shutil.copytree(mine, runs / "other")
    app = press(open_models(checkpoint="mine"), "delete")
    look_into(app, "other")
    look_into(app, "mine")
    assert not [button for button in app.button if button.key == "model_delete_now"]


def test_a_run_that_goes_on_is_left_alone(open_models, mine):
    (mine / "status.json").write_text('{"phase": "training"}')
    write_worker(Run(mine), os.getpid())
    app = press(press(open_models(checkpoint="mine"), "delete"), "delete_now")
    assert "'mine' is training, so it cannot be deleted now." in shown(app.error)
    assert (mine / "model").is_dir()


@pytest.mark.parametrize("what", ["delete", "rename", "verify"])
def test_somebody_else_deletes_it_meanwhile(open_models, mine, runs, what):
    app = open_models(checkpoint="mine")
    if what != "verify":
        press(app, what)
    delete("mine")
    if what == "rename":
        app.text_input(key="models_new_name").set_value("new")
    press(app, what if what == "verify" else f"{what}_now")
    assert not app.exception
    if what == "verify":
        assert "'mine' is no longer there: it was renamed or deleted." in shown(app.warning)
    else:
        assert "There is no checkpoint 'mine'; it may have been renamed" in shown(app.error)
    assert app.selectbox(key="checkpoint").value == "alpha"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "key"), [("evaluate", "second"), ("space", "space_model"), ("layers", "other")]
)
def test_no_other_picker_stays_on_what_is_gone(open_page, mine, page, key):
    app = open_page(page, view="Difference", by_model="true", **FEW)
    app.selectbox(key=key).set_value("mine").run()
    assert not app.error
    delete("mine")
    app.run()
    assert not app.exception
    assert not app.error
    assert app.selectbox(key=key).value != "mine"


def test_a_download_is_what_can_be_imported(open_models, mine, taken):
    open_models(checkpoint="mine")
    packed = taken("mine.zip")
    assert packed == zip_checkpoint("mine")
    assert import_checkpoint(packed, "again").info.name == "again"


def test_what_is_too_large_is_not_offered(open_models, mine):
    with (mine / "model" / "large.bin").open("wb") as file:
        file.truncate(MAX_ZIP_BYTES + 1)  # takes no room on the disk
    app = open_models(checkpoint="mine")
    (button,) = [entry for entry in app.get("download_button") if "Download" in str(entry.proto)]
    assert button.proto.disabled


# --- import -------------------------------------------------------------------------------------


def ask_import(app, *, file=None, path="", name=""):
    if file is not None:
        uploader = next(entry for entry in app.file_uploader if "models_upload" in entry.key)
        uploader.set_value(file)
    fields = {field.key.rsplit("_", 1)[0]: field for field in app.text_input if field.key}
    fields["models_path"].set_value(path)
    fields["models_name"].set_value(name)
    return app.button(key="models_import_now").click().run()


def test_a_zip_is_imported_and_looked_into(open_models, mine, runs):
    app = open_models()
    file = ("beta.zip", zip_checkpoint("beta"), "application/zip")
    ask_import(app, file=file, name="gift")
    assert not app.error and not app.exception
    assert "'gift' is imported and verified." in shown(app.success)
    assert app.selectbox(key="checkpoint").value == "gift"
    assert "gift" in app.selectbox(key="model").options
    assert read_info(runs / "gift" / "model").name == "gift"
    empty = next(field for field in app.text_input if field.key.startswith("models_name"))
    assert empty.value == ""


def test_a_folder_is_imported(open_models, runs, tiny_checkpoints):
    app = ask_import(open_models(), path=str(tiny_checkpoints / "last"), name="copied")
    assert app.selectbox(key="checkpoint").value == "copied"
    assert (runs / "copied" / "model" / "lwap.json").is_file()


def test_an_evil_zip_is_a_message_and_nothing_is_kept(open_models, runs):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../lwap.json", "{}")
    app = ask_import(open_models(), file=("evil.zip", stream.getvalue(), "application/zip"))
    assert not app.exception
    assert "'evil.zip' was not imported: the entry '../lwap.json'" in shown(app.error)
    assert list(runs.iterdir()) == []
    assert "model-weights" in figures(app)  # the rest of the page is there


@pytest.mark.parametrize("both", [True, False])
def test_one_source_is_needed(open_models, runs, both):
    options = {"file": ("a.zip", b"x", "application/zip"), "path": "/a"} if both else {}
    app = ask_import(open_models(), **options)
    assert "Choose a zip file or type a path, not both." in shown(app.error)


def test_names_are_shown_as_they_are(open_models, runs, tiny_checkpoints):
    shutil.copytree(tiny_checkpoints / "beta", runs / "a *b* $c$ :red[d]" / "model")
    app = open_models(checkpoint="a *b* $c$ :red[d]")
    assert not app.exception
    press(app, "delete")
    assert "Delete a *b* $c$ :red[d]?" in said(app)
    assert "a *b* $c$ :red[d]" in shown(app.main.caption)
    assert "<script" not in texts_in(figures(app)["model-weights"])
