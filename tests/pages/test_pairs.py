"""The Pairs page: pairs in, every strategy's scores and one pair layer by layer out."""

import json

import numpy as np
import pandas as pd
import pytest

import lwap
from lwap.evaluation.sts import spearman
from lwap.ui import pairs as ui_pairs
from tests.pages.driving import (
    as_file,
    click,
    edit,
    figures,
    is_dark,
    shown,
    texts_in,
    trace,
    upload,
)

PAIRS = [
    ["A heron waits.", "A heron is waiting.", 5.0],
    ["A heron waits.", "A heron flies.", 2.0],
    ["The river is high.", "The river rose.", 4.0],
    ["The river is high.", "Nobody swims.", 1.5],
    ["It rains.", "It does not rain.", 0.5],
]
FIGURES = {"pair-scores", "layer-similarity", "pair-weights", "pair-knockout", "pair-heatmap"}
UPLOAD = "pairs_upload"
SCALES = ["Rank in this set", "Percentile", "Cosine"]


@pytest.fixture
def open_pairs(open_page):
    """Return a function that opens the page with some pairs, [sentence1, sentence2, score]."""

    def open_pairs(rows=PAIRS, **options):
        link = [json.dumps(row, ensure_ascii=False) for row in rows]
        return open_page("pairs", p=link, **options)

    return open_pairs


def frame(rows=PAIRS) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["sentence1", "sentence2", "score"])


def table_of(app) -> pd.DataFrame:
    """Return the editable table as the page fills it."""
    return app.dataframe[0].value


def scores_of(app) -> pd.DataFrame:
    """Return the table of all scores."""
    return app.dataframe[1].value


def assert_is_whole(app):
    """Nothing was raised, nothing said as an error, and every figure is there."""
    assert not app.exception
    assert not app.error
    assert figures(app).keys() >= FIGURES


# --- opening ------------------------------------------------------------------------------------


def test_it_opens_filled(open_page):
    app = open_page("pairs")
    assert_is_whole(app)
    assert not is_dark(app)
    assert app.title[0].value == "Pairs"
    assert "spearman" in figures(app)
    assert len(table_of(app)) == 15
    assert len(scores_of(app)) == 15
    assert "What to look for" in shown(app.caption)


@pytest.mark.slow
def test_the_shipped_checkpoints_open_on_every_scale(open_page):
    app = open_page("pairs", shipped=True, model="lwap-minilm")
    for scale in SCALES:
        app.button_group(key="scale").set_value(scale).run()
        assert_is_shipped(app)
    for name in ("lwap-minilm-paper", "lwap-minilm-residual"):
        app.selectbox(key="model").set_value(name).run()
        assert_is_shipped(app)


def assert_is_shipped(app):
    assert_is_whole(app)
    assert not app.warning
    assert "lwap" in app.multiselect(key="strategies").value
    assert "7 states of 384" in shown(app.sidebar.caption)


@pytest.mark.slow
def test_a_dark_browser_gets_dark_figures(open_page):
    app = open_page("pairs", theme="dark")
    assert_is_whole(app)
    assert is_dark(app)


@pytest.mark.slow
def test_the_example_menu_fills_the_table(open_pairs):
    app = open_pairs()
    app.selectbox(key="example").set_value("Numbers").run()
    assert_is_whole(app)
    assert len(table_of(app)) == 15
    assert "What to look for" in shown(app.caption)
    assert "p" not in app.query_params
    assert scores_of(app)["sentence1"].isin(table_of(app)["sentence1"]).all()


# --- the figures show what the library says -----------------------------------------------------


