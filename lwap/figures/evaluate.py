"""Figures of an evaluation: scores by layer, by slice of the pairs, and against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import score_axis
from lwap.figures.charts import beside_row, dot_panel
from lwap.figures.checks import (
    check_intervals,
    check_within,
    checked_arrays,
    checked_estimates,
    checked_texts,
)
from lwap.figures.curves import Curve, curve_axis, curve_margin, curve_panel
from lwap.figures.labels import legend_height
from lwap.figures.marks import across, dots, segments, upright
from lwap.figures.panels import compose
from lwap.figures.style import (
    MODEL,
    Palette,
    first_token,
    palette_of,
    strategy_color,
    strategy_marker,
)
from lwap.figures.template import LEFT, SMALL, TICKS, halo
from lwap.figures.texts import (
    clean,
    colored,
    count_columns,
    escape,
    format_interval,
    format_number,
    shorten,
    wrap,
)
from lwap.names import state_name

_SIGNIFICANT = 0.05  # p-values below it
_SCORES = (-100, 100), "correlations × 100,"
_DIFFERENCES = (-200, 200), "differences of correlations × 100,"
_ROW_HEAD = 24  # px, above the marks of a slice


def layer_curve(
    cls: Any,
    mean: Any,
    *,
    cls_interval: tuple[Any, Any] | None = None,
    mean_interval: tuple[Any, Any] | None = None,
    references: Mapping[str, float] | None = None,
    cls_name: str = "CLS",
    y_title: str = "Spearman × 100 ↑",
    theme: str = "light",
) -> go.Figure:
    """Draw a score layer by layer, with the strategies' scores at the right.

    Args:
        cls: (S,), score of the CLS vectors of each hidden state; NaN leaves a gap.
        mean: (S,), score of the mean vectors of each hidden state; NaN leaves a gap.
        cls_interval: two arrays (S,), lower and upper ends of the intervals of `cls`, drawn as a
            band.
        mean_interval: the same of `mean`.
        references: strategy name → its score on the same scale, NaN where unknown.
        cls_name: what the first line is; "last token" for causal decoders, which has the colour
            of that strategy.
        y_title: what the scores are, with their better direction.

    Raises:
        ValueError: an interval is upside down.
    """
    palette = palette_of(theme)
    cls, mean = checked_arrays(cls=(cls, "S", "nan"), mean=(mean, "S", "nan"))
    references = dict(references or {})
    (marks,) = checked_arrays(references=(list(references.values()), "K", "nan", "empty"))
    known = {name: mark for name, mark in zip(references, marks, strict=True) if mark == mark}
    curves = [
        Curve(cls, first_token(cls_name), cls_name, *_ends("cls", cls, cls_interval)),
        Curve(mean, "mean", "mean", *_ends("mean", mean, mean_interval)),
    ]
    place = dict(xref="x domain", x=0, xshift=3 - LEFT, yref="y domain", y=1, yshift=32)
    title = dict(text=f"<b>{escape(y_title)}</b>") | place
    panel = curve_panel(curves, known, palette, form=".2f", header=0)
    panel = replace(panel, annotations=[*panel.annotations, title])
    margin = dict(r=curve_margin(known), t=54)
    return compose([panel], curve_axis(len(cls), known), palette, margin=margin, showlegend=True)


def _ends(
    name: str, values: np.ndarray, interval: tuple[Any, Any] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the intervals of a line; all NaN if there are none.  values: (S,)"""
    if interval is None:
        return np.full_like(values, np.nan), np.full_like(values, np.nan)
    low, high = f"low of {name}", f"high of {name}"
    ends = {low: (interval[0], "S", "nan"), high: (interval[1], "S", "nan")}
    _, low, high = checked_arrays(**{name: (values, "S", "nan")}, **ends)
    check_intervals([f"{name}, {state_name(i)}" for i in range(len(values))], low, high)
    return low, high


def slice_strip(
    names: Sequence[str],
    slices: Sequence[str],
    values: Any,
    low: Any,
    high: Any,
    counts: Any,
    *,
    theme: str = "light",
) -> go.Figure:
    """Draw the Spearman correlation of every strategy on parts of the pairs, with intervals.

    One row a slice with its number of pairs, in it one mark a strategy. `customdata` of every
    mark is [strategy, slice].

    Args:
        names: K strategy names, each alone or as "model · strategy".
        slices: M names of slices, the first on top.
        values: (K, M), correlations × 100; NaN where a slice has too few pairs.
        low, high: (K, M), ends of the intervals.
        counts: (M,), number of pairs in each slice.

    Raises:
        ValueError: a number is outside −100 to 100 or an interval is upside down.
    """
    palette = palette_of(theme)
    values, low, high, counts = checked_estimates(
        "KM", (values, low, high), *_SCORES, counts=(counts, "M")
    )
    strategies, parts = values.shape
    names = list(map(clean, checked_texts("names", names, strategies)))
    slices = checked_texts("slices", slices, parts)
    check_intervals([f"{name} on {part}" for name in names for part in slices], low, high)
    lane = 14 if strategies <= 4 else 11
    row = _ROW_HEAD + strategies * lane + 8
    lanes = _ROW_HEAD + lane * (np.arange(strategies)[:, None] + 0.5)
    at = np.arange(parts) - 0.5 + lanes / row  # (K, M)

    traces = []
    for index, name in enumerate(names):
        safe, color = escape(name), strategy_color(name, theme)
        marker = strategy_marker(name, palette, size=10)
        if name.rpartition(MODEL)[0] != names[0].rpartition(MODEL)[0]:
            marker["symbol"] += "-dot"  # the same strategy of another model
        numbers = zip(slices, values[index], low[index], high[index], strict=True)
        hover = [
            f"{escape(clean(part))}<br>{safe}: {format_interval(*one)}" for part, *one in numbers
        ]
        data = [[index, part] for part in range(parts)]
        traces.append(segments(low[index], high[index], at[index], color, name=f"{safe} interval"))
        traces.append(dots(values[index], at[index], marker, hover, data, name=safe))
    labels = [
        f"{shorten(part, 36)} · {format_number(count, ',.0f')} {'pair' if count == 1 else 'pairs'}"
        for part, count in zip(slices, counts, strict=True)
    ]
    lines = [across(part - 0.5, palette.grid, name="row") for part in range(1, parts)]
    notes = _missing(names, values, at, palette)
    panel = dot_panel(labels, palette, traces, row, annotations=notes, shapes=lines)
    x_axis = score_axis([values, low, high], "Spearman × 100 (higher is better →)")
    return compose([panel], x_axis, palette, margin=dict(l=4), legend=legend_height(names))


