"""Figures of an evaluation: scores by layer, by slice of the pairs, and against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import check_intervals, check_within, checked_arrays, checked_texts
from lwap.figures.layout import (
    LEFT,
    SMALL,
    TICKS,
    add_header,
    add_text,
    count_legend_lines,
    finish,
    free_axis,
    halo,
    padded,
    score_axis,
    sentence_axis,
    stack,
    strategy_lines,
    top_legend,
)
from lwap.figures.marks import CLICKABLE, add_states_and_edge, state_line
from lwap.figures.style import (
    MODEL,
    Palette,
    first_token,
    palette_of,
    strategy_color,
    strategy_marker,
    translucent,
)
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


def layer_curve(
    cls: Any,
    mean: Any,
    *,
    cls_low: Any = None,
    cls_high: Any = None,
    mean_low: Any = None,
    mean_high: Any = None,
    references: Mapping[str, float] | None = None,
    cls_name: str = "CLS",
    y_title: str = "Spearman × 100 ↑",
    theme: str = "light",
) -> go.Figure:
    """Draw a score layer by layer, with the strategies' scores at the right.

    Args:
        cls: (S,), score of the CLS vectors of each hidden state; NaN leaves a gap.
        mean: (S,), score of the mean vectors of each hidden state; NaN leaves a gap.
        cls_low: (S,), lower ends of the intervals of `cls`, drawn as a band.
        cls_high: (S,), upper ends; given if `cls_low` is.
        mean_low: (S,), lower ends of the intervals of `mean`.
        mean_high: (S,), upper ends; given if `mean_low` is.
        references: strategy name → its score on the same scale, NaN where unknown.
        cls_name: what the first line is; "last token" for causal decoders, which has the colour
            of that strategy.
        y_title: what the scores are, with their better direction.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is infinite, an interval is upside down or has one
            end, a name is no strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
    cls, mean = checked_arrays(cls=(cls, "S", "nan"), mean=(mean, "S", "nan"))
    cls_band = _band("cls", cls, cls_low, cls_high)
    mean_band = _band("mean", mean, mean_low, mean_high)
    references = dict(references or {})
    (marks,) = checked_arrays(references=(list(references.values()), "K", "nan", "empty"))
    names = {
        name: strategy_lines(name, 18)
        for name, value in zip(references, marks, strict=True)
        if not np.isnan(value)
    }
    marks = marks[np.isfinite(marks)]
    span = padded(np.concatenate([cls, mean, marks, *cls_band, *mean_band]), 0.08)
    body = max(260, sum(4 + 13 * len(lines) for lines in names.values()) + 20)

    figure = go.Figure()
    lines = (
        (cls, cls_band, first_token(cls_name), cls_name),
        (mean, mean_band, "mean", "mean"),
    )
    for _, band, strategy, name in lines:
        figure.add_trace(_band_area(*band, strategy_color(strategy, theme), escape(name)))
    for values, band, strategy, name in lines:
        notes = [
            "" if np.isnan(low) else f"[{format_number(low, '.2f')}, {format_number(high, '.2f')}]"
            for low, high in zip(*band, strict=True)
        ]
        figure.add_trace(state_line(values, strategy, name, theme, form=".2f", notes=notes))
    right = add_states_and_edge(figure, palette, len(cls), names, marks, span, body, theme, ".2f")
    figure.update_layout(yaxis=free_axis(palette, span, None))
    add_text(figure, f"<b>{escape(y_title)}</b>", palette, xshift=3 - LEFT, y=1, yshift=32)
    return finish(figure, palette, 54 + body + TICKS, right=right, top=54)