def test_the_figures_show_the_library_numbers(open_pairs, alpha_model):
    app = open_pairs(scale="Cosine", pair="3")
    assert_is_whole(app)
    wanted = lwap.compare_pairs(alpha_model, [row[:2] for row in PAIRS])
    order = trace(app, "pair-scores", "lwap")
    drawn = trace(app, "pair-heatmap", "cosine; scales differ by strategy")
    by_disagreement = np.argsort(-np.ptp(wanted.cosines, axis=1), kind="stable")
    lwap_cosines = wanted.cosines[by_disagreement, wanted.strategies.index("lwap")]
    np.testing.assert_allclose(order["x"], lwap_cosines, atol=1e-6)
    np.testing.assert_allclose(drawn["z"], wanted.cosines[by_disagreement], atol=1e-6)
    np.testing.assert_allclose(scores_of(app)["mean"], wanted.to_frame()["mean"][by_disagreement])
    explained = lwap.explain(alpha_model, PAIRS[2][:2])
    change = figures(app)["pair-knockout"]["data"][0]["y"]
    np.testing.assert_allclose(change, explained.pair_knockout(0, 1), atol=1e-6)
    curves = [np.asarray(e["y"]) for e in figures(app)["layer-similarity"]["data"] if "y" in e]
    for wanted_curve in (wanted.layers.query[2], wanted.layers.mean[2]):
        assert any(
            curve.shape == wanted_curve.shape and np.allclose(curve, wanted_curve, atol=1e-6)
            for curve in curves
        )


def test_the_strip_shows_spearman(open_pairs):
    app = open_pairs()
    texts = texts_in(figures(app)["spearman"])
    cosines, gold = scores_of(app), [row[2] for row in PAIRS]
    by_first = {tuple(row[:2]): row[2] for row in PAIRS}
    gold = [by_first[a, b] for a, b in zip(cosines["sentence1"], cosines["sentence2"], strict=True)]
    for name in ("cls", "mean", "lwap"):
        assert f"{spearman(cosines[name], gold):.2f}" in texts.replace("−", "-")
    assert "with the 5 scores" in shown(app.caption)


def test_ranks_order_as_cosines_do(open_pairs):
    app = open_pairs()
    ranks = np.asarray(trace(app, "pair-heatmap", "rank among these pairs, 100 = most alike")["z"])
    assert (ranks.min(axis=0) == 0).all()
    assert (ranks.max(axis=0) == 100).all()
    gold = trace(app, "pair-scores", "gold")["x"]
    assert sorted(np.asarray(gold, dtype=float)) == [0, 25, 50, 75, 100]


@pytest.mark.slow
def test_gold_stands_only_where_it_has_a_place(open_pairs):
    app = open_pairs()
    for scale in SCALES:
        app.button_group(key="scale").set_value(scale).run()
        assert_is_whole(app)
        names = [entry.get("name") for entry in figures(app)["pair-scores"]["data"]]
        assert ("gold" in names) == (scale == SCALES[0])


@pytest.mark.slow
def test_percentiles_need_enough_sentences(open_pairs):
    app = open_pairs(PAIRS[:2], scale="Percentile")
    assert_is_whole(app)
    assert "Too few sentences for random pairs, so these are cosines" in shown(app.caption)
    assert "percentile" not in " ".join(scores_of(app).columns)


# --- strategies ---------------------------------------------------------------------------------


def test_single_layers_can_be_chosen_and_the_last_alone_is_mean(open_pairs):
    app = open_pairs()
    chosen = ["mean", "layer_mean:3", "layer_mean:0", "layer_cls:0"]
    app.multiselect(key="strategies").set_value(chosen).run()
    assert_is_whole(app)
    table = scores_of(app)
    assert [name for name in table if name in app.multiselect(key="strategies").options] == chosen
    np.testing.assert_allclose(table["layer_mean:3"], table["mean"], atol=1e-6)
    assert not np.allclose(table["layer_mean:0"], table["mean"], atol=1e-3)


@pytest.mark.slow
def test_no_strategy_says_so(open_pairs):
    app = open_pairs()
    app.multiselect(key="strategies").set_value([]).run()
    assert not app.exception
    assert "No strategy is chosen" in shown(app.error)
    app.multiselect(key="strategies").set_value(["cls"]).run()
    assert_is_whole(app)


@pytest.mark.slow
def test_strategies_that_another_model_lacks_are_dropped(open_pairs, tiny_encoder_folder):
    app = open_pairs()
    app.multiselect(key="strategies").set_value(["cls", "lwap"]).run()
    app.selectbox(key="model").set_value(str(tiny_encoder_folder)).run()
    assert not app.exception
    assert not app.error
    assert not app.warning  # Streamlit's own, of a value that was set and has a default
    assert app.multiselect(key="strategies").value == ["cls"]


