"""The Search page: sentences and a query in, two ranked lists and one result layer by layer out."""

import json

import numpy as np
import pandas as pd
import pytest
from streamlit.elements.lib import policies
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.testing.v1.element_tree import Selectbox

import lwap
from lwap.ui import cache
from lwap.ui import search as ui_search
from tests.pages.driving import (
    ROOT,
    as_file,
    click,
    figures,
    is_dark,
    shown,
    texts_in,
    trace,
    upload,
)

COLLECTION = json.loads((ROOT / "assets/collection.json").read_text("utf-8"))
FIRST = COLLECTION["queries"][0]["text"]
SENTENCES = [
    "A heron waits in the reeds.",
    "The heron has flown away.",
    "The river is high today.",
    "Nobody swims in the river.",
    "It rains on the bridge.",
    "The bridge is closed.",
    "A crane lifts the bridge.",
]
QUERY = "A bird at the water."
UPLOAD = "search_upload"
FIGURES = {"rank-changes", "attention", "layer-similarity", "pair-weights", "pair-knockout"}


@pytest.fixture(autouse=True)
def an_empty_menu_as_in_a_browser(streamlit_as_in_a_server, monkeypatch) -> None:
    """Let a selectbox without a choice send none, where the tests' other mending sends "None"."""
    given = Selectbox._widget_state.fget

    def widget_state(box: Selectbox) -> WidgetState:
        return WidgetState(id=box.id) if box.value is None else given(box)

    monkeypatch.setattr(Selectbox, "_widget_state", property(widget_state))


@pytest.fixture
def open_search(open_page):
    """Return a function that opens the page in a session of its own; by keyword, the link."""

    def open_search(**options):
        return open_page("search", **options)

    return open_search


@pytest.fixture
def open_own(open_search):
    """Return a function that opens the page with the sentences and the query above."""

    def open_own(**options):
        return open_search(**({"c": SENTENCES, "q": QUERY} | options))

    return open_own


@pytest.fixture
def wanted(alpha_model):
    """Return a function that gives what the library finds with the checkpoint alpha."""

    def wanted(sentences=SENTENCES, query=QUERY, strategies=("lwap", "cls"), k=20):
        return lwap.search(alpha_model, sentences, query, strategies, k=k)

    return wanted


def type_sentences(app, sentences):
    text = sentences if isinstance(sentences, str) else "\n".join(sentences)
    return app.text_area(key="search_text").set_value(text).run()


def ask(app, query):
    return app.text_input(key="search_query").set_value(query).run()


def text_file(sentences):
    return ("mine.txt", "\n".join(sentences).encode("utf-8"), "text/plain")


def table_file(sentences, kind, column="sentence"):
    return as_file(pd.DataFrame({"number": range(len(sentences)), column: sentences}), kind)


def lists(app) -> list[list[int]]:
    """Return the rows of the sentences in both lists, as they are drawn."""
    return [
        np.ravel(trace(app, "rank-changes", f"{side} list")["customdata"]).astype(int).tolist()
        for side in ("first", "second")
    ]


def table_of(app) -> pd.DataFrame:
    return app.dataframe[0].value


def chosen(app) -> int:
    """Return the row of the sentence that is looked into."""
    return int(app.selectbox(key="result").value) - 1


def bands(app) -> set[tuple]:
    """Return list and place of each band behind the chosen sentence."""
    return {
        ("first" if shape["xref"] == "x domain" else "second", (shape["y0"] + shape["y1"]) / 2)
        for shape in figures(app)["rank-changes"]["layout"]["shapes"]
        if shape.get("name") == "selected"
    }


def assert_is_whole(app):
    """Nothing was raised, nothing said as an error, and every figure is there."""
    assert not app.exception
    assert not app.error
    assert figures(app).keys() >= FIGURES


def said(app) -> str:
    return shown(app.main.markdown)


# --- opening ------------------------------------------------------------------------------------


