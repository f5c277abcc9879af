"""The card "What did it change?", on the Models page."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from lwap.analysis import changes
from lwap.analysis.changes import what_changed
from lwap.datasets.catalogue import fingerprint
from lwap.datasets.readers import read_sentences
from lwap.errors import InputError
from lwap.ui import change
from lwap.ui.state import ASSETS, sample_pairs
from tests.pages.driving import PAGES, edit, figures, settle, shown, texts_in, trace, works


@pytest.fixture
def own_place(tmp_path, monkeypatch) -> Path:
    """Folders of the test's own, and a server that was asked for nothing yet."""
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    change._registry.clear()
    yield tmp_path
    for found in change._registry().found.values():
        found.stop()
        assert found.wait(60)
    change._registry.clear()


@pytest.fixture
def opened(open_page, tiny_checkpoints, own_place, downloads):
    """The page with the card of a checkpoint of one's own, opened and computed."""
    shutil.copytree(tiny_checkpoints / "beta", own_place / "runs" / "mine" / "model")
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
    found, wanted = json.loads(downloads["lwap-change.json"]()), expected.to_dict()
    assert found.keys() == wanted.keys()
    assert found["verdict"] == wanted["verdict"]
    for name in ("uniformity", "alignment"):
        assert found[name] == pytest.approx(wanted[name])
    rows = [row["sentence1"] for row in found["moved"]]
    assert rows == [row["sentence1"] for row in wanted["moved"]]
    assert found["neighbours"]["kept"] == pytest.approx(wanted["neighbours"]["kept"], abs=1e-3)


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


# --- what is compared ---------------------------------------------------------------------------


@pytest.fixture
def sts(own_place) -> Path:
    """A data folder whose STS-B dev set is ours."""
    (own_place / "data" / "sts").mkdir(parents=True)
    sample_pairs()[:60].to_csv(own_place / "data" / "sts" / "stsb-dev.csv", index=False)
    return own_place


def save_mine(place: Path, checkpoints: Path, name: str = "beta", **results) -> Path:
    """Save a checkpoint of one's own, called mine, with other results."""
    folder = place / "runs" / "mine" / "model"
    shutil.copytree(checkpoints / name, folder)
    file = folder / "lwap.json"
    manifest = json.loads(file.read_text("utf-8"))
    manifest["results"] |= results
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def card_of(open_page, name: str, **link) -> AppTest:
    return settle(open_page("models", checkpoint=name, model_changes="true", **link))


def choices(app: AppTest, key: str = "change_pairs") -> list[str]:
    found = [group for group in app.segmented_control if group.key == key]
    return found[0].options if found else []


def test_the_link_opens_it_and_another_checkpoint_has_its_own(open_page, own_place):
    app = card_of(open_page, "alpha")
    assert not app.exception and not app.error
    first = shown(app.metric)
    assert choices(app) == []  # the example alone
    settle(app.selectbox(key="checkpoint").set_value("beta").run())
    assert not app.exception and not app.error
    assert shown(app.metric) != first
    assert len(change._registry().found) == 2


def test_the_encoder_alone_has_no_card(open_page, own_place):
    app = open_page("models", checkpoint="all-MiniLM-L6-v2", model_changes="true")
    assert not app.exception
    assert not app.metric
    assert "What did it change?" not in [box.label for box in app.expander]
    assert not change._registry().found


def test_the_set_the_step_was_chosen_on_is_no_evidence(open_page, sts, tiny_checkpoints):
    save_mine(sts, tiny_checkpoints, dev_set="STS-B dev")
    app = card_of(open_page, "mine")
    assert choices(app) == ["Example pairs", "STS-B dev"]
    assert "no evidence" not in shown(app.caption)
    settle(app.segmented_control(key="change_pairs").set_value("STS-B dev").run())
    assert (
        "The step was chosen on these pairs, so a gain here is no evidence of one elsewhere."
        in (shown(app.caption))
    )
    assert "Spearman × 100 on the 60 pairs of STS-B dev, a set for choosing;" in shown(app.caption)
    found = what_changed("mine", sample_pairs()[:60], read_sentences(ASSETS / "sentences.csv"))
    assert found.verdict in shown(app.markdown).replace("**", "")


def test_pairs_of_ones_own_come_from_the_pairs_page(open_page, own_place):
    app = open_page("pairs")
    own = [
        {"sentence1": f"The bridge has {count} lamps.", "sentence2": text, "score": score}
        for count, (text, score) in enumerate([("A lamp.", 1.5), ("A bridge.", 3), ("Ice.", 0)])
    ]
    edit(app, added=own, deleted=list(range(len(app.session_state["pairs"]))))
    app.switch_page(PAGES["models"])
    app.session_state["model_changes"] = True
    settle(app.run())
    assert choices(app) == ["Example pairs", "Your pairs"]
    settle(app.segmented_control(key="change_pairs").set_value("Your pairs").run())
    assert not app.exception and not app.error
    assert "Spearman × 100 on 3 scored pairs of the Pairs page;" in shown(app.caption)
    # Too few for percentiles is no error.
    assert choices(app, "change_scale") == ["Rank in this set", "Cosine"]


