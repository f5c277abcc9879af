"""The tables to take away, against ones written by hand, and the report, read as a browser does."""

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lwap.datasets.readers import SentenceTable
from lwap.evaluation import geometry as measures
from lwap.evaluation.result import Column, StsResult
from lwap.evaluation.spaces import GeometryResult, geometry_columns
from lwap.evaluation.sts import Aggregation, Correlations
from lwap.evaluation.tasks import Task
from lwap.projection.neighbours import neighbours
from lwap.projection.quality import quality
from lwap.projection.space import Space, draw_maps, neighbourhood_change
from lwap.reports import report as report_module
from lwap.reports.report import html_report, latex_table, map_report, markdown_table

STRATEGIES = ("lwap", "mean", "layer_cls:1", "layer_cls:0")
SWING = np.linspace(-1, 1, 200)  # its middle 95 % are ± 0.95


def correlations_of(values: list[float], swings: list[float]) -> Correlations:
    """Return the same values and draws under each aggregation, each draw a value plus a swing."""
    values = np.array(values)
    draws = values[:, None] + np.outer(swings, SWING)
    return Correlations(dict.fromkeys(Aggregation, values), dict.fromkeys(Aggregation, draws), 3)


def task(name: str, **options) -> Task:
    pairs = {"sentence1": list("abc"), "sentence2": list("def"), "score": [0, 2, 5]}
    return Task.from_pairs(pd.DataFrame(pairs), name, **options)


@pytest.fixture
def make_result():
    """Return a function that makes a result of four strategies on two tasks.

    The second strategy swings against the first, so that no difference between them is certain;
    the third moves with the first, and is always below or always above; the last is undefined.
    """

    def make(names=("plain", "other"), encoders=None, **options) -> StsResult:
        models = ["mine"] * 4 if encoders is None else ["mine", "mine", "mine", "yours"]
        return StsResult(
            columns=tuple(map(Column, models, STRATEGIES)),
            tasks=tuple(task(name, **options) for name in names),
            correlations=(
                correlations_of([80.126, 79.5, 50, np.nan], [1, -1, 1, 0]),
                correlations_of([60, 61, 70.004, np.nan], [1, 1, 1, 0]),
            )[: len(names)],
            cosines=(np.zeros((4, 3)),) * len(names),
            own={"mine": "lwap", "yours": None},
            encoders=encoders or {"mine": "all-MiniLM-L6-v2"},
            precision=dict.fromkeys(set(models), "fp32"),
            resamples=200,
            seed=4,
        )

    return make


def test_markdown_marks_the_best_and_what_ties_with_it(make_result):
    assert markdown_table(make_result()) == (
        "| strategy | plain | other | average | 95 % of average |\n"
        "|---|---|---|---|---|\n"
        "| `lwap` | **80.13** | 60.00 | 70.06\\* | [69.11, 71.01] |\n"
        "| `mean` | 79.50\\* | 61.00 | **70.25** | [70.25, 70.25] |\n"
        "| `layer_cls:1` | 50.00 | **70.00** | 60.00 | [59.05, 60.95] |\n"
        "| `layer_cls:0` | – | – | – | – |\n"
        "\n"
        "Spearman × 100, aggregation all; encoder all-MiniLM-L6-v2, fp32. Best of a column in "
        "bold; those with \\* are not significantly worse (paired bootstrap of 200 resamples, "
        "seed 4, Holm).\n"
    )


def test_latex_marks_the_best_and_what_ties_with_it(make_result):
    assert latex_table(make_result(["my_set & 5%", "other"])).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{lrrrc}",
        r"\toprule",
        r"Strategy & my\_set \& 5\% & other & average & 95\,\% of average \\",
        r"\midrule",
        r"\texttt{lwap} & \textbf{80.13} & 60.00 & \underline{70.06} & [69.11, 71.01] \\",
        r"\texttt{mean} & \underline{79.50} & 61.00 & \textbf{70.25} & [70.25, 70.25] \\",
        r"\texttt{layer\_cls:1} & 50.00 & \textbf{70.00} & 60.00 & [59.05, 60.95] \\",
        r"\texttt{layer\_cls:0} & – & – & – & – \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\caption{Spearman $\times$ 100, aggregation all; encoder all-MiniLM-L6-v2, fp32. Best "
        r"of a column in bold; those underlined are not significantly worse (paired bootstrap of "
        r"200 resamples, seed 4, Holm).}",
        r"\end{table}",
    ]


