"""The Evaluate page: data in; grid, curves, plane, errors, slices, differences and files out."""

import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from lwap.evaluation import benchmark
from lwap.evaluation.benchmark import evaluate_sts
from lwap.evaluation.result import StsResult
from lwap.evaluation.slices import slice_pairs
from lwap.evaluation.sts import spearman
from lwap.evaluation.tasks import Task
from lwap.figures.texts import shorten
from lwap.ui.evaluate import errors as ui_errors
from lwap.ui.evaluate import evaluations
from lwap.ui.evaluate import views as evaluate
from lwap.ui.state import phenomena, sample_pairs
from tests.holding import Gate
from tests.pages.driving import (
    PAGES,
    ROOT,
    SECONDS,
    _answer,
    click,
    figures,
    settle,
    shown,
    texts_in,
    trace,
)

STANDARD, OWN = "Standard tasks", "Your file"
FIGURES = {
    "Layer curve": {"layer-curve-0"},
    "Alignment and uniformity": {"alignment-uniformity-0"},
    "Errors": {
        "gold-scatter-all together-lwap-",
        "layer-similarity",
        "pair-weights",
        "pair-knockout",
    },
    "Slices": {"slices"},
    "Differences": {"differences"},
}
TITLES = [entry["title"] for entry in phenomena()]
COLUMNS = [shorten(title, 12) for title in TITLES]  # as they stand above the grid
NEGATIONS = sample_pairs()[lambda table: table["subset"] == "negation"].reset_index(drop=True)


@pytest.fixture(autouse=True)
def own_server(monkeypatch, tmp_path):
    """Give each test a server that has evaluated nothing yet, and no standard tasks."""
    monkeypatch.setenv("LWAP_DATA", str(tmp_path / "no data"))
    evaluations._registry.clear()
    yield
    for found in at_work():
        found.stop()
        assert found.wait(SECONDS)
    evaluations._registry.clear()


@pytest.fixture
def open_evaluate(open_page):
    """Return a function that opens the page, by default with the sample evaluated."""

    def open_evaluate(*, wait: bool = True, **options) -> AppTest:
        app = open_page("evaluate", **options)
        return settle(app) if wait else app

    return open_evaluate


@pytest.fixture
def open_own(open_evaluate):
    """Return a function that opens the page on a file of the person's own."""

    def open_own(file, **options) -> AppTest:
        return put(open_evaluate(wait=False, data=OWN, **options), file)

    return open_own


def at_work() -> list:
    return list(evaluations._registry().found.values())


def look_at(app, view) -> AppTest:
    return app.button_group(key="evaluate_view").set_value(view).run()


def look_at_all(app) -> dict[str, dict[str, dict]]:
    """Look at every view; return the figures of each, without the grid."""
    seen = {}
    for view in FIGURES:
        assert_is_whole(look_at(app, view))
        seen[view] = {key: drawn for key, drawn in figures(app).items() if key != "strategy-grid"}
    return seen


def press(app) -> AppTest:
    """Press the button, and wait for the result."""
    return settle(app.button(key="evaluate_run").click().run())


def buttons(app) -> dict[str, str]:
    return {button.key: button.label for button in app.button}


def plain(text: str) -> str:
    """Return a text of a figure without its marks."""
    return re.sub(r"<[^>]+>", "", text)


def rows_of(app) -> list[str]:
    """Return the names of the grid's rows."""
    return list(map(plain, figures(app)["strategy-grid"]["layout"]["yaxis"]["ticktext"]))


def columns_of(app) -> list[str]:
    return list(map(plain, figures(app)["strategy-grid"]["layout"]["xaxis"]["ticktext"]))


def numbers_of(app) -> pd.DataFrame:
    """Return the table of all numbers."""
    return app.dataframe[-1].value


def listed(app) -> pd.DataFrame:
    """Return the table of pairs under the scatter."""
    return app.dataframe[0].value


def select_row(app, *rows: int) -> AppTest:
    state = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    return _answer(app, app.dataframe[0].proto.id, state)


def lasso(app, key: str, rows) -> AppTest:
    """Draw around points; a chosen point lies in two traces."""
    chart = next(element for element in app.get("plotly_chart") if element.key == key)
    points = [{"curve_number": 0, "customdata": [row]} for row in rows]
    selection = {"points": points, "point_indices": [], "box": [], "lasso": [{}]}
    return _answer(app, chart.proto.id, {"selection": selection})


def frame(count: int = 12, **changes) -> pd.DataFrame:
    """Return scored pairs whose every sentence is another one."""
    columns = {
        "sentence1": [f"A bird sings song {row}." for row in range(count)],
        "sentence2": [f"The boat {'and the river ' * (row % 3)}is {row}." for row in range(count)],
        "score": [row % 6 for row in range(count)],
    }
    return pd.DataFrame(columns | changes)


def as_file(table, name: str = "mine.csv") -> tuple[str, bytes, str]:
    content = table if isinstance(table, bytes) else table.to_csv(index=False).encode()
    return (name, content, "text/csv")


def put(app, file) -> AppTest:
    """Put a file into the box for labelled pairs."""
    app.file_uploader(key="evaluate_upload").set_value(file)
    return app.run()


def choose_data(app, kind: str) -> AppTest:
    return app.button_group(key="data").set_value(kind).run()