@pytest.mark.slow
def test_layers_that_another_model_lacks_are_dropped(open_pairs, make_encoder):
    app = open_pairs(model=str(make_encoder("bert", num_hidden_layers=5)))
    app.multiselect(key="strategies").set_value(["layer_mean:5"]).run()
    app.selectbox(key="model").set_value("alpha").run()
    assert_is_whole(app)
    assert not app.warning
    assert "layer_mean:5" not in app.multiselect(key="strategies").value
    assert "lwap" in app.multiselect(key="strategies").value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last", "mix"])
def test_heads_with_one_query_open(open_page, name):
    app = open_page("pairs", model=name)
    assert_is_whole(app)
    assert ("scalar_mix" if name == "mix" else "lwap") in scores_of(app).columns


@pytest.mark.slow
def test_a_model_without_attention_explains_itself(open_pairs, tiny_encoder_folder):
    app = open_pairs(model=str(tiny_encoder_folder))
    assert not app.exception
    assert not app.error
    assert "no trained layer attention" in shown(app.info)
    assert figures(app).keys() == {"pair-scores", "spearman", "layer-similarity", "pair-heatmap"}


# --- editing ------------------------------------------------------------------------------------


def test_a_typed_pair_arrives_in_the_library(open_pairs, downloads, alpha_model):
    app = edit(open_pairs(), cells={1: {"sentence2": "Typed over."}})
    assert_is_whole(app)
    typed = [PAIRS[0], ["A heron waits.", "Typed over.", 2.0], *PAIRS[2:]]
    wanted = lwap.compare_pairs(alpha_model, [row[:2] for row in typed])
    pd.testing.assert_frame_equal(
        downloads.table("lwap-pairs.csv"),
        wanted.to_frame([row[2] for row in typed]),
        check_dtype=False,
        atol=1e-6,
    )
    assert json.loads(app.query_params["p"][1]) == ["A heron waits.", "Typed over.", 2.0]


@pytest.mark.slow
def test_a_row_is_used_when_both_sentences_are_there(open_pairs):
    app = open_pairs()
    added = [{"sentence1": "A new one."}]
    edit(app, added=added)
    assert_is_whole(app)
    assert "Left out until both sentences are there: row 6" in shown(app.info)
    assert len(scores_of(app)) == 5
    added[0]["sentence2"] = "Now whole."
    edit(app, added=added)
    assert_is_whole(app)
    assert not app.info
    assert len(scores_of(app)) == 6
    assert "with the 5 scores" in shown(app.caption)


@pytest.mark.slow
def test_an_empty_row_is_nothing_to_talk_about(open_pairs):
    app = open_pairs()
    edit(app, added=[{}, {"sentence1": "  ", "sentence2": ""}])
    assert_is_whole(app)
    assert not app.info
    assert len(scores_of(app)) == 5


@pytest.mark.slow
def test_an_emptied_cell_leaves_its_pair_out(open_pairs):
    app = open_pairs()
    edit(app, cells={0: {"sentence1": None}, 2: {"score": None}})
    assert_is_whole(app)
    assert "row 1" in shown(app.info)
    assert len(scores_of(app)) == 4
    assert "with the 3 scores" in shown(app.caption)


@pytest.mark.slow
def test_removed_rows_are_gone(open_pairs):
    app = open_pairs(pair="5")
    edit(app, deleted=[1, 4])
    assert_is_whole(app)
    assert len(scores_of(app)) == 3
    assert app.selectbox(key="pair").value in ("1", "2", "3")


def test_no_complete_pair_says_so(open_pairs):
    app = open_pairs()
    edit(app, deleted=list(range(5)))
    assert not app.exception
    assert "There is no complete pair yet" in shown(app.error)
    edit(app, deleted=[0, 1, 2, 3])
    assert len(scores_of(app)) == 1


