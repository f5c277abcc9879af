"""Figure of two ranked lists of documents, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import checked_arrays
from lwap.figures.layout import SIZE, add_text, finish, stack, strategy_lines
from lwap.figures.marks import CLICKABLE, steady
from lwap.figures.style import CLEAR, Palette, palette_of, translucent
from lwap.figures.texts import clean, colored, escape, format_number, hover_text, shorten

_LISTS = ((0.0, 0.42), (0.58, 1.0))  # share of the width; the lines stand between
_ROOM = 1.15  # width of a list's column in units of its longest score bar
_ROW = 44  # px, a document: its text, and its score with the change of its rank
_META = 10  # px, the second line of a document
_COLUMNS = 120  # characters of a document; how many are seen depends on the figure's width
_PHONE_COLUMNS = 18  # characters of a document that a phone has room for


def rank_changes(
    first: Sequence[int],
    second: Sequence[int],
    labels: Sequence[str],
    *,
    first_name: str,
    second_name: str,
    first_scores: Any = None,
    second_scores: Any = None,
    selected: int | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw two ranked lists of documents with a line between the same document in both.

    Orange lines rise from the first list to the second, purple ones fall, grey ones stay.
    A document that is in one list only has a hollow mark, and says so. Texts end where their
    column does: a wider figure shows more of them, the hover all. `customdata` of every row and
    line is [index of the document].

    Args:
        first: indices of documents, the best first.
        second: indices of documents, the best first; it may have another length.
        labels: N documents, which the indices point at.
        first_name: what the first list is, for instance a strategy.
        second_name: what the second list is.
        first_scores: one score a document of `first`, as a bar behind its text, each list on its
            own scale from zero; NaN where unknown.
        second_scores: one score a document of `second`.
        selected: index of a document to highlight wherever it stands.
        theme: "light" or "dark".

    Raises:
        ValueError: a list is empty, names a document twice or one that is not there; there is not
            one score a document; a score is infinite; `selected` is no document; the theme is
            unknown.
    """
    palette = palette_of(theme)
    if isinstance(labels, str):
        raise ValueError(f"labels is one text, {labels!r}; expected a list of documents")
    labels = [str(label) for label in labels]
    first = _ranking("first", first, len(labels))
    second = _ranking("second", second, len(labels))
    scores = [
        None if values is None else _scores(name, values, len(ranking))
        for name, values, ranking in (
            ("first_scores", first_scores, first),
            ("second_scores", second_scores, second),
        )
    ]
    if selected is not None and not 0 <= selected < len(labels):
        raise ValueError(
            f"selected is document {selected}; the documents are 0 to {len(labels) - 1}"
        )
    rows = max(len(first), len(second))
    heads = [strategy_lines(clean(name), 20) for name in (first_name, second_name)]
    domains, height = stack([(28 + 15 * max(map(len, heads)), rows * _ROW)], 8)

    figure = go.Figure()
    _add_lines(figure, palette, first, second, labels)
    for side, (ranking, other) in enumerate(((first, second), (second, first))):
        _add_list(figure, palette, side, ranking, other, labels, scores[side])
        if selected in ranking:
            _add_band(figure, palette, side, ranking.index(selected))
    flat = dict(visible=False, fixedrange=True)
    figure.update_layout(
        barmode="overlay",
        bargap=0,
        xaxis=flat | {"domain": _LISTS[0], "range": [0, _ROOM]},
        xaxis2=flat | {"domain": [_LISTS[0][1], _LISTS[1][0]], "range": [-0.15, 1.15]},
        xaxis3=flat | {"domain": _LISTS[1], "range": [0, _ROOM]},
        yaxis=flat | {"domain": domains[0], "range": [rows - 0.5, -0.5]},
    )
    for (start, end), head in zip(_LISTS, heads, strict=True):
        _add_fade(figure, palette, end, domains[0])
        name = "<br>".join(f"<b>{line}</b>" for line in head)
        add_text(figure, name, palette, x=start, y=domains[0][1], xshift=3, yshift=4)
    key = (
        f"{colored('▲ rises', palette.positive)}  {colored('▼ falls', palette.negative)}  "
        f"{colored('○ in one list only', palette.muted)}"
    )
    add_text(figure, key, palette, y=1, yanchor="top", xshift=3)
    return finish(figure, palette, height, left=4, right=4, bottom=8)


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


def _scores(name: str, values: Any, count: int) -> np.ndarray:
    (scores,) = checked_arrays(**{name: (values, "K", "nan")})
    if len(scores) != count:
        raise ValueError(f"{name} has {len(scores)} scores; expected {count}, one a document")
    return scores