def test_it_opens_filled(open_search):
    app = open_search()
    assert_is_whole(app)
    assert not is_dark(app)
    assert app.title[0].value == "Search"
    assert app.main.markdown[0].value == "What would I find?"
    assert app.text_input(key="search_query").value == FIRST
    assert app.text_area(key="search_text").value.split("\n") == COLLECTION["sentences"]
    assert COLLECTION["queries"][0]["look_for"] in shown(app.caption)
    assert [len(ranking) for ranking in lists(app)] == [10, 10]
    assert len(table_of(app)) == 162
    assert "162 sentences were searched" in shown(app.caption)
    assert not {"q", "c", "result", "results", "first_strategy"} & set(app.query_params)


@pytest.mark.slow
def test_the_shipped_checkpoints_answer_queries(open_search):
    app = open_search(shipped=True)
    assert_is_shipped(app)
    type_sentences(app, SENTENCES)
    for name in ("lwap-minilm-paper", "lwap-minilm-residual"):
        app.selectbox(key="model").set_value(name)
        app.selectbox(key="search_example").set_value(COLLECTION["queries"][1]["text"]).run()
        assert app.session_state["model"] == name
        assert_is_shipped(app)


def assert_is_shipped(app):
    assert_is_whole(app)
    assert not app.warning
    assert "7 states of 384" in shown(app.sidebar.caption)


@pytest.mark.slow
def test_every_example_query_can_be_chosen(open_search):
    app = open_search()
    for entry in COLLECTION["queries"]:
        app.selectbox(key="search_example").set_value(entry["text"]).run()
        assert_is_whole(app)
        assert not app.warning
        assert app.text_input(key="search_query").value == entry["text"]
        assert entry["look_for"] in shown(app.caption)


@pytest.mark.slow
def test_a_dark_browser_gets_dark_figures(open_search):
    app = open_search(theme="dark")
    assert_is_whole(app)
    assert is_dark(app)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "first"), [("last", "lwap"), ("mix", "scalar_mix")])
def test_the_models_own_strategy_stands_against_cls(open_own, model, first):
    app = open_own(model=model)
    assert_is_whole(app)
    assert app.selectbox(key="first_strategy").value == first
    assert app.selectbox(key="second_strategy").value == "cls"


@pytest.mark.slow
def test_a_plain_encoder_compares_mean_and_cls_and_says_what_it_lacks(
    open_own, tiny_encoder_folder
):
    app = open_own(model=str(tiny_encoder_folder))
    assert not app.exception
    assert not app.error
    assert app.selectbox(key="first_strategy").value == "mean"
    assert app.selectbox(key="second_strategy").value == "cls"
    assert set(figures(app)) == {"rank-changes", "layer-similarity"}
    assert "This model has no trained layer attention" in shown(app.info)


# --- the figures show what the library says -----------------------------------------------------


def test_the_lists_are_the_librarys(open_own, wanted):
    app = open_own()
    assert_is_whole(app)
    found = wanted()
    assert app.selectbox(key="first_strategy").value == "lwap"
    assert app.selectbox(key="second_strategy").value == "cls"
    assert lists(app) == found.indices.tolist()
    said_scores = texts_in(figures(app)["rank-changes"]).replace("−", "-")
    for score in found.scores.ravel():
        assert f"{score:.3f}" in said_scores
    pd.testing.assert_frame_equal(table_of(app), found.to_frame())


@pytest.mark.slow
def test_so_many_results_are_shown(open_search, wanted):
    app = open_search()
    found = wanted(COLLECTION["sentences"], FIRST)
    slider = app.slider(key="results")
    assert (slider.min, slider.value, slider.max) == (5, 10, 20)
    for count in (5, 6, 20):
        app.slider(key="results").set_value(count).run()
        assert_is_whole(app)
        assert lists(app) == found.indices[:, :count].tolist()


