"""The Layers page: sentences in, attention, weights and knock-out out."""

import json
import shutil

import numpy as np
import pytest

import lwap
from lwap.encoding.sources import file_sha256
from lwap.ui import layers as ui_layers
from tests.pages.driving import figures, is_dark, shown, texts_in, trace

TYPED = ["A heron waits in the reeds.", "The heron has flown away.", "Nobody saw the heron."]
VIEWS = ["One sentence", "Side by side", "Difference"]


def type_sentences(app, sentences):
    text = sentences if isinstance(sentences, str) else "\n".join(sentences)
    return app.text_area(key="layers_text").set_value(text).run()


def cells(app, key="attention", name="layer attention"):
    """Return a heatmap's numbers, as the person sees them."""
    return np.asarray(trace(app, key, name)["z"], dtype=float)


def assert_is_whole(app):
    """Nothing was raised and nothing said as an error."""
    assert not app.exception
    assert not app.error


# --- opening ------------------------------------------------------------------------------------


def test_it_opens_filled(open_page):
    app = open_page("layers")
    assert_is_whole(app)
    assert not is_dark(app)
    assert app.title[0].value == "Layers"
    assert list(figures(app)) == ["attention", "sentence-weights"]
    assert cells(app).shape == (4, 4)
    assert len(app.text_area(key="layers_text").value.splitlines()) == 5
    assert "What to look for" in shown(app.caption)


@pytest.mark.slow
def test_the_shipped_checkpoints_come_first_and_open(open_page):
    app = open_page("layers", shipped=True)
    model = app.selectbox(key="model")
    assert model.options[:-1] == [info.name for info in lwap.list_checkpoints()]
    assert model.options[:3] == ["lwap-minilm", "lwap-minilm-paper", "lwap-minilm-residual"]
    assert model.value == "lwap-minilm"
    for view in VIEWS[::-1]:
        app.button_group(key="view").set_value(view).run()
        assert_is_whole(app)
        assert not app.warning
    for name in model.options[:3]:
        app.selectbox(key="model").set_value(name).run()
        assert_is_whole(app)
        assert not app.warning
        assert app.session_state["model"] == name
        assert "7 states of 384" in shown(app.sidebar.caption)
        assert cells(app).shape == (7, 7)
        np.testing.assert_allclose(cells(app).sum(axis=1), 1, atol=1e-5)


# --- the figures show what the library says -----------------------------------------------------


def test_the_figure_shows_the_library_numbers_of_what_is_typed(open_page, alpha_model):
    typed = [f"  {TYPED[0]}  ", "", "   ", f"\t{TYPED[1]}", TYPED[2]]
    app = type_sentences(open_page("layers"), typed)
    app.selectbox(key="sentence").set_value("2").run()
    wanted = lwap.explain(alpha_model, TYPED)
    figure = figures(app)["attention"]
    weights, attention, knockout = figure["data"]
    np.testing.assert_allclose(attention["z"], wanted.attention[1], atol=1e-6)
    np.testing.assert_allclose(weights["y"], wanted.weights[1], atol=1e-6)
    np.testing.assert_allclose(knockout["y"], wanted.knockout[1], atol=1e-6)
    everything = cells(app, "sentence-weights", "layer weights")
    np.testing.assert_allclose(everything, wanted.weights, atol=1e-6)


@pytest.mark.slow
def test_what_was_explained_is_not_explained_again(open_page, encoded):
    sentences = ["It is remembered.", "For all sessions."]
    app = type_sentences(open_page("layers"), sentences)
    encoded.clear()
    app.button_group(key="view").set_value(VIEWS[1]).run()
    assert_is_whole(open_page("layers", s=sentences))
    assert encoded == []


@pytest.mark.slow
def test_the_example_menu_fills_the_sentences(open_page):
    app = type_sentences(open_page("layers"), TYPED)
    assert "What to look for" not in shown(app.caption)
    app.selectbox(key="example").set_value("Polysemy").run()
    assert_is_whole(app)
    assert "We found a broken seal on the jar." in app.text_area(key="layers_text").value
    assert "What to look for" in shown(app.caption)
    assert "broken seal" in texts_in(figures(app)["sentence-weights"])


