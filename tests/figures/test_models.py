"""The layer weights of several models, of encoders of different depth."""

from __future__ import annotations

import numpy as np
import pytest

from lwap import figures
from tests.figures.reading import (
    HOSTILE,
    frozen,
    holds_for_every_figure,
    named,
    parse,
    shapes,
    texts,
)

WEIGHTS = {"three": [0.5, 0.2, 0.3], "five": [0.1, 0.1, 0.1, 0.1, 0.6], "one": [1.0]}
LABELS = ["a head", HOSTILE, "a head"]


def draw(theme: str = "light", **options):
    rows = list(frozen(WEIGHTS).values())  # writing into one of them raises
    return figures.model_weights(rows, LABELS, **({"selected": 1} | options), theme=theme)


def test_every_figure():
    holds_for_every_figure(draw)


def test_every_row_has_its_weights_and_what_a_model_lacks_stays_empty():
    drawn = np.asarray(named(draw(), "layer weights").z)
    assert drawn.shape == (3, 5)
    for row, weights in zip(drawn, WEIGHTS.values(), strict=True):
        np.testing.assert_array_equal(row[: len(weights)], weights)
        assert np.isnan(row[len(weights) :]).all()
    cells = np.asarray(named(draw(), "layer weights").text)
    assert ">0.60<" in cells[1][4] and ">0.30<" in cells[0][2]
    assert "<" not in cells[2][4].replace("<span", "").replace("</span>", "").split(">")[-1]


def test_equal_names_keep_rows_of_their_own():
    axis = draw().layout.yaxis
    assert len(axis.ticktext) == 3
    assert axis.ticktext[0] == axis.ticktext[2]
    assert "<b>" not in axis.ticktext[1].replace("&lt;b&gt;", "")


def test_the_scale_runs_from_zero_to_the_largest():
    trace = named(figures.model_weights([[0.2, 0.8], [0.4, 0.6]], ["a", "b"]), "layer weights")
    assert (trace.zmin, trace.zmax) == (0, 0.8)


def test_the_chosen_row_has_a_band():
    (band,) = shapes(draw(selected=2), "selected")
    assert (band.y0, band.y1) == (1.5, 2.5)
    assert shapes(draw(selected=None), "selected") == []


def test_states_are_named():
    figure = parse(draw())
    assert list(figure["layout"]["xaxis"]["ticktext"])[:2] == ["emb", "1"]
    assert any("Layer weights" in text for text in texts(draw()))


@pytest.mark.parametrize(
    ("weights", "labels", "options", "message"),
    [
        ([], [], {}, "weights is empty: there is no model"),
        ([[]], ["a"], {}, "weights is empty"),
        ([[0.5, float("nan")]], ["a"], {}, "weights has values that are not finite"),
        ([[[0.5]]], ["a"], {}, r"weights has shape \(1, 1\); expected \(S\)"),
        ([[1.0]], ["a", "b"], {}, "labels has 2 entries; expected 1"),
        ([[1.0]], ["a"], {"selected": 1}, "selected is row 1; the rows are 0 to 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(weights, labels, options, message):
    with pytest.raises(ValueError, match=message):
        figures.model_weights(weights, labels, **options)
