"""Figure of strategies × tasks: a table of colours with the best and its equals marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import check_intervals, check_within, checked_arrays, checked_texts
from lwap.figures.layout import (
    HEADER,
    PHONE,
    SIZE,
    SMALL,
    add_header,
    add_text,
    finish,
    header_color_bar,
    stack,
    strategy_lines,
)
from lwap.figures.marks import CLICKABLE, steady
from lwap.figures.style import (
    ACCENT,
    CLEAR,
    MODEL,
    STATE_COLORSCALE,
    Palette,
    ink,
    palette_of,
    parse_strategy,
)
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
    The best of a column is bold and framed. `customdata` of every cell is [row, column].

    Args:
        values: (K, T), correlations × 100; NaN leaves the cell empty.
        rows: K strategy names, each alone or as "model · strategy". A model stands once above
            its rows; single layers are set apart from what stands before or after them.
        columns: T task names; a last one called "average" is set apart.
        low: (K, T), lower ends of the intervals, for the hover; NaN where there is none.
        high: (K, T), upper ends of the intervals; given if `low` is.
        tied: (K, T), whether a cell is not significantly worse than the best of its column;
            underlined in the figure. Nothing is said about significance if None.
        theme: "light" or "dark".

    Numbers in cells shrink with the figure and are left to the hover where they would not fit.

    Raises:
        ValueError: shapes disagree, a number is outside −100 to 100, an interval is upside down
            or has one end, a name is no strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
    values, low, high, tied = _grid_arrays(values, low, high, tied)
    count, tasks = values.shape
    rows = checked_texts("rows", rows, count)
    columns = [clean(name) for name in checked_texts("columns", columns, tasks)]
    check_intervals(
        [f"{row} on {column}" for row in rows for column in columns], low.ravel(), high.ravel()
    )
    is_best = _is_best(values)
    places = _place(rows, columns)
    labels = [strategy_lines(name.rpartition(MODEL)[2], _NAME_COLUMNS) for name in rows]
    names = [escape(shorten(name, 12)) for name in columns]
    legend = _grid_legend(is_best, tied)
    left = int(12 + 6.3 * max(len(line) for lines in labels for line in lines))
    upright = int(12 + 6.8 * max(map(len, names)))  # names of tasks stand upright on a phone
    cell = _CELL if max(map(len, labels)) == 1 else _TALL_CELL
    body = int(places.height * cell)
    header = HEADER + 16 * bool(legend) + upright
    domains, height = stack([(header, body)], _BOTTOM)

    figure = go.Figure()
    bar = header_color_bar(palette, 1 - 34 / (header + body), [0, 1])  # beside the first lines
    bar |= dict(ticktext=["worst", "best"])
    hover = _grid_hover(values, low, high, tied, is_best, rows, columns)
    _add_cells(figure, palette, places, values, hover, bar)
    _add_numbers(figure, palette, places, values, is_best, PHONE - left - _RIGHT)
    if tied is not None:
        _add_underlines(figure, places, values, tied & ~is_best)
    _add_frames_and_rules(figure, palette, places, is_best)
    for y, model in places.models:
        add_text(
            figure,
            f"<b>{escape(shorten(model, 46))}</b>",
            palette,
            hovertext=hover_text(model),
            xshift=3 - left,
            y=y,
            yref="y",
            yanchor="middle",
        )
    figure.update_layout(
        barmode="overlay",
        bargap=0,
        xaxis=_task_axis(palette, places, names),
        yaxis=dict(
            domain=domains[0],
            range=[places.height + 0.06, -0.06],  # room for the frame of an outer row
            tickmode="array",
            tickvals=places.down,
            ticktext=[
                _accented("<br>".join(lines), name, theme)
                for lines, name in zip(labels, rows, strict=True)
            ],
            ticks="",
            ticklabelstandoff=4,
            showgrid=False,
            zeroline=False,
            tickfont=dict(size=SMALL, color=palette.text),
            fixedrange=True,
        ),
    )
    note = "colours run within each column" + (f"<br>{legend}" if legend else "")
    add_header(figure, palette, domains[0][1], "Spearman × 100 ↑", note, left, shift=upright)
    finish(figure, palette, height, left=left, right=_RIGHT, bottom=_BOTTOM)
    return figure.update_traces(
        textfont=dict(size=SIZE, shadow="none"), selector=dict(name="numbers")
    )


@dataclass(frozen=True)
class _Places:
    """Where rows and columns of the grid stand, in units of a cell, from its upper left corner."""

    down: np.ndarray  # (K,), middles of the rows
    across: np.ndarray  # (T,), middles of the columns
    models: list[tuple[float, str]]  # middle of the line above a model's rows, and its name
    rules: list[float]  # between single layers and others
    height: float

    @property
    def span(self) -> list[float]:
        """Both ends of the axis of columns."""
        return [self.across[0] - 0.53, self.across[-1] + 0.53]


def _place(rows: Sequence[str], columns: Sequence[str]) -> _Places:
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
    return _Places(np.array(down), across, models, rules, top)


def _grid_arrays(
    values: Any, low: Any, high: Any, tied: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    if (low is None) != (high is None):
        raise ValueError("low and high are the two ends of intervals; only one of them is given")
    specs: dict[str, tuple[Any, ...]] = {"values": (values, "KT", "nan")}
    if low is not None:
        specs |= {"low": (low, "KT", "nan"), "high": (high, "KT", "nan")}
    if tied is not None:
        specs["tied"] = (tied, "KT")
    arrays = dict(zip(specs, checked_arrays(**specs), strict=True))
    missing = np.full_like(arrays["values"], np.nan)
    numbers = [arrays.get(name, missing) for name in ("values", "low", "high")]
    for name, array in zip(("values", "low", "high"), numbers, strict=True):
        check_within(name, array, -100, 100, "correlations × 100,")
    return (*numbers, arrays["tied"].astype(bool) if "tied" in arrays else None)


def _shares(values: np.ndarray) -> np.ndarray:
    """Place of each value between the worst and the best of its column, 0 to 1.  (K, T)"""
    shares = np.full_like(values, np.nan)
    for column, known in enumerate(np.isfinite(values).T):
        if known.any():
            found = values[known, column]
            width = np.ptp(found)
            shares[known, column] = (found - found.min()) / width if width else 1.0
    return shares


def _is_best(values: np.ndarray) -> np.ndarray:
    """Which values print as the best of their column, where there are several.  (K, T)"""
    printed = np.round(np.where(np.isfinite(values), values, -np.inf), 2)
    several = np.isfinite(values).sum(axis=0) > 1
    return np.isfinite(values) & (printed == printed.max(axis=0)) & several


def _grid_hover(
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    tied: np.ndarray | None,
    is_best: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
) -> np.ndarray:
    texts = np.empty(values.shape, dtype=object)
    for row, column in np.ndindex(*values.shape):
        lines = [escape(clean(rows[row])), escape(columns[column]) + ": "]
        if np.isnan(values[row, column]):
            lines[-1] += "no value"
        else:
            lines[-1] += format_interval(values[row, column], low[row, column], high[row, column])
            best = ", ".join(escape(rows[index]) for index in np.flatnonzero(is_best[:, column]))
            if is_best[row, column]:
                lines.append("best of its column")
            elif tied is not None and best:
                worse = "not significantly worse" if tied[row, column] else "significantly worse"
                lines.append(f"{worse} than the best, {best}")
        texts[row, column] = "<br>".join(lines)
    return texts


def _grid_legend(is_best: np.ndarray, tied: np.ndarray | None) -> str:
    if not is_best.any():
        return ""
    return "framed: best" + ("; underlined: not significantly worse" if tied is not None else "")


def _cells(chosen: np.ndarray, places: _Places, width: float, **arguments: Any) -> go.Bar:
    """Build one bar a chosen cell; a cell of the grid is 1 wide and high.  chosen: (K, T)"""
    rows, columns = np.nonzero(chosen)
    return go.Bar(
        x=places.across[columns],
        base=places.down[rows] - 0.5,
        y=np.ones(len(rows)),
        width=width,
        **arguments,
    )


def _add_cells(
    figure: go.Figure,
    palette: Palette,
    places: _Places,
    values: np.ndarray,
    hover: np.ndarray,
    bar: dict[str, Any],
) -> None:
    """Add the coloured cells, and those without a value.  values, hover: (K, T)"""
    known = np.isfinite(values)
    scale = dict(
        color=_shares(values)[known],
        colorscale=STATE_COLORSCALE,
        cmin=0,
        cmax=1,
        colorbar=bar,
        line=dict(color=palette.background, width=1),
    )
    empty = dict(color=CLEAR, line=dict(color=palette.grid, width=1))
    for name, chosen, marker in (("cells", known, scale), ("empty", ~known, empty)):
        if chosen.any():
            figure.add_trace(
                _cells(
                    chosen,
                    places,
                    1.0,
                    marker=marker,
                    hovertext=hover[chosen],
                    customdata=np.argwhere(chosen).tolist(),
                    name=name,
                    **CLICKABLE,
                )
            )


def _add_numbers(
    figure: go.Figure,
    palette: Palette,
    places: _Places,
    values: np.ndarray,
    is_best: np.ndarray,
    narrowest: int,
) -> None:
    """Add the numbers, on bars of no colour; `narrowest` is the grid's width on a phone in pixels.

    Bars, for their numbers shrink with the figure, and hide rather than overlap. plotly keeps 3 px
    free at both sides of a number; bars wider than the cell leave less.
    """
    columns = values.shape[1]
    free = 3 if columns < _PRECISE else 2  # px between two numbers on a phone
    width = 1 + (6 - free) / (narrowest / np.ptp(places.span))
    form = ".2f" if columns <= _PRECISE else ".1f"
    printed = [format_number(value, form) for value in values.flat]
    colors = np.where(np.isfinite(values), ink(STATE_COLORSCALE, _shares(values)), palette.muted)
    figure.add_trace(
        _cells(
            np.ones(values.shape, dtype=bool),
            places,
            width,
            text=[
                colored(f"<b>{text}</b>" if best else text, color)
                for text, color, best in zip(printed, colors.flat, is_best.flat, strict=True)
            ],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            marker=dict(color=CLEAR),
            hoverinfo="skip",
            name="numbers",
            **steady(),
        )
    )


def _add_underlines(
    figure: go.Figure, places: _Places, values: np.ndarray, chosen: np.ndarray
) -> None:
    """Add a short line at the foot of the chosen cells with a value.  values, chosen: (K, T)"""
    rows, columns = np.nonzero(chosen & np.isfinite(values))
    colors = ink(STATE_COLORSCALE, _shares(values))[rows, columns]
    figure.add_trace(
        go.Scatter(
            x=places.across[columns],
            y=places.down[rows] + 0.33,
            mode="markers",
            marker=dict(symbol="line-ew", size=12, line=dict(color=colors.tolist(), width=1.5)),
            hoverinfo="skip",
            name="not significantly worse",
            **steady(),
        )
    )


def _add_frames_and_rules(
    figure: go.Figure, palette: Palette, places: _Places, is_best: np.ndarray
) -> None:
    """Add a frame around every best cell, and the lines beside single layers.  is_best: (K, T)"""
    for row, column in np.argwhere(is_best):
        x, y = places.across[column], places.down[row]
        figure.add_shape(
            type="rect",
            x0=x - 0.5,
            x1=x + 0.5,
            y0=y - 0.5,
            y1=y + 0.5,
            line=dict(color=palette.text, width=2),
            layer="above",
            name="best",
        )
    for y in places.rules:
        figure.add_shape(
            type="line",
            xref="paper",
            x0=0,
            x1=1,
            y0=y,
            y1=y,
            line=dict(color=palette.zero, width=1),
            name="rule",
        )


def _task_axis(palette: Palette, places: _Places, names: Sequence[str]) -> dict[str, Any]:
    """Axis of tasks above the grid, their names upright where there is no room."""
    return dict(
        range=places.span,
        side="top",
        tickmode="array",
        tickvals=places.across,
        ticktext=list(names),
        autotickangles=[0, -90],
        ticks="",
        ticklabelstandoff=3,
        showgrid=False,
        zeroline=False,
        tickfont=dict(size=SMALL, color=palette.text),
        fixedrange=True,
    )


def _accented(text: str, name: str, theme: str) -> str:
    """The safe text of a strategy's name, LWAP's own in its colour."""
    if parse_strategy(name)[0] != "lwap":
        return text
    return colored(f"<b>{text}</b>", ACCENT[theme])
