"""The card "What did it change?", on the Models page."""

import json
import shutil
from pathlib import Path

import pytest

from lwap.catalogue import fingerprint
from lwap.changes import what_changed
from lwap.data import read_sentences
from lwap.ui import change
from lwap.ui.state import ASSETS, sample_pairs
from tests.pages.driving import figures, settle, texts_in


@pytest.fixture
def opened(open_page, tiny_checkpoints, tmp_path, monkeypatch, downloads):
    """The page with the card of a checkpoint of one's own, opened and computed."""
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "no-data"))
    shutil.copytree(tiny_checkpoints / "beta", tmp_path / "runs" / "mine" / "model")
    change._registry.clear()
    app = open_page("models", checkpoint="mine")
    assert not change._registry().find(change._request("mine", example()))  # closed: nothing yet
    app.session_state["model_changes"] = True
    return settle(app.run())


def example() -> change.PairSet:
    return change.PairSet(change.EXAMPLE, "", sample_pairs(), aggregation="mean")


@pytest.fixture
def expected():
    return what_changed(
        "mine",
        sample_pairs(),
        read_sentences(ASSETS / "sentences.csv"),
        pairs_name=change.EXAMPLE,
        aggregation="mean",
    )


def test_the_card_says_what_the_library_says(opened, expected):
    assert not opened.exception
    said = "\n".join(each.value for each in opened.markdown)
    numbers = f"{expected.before.spearman.value:.2f} → {expected.after.spearman.value:.2f}"
    assert numbers.replace("-", "−") in said
    metrics = {metric.label: metric.value for metric in opened.metric}
    assert metrics["Spearman ↑"] == f"{expected.after.spearman.value:.2f}".replace("-", "−")
    assert metrics["Neighbours kept"] == f"{expected.kept.mean():.0%}"
    (listed,) = [each.value for each in opened.dataframe if "gained" in each.value]
    first = expected.changed(1)[0]
    assert listed.iloc[0].tolist() == [
        first.sentence,
        first.kept,
        " · ".join(first.lost),
        " · ".join(first.gained),
    ]


def test_the_pairs_that_moved_most_are_drawn(opened, expected):
    drawn = figures(opened)
    moved = expected.moved(1)
    assert moved.sentence1[0][:20] in texts_in(drawn["change-moved"])
    assert "change-weights" in drawn


def test_what_was_computed_is_found_again(opened):
    request = change._request("mine", example())
    assert request.data == fingerprint(sample_pairs())
    found = change._registry().find(request)
    assert found is not None and found.result is not None
    settle(opened.run())
    assert change._registry().find(request) is found


def test_all_numbers_can_be_taken_away(opened, expected, downloads):
    found = json.loads(downloads["lwap-change.json"]())
    assert found == json.loads(json.dumps(expected.to_dict()))


def test_an_encoder_that_is_gone_is_told_in_the_card(
    open_page, tiny_checkpoints, tmp_path, monkeypatch
):
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    folder = tmp_path / "runs" / "mine" / "model"
    shutil.copytree(tiny_checkpoints / "beta", folder)
    manifest = json.loads((folder / "lwap.json").read_text("utf-8"))
    manifest["encoder"]["id"] = str(Path(tmp_path) / "gone")
    (folder / "lwap.json").write_text(json.dumps(manifest), encoding="utf-8")
    app = open_page("models", checkpoint="mine")
    app.session_state["model_changes"] = True
    settle(app.run())
    assert not app.exception
    assert any("gone" in error.value for error in app.error)