# --- few scores ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_pairs_without_scores_have_no_strip(open_pairs):
    app = open_pairs([[*row[:2], None] for row in PAIRS])
    assert_is_whole(app)
    assert "spearman" not in figures(app)
    assert "score" not in scores_of(app).columns
    assert not app.warning


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([3, 3, 3, 3, 3], "All 5 pairs have the same score (3)"),
        ([1, 2, None, None, None], "needs at least 3 scored pairs; there are 2"),
        ([None, None, 4.5, None, None], "needs at least 3 scored pairs; there are 1"),
        ([1e400, 1, 2, 3, 4], "the score is inf"),
    ],
)
def test_where_scores_give_no_correlation_the_rest_stays(open_pairs, scores, message):
    rows = [[*row[:2], score] for row, score in zip(PAIRS, scores, strict=True)]
    app = open_pairs(rows)
    assert_is_whole(app)
    assert message in shown(app.warning)
    assert "spearman" not in figures(app)
    assert len(scores_of(app)) == 5


@pytest.mark.slow
def test_equal_cosines_give_no_correlation_and_the_rest_stays(open_pairs):
    rows = [[f"Sentence {n}.", f"Sentence {n}.", n] for n in range(4)]
    app = open_pairs(rows)
    assert_is_whole(app)
    assert "same cosine (1)" in shown(app.warning)
    assert "spearman" not in figures(app)


@pytest.mark.slow
@pytest.mark.parametrize("score", [None, 3.0])
def test_one_pair_shows_cosines_and_says_why(open_pairs, score):
    app = open_pairs([["The only pair.", "There is no other.", score]])
    for scale in SCALES:
        app.button_group(key="scale").set_value(scale).run()
        assert_is_whole(app)
        drawn = trace(app, "pair-scores", "mean")["x"]
        np.testing.assert_allclose(drawn, scores_of(app)["mean"], atol=1e-6)
        assert ("so these are cosines" in shown(app.caption)) == (scale != "Cosine")


# --- files --------------------------------------------------------------------------------------


def test_files_fill_the_table(open_page):
    app = open_page("pairs")
    for turn, kind in enumerate(["csv", "parquet"]):
        table = frame([*PAIRS[turn:], *PAIRS[:turn]])
        upload(app, UPLOAD, as_file(table, kind))
        assert_is_whole(app)
        pd.testing.assert_frame_equal(
            table_of(app).reset_index(drop=True), table, check_dtype=False
        )
        assert "with the 5 scores" in shown(app.caption)


@pytest.mark.slow
def test_other_names_for_the_columns_are_taken(open_page):
    table = frame().rename(columns={"sentence1": "Text1", "sentence2": "text2", "score": "gold"})
    app = upload(open_page("pairs"), UPLOAD, as_file(table.assign(subset="mine"), "csv"))
    assert_is_whole(app)
    assert list(table_of(app).columns) == ["sentence1", "sentence2", "score"]
    assert "spearman" in figures(app)


@pytest.mark.slow
def test_a_file_without_scores_is_taken(open_page):
    app = upload(open_page("pairs"), UPLOAD, as_file(frame().drop(columns="score"), "tsv"))
    assert_is_whole(app)
    assert "spearman" not in figures(app)


@pytest.mark.slow
def test_a_file_is_read_once_and_then_edited(open_page):
    app = upload(open_page("pairs"), UPLOAD, as_file(frame(), "csv"))
    edit(app, cells={0: {"sentence1": "Edited after the upload."}})
    app.button_group(key="scale").set_value("Cosine").run()
    assert_is_whole(app)
    assert "Edited after the upload." in scores_of(app)["sentence1"].tolist()
    upload(app, UPLOAD, as_file(frame(), "csv"))  # the same file once more: a new upload
    assert "Edited after the upload." not in scores_of(app)["sentence1"].tolist()


@pytest.mark.slow
def test_an_example_replaces_a_file(open_page):
    app = upload(open_page("pairs"), UPLOAD, as_file(frame(), "csv"))
    app.selectbox(key="example").set_value("Numbers").run()
    assert_is_whole(app)
    assert len(table_of(app)) == 15


