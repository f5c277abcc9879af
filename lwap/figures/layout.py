"""Where things stand: rows of a figure, axes, legends, headers, and what all figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.style import CLEAR, MODEL, WHITEN, Palette
from lwap.figures.texts import (
    LABEL_COLUMNS,
    axis_label,
    colored,
    count_columns,
    escape,
    format_number,
    hover_text,
    shorten,
    wrap,
)
from lwap.names import state_tick

FONT = '"Source Sans", "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
SIZE = 12  # px, text of a figure
SMALL = 11  # px, numbers on axes and names in tight places
LEAST = 9  # px, smaller numbers are left to the hover
PHONE = 340  # px, the narrowest figure that must be readable
DIGIT = 0.63  # width of a digit as a share of the font size, in the widest of the fonts above
LEFT, RIGHT = 42, 10  # px, margins beside the plot
HEADER = 40  # px, two lines of text above a row of a figure
BAR_HEADER = 52  # px, the same below another row and with a colour bar at the right
TICKS = 44  # px, tick labels and axis title below a figure
PLANE_HEAD = "Better towards the lower left ↙"  # of the plane of alignment and uniformity
ROW, BRICK = 46, 22  # px, a row with its sentence above it, and the cells in it


def stack(rows: Sequence[tuple[int, int]], bottom: int) -> tuple[list[tuple[float, float]], int]:
    """Stack rows of (header, body) pixels, first on top.

    Returns the vertical domain of every body, as shares of the plot, and the figure's height with
    `bottom` pixels below the last body.
    """
    total = sum(header + body for header, body in rows)
    domains, used = [], 0
    for header, body in rows:
        top = used + header
        used = top + body
        domains.append((max(0.0, 1 - used / total), 1 - top / total))
    return domains, total + bottom


def finish(
    figure: go.Figure,
    palette: Palette,
    height: int,
    *,
    left: int = LEFT,
    right: int = RIGHT,
    top: int = 0,
    bottom: int = TICKS,
    title: str | None = None,
) -> go.Figure:
    """Set what all figures share: fonts, transparent paper, margins, hover, no dragging."""
    title_lines = wrap(title, 40, most=2) if title else []
    room = 10 + 18 * len(title_lines) if title_lines else 0
    figure.update_layout(
        template="none",
        height=height + room,
        margin=dict(l=left, r=right, t=top + room, b=bottom, pad=0),
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font=dict(family=FONT, size=SIZE, color=palette.text),
        hovermode="closest",
        hoverlabel=dict(
            bgcolor=palette.surface,
            bordercolor=palette.zero,
            font=dict(family=FONT, size=SIZE, color=palette.text),
            align="left",
        ),
        modebar=dict(bgcolor=CLEAR, color=palette.muted, activecolor=palette.text),
        dragmode=False,  # so that a finger on the figure scrolls the page
        uniformtext=dict(minsize=LEAST, mode="hide"),  # numbers on bars that do not fit
    )
    if figure.layout.showlegend is None:
        figure.update_layout(showlegend=False)
    if title_lines:
        add_text(
            figure,
            "<b>" + "<br>".join(map(escape, title_lines)) + "</b>",
            palette,
            xshift=3 - left,
            y=1,
            yanchor="top",
            yshift=room - 3,
            font_size=13,
        )
    figure.update_traces(
        textfont=dict(size=SIZE, color=palette.text, shadow=halo(palette)),
        selector=dict(type="bar"),
    )
    return figure


def state_axis(
    palette: Palette,
    states: int,
    *,
    anchor: str,
    matches: str | None = None,
    title: str | None = None,
    labels: bool = True,
    most: int = 9,
) -> dict[str, Any]:
    """Horizontal axis of hidden states; above 13 states only some are named, evenly."""
    step = 1
    if states > 13 or most < 9:
        least = math.ceil((states - 1) / most)
        even = [s for s in range(least, 2 * least + 1) if s and (states - 1) % s == 0]
        step = even[0] if even else max(least, 1)
    shown = list(range(0, states, step))
    return dict(
        anchor=anchor,
        matches=matches,
        range=[-0.5, states - 0.5],
        tickmode="array",
        tickvals=shown,
        ticktext=[state_tick(index) for index in shown],
        tickangle=0,
        ticks="",
        showticklabels=labels,
        showgrid=False,
        zeroline=False,
        tickfont=dict(size=SIZE, color=palette.muted),
        title=axis_title(palette, title),
        fixedrange=True,
    )


def query_axis(
    palette: Palette,
    domain: tuple[float, float],
    ticks: Sequence[str],
    *,
    anchor: str,
    labels: bool = True,
) -> dict[str, Any]:
    """Vertical axis of query states, embeddings on top as in a printed matrix."""
    count = len(ticks)
    return dict(
        anchor=anchor,
        domain=domain,
        range=[count - 0.5, -0.5],
        tickmode="array",
        tickvals=np.arange(count),
        ticktext=list(ticks),
        ticks="",
        ticklabelstandoff=4,
        showticklabels=labels,
        showgrid=False,
        zeroline=False,
        tickfont=dict(size=SIZE if count <= 13 else 10, color=palette.muted),
        fixedrange=True,
    )


def value_axis(
    palette: Palette, domain: tuple[float, float], values: Any, *, signed: bool = False
) -> dict[str, Any]:
    """Vertical axis of bars, from zero, with room for the numbers beyond their ends."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    low, high = min(0.0, known.min(initial=0.0)), max(0.0, known.max(initial=0.0))
    if low == high:
        high = 1.0
    room = 0.24 * (high - low)
    return dict(
        domain=domain,
        range=[low - room if low < 0 else 0.0, high + room if high > 0 else room],
        nticks=4,
        tickformat="+" if signed else None,
        exponentformat="e",  # not 60µ
        labelalias={"+0": "0"},
        gridcolor=palette.grid,
        zeroline=True,
        zerolinecolor=palette.zero,
        zerolinewidth=1,
        ticklabelstandoff=4,
        tickfont=dict(size=SMALL, color=palette.muted),
        fixedrange=True,
    )


