"""Traces and shapes that several figures draw: matrices, bars, dots, lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.layout import (
    DIGIT,
    LEAST,
    LEFT,
    PHONE,
    RIGHT,
    SIZE,
    SMALL,
    state_axis,
    top_legend,
)
from lwap.figures.placement import spread_apart
from lwap.figures.style import CLEAR, Palette, ink, strategy_color, strategy_marker
from lwap.figures.texts import abbreviate, colored, escape, format_number, format_tiny
from lwap.names import state_names


def steady(text_color: str = "#000") -> dict[str, Any]:
    """Arguments of a trace that does not fade when points of the figure are selected.

    `text_color` is that of its texts, where these have no colours of their own.
    """
    marker = dict(opacity=1)
    return dict(
        selected=dict(marker=marker),
        unselected=dict(marker=marker, textfont=dict(color=text_color)),
    )


# Points that are clicked: their own text as hover, and no other point fades.
CLICKABLE: dict[str, Any] = dict(hovertemplate="%{hovertext}<extra></extra>", **steady())


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    hover: str,
    axis: str = "",
    ygap: int = 1,
    form: str | None = ".2f",
    scale: tuple[Any, float, float] | None = None,
    **arguments: Any,
) -> go.Heatmap:
    """Build a heatmap with the names of its rows and columns in the hover.

    `columns` are the hidden states if None. `scale` is a colour scale and its two ends; without
    it, as with `form` None, no numbers are printed into the cells.
    """
    names = np.empty((*values.shape, 2), dtype=object)
    names[:, :, 0] = np.array(rows, dtype=object)[:, None]
    names[:, :, 1] = state_names(values.shape[1]) if columns is None else columns
    if scale is not None:
        colors, low, high = scale
        arguments |= dict(colorscale=colors, zmin=low, zmax=high)
        if form is not None:
            arguments |= _cell_text(values, form, colors, low, high)
    return go.Heatmap(
        z=values,
        xaxis=f"x{axis}",
        yaxis=f"y{axis}",
        xgap=1,
        ygap=ygap,
        customdata=names,
        hovertemplate=f"{hover}<extra></extra>",
        hoverongaps=False,
        **arguments,
    )


def _cell_text(
    values: np.ndarray, form: str, scale: Any, low: float, high: float
) -> dict[str, Any]:
    """Arguments that print the numbers of a heatmap into its cells, where a phone has room.

    Numbers are black or white, whichever stands out more from its cell: at least 4.5:1.
    """
    columns = values.shape[1]
    if columns > 13:
        return {}
    room = (PHONE - LEFT - RIGHT) / columns - 4
    texts = [[format_number(value, form, missing="") for value in row] for row in values]
    for brief in (False, True):
        if brief:
            texts = [[abbreviate(text) for text in row] for row in texts]
        longest = max(len(text) for row in texts for text in row)
        size = min(SIZE, int(room / (DIGIT * max(longest, 1))))
        if size >= LEAST:
            break
    if size < LEAST:
        return {}
    colors = ink(scale, (values - low) / (high - low))
    texts = [
        [colored(text, color) for text, color in zip(row, row_colors, strict=True)]
        for row, row_colors in zip(texts, colors, strict=True)
    ]
    return dict(text=texts, texttemplate="%{text}", textfont=dict(size=size))


def add_state_bars(
    figure: go.Figure,
    values: np.ndarray,
    color: str | list[str],
    *,
    axis: str = "",
    decimals: int,
    signed: bool = False,
    spread: np.ndarray | None = None,
    line: str | None = None,
) -> None:
    """Add one bar a hidden state, from zero, with its number beyond its end.  values: (S,)

    With a `spread`, error bars in the colour `line` stand on the bars and the numbers above them.
    """
    sign = "+" if signed else ""
    known = np.abs(values[np.isfinite(values)])
    # Where every number would print as 0.000, print its size.
    is_tiny = 0 < known.max(initial=0) < 5 * 10.0**-decimals
    precision = "%{y:" + sign + (".2e}" if is_tiny else ".3f}")
    if is_tiny:
        texts = [format_tiny(value, signed) for value in values]
    else:
        texts = [format_number(value, f"{sign}.{decimals}f") for value in values]
    if signed and not is_tiny:  # as wide as the others, so that all are shown or none
        texts = [text if text[0] in "+−–" else f"±{text}" for text in texts]
    bar = 0.8 * (PHONE - LEFT - RIGHT) / len(values)
    if max(map(len, texts)) * DIGIT * LEAST > bar:
        texts = [abbreviate(text) for text in texts]
    common = dict(x=np.arange(len(values)), xaxis=f"x{axis}", yaxis=f"y{axis}", cliponaxis=False)
    numbers = dict(text=texts, textposition="outside", textangle=0)
    bars = go.Bar(
        **common,
        y=values,
        marker=dict(color=color),
        customdata=state_names(len(values)),
        hovertemplate=f"%{{customdata}}: <b>{precision}</b><extra></extra>",
        name="states",
    )
    figure.add_trace(bars)
    if spread is None:
        figure.data[-1].update(numbers)
        return
    figure.data[-1].update(
        error_y=dict(type="data", array=spread, color=line, thickness=1.2, width=3),
        hovertemplate="%{customdata}: <b>%{y:.3f}</b> ± %{error_y.array:.3f}<extra></extra>",
    )
    # A second bar, of no colour and up to the end of the error bar, carries the number.
    clear = dict(color=CLEAR)
    figure.add_trace(
        go.Bar(**common, **numbers, y=values + spread, marker=clear, hoverinfo="skip", name="top")
    )
    figure.update_layout(barmode="overlay")


def add_uniform_line(figure: go.Figure, uniform: float, palette: Palette) -> None:
    """Add the dotted line that the weights would reach if all states had the same, 1/S."""
    figure.add_shape(
        type="line",
        xref="paper",
        x0=0,
        x1=1,
        yref="y",
        y0=uniform,
        y1=uniform,
        line=dict(color=palette.muted, width=1, dash="dot"),
        opacity=0.7,  # numbers of bars that end near it stay readable
        layer="below",
        name="uniform",
    )


def row_dots(
    name: str, scores: np.ndarray, hover: Sequence[str], form: str, marker: dict[str, Any]
) -> go.Scatter:
    """Build one dot a row; `customdata` is the row, no dot fades on selection.  scores: (P,)"""
    rows = np.arange(len(scores))
    return go.Scatter(
        x=scores,
        y=rows,
        mode="markers",
        marker=marker,
        selected=dict(marker=dict(opacity=1)),
        unselected=dict(marker=dict(opacity=1)),
        customdata=rows,
        text=hover,
        hovertext=[format_number(score, form) for score in scores],
        hovertemplate="%{text}<br>%{fullData.name}: <b>%{hovertext}</b><extra></extra>",
        name=name,
    )


def state_line(
    values: np.ndarray,
    strategy: str,
    name: str,
    theme: str,
    *,
    form: str,
    notes: Sequence[str] | None = None,
) -> go.Scatter:
    """Build a line over the hidden states; `notes`, one a state, follow the value.  values: (S,)"""
    note = " %{text}" if notes is not None else ""
    return go.Scatter(
        x=np.arange(len(values)),
        y=values,
        mode="lines+markers",
        line=dict(color=strategy_color(strategy, theme), width=2),
        marker=strategy_marker(strategy, theme, size=7),
        text=notes,
        customdata=state_names(len(values)),
        hovertemplate=(
            f"%{{fullData.name}}, %{{customdata}}: <b>%{{y:{form}}}</b>{note}<extra></extra>"
        ),
        name=escape(name),
    )


def add_states_and_edge(
    figure: go.Figure,
    palette: Palette,
    states: int,
    names: Mapping[str, Sequence[str]],
    values: np.ndarray,
    span: Sequence[float],
    body: int,
    theme: str,
    form: str,
) -> int:
    """Add the axis of hidden states, a legend, and strategies as marks at the right edge.

    `names` has the safe lines of each strategy's label, `span` is the range of the values' axis
    and `body` its height in pixels. Returns the right margin that the labels need.  values: (K,)
    """
    slot = states - 1 + max(0.7, 0.09 * states)  # where the strategies stand
    per_pixel = (span[1] - span[0]) / body
    heights = np.array([3 + 13 * len(lines) for lines in names.values()]) * per_pixel
    shown = spread_apart(values, heights, span)
    for strategy, value, beside in zip(names, values, shown, strict=True):
        color = strategy_color(strategy, theme)
        edge = dict(color=color, width=3)
        figure.add_trace(
            go.Scatter(
                x=[slot],
                y=[value],
                mode="markers",
                marker=dict(symbol="line-ew", size=11, color=color, line=edge),
                cliponaxis=False,
                hovertemplate=f"%{{fullData.name}}: <b>%{{y:{form}}}</b><extra></extra>",
                showlegend=False,
                name=escape(strategy),
            )
        )
        figure.add_annotation(
            text="<br>".join(names[strategy]),
            x=slot,
            y=value,
            xshift=9,
            ax=24,
            ay=(value - beside) / per_pixel,
            xanchor="left",
            align="left",
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=color,
            borderpad=1,
            font=dict(size=SMALL, color=palette.text),
        )
    axis = state_axis(palette, states, anchor="y", title="hidden state", most=6 if names else 9)
    if names:
        figure.add_vline(x=(states - 1 + slot) / 2, line=dict(color=palette.grid, width=1))
        axis["range"] = [-0.4, slot + 0.25]
    else:
        axis["range"] = [-0.4, states - 0.6]
    figure.update_layout(xaxis=axis, showlegend=True, legend=top_legend(palette))
    if not names:
        return RIGHT
    return int(40 + 6.9 * max(len(line) for lines in names.values() for line in lines))


def range_lines(values: np.ndarray, palette: Palette) -> go.Scatter:
    """Build one thin line a row from its lowest to its highest value.  values: (P, K)"""
    x: list[float | None] = []
    y: list[float | None] = []
    for row, scores in enumerate(values):
        known = scores[np.isfinite(scores)]
        if known.size:
            x += [float(known.min()), float(known.max()), None]
            y += [row, row, None]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line=dict(color=palette.zero, width=1.5),
        hoverinfo="skip",
        showlegend=False,
        name="range",
    )