def test_a_result_is_shown_layer_by_layer_below_the_querys_attention(open_own, alpha_model):
    app = open_own(result="4")
    assert_is_whole(app)
    pair = [QUERY, SENTENCES[3]]
    explained = lwap.explain(alpha_model, pair)
    drawn = trace(app, "attention", "layer attention")["z"]
    np.testing.assert_allclose(drawn, explained.attention[0], atol=1e-6)
    change = figures(app)["pair-knockout"]["data"][0]["y"]
    np.testing.assert_allclose(change, explained.pair_knockout(0, 1), atol=1e-6)
    drawn = [entry["y"] for entry in figures(app)["pair-weights"]["data"][:2]]
    np.testing.assert_allclose(drawn, explained.weights, atol=1e-6)
    compared = lwap.compare_pairs(alpha_model, [pair])
    curves = [np.asarray(e["y"]) for e in figures(app)["layer-similarity"]["data"] if "y" in e]
    for curve in (compared.layers.query[0], compared.layers.mean[0]):
        assert any(c.shape == curve.shape and np.allclose(c, curve, atol=1e-6) for c in curves)
    assert {"lwap", "cls"} <= {e.get("name") for e in figures(app)["layer-similarity"]["data"]}


@pytest.mark.slow
def test_the_rank_in_the_other_list_is_said(open_search, wanted):
    app = open_search()
    found = wanted(COLLECTION["sentences"], FIRST, k=10)
    far = max(found.indices[0], key=lambda row: found.ranks[1, row])
    assert found.ranks[1, far] > 10
    click(app, "rank-changes", [int(far)])
    assert_is_whole(app)
    assert f"**lwap** rank {found.ranks[0, far]} of 162" in said(app)
    assert f"**cls** rank {found.ranks[1, far]} of 162" in said(app)
    assert f"cosine {found.cosines[1, far]:.3f}" in said(app)


# --- strategies ---------------------------------------------------------------------------------


def test_other_strategies_are_ranked_by(open_own, wanted):
    app = open_own()
    app.selectbox(key="first_strategy").set_value("layer_mean:1").run()
    app.selectbox(key="second_strategy").set_value("max").run()
    assert_is_whole(app)
    found = wanted(strategies=["layer_mean:1", "max"])
    assert lists(app) == found.indices.tolist()


@pytest.mark.slow
def test_one_strategy_twice_says_so(open_own):
    app = open_own(first_strategy="mean", second_strategy="mean")
    assert_is_whole(app)
    first, second = lists(app)
    assert first == second
    assert "Both lists are ranked by one strategy" in shown(app.caption)
    assert said(app).count("rank 1 of 7") == 1


@pytest.mark.slow
def test_a_default_strategy_follows_the_model_and_a_chosen_one_stays(open_own):
    app = open_own()
    app.selectbox(key="second_strategy").set_value("all_mean").run()
    app.selectbox(key="model").set_value("mix").run()
    assert_is_whole(app)
    assert app.selectbox(key="first_strategy").value == "scalar_mix"
    assert app.selectbox(key="second_strategy").value == "all_mean"
    app.selectbox(key="model").set_value("beta").run()
    assert app.selectbox(key="first_strategy").value == "lwap"
    assert app.selectbox(key="second_strategy").value == "all_mean"


@pytest.mark.slow
def test_a_strategy_that_another_model_lacks_gives_way(open_own, tiny_encoder_folder):
    app = open_own(second_strategy="lwap", first_strategy="cls")
    app.selectbox(key="model").set_value(str(tiny_encoder_folder)).run()
    assert not app.exception
    assert not app.error
    assert app.selectbox(key="first_strategy").value == "cls"
    assert app.selectbox(key="second_strategy").value == "cls"


# --- query and sentences ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_typed_query_is_searched_for(open_search, wanted):
    app = ask(open_search(), "  Where is the heron?  ")
    assert_is_whole(app)
    found = wanted(COLLECTION["sentences"], "Where is the heron?")
    assert lists(app) == found.indices[:, :10].tolist()
    assert app.selectbox(key="search_example").value is None
    assert "What to look for" not in shown(app.caption)
    assert app.query_params["q"] == "Where is the heron?"


@pytest.mark.slow
def test_an_example_query_typed_is_known_again(open_search):
    second = COLLECTION["queries"][1]
    app = ask(open_search(), second["text"])
    assert app.selectbox(key="search_example").value == second["text"]
    assert second["look_for"] in shown(app.caption)
    app.selectbox(key="search_example").set_value(None).run()  # clearing it clears no query
    assert_is_whole(app)
    assert app.text_input(key="search_query").value == second["text"]