def _band(name: str, values: np.ndarray, low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the intervals of a line; all NaN if there are none.  values: (S,)"""
    ends = f"{name}_low", f"{name}_high"
    if (low is None) != (high is None):
        raise ValueError(f"{' and '.join(ends)} are two ends of intervals; only one is given")
    if low is None:
        return np.full_like(values, np.nan), np.full_like(values, np.nan)
    _, low, high = checked_arrays(
        **{name: (values, "S", "nan"), ends[0]: (low, "S", "nan"), ends[1]: (high, "S", "nan")}
    )
    check_intervals([f"{name}, {state_name(i)}" for i in range(len(values))], low, high)
    return low, high


def _band_area(low: np.ndarray, high: np.ndarray, color: str, name: str) -> go.Scatter:
    """Build one translucent area a run of states with intervals.  low, high: (S,)"""
    x: list[float | None] = []
    y: list[float | None] = []
    known = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if not run.size:
            continue
        # One state alone gets an area of some width.
        states = run if run.size > 1 else np.array([run[0] - 0.12, run[0] + 0.12])
        lower, upper = (np.broadcast_to(ends[run], states.shape) for ends in (low, high))
        x += [*states.tolist(), *states[::-1].tolist(), None]
        y += [*lower.tolist(), *upper[::-1].tolist(), None]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line=dict(width=0),
        fill="toself",
        fillcolor=translucent(color, 0.2),
        hoverinfo="skip",
        showlegend=False,
        name=f"{name} interval",
    )


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
        low: (K, M), lower ends of the intervals.
        high: (K, M), upper ends of the intervals.
        counts: (M,), number of pairs in each slice.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a number is outside −100 to 100, an interval is upside down,
            a name is no strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
    values, low, high, counts = checked_arrays(
        values=(values, "KM", "nan"),
        low=(low, "KM", "nan"),
        high=(high, "KM", "nan"),
        counts=(counts, "M"),
    )
    strategies, rows = values.shape
    names = checked_texts("names", names, strategies)
    slices = checked_texts("slices", slices, rows)
    for name, array in (("values", values), ("low", low), ("high", high)):
        check_within(name, array, -100, 100, "correlations × 100,")
    check_intervals(
        [f"{name} on {part}" for name in names for part in slices], low.ravel(), high.ravel()
    )
    lane = 14 if strategies <= 4 else 11
    row = 24 + strategies * lane + 8
    at = (
        np.arange(rows) - 0.5 + (24 + lane * (np.arange(strategies)[:, None] + 0.5)) / row
    )  # (K, M)

    figure = go.Figure()
    models = list(dict.fromkeys(name.rpartition(MODEL)[0] for name in names))
    for index, name in enumerate(names):
        safe = escape(clean(name))
        marker = strategy_marker(name, theme, size=10)
        if name.rpartition(MODEL)[0] != models[0]:
            marker["symbol"] += "-dot"  # the same strategy of another model
        figure.add_trace(_interval_lines(low[index], high[index], at[index], name, theme))
        figure.add_trace(
            go.Scatter(
                x=values[index],
                y=at[index],
                mode="markers",
                marker=marker,
                customdata=[[index, part] for part in range(rows)],
                hovertext=[
                    f"{escape(clean(part))}<br>{safe}: {format_interval(*numbers)}"
                    for part, *numbers in zip(
                        slices, values[index], low[index], high[index], strict=True
                    )
                ],
                **CLICKABLE,
                name=safe,
            )
        )
    for part in range(rows):
        is_missing = np.isnan(values[:, part])
        for index in np.flatnonzero(is_missing):
            if is_missing.all() and index:
                continue  # said once for the whole slice
            whose = "" if is_missing.all() else f"{escape(shorten(names[index], 30))}: "
            _add_missing(figure, palette, f"{whose}too few pairs", at[index, part])
        if part:
            _add_row_line(figure, palette, part - 0.5)
    labels = [
        f"{shorten(part, 36)} · {format_number(count, ',.0f')} {'pair' if count == 1 else 'pairs'}"
        for part, count in zip(slices, counts, strict=True)
    ]
    title = "Spearman × 100 (higher is better →)"
    figure.update_layout(
        xaxis=score_axis(palette, np.concatenate([values, low, high]), title),
        yaxis=sentence_axis(palette, (0, 1), labels, shift=12, indent=4),
        showlegend=True,
        legend=top_legend(palette),
    )
    legend = 24 * count_legend_lines(names)
    return finish(figure, palette, legend + rows * row + TICKS, left=4, top=4)


def _interval_lines(
    low: np.ndarray, high: np.ndarray, at: np.ndarray, name: str, theme: str
) -> go.Scatter:
    """Build the intervals of one strategy as lines at heights `at`.  low, high, at: (N,)"""
    known = np.isfinite(low) & np.isfinite(high)
    gap = np.full_like(low, np.nan)
    return go.Scatter(
        x=np.stack([low, high, gap], axis=1)[known].ravel(),
        y=np.stack([at, at, gap], axis=1)[known].ravel(),
        mode="lines",
        line=dict(color=strategy_color(name, theme), width=2),
        hoverinfo="skip",
        showlegend=False,
        name=f"{escape(clean(name))} interval",
    )


def _add_missing(figure: go.Figure, palette: Palette, text: str, y: float) -> None:
    muted = colored(text, palette.muted)
    add_text(figure, muted, palette, xshift=4, y=y, yref="y", yanchor="middle", font_size=10)


def _add_row_line(figure: go.Figure, palette: Palette, y: float) -> None:
    figure.add_shape(
        type="line",
        xref="paper",
        x0=0,
        x1=1,
        y0=y,
        y1=y,
        line=dict(color=palette.grid, width=1),
        layer="below",
        name="row",
    )


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
        low: (K,), lower ends of the intervals.
        high: (K,), upper ends of the intervals.
        p_values: (K,), of the differences; NaN counts as not significant.
        baseline: what the strategies are compared with.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a number is outside −200 to 200 or a p-value outside 0 to 1,
            an interval is upside down, a name is no strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
    values, low, high, p_values = checked_arrays(
        values=(values, "K", "nan"),
        low=(low, "K", "nan"),
        high=(high, "K", "nan"),
        p_values=(p_values, "K", "nan"),
    )
    names = checked_texts("names", names, len(values))
    for name, array in (("values", values), ("low", low), ("high", high)):
        check_within(name, array, -200, 200, "differences of correlations × 100,")
    check_within("p_values", p_values, 0, 1, "probabilities")
    check_intervals(names, low, high)

    # On a phone the numbers stand beside short names, but below long ones.
    below = max(count_columns(clean(name)) for name in names) > 20
    row_height, shift = (64, 0.25) if below else (50, 0.0)
    figure = go.Figure()
    for row, name in enumerate(names):
        color = strategy_color(name, theme)
        is_significant = p_values[row] < _SIGNIFICANT
        printed = format_interval(values[row], low[row], high[row], "+.2f")
        chance = _chance(p_values[row])
        here = np.array([row + shift])
        figure.add_trace(_interval_lines(low[[row]], high[[row]], here, name, theme))
        figure.add_trace(
            go.Scatter(
                x=values[[row]],
                y=here,
                mode="markers",
                marker=dict(
                    symbol="circle",
                    size=11,
                    color=color if is_significant else palette.background,
                    line=dict(color=color, width=2),
                    opacity=1,
                ),
                customdata=[[row]],
                hovertext=[
                    f"{escape(clean(name))} − {escape(clean(baseline))}<br>{printed}{chance}"
                ],
                **CLICKABLE,
                name=escape(clean(name)),
            )
        )
        add_text(
            figure,
            printed + chance,
            palette,
            x=0 if below else 1,
            xanchor="left" if below else "right",
            xshift=4 if below else 0,
            y=row - 0.5,
            yref="y",
            yanchor="middle",
            yshift=-27 if below else -11,
            font=dict(size=SMALL, color=palette.text, shadow=halo(palette)),
        )
    figure.add_vline(x=0, line=dict(color=palette.zero, width=1.5), layer="below")
    title = f"Δ Spearman × 100 to {baseline} (higher is better →)"
    lines = wrap(title, 46, most=3)
    axis = score_axis(palette, [*values, *low, *high, 0.0], "<br>".join(map(escape, lines)))
    axis |= dict(tickformat="+", labelalias={"+0": "0"})
    bottom = TICKS + 16 * (len(lines) - 1)
    domains, height = stack([(24, len(names) * row_height)], bottom)
    figure.update_layout(
        xaxis=axis, yaxis=sentence_axis(palette, domains[0], names, shift=11, indent=4)
    )
    key = f"● p < {_SIGNIFICANT}   ○ not significant"
    add_header(figure, palette, domains[0][1], "", escape(key), left=4)
    return finish(figure, palette, height, left=4, bottom=bottom)


def _chance(p_value: float) -> str:
    """How a p-value is printed behind a difference; nothing if there is none."""
    if np.isnan(p_value):
        return ""
    return "  p &lt; 0.001" if p_value < 0.001 else f"  p = {format_number(p_value, '.3f')}"
