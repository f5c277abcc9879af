"""What all pages share: the frame, the model picker, the door to the models, messages."""

import contextlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from streamlit.runtime import Runtime
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest, app_test

import lwap
from lwap.errors import InputError
from lwap.ui import cache, frame
from tests.pages.driving import FEW, PAGES, ROOT, SECONDS, TITLES, figures, settle, shown, trace

QUESTIONS = {
    "layers": "Which layers does the model listen to for this sentence?",
    "pairs": "Would another pooling rank my pairs differently?",
    "search": "What would I find?",
    "evaluate": "Which is better, and is the difference real?",
    "space": "Is my space uniform, and what changed?",
    "finetune": "Can a minute of training make it better for me?",
    "models": "Which trained poolings do I have, and can I trust them?",
}


def is_drawn(app) -> bool:
    """Say whether a page shows what it is for: a figure, or on Fine-tune the way to start."""
    starts = [button for button in app.button if button.key == "train_start"]
    return bool(figures(app)) or any(not button.disabled for button in starts)


@pytest.fixture
def alpha(tiny_checkpoints):
    return str(tiny_checkpoints / "alpha")


# --- the frame ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", list(PAGES))
def test_every_page_has_title_question_and_reading(open_page, page):
    app = open_page(page, **FEW)
    assert not app.exception
    assert [title.value for title in app.title] == [TITLES[page]]
    assert app.main.markdown[0].value == QUESTIONS[page]
    readings = [
        block
        for block in app.get("popover")
        if any(len(text.value) > 100 for text in block.markdown)
    ]
    assert [block.proto.popover.label for block in readings] == ["How to read this"]


def test_every_page_is_tested():
    assert sorted(PAGES.values()) == sorted(f"pages/{f.name}" for f in ROOT.glob("pages/*.py"))


def test_the_frame_states_the_model_the_others_and_the_paper(open_page):
    app = open_page("layers")
    facts = shown(app.sidebar.caption)
    assert "4 states of 32" in facts
    assert "**Pooling** lwap  \n" in facts
    assert "ten made-up triplets" in facts
    assert "71.25 [70.50, 72.00] on a made-up dev set" in facts
    model = app.selectbox(key="model")
    assert model.options == ["alpha", "beta", "last", "mix", "all-MiniLM-L6-v2"]
    assert model.value == "alpha"
    box = app.sidebar.expander[0]
    assert box.label == "About"
    assert "arXiv 2209.05972" in box.markdown[0].value


@pytest.mark.slow
def test_the_sidebar_states_what_a_plain_encoder_is(open_page):
    facts = shown(open_page("layers", model="all-MiniLM-L6-v2").sidebar.caption)
    assert "all-MiniLM-L6-v2, 7 states of 384" in facts
    assert "mean" in facts
    assert "as published, nothing of ours" in facts
    assert "none recorded" in facts


@pytest.mark.slow
@pytest.mark.parametrize("page", list(PAGES))
def test_without_any_checkpoint_the_plain_encoder_is_there(open_page, monkeypatch, tmp_path, page):
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "no data"))  # the sample is evaluated
    app = open_page(page, checkpoints=tmp_path / "nothing here", **FEW)
    assert not app.exception
    settle(app)
    assert not app.exception
    assert not app.error
    assert app.selectbox(key="model").options == ["all-MiniLM-L6-v2"]
    assert is_drawn(app)


@pytest.mark.slow
def test_a_damaged_checkpoint_does_not_hide_the_others(open_page, tiny_checkpoints, tmp_path):
    copy = tmp_path / "checkpoints"
    shutil.copytree(tiny_checkpoints, copy)
    (copy / "alpha" / "lwap.json").write_text("{", "utf-8")
    app = open_page("layers", checkpoints=copy)
    assert app.selectbox(key="model").options[:2] == ["beta", "last"]
    assert not app.error


@pytest.mark.slow
@pytest.mark.parametrize("page", list(PAGES))
def test_an_empty_model_in_the_link_is_refused_or_passed_over(open_page, page):
    app = open_page(page, model="", **FEW)
    assert not app.exception
    assert "No model was named" in shown(app.error) or is_drawn(app) or is_drawn(settle(app))


@pytest.mark.slow
def test_names_are_shown_as_they_are(open_page, tiny_encoder_folder, tmp_path):
    folder = tmp_path / "a *starred* _one_ $x$ :red[y]"
    shutil.copytree(tiny_encoder_folder, folder)
    app = open_page("layers", model=str(folder))
    assert not app.error
    line = app.sidebar.caption[0].value
    assert r"a \*starred\* \_one\_ \$x\$ \:red\[y\]" in line
    assert str(folder) in shown(app.sidebar.caption)


@pytest.mark.slow
@pytest.mark.parametrize("page", list(PAGES))
def test_the_first_request_of_a_fresh_server_may_be_for_any_page(open_page, monkeypatch, page):
    """Streamlit then takes pages/ for its older kind of app and runs the page without app.py."""
    monkeypatch.setattr(PagesManager, "uses_pages_directory", None)
    app = open_page(page, **FEW)
    assert not app.exception
    assert not app.error
    assert PagesManager.uses_pages_directory is False
    assert app.title[0].value == TITLES[page]
    assert app.selectbox(key="model").value == "alpha"
    assert "4 states of 32" in shown(app.sidebar.caption)
    assert is_drawn(app) or is_drawn(settle(app))


# --- messages -----------------------------------------------------------------------------------