def test_names_break_no_table(make_result):
    result = make_result([r"a|b~c^d\e#{f}$"])
    assert r"| a\|b~c^d\e#{f}$ | 95 % of a\|b~c^d\e#{f}$ |" in markdown_table(result)
    escaped = r"a|b\textasciitilde{}c\textasciicircum{}d\textbackslash{}e\#\{f\}\$"
    assert rf"Strategy & {escaped} & 95\,\% of {escaped} \\" in latex_table(result)


def test_one_task_has_no_average_and_two_models_are_named(make_result):
    encoders = {"mine": "all-MiniLM-L6-v2", "yours": "bert_base"}
    table = markdown_table(make_result(["plain"], encoders))
    assert table.splitlines()[:3] == [
        "| strategy | plain | 95 % of plain |",
        "|---|---|---|",
        "| `mine · lwap` | **80.13** | [79.18, 81.08] |",
    ]
    assert "encoder all-MiniLM-L6-v2 (mine), bert_base (yours), fp32." in table
    table = latex_table(make_result(["plain"], encoders))
    assert r"\texttt{yours $\cdot$ layer\_cls:0} & – & – \\" in table
    assert r"encoder all-MiniLM-L6-v2 (mine), bert\_base (yours), fp32." in table


def test_what_a_task_does_not_have_is_a_dash(make_result):
    result = make_result(has_hidden_subsets=True)
    lines = markdown_table(result, "wmean").splitlines()
    assert lines[2:6] == [f"| `{name}` | – | – | – | – |" for name in STRATEGIES]
    assert "aggregation wmean;" in lines[-1]
    for row, name in enumerate(STRATEGIES):
        label = name.replace("_", r"\_")
        line = latex_table(result, "wmean").splitlines()[6 + row]
        assert line == rf"\texttt{{{label}}} & – & – & – & – \\"


# --- the report ---------------------------------------------------------------------------------

NASTY = "</script><img src=x onerror=alert(1)> {0} {x} & <b>bold</b> 'quoted' \"twice\" $y$"


