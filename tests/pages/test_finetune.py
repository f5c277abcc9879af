"""The Fine-tune page: what is trained on what, the check, the start, runs that are followed."""

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st

from lwap import jobs
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.save import save_checkpoint
from lwap.datasets import public
from lwap.encoding.sources import BUNDLED, BUNDLED_ID, file_sha256
from lwap.errors import InputError
from lwap.jobs import control, folder
from lwap.jobs.events import EventLog, read_history
from lwap.jobs.folder import Run, Status
from lwap.jobs.state import Phase
from lwap.registry import OBJECTIVES
from lwap.training import TrainConfig
from lwap.training.model import new_model
from lwap.training.presets import PRESETS, config_of
from lwap.training.save import given_settings
from lwap.ui.finetune import checking, settings, training_data
from lwap.ui.finetune import form as finetune
from tests.pages.driving import PAGES, ROOT, figures, settle, shown, texts_in

TRIPLETS, PAIRS = ROOT / "assets/triplets.csv", ROOT / "assets/pairs.csv"
DEV = ["sentence1", "sentence2", "score"]
FIELDS = settings.first() | {
    name: field for group in settings.GROUPS.values() for name, field in group.items()
}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty folder for runs, and no data folder; processes that are left are killed."""
    shelf = tmp_path / "runs"
    monkeypatch.setenv("LWAP_RUNS", str(shelf))
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield shelf
    for run in jobs.list_runs():
        known = folder.read_json(run.folder / folder.WORKER)
        if known and known["pid"] != os.getpid() and control.is_at_work(run):
            os.kill(known["pid"], signal.SIGKILL)


@pytest.fixture
def unstarted(monkeypatch) -> list[Run]:
    """What would have been started: folders are made, no process is, no encoder is looked at."""
    found: list[Run] = []
    monkeypatch.setattr(finetune.jobs, "start", found.append)
    monkeypatch.setattr(checking, "is_here", lambda encoder: False)
    return found


@pytest.fixture
def open_form(open_page, runs, tiny_encoder_folder):
    """Return a function that opens the page in a session of its own, on the tiny encoder."""

    def open_form(**link):
        app = open_page("finetune", **link)
        if app.selectbox and any(box.key == "train_encoder" for box in app.selectbox):
            app.selectbox(key="train_encoder").set_value(str(tiny_encoder_folder)).run()
        return app

    return open_form


@pytest.fixture
def make(runs, tiny_encoder_folder):
    """Return a function that makes a run's folder with events, as if it had been at work."""

    def make(name, steps=6, *, phase=Phase.STOPPED, message="", dev=True, **changes) -> Run:
        small = {"encoder": str(tiny_encoder_folder), "batch_size": 10, "eval_steps": 3}
        config = TrainConfig(**(small | changes))
        run = jobs.create(
            config,
            pd.read_csv(TRIPLETS).head(40),
            pd.read_csv(PAIRS)[DEV] if dev else None,
            given=given_settings(config),
            name=name,
            data_name="a *few* triplets",
            dev_name="the example pairs",
            dev_sha256="d1" if dev else "",
        )
        log = EventLog(run)
        planned = 12
        for step in range(steps + 1):
            if step:
                facts = {"loss": 3 - step / 10, "grad_norm": 1.0, "learning_rate": 1e-3}
                facts |= {"seconds": 0.5, "rows": 10}
                log.write({"event": "step", "step": step, "steps": planned, **facts})
            if step % 3 == 0:
                facts = {"loss": 3.0, "dev": 50.0 + step, "alignment": 0.3, "uniformity": -2.0}
                facts |= {"layer_weights": [0.1, 0.2, 0.3, 0.4]}
                log.write({"event": "look", "step": step, "steps": planned, **facts})
        log.close()
        status = Status(phase=phase, step=steps, steps=planned, message=message, queued_at=1.0)
        run.write_status(status)
        time.sleep(0.01)  # so that the next one is newer
        return run

    return make


def press(app, key):
    return app.button(key=key).click().run()


def keys(app) -> set[str]:
    return {button.key for button in app.button}


def widget(app, name):
    """Return the widget of a setting; a part of its key is the preset's and the mode's."""
    pattern = rf"train_[a-z-]+_(supervised|unsupervised)_{name}(_(head|lora|full))?"
    found = [
        element
        for kind in (app.selectbox, app.number_input, app.toggle)
        for element in kind
        if re.fullmatch(pattern, str(element.key))
    ]
    assert len(found) <= 1
    return found[0] if found else None


def change(app, name, value):
    return widget(app, name).set_value(value).run()


def view(app, name):
    return app.segmented_control(key="train_view").set_value(name).run()


