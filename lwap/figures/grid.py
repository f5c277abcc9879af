"""Figure of strategies × tasks: a table of colours with the best and its equals marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis, named_axis
from lwap.figures.checks import check_intervals, checked_estimates, checked_texts
from lwap.figures.labels import strategy_lines
from lwap.figures.marks import OWN_HOVER, across
from lwap.figures.panels import HEADER, Panel, color_bar, compose
from lwap.figures.style import (
    CLEAR,
    MODEL,
    STATE_COLORSCALE,
    Palette,
    has_accent,
    ink,
    palette_of,
    parse_strategy,
)
from lwap.figures.template import PHONE, SIZE, SMALL
from lwap.figures.texts import (
    clean,
    colored,
    escape,
    format_interval,
    format_number,
    hover_text,
    shorten,
)

_CELL, _TALL_CELL = 24, 32  # px, a row of the grid, and one whose name takes two lines
_NAME_COLUMNS = 16  # characters of a strategy beside the grid
_PRECISE = 9  # columns in which two decimals fit on a phone
_RIGHT, _BOTTOM = 6, 12  # px, margins


def strategy_grid(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    low: Any = None,
    high: Any = None,
    tied: Any = None,
    theme: str = "light",
) -> go.Figure:
    """Draw the Spearman correlation of every strategy on every task as a table of colours.

    Colours run from the worst to the best of each column, so that hard and easy tasks both read.
    The best of a column is bold and framed. `customdata` of every cell is [row, column]. Numbers
    in cells shrink with the figure and are left to the hover where they would not fit.

    Args:
        values: (K, T), correlations × 100; NaN leaves the cell empty.
        rows: K strategy names, each alone or as "model · strategy". A model stands once above
            its rows; single layers are set apart from what stands before or after them.
        columns: T task names; a last one called "average" is set apart.
        low, high: (K, T), ends of the intervals, for the hover; NaN where there is none.
        tied: (K, T), whether a cell is not significantly worse than the best of its column;
            underlined in the figure. Nothing is said about significance if None.

    Raises:
        ValueError: a number is outside −100 to 100 or an interval is upside down or has one
            end.
    """
    palette = palette_of(theme)
    grid = _checked_grid(values, rows, columns, low, high, tied)
    labels = [strategy_lines(name.rpartition(MODEL)[2], _NAME_COLUMNS) for name in grid.rows]
    names = [escape(shorten(name, 12)) for name in grid.columns]
    left = int(12 + 6.3 * max(len(line) for lines in labels for line in lines))
    room = int(12 + 6.8 * max(map(len, names)))  # names of tasks stand upright on a phone
    cell = _CELL if max(map(len, labels)) == 1 else _TALL_CELL
    notes = _notes(grid)
    font = dict(size=SMALL, color=palette.text)
    x_axis = dict(range=grid.span, ticklabelstandoff=3, side="top", autotickangles=[0, -90])
    y_axis = dict(range=[grid.height + 0.06, -0.06], ticklabelstandoff=4, tickfont=font)
    panel = Panel(
        int(grid.height * cell),
        [*_cells(grid, palette), *_numbers(grid, palette, PHONE - left - _RIGHT)],
        named_axis(_ticks(grid, labels, palette), grid.down) | y_axis,
        "Spearman × 100 ↑",
        "<br>".join(notes),
        header=HEADER + 16 * (len(notes) - 1) + room,
        lift=room,
        annotations=_model_names(grid, 3 - left),
        shapes=_frames_and_rules(grid, palette),
    )
    x_axis = named_axis(names, grid.across) | x_axis | dict(tickfont=font)
    margin = dict(l=left, r=_RIGHT, b=_BOTTOM)
    figure = compose([panel], x_axis, palette, margin=margin, barmode="overlay", bargap=0)
    # Beside the first lines of the header.
    bar = dict(marker_colorbar=dict(y=1 - 34 / (panel.header + panel.body), ypad=4))
    return figure.update_traces(bar, selector=dict(name="cells"))


# --- what is drawn, and where --------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """Numbers, names and places, in units of a cell, from the upper left corner."""

    values: np.ndarray  # (K, T)
    low: np.ndarray  # (K, T)
    high: np.ndarray  # (K, T)
    tied: np.ndarray | None  # (K, T)
    rows: list[str]
    columns: list[str]
    down: np.ndarray  # (K,), middles of the rows
    across: np.ndarray  # (T,), middles of the columns
    models: list[tuple[float, str]]  # middle of the line above a model's rows, and its name
    rules: list[float]  # between single layers and others
    height: float

    @property
    def span(self) -> list[float]:
        """Both ends of the axis of columns."""
        return [self.across[0] - 0.53, self.across[-1] + 0.53]

    @property
    def shares(self) -> np.ndarray:
        """Place of each value between the worst and the best of its column, 0 to 1.  (K, T)"""
        known = np.isfinite(self.values)
        worst = np.where(known, self.values, np.inf).min(axis=0)
        width = np.where(known, self.values, -np.inf).max(axis=0) - worst
        is_flat = ~(width > 0)
        shares = (self.values - np.where(is_flat, 0, worst)) / np.where(is_flat, 1, width)
        return np.where(known & is_flat, 1.0, shares)

    @property
    def is_best(self) -> np.ndarray:
        """Which values print as the best of their column, where there are several.  (K, T)"""
        known = np.isfinite(self.values)
        printed = np.round(np.where(known, self.values, -np.inf), 2)
        return known & (printed == printed.max(axis=0)) & (known.sum(axis=0) > 1)


def _checked_grid(
    values: Any, rows: Sequence[str], columns: Sequence[str], low: Any, high: Any, tied: Any
) -> _Grid:
    if (low is None) != (high is None):
        raise ValueError("low and high are the two ends of intervals; only one of them is given")
    missing = np.full_like(values, np.nan, dtype=np.float64)
    estimates = (values, missing, missing) if low is None else (values, low, high)
    others = {} if tied is None else dict(tied=(tied, "KT"))
    values, low, high, *ties = checked_estimates(
        "KT", estimates, (-100, 100), "correlations × 100,", **others
    )
    rows = checked_texts("rows", rows, len(values))
    columns = list(map(clean, checked_texts("columns", columns, values.shape[1])))
    check_intervals([f"{row} on {column}" for row in rows for column in columns], low, high)
    is_tied = ties[0].astype(bool) if ties else None
    return _Grid(values, low, high, is_tied, rows, columns, *_places(rows, columns))


def _places(rows: Sequence[str], columns: Sequence[str]) -> tuple[Any, ...]:
    """The last five fields of a grid."""
    down, models, rules = [], [], []
    top, before = 0.0, None
    for name in rows:
        model, is_layer = name.rpartition(MODEL)[0], parse_strategy(name)[1] is not None
        if before is None or model != before[0]:
            top += 0.3 if before else 0
            if model:
                models.append((top + 0.45, model))
                top += 0.9
        elif is_layer != before[1]:
            rules.append(top + 0.2)
            top += 0.4
        down.append(top + 0.5)
        top += 1
        before = model, is_layer
    across = np.arange(len(columns), dtype=np.float64)
    if len(columns) > 1 and columns[-1].lower() == "average":
        across[-1] += 0.15
    return np.array(down), across, models, rules, top


# --- marks ---------------------------------------------------------------------------------------


def _bars(grid: _Grid, chosen: np.ndarray, width: float = 1.0, **arguments: Any) -> go.Bar:
    """Build one bar a chosen cell; a cell of the grid is 1 wide and high.  chosen: (K, T)"""
    rows, columns = np.nonzero(chosen)
    return go.Bar(
        x=grid.across[columns],
        base=grid.down[rows] - 0.5,
        y=np.ones(len(rows)),
        width=width,
        **arguments,
    )


def _cells(grid: _Grid, palette: Palette) -> list[go.Bar]:
    """Build the coloured cells, and those without a value."""
    known, hover = np.isfinite(grid.values), _hover(grid)
    scale = dict(color=grid.shares[known], colorscale=STATE_COLORSCALE, cmin=0, cmax=1)
    bar = color_bar([0, 1]) | dict(ticktext=["worst", "best"])
    filled = scale | dict(colorbar=bar, line=dict(color=palette.background, width=1))
    empty = dict(color=CLEAR, line=dict(color=palette.grid, width=1))
    bars = []
    for name, chosen, marker in (("cells", known, filled), ("empty", ~known, empty)):
        data = dict(customdata=np.argwhere(chosen).tolist(), hovertext=hover[chosen], name=name)
        if chosen.any():
            bars.append(_bars(grid, chosen, marker=marker, **data, **OWN_HOVER))
    return bars


def _hover(grid: _Grid) -> np.ndarray:
    """What the hover of each cell says.  (K, T)"""
    texts = np.empty(grid.values.shape, dtype=object)
    is_best = grid.is_best
    for row, column in np.ndindex(*texts.shape):
        place = row, column
        value = format_interval(
            float(grid.values[place]), float(grid.low[place]), float(grid.high[place])
        )
        if np.isnan(grid.values[place]):
            value = "no value"
        lines = [escape(clean(grid.rows[row])), f"{escape(grid.columns[column])}: {value}"]
        best = ", ".join(escape(grid.rows[index]) for index in np.flatnonzero(is_best[:, column]))
        if is_best[place]:
            lines.append("best of its column")
        elif grid.tied is not None and best and value != "no value":
            verdict = "not significantly worse" if grid.tied[place] else "significantly worse"
            lines.append(f"{verdict} than the best, {best}")
        texts[place] = "<br>".join(lines)
    return texts


def _numbers(grid: _Grid, palette: Palette, narrowest: int) -> list[Any]:
    """Build the numbers, and lines below what is not significantly worse than the best.

    The numbers are those of bars of no colour, for then they shrink with the figure, and hide
    rather than overlap. plotly keeps 3 px free at both sides of a number; bars wider than the cell
    leave less. `narrowest` is the grid's width on a phone in pixels.
    """
    columns = len(grid.columns)
    free = 3 if columns < _PRECISE else 2  # px between two numbers on a phone
    form = ".2f" if columns <= _PRECISE else ".1f"
    known, inks = np.isfinite(grid.values), ink(STATE_COLORSCALE, grid.shares)
    colors = np.where(known, inks, palette.muted)
    texts = []
    for value, color, best in zip(grid.values.flat, colors.flat, grid.is_best.flat, strict=True):
        text = format_number(value, form)
        texts.append(colored(f"<b>{text}</b>" if best else text, color))
    numbers = _bars(
        grid,
        np.ones(grid.values.shape, dtype=bool),
        1 + (6 - free) / (narrowest / np.ptp(grid.span)),
        text=texts,
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont=dict(size=SIZE, shadow="none"),
        marker=dict(color=CLEAR),
        hoverinfo="skip",
        name="numbers",
    )
    if grid.tied is None:
        return [numbers]
    rows, columns = np.nonzero(grid.tied & ~grid.is_best & known)
    line = dict(color=inks[rows, columns].tolist(), width=1.5)
    place = dict(x=grid.across[columns], y=grid.down[rows] + 0.33, hoverinfo="skip")
    marker = dict(symbol="line-ew", size=12, line=line)
    name = "not significantly worse"
    return [numbers, go.Scatter(mode="markers", marker=marker, name=name, **place)]


def _ticks(grid: _Grid, labels: Sequence[Sequence[str]], palette: Palette) -> list[str]:
    """Names of the rows, LWAP's own in its colour."""
    ticks = ["<br>".join(lines) for lines in labels]
    for row, name in enumerate(grid.rows):
        if has_accent(name):
            ticks[row] = colored(f"<b>{ticks[row]}</b>", palette.accent)
    return ticks


def _notes(grid: _Grid) -> list[str]:
    """What the header says of colours and marks, one a line."""
    notes = ["colours run within each column"]
    if grid.is_best.any():
        ties = "" if grid.tied is None else "; underlined: not significantly worse"
        notes.append(f"framed: best{ties}")
    return notes


def _model_names(grid: _Grid, shift: int) -> list[dict[str, Any]]:
    place = dict(x=0, xref="x domain", xshift=shift, yanchor="middle")
    return [
        place | dict(text=f"<b>{escape(shorten(name, 46))}</b>", hovertext=hover_text(name), y=y)
        for y, name in grid.models
    ]


def _frames_and_rules(grid: _Grid, palette: Palette) -> list[Axis]:
    """Shapes: a frame around every best cell, and the lines beside single layers."""
    frame = dict(type="rect", line=dict(color=palette.text, width=2), layer="above", name="best")
    shapes = [across(y, palette.zero, layer="above", name="rule") for y in grid.rules]
    for row, column in np.argwhere(grid.is_best):
        x, y = grid.across[column], grid.down[row]
        shapes.append(frame | dict(x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5))
    return shapes
