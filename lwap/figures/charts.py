"""Panels that several figures have: bars of states, matrices, rows of cells and of dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lwap.figures.axes import bar_axis, query_axis, row_axis
from lwap.figures.marks import cell_height, matrix, state_bars, uniform_line
from lwap.figures.panels import HEADER, Panel
from lwap.figures.style import Palette
from lwap.figures.template import SMALL
from lwap.figures.texts import format_number, hover_text

ROW, BRICK = 46, 22  # px, a row with its sentence above it, and the cells in it
LANE = 50  # px, a row of dots with its sentence above them


def bar_panel(
    values: np.ndarray, color: Any, head: str, note: str, *, body: int = 92, **options: Any
) -> Panel:
    """Build a panel of one bar a state; `options` are those of `state_bars`, and `header`.

    values: (S,)
    """
    header = options.pop("header", HEADER)
    axis = bar_axis(values, signed=options.get("signed", False))
    return Panel(body, [state_bars(values, color, **options)], axis, head, note, header=header)


def weight_panel(
    bars: Sequence[Any], palette: Palette, head: str, note: str = "", **panel: Any
) -> Panel:
    """Build a panel of bars of layer weights, with the line that they would reach if all equal."""
    states = len(bars[0].y)
    axis = bar_axis(np.append(np.concatenate([trace.y for trace in bars]), 1 / states))
    note = f"{note}dotted: uniform, {format_number(1 / states, '.2f')}"
    line = uniform_line(states, palette)
    return Panel(traces=bars, y_axis=axis, head=head, note=note, shapes=[line], **panel)


def matrix_panel(
    values: np.ndarray, rows: tuple[list[str], list[str]], head: str, note: str, **options: Any
) -> Panel:
    """Build a panel with a matrix of states; `rows` are their names for the hover, and the ticks.

    `options` are those of `matrix`, and `header` and `x_axis` of the panel.  values: (Q, S)
    """
    places = {name: options.pop(name) for name in ("header", "x_axis") if name in options}
    names, ticks = rows
    body = len(ticks) * cell_height(len(ticks))
    return Panel(body, [matrix(values, names, **options)], query_axis(ticks), head, note, **places)


def brick_panel(
    values: np.ndarray, labels: Sequence[str], palette: Palette, head: str, **options: Any
) -> Panel:
    """Build a panel of coloured cells, one row a label; numbers in up to `most` cells, 400.

    `options` are those of `matrix`, and `note`, `header` and `shapes` of the panel.
    values: (R, C)
    """
    panel = {name: options.pop(name) for name in ("note", "header", "shapes") if name in options}
    options["has_numbers"] = values.size <= options.pop("most", 400)
    cells = matrix(values, list(map(hover_text, labels)), ygap=ROW - BRICK, **options)
    axis = row_axis(labels, palette, shift=3)
    return Panel(len(labels) * ROW, [cells], axis, head, lift=12, **panel)


def dot_panel(
    labels: Sequence[str], palette: Palette, traces: Sequence[Any], row: int = LANE, **panel: Any
) -> Panel:
    """Build a panel of marks in rows, each `row` pixels high with its label at the top."""
    axis = row_axis(labels, palette, shift=11, indent=4)
    return Panel(max(len(labels), 1) * row, traces, axis, **dict(header=0) | panel)


def beside_row(text: str, row: float, **arguments: Any) -> dict[str, Any]:
    """Annotation at the right end of the line with a row's label.  `text` is safe."""
    place = dict(x=1, xref="x domain", xanchor="right", y=row - 0.5, yanchor="middle", yshift=-11)
    return dict(text=text, font_size=SMALL) | place | arguments