def test_an_error_of_ours_is_shown_as_it_is_and_ends_the_page():
    def script():
        import streamlit as st

        from lwap.errors import InputError
        from lwap.ui import frame

        with frame.messages():
            raise InputError("Row 1: `a*b*` is <b>3</b>; $x$ is no :red[number] ~~here~~ [x](y).")
        st.write("never reached")

    app = AppTest.from_function(script, default_timeout=SECONDS).run()
    assert not app.exception
    message = "Row 1: `a*b*` is <b>3</b>; $x$ is no :red[number] ~~here~~ [x](y)."
    assert shown(app.error) == message
    assert not app.markdown


def test_another_error_is_not():
    def script():
        from lwap.ui import frame

        with frame.messages():
            raise RuntimeError("a bug")

    app = AppTest.from_function(script, default_timeout=SECONDS).run()
    assert len(app.exception) == 1
    assert not app.error


@pytest.mark.parametrize("mark", list("\\`*_{}[]<>#|~$:"))
def test_every_mark_is_escaped(mark):
    assert frame.escape(f"a{mark}b") == f"a\\{mark}b"


# --- the door to the models ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_checkpoint_trained_anew_is_another_model(open_page, make_checkpoint):
    folder = make_checkpoint("mine")
    app = open_page("layers", model=str(folder))
    before = trace(app, "sentence-weights", "layer weights")["z"]
    shutil.rmtree(folder)
    make_checkpoint("mine", seed=7)
    app.run()
    assert not app.error
    assert not np.allclose(trace(app, "sentence-weights", "layer weights")["z"], before)


def test_the_results_used_last_are_remembered_up_to_a_limit(alpha, encoded):
    texts = [f"Sentence {number}." for number in range(cache.MAX_RESULTS + 1)]
    first = [cache.state_similarity(alpha, [text]) for text in texts[:-1]]
    encoded.clear()
    assert cache.state_similarity(alpha, [texts[0]]) is first[0]
    cache.state_similarity(alpha, [texts[-1]])
    assert cache.state_similarity(alpha, [texts[0]]) is first[0]
    again = cache.state_similarity(alpha, [texts[1]])  # the one used longest ago gave way
    assert again is not first[1] and np.array_equal(again, first[1])
    assert encoded == [1]  # a result that is forgotten is computed anew, its sentence is known


def test_a_failure_is_not_remembered(alpha):
    for _ in range(2):
        with pytest.raises(InputError, match="empty"):
            cache.explain(alpha, ["One.", " "])
    assert cache.explain(alpha, ["One."]).texts == ("One.",)


def test_scores_of_a_comparison_do_not_hold_its_states(alpha):
    assert cache.compare(alpha, [("One.", "Two.")], ["mean"]).bank is None


def test_sessions_at_once_get_what_one_alone_gets(alpha):
    """Threads that share a tokenizer without a lock get each other's truncation."""
    texts = [["heron " * length, f"Number {length}."] for length in (1, 200, 3, 90, 30, 7)]
    model = lwap.load(alpha, device="cpu")
    wanted = [lwap.explain(model, entry).embeddings for entry in texts]
    start = threading.Barrier(len(texts))

    def session(entry):
        start.wait()
        return cache.explain(alpha, entry).embeddings

    with ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(session, texts))
    for ours, alone in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, alone, atol=1e-6)


class StartedForGood(type(Runtime)):
    """A server whose instance can be set and not unset."""

    def __setattr__(cls, name, value):
        if value is not None:
            setattr(Runtime, name, value)


@pytest.mark.slow
def test_two_sessions_at_once_show_the_same(open_page, monkeypatch):
    texts = ["Two people ask at once.", "Both get the same."]
    alone = open_page("layers", s=[*texts, "Asked alone."])
    wanted = np.asarray(trace(alone, "sentence-weights", "layer weights")["z"])[:2]
    configured = app_test.patch_config_options
    # AppTest sets both for the whole process in each run, and unsets them under the other's feet.
    monkeypatch.setattr(Runtime, "_instance", None)
    monkeypatch.setattr(app_test, "Runtime", StartedForGood("Runtime", (Runtime,), {}))
    monkeypatch.setattr(app_test, "patch_config_options", lambda _: contextlib.nullcontext())
    start = threading.Barrier(2)

    def session(number):
        app = AppTest.from_file(ROOT / "app.py", default_timeout=SECONDS)
        app.query_params.update(s=texts, sentence=str(number))
        start.wait()
        app.run()
        app.switch_page(PAGES["pairs"]).run()
        app.switch_page(PAGES["layers"]).run()
        return app

    with configured({"global.appTest": True}), ThreadPoolExecutor(2) as pool:
        first, second = pool.map(session, (1, 2))
    for app, choice in ((first, "1"), (second, "2")):
        assert not app.exception
        assert not app.error
        assert app.selectbox(key="sentence").value == choice
        found = trace(app, "sentence-weights", "layer weights")["z"]
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_manifest_of_the_tiny_checkpoints_is_as_shipped_ones(tiny_checkpoints):
    """The tests' checkpoints stand in for the shipped ones, so they must have the same fields."""
    tiny, shipped = (
        json.loads((folder / "lwap.json").read_text("utf-8"))
        for folder in (tiny_checkpoints / "alpha", ROOT / "checkpoints/lwap-minilm-residual")
    )
    assert tiny.keys() == shipped.keys()
    assert tiny["encoder"].keys() == shipped["encoder"].keys()