def test_typed_sentences_are_searched(open_search, wanted):
    app = type_sentences(ask(open_search(), QUERY), ["", *SENTENCES, "  ", "  One more.  "])
    assert_is_whole(app)
    found = wanted([*SENTENCES, "One more."])
    assert lists(app) == found.indices.tolist()
    assert app.query_params["c"] == [*SENTENCES, "One more."]
    assert "What to look for" not in shown(app.caption)


@pytest.mark.slow
def test_an_example_query_on_other_sentences_promises_nothing(open_own):
    app = open_own(q=FIRST)
    assert_is_whole(app)
    assert "What to look for" not in shown(app.caption)


@pytest.mark.slow
def test_the_example_comes_back(open_own):
    app = open_own()
    app.button(key="search_reset").click().run()
    assert_is_whole(app)
    assert app.text_area(key="search_text").value.split("\n") == COLLECTION["sentences"]
    assert "c" not in app.query_params
    assert app.button(key="search_reset").disabled


@pytest.mark.slow
def test_repeated_sentences_are_counted_once_and_said_so(open_own, wanted):
    app = open_own(c=[*SENTENCES, SENTENCES[2], SENTENCES[0]])
    assert_is_whole(app)
    assert "counted once: 7 of the 9 are ranked" in shown(app.caption)
    assert lists(app) == wanted().indices.tolist()
    assert len(table_of(app)) == 7


def test_without_sentences_or_query_it_says_what_to_do(open_search):
    app = open_search()
    for text in ("", "  \n \n"):
        type_sentences(app, text)
        assert not app.exception
        assert "There is no sentence to search in" in shown(app.error)
        assert not figures(app)
    type_sentences(app, SENTENCES)
    for query in ("", "   "):
        ask(app, query)
        assert not app.exception
        assert "There is no query yet. Write one above" in shown(app.error)
        assert not figures(app)
    ask(app, QUERY)
    assert_is_whole(app)


@pytest.mark.slow
def test_one_sentence_is_enough(open_own):
    app = open_own(c=["The only sentence."])
    assert_is_whole(app)
    assert lists(app) == [[0], [0]]


TEXTS = [
    "🦩🦩 waits 👩‍👩‍👧‍👦.",
    "Flags 🇩🇪🇳🇱 and 👍🏽.",
    "מילים מימין לשמאל.",
    "جملة من اليمين إلى اليسار",
    "<b>bold</b> & <script>",
    "$x^2$ *star* :red[no] `code` ↔ [a](b)",
    "x",
    "a" * 3000,
    "form\x0cfeed and \u2028 more",
    "NA",
]


@pytest.mark.slow
def test_any_text_is_searched(open_search, subtests):
    app = open_search(c=[*TEXTS, *SENTENCES], q=TEXTS[0])
    assert sorted(table_of(app)["sentence"]) == sorted([*TEXTS, *SENTENCES])
    for query in TEXTS:
        with subtests.test(query[:20]):
            ask(app, query)
            assert_is_whole(app)
            cosines = table_of(app).set_index("sentence")["lwap cosine"]
            assert cosines[query] == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_query_of_ten_thousand_words_is_said_to_be_cut(open_search):
    app = ask(open_search(), "heron " * 10_000)
    assert_is_whole(app)
    assert "The query is longer than the encoder's limit of 64 tokens" in shown(app.warning)
    assert "This query is too long for a link" in shown(app.caption)
    assert "q" not in app.query_params


@pytest.mark.slow
def test_a_long_sentence_is_said_to_be_cut(open_search):
    app = type_sentences(open_search(), [*SENTENCES, "heron " * 10_000])
    assert_is_whole(app)
    assert "Sentence 8: longer than the encoder's limit of 64 tokens" in shown(app.warning)
    assert "These sentences are too long for a link" in shown(app.caption)
    assert "c" not in app.query_params


@pytest.mark.slow
def test_as_many_sentences_as_allowed_are_searched_and_one_more_is_not(open_search):
    many = [f"w{n}" for n in range(ui_search.MAX_SENTENCES)]
    app = type_sentences(open_search(), many)
    assert_is_whole(app)
    assert "5,000 sentences were searched" in shown(app.caption)
    type_sentences(app, [*many, "one too many"])
    assert not app.exception
    assert not figures(app)
    message = shown(app.error)
    assert "The box has 5,001 sentences; this page searches up to 5,000" in message
    assert "lwap.search(model, sentences, query, strategies)" in message