def said(app) -> str:
    return shown([*app.main.markdown, *app.main.caption])


def problems(app) -> str:
    return shown(app.main.error)


def config_on_disk(run: Run) -> dict:
    return json.loads((run.folder / folder.CONFIG).read_text("utf-8"))["config"]


def follow(app, until, seconds=100):
    """Run as the page's clock does until the chosen run is in one of these states."""
    end = time.monotonic() + seconds
    run = control.find(app.selectbox(key="run").value)
    while control.state(run) not in until:
        assert time.monotonic() < end, (control.state(run), run.log_tail())
        assert not app.run().exception
        time.sleep(0.3)
    return app.run()


def wait_for_step(run: Run, step: int, seconds=100) -> None:
    end = time.monotonic() + seconds
    while len(read_history(run.folder).steps) < step:
        assert time.monotonic() < end and control.state(run).is_active, run.log_tail()
        time.sleep(0.1)


# --- the form -----------------------------------------------------------------------------------


def test_the_first_opening_can_be_started_and_is_checked(open_form):
    app = settle(open_form())
    assert not app.exception
    assert not app.main.error and not app.main.warning
    assert app.selectbox(key="train_data").value == "Example: triplets"
    assert app.selectbox(key="train_dev").value == "The 120 example pairs"
    assert app.segmented_control(key="train_preset").value == "minute"
    assert not app.button(key="train_start").disabled
    text = said(app)
    rows = len(pd.read_csv(TRIPLETS))
    assert f"**{rows} triplets** to train on" in text
    assert f"0 of {rows} left out" in text
    assert "**12 steps**" in text
    assert "tokens** a sentence" in text and "limit 64" in text
    assert re.search(r"\*\*About \d+ s\*\* on this machine", text)
    assert re.search(r"[\d.]+ (GB|MB) of [\d.]+ GB free memory", text)
    assert "120 pairs are a coarse measure" in text


def test_every_setting_is_in_the_form():
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert names - {"encoder", "objective"} == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_arrives_in_the_run(name, open_form, unstarted):
    app = open_form()
    if name not in settings.first() and not settings.has_effect(name, "supervised", "head", "lwap"):
        assert widget(app, name) is None  # nothing would read it
        change(app, "mode", "lora")
    value = FIELDS[name].probe
    value = str(value) if isinstance(value, str) else value
    change(app, name, value)
    assert not app.exception and not app.main.error
    press(app, "train_start")
    (run,) = unstarted
    found = config_on_disk(run)
    assert found[name] == value
    assert run.request.given[name] == value
    assert TrainConfig(**found) == TrainConfig(**run.request.config)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_preset_arrives_as_it_is(preset, objective, open_form, unstarted, tiny_encoder_folder):
    app = open_form()
    app.segmented_control(key="train_preset").set_value(preset).run()
    app.segmented_control(key="train_objective").set_value(str(objective)).run()
    press(app, "train_start")
    assert not app.main.error
    wanted = config_of(preset, objective, encoder=str(tiny_encoder_folder)).to_dict()
    found = config_on_disk(unstarted[0])
    assert found.pop("eval_steps") <= wanted.pop("eval_steps")  # so few rows are looked at more
    assert found == wanted


def test_the_base_model_follows_the_preset_unless_it_is_ones_own(open_page, runs, unstarted):
    app = open_page("finetune")
    box = app.selectbox(key="train_encoder")
    assert box.value == BUNDLED
    app.segmented_control(key="train_preset").set_value("paper").run()
    assert app.selectbox(key="train_encoder").value == "bert-base-uncased"
    settle(app)
    assert "'bert-base-uncased' is not on this machine" in said(app)
    app.selectbox(key="train_encoder").set_value("my/own").run()
    app.segmented_control(key="train_preset").set_value("minute").run()
    assert app.selectbox(key="train_encoder").value == "my/own"
    app.selectbox(key="train_encoder").set_value(BUNDLED).run()
    press(app, "train_start")
    assert config_on_disk(unstarted[0])["encoder"] == BUNDLED_ID


def test_an_encoder_typed_in_the_sidebar_is_offered(open_page, runs, tiny_encoder_folder):
    app = open_page("finetune", model=str(tiny_encoder_folder))
    assert str(tiny_encoder_folder) in app.selectbox(key="train_encoder").options
    app = open_page("finetune", model="alpha")
    assert app.selectbox(key="train_encoder").options == [BUNDLED]