@pytest.mark.slow
def test_a_dark_browser_gets_dark_figures(open_page):
    app = open_page("layers", theme="dark")
    assert_is_whole(app)
    assert is_dark(app)


# --- views --------------------------------------------------------------------------------------


def test_side_by_side_shows_the_first_six(open_page):
    app = type_sentences(open_page("layers"), [f"Sentence {word}." for word in "abcdefgh"])
    app.button_group(key="view").set_value("Side by side").run()
    assert_is_whole(app)
    assert "The first 6 of 8 sentences" in shown(app.caption)
    maps = [entry for entry in figures(app)["attention-grid"]["data"] if entry["type"] == "heatmap"]
    assert len(maps) == 6


def test_difference_between_sentences(open_page, alpha_model):
    app = type_sentences(open_page("layers"), TYPED)
    app.button_group(key="view").set_value("Difference").run()
    assert_is_whole(app)
    app.selectbox(key="from").set_value("3").run()
    app.selectbox(key="to").set_value("1").run()
    wanted = lwap.explain(alpha_model, TYPED)
    drawn = [e for e in figures(app)["attention-difference"]["data"] if e["type"] == "heatmap"]
    difference = np.asarray(drawn[0]["z"], dtype=float)
    np.testing.assert_allclose(
        np.abs(difference), np.abs(wanted.attention[0] - wanted.attention[2]), atol=1e-6
    )
    change = figures(app)["pair-knockout"]["data"][0]["y"]
    np.testing.assert_allclose(change, wanted.pair_knockout(2, 0), atol=1e-6)


@pytest.mark.slow
def test_difference_needs_two_sentences(open_page):
    app = type_sentences(open_page("layers"), ["Only one sentence."])
    app.button_group(key="view").set_value("Difference").run()
    assert_is_whole(app)
    assert "A difference needs two sentences" in shown(app.info)
    assert list(figures(app)) == ["sentence-weights"]


@pytest.mark.slow
def test_a_sentence_minus_itself_has_no_knockout_of_a_pair(open_page):
    app = type_sentences(open_page("layers"), TYPED)
    app.button_group(key="view").set_value("Difference").run()
    app.selectbox(key="to").set_value("1").run()
    assert_is_whole(app)
    assert "pair-knockout" not in figures(app)


@pytest.mark.slow
def test_difference_between_checkpoints(open_page, alpha_model, tiny_checkpoints):
    app = type_sentences(open_page("layers"), TYPED)
    app.button_group(key="view").set_value("Difference").run()
    app.toggle(key="by_model").set_value(True).run()
    assert_is_whole(app)
    assert app.selectbox(key="other").value == "beta"
    assert "alpha" not in app.selectbox(key="other").options
    beta_model = lwap.load(str(tiny_checkpoints / "beta"), device="cpu")
    alpha, beta = (lwap.explain(model, TYPED) for model in (alpha_model, beta_model))
    drawn = [e for e in figures(app)["attention-difference"]["data"] if e["type"] == "heatmap"]
    np.testing.assert_allclose(
        np.abs(np.asarray(drawn[0]["z"], dtype=float)),
        np.abs(beta.attention[0] - alpha.attention[0]),
        atol=1e-6,
    )


@pytest.mark.slow
def test_checkpoints_of_other_shapes_are_not_subtracted(open_page):
    app = type_sentences(open_page("layers"), TYPED)
    app.button_group(key="view").set_value("Difference").run()
    app.toggle(key="by_model").set_value(True).run()
    app.selectbox(key="other").set_value("last").run()
    assert not app.exception
    assert "'last' has 1 × 4 entries, that of 'alpha' 4 × 4" in shown(app.error)
    assert "sentence-weights" in figures(app)


