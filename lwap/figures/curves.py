"""A panel of lines over the hidden states, with the strategies as marks at its right edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis, free_axis, padded, state_axis
from lwap.figures.labels import LINE, strategy_lines
from lwap.figures.marks import upright
from lwap.figures.panels import Panel
from lwap.figures.placement import spread_apart
from lwap.figures.style import Palette, strategy_color, strategy_marker, translucent
from lwap.figures.template import RIGHT, SMALL
from lwap.figures.texts import escape, format_number
from lwap.names import state_names

_HOVER = "%{{fullData.name}}, %{{customdata}}: <b>%{{y:{}}}</b>{}<extra></extra>"
_COLUMNS = 18  # characters of a line of a strategy's name


@dataclass(frozen=True)
class Curve:
    """A line over the hidden states."""

    values: np.ndarray  # (S,); NaN leaves a gap
    strategy: str  # whose colour and symbol the line has
    name: str
    low: np.ndarray | None = None  # (S,), of the intervals, NaN where there is none
    high: np.ndarray | None = None  # (S,)


def curve_panel(
    curves: Sequence[Curve],
    references: Mapping[str, float],
    palette: Palette,
    *,
    form: str,
    share: float = 0.08,
    zero: bool = False,
    least: int = 260,
    **panel: Any,
) -> Panel:
    """Build a panel of curves with the strategies' values at its right edge.

    Args:
        curves: The lines.
        references: Strategy name → its value; one that is NaN has no mark.
        palette: Of the theme.
        form: Format of the values on hover.
        share: Of the height, above and below the values.
        zero: Whether zero belongs to the axis.
        least: Pixels of the plot that many names make taller.
        panel: What else the panel has; its body is at least `least` if not given.
    """
    known = {name: float(value) for name, value in references.items() if not np.isnan(value)}
    bands = [curve for curve in curves if curve.low is not None]
    everything = [curve.values for curve in curves] + [[*known.values()], [0.0] if zero else []]
    everything += [ends for curve in bands for ends in (curve.low, curve.high) if ends is not None]
    span = padded(np.concatenate(everything), share)
    body = panel.pop("body", None) or max(least, 20 + names_height(known))
    states = len(curves[0].values)
    traces = [_band(curve, palette) for curve in bands]
    traces += [_line(curve, palette, form) for curve in curves]
    traces += [_edge_mark(*mark, states, palette, form) for mark in known.items()]
    return Panel(
        body,
        traces,
        free_axis(span) | dict(zeroline=zero) | panel.pop("y_axis", {}),
        annotations=_edge_names(known, states, palette, span, body),
        shapes=[upright((states - 1 + _slot(states)) / 2, palette.grid)] if known else [],
        **panel,
    )


def names_height(names: Sequence[str] | Mapping[str, Any], gap: int = 4) -> int:
    """Pixels of these strategies' names below each other."""
    return sum(gap + LINE * len(strategy_lines(name, _COLUMNS)) for name in names)


def curve_axis(states: int, names: Sequence[str] | Mapping[str, Any]) -> Axis:
    """Axis of hidden states with room for the marks of strategies, if there are any."""
    end = _slot(states) + 0.25 if names else states - 0.6
    return state_axis(states, "hidden state", most=6 if names else 9) | dict(range=[-0.4, end])


def curve_margin(names: Sequence[str] | Mapping[str, Any]) -> int:
    """Right margin in pixels that the names of these strategies need."""
    lines = [line for name in names for line in strategy_lines(name, _COLUMNS)]
    return int(40 + 6.9 * max(map(len, lines))) if lines else RIGHT


def _slot(states: int) -> float:
    """Where on the axis of states the strategies stand."""
    return states - 1 + max(0.7, 0.09 * states)


def _line(curve: Curve, palette: Palette, form: str) -> go.Scatter:
    notes, note = None, ""
    if curve.low is not None and curve.high is not None:
        ends = np.stack([curve.low, curve.high], axis=1)
        printed = [[format_number(end, form, missing="") for end in pair] for pair in ends]
        notes, note = [f"[{low}, {high}]" if low else "" for low, high in printed], " %{text}"
    return go.Scatter(
        x=np.arange(len(curve.values)),
        y=curve.values,
        mode="lines+markers",
        line=dict(color=strategy_color(curve.strategy, palette.theme), width=2),
        marker=strategy_marker(curve.strategy, palette, size=7),
        text=notes,
        customdata=state_names(len(curve.values)),
        hovertemplate=_HOVER.format(form, note),
        name=escape(curve.name),
    )


def _band(curve: Curve, palette: Palette) -> go.Scatter:
    """Build one translucent area a run of states with intervals."""
    assert curve.low is not None and curve.high is not None  # of a curve with intervals
    outline: list[tuple[float | None, float | None]] = []
    known = np.flatnonzero(np.isfinite(curve.low) & np.isfinite(curve.high))
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        # One state alone gets an area of some width.
        states = run if run.size > 1 else [state + room for state in run for room in (-0.12, 0.12)]
        low, high = (np.broadcast_to(ends[run], len(states)) for ends in (curve.low, curve.high))
        outline += [*zip(states, low, strict=True), *zip(states[::-1], high[::-1], strict=True)]
        outline += [(None, None)] * bool(run.size)
    color = translucent(strategy_color(curve.strategy, palette.theme), 0.2)
    x, y = zip(*outline, strict=True) if outline else ((), ())
    area = dict(mode="lines", line_width=0, fill="toself", fillcolor=color, hoverinfo="skip")
    return go.Scatter(x=x, y=y, showlegend=False, name=f"{escape(curve.name)} interval", **area)


def _edge_mark(strategy: str, value: float, states: int, palette: Palette, form: str) -> go.Scatter:
    color = strategy_color(strategy, palette.theme)
    return go.Scatter(
        x=[_slot(states)],
        y=[value],
        mode="markers",
        marker=dict(symbol="line-ew", size=11, color=color, line=dict(color=color, width=3)),
        cliponaxis=False,
        hovertemplate=f"%{{fullData.name}}: <b>%{{y:{form}}}</b><extra></extra>",
        showlegend=False,
        name=escape(strategy),
    )


def _edge_names(
    references: Mapping[str, float], states: int, palette: Palette, span: Sequence[float], body: int
) -> list[dict[str, Any]]:
    """Names of the strategies beside their marks, moved so that none overlaps."""
    lines = [strategy_lines(name, _COLUMNS) for name in references]
    values = np.array([*references.values()])
    per_pixel = (span[1] - span[0]) / body
    heights = np.array([3 + LINE * len(found) for found in lines]) * per_pixel
    shifts = (values - spread_apart(values, heights, span)) / per_pixel
    common = dict(x=_slot(states), xshift=9, ax=24, yanchor="middle", showarrow=True, borderpad=1)
    notes = []
    for name, text, value, shift in zip(references, lines, values, shifts, strict=True):
        color = strategy_color(name, palette.theme)
        place = dict(y=value, ay=shift, arrowcolor=color, font_size=SMALL)
        notes.append(dict(text="<br>".join(text)) | common | place)
    return notes