def test_a_checkpoint_whose_encoder_was_trained_is_a_base_model(
    open_page, runs, tiny_encoder_folder, monkeypatch
):
    config = TrainConfig(encoder=str(tiny_encoder_folder), mode="lora", pooling="mean")
    save_checkpoint(
        new_model(config, load(config.encoder)),
        runs / "tuned" / "model",
        name="tuned",
        **identify_encoder(config.encoder),
        training=config.to_dict(),
        results={},
        card="# tuned",
        contains="adapter",
    )
    started = []
    monkeypatch.setattr(finetune.jobs, "start", started.append)
    app = open_page("finetune", model="tuned")
    assert app.selectbox(key="train_encoder").options == [BUNDLED, "tuned"]
    app.selectbox(key="train_encoder").set_value("tuned").run()
    settle(app)
    assert not problems(app)
    assert "tokens** a sentence" in said(app)  # the check read it, too
    press(app, "train_start")
    assert config_on_disk(started[0])["encoder"] == "tuned"


def test_what_does_not_go_together_is_said_beside_the_form(open_form, unstarted):
    app = change(open_form(), "pooling", "mean")
    assert not app.exception
    assert "mode 'head' trains the pooling alone, and pooling 'mean' has no weights" in problems(
        app
    )
    assert app.button(key="train_start").disabled
    assert app.selectbox(key="train_data").value == "Example: triplets"  # the rest stands
    change(app, "mode", "full")
    assert not app.main.error
    assert widget(app, "residual") is None and widget(app, "head_learning_rate") is None
    press(app, "train_start")
    assert config_on_disk(unstarted[0])["residual"] == "none"  # the preset's would have no effect


def test_a_value_outside_its_range_is_said(open_form, unstarted):
    app = change(open_form(), "batch_size", 1)
    assert problems(app) == "batch_size is 1; it must be between 2 and 65536."
    assert app.button(key="train_start").disabled
    assert not app.exception


def test_a_mode_brings_its_rates_and_keeps_what_was_typed(open_form, unstarted):
    app = open_form()
    assert widget(app, "learning_rate").value == 1e-3
    change(app, "temperature", 0.2)
    change(app, "mode", "full")
    assert widget(app, "learning_rate").value == 2e-5
    assert widget(app, "head_learning_rate").value == 1e-4
    assert widget(app, "temperature").value == 0.2
    assert widget(app, "epochs").value == 1


def test_a_short_run_is_looked_at_more_often_unless_one_says_how_often(open_form, unstarted):
    app = change(open_form(), "epochs", 30)
    assert widget(app, "eval_steps").value is None
    press(app, "train_start")
    view(app, "New run")
    change(app, "eval_steps", 60)
    press(app, "train_start")
    assert [config_on_disk(run)["eval_steps"] for run in unstarted] == [10, 60]


def test_a_problem_of_the_data_blocks_the_start(open_form):
    app = settle(change(open_form(), "batch_size", 4096))
    rows = len(pd.read_csv(TRIPLETS))
    assert f"batch_size is 4096, but there are only {rows} triplets" in problems(app)
    assert app.button(key="train_start").disabled
    assert not jobs.list_runs()


def test_a_problem_that_is_not_known_yet_is_found_at_the_start(open_form, monkeypatch):
    monkeypatch.setattr(checking.Check, "compute", lambda self, models: self._stopping.wait(5))
    app = change(open_form(), "batch_size", 4095)
    assert not app.button(key="train_start").disabled
    press(app, "train_start")
    assert "batch_size is 4095, but there are only" in problems(app)
    assert not jobs.list_runs()


def test_a_warning_blocks_nothing(open_form):
    app = settle(change(open_form(), "eval_steps", 50))
    assert "eval_steps is 50: the best step is chosen from the start" in shown(app.main.warning)
    assert not app.button(key="train_start").disabled


def test_an_encoder_that_cannot_be_used_blocks_the_start(open_form, tmp_path):
    (tmp_path / "empty").mkdir()
    app = open_form()
    app.selectbox(key="train_encoder").set_value(str(tmp_path / "empty")).run()
    settle(app)
    assert not app.exception
    assert str(tmp_path / "empty") in problems(app)
    assert app.button(key="train_start").disabled
    app.selectbox(key="train_encoder").set_value("no hub id: at all").run()
    settle(app)
    assert "neither a folder here nor a well-formed hub id" in problems(app)


def test_a_checkpoint_is_no_base_model(open_form, tiny_checkpoints):
    app = open_form()
    app.selectbox(key="train_encoder").set_value(str(tiny_checkpoints / "alpha")).run()
    settle(app)
    assert "is a checkpoint with a head. Train from its encoder instead" in problems(app)


def test_a_name_that_cannot_be_is_refused(open_form, unstarted):
    app = open_form()
    app.text_input(key="train_name").set_value("../up").run()
    press(app, "train_start")
    assert "'../up' cannot be a run's name. Use letters, digits" in problems(app)
    app.text_input(key="train_name").set_value("mine").run()
    press(app, "train_start")
    assert [run.name for run in unstarted] == ["mine"]
    assert "--name mine" in unstarted[0].request.command