# --- files --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_fill_the_box(open_search, wanted):
    app = open_search(q=QUERY)
    for file, sentences in (
        (text_file(SENTENCES[:6]), SENTENCES[:6]),
        (table_file(SENTENCES[1:], "csv"), SENTENCES[1:]),
        (table_file(SENTENCES, "parquet", "Text"), SENTENCES),
    ):
        upload(app, UPLOAD, file)
        assert_is_whole(app)
        assert app.text_area(key="search_text").value.split("\n") == sentences
        assert lists(app) == wanted(sentences).indices.tolist()
        assert app.query_params["c"] == sentences


@pytest.mark.slow
def test_a_line_break_inside_a_sentence_makes_no_second_one(open_search):
    app = upload(open_search(), UPLOAD, table_file(["Two\nlines.", "One\r\nmore."], "parquet"))
    assert_is_whole(app)
    assert app.text_area(key="search_text").value == "Two lines.\nOne  more."


@pytest.mark.slow
def test_a_file_is_read_once_and_then_edited(open_search):
    app = upload(open_search(), UPLOAD, text_file(SENTENCES))
    type_sentences(app, [*SENTENCES, "Edited after the upload."])
    app.slider(key="results").set_value(8).run()
    assert_is_whole(app)
    assert "Edited after the upload." in table_of(app)["sentence"].tolist()


WRONG_FILES = [  # of each kind one; all that can be wrong with a file is in tests/test_data.py
    (table_file(SENTENCES, "csv", column="words"), "has no column 'sentence'"),
    (("mine.xlsx", b"PK\x03\x04", "application/zip"), "ends in '.xlsx'"),
    (("mine.txt", b"\n \n", "text/plain"), "is empty"),
    (("mine.txt", "ä".encode("latin-1"), "text/plain"), "not UTF-8"),
    (("a *b* $c$.csv", b"x,y\n1,2\n", "text/csv"), "'a *b* $c$.csv' has no column"),
    (text_file([f"w{n}" for n in range(5001)]), "'mine.txt' has 5,001 sentences"),
    (("mine.parquet", b"PAR1 and no more", "text/plain"), "not a readable .parquet file"),
]


@pytest.mark.slow
def test_a_wrong_file_says_what_is_wrong_and_keeps_the_text(open_own, subtests):
    app = open_own()
    for file, message in WRONG_FILES:
        with subtests.test(message):
            upload(app, UPLOAD, file)
            assert not app.exception
            assert len(app.error) == 1
            assert message in shown(app.error)
            assert "The sentences are unchanged." in shown(app.error)
            assert figures(app).keys() >= FIGURES
            assert app.text_area(key="search_text").value.split("\n") == SENTENCES


def test_what_is_wrong_is_said_as_long_as_the_file_is_there(open_own):
    file, message = WRONG_FILES[0]
    app = upload(open_own(), UPLOAD, file)
    app.slider(key="results").set_value(6).run()
    assert message in shown(app.error)
    assert app.text_area(key="search_text").value.split("\n") == SENTENCES
    upload(app, UPLOAD, None)
    assert_is_whole(app)


# --- choosing a result --------------------------------------------------------------------------


def test_a_click_chooses_a_result_and_marks_it_in_both_lists(open_own):
    app = open_own()
    first, second = lists(app)
    assert chosen(app) == first[0]
    assert "result" not in app.query_params
    for row in (first[3], second[5], first[3], first[0]):
        click(app, "rank-changes", [row])
        assert_is_whole(app)
        assert chosen(app) == row
        assert bands(app) == {("first", first.index(row)), ("second", second.index(row))}
        # The best one is looked at anyhow, and stays out of the link.
        assert list(app.query_params.get("result", [])) == (
            [] if row == first[0] else [str(row + 1)]
        )
        assert SENTENCES[row] in texts_in(figures(app)["pair-weights"])


