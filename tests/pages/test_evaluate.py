"""The Evaluate page: data in; grid, curves, plane, errors, slices, differences and files out."""

import contextlib
import io
import json
import re
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from lwap.errors import InputError
from lwap.evaluation import benchmark
from lwap.evaluation.benchmark import StsResult, Task, evaluate_sts
from lwap.figures.texts import shorten
from lwap.ui import evaluate, evaluations
from lwap.ui.state import phenomena, sample_pairs
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
        app = open_evaluate(wait=False, data=OWN, **options)
        app.file_uploader(key="evaluate_upload").set_value(file)
        return app.run()

    return open_own


def at_work() -> list:
    return list(evaluations._registry().found.values())


def look_at(app, view) -> AppTest:
    return app.button_group(key="evaluate_view").set_value(view).run()


def look_at_all(app) -> None:
    for view in FIGURES:
        assert_is_whole(look_at(app, view))


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


def upload(app, file) -> AppTest:
    """Choose the person's own data, and put a file in."""
    app.button_group(key="data").set_value(OWN).run()
    app.file_uploader(key="evaluate_upload").set_value(file)
    return app.run()


def upload_corpus(app, lines) -> AppTest:
    content = None if lines is None else ("corpus.txt", "\n".join(lines).encode(), "text/plain")
    app.file_uploader(key="evaluate_whiten").set_value(content)
    return app.run()


@pytest.fixture(scope="session")
def corpus(sentences) -> list[str]:
    """More sentences than the tiny encoder has dimensions, and none that the sample scores."""
    words = sorted({word for text in sentences for word in text.split()})
    rows = zip(words, words[50:], words[100:], strict=False)
    return [" ".join(row) for row in rows]


def assert_is_whole(app) -> None:
    """Nothing was raised, nothing said as an error, and the grid is there."""
    assert not app.exception
    assert not app.error
    assert not app.warning  # Streamlit's own, of a value that was set and has a default
    assert "strategy-grid" in figures(app)


