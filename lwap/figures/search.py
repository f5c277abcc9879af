"""Figure of two ranked lists of documents, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis
from lwap.figures.checks import check_row, checked_arrays, checked_texts
from lwap.figures.labels import strategy_lines
from lwap.figures.marks import OWN_HOVER, dots, row_band
from lwap.figures.panels import Panel, compose
from lwap.figures.style import CLEAR, Palette, palette_of, translucent
from lwap.figures.template import SIZE
from lwap.figures.texts import clean, colored, escape, format_number, hover_text, shorten

_COLUMNS = ((0.0, 0.42), (0.42, 0.58), (0.58, 1.0))  # shares of the width: list, lines, list
_ROOM = 1.15  # width of a list's column in units of its longest score bar
_ROW = 44  # px, a document: its text, and its score with the change of its rank
_META = 10  # px, the second line of a document
_TEXT_COLUMNS = 120  # characters of a document; how many are seen depends on the figure's width
_FADE = 0.024  # share of a column, a step of its fading
_PHONE_COLUMNS = 18  # characters of a document that a phone has room for


def rank_changes(
    first: Sequence[int],
    second: Sequence[int],
    labels: Sequence[str],
    *,
    names: tuple[str, str],
    scores: tuple[Any, Any] = (None, None),
    selected: int | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw two ranked lists of documents with a line between the same document in both.

    Orange lines rise from the first list to the second, purple ones fall, grey ones stay.
    A document that is in one list only has a hollow mark, and says so. Texts end where their
    column does: a wider figure shows more of them, the hover all. `customdata` of every row and
    line is [index of the document].

    Args:
        first, second: indices of documents, the best first; they may differ in length.
        labels: N documents, which the indices point at.
        names: what the lists are, for instance strategies.
        scores: for each list one score a document, as a bar behind its text, each list on its own
            scale from zero; NaN where unknown, None for no bars.
        selected: index of a document to highlight wherever it stands.

    Raises:
        ValueError: a list is empty, names a document twice or one that is not there, there is
            not one score a document or `selected` is no document.
    """
    palette = palette_of(theme)
    labels = checked_texts("labels", labels, len(labels))
    first = _ranking("first", first, len(labels))
    second = _ranking("second", second, len(labels))
    check_row("selected", selected, len(labels), "document")
    heads = [strategy_lines(clean(name), 20) for name in names]
    count = max(len(first), len(second))
    common: dict[str, Any] = dict(
        body=count * _ROW,
        y_axis=dict(visible=False, range=[count - 0.5, -0.5]),
        header=6 + 15 * max(map(len, heads)),
    )
    lists = [_List(0, first, second, palette), _List(1, second, first, palette)]
    lines = [*_lines(lists[0], labels), *(ranked.ends() for ranked in lists)]
    panels = [Panel(0, lines=[_key(palette)], header=22, column=None)]
    for ranked, head, numbers in zip(lists, heads, scores, strict=True):
        row = ranked.ranking.index(selected) if selected in ranked.ranking else None
        shapes = [*row_band(row, palette), *_fade(palette)]
        marks = ranked.marks(labels, _checked_scores(ranked, numbers))
        text, column = "<br>".join(head), 2 * ranked.side
        panels.append(Panel(traces=marks, head=text, column=column, shapes=shapes, **common))
    x_axis = dict(range=[-0.15, 1.15], matches=None)
    panels.insert(2, Panel(traces=lines, column=1, x_axis=x_axis, **common))
    x_axis = dict(visible=False, range=[0, _ROOM])
    look: dict[str, Any] = dict(
        columns=_COLUMNS, margin=dict(l=4, r=4, b=8), barmode="overlay", bargap=0
    )
    return compose(panels, x_axis, palette, **look)


def _ranking(name: str, ranking: Sequence[int], count: int) -> list[int]:
    indices = [int(index) for index in ranking]
    if not indices:
        raise ValueError(f"{name} is empty: there is no document to rank")
    for index in indices:
        if not 0 <= index < count:
            raise ValueError(f"{name} names document {index}; the documents are 0 to {count - 1}")
        if indices.count(index) > 1:
            raise ValueError(f"{name} names document {index} twice")
    return indices