@pytest.mark.slow
def test_comparing_with_what_has_no_attention_says_so(open_page, tiny_encoder_folder):
    app = open_page("layers", view="Difference", by_model="true", other=str(tiny_encoder_folder))
    assert not app.exception
    assert "has no trained layer attention" in shown(app.error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last", "mix"])
def test_heads_with_one_query_open_in_every_view(open_page, name):
    app = open_page("layers", model=name)
    for view in VIEWS:
        app.button_group(key="view").set_value(view).run()
        assert_is_whole(app)
        assert "sentence-weights" in figures(app)


@pytest.mark.slow
def test_a_model_without_attention_explains_itself(open_page, tiny_encoder_folder):
    app = open_page("layers", model=str(tiny_encoder_folder))
    type_sentences(app, TYPED)
    app.selectbox(key="sentence").set_value("3").run()
    assert_is_whole(app)
    assert "no trained layer attention" in shown(app.info)
    assert list(figures(app)) == ["states"]
    bank = lwap.encode_layers(lwap.load(str(tiny_encoder_folder), device="cpu"), TYPED)
    means = bank.mean[2] / np.linalg.norm(bank.mean[2], axis=1, keepdims=True)
    np.testing.assert_allclose(cells(app, "states", "cosine"), means @ means.T, atol=1e-5)


@pytest.mark.slow
def test_the_plain_bundled_encoder_opens(open_page):
    app = open_page("layers", model="all-MiniLM-L6-v2")
    assert_is_whole(app)
    assert cells(app, "states", "cosine").shape == (7, 7)


# --- sentences that people give -----------------------------------------------------------------


def test_no_sentence_says_so(open_page):
    app = open_page("layers")
    for text in ("", " ", "\n \n\t\n  "):
        type_sentences(app, text)
        assert not app.exception
        assert "There is no sentence yet" in shown(app.error)
    type_sentences(app, "Now there is one.")
    assert_is_whole(app)


def test_too_many_sentences_are_refused(open_page, encoded):
    app = open_page("layers")
    encoded.clear()
    type_sentences(app, [f"Number {n}." for n in range(ui_layers.MAX_SENTENCES + 1)])
    assert not app.exception
    assert encoded == []
    message = shown(app.error)
    assert "201 sentences" in message
    assert "the limit is 200" in message
    assert "python -m lwap explain --file" in message


@pytest.mark.slow
def test_as_many_sentences_as_allowed_are_drawn(open_page):
    app = type_sentences(open_page("layers"), [f"By now it is number {n}." for n in range(200)])
    assert_is_whole(app)
    assert cells(app, "sentence-weights", "layer weights").shape == (200, 4)
    assert "too long for a link" in shown(app.caption)
    assert "s" not in app.query_params


@pytest.mark.slow
def test_a_long_sentence_is_said_to_be_cut(open_page):
    app = type_sentences(open_page("layers"), ["A short one.", "heron " * 10_000])
    assert_is_whole(app)
    assert "Sentence 2: longer than the encoder's limit of 64 tokens" in shown(app.warning)


TEXTS = [
    ["🦩🦩 waits 👩‍👩‍👧‍👦.", "Flags 🇩🇪🇳🇱 and a skin tone 👍🏽."],
    ["מילים מימין לשמאל.", "جملة من اليمين إلى اليسار", "mixed עברית and English"],
    ["水边有一只鹭。", "サギが待っている", "e\u0301 combining, zero\u200bwidth"],
    ["<b>bold</b> & <script>alert(1)</script>", "$x^2$ *star* _under_ :red[no] `code` [a](b)"],
    ["x", "."],
    ["Same.", "Same.", "Same."],
    ["a" * 5000],
    ["NUL-free \x07 bell"],
]


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_any_text_is_drawn_in_every_view(open_page, subtests, view):
    app = open_page("layers", s=TEXTS[0], view=view)
    for texts in TEXTS:
        with subtests.test(texts[0]):
            type_sentences(app, texts)
            assert_is_whole(app)
            assert len(cells(app, "sentence-weights", "layer weights")) == len(texts)


def test_only_a_line_break_parts_sentences(open_page):
    """As in `read_sentences`; pasted text holds such marks inside of sentences."""
    sentences = [f"First{mark}half." for mark in ("\u2028", "\x0b", "\x0c", "\x85")]
    app = type_sentences(open_page("layers"), sentences)
    assert app.dataframe[0].value["sentence"].tolist() == sentences
    assert len(cells(app, "sentence-weights", "layer weights")) == len(sentences)


@pytest.mark.slow
def test_fewer_sentences_than_before_reset_the_choice(open_page):
    app = type_sentences(open_page("layers"), TYPED)
    app.selectbox(key="sentence").set_value("3").run()
    type_sentences(app, TYPED[:1])
    assert_is_whole(app)
    assert app.selectbox(key="sentence").value == "1"
    assert "sentence" not in app.query_params


# --- links --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_link_brings_sentences_view_and_choice(open_page):
    app = open_page("layers", s=TYPED, view="Difference", model="beta", **{"from": "3", "to": "2"})
    assert_is_whole(app)
    assert app.text_area(key="layers_text").value.splitlines() == TYPED
    assert app.session_state["model"] == "beta"
    assert app.button_group(key="view").value == "Difference"
    assert (app.selectbox(key="from").value, app.selectbox(key="to").value) == ("3", "2")


@pytest.mark.slow
def test_a_link_brings_the_example_and_the_sentence(open_page):
    app = open_page("layers", example="Word order", sentence="4")
    assert_is_whole(app)
    assert "Only the pilot" in app.text_area(key="layers_text").value
    assert app.selectbox(key="sentence").value == "4"


@pytest.mark.slow
def test_the_link_says_what_was_typed(open_page):
    app = type_sentences(open_page("layers"), TYPED)
    app.selectbox(key="sentence").set_value("2").run()
    assert app.query_params["s"] == TYPED
    assert app.query_params["sentence"] == "2"
    app.selectbox(key="example").set_value("Negation").run()
    app.selectbox(key="example").set_value("Numbers").run()
    assert "s" not in app.query_params


@pytest.mark.slow
@pytest.mark.parametrize(
    "link",
    [
        {"view": "No such view", "example": "No such example", "sentence": "99", "unknown": "key"},
        {"sentence": "-1", "s": [" ", ""]},
        {"sentence": "two", "s": "one\ntwo"},
        {"from": "9", "by_model": "perhaps", "view": "Difference"},
    ],
    ids=str,
)
def test_a_link_that_was_changed_by_hand_opens(open_page, link):
    app = open_page("layers", **link)
    assert not app.exception
    assert figures(app) or "There is no sentence yet" in shown(app.error)


# --- models that people give --------------------------------------------------------------------


@pytest.mark.slow
def test_another_model_keeps_what_was_typed(open_page, tiny_encoder_folder):
    app = type_sentences(open_page("layers"), TYPED)
    app.button_group(key="view").set_value("Difference").run()
    app.selectbox(key="from").set_value("2").run()
    before = cells(app, "sentence-weights", "layer weights")
    for name in ("beta", str(tiny_encoder_folder), "mix", "beta"):
        app.selectbox(key="model").set_value(name).run()
        assert_is_whole(app)
        assert app.text_area(key="layers_text").value.splitlines() == TYPED
    assert app.button_group(key="view").value == "Difference"
    assert app.selectbox(key="from").value == "2"
    assert not np.allclose(cells(app, "sentence-weights", "layer weights"), before)


@pytest.mark.slow
def test_another_page_and_back_keeps_what_was_typed(open_page):
    app = type_sentences(open_page("layers"), TYPED)
    app.button_group(key="view").set_value("Side by side").run()
    app.switch_page("pages/pairs.py").run()
    assert_is_whole(app)
    app.switch_page("pages/layers.py").run()
    assert_is_whole(app)
    assert app.text_area(key="layers_text").value.splitlines() == TYPED
    assert app.button_group(key="view").value == "Side by side"
    assert "heron" in texts_in(figures(app)["attention-grid"])


@pytest.mark.slow
def test_an_unknown_model_is_named_with_the_ways_out(open_page):
    app = type_sentences(open_page("layers"), TYPED)
    app.selectbox(key="model").set_value("nobody/no-such-model").run()
    assert not app.exception
    message = shown(app.error)
    assert "'nobody/no-such-model' is not on this machine" in message
    for way_out in ("all-MiniLM-L6-v2", "python -m lwap models list", "a local folder"):
        assert way_out in message
    assert "Not loaded" in shown(app.sidebar.caption)
    app.selectbox(key="model").set_value("beta").run()
    assert_is_whole(app)
    assert app.text_area(key="layers_text").value.splitlines() == TYPED


def test_a_model_name_that_cannot_be_is_refused(open_page, subtests):
    app = open_page("layers")
    names = (
        "no such model!",
        "a/b/c",
        "../..",
        "~",
        "/",
        "x" * 400,
        "*bold* $x$ `code`",
        "lwap.json",
    )
    for name in names:
        with subtests.test(name):
            app.selectbox(key="model").set_value(name).run()
            assert not app.exception
            assert len(app.error) == 1
            assert not figures(app)


def with_changed_weights(folder):
    file = next(folder.rglob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def with_truncated_weights(folder):
    file = next(folder.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    record_hashes(folder)


def with_foreign_class(folder):
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules[1]["type"] = "os.system"
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    record_hashes(folder)


def record_hashes(folder):
    """Do what somebody does who wants a changed checkpoint to be taken for whole."""
    manifest = json.loads((folder / "lwap.json").read_text("utf-8"))
    manifest["files"] = {name: file_sha256(folder / name) for name in manifest["files"]}
    (folder / "lwap.json").write_text(json.dumps(manifest), "utf-8")


def without_weights(folder):
    next(folder.rglob("*.safetensors")).unlink()


def without_modules(folder):
    (folder / "modules.json").unlink()


def with_broken_manifest(folder):
    (folder / "lwap.json").write_text("{", "utf-8")


def of_the_future(folder):
    manifest = json.loads((folder / "lwap.json").read_text("utf-8"))
    (folder / "lwap.json").write_text(json.dumps(manifest | {"format": 99}), "utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_changed_weights, "has SHA-256"),
        (with_truncated_weights, "damaged safetensors file"),
        (with_foreign_class, "names the class 'os.system', which is not loaded"),
        (without_weights, "is missing"),
        (without_modules, "'modules.json' is missing"),
        (with_broken_manifest, "is not readable JSON"),
        (of_the_future, "has format 99"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_checkpoint_is_refused_with_a_message(
    open_page, make_checkpoint, damage, message
):
    folder = make_checkpoint("damaged")
    damage(folder)
    app = open_page("layers", model=str(folder))
    assert not app.exception
    assert message in shown(app.error)
    assert not figures(app)


@pytest.mark.slow
def test_an_encoder_that_was_changed_is_refused(open_page, make_checkpoint, make_encoder, tmp_path):
    encoder = tmp_path / "encoder"
    shutil.copytree(make_encoder("bert"), encoder)
    folder = make_checkpoint("moved")
    manifest = json.loads((folder / "lwap.json").read_text("utf-8"))
    manifest["encoder"]["id"] = str(encoder)
    (folder / "lwap.json").write_text(json.dumps(manifest), "utf-8")
    app = open_page("layers", model=str(folder))
    assert_is_whole(app)
    with_changed_weights(encoder)
    (folder / "lwap.json").write_text(json.dumps(manifest, indent=1), "utf-8")  # loads anew
    app.selectbox(key="model").set_value(str(folder)).run()
    assert not app.exception
    assert "Its head would give other results" in shown(app.error)


@pytest.mark.slow
def test_a_folder_with_markdown_in_its_name_is_shown_as_it_is(open_page, make_checkpoint):
    folder = make_checkpoint("a *starred* :red[run] $x$ and $y$")
    app = open_page("layers", model=str(folder))
    assert_is_whole(app)
    folder.rename(folder.with_name("gone"))
    app.selectbox(key="model").set_value(f"{folder}").run()
    assert str(folder) in shown(app.error)


# --- errors that are not ours -------------------------------------------------------------------


def test_a_bug_is_not_dressed_up_as_a_message(open_page, break_encoders):
    break_encoders()
    app = open_page("layers", s=["Nobody has explained this one before."])
    assert len(app.exception) == 1
    assert not app.error


# --- downloads ----------------------------------------------------------------------------------


def test_the_downloads_hold_the_numbers(open_page, alpha_model, downloads):
    open_page("layers", s=TYPED)
    wanted = lwap.explain(alpha_model, TYPED)
    table = downloads.table("lwap-layers.csv")
    assert table["sentence"].tolist() == TYPED
    np.testing.assert_allclose(table[wanted.state_names], wanted.weights, atol=1e-6)
    effects = table[[f"knock-out {name}" for name in wanted.state_names]]
    np.testing.assert_allclose(effects, wanted.knockout, atol=1e-6)
    entries = json.loads(downloads["lwap-attention.json"])
    assert [entry["sentence"] for entry in entries] == TYPED
    attention = [entry["attention"] for entry in entries]
    np.testing.assert_allclose(attention, wanted.attention, atol=1e-6)