def choose_strategies(app, *names: str) -> AppTest:
    return app.multiselect(key="evaluate_strategies").set_value(list(names)).run()


def assert_is_whole(app) -> None:
    """Nothing was raised, nothing said as an error, and the grid is there."""
    assert not app.exception
    assert not app.error
    assert not app.warning  # Streamlit's own, of a value that was set and has a default
    assert "strategy-grid" in figures(app)


@pytest.fixture
def gate(monkeypatch):
    """Hold every evaluation after its first task until the gate is opened."""
    found = Gate()

    def evaluate(*arguments, on_task, **options):
        def hold(result):
            on_task(result)
            found.pass_through()
            on_task(result)  # hears of a stop

        return evaluate_sts(*arguments, on_task=hold, **options)

    monkeypatch.setattr(benchmark, "evaluate_sts", evaluate)
    yield found
    found.opened.set()


# --- opening ------------------------------------------------------------------------------------


def test_the_sample_is_evaluated_at_once_with_the_library_numbers(
    open_evaluate, tiny_checkpoints, taken
):
    app = open_evaluate()
    assert_is_whole(app)
    assert app.title[0].value == "Evaluate"
    assert "120 pairs written for this project" in shown(app.caption)
    assert columns_of(app) == [*COLUMNS, "average"]
    assert rows_of(app)[:3] == ["cls", "mean", "max"]
    assert {"lwap", "layer_mean:3", "layer_cls:0"} <= set(rows_of(app))
    assert "evaluate_run" not in buttons(app)

    tasks = [
        Task.from_pairs(table, name)
        for name, table in zip(TITLES, (entry["pairs"] for entry in phenomena()), strict=True)
    ]
    wanted = evaluate_sts(str(tiny_checkpoints / "alpha"), tasks)
    order = [[column.strategy for column in wanted.columns].index(name) for name in rows_of(app)]
    printed = [
        plain(text).replace("−", "-") for text in trace(app, "strategy-grid", "numbers")["text"]
    ]
    expected = ["–" if np.isnan(x) else f"{x:.2f}" for x in wanted.values()[order].flat]
    assert printed == expected
    numbers = numbers_of(app)
    table = numbers[(numbers["aggregation"] == "all") & (numbers["task"] == "average")]
    np.testing.assert_allclose(table["spearman"], wanted.values()[order][:, -1])
    np.testing.assert_allclose(table["low"], wanted.bounds()[0][order][:, -1])

    # What is downloaded holds the same numbers.
    table = pd.read_csv(io.StringIO(taken("lwap-evaluation.csv")))
    pd.testing.assert_frame_equal(table, numbers, check_dtype=False, check_index_type=False)
    assert len(table) == 3 * 9 * len(rows_of(app))
    found = json.loads(taken("lwap-evaluation.json"), parse_constant=pytest.fail)
    assert len(found["rows"]) == len(numbers)
    assert found["rows"][0]["spearman"] == pytest.approx(numbers["spearman"].iloc[0])
    by_name = {row["strategy"]: row for row in found["rows"] if row["task"] == "Negation"}
    assert by_name["layer_cls:0"]["spearman"] is None
    assert found["model"] == "alpha"
    assert found["pairs"] == dict.fromkeys(TITLES, 15)
    assert len(found["data_sha256"]["Negation"]) == 64
    assert (found["resamples"], found["seed"], found["precision"]) == (1000, 0, "fp32")
    assert {"lwap", "torch", "transformers"} <= found["versions"].keys()
    latex = taken("lwap-evaluation.tex")
    assert r"\toprule" in latex and r"\textbf{" in latex
    for name in rows_of(app):
        assert rf"\texttt{{{name.replace('_', chr(92) + '_')}}}" in latex
    assert "Negation & Word order" in latex


@pytest.mark.slow
def test_every_view_is_drawn_and_in_the_report_once_it_was_looked_at(
    open_evaluate, taken, downloads
):
    app = open_evaluate()
    assert "Alignment and uniformity" not in taken("lwap-report.html")
    for view, keys in FIGURES.items():
        look_at(app, view)
        assert_is_whole(app)
        assert figures(app).keys() == {"strategy-grid"} | keys
        if view == "Alignment and uniformity":
            report = taken("lwap-report.html")
            assert report.startswith("<!doctype html>")
            assert report.count("Alignment and uniformity: alpha") == 1
            assert "Differences to lwap, average" in report
            (name,) = [name for name in downloads if name.startswith("lwap-geometry")]
            assert "/" not in name
            table = downloads.table(name)
            assert {"strategy", "alignment", "uniformity", "isoscore"} <= set(table.columns)
            assert {"mean", "lwap", "layer_mean:2"} <= set(table["strategy"])
    look_at(choose_strategies(app, "mean", "lwap"), "Alignment and uniformity")
    report = taken("lwap-report.html")
    assert report.count("Alignment and uniformity: alpha") == 1  # not the one before as well
    assert "first_last_mean" not in report


@pytest.mark.slow
def test_a_dark_browser_gets_dark_figures(open_own):
    fonts = {}
    options = {"evaluate_strategies": ["mean", "lwap"]}
    light = press(open_own(as_file(frame()), **options))
    for theme, app in (
        ("light", light),
        ("dark", open_own(as_file(frame()), theme="dark", **options)),
    ):
        seen = [figures(app)["strategy-grid"]]
        seen += [figure for drawn in look_at_all(app).values() for figure in drawn.values()]
        (fonts[theme],) = {figure["layout"]["font"]["color"] for figure in seen}
    assert fonts["light"] != fonts["dark"]


