"""The figures of what training has changed show the numbers before, after, and their difference."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from lwap import figures
from lwap.figures.style import ACCENT, BACKGROUND, palette_of
from tests.figures.reading import EVERY_FIGURE, HOSTILE, named, parse, shapes, texts, traces

NAN = float("nan")


def draw(name: str, theme: str = "light") -> go.Figure:
    """Call a figure by name."""
    if name == "weights_before_after":
        trained = np.random.default_rng(0).dirichlet(np.ones(7))
        return figures.weights_before_after({HOSTILE: np.full(7, 1 / 7), "b": trained}, theme=theme)
    return figures.moved_pairs(
        [0.3, 0.8, 0.5],
        [0.1, 0.82, NAN],
        [HOSTILE, "one ↔ two", "three ↔ four"],
        gold=[0.0, NAN, 0.5],
        x_title=HOSTILE,
        theme=theme,
    )


FIGURES = ("weights_before_after", "moved_pairs")


@pytest.mark.parametrize("holds", EVERY_FIGURE)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure(name, holds):
    holds(lambda theme: draw(name, theme))


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_click_has_hidden_stays_so_when_the_figure_is_drawn_anew(name):
    assert draw(name).layout.uirevision == draw(name, "dark").layout.uirevision == "training"


# --- before and after ----------------------------------------------------------------------------


def test_weights_before_and_after_and_their_difference():
    before, after = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    figure = figures.weights_before_after({"untrained": before, "trained": after})
    first, second, difference = traces(figure, "bar")
    np.testing.assert_allclose(first.y, before)
    np.testing.assert_allclose(second.y, after)
    np.testing.assert_allclose(difference.y, after - before)
    assert list(difference.text) == ["−0.40", "±0.00", "+0.40"]
    palette = palette_of("light")
    assert difference.marker.color[0] == palette.negative
    assert difference.marker.color[2] == palette.positive
    assert (first.name, second.name) == ("untrained", "trained")
    assert second.marker.color == ACCENT["light"] != first.marker.color
    assert figure.layout.barmode == "group"
    assert figure.layout.xaxis2.ticktext == ("emb", "1", "2")
    assert figure.layout.xaxis2.matches == "x"
    assert "trained − untrained" in " ".join(texts(figure))
    (line,) = shapes(figure, "uniform")
    assert line.y0 == pytest.approx(1 / 3)


def test_before_may_be_absent_and_there_may_be_more():
    after = [0.2, 0.8]
    for weights in ({"before": None, "after": after}, {"after": after}):
        (bars,) = traces(figures.weights_before_after(weights), "bar")
        np.testing.assert_allclose(bars.y, after)
        assert bars.marker.color == ACCENT["light"]
    rows = {"a": [0.5, 0.5], "b": [0.4, 0.6], "c": [0.3, 0.7], "d": after}
    figure = figures.weights_before_after(rows)
    *bars, difference = traces(figure, "bar")
    assert [bar.name for bar in bars] == list("abcd")
    assert len({bar.marker.color for bar in bars}) == 4
    np.testing.assert_allclose(difference.y, [-0.3, 0.3])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "weights has 0 states of a model; expected 1 to 4"),
        ({"a": None}, "weights has 0 states of a model; expected 1 to 4"),
        ({key: [1.0] for key in "abcde"}, "weights has 5 states of a model"),
        ({"a": [1.0], "b": [0.5, 0.5]}, r"weights\['b'\] has shape \(2,\); .*S = 1"),
        ({"a": [NAN]}, r"weights\['a'\] has values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        figures.weights_before_after(weights)


# --- pairs ---------------------------------------------------------------------------------------

BEFORE, AFTER = [0.3, 0.80, 0.5, 0.6, 0.2], [0.1, 0.82, NAN, 0.3, 0.35]
PAIRS = [f"first {index} ↔ second {index}" for index in range(5)]


def test_pairs_are_sorted_by_how_far_they_moved():
    figure = figures.moved_pairs(BEFORE, AFTER, PAIRS, gold=[0.0, NAN, 0.5, 0.2, 0.4])
    before, after, gold = (named(figure, name) for name in ("before", "after", "gold"))
    assert [index for (index,) in after.customdata] == [3, 0, 4, 1]
    np.testing.assert_allclose(before.x, [0.6, 0.3, 0.2, 0.80])
    np.testing.assert_allclose(after.x, [0.3, 0.1, 0.35, 0.82])
    np.testing.assert_allclose(gold.x, [0.2, 0.0, 0.4, NAN])
    assert figure.layout.yaxis.ticktext[0] == PAIRS[3]
    assert tuple(figure.layout.yaxis.range) == (3.5, -0.5)  # the first on top
    movement = named(figure, "movement")
    assert list(movement.text) == ["−0.300", "−0.200", "+0.150", "+0.020"]
    low, high = figure.layout.xaxis.range
    assert low < 0 and high > 0.82


def test_a_pair_is_a_dumbbell_in_the_colour_of_its_direction():
    figure = figures.moved_pairs(BEFORE, AFTER, PAIRS)
    fell, rose = named(figure, "fell"), named(figure, "rose")
    np.testing.assert_allclose(fell.x[:2], [0.6, 0.3])
    assert list(fell.y[:2]) == [0, 0] and np.isnan(fell.x[2])
    np.testing.assert_allclose(rose.x[:2], [0.2, 0.35])
    palette = palette_of("light")
    assert (fell.line.color, rose.line.color) == (palette.negative, palette.positive)
    after = named(figure, "after")
    assert [*after.marker.color] == [palette.negative] * 2 + [palette.positive] * 2
    assert named(figure, "before").marker.color == BACKGROUND["light"]  # hollow
    assert "gold" not in {trace.name for trace in figure.data}
    parse(figure)


def test_the_hover_has_both_whole_sentences_and_all_scores():
    long = " ".join(f"word{index}" for index in range(30))
    figure = figures.moved_pairs([0.3], [0.1], [f"{long} ↔ {HOSTILE}"], gold=[0.05])
    (hover,) = named(figure, "after").hovertext
    assert long in hover.replace("<br>", " ")
    assert "&lt;b&gt;bold&lt;/b&gt;" in hover
    for said in ("before: <b>0.300</b>", "after: <b>0.100</b>", "gold: <b>0.050</b>", "−0.200"):
        assert said in hover
    assert len(figure.layout.yaxis.ticktext[0]) < 120 < len(hover)


def test_pairs_have_other_formats_and_a_limit():
    figure = figures.moved_pairs(
        [10.0, 20.0],
        [15.0, 90.0],
        PAIRS[:2],
        most=1,
        x_title="percentile",
        value_format=".1f",
    )
    assert named(figure, "after").x == (90.0,)
    assert list(named(figure, "movement").text) == ["+70.0"]
    assert figure.layout.xaxis.title.text == "percentile"
    assert "○ before → ● after" in " ".join(texts(figure))


@pytest.mark.parametrize("scores", [[], [NAN, NAN]])
def test_no_pair_that_moved_is_said(scores):
    figure = figures.moved_pairs(scores, scores, PAIRS[: len(scores)])
    assert "no pair has both scores" in " ".join(texts(figure))
    parse(figure)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(after=[0.1]), r"after has shape \(1,\); .*P = 5 as in before"),
        (dict(labels=PAIRS[:2]), "labels has 2 entries; expected 5"),
        (dict(gold=[0.1]), r"gold has shape \(1,\)"),
        (dict(after=[np.inf] * 5), "after has infinite values; use NaN"),
        (dict(most=0), "most must be 1 or more, got 0"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(changes, message):
    arguments = dict(before=BEFORE, after=AFTER, labels=PAIRS) | changes
    with pytest.raises(ValueError, match=message):
        figures.moved_pairs(**arguments)