class Report(HTMLParser):
    """A report as a browser reads it: tags and texts, and what each script draws."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []  # innermost tag, text
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def inside(self, tag: str) -> list[str]:
        return [text for place, text in self.texts if place == tag]

    @property
    def visible(self) -> str:
        return "\n".join(text for tag, text in self.texts if tag not in ("script", "style"))

    @property
    def figures(self) -> list[dict]:
        """Data and layout of each figure, in order."""
        found, decoder = [], json.JSONDecoder()
        for script in self.inside("script")[1:]:
            start = script.index("Plotly.newPlot(")
            arguments = []
            place = start + len("Plotly.newPlot(")
            for _ in range(4):
                place += len(script[place:]) - len(script[place:].lstrip(" \n,"))
                value, place = decoder.raw_decode(script, place)
                arguments.append(value)
            found.append({"data": arguments[1], "layout": arguments[2], "config": arguments[3]})
        return found

    @property
    def provenance(self) -> dict:
        (text,) = self.inside("pre")
        return json.loads(text)


def texts_in(figure: dict) -> str:
    return json.dumps(figure, ensure_ascii=False).replace("<br>", " ")


@pytest.fixture
def layered(make_result) -> StsResult:
    """A result that has both kinds of single layers, so that there is a layer curve."""
    result = make_result()
    names = ("lwap", "layer_mean:1", "layer_cls:1", "layer_cls:0")
    changed = replace(result, columns=tuple(Column("mine", name) for name in names))
    twice = changed.select([0, 1, 2, 3, 3])
    columns = (*changed.columns, Column("mine", "layer_mean:0"))
    return replace(twice, columns=columns)


def geometry(model: str = "mine", **changes) -> GeometryResult:
    rows = [
        dict.fromkeys(geometry_columns(), 0.5),
        dict.fromkeys(geometry_columns(), 0.25),
        dict.fromkeys(geometry_columns()),
    ]
    names = ("lwap", "mean", "layer_cls:0")
    table = pd.DataFrame([{"strategy": name, **row} for name, row in zip(names, rows, strict=True)])
    facts = {
        "model": model,
        "encoder": "all-MiniLM-L6-v2",
        "precision": "fp32",
        "data": "plain",
        "data_sha256": "",
        "sentences": 1234,
        "positives": 56,
        "positive_at": 4.0,
        "is_exact": True,
        "seed": 0,
    }
    return GeometryResult(
        table=table.astype(dict.fromkeys(geometry_columns(), float)), **facts | changes
    )


def test_the_report_asks_no_server_for_anything(layered):
    html = html_report(layered, [geometry()])
    report = Report(html)
    assert report.open == []  # every tag is closed
    for tag, attributes in report.tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert not {"src", "href", "srcset", "action"} & attributes.keys(), (tag, attributes)
    library, *drawings = report.inside("script")
    assert "plotly.js v" in library[:200]
    assert len(library) > 1_000_000
    assert not any("://" in script.replace("https://plot.ly", "") for script in drawings)
    assert "@import" not in html.split("<style>")[1].split("</style>")[0]
    assert ("meta", {"charset": "utf-8"}) in report.tags


def test_the_report_draws_grid_curve_differences_and_plane(layered):
    report = Report(html_report(layered, [geometry()]))
    assert report.inside("h2") == [
        "Strategies and layers on every task",
        "Layer by layer: mine, average",
        "Differences to lwap, average",
        "Alignment and uniformity: mine",
        "All numbers",
        "What these numbers must be read with",
    ]
    grid, curve, differences, plane = report.figures
    numbers = next(trace for trace in grid["data"] if trace["name"] == "numbers")["text"]
    assert any("80.13" in text for text in numbers) and any("70.06" in text for text in numbers)
    assert "hidden state" in texts_in(curve)
    names = [trace.get("name") for trace in differences["data"]]
    assert "layer_cls:1" in names and "lwap" not in names
    assert [trace["name"] for trace in plane["data"]][-2:] == ["lwap", "mean"]
    assert "1,234 sentences of plain; alignment over 56 pairs with a score of 4 or more." in (
        report.visible
    )
    for figure in report.figures:
        assert figure["config"]["responsive"] is True


def test_the_report_says_what_is_highest_and_what_ties(make_result):
    report = Report(html_report(make_result()))
    assert "mine on plain, other" in report.inside("h1")
    assert "between cosines and gold scores of 6 pairs" in report.visible
    assert "Highest on average: mean, 70.25 [70.25, 70.25]." in report.visible
    assert "Not significantly worse: lwap." in report.visible


def test_the_report_holds_every_number_and_its_provenance(make_result):
    result = replace(make_result(), notes=("A <note> & more",))
    report = Report(html_report(result, [geometry()]))
    assert report.provenance == json.loads(json.dumps(result.provenance()))
    assert report.inside("li") == ["A <note> & more"]
    rows = result.rows()
    assert f"{len(rows)} rows" in report.visible
    cells = report.inside("td")
    width = len(rows.columns)
    assert len(cells) == 3 * (1 + len(geometry_columns())) + width * len(rows)
    first = cells[-width * len(rows) :][:width]
    assert first == ["plain", "mine", "lwap", "all", "80.13", "79.18", "81.08", "3"]
    assert "–" in cells and "nan" not in report.visible.lower()


def test_names_are_shown_as_they_are_and_do_nothing(make_result):
    result = make_result([NASTY, "other"])
    columns = tuple(Column(NASTY, column.strategy) for column in result.columns)
    facts = {"own": {NASTY: "lwap"}, "encoders": {NASTY: NASTY}, "precision": {NASTY: "fp32"}}
    result = replace(result, columns=columns, notes=(NASTY,), whiten_on=NASTY, **facts)
    plain = Report(html_report(make_result(), [geometry()]))
    report = Report(html_report(result, [geometry(model=NASTY, data=NASTY)]))
    kinds = [tag for tag, _ in report.tags]
    assert kinds == [*[tag for tag, _ in plain.tags][: kinds.index("ul") + 1], "li", "pre"]
    assert report.inside("title") == report.inside("h1") == [f"{NASTY} on {NASTY}, other"]
    assert report.inside("li") == [NASTY]
    assert report.provenance["model"] == NASTY
    assert report.provenance["whiten_on"] == NASTY
    assert NASTY in report.inside("td")
    assert len(report.figures) == len(plain.figures)
    for script in report.inside("script")[1:]:
        assert "</script" not in script and "<img" not in script


def test_one_task_is_reported_without_an_average(make_result):
    report = Report(html_report(make_result(["plain"])))
    assert "Highest on plain: lwap, 80.13 [79.18, 81.08]." in report.visible
    assert "Differences to lwap, plain" in report.inside("h2")
    assert "average" not in report.visible.replace("average rank", "")


@pytest.mark.parametrize("place", range(4))
def test_one_strategy_is_reported_without_differences(make_result, place):
    report = Report(html_report(make_result().select([place])))
    assert len(report.figures) == 1
    assert "Differences" not in report.visible
    assert ("Highest on" in report.visible) == (place < 3)  # the last one is undefined


def test_two_models_are_told_apart(make_result):
    encoders = {"mine": "all-MiniLM-L6-v2", "yours": "bert_base"}
    result = make_result(encoders=encoders)
    report = Report(html_report(result, [geometry(), geometry(model="yours")]))
    assert report.inside("h1") == ["mine, yours on plain, other"]
    assert "Highest on average: mine · mean" in report.visible
    assert "Differences to mine · lwap, average" in report.inside("h2")
    assert {"Alignment and uniformity: mine", "Alignment and uniformity: yours"} <= set(
        report.inside("h2")
    )
    assert report.provenance["encoder"] == encoders
    assert "yours" in texts_in(report.figures[0])


def test_what_is_undefined_is_left_out_of_figures_and_a_dash_in_tables(make_result):
    result = make_result().select([3])
    report = Report(html_report(result))
    assert len(report.figures) == 1
    assert set(report.inside("td")) >= {"–"}
    undefined = replace(geometry(), table=geometry().table.assign(alignment=np.nan))
    report = Report(html_report(make_result(), [undefined]))
    assert len(report.figures) == 3
    assert "nan" not in report.visible.lower()


def test_a_baseline_without_value_has_no_differences(make_result):
    result = replace(make_result(), own={"mine": "layer_cls:0"})
    report = Report(html_report(result))
    assert "Differences" not in report.visible
    assert len(report.figures) == 1


def test_the_report_is_the_same_each_time_but_for_the_ids_of_figures(layered):
    first, second = (Report(html_report(layered, [geometry()])) for _ in range(2))
    assert first.figures == second.figures
    assert first.visible == second.visible


# --- the maps -----------------------------------------------------------------------------------

COUNT = 30
LONG = "A sentence that goes on " + "and on " * 40 + "and ends."


def space(unit: np.ndarray, name: str) -> Space:
    return Space(
        model=name,
        strategy="mean",
        unit=unit,
        near=neighbours(unit),
        geometry=measures.measure(unit),
        cosines=measures.cosine_histogram(unit),
        variance=np.ones(unit.shape[1]),
    )


def directions(count: int = COUNT, seed: int = 0) -> np.ndarray:
    return measures.normalise(np.random.default_rng(seed).normal(size=(count, 8)))


def sentence_table(**changes) -> SentenceTable:
    texts = (NASTY, LONG, *(f"sentence {row}" for row in range(2, COUNT)))
    facts = {"labels": {}, "numbers": {}, "positives": None, "repeated": 0, "empty": 0}
    return SentenceTable(sentences=texts, **facts | changes)


@pytest.fixture
def make_map_report():
    """Return a function that makes the report of PCA maps of two random spaces."""

    def make(
        table=None, colour=None, names=("mean", "lwap"), units=None, changes=None
    ) -> tuple[Report, str, dict]:
        table = sentence_table() if table is None else table
        units = (directions(), directions(seed=1)) if units is None else units
        spaces = [space(unit, name) for unit, name in zip(units, names, strict=True)]
        maps = replace(draw_maps(*spaces, "pca"), **changes or {})
        found = [
            quality(unit, xy) for unit, xy in zip(units, (maps.first, maps.second), strict=True)
        ]
        change = neighbourhood_change(*spaces, table.sentences)
        html = map_report(spaces, names, maps, found, change, table, colour)
        facts = {"maps": maps, "quality": found, "change": change, "spaces": spaces}
        return Report(html), html, facts

    return make


def test_the_report_of_maps_asks_no_server_for_anything(make_map_report):
    report, html, _ = make_map_report()
    assert report.open == []
    for tag, attributes in report.tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert not {"src", "href", "srcset", "action"} & attributes.keys(), (tag, attributes)
    library, *drawings = report.inside("script")
    assert "plotly.js v" in library[:200] and len(library) > 1_000_000
    assert not any("://" in script.replace("https://plot.ly", "") for script in drawings)
    assert ("meta", {"charset": "utf-8"}) in report.tags
    assert "@import" not in html.split("<style>")[1].split("</style>")[0]


def numbers_in(value) -> np.ndarray:
    """Return the numbers of an array, which plotly writes as a list or as bytes."""
    if not isinstance(value, dict):
        return np.asarray(value, dtype=float)
    array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
    shape = value.get("shape", str(len(array)))
    return array.reshape([int(length) for length in str(shape).split(",")])


def points(figure: dict) -> dict[int, np.ndarray]:
    """Return the place of each row that is a point of a map."""
    found = {}
    for trace in figure["data"]:
        if "customdata" in trace:
            rows = numbers_in(trace["customdata"])[:, 0].astype(int).tolist()
            places = np.stack([numbers_in(trace["x"]), numbers_in(trace["y"])], axis=1)
            found |= dict(zip(rows, places, strict=True))
    return found


def test_both_maps_are_drawn_on_one_scale_with_their_quality(make_map_report):
    report, _, facts = make_map_report()
    figures = report.figures
    assert len(figures) == 2
    both = (facts["maps"].first, facts["maps"].second)
    for figure, name, coordinates, found in zip(
        figures, ("mean", "lwap"), both, facts["quality"], strict=True
    ):
        drawn = points(figure)
        assert sorted(drawn) == list(range(COUNT))
        for row, place in drawn.items():
            assert place == pytest.approx(coordinates[row], abs=1e-3)
        said = texts_in(figure)
        assert f"<b>{name}</b>" in said
        assert f"PCA, keeps {found.knn_recall:.0%} of the nearest neighbours" in said
        assert "Neighbours changed" in said
    ranges = [
        [figure["layout"][axis]["range"] for axis in ("xaxis", "yaxis")] for figure in figures
    ]
    assert ranges[0] == ranges[1]
    every = np.concatenate(both)
    assert ((every > np.array(ranges[0])[:, 0]) & (every < np.array(ranges[0])[:, 1])).all()


def test_the_report_of_maps_holds_the_measures_and_what_changed(make_map_report):
    report, _, facts = make_map_report()
    assert report.inside("h1") == report.inside("title") == ["mean and lwap"]
    assert f"{COUNT} sentences in two spaces." in report.visible
    assert "PCA shows the two directions of the largest variance" in report.visible
    cells = report.inside("td")
    for name, own, found in zip(("mean", "lwap"), facts["spaces"], facts["quality"], strict=True):
        start = cells.index(name)
        numbers = [*own.numbers().values(), found.trustworthiness, found.knn_recall]
        shown = ["–" if value != value else f"{value:.3f}" for value in numbers]
        assert cells[start + 1 : start + 8] == shown
        assert shown[1] == "–"  # no pairs, no alignment
    change = facts["change"]
    assert f"On average {change['kept'].mean():.0%} of a sentence's 10 nearest" in report.visible
    listed = cells[-4 * COUNT :]
    assert listed[::4] == [text.strip() for text in change["sentence"]]
    assert listed[1::4] == [f"{kept:.0%}" for kept in change["kept"]]
    assert listed[2::4] == change["lost"].tolist()
    assert LONG in listed and NASTY in listed  # in full, and as they are


def test_sentences_and_names_do_nothing_in_the_report_of_maps(make_map_report):
    plain, _, _ = make_map_report()
    labels = {NASTY: (NASTY,) * 3 + ("",) * (COUNT - 3)}
    report, html, _ = make_map_report(
        sentence_table(labels=labels), colour=NASTY, names=(NASTY, "lwap")
    )
    assert [tag for tag, _ in report.tags] == [tag for tag, _ in plain.tags]
    assert report.inside("h1") == [f"{NASTY} and lwap"]
    assert NASTY in report.inside("td")
    for script in report.inside("script")[1:]:
        assert "</script" not in script and "<img" not in script
    assert "<img" not in html.replace(report.inside("script")[0], "")


@pytest.mark.parametrize("colour", ["topic", "length", None, "missing"])
def test_points_are_coloured_by_a_column_or_the_change(colour, make_map_report):
    table = sentence_table(
        labels={"topic": ("cats", "dogs", "") * (COUNT // 3)},
        numbers={"length": np.where(np.arange(COUNT) == 4, np.nan, np.arange(COUNT))},
    )
    report, _, _ = make_map_report(table, colour=colour)
    for figure in report.figures:
        names = {trace.get("name") for trace in figure["data"]}
        assert ({"cats", "dogs"} <= names) == (colour == "topic")
        said = texts_in(figure)
        assert ("length" in said) == (colour == "length")
        assert ("Neighbours changed" in said) == (colour in (None, "missing"))


def test_of_many_points_a_part_is_drawn_on_their_density(make_map_report, monkeypatch):
    monkeypatch.setattr(report_module, "MAP_POINTS", 12)
    report, _, facts = make_map_report()
    drawn = [points(figure) for figure in report.figures]
    assert len(drawn[0]) == 12
    assert drawn[0].keys() == drawn[1].keys()  # the same sentences in both
    for row, place in drawn[1].items():
        assert place == pytest.approx(facts["maps"].second[row], abs=1e-3)
    assert "heatmap" in {trace["type"] for trace in report.figures[0]["data"]}


def test_only_the_most_changed_are_listed(make_map_report, monkeypatch):
    monkeypatch.setattr(report_module, "CHANGED_LISTED", 7)
    report, _, facts = make_map_report()
    assert len(report.inside("td")) == 2 * 8 + 7 * 4
    assert report.inside("td")[-28::4] == facts["change"]["sentence"][:7].tolist()


def test_a_umap_map_says_what_it_does_not(make_map_report):
    report, _, _ = make_map_report(changes={"method": "umap"})
    assert "In a UMAP map only nearness means something" in report.visible
    assert "UMAP, keeps" in texts_in(report.figures[0])


def test_maps_of_points_on_a_line_are_drawn(make_map_report):
    """Two different vectors: a second axis without extent."""
    units = (np.eye(8, dtype=np.float32)[[0, 1] * (COUNT // 2)],) * 2
    report, _, facts = make_map_report(units=units)
    assert np.ptp(facts["maps"].first[:, 1]) < 1e-6
    assert len(report.figures) == 2
