"""The card "What did it change?", on the Models page."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from lwap.analysis import changes
from lwap.analysis.change import Change
from lwap.analysis.changes import what_changed
from lwap.datasets.readers import read_sentences
from lwap.datasets.tasks import fingerprint
from lwap.errors import InputError
from lwap.ui import change
from lwap.ui.state import ASSETS, sample_pairs
from tests.holding import SECONDS, Gate
from tests.pages.driving import PAGES, edit, figures, settle, shown, texts_in, trace, works


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch) -> Path:
    """Folders of the test's own, and a server that was asked for nothing yet."""
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "data"))
    change._registry.clear()
    yield tmp_path
    for found in asked().values():
        found.stop()
        assert found.wait(SECONDS)
    change._registry.clear()


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.opened.set()


def asked() -> dict:
    """Return the comparisons that the server was asked for, by request."""
    return change._registry().found


def expected(name: str, pairs=None, **options) -> Change:
    """Return what the library says has changed."""
    pairs = sample_pairs() if pairs is None else pairs
    return what_changed(name, pairs, read_sentences(ASSETS / "sentences.csv"), **options)


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


def choose(app: AppTest, key: str, label: str) -> AppTest:
    return settle(app.segmented_control(key=key).set_value(label).run())


def test_the_card_says_what_the_library_says(open_page, own_place, tiny_checkpoints, downloads):
    save_mine(own_place, tiny_checkpoints)
    app = open_page("models", checkpoint="mine")
    assert not asked()  # closed: nothing yet
    app.session_state["model_changes"] = True
    settle(app.run())
    assert not app.exception
    wanted = expected("mine", pairs_name=change.EXAMPLE, aggregation="mean")
    said = "\n".join(each.value for each in app.markdown)
    numbers = f"{wanted.before.spearman.value:.2f} → {wanted.after.spearman.value:.2f}"
    assert numbers.replace("-", "−") in said
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["Spearman ↑"] == f"{wanted.after.spearman.value:.2f}".replace("-", "−")
    assert metrics["Neighbours kept"] == f"{wanted.kept.mean():.0%}"
    (listed,) = [each.value for each in app.dataframe if "gained" in each.value]
    first = wanted.changed(1)[0]
    assert listed.iloc[0].tolist() == [
        first.sentence,
        first.kept,
        " · ".join(first.lost),
        " · ".join(first.gained),
    ]

    # The pairs that moved most are drawn.
    drawn = figures(app)
    moved = wanted.moved(1)
    assert moved.sentence1[0][:20] in texts_in(drawn["change-moved"])
    assert "change-weights" in drawn

    # All numbers can be taken away.
    found, wanted = json.loads(downloads["lwap-change.json"]()), wanted.to_dict()
    assert found.keys() == wanted.keys()
    assert found["verdict"] == wanted["verdict"]
    for name in ("uniformity", "alignment"):
        assert found[name] == pytest.approx(wanted[name])
    rows = [row["sentence1"] for row in found["moved"]]
    assert rows == [row["sentence1"] for row in wanted["moved"]]
    assert found["neighbours"]["kept"] == pytest.approx(wanted["neighbours"]["kept"], abs=1e-3)

    # What was computed is found again.
    ((request, work),) = asked().items()
    assert request.data == fingerprint(sample_pairs())
    assert work.result is not None
    settle(app.run())
    assert asked() == {request: work}


@pytest.mark.slow
def test_an_encoder_that_is_gone_is_told_in_the_card(open_page, own_place, tiny_checkpoints):
    folder = save_mine(own_place, tiny_checkpoints)
    manifest = json.loads((folder / "lwap.json").read_text("utf-8"))
    manifest["encoder"]["id"] = str(own_place / "gone")
    (folder / "lwap.json").write_text(json.dumps(manifest), encoding="utf-8")
    app = card_of(open_page, "mine")
    assert not app.exception
    assert any("gone" in error.value for error in app.error)


# --- what is compared ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_link_opens_it_and_another_checkpoint_has_its_own(open_page):
    app = card_of(open_page, "alpha")
    assert not app.exception and not app.error
    first = shown(app.metric)
    assert choices(app) == []  # the example alone
    found = expected("alpha", aggregation="mean")
    for label, key in (("Rank in this set", "rank"), ("Percentile", "percentile")):
        choose(app, "change_scale", label)
        moved = found.moved(8, key)
        for name in ("before", "after"):
            drawn = np.asarray(trace(app, "change-moved", name)["x"], dtype=float)
            np.testing.assert_allclose(drawn, moved[f"{key} {name}"], atol=1e-6)
        marks = [entry.get("name") for entry in figures(app)["change-moved"]["data"]]
        assert ("gold" in marks) == (key == "rank")  # scores have a place among ranks alone
    settle(app.selectbox(key="checkpoint").set_value("beta").run())
    assert not app.exception and not app.error
    assert shown(app.metric) != first
    assert len(asked()) == 2


@pytest.mark.slow
def test_the_encoder_alone_has_no_card(open_page):
    app = open_page("models", checkpoint="all-MiniLM-L6-v2", model_changes="true")
    assert not app.exception
    assert not app.metric
    assert "What did it change?" not in [box.label for box in app.expander]
    assert not asked()