WRONG_FILES = [  # of each kind one; all that can be wrong with a file is in tests/test_data.py
    (as_file(frame().rename(columns={"sentence2": "b"}), "csv"), "has no column 'sentence2'"),
    (("mine.xlsx", b"PK\x03\x04", "application/zip"), "ends in '.xlsx'"),
    (("mine.csv", "sentence1,sentence2\nä,b\n".encode("latin-1"), "text/csv"), "not UTF-8"),
    (("mine.parquet", b"PAR1 and no more", "text/plain"), "not a readable .parquet file"),
    (as_file(frame([["a", "b", 1.0], ["c", "d", float("nan")]]), "csv"), "row 2: 'score' is"),
    (as_file(frame([["a", "b", 1], [None, "d", 2]]), "parquet"), "row 2: 'sentence1' is empty"),
    (("a *b* $c$ :red[d].csv", b"x,y\n1,2\n", "text/csv"), "'a *b* $c$ :red[d].csv' has no"),
]


@pytest.mark.slow
def test_a_wrong_file_says_what_is_wrong_and_keeps_the_table(open_pairs, subtests):
    app = open_pairs()
    for file, message in WRONG_FILES:
        with subtests.test(message):
            upload(app, UPLOAD, file)
            assert not app.exception
            assert len(app.error) == 1
            assert message in shown(app.error)
            assert figures(app).keys() >= FIGURES
            assert scores_of(app)["sentence2"].isin([row[1] for row in PAIRS]).all()
            assert len(scores_of(app)) == 5


@pytest.mark.slow
def test_what_is_wrong_is_said_as_long_as_the_file_is_there(open_pairs):
    file, message = WRONG_FILES[0]
    app = upload(open_pairs(), UPLOAD, file)
    app.button_group(key="scale").set_value("Cosine").run()
    assert message in shown(app.error)
    assert figures(app).keys() >= FIGURES
    upload(app, UPLOAD, None)
    assert_is_whole(app)
    assert len(scores_of(app)) == 5


@pytest.mark.slow
def test_a_file_of_too_many_pairs_is_refused(open_pairs, encoded):
    app = open_pairs()
    encoded.clear()
    many = pd.DataFrame({"sentence1": "a", "sentence2": [f"b{n}" for n in range(50_000)]})
    upload(app, UPLOAD, as_file(many, "csv"))
    assert not app.exception
    assert encoded == []
    message = shown(app.error)
    assert "'mine.csv' has 50,000 pairs; this page takes up to 2,000" in message
    assert "python -m lwap compare FILE" in message


@pytest.mark.slow
def test_as_many_pairs_as_allowed_are_shown(open_page):
    words = [f"w{n}" for n in range(ui_pairs.MAX_PAIRS)]
    many = pd.DataFrame({"sentence1": "a", "sentence2": words, "score": range(len(words))})
    app = upload(open_page("pairs"), UPLOAD, as_file(many, "csv"))
    assert_is_whole(app)
    assert "The 15 of 2,000 pairs" in shown(app.caption)
    assert "The 60 of 2,000 pairs" in shown(app.caption)
    assert "too long for a link" in shown(app.caption)
    assert "p" not in app.query_params
    assert len(scores_of(app)) == 2000
    edit(app, added=[{"sentence1": "one", "sentence2": "too many"}])
    assert not app.exception
    assert "'The table' has 2,001 pairs" in shown(app.error)


# --- texts --------------------------------------------------------------------------------------


TEXTS = [
    ["🦩🦩 waits 👩‍👩‍👧‍👦.", "Flags 🇩🇪🇳🇱 and 👍🏽."],
    ["מילים מימין לשמאל.", "جملة من اليمين إلى اليسار"],
    ["<b>bold</b> & <script>", "$x^2$ *star* :red[no] `code` ↔ [a](b)"],
    ["Same.", "Same."],
    ["x", "a" * 3000],
    ["Line\nbreak", "form\x0cfeed and \u2028"],
    [" leading", "trailing "],
    ["NA", "None"],
    ["007", "1e5"],
]


@pytest.mark.slow
def test_any_text_is_compared(open_pairs, subtests):
    app = open_pairs([[*texts, 1.0] for texts in TEXTS] + PAIRS)
    table = scores_of(app)
    assert sorted(table["sentence1"]) == sorted(row[0] for row in TEXTS + PAIRS)
    assert sorted(table["sentence2"]) == sorted(row[1] for row in TEXTS + PAIRS)
    for place, texts in enumerate(TEXTS, start=1):
        with subtests.test(texts[0]):
            app.selectbox(key="pair").set_value(str(place)).run()
            assert_is_whole(app)