def test_a_double_click_starts_one_run(runs, unstarted, monkeypatch):
    """The second click's callback comes with what the first one's page had."""
    source = training_data.Source("t", "t.csv", "0", training_data.read_any(TRIPLETS))
    plan = finetune.Plan(TrainConfig(), source, None)
    monkeypatch.setattr(st, "session_state", {})
    finetune._start(plan, None, 0)
    finetune._start(plan, None, 0)
    assert len(unstarted) == 1
    finetune._start(plan, None, 1)
    assert len(unstarted) == 2


def test_the_runs_folder_cannot_be_written(open_form, runs, monkeypatch):
    runs.write_text("a file is in the way")
    app = settle(open_form())
    press(app, "train_start")
    assert "The run cannot be written into" in problems(app)
    assert not app.exception


# --- data ---------------------------------------------------------------------------------------


def upload(app, key, name, content):
    if key == "train_upload":
        app.selectbox(key="train_data").set_value("A file of yours").run()
    else:
        app.selectbox(key="train_dev").set_value("Scored pairs of yours").run()
    return app.file_uploader(key=key).set_value((name, content, "text/plain")).run()


BAD = [
    ("a.csv", b"one,two\n1,2\n", "'a.csv' has no column 'sent0'; it has ['one', 'two']"),
    ("a.csv", b"", "'a.csv' is empty"),
    ("a.csv", b"sent0,sent1,hard_neg\n,,\n", "none of the 1 rows is whole"),
    ("a.csv", "sent0,sent1\nä,b".encode("latin-1"), "'a.csv' is not UTF-8 text"),
    ("a.docx", b"x", "'a.docx' ends in '.docx'; tables are read from .csv"),
    ("a.jsonl", b"{not json", "'a.jsonl' is not a readable .jsonl file"),
    ("a.parquet", b"no parquet", "'a.parquet' is not a readable .parquet file"),
    ("a.txt", b"\n \n", "'a.txt' is empty"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_a_wrong_file_is_explained(name, content, message, open_form, unstarted):
    app = upload(open_form(), "train_upload", name, content)
    assert not app.exception
    assert message in problems(app)
    assert app.button(key="train_start").disabled
    upload(app, "train_upload", "b.csv", TRIPLETS.read_bytes())
    assert not app.main.error
    assert not app.button(key="train_start").disabled


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"sentence1,sentence2\na,b\n", "'p.csv' has no column 'score'"),
        (
            "p.csv",
            b"sentence1,sentence2,score\na,b,high\n",
            "'score' is 'high'; scores are numbers",
        ),
        (
            "p.csv",
            b"sentence1,sentence2,score\na,b,1\nc,d,1\ne,f,1\n",
            "have the same score (1): nothing can be ranked",
        ),
    ],
)
def test_wrong_scored_pairs_are_explained(name, content, message, open_form, unstarted):
    app = upload(open_form(), "train_dev_upload", name, content)
    assert not app.exception
    assert message in problems(app)
    assert app.button(key="train_start").disabled


def as_file(table: pd.DataFrame, name: str) -> bytes:
    if name.endswith(".jsonl"):
        return table.to_json(orient="records", lines=True).encode()
    if name.endswith(".parquet"):
        return table.to_parquet(index=False)
    return table.to_csv(index=False, sep="\t" if name.endswith(".tsv") else ",").encode()


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_triplets_of_ones_own_are_trained_on(name, open_form, unstarted, tmp_path):
    table = pd.read_csv(TRIPLETS).head(70)
    content = as_file(table, name)
    app = upload(open_form(), "train_upload", name, content)
    press(app, "train_start")
    assert not app.main.error
    (run,) = unstarted
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / folder.DATA), table)
    (tmp_path / name).write_bytes(content)
    assert run.request.data_sha256 == file_sha256(tmp_path / name)
    assert run.request.dev_sha256 == file_sha256(PAIRS)
    assert (run.request.data_name, run.request.rows) == (name, 70)
    assert f"train --triplets {name}" in run.request.command
    assert "--dev assets/pairs.csv" in run.request.command