@pytest.mark.slow
def test_every_view_is_drawn_for_a_plain_encoder(open_evaluate, tiny_encoder_folder):
    app = open_evaluate(model=str(tiny_encoder_folder))
    look_at_all(app)
    assert len(rows_of(app)) == 8 + 2 * 4


@pytest.mark.slow
def test_it_tells_what_another_pooling_costs_and_gains(open_own, monkeypatch):
    costs = {
        "strategy": ["mean", "cls", "max"],
        "cost": [1.5, -2.0, 0.25],
        "low": [0.5, -3.0, -1.0],
        "high": [2.5, -1.0, 1.5],
        "significant": [True, True, False],
    }
    table = pd.DataFrame(costs).assign(model="alpha", trained_with="lwap")
    monkeypatch.setattr(StsResult, "mismatch", lambda result: table)
    app = press(open_own(as_file(frame())))
    assert_is_whole(app)
    assert (
        "**alpha was trained with lwap.** Read with another pooling, in Spearman × 100: it loses "
        "with mean 1.50 [0.50, 2.50]; it gains with cls 2.00 [1.00, 3.00]." in shown(app.caption)
    )


@pytest.mark.slow
def test_the_first_request_of_a_fresh_server_may_be_for_this_page(open_page, monkeypatch):
    """Streamlit then takes pages/ for its older kind of app and runs the page without app.py."""
    open_page("models")
    monkeypatch.setattr(PagesManager, "uses_pages_directory", None)
    app = AppTest.from_file(ROOT / "app.py", default_timeout=SECONDS)
    app._page_hash = calc_hash("evaluate")
    settle(app.run())
    assert_is_whole(app)
    assert app.title[0].value == "Evaluate"
    assert app.selectbox(key="model").value == "alpha"


# --- while it runs, and when it does not end well -----------------------------------------------


def test_finished_tasks_are_drawn_while_it_runs_and_other_sessions_share_or_wait(
    open_evaluate, gate
):
    app = open_evaluate(wait=False)
    assert gate.reached.wait(SECONDS)
    app.run()
    assert not app.exception
    assert figures(app).keys() == {"strategy-grid-so-far"}
    assert buttons(app).keys() == {"evaluate_stop"}
    (bar,) = app.get("progress")
    assert "Sentences encoded" in bar.proto.text or "Looking up" in bar.proto.text

    (first,) = at_work()
    open_evaluate(wait=False)
    assert at_work() == [first]
    other = open_evaluate(wait=False, model="beta")
    assert not other.exception
    assert "Another computation is running" in other.get("progress")[0].proto.text

    app.switch_page(PAGES["models"]).run()
    assert not app.exception
    gate.opened.set()
    app.switch_page(PAGES["evaluate"])
    assert_is_whole(settle(app))
    assert columns_of(app) == [*COLUMNS, "average"]
    assert_is_whole(other.run())
    assert len(at_work()) == 2


@pytest.mark.slow
def test_a_stop_keeps_what_was_finished(open_evaluate, gate):
    app = open_evaluate(wait=False)
    assert gate.reached.wait(SECONDS)
    app.run()
    app.button(key="evaluate_stop").click().run()
    gate.opened.set()
    settle(app)
    assert_is_whole(app)
    assert "Stopped. What was encoded is kept" in shown(app.info)
    assert "Below are the 1 of 8 tasks that were finished." in shown(app.info)
    assert columns_of(app) == COLUMNS[:1]
    assert "earlier choice" not in shown(app.info)
    assert_is_whole(look_at(app, "Errors"))
    press(app)
    assert_is_whole(app)
    assert not app.info
    assert len(columns_of(app)) == 9


def test_a_failure_shows_its_error_and_leaves_the_earlier_result(open_own):
    app = open_own(as_file(frame()))
    press(put_corpus(app, ["Too few.", "To whiten."], "a *b* $c$.txt"))
    assert not app.exception
    assert "Whitening 32 dimensions needs more than 32 distinct sentences" in shown(app.error)
    assert "'a *b* $c$.txt' has 2" in shown(app.error)
    assert buttons(app)["evaluate_run"] == "Evaluate (12 pairs)"
    assert not figures(app)
    assert "evaluate_run" in buttons(press(app))  # one more try
    press(put_corpus(app, None))  # taken out again
    assert_is_whole(app)
    assert not app.info

    press(put_corpus(app, ["Too few.", "To whiten."]))
    assert "'corpus.txt' has 2" in shown(app.error)
    assert "Below is the result of an earlier choice: alpha on mine.csv." in shown(app.info)
    assert "evaluate_run" in buttons(app)
    assert columns_of(app) == ["mine.csv"]
    put_corpus(app, None)
    assert_is_whole(app)
    assert not app.info

    put_corpus(app, ["", " "])
    assert not app.exception
    assert "'corpus.txt' is empty" in shown(app.error)
    put_corpus(app, None)
    assert_is_whole(app)