def sentence_axis(
    palette: Palette,
    domain: tuple[float, float],
    labels: Sequence[str],
    *,
    shift: int,
    indent: int = 0,
) -> dict[str, Any]:
    """Vertical axis with one row a sentence, first on top, each named at the top of its row.

    Rows sit at 0, 1, 2, …; a category axis would merge equal sentences into one row. The axis
    stands on the right-hand side of the plot's left edge, which puts the names over the rows;
    `ticklabelposition="inside"` would too, but hides the labels of the other axis. `shift` is
    the distance in pixels from the upper edge of a row to the middle of its name, `indent` that
    from the left edge.
    """
    count = len(labels)
    return dict(
        domain=domain,
        range=[count - 0.5, -0.5],
        tickmode="array",
        tickvals=np.arange(count) - 0.5,
        ticktext=[axis_label(label) for label in labels],
        side="right",
        anchor="free",
        position=0,
        ticklabelstandoff=indent,
        ticklabelshift=-shift,  # plotly counts upwards
        ticks="",
        showgrid=False,
        zeroline=False,
        tickfont=dict(size=SIZE, color=palette.text),
        fixedrange=True,
    )


def score_axis(palette: Palette, scores: Any, title: str) -> dict[str, Any]:
    """Horizontal axis of dots that stand in rows."""
    return dict(
        range=padded(scores, 0.06),
        nticks=6,
        gridcolor=palette.grid,
        zeroline=False,
        tickfont=dict(size=SMALL, color=palette.muted),
        title=axis_title(palette, title),
        fixedrange=True,
    )


def free_axis(palette: Palette, span: Sequence[float], title: str | None) -> dict[str, Any]:
    """Axis of values that may lie anywhere, so from no zero.  `title` is a safe text."""
    return dict(
        range=list(span),
        nticks=6,
        gridcolor=palette.grid,
        zeroline=False,
        tickfont=dict(size=SMALL, color=palette.muted),
        title=axis_title(palette, title),
        fixedrange=True,
    )


def plane_axes(
    palette: Palette, spans: Sequence[Sequence[float]], domain: tuple[float, float]
) -> dict[str, Any]:
    """Both axes of the plane of uniformity and alignment, for `update_layout`."""
    y_axis = free_axis(palette, spans[1], "← alignment, lower is better")
    return dict(
        xaxis=free_axis(palette, spans[0], "← uniformity, lower is better"),
        yaxis=y_axis | {"domain": domain},
    )


def axis_title(palette: Palette, text: str | None) -> dict[str, Any]:
    return dict(text=text, font=dict(size=SIZE, color=palette.muted), standoff=4)


