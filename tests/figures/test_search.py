"""Two ranked lists show the same documents joined, their scores, and what is in one list only."""

from __future__ import annotations

import numpy as np
import pytest

from lwap import figures
from tests.figures.reading import (
    HOSTILE,
    a_click_fades_nothing,
    frozen,
    holds_for_every_figure,
    named,
    parse,
    shapes,
    texts,
)

NAN = float("nan")
HEBREW = "הילד אוכל תפוח אדום גדול בגינה של סבתא שלו בכל יום שישי"
FAMILY = "👩\u200d👩\u200d👧"
DOCUMENTS = [HOSTILE, "the cat sat", "two dogs run", HEBREW, FAMILY * 200, "word " * 100]
FIRST, SECOND = [0, 1, 2, 3], [1, 0, 2, 5]


@pytest.fixture
def scores() -> dict[str, np.ndarray]:
    return frozen({"first": [0.9, 0.6, 0.3, 0.1], "second": [0.5, -0.25, NAN, 0.0]})


def draw(scores: dict[str, np.ndarray], theme: str = "light"):
    return figures.rank_changes(
        np.array(FIRST),
        SECOND,
        DOCUMENTS,
        names=("mean", HOSTILE),
        scores=(scores["first"], scores["second"]),
        theme=theme,
    )


def plain(first, second, documents=DOCUMENTS, **arguments):
    return figures.rank_changes(
        first, second, documents, **dict(names=("mean", "lwap")) | arguments
    )


def test_every_figure(scores):
    holds_for_every_figure(
        lambda theme: draw(scores, theme), a_click_fades_nothing
    )  # and writing into an input raises


def test_lists_are_in_order_and_carry_their_documents(scores):
    figure = draw(scores)
    for name, ranking in (("first", FIRST), ("second", SECOND)):
        rows = named(figure, f"{name} list")
        assert [index for (index,) in rows.customdata] == ranking
        assert list(rows.y) == [0, 1, 2, 3]
        shown = named(figure, f"{name} texts").text
        assert all(text.startswith(f"<b>{rank}</b> ") for rank, text in enumerate(shown, start=1))
    assert figure.layout.yaxis.range == (3.5, -0.5)  # the best on top
    assert "the cat sat" in named(figure, "first texts").text[1]
    assert named(figure, "first list").hovertext[1].startswith("2. the cat sat")
    heads = texts(figure)
    assert "<b>mean</b>" in heads