def test_an_evaluation_that_fails_between_two_looks_says_so(open_own, monkeypatch):
    """The thread may end after the page has found it, and before it looks at the result."""
    app = press(put_corpus(open_own(as_file(frame())), ["Too few."]))
    (failed,) = at_work()
    looks = []

    def found_while_it_ran(request):
        looks.append(request)
        return running if len(looks) == 1 else failed

    running = evaluations.Evaluation(failed.request, failed.tasks)
    monkeypatch.setattr(evaluations, "find", found_while_it_ran)
    monkeypatch.setattr(evaluations.Evaluation, "is_active", property(lambda _: False))
    app.run()
    assert not app.exception
    assert "needs more than 32 distinct sentences" in shown(app.error)
    assert "evaluate_run" in buttons(app)


# --- strategies and models ----------------------------------------------------------------------


@pytest.mark.slow
def test_chosen_strategies_narrow_the_grid_and_every_view(open_evaluate):
    app = open_evaluate()
    before = figures(app)["strategy-grid"]
    choose_strategies(app, "mean", "lwap")
    assert_is_whole(app)
    layers = [f"layer_{kind}:{state}" for kind in ("mean", "cls") for state in range(4)]
    assert rows_of(app) == ["mean", "lwap", *layers]
    assert texts_in(figures(app)["strategy-grid"]) != texts_in(before)
    assert set(numbers_of(app)["strategy"]) == set(rows_of(app))
    look_at(app, "Differences")
    assert "correction for 8 comparisons" in shown(app.caption)  # 9 others; layer_cls:0 has none

    look_at(app, "Slices")
    assert_is_whole(app)
    (found,) = at_work()
    names = [column.strategy for column in found.result.columns]
    cosines = np.concatenate(found.result.cosines, axis=1)[names.index("mean")]
    gold = np.concatenate([task.gold for task in found.result.tasks])
    masks = slice_pairs(
        [text for task in found.result.tasks for text in task.first],
        [text for task in found.result.tasks for text in task.second],
    )
    drawn = np.asarray(trace(app, "slices", "mean")["x"], dtype=float)
    for place, mask in enumerate(masks.values()):
        expected = spearman(cosines[mask], gold[mask]) if mask.sum() >= 15 else np.nan
        np.testing.assert_allclose(drawn[place], expected)
    assert np.isfinite(drawn).sum() >= 4

    choose_strategies(app)
    assert not app.exception
    assert "No strategy is chosen" in shown(app.error)

    choose_strategies(app, "layer_mean:1")
    assert "Slices compare strategies, not single layers" in shown(app.info)
    look_at_all(app)
    assert all(name.startswith("layer_") for name in rows_of(app))


@pytest.mark.slow
def test_a_second_model_stands_beside_the_first(open_evaluate):
    app = open_evaluate(second="beta")
    table = numbers_of(app)
    assert list(dict.fromkeys(table["model"])) == ["alpha", "beta"]
    drawn = texts_in(figures(app)["strategy-grid"])
    assert "alpha · lwap" in drawn and "beta · lwap" in drawn
    # Both read the states of one encoder, so that the rest would stand there twice.
    assert set(table.loc[table["model"] == "beta", "strategy"]) == {"lwap"}
    seen = look_at_all(app)
    for view in ("Layer curve", "Alignment and uniformity"):
        (drawn,) = seen[view].values()
        assert "alpha · lwap" in texts_in(drawn) and "beta · lwap" in texts_in(drawn)
    app.selectbox(key="evaluate_baseline").set_value("beta · lwap").run()
    assert_is_whole(app)
    assert "strategy minus beta · lwap" in shown(app.caption)
    assert "alpha · lwap" in [entry.get("name") for entry in figures(app)["differences"]["data"]]


@pytest.mark.slow
def test_models_on_two_encoders_are_compared(open_evaluate, make_encoder):
    deeper = str(make_encoder("bert", seed=1, num_hidden_layers=5))
    app = open_evaluate(second=deeper)
    assert_is_whole(app)
    table = numbers_of(app)
    assert "layer_mean:5" in set(table.loc[table["model"] == deeper, "strategy"])
    assert "lwap" not in set(table.loc[table["model"] == deeper, "strategy"])
    seen = look_at_all(app)
    for view in ("Layer curve", "Alignment and uniformity"):
        assert len(seen[view]) == 2


@pytest.mark.slow
def test_heads_of_other_kinds_are_compared_and_trained_ones_are_in_the_slices(open_evaluate):
    app = open_evaluate(model="last", second="mix", evaluate_view="Slices")
    assert_is_whole(app)
    drawn = texts_in(figures(app)["strategy-grid"])
    assert "last · lwap" in drawn and "mix · scalar_mix" in drawn
    names = [entry["name"] for entry in figures(app)["slices"]["data"] if entry.get("name")]
    names = [name for name in names if not name.endswith("interval")]
    assert len(names) == evaluate.IN_SLICES
    assert {"last · lwap", "mix · scalar_mix"} <= set(names)
    assert f"{evaluate.IN_SLICES} strategies are drawn" in shown(app.caption)


@pytest.mark.slow
def test_the_second_model_may_be_unknown_or_the_first_itself(open_own):
    app = open_own(as_file(frame()), second="nobody/no-such-model")
    assert not app.exception
    assert "'nobody/no-such-model' is not on this machine" in shown(app.error)
    app.selectbox(key="second").set_value("beta").run()
    assert_is_whole(press(app))
    assert set(numbers_of(app)["model"]) == {"alpha", "beta"}
    app.selectbox(key="model").set_value("beta").run()
    assert_is_whole(press(app))
    assert set(numbers_of(app)["model"]) == {"beta"}