def header_color_bar(
    palette: Palette, top: float, ticks: Sequence[float], form: str = ".2f", shift: int = 0
) -> dict[str, Any]:
    """Thin horizontal colour bar in the right third of a row's header, `shift` pixels higher."""
    return dict(
        orientation="h",
        x=1,
        xanchor="right",
        y=top,
        yanchor="bottom",
        len=0.36,
        thickness=8,
        xpad=14,
        ypad=4 + shift,
        outlinewidth=0,
        tickvals=list(ticks),
        ticktext=[format_number(value, form) for value in ticks],
        ticks="",
        ticklabeloverflow="allow",
        tickfont=dict(size=SMALL, color=palette.muted),
    )


def top_legend(palette: Palette) -> dict[str, Any]:
    """Horizontal legend above the plot."""
    return dict(
        orientation="h",
        x=0,
        xanchor="left",
        y=1,
        yanchor="bottom",
        font=dict(size=SIZE, color=palette.text),
        bgcolor=CLEAR,
        itemwidth=30,
        tracegroupgap=0,
    )


def count_legend_lines(names: Sequence[str], width: int = PHONE) -> int:
    """Lines that a horizontal legend of these names takes, by default on a phone."""
    entry = 44 + 6.8 * max(map(len, names))
    return math.ceil(len(names) / max(1, int((width - 8) / entry)))


def halo(palette: Palette) -> str:
    """Shadow in the colour of the page that keeps a text readable on lines."""
    return ", ".join(f"0 0 {blur}px {palette.background}" for blur in (1, 2, 2, 4))


def strategy_lines(name: str, columns: int) -> list[str]:
    """Safe lines of a strategy's name: broken after the model and before "+whiten" if too long."""
    if count_columns(name) <= columns:
        return [escape(name)]
    model, _, strategy = name.rpartition(MODEL)
    lines = [f"{model} ·"] if model else []
    if count_columns(strategy) > columns and strategy.endswith(WHITEN):
        lines += [strategy.removesuffix(WHITEN), WHITEN]
    else:
        lines.append(strategy)
    return [escape(shorten(line, columns)) for line in lines]


def add_text(figure: go.Figure, text: str, palette: Palette, **arguments: Any) -> None:
    """Add a text at a place of the paper; by default left-aligned, with its foot at `y`."""
    defaults = dict(x=0, xref="paper", xanchor="left", yref="paper", yanchor="bottom", align="left")
    size = arguments.pop("font_size", SIZE)
    figure.add_annotation(
        text=text,
        showarrow=False,
        **{"borderpad": 0, "font": dict(size=size, color=palette.text)} | defaults | arguments,
    )


def add_header(
    figure: go.Figure,
    palette: Palette,
    top: float,
    head: str,
    note: str,
    left: int = LEFT,
    shift: int = 0,
) -> None:
    """Add a bold line and a quiet one above a row, flush with the figure's left edge.

    `head` and `note` are safe texts. `shift` pixels are left free above the row, for the first
    sentence's name.
    """
    lines = [f"<b>{head}</b>"] if head else []
    if note:
        lines.append(colored(note, palette.muted))
    add_text(figure, "<br>".join(lines), palette, xshift=3 - left, y=top, yshift=5 + shift)


def add_swatches(
    figure: go.Figure,
    palette: Palette,
    top: float,
    label_a: str,
    label_b: str,
    colors: tuple[str, str],
    prefix: str = "",
) -> None:
    """Add two lines that say which sentence has which colour."""
    sides = ((colors[0], label_a, 21), (colors[1], label_b, 4))
    for color, label, shift in sides:
        name = escape(shorten(label, LABEL_COLUMNS - len(prefix) + 3 if prefix else 40))
        add_text(
            figure,
            f"{colored('■', color)} {prefix}{name}",
            palette,
            hovertext=hover_text(label),
            xshift=3 - LEFT,
            y=top,
            yshift=shift,
        )


def cell_height(rows: int) -> int:
    """Pixels of a heatmap's row: enough for a number up to 13 rows, for a tick label beyond."""
    return 34 if rows == 1 else 28 if rows <= 9 else 24 if rows <= 13 else 16


def left_margin(ticks: Sequence[str]) -> int:
    return max(LEFT, int(10 + 7 * max(map(len, ticks))))


def padded(values: Any, share: float) -> list[float]:
    """Range of the finite values with `share` of its width on both sides."""
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known)]
    if not known.size:
        return [0.0, 1.0]
    low, high = float(known.min()), float(known.max())
    room = share * (high - low) or 0.05
    return [low - room, high + room]