def test_pairs_without_negatives_and_ones_own_scores(open_form, unstarted):
    table = pd.read_csv(TRIPLETS)[["sent0", "sent1"]].head(80)
    scored = pd.read_csv(PAIRS)[DEV].head(20)
    app = upload(open_form(), "train_upload", "pairs.csv", as_file(table, "pairs.csv"))
    upload(app, "train_dev_upload", "mine.csv", as_file(scored, "mine.csv"))
    settle(app)
    assert "**80 pairs** to train on" in said(app)
    press(app, "train_start")
    (run,) = unstarted
    pd.testing.assert_frame_equal(pd.read_parquet(run.folder / folder.DEV), scored)
    assert run.request.dev_name == "mine.csv"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.txt", "\n".join(pd.read_csv(TRIPLETS)["sent0"].head(70)).encode()),
        (
            "s.csv",
            as_file(pd.DataFrame({"text": pd.read_csv(TRIPLETS)["sent0"].head(70)}), "s.csv"),
        ),
    ],
)
def test_sentences_of_ones_own_are_trained_on_without_labels(name, content, open_form, unstarted):
    app = upload(open_form(), "train_upload", name, content)
    assert "70 sentences: trained without labels (unsupervised)" in said(app)
    assert "A tenth of the rows, held out" not in app.selectbox(key="train_dev").options
    press(app, "train_start")
    (run,) = unstarted
    assert config_on_disk(run)["objective"] == "unsupervised"
    wanted = pd.read_csv(TRIPLETS)["sent0"].head(70).str.strip().tolist()
    assert pd.read_parquet(run.folder / folder.DATA)["sentence"].tolist() == wanted
    assert f"train --sentences {name}" in run.request.command


def test_triplets_can_be_trained_on_as_sentences(open_form, unstarted):
    app = open_form()
    app.segmented_control(key="train_objective").set_value("unsupervised").run()
    settle(app)
    distinct = len(set(pd.read_csv(TRIPLETS).stack()))
    assert f"**{distinct} sentences** to train on" in said(app)
    press(app, "train_start")
    (run,) = unstarted
    assert config_on_disk(run)["objective"] == "unsupervised"
    command = run.request.command
    assert "train --triplets assets/triplets.csv" in command
    assert "--objective unsupervised" in command


def test_a_tenth_is_held_out(open_form, unstarted):
    app = open_form()
    app.selectbox(key="train_dev").set_value("A tenth of the rows, held out").run()
    settle(app)
    assert re.search(r"\d+ held out", said(app))
    press(app, "train_start")
    (run,) = unstarted
    assert not (run.folder / folder.DEV).exists()
    assert run.request.dev_sha256 == ""
    assert "--dev " not in run.request.command


def test_the_data_folder_is_offered(open_form, unstarted, tmp_path):
    data = tmp_path / "data"
    for name in ("nli/mine.csv", "wiki/some.txt", "sts/stsb-dev.csv", ".hidden/x.csv", "notes.md"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(TRIPLETS, data / "nli/mine.csv")
    (data / "wiki/some.txt").write_text("\n".join(pd.read_csv(TRIPLETS)["sent1"]))
    shutil.copy(TRIPLETS, data / ".hidden/x.csv")
    (data / "notes.md").write_text("no data")
    pd.read_csv(PAIRS)[DEV].to_csv(data / "sts/stsb-dev.csv", index=False)
    app = open_form()
    options = app.selectbox(key="train_data").options
    assert options[3:5] == ["nli/mine.csv", "wiki/some.txt"]
    assert options[5:] == ["Hub: nli", "Hub: nli-simcse", "Hub: wiki", "Hub: wiki1m"]
    assert app.selectbox(key="train_dev").value == "STS-B dev"
    app.selectbox(key="train_data").set_value("nli/mine.csv").run()
    press(app, "train_start")
    assert not app.main.error
    command = unstarted[0].request.command
    assert "--triplets $LWAP_DATA/nli/mine.csv" in command
    assert "--dev $LWAP_DATA/sts/stsb-dev.csv" in command
    view(app, "New run")
    app.selectbox(key="train_data").set_value("wiki/some.txt").run()
    press(app, "train_start")
    assert config_on_disk(unstarted[1])["objective"] == "unsupervised"


def test_a_leak_is_said(open_form, tmp_path):
    pairs = pd.read_csv(PAIRS)
    rows = {"sent0": pairs["sentence1"], "sent1": pairs["sentence2"]}
    table = pd.DataFrame(rows).drop_duplicates()
    app = upload(open_form(), "train_upload", "leaky.csv", as_file(table, "leaky.csv"))
    settle(app)
    assert "Leaks into: the example pairs" in said(app)
    assert "are also in 'the example pairs'" in shown(app.main.warning)


def test_rows_that_are_left_out_are_named(open_form):
    table = pd.read_csv(TRIPLETS).head(100)
    table.loc[4, "hard_neg"] = ""
    table.loc[9] = table.loc[2]
    app = upload(open_form(), "train_upload", "t.csv", as_file(table, "t.csv"))
    settle(app)
    text = said(app)
    assert "2 of 100 left out" in text
    assert "empty cell: 1." in text and "Row 5: hard_neg is empty." in text
    assert "duplicate: 1." in text and "Row 10: the same as row 3." in text


def test_a_public_set_is_fetched(open_form, unstarted, tmp_path, monkeypatch):
    def fetch(name, folder_, progress):
        target = Path(folder_) / public.public_set(name).files[0].path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TRIPLETS, target)
        return [target]

    app = open_form()
    app.selectbox(key="train_data").set_value("Hub: nli-simcse").run()
    assert "'nli-simcse' is not on this machine yet" in problems(app)
    assert "About 50 MB" in said(app) and "SNLI: CC BY-SA 4.0" in said(app)
    assert app.button(key="train_start").disabled
    monkeypatch.setattr(training_data, "download", fetch)
    press(app, "train_download")
    settle(app)
    assert not app.exception
    assert "nli/simcse-triplets.csv" in app.selectbox(key="train_data").options
    assert "Hub: nli-simcse" not in app.selectbox(key="train_data").options