@pytest.mark.slow
def test_a_checkpoint_trained_anew_is_evaluated_anew(open_own, make_checkpoint):
    folder = make_checkpoint("mine")
    app = press(open_own(as_file(frame()), model=str(folder)))
    before = numbers_of(app).set_index("strategy").loc["lwap", "spearman"]
    shutil.rmtree(folder)
    make_checkpoint("mine", seed=7)
    press(app.run())
    assert_is_whole(app)
    after = numbers_of(app).set_index("strategy").loc["lwap", "spearman"]
    assert not np.allclose(before, after)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_click_on_a_cell_sets_task_and_strategy_of_errors(open_evaluate):
    app = open_evaluate(evaluate_view="Errors", evaluate_strategies=["mean", "max", "lwap"])
    for beside in (None, [rows_of(app).index("layer_cls:0"), 0]):  # the second one is empty
        click(app, "strategy-grid", beside)
        assert_is_whole(app)
        assert app.selectbox(key="evaluate_strategy").value == "lwap"
    click(app, "strategy-grid", [rows_of(app).index("layer_mean:2"), TITLES.index("Numbers")])
    assert_is_whole(app)
    assert app.selectbox(key="evaluate_strategy").value == "layer_mean:2"
    assert app.selectbox(key="evaluate_task").value == "Numbers"
    assert len(listed(app)) == 15
    click(app, "strategy-grid", [rows_of(app).index("max"), len(TITLES)])  # an average
    assert_is_whole(app)
    assert app.selectbox(key="evaluate_strategy").value == "max"
    assert app.selectbox(key="evaluate_task").value == "Numbers"


@pytest.fixture
def open_errors(open_own):
    """Return a function that opens the errors of one strategy on the pairs on negation."""

    def open_errors(strategy: str = "mean") -> AppTest:
        app = press(open_own(as_file(NEGATIONS), evaluate_view="Errors"))
        return choose_strategy(app, strategy)

    return open_errors


def choose_strategy(app, name: str) -> AppTest:
    return app.selectbox(key="evaluate_strategy").set_value(name).run()


def scatter_of(app) -> str:
    return next(key for key in figures(app) if key.startswith("gold-scatter"))


def pair_in_words(row: int, table: pd.DataFrame = NEGATIONS) -> str:
    return f"{table['sentence1'][row]} ↔ {table['sentence2'][row]}"


def test_the_worst_pairs_come_first_and_what_is_clicked_is_listed_and_shown(
    open_errors, monkeypatch
):
    app = open_errors()
    assert_is_whole(app)
    every = listed(app)
    assert list(every.columns) == ["Δ rank", "sentence1", "sentence2", "score", "cosine, mean"]
    assert (every["Δ rank"].abs().diff().dropna() <= 1e-9).all()
    ranks = every[["cosine, mean", "score"]].rank()
    np.testing.assert_allclose(
        every["Δ rank"], 100 * (ranks["cosine, mean"] - ranks["score"]) / 14, atol=1e-9
    )
    worst = every.iloc[0]
    assert f"{worst['sentence1']} ↔ {worst['sentence2']}" in shown(app.markdown)
    assert f"cosine {worst['cosine, mean']:.3f} under mean" in shown(app.markdown)
    assert "evaluate_all_pairs" not in buttons(app)

    click(app, scatter_of(app), [11])
    assert_is_whole(app)
    assert listed(app)["sentence2"].tolist() == [NEGATIONS["sentence2"][11]]
    assert pair_in_words(11) in shown(app.markdown)
    assert "The pair that you chose in the figure." in shown(app.caption)
    assert trace(app, scatter_of(app), "selected")["customdata"] == [[11]]

    lasso(app, scatter_of(app), [2, 4, 9, 4])  # a chosen point lies in two traces
    assert_is_whole(app)
    assert sorted(listed(app)["sentence2"]) == sorted(NEGATIONS["sentence2"][[2, 4, 9]])
    assert (listed(app)["Δ rank"].abs().diff().dropna() <= 1e-9).all()
    assert "The 3 pairs that you chose" in shown(app.caption)

    app.button(key="evaluate_all_pairs").click().run()
    assert_is_whole(app)
    assert len(listed(app)) == 15
    assert "largest difference in rank" in shown(app.caption)
    assert "selected" not in [e.get("name") for e in figures(app)[scatter_of(app)]["data"]]

    before = texts_in(figures(app)["pair-weights"])
    chosen = listed(app).iloc[6]
    select_row(app, 6)
    assert_is_whole(app)
    assert f"{chosen['sentence1']} ↔ {chosen['sentence2']}" in shown(app.markdown)
    assert texts_in(figures(app)["pair-weights"]) != before
    lasso(app, scatter_of(app), [1, 2])  # the table is shorter than the chosen row
    assert_is_whole(app)
    assert len(listed(app)) == 2
    assert f"{listed(app).iloc[0]['sentence1']} ↔" in shown(app.markdown)