@pytest.mark.slow
def test_the_set_the_step_was_chosen_on_is_no_evidence(open_page, own_place, tiny_checkpoints):
    (own_place / "data" / "sts").mkdir(parents=True)
    pairs = sample_pairs()[:60]
    pairs.to_csv(own_place / "data" / "sts" / "stsb-dev.csv", index=False)
    save_mine(own_place, tiny_checkpoints, dev_set="STS-B dev")
    app = card_of(open_page, "mine")
    assert choices(app) == ["Example pairs", "STS-B dev"]
    assert "no evidence" not in shown(app.caption)
    choose(app, "change_pairs", "STS-B dev")
    assert (
        "The step was chosen on these pairs, so a gain here is no evidence of one elsewhere."
        in (shown(app.caption))
    )
    assert "Spearman × 100 on the 60 pairs of STS-B dev, a set for choosing;" in shown(app.caption)
    assert expected("mine", pairs).verdict in shown(app.markdown).replace("**", "")


@pytest.mark.slow
def test_pairs_of_ones_own_come_from_the_pairs_page_where_they_rank_something(open_page):
    texts = ["A lamp.", "A bridge.", "Ice."]
    for scores in ((None, None, None), (1, 2, None), (3, 3, 3), (1.5, 3, 0)):
        app = open_page("pairs")
        own = [
            {"sentence1": f"The bridge has {row} lamps.", "sentence2": text, "score": score}
            for row, (text, score) in enumerate(zip(texts, scores, strict=True))
        ]
        edit(app, added=own, deleted=list(range(len(app.session_state["pairs"]))))
        app.switch_page(PAGES["models"])
        app.session_state["model_changes"] = True
        settle(app.run())
        assert app.metric
        is_ranked = scores == (1.5, 3, 0)
        assert choices(app) == (["Example pairs", "Your pairs"] if is_ranked else [])
    choose(app, "change_pairs", "Your pairs")
    assert not app.exception and not app.error
    assert "Spearman × 100 on 3 scored pairs of the Pairs page;" in shown(app.caption)
    # Too few for percentiles is no error.
    assert choices(app, "change_scale") == ["Rank in this set", "Cosine"]


@pytest.mark.slow
def test_one_trained_anew_is_computed_anew_and_its_own_weights_are_drawn(
    open_page, own_place, tiny_checkpoints
):
    folder = save_mine(own_place, tiny_checkpoints)
    app = card_of(open_page, "mine")
    before = shown(app.metric)
    shutil.rmtree(folder)
    save_mine(own_place, tiny_checkpoints, "mix")
    settle(app.run())
    assert not app.exception and not app.error
    assert shown(app.metric) != before
    assert "mine, scalar_mix" in shown(app.caption)
    drawn = np.asarray(trace(app, "change-weights", "trained")["y"], dtype=float)
    np.testing.assert_allclose(drawn, expected("mine").weights.after, atol=1e-6)
    assert "The untrained head's weights were not recorded." in shown(app.caption)


# --- the ways on --------------------------------------------------------------------------------


def leave_by(app: AppTest, key: str) -> None:
    """Press a button that opens another page; AppTest's next run would come back from there."""
    app.button(key=key).click().run()
    for work in works():  # what the page has started, nobody looks at
        work.stop()
        assert work.wait(SECONDS)


@pytest.mark.slow
def test_both_maps_are_one_click_away(open_page, tiny_encoder_folder):
    # Something else was chosen on the Space page before.
    app = settle(open_page("space", space_b="cls", space_data="Typed", projection="PCA"))
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


@pytest.mark.slow
def test_the_full_evaluation_is_one_click_away(open_page, tiny_encoder_folder):
    app = card_of(open_page, "beta")
    leave_by(app, "change_to_evaluate")
    assert not app.exception and not app.error
    assert app.title[0].value == "Evaluate"
    assert app.selectbox(key="model").value == "beta"
    assert app.selectbox(key="second").value == str(tiny_encoder_folder)


# --- waiting and failing ------------------------------------------------------------------------


def test_it_can_fail_be_stopped_and_gone_on_with(open_page, gate, monkeypatch):
    def broken(*arguments, **options):
        raise InputError("A *made-up* reason.")

    def held(*arguments, progress, **options):
        progress(7, 30)
        gate.pass_through()
        progress(8, 30)  # hears of a stop
        return what_changed(*arguments, progress=progress, **options)

    monkeypatch.setattr(changes, "what_changed", broken)
    app = card_of(open_page, "alpha")
    assert "A *made-up* reason." in shown(app.error)
    assert "Model card" in [each.value for each in app.subheader]

    monkeypatch.setattr(changes, "what_changed", held)
    app.button(key="change_again").click().run()
    assert gate.reached.wait(SECONDS)
    app.run()
    assert not app.exception and not app.error and not app.metric
    assert "model-weights" in figures(app)  # the rest of the page is there
    (work,) = asked().values()
    assert (work.done, work.total) == (7, 30)
    app.button(key="change_stop").click().run()
    gate.opened.set()
    settle(app)
    assert "Stopped. What was encoded is kept" in shown(app.info)
    settle(app.button(key="change_again").click().run())
    assert not app.exception and app.metric
