"""Figures of sentence pairs: their scores under every strategy, and one pair in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import named_axis, score_axis, state_axis
from lwap.figures.charts import bar_panel, beside_row, brick_panel, dot_panel, weight_panel
from lwap.figures.checks import (
    check_intervals,
    check_row,
    checked_arrays,
    checked_estimates,
    checked_texts,
)
from lwap.figures.curves import Curve, curve_axis, curve_margin, curve_panel
from lwap.figures.labels import legend_height, swatches
from lwap.figures.marks import dots, row_band, segments, state_bars
from lwap.figures.panels import HEADER, compose
from lwap.figures.style import (
    first_token,
    palette_of,
    signed_colors,
    strategy_color,
    strategy_marker,
)
from lwap.figures.template import SMALL
from lwap.figures.texts import axis_label, escape, format_number, hover_text, wrap

_SCORE_HOVER = "%{text}<br>%{fullData.name}: <b>%{hovertext}</b><extra></extra>"


def pair_scores(
    values: Any,
    strategies: Sequence[str],
    labels: Sequence[str],
    *,
    gold: Any = None,
    x_title: str,
    selected: int | None = None,
    value_format: str = ".3f",
    theme: str = "light",
) -> go.Figure:
    """Draw the score of every pair under every strategy: one row a pair, one dot a strategy.

    A thin line joins the lowest and the highest score of a pair: its length is the disagreement.
    Rows come in the given order, the first on top. `customdata` of every dot is the row's index.

    Args:
        values: (P, K), scores on one scale; NaN where a strategy has none.
        strategies: K strategy names.
        labels: P pairs, for instance "first ↔ second"; equal ones keep rows of their own.
        gold: (P,), reference scores on the same scale, NaN where unknown; no marks if None.
        x_title: what the scale is, with its unit.
        selected: index of the row to highlight.
        value_format: Python format of a score in the hover.

    Raises:
        ValueError: `selected` is no row.
    """
    palette = palette_of(theme)
    arrays = {"values": (values, "PK", "nan")}
    if gold is not None:
        arrays["gold"] = (gold, "P", "nan")
    values, *known_gold = checked_arrays(**arrays)
    pairs, count = values.shape
    strategies = checked_texts("strategies", strategies, count)
    labels = checked_texts("labels", labels, pairs)
    check_row("selected", selected, pairs)

    rows, hover = np.arange(pairs), list(map(hover_text, labels))
    edge = dict(color=palette.gold, width=3)
    tick = dict(symbol="line-ns", size=13, color=palette.gold, line=edge)
    marks = [("gold", scores, tick) for scores in known_gold]
    for strategy, scores in zip(strategies, values.T, strict=True):
        marks.append((escape(strategy), scores, strategy_marker(strategy, palette, size=11)))
    low = np.where(np.isnan(values), np.inf, values).min(axis=1)
    high = np.where(np.isnan(values), -np.inf, values).max(axis=1)
    traces = [segments(low, high, rows, palette.zero, 1.5, name="range")]
    for name, scores, marker in marks:
        printed = [format_number(score, value_format) for score in scores]
        dot = dots(scores, rows, marker, printed, rows, text=hover, name=name)
        traces.append(dot.update(hovertemplate=_SCORE_HOVER))
    panel = dot_panel(labels, palette, traces, shapes=row_band(selected, palette))
    x_axis = score_axis(np.column_stack([values, *known_gold]), escape(x_title))
    legend = legend_height([name for name, *_ in marks])
    return compose([panel], x_axis, palette, margin=dict(l=4), legend=legend)


def pair_heatmap(
    values: Any,
    strategies: Sequence[str],
    labels: Sequence[str],
    *,
    value_format: str = ".3f",
    color_title: str,
    theme: str = "light",
) -> go.Figure:
    """Draw the score of every pair under every strategy as a table of colours.

    The colour scale runs from the lowest to the highest value.

    Args:
        values: (P, K), scores on one scale; NaN leaves the cell empty.
        strategies: K strategy names, one a column.
        labels: P pairs; equal ones keep rows of their own.
        value_format: Python format of a score, in the cells and in the hover.
        color_title: what the colour scale is, with its unit.
    """
    palette = palette_of(theme)
    (values,) = checked_arrays(values=(values, "PK", "nan"))
    pairs, count = values.shape
    strategies = list(map(escape, checked_texts("strategies", strategies, count)))
    labels = checked_texts("labels", labels, pairs)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    panel = brick_panel(
        values,
        labels,
        palette,
        "<br>".join(map(escape, wrap(color_title, 26, most=2))),
        header=50,
        columns=strategies,
        ends=(low, high),
        form=value_format,
        hovertemplate=f"%{{customdata[0]}}<br>%{{customdata[1]}}: <b>%{{z:{value_format}}}</b>",
        name=escape(color_title),
    )
    x_axis = named_axis(strategies) | dict(
        autotickangles=[0, -90],  # upright on a phone
        automargin="bottom",
        ticklabelstandoff=2,
        tickfont=dict(size=SMALL, color=palette.text),
        title=dict(text="pooling strategy", standoff=8),
    )
    # The height has room for upright names; Plotly takes of it what they need.
    room = int(7 * max(map(len, strategies))) + 36
    figure = compose([panel], x_axis, palette, margin=dict(l=4, b=room))
    return figure.update_layout(margin_b=42)


def layer_similarity(
    cls: Any,
    mean: Any,
    *,
    references: Mapping[str, float],
    cls_name: str = "CLS",
    theme: str = "light",
) -> go.Figure:
    """Draw the cosine of one pair layer by layer, with the strategies' cosines at the right.

    Args:
        cls: (S,), cosine of the pair's CLS vectors at each hidden state.
        mean: (S,), cosine of the pair's mean vectors at each hidden state.
        references: strategy name → cosine of the pair under it; may be empty.
        cls_name: what the first line is; "last token" for causal decoders, which has the colour
            of that strategy.
    """
    palette = palette_of(theme)
    cls, mean = checked_arrays(cls=(cls, "S"), mean=(mean, "S"))
    checked_arrays(references=(list(references.values()), "K", "empty"))
    panel = curve_panel(
        [Curve(cls, first_token(cls_name), cls_name), Curve(mean, "mean", "mean")],
        references,
        palette,
        form=".3f",
        y_axis=dict(title_text="cosine"),
        header=0,
    )
    margin = dict(l=52, r=curve_margin(references), t=30)
    x_axis = curve_axis(len(cls), references)
    return compose([panel], x_axis, palette, margin=margin, showlegend=True)


def pair_weights(
    weights_a: Any, weights_b: Any, *, label_a: str, label_b: str, theme: str = "light"
) -> go.Figure:
    """Draw the layer weights of both sentences of a pair side by side.

    Args:
        weights_a: (S,), layer weights of the first sentence.
        weights_b: (S,), layer weights of the second sentence.
        label_a: the first sentence, in the accent colour.
        label_b: the second sentence, grey. Purple and orange are kept for signs.
    """
    palette = palette_of(theme)
    weights_a, weights_b = checked_arrays(weights_a=(weights_a, "S"), weights_b=(weights_b, "S"))
    colors = (palette.accent, palette.plain)
    bars = []
    for weights, label, color in zip(
        (weights_a, weights_b), (label_a, label_b), colors, strict=True
    ):
        hover = [hover_text(label)] * len(weights)
        options: dict[str, Any] = dict(
            hover="%{hovertext}<br>", hovertext=hover, name=axis_label(label)
        )
        bars.append(state_bars(weights, color, **options))
    panels = [
        swatches(label_a, label_b, colors),
        weight_panel(bars, palette, "", body=150, header=22),
    ]
    x_axis = state_axis(len(weights_a), "key state")
    return compose(panels, x_axis, palette, barmode="group", bargroupgap=0.06)


def knockout_bars(delta: Any, *, title: str, theme: str = "light") -> go.Figure:
    """Draw how a pair's cosine changes when each hidden state is removed.

    Args:
        delta: (S,), cosine without the state minus the full cosine; NaN where not defined.
        title: a line above the bars.

    Raises:
        ValueError: `delta` is not one row of numbers.
    """
    palette = palette_of(theme)
    (delta,) = checked_arrays(delta=(delta, "S", "nan"))
    lines = wrap(title, 40, most=2)
    panel = bar_panel(
        delta,
        signed_colors(delta, palette),
        "<br>".join(map(escape, lines)),
        "Δ cosine; above zero: closer without the state",
        body=150,
        header=HEADER + 16 * (len(lines) - 1),
        decimals=3,
        signed=True,
    )
    return compose([panel], state_axis(len(delta), "removed state"), palette)


def spearman_strip(
    strategies: Sequence[str], values: Any, low: Any, high: Any, *, theme: str = "light"
) -> go.Figure:
    """Draw the Spearman correlation × 100 of every strategy with its interval, the best on top.

    Args:
        strategies: K strategy names.
        values: (K,), correlations from −1 to 1; NaN where it is not defined, drawn last.
        low, high: (K,), ends of the intervals.

    Raises:
        ValueError: a number is outside −1 to 1 or an interval is upside down.
    """
    palette = palette_of(theme)
    values, low, high = checked_estimates("K", (values, low, high), (-1, 1), "correlations")
    strategies = checked_texts("strategies", strategies, len(values))
    check_intervals(strategies, low, high)
    order = np.argsort(-values, kind="stable")  # NaN last
    strategies = [strategies[index] for index in order]
    numbers = 100 * np.stack([values, low, high], axis=1)[order]
    traces, notes = [], []
    for row, (strategy, (value, start, end)) in enumerate(zip(strategies, numbers, strict=True)):
        name, color = escape(strategy), strategy_color(strategy, theme)
        number, *ends = (format_number(one, ".2f") for one in (value, start, end))
        printed = f"<b>{number}</b>  [{', '.join(ends)}]"
        interval = segments(
            np.array([start]), np.array([end]), [row], color, 3, name=f"{name} interval"
        )
        marker = strategy_marker(strategy, palette, size=12)
        dot = dots([value], [row], marker, None, [printed], name=name)
        dot.update(hovertemplate="%{fullData.name}<br>%{customdata}<extra></extra>")
        traces += [interval, dot]
        notes.append(beside_row(printed, row))
    panel = dot_panel(strategies, palette, traces, annotations=notes)
    x_axis = score_axis(numbers, "Spearman × 100 (higher is better →)")
    return compose([panel], x_axis, palette, margin=dict(l=4))