@pytest.mark.slow
def test_many_pairs_are_drawn_and_listed_in_part(open_errors, monkeypatch):
    app = open_errors()
    error_of = dict(zip(listed(app)["sentence2"], listed(app)["Δ rank"].abs(), strict=True))
    monkeypatch.setattr(ui_errors, "DRAWN", 8)
    monkeypatch.setattr(ui_errors, "LISTED", 5)
    app.run()
    assert "8 of 15 pairs are drawn, chosen at random" in shown(app.caption)
    assert "The 5 pairs with the largest difference" in shown(app.caption)
    assert len(listed(app)) == 5
    key = scatter_of(app)
    points = trace(app, key, "pairs")
    assert sorted(place for (place,) in points["customdata"]) == list(range(8))
    labels = [plain(text.replace("<br>", " ")) for text in points["hovertext"]]
    drawn = [
        max((text for text in NEGATIONS["sentence2"] if text in label), key=len) for label in labels
    ]
    lasso(app, key, points["customdata"][3])
    assert listed(app)["sentence2"].tolist() == [drawn[3]]
    lasso(app, key, range(8))
    assert "The 5 worst of the 8 pairs that you chose in the figure." in shown(app.caption)
    errors = sorted((error_of[text] for text in drawn), reverse=True)
    np.testing.assert_allclose(listed(app)["Δ rank"].abs(), errors[:5])


@pytest.mark.slow
def test_two_strategies_are_compared_pair_by_pair(open_errors):
    app = open_errors()
    app.button_group(key="evaluate_against").set_value("Another strategy").run()
    app.selectbox(key="evaluate_other").set_value("cls").run()
    assert_is_whole(app)
    assert "gold-scatter" not in " ".join(figures(app))
    table = listed(app)
    assert {"cosine, cls", "cosine, mean"} <= set(table.columns)
    ranks = table[["cosine, mean", "cosine, cls"]].rank()
    np.testing.assert_allclose(
        table["Δ rank"], 100 * (ranks["cosine, mean"] - ranks["cosine, cls"]) / 14, atol=1e-9
    )
    assert "that the two rank most differently" in shown(app.caption)
    choose_strategy(app, "cls")  # no longer another one
    assert_is_whole(app)
    assert app.selectbox(key="evaluate_other").value != "cls"


# --- the link, other pages, earlier results -----------------------------------------------------


@pytest.mark.slow
def test_a_link_brings_data_view_second_model_and_strategies(open_evaluate):
    app = open_evaluate(
        data="Your file",
        evaluate_view="Slices",
        second="beta",
        evaluate_strategies=["cls", "layer_mean:1"],
    )
    assert not app.exception
    assert "There is no file yet" in shown(app.error)
    assert_is_whole(settle(choose_data(app, "Sample")))
    assert "slices" in figures(app)
    assert app.multiselect(key="evaluate_strategies").value == ["cls", "layer_mean:1"]
    assert set(numbers_of(app)["model"]) == {"alpha", "beta"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "link",
    [{"data": "?", "evaluate_view": "?", "evaluate_strategies": "no_such"}, {"second": ""}],
    ids=str,
)
def test_an_unknown_choice_in_the_link_is_passed_over(open_evaluate, link):
    app = open_evaluate(**link)
    assert not app.exception
    assert figures(app) or "No model was named" in shown(app.error)


@pytest.mark.slow
def test_points_strategies_and_numbers_are_each_models_own_and_kept_on_other_pages(open_own, taken):
    table = frame()
    app = press(open_own(as_file(table), second="beta", evaluate_view="Errors"))
    weights = []
    for name in ("alpha · lwap", "beta · lwap"):
        choose_strategy(app, name)
        lasso(app, scatter_of(app), [5])
        assert_is_whole(app)
        assert pair_in_words(5, table) in shown(app.markdown)
        weights.append(texts_in(figures(app)["pair-weights"]))
    assert weights[0] != weights[1]  # each read by its own model
    lasso(app, scatter_of(app), [2, 4])
    assert len(listed(choose_strategy(app, "alpha · lwap"))) == 1
    assert len(listed(choose_strategy(app, "alpha · max"))) == 12
    assert len(listed(choose_strategy(app, "beta · lwap"))) == 2

    choose_strategies(app, "mean", "lwap")
    before = numbers_of(app)
    app.switch_page(PAGES["models"]).run()
    app.switch_page(PAGES["evaluate"]).run()
    assert_is_whole(app)
    assert app.button_group(key="data").value == OWN
    assert "mine.csv: 12 pairs" in shown(app.caption)
    assert app.selectbox(key="evaluate_strategy").value == "beta · lwap"
    assert len(listed(app)) == 2
    assert "evaluate_run" not in buttons(app)
    pd.testing.assert_frame_equal(numbers_of(app), before)

    # What is downloaded is what is shown.
    table = pd.read_csv(io.StringIO(taken("lwap-evaluation.csv")))
    named = table.loc[~table["strategy"].str.startswith("layer_"), ["model", "strategy"]]
    assert sorted(set(map(tuple, named.to_numpy()))) == [
        ("alpha", "lwap"),
        ("alpha", "mean"),
        ("beta", "lwap"),
    ]
    assert json.loads(taken("lwap-evaluation.json"))["model"] == ["alpha", "beta"]
    assert r"\texttt{beta $\cdot$ lwap}" in taken("lwap-evaluation.tex")
    assert "alpha, beta on mine.csv" in taken("lwap-report.html")