class Held:
    """Holds an evaluation after its first task until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def evaluate(self, *arguments, on_task, **options):
        def hold(result):
            on_task(result)
            self.reached.set()
            assert self.go.wait(SECONDS)
            on_task(result)  # hears of a stop

        return evaluate_sts(*arguments, on_task=hold, **options)


@pytest.fixture
def held(monkeypatch):
    found = Held()
    monkeypatch.setattr(benchmark, "evaluate_sts", found.evaluate)
    yield found
    found.go.set()


@pytest.fixture
def broken(monkeypatch):
    """Return a context in which every evaluation fails with a message of ours."""

    def fail(*arguments, **options):
        raise InputError("The *first* sentence is $not$ there.")

    @contextlib.contextmanager
    def broken():
        with monkeypatch.context() as patch:
            patch.setattr(benchmark, "evaluate_sts", fail)
            yield

    return broken


# --- opening ------------------------------------------------------------------------------------


def test_it_opens_with_the_sample_evaluated(open_evaluate):
    app = open_evaluate()
    assert_is_whole(app)
    assert app.title[0].value == "Evaluate"
    assert "120 pairs written for this project" in shown(app.caption)
    assert columns_of(app) == [*COLUMNS, "average"]
    assert rows_of(app)[:3] == ["cls", "mean", "max"]
    assert {"lwap", "layer_mean:3", "layer_cls:0"} <= set(rows_of(app))
    assert "evaluate_run" not in buttons(app)


def test_the_grid_shows_the_library_numbers(open_evaluate, tiny_checkpoints):
    app = open_evaluate()
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
    table = numbers_of(app)
    table = table[(table["aggregation"] == "all") & (table["task"] == "average")]
    np.testing.assert_allclose(table["spearman"], wanted.values()[order][:, -1])
    np.testing.assert_allclose(table["low"], wanted.bounds()[0][order][:, -1])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_is_drawn(open_evaluate, theme):
    app = open_evaluate(theme=theme)
    fonts = set()
    for view, keys in FIGURES.items():
        look_at(app, view)
        assert_is_whole(app)
        assert figures(app).keys() == {"strategy-grid"} | keys
        fonts |= {figure["layout"]["font"]["color"] for figure in figures(app).values()}
    assert len(fonts) == 1


def test_every_view_is_drawn_for_the_plain_encoder(open_evaluate):
    app = open_evaluate(model="all-MiniLM-L6-v2")
    look_at_all(app)
    assert len(rows_of(app)) == 8 + 2 * 7


def test_a_shipped_checkpoint_is_evaluated(open_evaluate):
    app = open_evaluate(shipped=True, model="lwap-minilm-residual")
    look_at_all(app)
    assert columns_of(app)[-1] == "average"


def test_it_tells_what_another_pooling_costs_and_gains(open_evaluate, monkeypatch):
    costs = {
        "strategy": ["mean", "cls", "max"],
        "cost": [1.5, -2.0, 0.25],
        "low": [0.5, -3.0, -1.0],
        "high": [2.5, -1.0, 1.5],
        "significant": [True, True, False],
    }
    table = pd.DataFrame(costs).assign(model="alpha", trained_with="lwap")
    monkeypatch.setattr(StsResult, "mismatch", lambda result: table)
    app = open_evaluate()
    assert_is_whole(app)
    assert (
        "**alpha was trained with lwap.** Read with another pooling, in Spearman × 100: it loses "
        "with mean 1.50 [0.50, 2.50]; it gains with cls 2.00 [1.00, 3.00]." in shown(app.caption)
    )


@pytest.mark.parametrize("model", ["last", "mix"])
def test_heads_of_other_kinds_are_evaluated(open_evaluate, model):
    app = open_evaluate(model=model)
    assert_is_whole(app)
    assert ("scalar_mix" if model == "mix" else "lwap") in rows_of(app)


def test_the_first_request_of_a_fresh_server_may_be_for_this_page(open_page, monkeypatch):
    """Streamlit then takes pages/ for its older kind of app and runs the page without app.py."""
    open_page("layers")
    monkeypatch.setattr(PagesManager, "uses_pages_directory", None)
    app = AppTest.from_file(ROOT / "app.py", default_timeout=SECONDS)
    app._page_hash = calc_hash("evaluate")
    settle(app.run())
    assert_is_whole(app)
    assert app.title[0].value == "Evaluate"
    assert app.selectbox(key="model").value == "alpha"


# --- while it runs, and when it does not end well -----------------------------------------------


def test_finished_tasks_are_drawn_while_it_runs(open_evaluate, held):
    app = open_evaluate(wait=False)
    assert held.reached.wait(SECONDS)
    app.run()
    assert not app.exception
    assert figures(app).keys() == {"strategy-grid-so-far"}
    assert buttons(app).keys() == {"evaluate_stop"}
    (bar,) = app.get("progress")
    assert "Sentences encoded" in bar.proto.text or "Looking up" in bar.proto.text
    held.go.set()
    settle(app)
    assert_is_whole(app)
    assert columns_of(app) == [*COLUMNS, "average"]


def test_a_second_person_is_told_that_another_evaluation_runs(open_evaluate, held):
    open_evaluate(wait=False)
    assert held.reached.wait(SECONDS)
    second = open_evaluate(wait=False, model="beta")
    assert not second.exception
    assert "Another evaluation is running" in second.get("progress")[0].proto.text
    held.go.set()
    assert_is_whole(settle(second))


def test_two_people_share_one_evaluation(open_evaluate):
    open_evaluate()
    (first,) = at_work()
    assert_is_whole(open_evaluate(wait=False))
    assert at_work() == [first]


def test_a_stop_keeps_what_was_finished(open_evaluate, held):
    app = open_evaluate(wait=False)
    assert held.reached.wait(SECONDS)
    app.run()
    app.button(key="evaluate_stop").click().run()
    held.go.set()
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


def test_a_failure_shows_its_error_and_the_button(open_evaluate, broken):
    with broken():
        app = open_evaluate()
    assert not app.exception
    assert shown(app.error) == "The *first* sentence is $not$ there."
    assert buttons(app) == {"evaluate_run": "Evaluate (8 tasks, 120 pairs)"}
    assert not figures(app)
    press(app)
    assert_is_whole(app)


def test_a_failure_leaves_the_earlier_result(open_evaluate, broken):
    app = open_evaluate()
    app.selectbox(key="second").set_value("beta")
    with broken():
        settle(app.run())
        assert "sentence is $not$ there" in shown(app.error)
        assert "Below is the result of an earlier choice: alpha on" in shown(app.info)
        assert "evaluate_run" in buttons(app)
        assert len(columns_of(app)) == 9
    press(app)
    assert_is_whole(app)
    assert not app.info


def test_a_bug_is_told_and_logged(open_evaluate, monkeypatch, caplog):
    def bug(*arguments, **options):
        raise RuntimeError("a bug of ours")

    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "evaluate_sts", bug)
        app = open_evaluate()
    assert not app.exception
    assert "An unexpected error ended the evaluation" in shown(app.error)
    assert "a bug of ours" in caplog.text
    assert_is_whole(press(app))


def test_an_evaluation_that_fails_between_two_looks_says_so(open_evaluate, monkeypatch, broken):
    """The thread may end after the page has found it, and before it looks at the result."""
    with broken():
        app = open_evaluate()
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
    assert "sentence is $not$ there" in shown(app.error)
    assert "evaluate_run" in buttons(app)


# --- strategies and models ----------------------------------------------------------------------


def test_chosen_strategies_narrow_the_grid(open_evaluate):
    app = open_evaluate()
    before = figures(app)["strategy-grid"]
    app.multiselect(key="evaluate_strategies").set_value(["mean", "lwap"]).run()
    assert_is_whole(app)
    assert rows_of(app) == ["mean", "lwap", *(f"layer_mean:{k}" for k in range(4))] + [
        f"layer_cls:{k}" for k in range(4)
    ]
    assert texts_in(figures(app)["strategy-grid"]) != texts_in(before)
    assert set(numbers_of(app)["strategy"]) == set(rows_of(app))
    look_at(app, "Differences")
    assert "correction for 8 comparisons" in shown(app.caption)  # 9 others; layer_cls:0 has none


def test_without_a_strategy_it_says_so(open_evaluate):
    app = open_evaluate()
    app.multiselect(key="evaluate_strategies").set_value([]).run()
    assert not app.exception
    assert "No strategy is chosen" in shown(app.error)
    app.multiselect(key="evaluate_strategies").set_value(["cls"]).run()
    assert_is_whole(app)


def test_single_layers_alone_can_be_looked_at(open_evaluate):
    app = open_evaluate()
    app.multiselect(key="evaluate_strategies").set_value(["layer_mean:1"]).run()
    look_at_all(app)
    assert all(name.startswith("layer_") for name in rows_of(app))
    look_at(app, "Slices")
    assert "Slices compare strategies, not single layers" in shown(app.info)


def test_a_second_model_stands_beside_the_first(open_evaluate):
    app = open_evaluate(second="beta")
    table = numbers_of(app)
    assert list(dict.fromkeys(table["model"])) == ["alpha", "beta"]
    drawn = texts_in(figures(app)["strategy-grid"])
    assert "alpha · lwap" in drawn and "beta · lwap" in drawn
    # Both read the states of one encoder, so that the rest would stand there twice.
    assert set(table.loc[table["model"] == "beta", "strategy"]) == {"lwap"}
    look_at_all(app)
    for view in ("Layer curve", "Alignment and uniformity"):
        (drawn,) = (figures(look_at(app, view))[key] for key in FIGURES[view])
        assert "alpha · lwap" in texts_in(drawn) and "beta · lwap" in texts_in(drawn)


def test_a_difference_between_two_models_has_an_interval(open_evaluate):
    app = look_at(open_evaluate(second="beta"), "Differences")
    app.selectbox(key="evaluate_baseline").set_value("beta · lwap").run()
    assert_is_whole(app)
    assert "strategy minus beta · lwap" in shown(app.caption)
    assert "alpha · lwap" in [entry.get("name") for entry in figures(app)["differences"]["data"]]


def test_models_on_two_encoders_are_compared(open_evaluate):
    app = open_evaluate(second="all-MiniLM-L6-v2")
    assert_is_whole(app)
    table = numbers_of(app)
    assert "layer_mean:6" in set(table.loc[table["model"] == "all-MiniLM-L6-v2", "strategy"])
    assert "lwap" not in set(table.loc[table["model"] == "all-MiniLM-L6-v2", "strategy"])
    look_at_all(app)
    for view in ("Layer curve", "Alignment and uniformity"):
        assert len(figures(look_at(app, view))) == 3


def test_the_second_models_own_strategy_is_there_though_the_first_has_none(open_evaluate):
    app = open_evaluate(second="mix")
    assert_is_whole(app)
    assert "mix · scalar_mix" in texts_in(figures(app)["strategy-grid"])


def test_the_model_itself_is_no_second_one(open_evaluate):
    app = open_evaluate(second="beta")
    app.selectbox(key="model").set_value("beta").run()
    assert_is_whole(settle(app))
    assert set(numbers_of(app)["model"]) == {"beta"}


def test_an_unknown_second_model_is_named(open_evaluate):
    app = open_evaluate()
    app.selectbox(key="second").set_value("nobody/no-such-model").run()
    assert not app.exception
    assert "'nobody/no-such-model' is not on this machine" in shown(app.error)
    app.selectbox(key="second").set_value("beta").run()
    assert_is_whole(settle(app))


def test_a_checkpoint_trained_anew_is_evaluated_anew(open_evaluate, make_checkpoint):
    folder = make_checkpoint("mine")
    app = open_evaluate(model=str(folder))
    before = numbers_of(app).set_index("strategy").loc["lwap", "spearman"]
    shutil.rmtree(folder)
    make_checkpoint("mine", seed=7)
    settle(app.run())
    assert_is_whole(app)
    after = numbers_of(app).set_index("strategy").loc["lwap", "spearman"]
    assert not np.allclose(before, after)


# --- errors -------------------------------------------------------------------------------------


def test_a_click_on_a_cell_sets_task_and_strategy_of_errors(open_evaluate):
    app = open_evaluate()
    row, column = rows_of(app).index("layer_mean:2"), TITLES.index("Numbers")
    click(app, "strategy-grid", [row, column])
    look_at(app, "Errors")
    assert_is_whole(app)
    assert app.selectbox(key="evaluate_strategy").value == "layer_mean:2"
    assert app.selectbox(key="evaluate_task").value == "Numbers"
    assert len(listed(app)) == 15


def test_a_click_on_an_average_sets_the_strategy_alone(open_evaluate):
    app = look_at(open_evaluate(), "Errors")
    app.selectbox(key="evaluate_task").set_value("Numbers").run()
    click(app, "strategy-grid", [rows_of(app).index("max"), len(TITLES)])
    assert_is_whole(app)
    assert app.selectbox(key="evaluate_strategy").value == "max"
    assert app.selectbox(key="evaluate_task").value == "Numbers"


@pytest.mark.parametrize("place", [None, "layer_cls:0"])
def test_a_click_beside_the_cells_or_on_an_empty_one_changes_nothing(open_evaluate, place):
    app = look_at(open_evaluate(), "Errors")
    click(app, "strategy-grid", place and [rows_of(app).index(place), 0])
    assert_is_whole(app)
    assert app.selectbox(key="evaluate_strategy").value == "lwap"


def open_errors(open_evaluate, task="Negation", strategy="mean", **options):
    app = look_at(open_evaluate(**options), "Errors")
    app.selectbox(key="evaluate_task").set_value(task).run()
    return app.selectbox(key="evaluate_strategy").set_value(strategy).run()


def scatter_of(app) -> str:
    return next(key for key in figures(app) if key.startswith("gold-scatter"))


def pair_in_words(row: int) -> str:
    return f"{NEGATIONS['sentence1'][row]} ↔ {NEGATIONS['sentence2'][row]}"


def test_the_worst_pairs_come_first_and_the_worst_is_shown(open_evaluate):
    app = open_errors(open_evaluate)
    assert_is_whole(app)
    table = listed(app)
    assert list(table.columns) == ["Δ rank", "sentence1", "sentence2", "score", "cosine, mean"]
    assert (table["Δ rank"].abs().diff().dropna() <= 1e-9).all()
    ranks = table[["cosine, mean", "score"]].rank()
    np.testing.assert_allclose(
        table["Δ rank"], 100 * (ranks["cosine, mean"] - ranks["score"]) / 14, atol=1e-9
    )
    worst = table.iloc[0]
    assert f"{worst['sentence1']} ↔ {worst['sentence2']}" in shown(app.markdown)
    assert f"cosine {worst['cosine, mean']:.3f} under mean" in shown(app.markdown)


def test_a_clicked_point_is_the_pair_in_the_table_and_below(open_evaluate):
    app = open_errors(open_evaluate)
    for row in (3, 11):
        click(app, scatter_of(app), [row])
        assert_is_whole(app)
        assert listed(app)["sentence2"].tolist() == [NEGATIONS["sentence2"][row]]
        assert pair_in_words(row) in shown(app.markdown)
        assert "The pair that you chose in the figure." in shown(app.caption)
        assert trace(app, scatter_of(app), "selected")["customdata"] == [[row]]


def test_a_choice_of_points_can_be_taken_back(open_evaluate):
    app = open_errors(open_evaluate)
    assert "evaluate_all_pairs" not in buttons(app)
    lasso(app, scatter_of(app), [2, 5])
    app.button(key="evaluate_all_pairs").click().run()
    assert_is_whole(app)
    assert len(listed(app)) == 15
    assert "largest difference in rank" in shown(app.caption)
    assert "selected" not in [e.get("name") for e in figures(app)[scatter_of(app)]["data"]]
    lasso(app, scatter_of(app), [2, 5])
    assert len(listed(app)) == 2


def test_a_lasso_narrows_the_table_and_counts_each_pair_once(open_evaluate):
    app = open_errors(open_evaluate)
    click(app, scatter_of(app), [4])
    lasso(app, scatter_of(app), [2, 4, 9, 4])
    assert_is_whole(app)
    assert sorted(listed(app)["sentence2"]) == sorted(NEGATIONS["sentence2"][[2, 4, 9]])
    assert (listed(app)["Δ rank"].abs().diff().dropna() <= 1e-9).all()
    assert "The 3 pairs that you chose" in shown(app.caption)


def test_chosen_points_are_those_of_their_task_and_strategy(open_evaluate):
    app = open_errors(open_evaluate)
    lasso(app, scatter_of(app), [2, 4])
    app.selectbox(key="evaluate_strategy").set_value("max").run()
    assert len(listed(app)) == 15
    app.selectbox(key="evaluate_strategy").set_value("mean").run()
    assert len(listed(app)) == 2
    app.switch_page(PAGES["pairs"]).run()
    app.switch_page(PAGES["evaluate"]).run()
    assert_is_whole(app)
    assert len(listed(app)) == 2


def test_a_chosen_row_is_the_pair_below(open_evaluate):
    app = open_errors(open_evaluate)
    before = texts_in(figures(app)["pair-weights"])
    chosen = listed(app).iloc[6]
    select_row(app, 6)
    assert_is_whole(app)
    assert f"{chosen['sentence1']} ↔ {chosen['sentence2']}" in shown(app.markdown)
    assert texts_in(figures(app)["pair-weights"]) != before
    lasso(app, scatter_of(app), [1, 2])  # the table is shorter than the chosen row
    assert_is_whole(app)
    assert f"{listed(app).iloc[0]['sentence1']} ↔" in shown(app.markdown)


def test_two_strategies_are_compared_pair_by_pair(open_evaluate):
    app = open_errors(open_evaluate)
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
    app.selectbox(key="evaluate_strategy").set_value("cls").run()  # no longer another one
    assert_is_whole(app)
    assert app.selectbox(key="evaluate_other").value != "cls"


def test_a_pair_of_the_second_model_is_read_by_the_second_model(open_evaluate):
    first = open_errors(open_evaluate, strategy="alpha · lwap", second="beta")
    second = open_errors(open_evaluate, strategy="beta · lwap", second="beta")
    for app in (first, second):
        lasso(app, scatter_of(app), [5])
        assert_is_whole(app)
        assert pair_in_words(5) in shown(app.markdown)
    weights = [texts_in(figures(app)["pair-weights"]) for app in (first, second)]
    assert weights[0] != weights[1]


def test_many_pairs_are_drawn_and_listed_in_part(open_evaluate, monkeypatch):
    monkeypatch.setattr(evaluate, "DRAWN", 8)
    monkeypatch.setattr(evaluate, "LISTED", 5)
    app = open_errors(open_evaluate)
    assert "8 of 15 pairs are drawn, chosen at random" in shown(app.caption)
    assert "The 5 pairs with the largest difference" in shown(app.caption)
    assert len(listed(app)) == 5
    key = scatter_of(app)
    errors, points = [], trace(app, key, "pairs")
    for (place,), label in zip(points["customdata"], points["hovertext"], strict=True):
        lasso(app, key, [place])
        assert listed(app)["sentence1"].iloc[0].split()[0] in plain(label)
        errors.append(abs(listed(app)["Δ rank"].iloc[0]))
    lasso(app, key, range(8))
    assert "The 5 worst of the 8 pairs that you chose in the figure." in shown(app.caption)
    np.testing.assert_allclose(listed(app)["Δ rank"].abs(), sorted(errors, reverse=True)[:5])


# --- slices -------------------------------------------------------------------------------------


def test_slices_show_the_library_numbers(open_evaluate):
    from lwap.evaluation.slices import slice_pairs
    from lwap.evaluation.sts import spearman

    app = open_evaluate()
    app.multiselect(key="evaluate_strategies").set_value(["mean", "lwap"]).run()
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


def test_only_some_strategies_are_drawn_in_slices_the_trained_one_among_them(open_evaluate):
    app = look_at(open_evaluate(second="mix"), "Slices")
    assert_is_whole(app)
    names = [entry["name"] for entry in figures(app)["slices"]["data"] if entry.get("name")]
    names = [name for name in names if not name.endswith("interval")]
    assert len(names) == evaluate.IN_SLICES
    assert {"alpha · lwap", "mix · scalar_mix"} <= set(names)
    assert f"{evaluate.IN_SLICES} strategies are drawn" in shown(app.caption)


# --- the link, other pages, earlier results -----------------------------------------------------


def test_a_link_brings_data_view_second_model_and_strategies(open_evaluate):
    app = open_evaluate(
        data="Your file",
        evaluate_view="Slices",
        second="beta",
        evaluate_strategies=["cls", "layer_mean:1"],
    )
    assert not app.exception
    assert "There is no file yet" in shown(app.error)
    app.button_group(key="data").set_value("Sample").run()
    assert_is_whole(settle(app))
    assert "slices" in figures(app)
    assert app.multiselect(key="evaluate_strategies").value == ["cls", "layer_mean:1"]
    assert set(numbers_of(app)["model"]) == {"alpha", "beta"}


@pytest.mark.parametrize(
    "link",
    [{"data": "?"}, {"evaluate_view": "?"}, {"evaluate_strategies": "no_such"}, {"second": ""}],
    ids=str,
)
def test_an_unknown_choice_in_the_link_is_passed_over(open_evaluate, link):
    app = open_evaluate(**link)
    assert not app.exception
    assert figures(app) or "No model was named" in shown(app.error)


def test_another_page_and_back_keeps_everything(open_evaluate):
    app = press(upload(open_evaluate(second="beta"), as_file(frame())))
    look_at(app, "Errors")
    app.selectbox(key="evaluate_strategy").set_value("beta · lwap").run()
    app.multiselect(key="evaluate_strategies").set_value(["max", "lwap"]).run()
    before = numbers_of(app)
    app.switch_page(PAGES["layers"]).run()
    app.switch_page(PAGES["evaluate"]).run()
    assert_is_whole(app)
    assert app.button_group(key="data").value == OWN
    assert "mine.csv: 12 pairs" in shown(app.caption)
    assert app.selectbox(key="evaluate_strategy").value == "beta · lwap"
    assert "evaluate_run" not in buttons(app)
    pd.testing.assert_frame_equal(numbers_of(app), before)


def test_an_evaluation_goes_on_while_its_page_is_left(open_evaluate, held):
    app = open_evaluate(wait=False)
    assert held.reached.wait(SECONDS)
    app.switch_page(PAGES["layers"]).run()
    assert not app.exception
    held.go.set()
    app.switch_page(PAGES["evaluate"])
    assert_is_whole(settle(app))
    assert len(at_work()) == 1


def test_another_choice_shows_the_earlier_result_until_the_button_is_pressed(open_evaluate):
    app = upload(open_evaluate(), as_file(frame()))
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


def test_an_earlier_result_of_another_model_keeps_its_own_strategy(open_evaluate):
    app = press(upload(open_evaluate(), as_file(frame())))
    app.selectbox(key="model").set_value("mix").run()
    assert_is_whole(app)
    assert "Below is the result of an earlier choice: alpha on mine.csv." in shown(app.info)
    assert "lwap" in rows_of(app)
    press(app)
    assert "scalar_mix" in rows_of(app)


def test_back_to_an_earlier_choice_needs_no_button(open_evaluate):
    app = press(upload(open_evaluate(), as_file(frame())))
    app.button_group(key="data").set_value("Sample").run()
    assert_is_whole(app)
    assert not app.info
    assert columns_of(app) == [*COLUMNS, "average"]
    app.button_group(key="data").set_value(OWN).run()
    assert not app.info
    assert columns_of(app) == ["mine.csv"]


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


def choose_standard(app) -> AppTest:
    return app.button_group(key="data").set_value(STANDARD).run()


def test_without_a_data_folder_the_ways_out_are_named(open_evaluate, tmp_path):
    app = choose_standard(open_evaluate())
    assert not app.exception
    message = shown(app.error)
    assert f"There are no STS tasks in '{tmp_path / 'no data'}'" in message
    assert "python -m lwap data download sts" in message and "LWAP_DATA" in message
    app.button_group(key="data").set_value("Sample").run()
    assert_is_whole(app)


def test_standard_tasks_are_evaluated_at_a_press(open_evaluate, data_folder):
    app = choose_standard(open_evaluate())
    assert app.multiselect(key="tasks").value == ["sts13", "stsb"]  # no dev set
    assert buttons(app) == {"evaluate_run": "Evaluate (2 tasks, 44 pairs)"}
    press(app)
    assert_is_whole(app)
    assert columns_of(app) == ["STS13", "STS-B", "average"]
    notes = shown(app.caption)
    assert "STS13: 20 pairs; the published STS13 has 1500" in notes
    assert "No subset names" in notes
    app.multiselect(key="tasks").set_value(["stsb-dev"]).run()
    assert buttons(app) == {"evaluate_run": "Evaluate (16 pairs)"}
    press(app)
    assert columns_of(app) == ["STS-B dev"]
    look_at_all(app)


def test_no_standard_task_chosen_says_so(open_evaluate, data_folder):
    app = choose_standard(open_evaluate())
    app.multiselect(key="tasks").set_value([]).run()
    assert not app.exception
    assert "No task is chosen. Pick at least one." in shown(app.error)


def test_a_standard_file_that_changed_is_read_anew(open_evaluate, data_folder):
    app = press(choose_standard(open_evaluate()))
    frame(30).to_csv(data_folder / "sts" / "sts13.csv", index=False)
    app.run()
    assert buttons(app) == {"evaluate_run": "Evaluate (2 tasks, 54 pairs)"}
    (data_folder / "sts" / "stsb-test.csv").unlink()
    app.run()
    assert_is_whole(app)
    assert buttons(app) == {"evaluate_run": "Evaluate (30 pairs)"}


def test_a_damaged_standard_file_is_named(open_evaluate, data_folder):
    frame(20, score=9.0).to_csv(data_folder / "sts" / "sts13.csv", index=False)
    app = choose_standard(open_evaluate())
    assert not app.exception
    assert "'sts13.csv', row 1: the score is 9" in shown(app.error)
    app.multiselect(key="tasks").set_value(["stsb"]).run()
    assert_is_whole(press(app))


# --- own files ----------------------------------------------------------------------------------


def test_an_uploaded_file_is_evaluated_at_a_press(open_own):
    app = open_own(as_file(frame()))
    assert buttons(app) == {"evaluate_run": "Evaluate (12 pairs)"}
    press(app)
    assert_is_whole(app)
    assert columns_of(app) == ["mine.csv"]
    assert set(numbers_of(app)["pairs"]) == {12}
    look_at_all(app)


def test_a_file_of_subsets_has_all_three_aggregations(open_own):
    app = press(open_own(as_file(frame(12, subset=["a", "b"] * 6))))
    assert_is_whole(app)
    table = numbers_of(app).pivot(index="strategy", columns="aggregation", values="spearman")
    assert set(table.columns) == {"all", "mean", "wmean"}
    assert not np.isclose(table.loc["mean", "all"], table.loc["mean", "mean"])


@pytest.mark.parametrize(
    ("file", "message"),
    [
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
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_file_says_what_is_wrong(open_own, file, message):
    app = open_own(file)
    assert not app.exception
    assert message in shown(app.error)
    assert "evaluate_run" not in buttons(app)
    upload(app, as_file(frame()))  # another file takes its place
    assert_is_whole(press(app))
    assert columns_of(app) == ["mine.csv"]


def test_a_wrong_file_is_no_bar_to_the_other_data(open_evaluate):
    app = upload(open_evaluate(), as_file(b""))
    app.button_group(key="data").set_value("Sample").run()
    assert_is_whole(app)


def test_repeated_pairs_are_noted(open_own):
    table = pd.concat([frame(), frame(3, score=5)], ignore_index=True)
    app = press(open_own(as_file(table)))
    assert_is_whole(app)
    assert "mine.csv: 3 of 15 pairs repeat an earlier one" in shown(app.caption)
    assert "no model can fit both" in shown(app.caption)


def test_pairs_of_equal_sentences_give_nothing_to_rank(open_own):
    table = frame(20)
    app = press(open_own(as_file(table.assign(sentence2=table["sentence1"]))))
    look_at_all(app)
    assert set(map(plain, trace(app, "strategy-grid", "numbers")["text"])) == {"–"}
    for view in ("Errors", "Slices"):
        assert "No strategy tells these pairs apart" in shown(look_at(app, view).info)


def test_equal_sentences_among_others_are_no_problem(open_own):
    """Every pair of high overlap has the same cosine, and no positive pair has a length."""
    table = frame(60)
    is_equal = np.arange(60) % 3 == 0
    table["sentence2"] = table["sentence2"].where(~is_equal, table["sentence1"])
    table["score"] = np.where(is_equal, 4 + np.arange(60) % 2, np.arange(60) % 4)
    look_at_all(press(open_own(as_file(table))))


def test_three_pairs_are_enough(open_own):
    look_at_all(press(open_own(as_file(frame(3)))))


def test_another_file_of_the_same_name_forgets_the_chosen_points(open_own):
    app = press(open_own(as_file(frame(40))))
    look_at(app, "Errors")
    lasso(app, scatter_of(app), [38, 39])
    assert len(listed(app)) == 2
    press(upload(app, as_file(frame(10))))
    assert_is_whole(app)
    assert len(listed(app)) == 10


def test_any_text_is_evaluated(open_own):
    texts = ["🦩 waits 👩‍👩‍👧‍👦", "מימין לשמאל", "<b>bold</b> $x$ :red[no]", "a" * 3000, "नमस्ते"]
    table = frame(5, sentence1=texts)
    app = press(open_own(as_file(table, "a *b* $c$ <d> :red[e] ·.csv")))
    assert_is_whole(app)
    look_at_all(app)
    look_at(app, "Errors")
    assert set(listed(app)["sentence1"]) == set(texts)


# --- whitening ----------------------------------------------------------------------------------


def test_a_corpus_adds_the_whitened_twins(open_evaluate, corpus):
    app = upload_corpus(open_evaluate(), corpus)
    assert_is_whole(app)
    assert f"Whitening is fitted on corpus.txt: {len(corpus)} sentences" in shown(app.caption)
    assert buttons(app)["evaluate_run"] == "Evaluate (8 tasks, 120 pairs)"
    press(app)
    assert_is_whole(app)
    plain = [name for name in rows_of(app) if not name.startswith("layer_") and "+" not in name]
    assert {f"{name}+whiten" for name in plain} <= set(rows_of(app))
    app.multiselect(key="evaluate_strategies").set_value(["mean"]).run()
    assert [name for name in rows_of(app) if "mean" in name and "layer" not in name] == [
        "mean",
        "mean+whiten",
    ]
    look_at_all(app)
    look_at(app, "Alignment and uniformity")
    assert "mean+whiten" in texts_in(figures(app)["alignment-uniformity-0"])


def test_a_corpus_that_is_too_small_says_so(open_evaluate):
    app = press(upload_corpus(open_evaluate(), ["Too few.", "To whiten."]))
    assert not app.exception
    assert "Whitening 32 dimensions needs more than 32 distinct sentences" in shown(app.error)
    assert "'corpus.txt' has 2" in shown(app.error)
    assert buttons(app)["evaluate_run"] == "Evaluate (8 tasks, 120 pairs)"
    assert "Below is the result of an earlier choice" in shown(app.info)
    assert len(columns_of(app)) == 9
    upload_corpus(app, None)  # taken out again
    assert_is_whole(app)
    assert not app.info


def test_a_corpus_that_cannot_be_read_says_so(open_evaluate):
    app = upload_corpus(open_evaluate(), ["", " "])
    assert not app.exception
    assert "'corpus.txt' is empty" in shown(app.error)
    upload_corpus(app, None)
    assert_is_whole(app)


def test_a_corpus_is_kept_on_other_pages_and_can_be_removed(open_evaluate, corpus):
    app = press(upload_corpus(open_evaluate(), corpus))
    app.switch_page(PAGES["layers"]).run()
    app.switch_page(PAGES["evaluate"]).run()
    assert "mean+whiten" in rows_of(app)
    app.button(key="evaluate_no_whitening").click().run()
    assert_is_whole(app)
    assert "mean+whiten" not in rows_of(app)
    assert "Whitening is fitted on" not in shown(app.caption)


def test_scored_sentences_are_left_out_of_the_corpus_and_this_is_noted(open_evaluate, corpus):
    scored = sample_pairs()["sentence1"].tolist()[:5]
    app = press(upload_corpus(open_evaluate(), [*corpus, *corpus, *scored]))
    assert_is_whole(app)
    assert f"corpus.txt: {len(corpus) + 5} sentences" in shown(app.caption)
    assert "are also scored; the whitening was fitted without them" in shown(app.caption)


# --- downloads ----------------------------------------------------------------------------------


def test_the_csv_holds_every_number(open_evaluate, taken):
    app = open_evaluate()
    table = pd.read_csv(io.StringIO(taken("lwap-evaluation.csv")))
    pd.testing.assert_frame_equal(table, numbers_of(app), check_dtype=False, check_index_type=False)
    assert len(table) == 3 * 9 * len(rows_of(app))


def test_the_json_holds_rows_and_provenance(open_evaluate, taken):
    app = open_evaluate()
    found = json.loads(taken("lwap-evaluation.json"), parse_constant=pytest.fail)
    table = numbers_of(app)
    assert len(found["rows"]) == len(table)
    assert found["rows"][0]["spearman"] == pytest.approx(table["spearman"].iloc[0])
    by_name = {row["strategy"]: row for row in found["rows"] if row["task"] == "Negation"}
    assert by_name["layer_cls:0"]["spearman"] is None
    assert found["model"] == "alpha"
    assert found["pairs"] == dict.fromkeys(TITLES, 15)
    assert len(found["data_sha256"]["Negation"]) == 64
    assert (found["resamples"], found["seed"], found["precision"]) == (1000, 0, "fp32")
    assert {"lwap", "torch", "transformers"} <= found["versions"].keys()


def test_the_latex_table_holds_the_grid(open_evaluate, taken):
    app = open_evaluate()
    table = taken("lwap-evaluation.tex")
    assert r"\toprule" in table and r"\textbf{" in table
    for name in rows_of(app):
        assert rf"\texttt{{{name.replace('_', chr(92) + '_')}}}" in table
    assert "Negation & Word order" in table


def test_the_report_holds_what_was_looked_at(open_evaluate, taken):
    app = open_evaluate()
    assert "Alignment and uniformity" not in taken("lwap-report.html")
    look_at(app, "Alignment and uniformity")
    report = taken("lwap-report.html")
    assert report.startswith("<!doctype html>")
    assert report.count("Alignment and uniformity: alpha") == 1
    assert "Differences to lwap, average" in report
    app.multiselect(key="evaluate_strategies").set_value(["mean", "lwap"]).run()
    report = taken("lwap-report.html")
    assert report.count("Alignment and uniformity: alpha") == 1  # not the one before as well
    assert "first_last_mean" not in report


def test_the_downloads_are_of_what_is_shown(open_evaluate, taken):
    app = press(upload(open_evaluate(second="beta"), as_file(frame())))
    app.multiselect(key="evaluate_strategies").set_value(["mean", "lwap"]).run()
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


def test_the_geometry_can_be_downloaded(open_evaluate, taken, downloads):
    look_at(open_evaluate(), "Alignment and uniformity")
    (name,) = [name for name in downloads if name.startswith("lwap-geometry")]
    assert "/" not in name
    table = downloads.table(name)
    assert {"strategy", "alignment", "uniformity", "isoscore"} <= set(table.columns)
    assert {"mean", "lwap", "layer_mean:2"} <= set(table["strategy"])