def _add_list(
    figure: go.Figure,
    palette: Palette,
    side: int,
    ranking: list[int],
    other: list[int],
    labels: list[str],
    scores: np.ndarray | None,
) -> None:
    """Add a column of documents with their score bars, and the marks where their lines end."""
    count = len(ranking)
    rows = np.arange(count)
    axis = ("x", "x3")[side]
    notes = [_note(side, row, index, other, palette) for row, index in enumerate(ranking)]
    printed = ["" if scores is None else format_number(scores[row], ".3f") for row in rows]
    metas = [" · ".join(filter(None, pair)) for pair in zip(printed, notes, strict=True)]
    documents = [[index] for index in ranking]
    figure.add_trace(  # what is hovered and clicked
        go.Bar(
            x=np.full(count, _ROOM),
            y=rows,
            width=1,
            orientation="h",
            xaxis=axis,
            marker=dict(color=CLEAR),
            hovertext=[
                f"{row + 1}. {hover_text(labels[index])}" + (f"<br>{meta}" if meta else "")
                for row, index, meta in zip(rows, ranking, metas, strict=True)
            ],
            customdata=documents,
            **CLICKABLE,
            name=f"{('first', 'second')[side]} list",
        )
    )
    if scores is not None:
        figure.add_trace(
            go.Bar(
                x=_bar_lengths(scores),
                y=rows,
                width=0.86,
                orientation="h",
                xaxis=axis,
                marker=dict(color=translucent(palette.plain, 0.2)),
                hoverinfo="skip",
                name=f"{('first', 'second')[side]} scores",
                **steady(),
            )
        )
    figure.add_trace(
        go.Scatter(
            x=np.full(count, 0.02),
            y=rows,
            mode="text",
            text=[
                f"<b>{row + 1}</b> {_document(labels[index])}"
                + (f'<br><span style="font-size:{_META}px">{meta}</span>' if meta else "")
                for row, index, meta in zip(rows, ranking, metas, strict=True)
            ],
            textposition="middle right",
            textfont=dict(size=SIZE, color=palette.text),
            xaxis=axis,
            cliponaxis=True,
            hoverinfo="skip",
            name=f"{('first', 'second')[side]} texts",
            **steady(palette.text),
        )
    )
    colors = [_color(ranking, other, index, side, palette) for index in ranking]
    figure.add_trace(
        go.Scatter(
            x=np.full(count, side),
            y=rows,
            mode="markers",
            marker=dict(
                size=8,
                color=[
                    color if index in other else palette.background
                    for index, color in zip(ranking, colors, strict=True)
                ],
                line=dict(color=colors, width=1.5),
            ),
            xaxis="x2",
            cliponaxis=False,
            hoverinfo="skip",
            name=f"{('first', 'second')[side]} ends",
            **steady(),
        )
    )


def _add_lines(
    figure: go.Figure, palette: Palette, first: list[int], second: list[int], labels: list[str]
) -> None:
    """Add a line from the place of each document in the first list to that in the second."""
    steps = np.linspace(0, 1, 25)
    ease = (1 - np.cos(np.pi * steps)) / 2
    for before, index in enumerate(first):
        if index not in second:
            continue
        after = second.index(index)
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=before + (after - before) * ease,
                mode="lines",
                line=dict(color=_color(first, second, index, 0, palette), width=2),
                opacity=0.85,
                xaxis="x2",
                customdata=[[index]] * len(steps),
                hovertext=[f"{hover_text(labels[index])}<br>rank {before + 1} → {after + 1}"]
                * len(steps),
                hovertemplate="%{hovertext}<extra></extra>",
                name=f"document {index}",
            )
        )


def _color(ranking: list[int], other: list[int], index: int, side: int, palette: Palette) -> str:
    """Colour of a document by the direction from the first list to the second."""
    if index not in other:
        return palette.plain
    here, there = ranking.index(index), other.index(index)
    rise = (here - there) * (1 if side == 0 else -1)
    return palette.positive if rise > 0 else palette.negative if rise < 0 else palette.plain


def _note(side: int, row: int, index: int, other: list[int], palette: Palette) -> str:
    """What is said of a document's rank in the other list; the first list only tells losses."""
    if index not in other:
        return f"not in top {len(other)}"
    rise = other.index(index) - row
    if side == 0:
        return ""
    if not rise:
        return "same rank"
    color = palette.positive if rise > 0 else palette.negative
    return colored(f"{'▲' if rise > 0 else '▼'} {abs(rise)}", color)


def _document(text: str) -> str:
    """A document for its row. One that reads from the right is cut to what a phone shows."""
    whole = escape(shorten(text, _COLUMNS))
    if whole.startswith("\u2068"):  # its beginning is where the column ends
        return escape(shorten(text, _PHONE_COLUMNS))
    return whole


def _bar_lengths(scores: np.ndarray) -> np.ndarray:
    """Lengths of score bars, from zero or the lowest score below it to the highest.  (K,)"""
    known = scores[np.isfinite(scores)]
    low, high = known.min(initial=0), known.max(initial=0)
    width = high - low or 1.0
    return np.nan_to_num((scores - low) / width)


def _add_band(figure: go.Figure, palette: Palette, side: int, row: int) -> None:
    """Add the band behind the selected document of a list."""
    figure.add_shape(
        type="rect",
        xref="paper",
        x0=_LISTS[side][0],
        x1=_LISTS[side][1],
        y0=row - 0.5,
        y1=row + 0.5,
        line=dict(width=0),
        fillcolor=palette.band,
        layer="below",
        name="selected",
    )


def _add_fade(figure: go.Figure, palette: Palette, end: float, domain: Sequence[float]) -> None:
    """Let the texts of a column fade out at its end, instead of breaking off."""
    step = 0.01
    for index, opacity in enumerate((0.95, 0.75, 0.5, 0.25)):
        figure.add_shape(
            type="rect",
            xref="paper",
            yref="paper",
            x0=end - (index + 1) * step,
            x1=end - index * step,
            y0=domain[0],
            y1=domain[1],
            line=dict(width=0),
            fillcolor=translucent(palette.background, opacity),
            layer="above",
            name="fade",
        )