@pytest.mark.slow
def test_a_click_comes_in_any_of_the_browsers_shapes(open_own):
    app = open_own()
    for row, customdata in ((2, [2]), (3, {"0": 3}), (1, 1)):
        assert chosen(click(app, "rank-changes", customdata)) == row


@pytest.mark.slow
def test_a_click_beside_everything_changes_nothing(open_own):
    app = click(open_own(result="4"), "rank-changes", None)
    assert_is_whole(app)
    assert chosen(app) == 3


@pytest.mark.slow
def test_the_menu_has_what_is_in_a_list(open_search):
    app = open_search()
    first, second = lists(app)
    shown_rows = list(dict.fromkeys([*first, *second]))
    menu = app.selectbox(key="result")
    assert menu.options == [COLLECTION["sentences"][row] for row in shown_rows]
    menu.set_value(str(second[-1] + 1)).run()
    assert_is_whole(app)
    assert chosen(app) == second[-1]


@pytest.mark.slow
def test_a_chosen_sentence_stays_while_it_is_found(open_own):
    app = click(open_own(), "rank-changes", [3])
    app.selectbox(key="second_strategy").set_value("max").run()
    assert chosen(app) == 3
    app.selectbox(key="model").set_value("beta").run()
    assert chosen(app) == 3
    ask(app, "Another query.")
    assert chosen(app) == lists(app)[0][0]


@pytest.mark.slow
def test_another_sentence_in_the_same_place_is_not_chosen(open_own):
    app = open_own()
    click(app, "rank-changes", [lists(app)[0][2]])
    type_sentences(app, [f"Sentence {n} in its place." for n in range(7)])
    assert_is_whole(app)
    assert chosen(app) == lists(app)[0][0]


@pytest.mark.slow
def test_a_chosen_sentence_that_leaves_the_lists_gives_way(open_own):
    app = open_own(results="7")
    first, second = lists(app)
    last = next(row for row in reversed(first) if row not in [*first[:5], *second[:5]])
    click(app, "rank-changes", [last])
    assert chosen(app) == last
    app.slider(key="results").set_value(5).run()
    assert_is_whole(app)
    assert chosen(app) == first[0]


# --- nothing is computed twice ------------------------------------------------------------------


@pytest.mark.slow
def test_sentences_are_encoded_once_for_all_queries(open_search, encoded):
    mine = [f"{text} Only here." for text in SENTENCES]
    app = open_search(c=mine, q="The first query of this test.")
    assert sum(encoded) == len(mine) + 1
    encoded.clear()
    ask(app, "The second query of this test.")
    assert encoded == [1]
    encoded.clear()
    app.selectbox(key="first_strategy").set_value("mean").run()
    for row in lists(app)[0][:3]:
        click(app, "rank-changes", [row])
    app.slider(key="results").set_value(5).run()
    ask(app, "The first query of this test.")
    app.selectbox(key="first_strategy").set_value("lwap").run()
    assert encoded == []  # every sentence and query is known by now
    assert_is_whole(app)


@pytest.mark.slow
def test_other_collections_are_forgotten_not_all_kept(tiny_checkpoints, encoded):
    name = str(tiny_checkpoints / "alpha")

    def find(collection: int, query: int):
        texts = [f"Sentence {collection} of three.", f"Text {collection}.", "The same in all."]
        return cache.search(name, texts, f"Query {query}.", ["mean"], 5)

    for number in range(cache.MAX_COLLECTIONS + 1):
        find(number, 0)
    kinds = [kind for kind, *_ in cache._loaded(name).results]
    assert kinds.count("collection") == cache.MAX_COLLECTIONS
    first = [find(0, query) for query in range(cache.MAX_SEARCHES)]
    assert find(0, 1) is first[1]
    find(0, cache.MAX_SEARCHES)
    assert find(0, 0) is not first[0]  # used longest ago
    sentences = 2 * (cache.MAX_COLLECTIONS + 1) + 1
    assert sum(encoded) <= sentences + cache.MAX_SEARCHES + 1  # each of them once


# --- links and other pages ----------------------------------------------------------------------