@pytest.mark.slow
def test_a_long_sentence_is_said_to_be_cut(open_page):
    long = frame([["heron " * 10_000, "A heron.", 1.0], *PAIRS])
    app = upload(open_page("pairs"), UPLOAD, as_file(long, "csv"))
    assert_is_whole(app)
    assert "Pair 1: longer than the encoder's limit of 64 tokens" in shown(app.warning)


# --- choosing a pair ----------------------------------------------------------------------------


def test_a_click_on_a_dot_chooses_its_pair(open_pairs):
    app = open_pairs(scale="Cosine")
    order = scores_of(app)
    for row in (3, 0, 4):
        click(app, "pair-scores", row)
        assert_is_whole(app)
        place = int(app.selectbox(key="pair").value) - 1
        assert PAIRS[place][:2] == order.iloc[row][["sentence1", "sentence2"]].tolist()
        # The pair on top is looked at anyhow, and stays out of the link.
        in_link = [] if row == 0 else [str(place + 1)]
        assert list(app.query_params.get("pair", [])) == in_link
        bands = [s for s in figures(app)["pair-scores"]["layout"]["shapes"] if s["y1"] > s["y0"]]
        assert any(band["y0"] == row - 0.5 and band["y1"] == row + 0.5 for band in bands)


@pytest.mark.slow
def test_a_click_comes_in_any_of_the_browsers_shapes(open_pairs):
    app = open_pairs(scale="Cosine")
    wanted = scores_of(app)["sentence2"].tolist()
    for row, customdata in ((2, [2]), (3, {"0": 3}), (1, 1)):
        click(app, "pair-scores", customdata)
        assert PAIRS[int(app.selectbox(key="pair").value) - 1][1] == wanted[row]


@pytest.mark.slow
def test_a_click_beside_all_dots_changes_nothing(open_pairs):
    app = open_pairs(pair="4")
    click(app, "pair-scores", None)
    assert_is_whole(app)
    assert app.selectbox(key="pair").value == "4"


@pytest.mark.slow
def test_a_click_after_the_order_changed_means_what_is_seen(open_pairs):
    app = open_pairs()
    click(app, "pair-scores", 1)
    app.button_group(key="scale").set_value("Cosine").run()
    seen = scores_of(app).iloc[2]["sentence2"]
    click(app, "pair-scores", 2)
    assert PAIRS[int(app.selectbox(key="pair").value) - 1][1] == seen


def test_the_most_disputed_pair_is_chosen_first(open_pairs):
    app = open_pairs()
    first = scores_of(app).iloc[0]
    chosen = PAIRS[int(app.selectbox(key="pair").value) - 1]
    assert chosen[:2] == first[["sentence1", "sentence2"]].tolist()


@pytest.mark.slow
def test_the_menu_chooses_a_pair(open_pairs):
    app = open_pairs()
    app.selectbox(key="pair").set_value("5").run()
    assert_is_whole(app)
    assert "It does not rain" in texts_in(figures(app)["pair-weights"])


# --- links and other pages ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_link_brings_pairs_scale_choice_and_strategies(open_pairs):
    app = open_pairs(scale="Cosine", pair="2", model="beta", strategies=["cls", "layer_mean:1"])
    assert_is_whole(app)
    assert app.button_group(key="scale").value == "Cosine"
    assert app.selectbox(key="pair").value == "2"
    assert app.session_state["model"] == "beta"
    assert app.multiselect(key="strategies").value == ["cls", "layer_mean:1"]
    assert sorted(scores_of(app)["sentence2"]) == sorted(row[1] for row in PAIRS)
    assert scores_of(app)["score"].notna().all()


