"""Marks that several figures draw: matrices, bars, dots, lines and areas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis
from lwap.figures.panels import color_bar
from lwap.figures.style import STATE_COLORSCALE, Palette, ink
from lwap.figures.template import DIGIT, LEAST, LEFT, PHONE, RIGHT, SIZE
from lwap.figures.texts import abbreviate, colored, format_number, format_tiny
from lwap.names import state_names

ROOM = PHONE - LEFT - RIGHT  # px, width of a plot on a phone

# A mark that says its own text on hover.
OWN_HOVER: dict[str, Any] = dict(hovertemplate="%{hovertext}<extra></extra>")


def cell_height(rows: int) -> int:
    """Pixels of a heatmap's row: enough for a number up to 13 rows, for a tick label beyond."""
    return 34 if rows == 1 else 28 if rows <= 9 else 24 if rows <= 13 else 16


# --- matrices ------------------------------------------------------------------------------------


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    ends: Sequence[float] = (),
    colors: Any = STATE_COLORSCALE,
    form: str = ".2f",
    has_numbers: bool = True,
    **arguments: Any,
) -> go.Heatmap:
    """Build a heatmap with the safe names of its rows and columns as custom data.

    `columns` are the hidden states if None. `ends` are those of the colour scale, with what stands
    between them on its bar; without them there is neither a scale nor a number in the cells. Nor
    are there numbers where a phone has no room for them.  values: (R, C)
    """
    columns = state_names(values.shape[1]) if columns is None else columns
    names = np.array([[(row, column) for column in columns] for row in rows], dtype=object)
    arguments["hovertemplate"] += "<extra></extra>"
    if ends:
        low, high = ends[0], ends[-1]
        bar = color_bar(ends, form.lstrip("+"))
        arguments |= dict(colorscale=colors, zmin=low, zmax=high, colorbar=bar)
        if has_numbers:
            arguments |= _cell_text(values, form, colors, low, high)
    return go.Heatmap(z=values, customdata=names, **arguments)


def _cell_text(
    values: np.ndarray, form: str, scale: Any, low: float, high: float
) -> dict[str, Any]:
    """Arguments that print numbers into the cells, black or white by their contrast: 4.5:1."""
    if values.shape[1] > 13:
        return {}
    full = [[format_number(value, form, missing="") for value in row] for row in values]
    for texts in (full, [list(map(abbreviate, row)) for row in full]):
        longest = max(len(text) for row in texts for text in row) or 1
        size = min(SIZE, int((ROOM / values.shape[1] - 4) / (DIGIT * longest)))
        if size >= LEAST:
            inks = ink(scale, (values - low) / (high - low))
            texts = [list(map(colored, *row)) for row in zip(texts, inks, strict=True)]
            return dict(text=texts, texttemplate="%{text}", textfont=dict(size=size))
    return {}


# --- bars ----------------------------------------------------------------------------------------


def state_bars(
    values: np.ndarray,
    color: str | list[str],
    *,
    decimals: int = 2,
    signed: bool = False,
    hover: str = "",
    **arguments: Any,
) -> go.Bar:
    """Build one bar a hidden state, from zero, with its number beyond its end.

    Where all numbers would print as zero, their size is printed; if they are `signed`, those above
    zero have a sign. `hover` is a template that stands above the state's name.  values: (S,)
    """
    sign = "+" if signed else ""
    is_tiny = 0 < np.abs(values[np.isfinite(values)]).max(initial=0) < 5 * 10.0**-decimals
    precision = "%{y:" + sign + (".2e}" if is_tiny else ".3f}")
    if is_tiny:
        texts = [format_tiny(value, signed) for value in values]
    else:
        texts = [format_number(value, f"{sign}.{decimals}f") for value in values]
    if signed and not is_tiny:  # as wide as the others, so that all are shown or none
        texts = [text if text[0] in "+−–" else f"±{text}" for text in texts]
    if max(map(len, texts)) * DIGIT * LEAST > 0.8 * ROOM / len(values):
        texts = list(map(abbreviate, texts))
    return go.Bar(
        x=np.arange(len(values)),
        y=values,
        marker=dict(color=color),
        cliponaxis=False,
        text=texts,
        textposition="outside",
        textangle=0,
        customdata=state_names(len(values)),
        hovertemplate=f"{hover}%{{customdata}}: <b>{precision}</b><extra></extra>",
        **dict(name="states") | arguments,
    )


# --- dots and lines ------------------------------------------------------------------------------


def segments(
    start: np.ndarray, end: np.ndarray, rows: Any, color: str, width: float = 2, **arguments: Any
) -> go.Scatter:
    """Build one horizontal line a row whose two ends are known.  start, end: (N,)"""
    known = np.isfinite(start) & np.isfinite(end)
    gap = np.full(len(start), np.nan)
    return go.Scatter(
        x=np.stack([start, end, gap], axis=1)[known].ravel(),
        y=np.stack([rows, rows, gap], axis=1)[known].ravel(),
        mode="lines",
        line=dict(color=color, width=width),
        hoverinfo="skip",
        **dict(showlegend=False) | arguments,
    )


def dots(
    x: Any, y: Any, marker: Any, hover: Sequence[str] | None, data: Any, **arguments: Any
) -> go.Scatter:
    """Build dots that can be clicked, each with its own safe hover text and custom data."""
    own = dict(hovertext=hover, customdata=data) | OWN_HOVER
    return go.Scatter(x=x, y=y, mode="markers", marker=marker, **own | arguments)


# --- shapes --------------------------------------------------------------------------------------


def across(y: float, color: str, **arguments: Any) -> Axis:
    """Shape: a horizontal line through a panel."""
    return dict(x0=0, x1=1, xref="x domain", y0=y, y1=y, line_color=color) | arguments


def upright(x: float, color: str, **arguments: Any) -> Axis:
    """Shape: a vertical line through a panel."""
    return dict(x0=x, x1=x, y0=0, y1=1, yref="y domain", line_color=color) | arguments


def uniform_line(states: int, palette: Palette) -> Axis:
    """Shape: the dotted line that weights would reach if all states had the same, 1/S."""
    look = dict(line_dash="dot", opacity=0.7)  # numbers of bars that end near it stay readable
    return across(1 / states, palette.muted, name="uniform", **look)


def row_band(row: int | None, palette: Palette) -> list[Axis]:
    """Shapes: the area behind a chosen row, none if it is None."""
    if row is None:
        return []
    area = dict(type="rect", xref="x domain", x0=0, x1=1, y0=row - 0.5, y1=row + 0.5)
    return [area | dict(line_width=0, fillcolor=palette.band, name="selected")]
