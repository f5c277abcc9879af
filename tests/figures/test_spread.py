"""Cosines, spectra and courses show the numbers, and keep the spaces readable."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from lwap import figures
from lwap.figures.style import BACKGROUND, CLEAR, palette_of, strategy_color
from tests.figures.reading import EVERY_FIGURE, HOSTILE, drawn, frozen, named, parse, shapes, texts
from tests.figures.test_figures import contrast

NAN = float("nan")
S, B, D = 7, 80, 384
NAMES = ["all-MiniLM-L6-v2 · lwap", f"{HOSTILE} · mean"]


def bell(x: np.ndarray, mean: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * np.sqrt(2 * np.pi))


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    edges = np.linspace(-1, 1, B + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    variances = np.stack([np.arange(1, D + 1) ** -power for power in (0.3, 0.9)])
    variances /= variances.sum(axis=1, keepdims=True)
    ranks = np.exp(-(variances * np.log(variances)).sum(axis=1))
    x = np.linspace(-0.5, 0.5, 401)
    return frozen(
        {
            "edges": edges,
            "densities": np.stack([bell(middles, 0.1, 0.12), bell(middles, 0.4, 0.15)]),
            "x": x,
            "reference": bell(x, 0, 1 / np.sqrt(D)),
            "means": [0.1, 0.4],
            "cumulative": np.minimum(np.cumsum(variances, axis=1), 1),
            "ranks": ranks,
            "falling": np.linspace(-0.5, -2.5, S),
            "rising": np.linspace(20, 140, S),
        }
    )


def draw(name: str, a: dict[str, np.ndarray], theme: str = "light", **changes: Any) -> go.Figure:
    """Call a figure by name with arrays of the right shapes."""
    calls = {
        "cosine_distribution": (
            (a["edges"], a["densities"], NAMES),
            dict(reference=(a["x"], a["reference"]), dimension=D, means=a["means"]),
        ),
        "spectra": ((list(a["cumulative"]), NAMES), dict(effective_ranks=a["ranks"])),
        "layer_geometry": (
            (
                {
                    "uniformity": (a["falling"], a["falling"] - 0.2),
                    "alignment": (np.full(S, NAN), np.full(S, NAN)),
                    "mean cosine": (a["falling"] / -5, a["falling"] / -6),
                    "effective rank": (a["rising"], a["rising"] + 5),
                },
                {
                    "lwap": {"uniformity": -2.6, "mean cosine": 0.05, "effective rank": 150.0},
                    f"{HOSTILE} · mean": {"uniformity": -2.5, "alignment": 0.2},
                },
            ),
            dict(query_name=HOSTILE),
        ),
    }
    positional, keywords = calls[name]
    return getattr(figures, name)(*positional, **keywords | {"theme": theme} | changes)


FIGURES = ("cosine_distribution", "spectra", "layer_geometry")


@pytest.mark.parametrize("holds", EVERY_FIGURE)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure(arrays, name, holds):
    holds(lambda theme: draw(name, arrays, theme))  # and writing into an input raises


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", FIGURES)
def test_text_and_lines_stand_out_from_the_page(arrays, name, theme):
    figure, page = drawn(draw(name, arrays, theme)), BACKGROUND[theme]
    assert contrast(figure.layout.font.color, page) >= 4.5
    assert contrast(palette_of(theme).muted, page) >= 4.5
    for trace in figure.data:
        if trace.mode == "lines":
            assert contrast(trace.line.color, page) >= 3
    for label in figure.layout.annotations:
        assert label.font.color in (None, figure.layout.font.color)


@pytest.mark.parametrize("name", FIGURES)
def test_a_name_that_is_no_strategy_is_refused(arrays, name):
    with pytest.raises(ValueError, match="'median' is not a pooling strategy; accepted are cls"):
        if name == "layer_geometry":
            measures = {"uniformity": (arrays["falling"], arrays["falling"])}
            figures.layer_geometry(measures, {"median": {}})
        elif name == "spectra":
            spectrum(arrays, names=["lwap", "median"])
        else:
            distribution(arrays, names=["lwap", "median"])


def distribution(a: dict[str, np.ndarray], **changes: Any) -> go.Figure:
    arguments = dict(
        edges=a["edges"],
        densities=a["densities"],
        names=["lwap", "mean"],
        reference=(a["x"], a["reference"]),
        dimension=D,
    )
    return figures.cosine_distribution(**arguments | changes)


# --- cosines -------------------------------------------------------------------------------------


def test_densities_stand_over_the_middles_of_their_bins(arrays):
    figure = distribution(arrays, means=arrays["means"])
    for index, name in enumerate(["lwap", "mean"]):
        line = named(figure, name)
        np.testing.assert_allclose(line.x, np.linspace(-1, 1, B + 1)[:-1] + 1 / B)
        np.testing.assert_allclose(line.y, arrays["densities"][index])
        assert line.fill == "tozeroy" and line.line.dash == "solid"
        assert line.line.color == strategy_color(name)
    lines = {(line.x0, line.line.color) for line in shapes(figure, "mean")}
    assert lines == {(0.1, strategy_color("lwap")), (0.4, strategy_color("mean"))}
    assert "mean 0.10" in texts(figure)[0] and "mean 0.40" in texts(figure)[0]
    assert not shapes(distribution(arrays, means=[NAN, NAN]), "mean")
    assert figure.layout.xaxis.title.text == "cosine of two sentences"


def test_the_reference_is_dotted_and_named(arrays):
    figure = distribution(arrays)
    line = named(figure, "uniform sphere, D = 384")
    np.testing.assert_allclose(line.y, arrays["reference"])
    assert line.line.dash == "dot" and line.line.color == palette_of("light").gold
    assert "uniform sphere, D = 384" in texts(figure)[0]


def test_a_high_reference_is_clipped_and_its_peak_is_said(arrays):
    figure = distribution(arrays)
    low, high = figure.layout.yaxis.range
    highest = arrays["densities"].max()
    assert low == 0 and 1.05 * highest < high < 1.6 * highest < arrays["reference"].max()
    assert "reference peaks at 7.8" in texts(figure)[0]
    assert "narrow around 0 is uniform" in texts(figure)[0]


def test_a_reference_of_the_same_height_is_shown_whole(arrays):
    figure = distribution(arrays, reference=(arrays["x"], 0.45 * arrays["reference"]))
    assert figure.layout.yaxis.range[1] > 0.45 * arrays["reference"].max()
    assert "peaks" not in texts(figure)[0]


def test_the_axis_of_cosines_shows_all_that_is_not_empty(arrays):
    low, high = distribution(arrays, means=[0.1, 0.4]).layout.xaxis.range
    assert -1 <= low < -0.2 and 0.85 < high <= 1
    far = np.zeros((1, B))
    far[0, -1] = B / 2
    low, high = distribution(arrays, densities=far, names=["cls"]).layout.xaxis.range
    assert low < -0.1 and high == 1  # the reference is seen too


def test_equal_colours_differ_in_their_dashes(arrays):
    names = ["a · lwap", "b · lwap+whiten"]
    figure = distribution(arrays, names=names)
    assert [named(figure, name).line.dash for name in names] == ["solid", "dash"]
    figure = figures.spectra(arrays["cumulative"], names, effective_ranks=arrays["ranks"])
    assert [named(figure, name).line.dash for name in names] == ["solid", "dash"]
    other = figures.spectra(arrays["cumulative"], ["a · lwap", "a · cls"], effective_ranks=[1, 1])
    assert [named(other, name).line.dash for name in ("a · lwap", "a · cls")] == ["solid"] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(edges=np.linspace(-1, 1, B)), "edges has 80 entries; expected 81"),
        (dict(edges=np.zeros(B + 1)), "edges do not ascend"),
        (dict(edges=np.linspace(-2, 1, B + 1)), "edges are cosines from -1 to 1, got -2"),
        (dict(densities=-np.ones((2, B))), "densities are densities from 0, got -1"),
        (dict(densities=np.ones((3, B)), names=["lwap"] * 3), "densities has 3 spaces; at most 2"),
        (dict(names=["lwap"]), "names has 1 entries; expected 2"),
        (dict(means=[0.1]), r"means has shape \(1,\); .*K = 2 as in densities"),
        (dict(means=[0.1, 3.0]), "means are cosines from -1 to 1, got 3"),
        (dict(reference=([0.0, 1.0], [1.0])), r"reference\[1\] has shape \(1,\); .*M = 2"),
        (dict(reference=([0.0, 1.0], [1.0, NAN])), r"reference\[1\] has values that are not"),
    ],
)
def test_cosines_that_do_not_fit_are_refused(arrays, changes, message):
    with pytest.raises(ValueError, match=message):
        distribution(arrays, **changes)


# --- spectra -------------------------------------------------------------------------------------


def spectrum(a: dict[str, np.ndarray], **changes: Any) -> go.Figure:
    arguments = dict(cumulative=a["cumulative"], names=["lwap", "mean"], effective_ranks=a["ranks"])
    return figures.spectra(**arguments | changes)


def test_spectra_are_percents_over_the_number_of_directions(arrays):
    figure = spectrum(arrays)
    for index, name in enumerate(["lwap", "mean"]):
        line = named(figure, name)
        np.testing.assert_array_equal(line.x, np.arange(1, D + 1))
        np.testing.assert_allclose(line.y, 100 * arrays["cumulative"][index])
        assert line.line.color == strategy_color(name)
    axis = figure.layout.xaxis
    assert axis.type == "log"
    assert 10 ** np.array(axis.range) == pytest.approx([1, D])
    assert axis.tickvals[0] == 1 and axis.tickvals[-1] == D
    assert figure.layout.yaxis.range[0] == 0 and figure.layout.yaxis.range[1] >= 100
    even = named(figure, "even over all directions")
    np.testing.assert_allclose(even.y, 100 * np.array(even.x) / D)
    assert even.line.dash == "dot" and even.x[0] == 1 and even.x[-1] == pytest.approx(D)


def test_the_effective_rank_is_marked_on_its_curve(arrays):
    figure = spectrum(arrays)
    for index, name in enumerate(["lwap", "mean"]):
        (x,), (y,) = (getattr(named(figure, f"{name} effective rank"), at) for at in "xy")
        assert x == arrays["ranks"][index]
        below, above = (100 * arrays["cumulative"][index][int(x) - 1 + step] for step in (0, 1))
        assert below < y < above
        label = f"effective rank {x:.0f} of 384"
        (placed,) = [a for a in figure.layout.annotations if a.text == label]
        assert (placed.x, placed.y) == (pytest.approx(np.log10(x)), y)
        assert placed.arrowcolor in (strategy_color(name), CLEAR)
        assert (placed.ax, placed.ay) != (0, 0)
    whole = spectrum(arrays, effective_ranks=[100, D])
    assert named(whole, "lwap effective rank").y[0] == 100 * arrays["cumulative"][0][99]
    assert named(whole, "mean effective rank").y[0] == pytest.approx(100)


def test_a_rank_that_is_not_known_has_no_mark(arrays):
    figure = spectrum(arrays, effective_ranks=[NAN, 0.0])
    assert not any("effective rank" in trace.name for trace in figure.data)
    assert not any("effective rank" in text for text in texts(figure))


def test_spaces_of_other_dimensions_have_their_own_even_line(arrays):
    curves = [arrays["cumulative"][0], np.linspace(1 / 768, 1, 768)]
    figure = spectrum(arrays, cumulative=curves, effective_ranks=[NAN, 767.5])
    ends = [t.x[-1] for t in figure.data if t.name == "even over all directions"]
    assert ends == pytest.approx([384, 768])
    assert figure.layout.xaxis.tickvals[-1] == 768
    parse(figures.spectra([[1.0]], ["lwap"], effective_ranks=[1]))  # one direction is no error


def test_labels_of_ranks_keep_clear_of_each_other(arrays):
    near = [arrays["cumulative"][0], arrays["cumulative"][0] ** 1.02]
    figure = spectrum(arrays, cumulative=near, effective_ranks=[200.0, 190.0])
    low, high = figure.layout.xaxis.range
    sides = dict(left=0, center=-70, right=-140)  # a label is about 140 px wide
    for width in (340 - 68, 620):
        (left, y), (other_left, other_y) = (
            ((a.x - low) / (high - low) * width + a.ax + sides[a.xanchor], a.y / 103 * 280 - a.ay)
            for a in figure.layout.annotations
            if a.showarrow
        )
        assert abs(y - other_y) >= 13 or abs(left - other_left) >= 140
        assert all(-3 <= x <= width - 137 for x in (left, other_left))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(cumulative=[[0.5, 1.2], [0.5, 1.0]]), r"cumulative\[0\] are shares .* got 1.2"),
        (
            dict(cumulative=[[0.5, 1.0], [0.5, 0.4]], effective_ranks=[1, 1]),
            r"cumulative\[1\] decreases",
        ),
        (dict(cumulative=[[0.5, 1.0]]), "names has 2 entries; expected 1"),
        (dict(cumulative=[]), "cumulative is empty"),
        (dict(cumulative=[[], [1.0]]), r"cumulative\[0\] is empty"),
        (dict(effective_ranks=[1.0]), "effective_ranks has 1 entries; expected 2"),
        (dict(effective_ranks=[1.0, 385]), r"effective_ranks\[1\] are directions from 0 to 384"),
    ],
)
def test_spectra_that_do_not_fit_are_refused(arrays, changes, message):
    with pytest.raises(ValueError, match=message):
        spectrum(arrays, **changes)


# --- course --------------------------------------------------------------------------------------


def panels(figure: go.Figure) -> dict[str, str]:
    """The vertical axis of every panel by its measure."""
    heads = {text.split("<b>")[1].split("</b>")[0]: text for text in texts(figure) if "<b>" in text}
    axes = sorted((axis.domain[1], f"y{axis.plotly_name[5:]}") for axis in figure.select_yaxes())[
        ::-1
    ]
    return dict(zip(heads, (axis for _, axis in axes), strict=True))


def test_every_measure_has_a_panel_with_both_lines(arrays):
    figure = draw("layer_geometry", arrays, query_name="CLS")
    found = panels(figure)
    assert list(found) == ["uniformity ↓", "mean cosine", "effective rank ↑"]  # no alignment
    assert list(found.values()) == ["y", "y2", "y3"]
    expected = {
        "y": arrays["falling"],
        "y2": arrays["falling"] / -5,
        "y3": arrays["rising"],
    }
    for axis, values in expected.items():
        (line,) = [t for t in figure.data if t.name == "CLS" and t.yaxis == axis]
        np.testing.assert_allclose(line.y, values)
        assert line.line.color == strategy_color("cls")
        (mean,) = [
            t for t in figure.data if (t.name, t.yaxis, t.mode) == ("mean", axis, "lines+markers")
        ]
        assert mean.line.color == strategy_color("mean")
    shown = [t.name for t in figure.data if t.showlegend is not False]
    assert shown == ["CLS", "mean"]  # once, for all panels
    joined = [t.legendgroup for t in figure.data if t.name == "CLS"]
    assert len(joined) == 3 and len(set(joined)) == 1 and joined[0]


def test_panels_share_the_states_and_do_not_overlap(arrays):
    figure = draw("layer_geometry", arrays)
    domains = sorted(axis.domain for axis in figure.select_yaxes())
    for (_, below), (above, _) in itertools.pairwise(domains):
        assert below < above
    axes = list(figure.select_xaxes())
    assert [axis.matches for axis in axes] == [None, "x", "x"]
    assert [axis.showticklabels for axis in axes] == [False, False, None]  # of the lowest one
    assert axes[-1].ticktext[0] == "emb"
    margin = figure.layout.margin
    body = figure.layout.height - margin.t - margin.b
    for low, high in domains:
        assert (high - low) * body >= 110


def test_references_stand_at_the_edge_of_their_panel(arrays):
    figure = draw("layer_geometry", arrays)
    marks = {(t.name, t.yaxis): t for t in figure.data if t.mode == "markers"}
    values = {key: mark.y[0] for key, mark in marks.items() if key[0] == "lwap"}
    assert values == {("lwap", "y"): -2.6, ("lwap", "y2"): 0.05, ("lwap", "y3"): 150.0}
    assert len(marks) == 4  # and the other one, of which two measures are drawn or known
    assert all(mark.x[0] > S - 1 for mark in marks.values())
    low, high = figure.layout.xaxis.range
    assert low < 0 and high > marks["lwap", "y"].x[0]
    labels = [(a.text, a.yref, a.y) for a in figure.layout.annotations if a.text == "lwap"]
    assert labels == [("lwap", "y", -2.6), ("lwap", "y2", 0.05), ("lwap", "y3", 150.0)]
    for axis in figure.select_yaxes():
        name = f"y{axis.plotly_name[5:]}"
        drawn = np.concatenate([t.y for t in figure.data if t.yaxis == name])
        assert axis.range[0] < drawn.min() and axis.range[1] > drawn.max()
    assert figure.layout.margin.r > 40


def test_directions_are_said_and_zero_is_seen_where_it_is_best(arrays):
    figure = draw("layer_geometry", arrays)
    heads = [text for text in texts(figure) if "<b>" in text]
    assert "lower is more uniform" in heads[0]
    assert "0 is isotropic" in heads[1]
    low, high = figure.layout.yaxis2.range
    assert low < 0 < high and figure.layout.yaxis2.zeroline
    others = {name: (arrays["falling"], arrays["falling"]) for name in ("alignment", "IsoScore")}
    said = texts(figures.layer_geometry(others, {}))
    assert "positive pairs closer" in said[0] and "alignment ↓" in said[0]
    assert "1 is isotropic" in said[1] and "IsoScore ↑" in said[1]


def test_without_references_the_states_have_the_whole_width(arrays):
    one = {"uniformity": (arrays["falling"], np.full(S, NAN))}
    figure = figures.layer_geometry(one, {}, query_name="last token")
    assert figure.layout.xaxis.range[1] < S
    assert figure.layout.margin.r < 20
    assert figure.layout.xaxis.anchor == "y"
    assert named(figure, "last token").line.color == strategy_color("last_token")
    parse(figure)


def test_a_course_that_does_not_fit_is_refused(arrays):
    good = (arrays["falling"], arrays["falling"])
    with pytest.raises(ValueError, match="'beauty' is no measure; accepted are uniformity, align"):
        figures.layer_geometry({"beauty": good}, {})
    with pytest.raises(ValueError, match=r"alignment, mean has shape \(6,\); .*S = 7 as in uni"):
        figures.layer_geometry({"uniformity": good, "alignment": (good[0], good[1][:6])}, {})
    with pytest.raises(ValueError, match="measures has no number to draw"):
        figures.layer_geometry({"alignment": ([NAN], [NAN])}, {})
    with pytest.raises(ValueError, match="measures has no number to draw"):
        figures.layer_geometry({}, {})
    with pytest.raises(ValueError, match="references has infinite values"):
        figures.layer_geometry({"uniformity": good}, {"lwap": {"uniformity": np.inf}})