def test_a_download_that_fails_says_so(open_form, unstarted, monkeypatch):
    def fail(name, folder_, progress):
        raise InputError("The hub cannot be reached. Try later.")

    monkeypatch.setattr(training_data, "download", fail)
    app = open_form()
    app.selectbox(key="train_data").set_value("Hub: wiki").run()
    press(app, "train_download")
    settle(app)
    assert "The hub cannot be reached. Try later." in problems(app)
    assert "train_download" in keys(app)  # one more try
    assert not app.exception


# --- a run that is at work ----------------------------------------------------------------------


def test_two_clicks_from_the_example_to_a_model_in_use(open_form, runs):
    app = open_form()
    press(app, "train_start")
    name = app.selectbox(key="run").value
    assert app.segmented_control(key="train_view").value == "Runs"
    assert name.startswith("lwap-last-mean-2")
    assert app.query_params["run"] == name
    assert {"run_stop"} <= keys(app) and "run_delete" not in keys(app)
    follow(app, {"finished"})
    settle(app)
    assert not app.exception and not app.main.error
    assert "**Finished.**" in shown(app.main.success)
    assert {"run-course", "run-weights-over-time", "run-plane-path"} <= figures(app).keys()
    assert "untouched encoder" in texts_in(figures(app)["run-course"])
    assert re.search(r"\*\*Dev score\*\* −?[\d.]+ \[.*\] on the example pairs", said(app))
    assert "**Against the encoder's mean**" in said(app)
    table = app.dataframe[0].value.set_index("Run")
    assert table.loc[name, "State"] == "finished" and table.loc[name, "Progress"] == 100
    assert {"run_use", "run_delete"} <= keys(app)
    press(app, "run_use")
    assert app.selectbox(key="model").value == name
    assert app.button(key="run_use").disabled
    assert "4 states of 32" in shown(app.sidebar.caption)
    other = open_form(run=name)  # a reload, or a link
    assert other.segmented_control(key="train_view").value == "Runs"
    assert other.selectbox(key="run").value == name
    assert "run-course" in figures(other)


@pytest.mark.slow
def test_a_run_is_stopped_resumed_killed_and_found_again_with_another_waiting(open_form, runs):
    app = open_form()
    change(app, "epochs", 1000)
    change(app, "eval_steps", 100)
    app.text_input(key="train_name").set_value("long").run()
    press(app, "train_start")
    run = control.find("long")
    wait_for_step(run, 3)
    app.run()
    assert "**Training.** Step" in progress_texts(app)
    assert "of 4,000" in said(app)

    # A second one waits for its turn, and is stopped while it waits.
    view(app, "New run")
    assert "Running: long. A new run waits for its turn." in said(app)
    app.text_input(key="train_name").set_value("second").run()
    press(app, "train_start")
    follow(app, {"queued"})
    assert "**Queued.** Waits for" in progress_texts(app)
    press(app, "run_stop")
    follow(app, {"stopped"})
    assert "starts again at the first step" in shown(app.main.info)
    assert app.dataframe[0].value["State"].tolist() == ["stopped", "training"]

    # The first one is stopped by hand, and resumed.
    app.selectbox(key="run").set_value("long").run()
    press(app, "run_stop")
    follow(app, {"stopped"})
    assert re.search(
        r"Stopped at step \d+ of 4000. It resumes from step \d+.", shown(app.main.info)
    )
    stopped_at = run.checkpoint
    press(app, "run_resume")
    assert {"run_stop"} <= keys(app)
    wait_for_step(run, stopped_at + 3)
    assert read_history(run.folder).resumed_at == [stopped_at]

    # Killed, it says nothing; the page does.
    os.kill(folder.read_json(run.folder / folder.WORKER)["pid"], signal.SIGKILL)
    follow(app, {"vanished"})
    text = shown(app.main.warning)
    assert "**Vanished.** Its process vanished at step" in text
    assert f"It resumes from step {stopped_at}." in text
    assert app.dataframe[0].value["State"].tolist() == ["stopped", "vanished"]
    press(app, "run_resume")
    follow(app, {"preparing", "training"})
    assert not app.exception
    press(app, "run_stop")
    follow(app, {"stopped"})