@pytest.mark.slow
def test_another_choice_shows_the_earlier_result_until_the_button_is_pressed(open_evaluate):
    app = put(choose_data(open_evaluate(), OWN), as_file(frame()))
    assert_is_whole(app)
    assert buttons(app) == {"evaluate_run": "Evaluate (12 pairs)"}
    note = shown(app.info)
    assert f"Below is the result of an earlier choice: alpha on {', '.join(TITLES)}." in note
    assert columns_of(app) == [*COLUMNS, "average"]
    look_at_all(app)
    press(app)
    assert_is_whole(app)
    assert not app.info
    assert columns_of(app) == ["mine.csv"]

    # Back to an earlier choice needs no button.
    choose_data(app, "Sample")
    assert_is_whole(app)
    assert not app.info
    assert columns_of(app) == [*COLUMNS, "average"]
    choose_data(app, OWN)
    assert not app.info
    assert columns_of(app) == ["mine.csv"]

    # The earlier result of another model keeps its own strategy.
    app.selectbox(key="model").set_value("mix").run()
    assert_is_whole(app)
    assert "Below is the result of an earlier choice: alpha on mine.csv." in shown(app.info)
    assert "lwap" in rows_of(app)
    press(app)
    assert "scalar_mix" in rows_of(app)


# --- standard tasks -----------------------------------------------------------------------------


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """A data folder with small files in the place of three tasks."""
    folder = tmp_path / "data"
    (folder / "sts").mkdir(parents=True)
    for name, count in (("sts13", 20), ("stsb-test", 24), ("stsb-dev", 16)):
        frame(count).to_csv(folder / "sts" / f"{name}.csv", index=False)
    monkeypatch.setenv("LWAP_DATA", str(folder))
    return folder


@pytest.mark.slow
def test_without_a_data_folder_the_ways_out_are_named(open_evaluate, tmp_path):
    app = open_evaluate(data=STANDARD)
    assert not app.exception
    message = shown(app.error)
    assert f"There are no STS tasks in '{tmp_path / 'no data'}'" in message
    assert "python -m lwap data download sts" in message and "LWAP_DATA" in message
    assert_is_whole(settle(choose_data(app, "Sample")))


@pytest.mark.slow
def test_standard_tasks_are_evaluated_at_a_press(open_evaluate, data_folder):
    app = open_evaluate(data=STANDARD)
    assert app.multiselect(key="tasks").value == ["sts13", "stsb"]  # no dev set
    assert buttons(app) == {"evaluate_run": "Evaluate (2 tasks, 44 pairs)"}
    app.multiselect(key="tasks").set_value([]).run()
    assert not app.exception
    assert "No task is chosen. Pick at least one." in shown(app.error)
    app.multiselect(key="tasks").set_value(["sts13", "stsb"]).run()
    press(app)
    assert_is_whole(app)
    assert columns_of(app) == ["STS13", "STS-B", "average"]
    notes = shown(app.caption)
    assert "STS13: 20 pairs; the published STS13 has 1500" in notes
    assert "No subset names" in notes

    # A file that changed is read anew, and one that is gone is no longer offered.
    frame(30).to_csv(data_folder / "sts" / "sts13.csv", index=False)
    app.run()
    assert buttons(app) == {"evaluate_run": "Evaluate (2 tasks, 54 pairs)"}
    (data_folder / "sts" / "stsb-test.csv").unlink()
    app.run()
    assert_is_whole(app)
    assert buttons(app) == {"evaluate_run": "Evaluate (30 pairs)"}

    app.multiselect(key="tasks").set_value(["stsb-dev"]).run()
    assert buttons(app) == {"evaluate_run": "Evaluate (16 pairs)"}
    press(app)
    assert columns_of(app) == ["STS-B dev"]
    look_at_all(app)


@pytest.mark.slow
def test_a_damaged_standard_file_is_named(open_evaluate, data_folder):
    frame(20, score=9.0).to_csv(data_folder / "sts" / "sts13.csv", index=False)
    app = open_evaluate(data=STANDARD)
    assert not app.exception
    assert "'sts13.csv', row 1: the score is 9" in shown(app.error)
    app.multiselect(key="tasks").set_value(["stsb"]).run()
    assert_is_whole(press(app))


# --- own files ----------------------------------------------------------------------------------

WRONG_FILES = [
    (as_file(frame().rename(columns={"sentence2": "b"})), "has no column 'sentence2'"),
    (as_file(frame().drop(columns="score")), "has no column 'score'"),
    (as_file(frame(3, score=[1, np.nan, 2])), "row 2: 'score' is ''; scores are numbers"),
    (as_file(frame(3, score=["1", "2", "high"])), "row 3: 'score' is 'high'"),
    (as_file(frame(score=2.5)), "All 12 pairs of 'mine.csv' have the same score (2.5)"),
    (as_file(frame(2)), "'mine.csv' has 2 scored pairs; a rank correlation needs at least 3"),
    (as_file(b""), "'mine.csv' is empty"),
    (as_file(frame(0)), "but no rows"),
    (as_file(frame(3, sentence1=["a", " ", "c"])), "row 2: 'sentence1' is empty"),
    (as_file(b"PK", "mine.xlsx"), "ends in '.xlsx'"),
    (as_file(b"x,y\n1,2\n", "a *b* $c$ :red[d].csv"), "'a *b* $c$ :red[d].csv' has no"),
]