@pytest.mark.slow
def test_the_link_says_what_was_edited_and_opens_the_same(open_pairs, open_page):
    app = edit(open_pairs(), cells={0: {"sentence1": 'Quotes " and ↔, 100 % & more'}})
    link = {key: value for key, value in app.query_params.items() if key in ("p", "pair")}
    again = open_page("pairs", **link)
    assert_is_whole(again)
    pd.testing.assert_frame_equal(
        scores_of(again).reset_index(drop=True), scores_of(app).reset_index(drop=True)
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("not json", "The link's pairs cannot be read"),
        ('["cut off', "The link's pairs cannot be read"),
        ('["only", "two"]', "The link's pairs cannot be read"),
        ('{"a": 1}', "The link's pairs cannot be read"),
        ("[" * 1900, "The link's pairs cannot be read"),
        ("[null, null, null]", "There is no complete pair yet"),
    ],
    ids=["text", "cut", "two", "object", "deep", "nulls"],
)
def test_a_link_that_was_cut_says_so(open_page, value, message):
    app = open_page("pairs", p=value)
    assert not app.exception
    assert message in shown(app.error)


@pytest.mark.slow
def test_a_link_that_was_changed_by_hand_opens(open_page):
    values = [
        '["a", "b", "high"]',
        '["a", "b", {}]',
        '["a", "b", [1]]',
        '["a", "b", true]',
        '["a", "b", NaN]',
        "[1, 2.5, 3]",
        '[["a"], {"b": 1}, 3]',
        '["a", "b", 123456789012345678901234567890]',
    ]
    app = open_page("pairs", p=[*values, json.dumps(PAIRS[0])])
    assert not app.exception
    assert not app.error
    assert len(scores_of(app)) == len(values) + 1


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["99", "x"])
def test_an_unknown_choice_in_the_link_is_passed_over(open_page, pair):
    link = {"scale": "Loud", "pair": pair, "strategies": "no_such", "example": "?"}
    assert_is_whole(open_page("pairs", **link))


@pytest.mark.slow
def test_another_model_keeps_the_pairs(open_pairs, tiny_encoder_folder):
    app = edit(open_pairs(pair="3"), cells={0: {"sentence1": "Typed before."}})
    for name in ("beta", str(tiny_encoder_folder), "alpha"):
        app.selectbox(key="model").set_value(name).run()
        assert not app.exception
        assert not app.error
        assert "Typed before." in scores_of(app)["sentence1"].tolist()
        assert app.selectbox(key="pair").value == "3"
    assert "lwap" in scores_of(app).columns


@pytest.mark.slow
def test_another_page_and_back_keeps_the_pairs(open_pairs):
    app = edit(open_pairs(), cells={0: {"sentence1": "Typed before."}}, added=[{"sentence1": "x"}])
    app.button_group(key="scale").set_value("Cosine").run()
    app.multiselect(key="strategies").set_value(["cls", "mean"]).run()
    app.selectbox(key="pair").set_value("4").run()
    app.switch_page("pages/layers.py").run()
    assert not app.exception
    assert not app.error
    app.switch_page("pages/pairs.py").run()
    assert_is_whole(app)
    assert "Typed before." in scores_of(app)["sentence1"].tolist()
    assert "row 6" in shown(app.info)
    assert app.button_group(key="scale").value == "Cosine"
    assert app.multiselect(key="strategies").value == ["cls", "mean"]
    assert app.selectbox(key="pair").value == "4"
    edit(app, cells={1: {"sentence1": "And edited further."}})
    assert {"Typed before.", "And edited further."} <= set(scores_of(app)["sentence1"])


@pytest.mark.slow
def test_an_unknown_model_is_named_with_the_ways_out(open_pairs):
    app = open_pairs()
    app.selectbox(key="model").set_value("nobody/no-such-model").run()
    assert not app.exception
    assert "'nobody/no-such-model' is not on this machine" in shown(app.error)
    assert "all-MiniLM-L6-v2" in shown(app.error)
    app.selectbox(key="model").set_value("beta").run()
    assert_is_whole(app)
    assert len(scores_of(app)) == 5


# --- errors that are not ours -------------------------------------------------------------------


def test_a_bug_is_not_dressed_up_as_a_message(open_page, break_encoders):
    break_encoders()
    app = open_page("pairs", p=json.dumps(["Never compared.", "Not yet.", 1.0]))
    assert len(app.exception) == 1
    assert not app.error