def progress_texts(app) -> str:
    found = "\n".join(bar.proto.text for bar in app.get("progress"))
    return re.sub(r"\\(.)", r"\1", found)


# --- runs that are there ------------------------------------------------------------------------


def test_without_runs_there_is_a_word(open_page, runs):
    app = open_page("finetune", train_view="Runs")
    assert "There are no runs yet" in shown(app.main.info)
    assert not app.exception
    view(app, "Compare")
    assert "There is no run with a curve yet" in shown(app.main.info)


def test_a_run_of_the_link_that_is_gone_is_said(open_page, make):
    make("here")
    app = open_page("finetune", run="away")
    assert "'away' is no longer there" in shown(app.main.warning)
    assert app.selectbox(key="run").value == "here"
    assert not app.exception


def test_the_newest_run_comes_first_and_is_chosen(open_page, make):
    make("older")
    make("newer")
    app = open_page("finetune", train_view="Runs")
    assert app.selectbox(key="run").options == ["newer", "older"]
    assert app.query_params["run"] == "newer"
    assert app.dataframe[0].value["Progress"].tolist() == [50, 50]


def test_numbers_curves_settings_and_log(open_page, make, downloads):
    run = make("one", temperature=0.1)
    (run.folder / folder.LOG).write_text("a word\nand `another`\n")
    app = open_page("finetune", run="one")
    text = said(app)
    assert "Step  \n**6 of 12**" in text
    assert "Loss  \n**2.4000**" in text
    assert "Best dev  \n**56.00 at step 6**" in text
    assert "Rows per second  \n**20**" in text
    drawn = figures(app)
    assert {"run-course", "run-weights-over-time", "run-plane-path", "run-optimisation"} == set(
        drawn
    )
    assert "60 sentences a second" in texts_in(drawn["run-course"])  # three a triplet
    assert "untouched" not in texts_in(drawn["run-course"])  # nobody has measured it
    settings = next(t.value for t in app.dataframe if "Setting" in t.value).set_index("Setting")
    assert settings.loc["temperature", "Value"] == "0.1"
    assert settings.loc["temperature", "Set"] == "changed"
    assert settings.loc["warmup", "Set"] == ""
    assert "a *few* triplets, 40 rows" in text
    assert "and `another`" in "\n".join(code.value for code in app.code)
    assert downloads["one-metrics.jsonl"]() == (run.folder / folder.METRICS).read_bytes()
    assert downloads["one-log.txt"]() == b"a word\nand `another`\n"


def test_the_untouched_encoder_is_a_line_from_the_start(open_page, make):
    run = make("tuned")
    log = EventLog(run)
    log.write({"event": "start", "step": 0, "steps": 12, "untouched": 50.0})
    log.close()
    drawn = figures(open_page("finetune", run="tuned"))
    assert "untouched encoder 50.00" in texts_in(drawn["run-course"])


def test_a_failed_run_says_why_and_can_go_on(open_page, make):
    make("bad", phase=Phase.FAILED, message="The run diverged: *so* it was")
    app = open_page("finetune", run="bad")
    assert "The run diverged: *so* it was. It starts again at the first step." in problems(app)
    assert {"run_resume", "run_delete"} <= keys(app)


def test_a_run_is_deleted_after_a_question(open_page, make):
    make("stays")
    run = make("goes")
    app = open_page("finetune", run="goes")
    press(app, "run_delete")
    assert "Delete goes?" in said(app) and "there is no way back" in said(app)
    press(app, "run_delete_not")
    assert run.folder.exists() and "Delete goes?" not in said(app)
    press(app, "run_delete")
    press(app, "run_delete_now")
    assert not run.folder.exists()
    assert "'goes' is deleted." in shown(app.main.success)
    assert app.selectbox(key="run").options == ["stays"]
    assert not app.main.warning


def test_a_question_is_about_one_run(open_page, make):
    make("a")
    make("b")
    app = press(open_page("finetune", run="a"), "run_delete")
    app.selectbox(key="run").set_value("b").run()
    assert "run_delete_now" not in keys(app)


