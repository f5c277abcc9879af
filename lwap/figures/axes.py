"""Axes: of hidden states, of what stands in rows, of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lwap.figures.style import Palette
from lwap.figures.template import LEFT, SIZE
from lwap.figures.texts import axis_label
from lwap.names import state_tick

Axis = dict[str, Any]  # arguments of a Plotly axis


def named_axis(names: Sequence[str], at: Sequence[float] | np.ndarray | None = None) -> Axis:
    """Axis of things with safe names, at 0, 1, 2, … or at other places, without a grid."""
    at = range(len(names)) if at is None else at
    return dict(
        range=[-0.5, len(names) - 0.5],
        tickmode="array",
        tickvals=list(at),
        ticktext=list(names),
        showgrid=False,
        tickfont_size=SIZE,
    )


def state_axis(states: int, title: str | None = None, *, most: int = 9) -> Axis:
    """Axis of hidden states; above 13 states only some are named, evenly."""
    step = 1
    if states > 13 or most < 9:
        least = math.ceil((states - 1) / most)
        even = [s for s in range(least, 2 * least + 1) if s and (states - 1) % s == 0]
        step = even[0] if even else max(least, 1)
    shown = range(0, states, step)
    axis = named_axis([state_tick(index) for index in shown], shown)
    return axis | dict(range=[-0.5, states - 0.5], tickangle=0, title_text=title)


def query_axis(ticks: Sequence[str]) -> Axis:
    """Vertical axis of query states, embeddings on top as in a printed matrix."""
    count = len(ticks)
    return named_axis(ticks) | dict(
        range=[count - 0.5, -0.5], ticklabelstandoff=4, tickfont_size=SIZE if count <= 13 else 10
    )


def row_axis(labels: Sequence[str], palette: Palette, *, shift: int, indent: int = 0) -> Axis:
    """Vertical axis with one row a sentence, first on top, each named at the top of its row.

    Rows sit at 0, 1, 2, …; a category axis would merge equal sentences into one row. The axis
    stands on the right-hand side of the plot's left edge, which puts the names over the rows;
    `ticklabelposition="inside"` would too, but hides the labels of the other axis. `shift` is
    the distance in pixels from the upper edge of a row to the middle of its name, `indent` that
    from the left edge.
    """
    count = len(labels)
    return named_axis(list(map(axis_label, labels)), np.arange(count) - 0.5) | dict(
        range=[count - 0.5, -0.5] if count else [0.5, -0.5],
        side="right",
        anchor="free",
        position=0,
        ticklabelstandoff=indent,
        ticklabelshift=-shift,  # plotly counts upwards
        tickfont_color=palette.text,
    )


def bar_axis(values: Any, *, signed: bool = False) -> Axis:
    """Vertical axis of bars, from zero, with room for the numbers beyond their ends."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    low, high = known.min(initial=0.0), known.max(initial=0.0)
    if low == high:
        high = 1.0
    room = 0.24 * (high - low)
    return dict(
        range=[low - room if low < 0 else 0.0, high + room if high > 0 else room],
        nticks=4,
        tickformat="+" if signed else None,
        zeroline=True,
        ticklabelstandoff=4,
    )


def free_axis(span: Sequence[float], title: str | None = None) -> Axis:
    """Axis of values that may lie anywhere, so from no zero.  `title` is a safe text."""
    return dict(range=list(span), title_text=title)


def score_axis(scores: Any, title: str) -> Axis:
    """Horizontal axis of marks that stand in rows.  `title` is a safe text."""
    return free_axis(padded(scores, 0.06), title)


def padded(values: Any, share: float) -> list[float]:
    """Range of the finite values with `share` of its width on both sides."""
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known)]
    if not known.size:
        return [0.0, 1.0]
    low, high = float(known.min()), float(known.max())
    room = share * (high - low) or 0.05
    return [low - room, high + room]


def left_margin(ticks: Sequence[str]) -> int:
    """Pixels for the names of the rows of a matrix."""
    return max(LEFT, int(10 + 7 * max(map(len, ticks))))