def test_lines_join_the_same_document():
    figure = plain(FIRST, SECOND)
    lines = {trace.name: trace for trace in figure.data if trace.name.startswith("document")}
    ends = {name: (line.y[0], line.y[-1]) for name, line in lines.items()}
    assert ends == {
        "document 0": (0, pytest.approx(1)),
        "document 1": (1, pytest.approx(0)),
        "document 2": (2, 2),
    }
    assert lines["document 0"].x[0] == 0 and lines["document 0"].x[-1] == 1
    assert "rank 1 → 2" in lines["document 0"].hovertext[0]
    assert set(map(tuple, lines["document 0"].customdata)) == {(0,)}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_say_the_direction(theme):
    figure = plain(FIRST, SECOND, theme=theme)
    fallen, risen, same = (named(figure, f"document {i}").line.color for i in range(3))
    assert len({fallen, risen, same}) == 3
    strengths = {color: [int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in (fallen, risen)}
    assert strengths[risen][0] > strengths[risen][2]  # orange rises
    assert strengths[fallen][0] < strengths[fallen][2]  # purple falls
    ends = named(figure, "second ends").marker
    assert list(ends.line.color)[:3] == [risen, fallen, same]
    (key,) = [text for text in texts(figure) if "rises" in text]
    assert key.index(risen) < key.index("▲ rises") < key.index(fallen) < key.index("▼ falls")


def test_changes_are_told_in_the_second_list():
    figure = plain(FIRST, SECOND)
    first, second = (named(figure, f"{name} texts").text for name in ("first", "second"))
    assert "▲ 1" in second[0] and "▼ 1" in second[1] and "same rank" in second[2]
    assert not any("▲" in text or "▼" in text for text in first)
    assert "not in top 4" in first[3] and "not in top 4" in second[3]
    assert "not in top" not in first[0] + second[0]


def test_documents_in_one_list_only_are_hollow():
    figure = plain(FIRST, SECOND)
    for name in ("first", "second"):
        fill = list(named(figure, f"{name} ends").marker.color)
        assert fill[3] == figures.BACKGROUND["light"]
        assert figures.BACKGROUND["light"] not in fill[:3]


def test_scores_are_bars_from_zero(scores):
    figure = draw(scores)
    bars = named(figure, "first scores")
    np.testing.assert_allclose(bars.x, scores["first"] / 0.9)
    assert bars.orientation == "h"
    low, high = figure.layout.xaxis.range
    assert low == 0 and high > 1  # the longest ends inside
    with_negative = named(figure, "second scores").x  # from the lowest, where one is below zero
    np.testing.assert_allclose(with_negative, [1.0, 0.0, 0.0, 1 / 3])
    assert "0.900" in named(figure, "first texts").text[0]
    assert "−0.250" in named(figure, "second texts").text[1]
    assert "–" in named(figure, "second texts").text[2]
    assert "0.900" in named(figure, "first list").hovertext[0]


def test_without_scores_there_are_no_bars(scores):
    figure = plain(FIRST, SECOND, scores=(None, scores["second"]))
    names = [trace.name for trace in figure.data]
    assert "first scores" not in names and "second scores" in names
    assert "<br>" not in named(figure, "first texts").text[0]
    parse(figure)


def test_the_selected_document_has_a_band_in_both_lists():
    bands = shapes(plain(FIRST, SECOND, selected=1), "selected")
    assert [(band.xref, band.y0, band.y1) for band in bands] == [
        ("x domain", 0.5, 1.5),
        ("x3 domain", -0.5, 0.5),
    ]
    assert len(shapes(plain(FIRST, SECOND, selected=3), "selected")) == 1
    assert shapes(plain(FIRST, SECOND), "selected") == []
    with pytest.raises(ValueError, match="selected is document 6; the documents are 0 to 5"):
        plain(FIRST, SECOND, selected=6)


def test_lists_may_differ_in_length():
    figure = plain([4], [3, 4, 5])
    assert figure.layout.yaxis.range == (2.5, -0.5)
    assert "not in top 1" in named(figure, "second texts").text[0]
    assert "▼ 1" in named(figure, "second texts").text[1]
    alone = plain([1], [1])
    assert "same rank" in named(alone, "second texts").text[0]
    assert alone.layout.height < figure.layout.height


def test_texts_are_clipped_by_their_column_and_whole_in_the_hover():
    figure = plain([5, 0], [4, 1])
    first = named(figure, "first texts")
    assert first.cliponaxis is True
    assert first.text[0].endswith("…<br>" + '<span style="font-size:10px">not in top 2</span>')
    assert named(figure, "first list").hovertext[0].count("word") == 100
    domains = [figure.layout[axis].domain for axis in ("xaxis", "xaxis2", "xaxis3")]
    assert domains[0][1] <= domains[1][0] < domains[1][1] <= domains[2][0]
    shown = named(figure, "second texts").text[0].split("</b> ")[1].split("…")[0]
    assert shown == FAMILY * (len(shown) // len(FAMILY))  # no cluster is cut apart


def test_right_to_left_texts_end_where_a_phone_does():
    figure = plain([3], [1])
    text = named(figure, "first texts").text[0]
    shown = text.split("\u2068")[1].split("\u2069")[0]
    assert shown.endswith("…") and len(shown) <= 18
    assert HEBREW.startswith(shown.removesuffix("…").strip())
    hover = named(figure, "first list").hovertext[0]
    assert HEBREW.split()[-1] in hover


def test_long_names_of_lists_are_broken():
    figure = plain([1], [1], names=("first_last_mean+whiten", "x" * 50))
    heads = texts(figure)
    assert "<b>first_last_mean<br>+whiten</b>" in heads
    assert f"<b>{'x' * 19}…</b>" in heads


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [0], "first is empty: there is no document to rank"),
        ([0], [6], "second names document 6; the documents are 0 to 5"),
        ([-1], [0], "first names document -1; the documents are 0 to 5"),
        ([0, 1, 0], [0], "first names document 0 twice"),
    ],
)
def test_rankings_that_cannot_be_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        plain(first, second)


def test_scores_must_be_one_a_document():
    with pytest.raises(ValueError, match="scores of the first list has 3 entries; expected 2"):
        plain([0, 1], [0], scores=([1, 2, 3], None))
    with pytest.raises(ValueError, match="scores of the second list has infinite values"):
        plain([0], [1], scores=(None, [np.inf]))
    with pytest.raises(ValueError, match="labels is one text, 'abc'; expected a list"):
        plain([0], [1], documents="abc")