def _missing(
    names: Sequence[str], values: np.ndarray, at: np.ndarray, palette: Palette
) -> list[dict[str, Any]]:
    """Annotations where a slice has too few pairs, one for a whole slice.  values, at: (K, M)"""
    notes = []
    for part, is_missing in enumerate(np.isnan(values).T):
        for index in [0] if is_missing.all() else np.flatnonzero(is_missing).tolist():
            whose = "" if is_missing.all() else f"{escape(shorten(names[index], 30))}: "
            text = colored(f"{whose}too few pairs", palette.muted)
            place = dict(x=0, xref="x domain", xshift=4, y=at[index, part], yanchor="middle")
            notes.append(dict(text=text, font_size=10) | place)
    return notes


def difference_strip(
    names: Sequence[str],
    values: Any,
    low: Any,
    high: Any,
    p_values: Any,
    *,
    baseline: str,
    theme: str = "light",
) -> go.Figure:
    """Draw how far strategies are from a baseline, with intervals, in the given order.

    A difference with p < 0.05 is a solid mark, any other a hollow one. `customdata` of every mark
    is [its index].

    Args:
        names: K strategy names, each alone or as "model · strategy".
        values: (K,), differences of correlations × 100, strategy minus baseline; NaN where not
            defined.
        low, high: (K,), ends of the intervals.
        p_values: (K,), of the differences; NaN counts as not significant.
        baseline: what the strategies are compared with.

    Raises:
        ValueError: a number is outside −200 to 200, a p-value outside 0 to 1 or an interval is
            upside down.
    """
    palette = palette_of(theme)
    values, low, high, p_values = checked_estimates(
        "K", (values, low, high), *_DIFFERENCES, p_values=(p_values, "K", "nan")
    )
    check_within("p_values", p_values, 0, 1, "probabilities")
    names = list(map(clean, checked_texts("names", names, len(values))))
    check_intervals(names, low, high)

    # On a phone the numbers stand beside short names, but below long ones.
    is_below = max(map(count_columns, names)) > 20
    row_height, shift = (64, 0.25) if is_below else (50, 0.0)
    place = dict(x=0, xanchor="left", xshift=4, yshift=-27) if is_below else {}
    font = dict(size=SMALL, shadow=halo(palette))
    traces, notes = [], []
    for row, name in enumerate(names):
        color, at = strategy_color(name, theme), np.array([row + shift])
        printed = format_interval(values[row], low[row], high[row], "+.2f") + _chance(p_values[row])
        fill = color if p_values[row] < _SIGNIFICANT else palette.background
        marker = dict(size=11, color=fill, line=dict(color=color, width=2))
        hover = [f"{escape(name)} − {escape(clean(baseline))}<br>{printed}"]
        interval = segments(low[[row]], high[[row]], at, color, name=f"{escape(name)} interval")
        traces += [interval, dots(values[[row]], at, marker, hover, [[row]], name=escape(name))]
        notes.append(beside_row(printed, row, font=font) | place)
    key = f"● p &lt; {_SIGNIFICANT}   ○ not significant"
    zero = upright(0, palette.zero, line_width=1.5)
    panel = dot_panel(
        names, palette, traces, row_height, note=key, header=24, annotations=notes, shapes=[zero]
    )
    lines = wrap(f"Δ Spearman × 100 to {baseline} (higher is better →)", 46, most=3)
    x_axis = score_axis([*values, *low, *high, 0.0], "<br>".join(map(escape, lines)))
    x_axis |= dict(tickformat="+")
    margin = dict(l=4, b=TICKS + 16 * (len(lines) - 1))
    return compose([panel], x_axis, palette, margin=margin)


def _chance(p_value: float) -> str:
    """How a p-value is printed behind a difference; nothing if there is none."""
    if np.isnan(p_value):
        return ""
    return "  p &lt; 0.001" if p_value < 0.001 else f"  p = {format_number(p_value, '.3f')}"