def test_a_wrong_file_says_what_is_wrong_and_another_takes_its_place(open_evaluate):
    app = open_evaluate(data=OWN)
    for file, message in WRONG_FILES:
        put(app, file)
        assert not app.exception
        assert message in shown(app.error)
        assert "evaluate_run" not in buttons(app)
    put(app, as_file(frame(12, subset=["a", "b"] * 6)))
    assert buttons(app) == {"evaluate_run": "Evaluate (12 pairs)"}
    press(app)
    assert_is_whole(app)
    assert columns_of(app) == ["mine.csv"]
    assert set(numbers_of(app)["pairs"]) == {12}
    table = numbers_of(app).pivot(index="strategy", columns="aggregation", values="spearman")
    assert set(table.columns) == {"all", "mean", "wmean"}
    assert not np.isclose(table.loc["mean", "all"], table.loc["mean", "mean"])

    # A wrong file is no bar to the other data.
    put(app, as_file(b""))
    assert "'mine.csv' is empty" in shown(app.error)
    assert_is_whole(settle(choose_data(app, "Sample")))


@pytest.mark.slow
def test_another_file_of_the_same_name_forgets_the_chosen_points(open_own):
    app = press(open_own(as_file(frame(40)), evaluate_view="Errors"))
    lasso(app, scatter_of(app), [38, 39])
    assert len(listed(app)) == 2
    repeated = pd.concat([frame(7), frame(3, score=5)], ignore_index=True)
    press(put(app, as_file(repeated)))
    assert_is_whole(app)
    assert len(listed(app)) == 10
    assert "mine.csv: 3 of 10 pairs repeat an earlier one" in shown(app.caption)
    assert "no model can fit both" in shown(app.caption)


@pytest.mark.slow
def test_pairs_of_equal_sentences_give_nothing_to_rank(open_own):
    table = frame(20)
    app = press(open_own(as_file(table.assign(sentence2=table["sentence1"]))))
    for view in FIGURES:
        assert_is_whole(look_at(app, view))
        if view in ("Errors", "Slices"):
            assert "No strategy tells these pairs apart" in shown(app.info)
    assert set(map(plain, trace(app, "strategy-grid", "numbers")["text"])) == {"–"}


@pytest.mark.slow
def test_equal_sentences_among_others_are_no_problem(open_own):
    """Every pair of high overlap has the same cosine, and no positive pair has a length."""
    table = frame(60)
    is_equal = np.arange(60) % 3 == 0
    table["sentence2"] = table["sentence2"].where(~is_equal, table["sentence1"])
    table["score"] = np.where(is_equal, 4 + np.arange(60) % 2, np.arange(60) % 4)
    look_at_all(press(open_own(as_file(table))))


@pytest.mark.slow
def test_three_pairs_of_any_text_are_enough(open_own):
    texts = ["🦩 waits 👩‍👩‍👧‍👦 מימין לשמאל", "<b>bold</b> $x$ :red[no]", "a" * 3000 + " नमस्ते"]
    table = frame(3, sentence1=texts)
    app = press(open_own(as_file(table, "a *b* $c$ <d> :red[e] ·.csv")))
    assert_is_whole(app)
    for view in FIGURES:
        assert_is_whole(look_at(app, view))
        if view == "Errors":
            assert set(listed(app)["sentence1"]) == set(texts)


# --- whitening ----------------------------------------------------------------------------------


def put_corpus(app, lines, name: str = "corpus.txt") -> AppTest:
    content = None if lines is None else (name, "\n".join(lines).encode(), "text/plain")
    app.file_uploader(key="evaluate_whiten").set_value(content)
    return app.run()


@pytest.fixture(scope="session")
def corpus(sentences) -> list[str]:
    """More sentences than the tiny encoder has dimensions, and none that is scored here."""
    words = sorted({word for text in sentences for word in text.split()})
    rows = zip(words, words[50:], words[100:], strict=False)
    return [" ".join(row) for row in rows]


@pytest.mark.slow
def test_a_corpus_adds_the_whitened_twins_but_not_with_what_is_scored(open_own, corpus):
    scored = frame(24)["sentence1"].tolist()[:5]
    app = put_corpus(open_own(as_file(frame(24))), [*corpus, *corpus, *scored])
    said = f"Whitening is fitted on corpus.txt: {len(corpus) + 5} sentences"
    assert said in shown(app.caption)
    assert buttons(app)["evaluate_run"] == "Evaluate (24 pairs)"
    press(app)
    assert_is_whole(app)
    assert said in shown(app.caption)
    assert "are also scored; the whitening was fitted without them" in shown(app.caption)
    plain = [name for name in rows_of(app) if not name.startswith("layer_") and "+" not in name]
    assert {f"{name}+whiten" for name in plain} <= set(rows_of(app))
    choose_strategies(app, "mean")
    assert [name for name in rows_of(app) if "mean" in name and "layer" not in name] == [
        "mean",
        "mean+whiten",
    ]
    seen = look_at_all(app)
    assert "mean+whiten" in texts_in(seen["Alignment and uniformity"]["alignment-uniformity-0"])

    # It is kept on other pages, and can be removed.
    app.switch_page(PAGES["models"]).run()
    app.switch_page(PAGES["evaluate"]).run()
    assert "mean+whiten" in rows_of(app)
    press(app.button(key="evaluate_no_whitening").click().run())
    assert_is_whole(app)
    assert "mean+whiten" not in rows_of(app)
    assert "Whitening is fitted on" not in shown(app.caption)