def test_a_link_brings_everything(open_own):
    app = open_own(
        model="beta",
        first_strategy="max",
        second_strategy="layer_cls:2",
        results="6",
        result="4",
    )
    assert_is_whole(app)
    assert app.text_input(key="search_query").value == QUERY
    assert app.text_area(key="search_text").value.split("\n") == SENTENCES
    assert app.selectbox(key="first_strategy").value == "max"
    assert app.selectbox(key="second_strategy").value == "layer_cls:2"
    assert app.slider(key="results").value == 6
    assert chosen(app) == 3
    assert app.session_state["model"] == "beta"


@pytest.mark.slow
def test_the_link_opens_the_same(open_search):
    app = type_sentences(ask(open_search(), 'Quotes " & 100 %'), [*SENTENCES, "↔ & = ?"])
    click(app, "rank-changes", [lists(app)[1][2]])
    link = {name: app.query_params[name] for name in ("q", "c", "result")}
    again = open_search(**link)
    assert_is_whole(again)
    assert lists(again) == lists(app)
    assert chosen(again) == chosen(app)


@pytest.mark.slow
def test_an_empty_query_in_the_link_is_empty(open_search):
    app = open_search(q="")
    assert not app.exception
    assert "There is no query yet" in shown(app.error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "link",
    [
        {"result": "99", "results": "3", "first_strategy": "no_such"},
        {"result": "x", "results": "many", "second_strategy": ""},
    ],
    ids=str,
)
def test_an_unknown_choice_in_the_link_is_passed_over(open_own, link):
    assert_is_whole(open_own(**link))


@pytest.mark.slow
def test_another_page_and_back_keeps_everything(open_search):
    app = type_sentences(ask(open_search(), QUERY), SENTENCES)
    app.selectbox(key="second_strategy").set_value("max").run()
    app.slider(key="results").set_value(6).run()
    click(app, "rank-changes", [lists(app)[0][2]])
    before = lists(app), chosen(app)
    app.switch_page("pages/pairs.py").run()
    assert not app.exception
    app.switch_page("pages/search.py").run()
    assert_is_whole(app)
    assert app.text_input(key="search_query").value == QUERY
    assert app.text_area(key="search_text").value.split("\n") == SENTENCES
    assert app.selectbox(key="second_strategy").value == "max"
    assert app.slider(key="results").value == 6
    assert (lists(app), chosen(app)) == before


@pytest.mark.slow
def test_another_model_keeps_what_was_typed(open_search, tiny_encoder_folder, caplog, monkeypatch):
    """Streamlit logs a warning where a widget has a default and its state is set as well."""
    monkeypatch.setattr(policies, "_shown_default_value_warning", False)  # it does so only once
    app = type_sentences(ask(open_search(), QUERY), SENTENCES)
    for name in ("mix", str(tiny_encoder_folder), "alpha"):
        app.selectbox(key="model").set_value(name).run()
        assert not app.exception
        assert not app.error
        assert app.text_input(key="search_query").value == QUERY
        assert app.text_area(key="search_text").value.split("\n") == SENTENCES
    app.selectbox(key="search_example").set_value(FIRST).run()
    app.button(key="search_reset").click().run()
    assert_is_whole(app)
    assert "Session State API" not in caplog.text


@pytest.mark.slow
def test_an_unknown_model_is_named_and_the_text_stays(open_own):
    app = open_own()
    app.selectbox(key="model").set_value("nobody/no-such-model").run()
    assert not app.exception
    assert "'nobody/no-such-model' is not on this machine" in shown(app.error)
    app.selectbox(key="model").set_value("beta").run()
    assert_is_whole(app)
    assert app.text_input(key="search_query").value == QUERY


# --- errors that are not ours, downloads --------------------------------------------------------


def test_a_bug_is_not_dressed_up_as_a_message(open_search, break_encoders):
    break_encoders()
    app = open_search(q="Never asked before.")
    assert len(app.exception) == 1
    assert not app.error


def test_the_download_holds_all_ranks_and_scores(open_own, downloads, wanted):
    open_own()
    table = downloads.table("lwap-search.csv")
    pd.testing.assert_frame_equal(table, wanted().to_frame(), check_dtype=False)