def test_a_run_that_another_person_deletes_or_resumes(open_page, make, monkeypatch):
    run = make("ours")
    make("other")
    app = open_page("finetune", run="ours")
    shutil.rmtree(run.folder)
    app.run()
    assert not app.exception
    assert "'ours' is no longer there" in shown(app.main.warning)
    assert app.selectbox(key="run").value == "other"
    press(app, "run_delete")
    monkeypatch.setattr(control, "is_at_work", lambda run: True)
    other = control.find("other")
    other.write_status(dataclasses.replace(other.status, phase=Phase.TRAINING))
    press(app, "run_delete_now")
    assert "Run 'other' is at work. Stop it before you delete it." in problems(app)
    assert other.folder.exists() and not app.exception


def test_a_run_that_has_just_ended_cannot_be_stopped(open_page, make):
    make("swift", phase=Phase.TRAINING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "is_at_work", lambda run: True)
        app = open_page("finetune", run="swift")
        assert "run_stop" in keys(app)
    press(app, "run_stop")
    assert "Run 'swift' is not at work, so there is nothing to stop." in problems(app)
    assert not app.exception


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}'])
def test_a_damaged_folder_is_shown_and_can_be_deleted(content, open_page, make):
    make("whole")
    run = make("broken")
    (run.folder / folder.CONFIG).write_text(content)
    app = open_page("finetune", run="broken")
    assert not app.exception
    assert "Run 'broken'" in problems(app)
    table = app.dataframe[0].value.set_index("Run")
    assert table.loc["broken", "State"] == "damaged"
    assert table.loc["whole", "State"] == "stopped"
    assert "run_resume" not in keys(app)
    press(app, "run_delete")
    press(app, "run_delete_now")
    assert not run.folder.exists()
    assert app.selectbox(key="run").options == ["whole"]


@pytest.mark.parametrize(
    ("line", "is_drawn"),
    [
        ('{"event": "step", "st', True),
        ("\x00\xff", True),
        ('{"event": "step", "step": 7, "steps": 12, "loss": "high"}', False),
        ('{"event": "look", "step": 9, "steps": 12, "dev": 1e9}', False),
        ('{"event": "look", "step": 9, "steps": 12, "dev": 50, "layer_weights": [1]}', False),
    ],
)
def test_damaged_metrics_do_not_break_the_page(line, is_drawn, open_page, make):
    run = make("torn")
    with (run.folder / folder.METRICS).open("a") as file:
        file.write(line + "\n")
    app = open_page("finetune", run="torn")
    assert not app.exception
    assert ("run-course" in figures(app)) == is_drawn
    if not is_drawn:
        assert "metrics.jsonl is damaged" in shown(app.main.warning)
    assert "run_delete" in keys(app)


def test_a_damaged_status_does_not_break_the_page(open_page, make):
    run = make("odd")
    (run.folder / folder.STATUS).write_text('{"phase": "dancing", "step": "x"}')
    app = open_page("finetune", run="odd")
    assert not app.exception
    assert app.dataframe[0].value["State"].tolist() == ["vanished"]


# --- several runs -------------------------------------------------------------------------------


def test_runs_are_compared(open_page, make):
    make("a", temperature=0.1)
    make("b", epochs=5)
    make("c", dev=False)
    app = open_page("finetune", train_view="Compare")
    assert app.multiselect(key="runs").value == ["c", "b"]
    assert "measured on different dev sets" in shown(app.main.warning)
    app.multiselect(key="runs").set_value(["a", "b"]).run()
    assert not app.exception and not app.main.warning
    assert {"compared-course", "compared-plane-path"} <= figures(app).keys()
    names = {entry.get("name") for entry in figures(app)["compared-course"]["data"]}
    assert {"a", "b"} <= names
    found = app.dataframe[0].value
    assert found.columns.tolist() == ["a", "b"]
    assert set(found.index) == {"state", "dev score", "temperature", "epochs"}
    assert found.loc["epochs"].tolist() == ["3", "5"]
    app.multiselect(key="runs").set_value([]).run()
    assert "No run is chosen" in shown(app.main.info)


def test_a_compared_run_that_is_deleted_leaves_the_others(open_page, make):
    for name in ("a", "b"):
        make(name)
    app = open_page("finetune", train_view="Compare", runs=["a", "b"])
    shutil.rmtree(control.find("a").folder)
    app.run()
    assert not app.exception
    assert app.multiselect(key="runs").value == ["b"]


def test_the_form_is_kept_while_another_page_is_looked_at(open_form, unstarted):
    app = open_form()
    change(app, "temperature", 0.2)
    app.switch_page(PAGES["models"]).run()
    app.switch_page(PAGES["finetune"]).run()
    assert widget(app, "temperature").value == 0.2