@pytest.mark.parametrize("scores", [(None, None, None), (1, 2, None), (3, 3, 3)], ids=str)
def test_pairs_that_rank_nothing_are_not_offered(scores, open_page, own_place):
    app = open_page("pairs")
    own = [
        {"sentence1": f"The bridge has {row} lamps.", "sentence2": "Ice.", "score": score}
        for row, score in enumerate(scores)
    ]
    edit(app, added=own, deleted=list(range(len(app.session_state["pairs"]))))
    app.switch_page(PAGES["models"])
    app.session_state["model_changes"] = True
    settle(app.run())
    assert app.metric
    assert choices(app) == []


# --- what is drawn ------------------------------------------------------------------------------


def test_a_scale_of_ones_choice(open_page, own_place):
    app = card_of(open_page, "alpha")
    found = what_changed(
        "alpha", sample_pairs(), read_sentences(ASSETS / "sentences.csv"), aggregation="mean"
    )
    for label, key in (("Rank in this set", "rank"), ("Percentile", "percentile")):
        app.segmented_control(key="change_scale").set_value(label).run()
        moved = found.moved(8, key)
        for name in ("before", "after"):
            drawn = np.asarray(trace(app, "change-moved", name)["x"], dtype=float)
            np.testing.assert_allclose(drawn, moved[f"{key} {name}"], atol=1e-6)
        marks = [entry.get("name") for entry in figures(app)["change-moved"]["data"]]
        assert ("gold" in marks) == (key == "rank")  # scores have a place among ranks alone


def test_weights_of_a_scalar_mix_are_drawn(open_page, own_place):
    app = card_of(open_page, "mix")
    drawn = trace(app, "change-weights", "trained")["y"]
    found = what_changed("mix", sample_pairs(), read_sentences(ASSETS / "sentences.csv"))
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), found.weights.after, atol=1e-6)
    assert "What the untrained head read was not recorded." in shown(app.caption)


# --- the ways on --------------------------------------------------------------------------------


def leave_by(app: AppTest, key: str) -> None:
    """Press a button that opens another page; AppTest's next run would come back from there."""
    app.button(key=key).click().run()
    for work in works():
        assert work.wait(60)


def test_both_maps_are_one_click_away(open_page, own_place, tiny_encoder_folder):
    app = open_page("space", space_b="cls", space_data="Typed")  # something else was chosen before
    settle(app)
    app.switch_page(PAGES["models"])
    app.session_state["model_changes"] = True
    settle(app.run())
    leave_by(app, "change_to_space")
    assert not app.exception and not app.error
    assert app.title[0].value == "Space"
    assert app.selectbox(key="model").value == str(tiny_encoder_folder)
    assert app.selectbox(key="space_model").value == "alpha"
    assert app.selectbox(key="space_a").value == "mean"
    assert app.selectbox(key="space_b").value == "lwap"
    assert "the example, 612" in app.session_state["space_title"]
    assert app.query_params["space_model"] == "alpha"


def test_the_full_evaluation_is_one_click_away(open_page, own_place, tiny_encoder_folder):
    app = card_of(open_page, "beta")
    leave_by(app, "change_to_evaluate")
    assert not app.exception and not app.error
    assert app.title[0].value == "Evaluate"
    assert app.selectbox(key="model").value == "beta"
    assert app.selectbox(key="second").value == str(tiny_encoder_folder)


# --- waiting and failing ------------------------------------------------------------------------


def test_it_can_be_stopped_and_gone_on_with(open_page, own_place, monkeypatch):
    reached, opened = threading.Event(), threading.Event()
    original = changes.what_changed

    def held(*arguments, progress, **options):
        reached.set()
        while not opened.wait(0.05):
            progress(7, 30)
        return original(*arguments, progress=progress, **options)

    monkeypatch.setattr(changes, "what_changed", held)
    app = open_page("models", checkpoint="alpha", model_changes="true")
    assert reached.wait(60)
    app.run()
    assert not app.exception and not app.metric
    assert "model-weights" in figures(app)  # the rest of the page is there
    (work,) = change._registry().found.values()
    assert (work.done, work.total) == (7, 30)
    app.button(key="change_stop").click().run()
    settle(app)
    assert "Stopped. What was encoded is kept" in shown(app.info)
    opened.set()
    settle(app.button(key="change_again").click().run())
    assert not app.exception and app.metric


def test_what_went_wrong_is_said_and_tried_again(open_page, own_place, monkeypatch):
    def broken(*arguments, **options):
        raise InputError("A *made-up* reason.")

    with monkeypatch.context() as patch:
        patch.setattr(changes, "what_changed", broken)
        app = card_of(open_page, "alpha")
        assert "A *made-up* reason." in shown(app.error)
        assert "Model card" in [each.value for each in app.subheader]
    settle(app.button(key="change_again").click().run())
    assert not app.error and app.metric


def test_one_trained_anew_is_computed_anew(open_page, own_place, tiny_checkpoints):
    folder = save_mine(own_place, tiny_checkpoints)
    app = card_of(open_page, "mine")
    before = shown(app.metric)
    shutil.rmtree(folder)
    save_mine(own_place, tiny_checkpoints, "mix")
    settle(app.run())
    assert not app.exception and not app.error
    assert shown(app.metric) != before
    assert "mine, scalar_mix" in shown(app.caption)