@dataclass(frozen=True)
class _List:
    """A ranked list of documents beside the other one."""

    side: int  # 0 is the first list
    ranking: list[int]
    other: list[int]
    palette: Palette

    @property
    def name(self) -> str:
        return ("first", "second")[self.side]

    def rise(self, index: int) -> int | None:
        """Ranks that a document rises from the first list to the second; None if it is in one."""
        if index not in self.other:
            return None
        rise = self.ranking.index(index) - self.other.index(index)
        return -rise if self.side else rise

    def color(self, index: int) -> str:
        rise = self.rise(index) or 0
        return (self.palette.plain, self.palette.positive, self.palette.negative)[
            int(np.sign(rise))
        ]

    def note(self, index: int) -> str:
        """What is said of a document's rank in the other list; the first list only tells losses."""
        rise = self.rise(index)
        if rise is None:
            return f"not in top {len(self.other)}"
        if self.side == 0:
            return ""
        said = f"{'▲' if rise > 0 else '▼'} {abs(rise)}"
        return colored(said, self.color(index)) if rise else "same rank"

    def marks(self, labels: Sequence[str], scores: np.ndarray | None) -> list[Any]:
        """Build the documents with their score bars; the widest, clear bars are what is clicked."""
        hover, texts = [], []
        for row, index in enumerate(self.ranking):
            score = "" if scores is None else format_number(scores[row], ".3f")
            meta = " · ".join(filter(None, [score, self.note(index)]))
            hover.append(
                "<br>".join(filter(None, [f"{row + 1}. {hover_text(labels[index])}", meta]))
            )
            small = f'<span style="font-size:{_META}px">{meta}</span>' if meta else ""
            text = f"<b>{row + 1}</b> {_document(labels[index])}"
            texts.append("<br>".join(filter(None, [text, small])))
        count = len(self.ranking)
        common = dict(y=np.arange(count), orientation="h")
        clicked = go.Bar(
            x=np.full(count, _ROOM),
            width=1,
            marker=dict(color=CLEAR),
            hovertext=hover,
            customdata=[[index] for index in self.ranking],
            name=f"{self.name} list",
            **common,
            **OWN_HOVER,
        )
        text = go.Scatter(
            x=np.full(count, 0.02),
            y=np.arange(count),
            mode="text",
            text=texts,
            textposition="middle right",
            textfont=dict(size=SIZE, color=self.palette.text),
            cliponaxis=True,
            hoverinfo="skip",
            name=f"{self.name} texts",
        )
        if scores is None:
            return [clicked, text]
        fill = dict(color=translucent(self.palette.plain, 0.2))
        quiet = dict(hoverinfo="skip", name=f"{self.name} scores")
        bars = go.Bar(x=_bar_lengths(scores), width=0.86, marker=fill, **quiet, **common)
        return [clicked, bars, text]

    def ends(self) -> go.Scatter:
        """Build the marks where the lines of the documents end."""
        colors = [self.color(index) for index in self.ranking]
        fills = [
            color if index in self.other else self.palette.background
            for index, color in zip(self.ranking, colors, strict=True)
        ]
        return go.Scatter(
            x=np.full(len(colors), self.side),
            y=np.arange(len(colors)),
            mode="markers",
            marker=dict(size=8, color=fills, line=dict(color=colors, width=1.5)),
            cliponaxis=False,
            hoverinfo="skip",
            name=f"{self.name} ends",
        )


def _checked_scores(ranked: _List, values: Any) -> np.ndarray | None:
    if values is None:
        return None
    name, count = f"scores of the {ranked.name} list", len(ranked.ranking)
    (scores,) = checked_arrays(**{name: (values, "K", "nan")})
    if len(scores) != count:
        raise ValueError(f"{name} has {len(scores)} entries; expected {count}, one a document")
    return scores


def _lines(first: _List, labels: Sequence[str]) -> list[go.Scatter]:
    """Build a line from the place of each document in the first list to that in the second."""
    steps = np.linspace(0, 1, 25)
    ease = (1 - np.cos(np.pi * steps)) / 2
    lines = []
    for before, index in enumerate(first.ranking):
        rise = first.rise(index)
        if rise is None:
            continue
        after = before - rise
        hover = f"{hover_text(labels[index])}<br>rank {before + 1} → {after + 1}"
        line = dots(steps, before + (after - before) * ease, None, [hover] * 25, [[index]] * 25)
        line.update(mode="lines", line=dict(color=first.color(index), width=2), opacity=0.85)
        lines.append(line.update(name=f"document {index}"))
    return lines


def _key(palette: Palette) -> str:
    """Safe line that says what colours and hollow marks mean."""
    return (
        f"{colored('▲ rises', palette.positive)}  {colored('▼ falls', palette.negative)}  "
        f"{colored('○ in one list only', palette.muted)}"
    )


def _document(text: str) -> str:
    """A document for its row. One that reads from the right is cut to what a phone shows."""
    whole = escape(shorten(text, _TEXT_COLUMNS))
    if whole.startswith("\u2068"):  # its beginning is where the column ends
        return escape(shorten(text, _PHONE_COLUMNS))
    return whole


def _bar_lengths(scores: np.ndarray) -> np.ndarray:
    """Lengths of score bars, from zero or the lowest score below it to the highest.  (K,)"""
    known = scores[np.isfinite(scores)]
    low, high = known.min(initial=0), known.max(initial=0)
    width = high - low or 1.0
    return np.nan_to_num((scores - low) / width)


def _fade(palette: Palette) -> list[Axis]:
    """Shapes that let the texts of a column fade out at its end, instead of breaking off."""
    area = dict(type="rect", xref="x domain", yref="y domain", y0=0, y1=1, line_width=0)
    area |= dict(layer="above", name="fade")
    shapes = []
    for index, opacity in enumerate((0.95, 0.75, 0.5, 0.25)):
        place = dict(x0=1 - (index + 1) * _FADE, x1=1 - index * _FADE)
        shapes.append(area | place | dict(fillcolor=translucent(palette.background, opacity)))
    return shapes
