"""Figures of sentence pairs: their scores under every strategy, and one pair in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import check_intervals, check_within, checked_arrays, checked_texts
from lwap.figures.layout import (
    BRICK,
    HEADER,
    ROW,
    SMALL,
    TICKS,
    add_header,
    add_swatches,
    add_text,
    axis_title,
    count_legend_lines,
    finish,
    free_axis,
    header_color_bar,
    padded,
    score_axis,
    sentence_axis,
    stack,
    state_axis,
    top_legend,
    value_axis,
)
from lwap.figures.marks import (
    add_state_bars,
    add_states_and_edge,
    add_uniform_line,
    matrix,
    range_lines,
    row_dots,
    state_line,
)
from lwap.figures.style import (
    ACCENT,
    STATE_COLORSCALE,
    first_token,
    palette_of,
    signed_colors,
    strategy_color,
    strategy_marker,
)
from lwap.figures.texts import axis_label, escape, format_number, hover_text, wrap


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
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is infinite, `selected` is no row, a name is no
            strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
    arrays = {"values": (values, "PK", "nan")}
    if gold is not None:
        arrays["gold"] = (gold, "P", "nan")
    values, *known_gold = checked_arrays(**arrays)
    pairs, count = values.shape
    strategies = checked_texts("strategies", strategies, count)
    labels = checked_texts("labels", labels, pairs)
    if selected is not None and not 0 <= selected < pairs:
        raise ValueError(f"selected is row {selected}; the rows are 0 to {pairs - 1}")

    figure = go.Figure(range_lines(values, palette))
    hover = [hover_text(label) for label in labels]
    for gold in known_gold:
        edge = dict(color=palette.gold, width=3)
        marker = dict(symbol="line-ns", size=13, color=palette.gold, line=edge)
        figure.add_trace(row_dots("gold", gold, hover, value_format, marker))
    for strategy, scores in zip(strategies, values.T, strict=True):
        marker = strategy_marker(strategy, theme, size=11)
        figure.add_trace(row_dots(escape(strategy), scores, hover, value_format, marker))
    if selected is not None:
        figure.add_shape(
            type="rect",
            xref="paper",
            x0=0,
            x1=1,
            y0=selected - 0.5,
            y1=selected + 0.5,
            line=dict(width=0),
            fillcolor=palette.band,
            layer="below",
            name="selected",
        )
    figure.update_layout(
        xaxis=score_axis(palette, np.column_stack([values, *known_gold]), escape(x_title)),
        yaxis=sentence_axis(palette, (0, 1), labels, shift=11, indent=4),
        showlegend=True,
        legend=top_legend(palette),
    )
    legend = 24 * count_legend_lines([*strategies, *["gold"] * len(known_gold)])
    return finish(figure, palette, legend + pairs * 50 + TICKS, left=4, top=4)


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

    Args:
        values: (P, K), scores on one scale; NaN leaves the cell empty.
        strategies: K strategy names, one a column.
        labels: P pairs; equal ones keep rows of their own.
        value_format: Python format of a score, in the cells and in the hover.
        color_title: what the colour scale is, with its unit.
        theme: "light" or "dark".

    The colour scale runs from the lowest to the highest value.

    Raises:
        ValueError: shapes disagree, a value is infinite, or the theme is unknown.
    """
    palette = palette_of(theme)
    (values,) = checked_arrays(values=(values, "PK", "nan"))
    pairs, count = values.shape
    strategies = [escape(name) for name in checked_texts("strategies", strategies, count)]
    labels = checked_texts("labels", labels, pairs)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5

    names_height = int(7 * max(map(len, strategies))) + 36  # upright on a phone
    domains, height = stack([(50, pairs * ROW)], names_height)
    figure = go.Figure(
        matrix(
            values,
            [hover_text(label) for label in labels],
            strategies,
            hover=f"%{{customdata[0]}}<br>%{{customdata[1]}}: <b>%{{z:{value_format}}}</b>",
            ygap=ROW - BRICK,
            form=value_format if values.size <= 400 else None,
            scale=(STATE_COLORSCALE, low, high),
            colorbar=header_color_bar(palette, domains[0][1], [low, high], value_format, shift=12),
            name=escape(color_title),
        )
    )
    figure.update_layout(
        xaxis=dict(
            range=[-0.5, count - 0.5],
            tickmode="array",
            tickvals=np.arange(count),
            ticktext=strategies,
            autotickangles=[0, -90],
            automargin="bottom",
            ticklabelstandoff=2,
            ticks="",
            showgrid=False,
            zeroline=False,
            tickfont=dict(size=SMALL, color=palette.text),
            title=axis_title(palette, "pooling strategy") | {"standoff": 8},
            fixedrange=True,
        ),
        yaxis=sentence_axis(palette, domains[0], labels, shift=3),
    )
    title = "<br>".join(map(escape, wrap(color_title, 26, most=2)))
    add_header(figure, palette, domains[0][1], title, "", left=4, shift=12)
    return finish(figure, palette, height, left=4, bottom=42)


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
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is not finite, a name is no strategy, or the theme
            is unknown.
    """
    palette = palette_of(theme)
    cls, mean = checked_arrays(cls=(cls, "S"), mean=(mean, "S"))
    (marks,) = checked_arrays(references=(list(references.values()), "K", "empty"))
    names = {strategy: [escape(strategy)] for strategy in references}
    span = padded([*cls, *mean, *marks], 0.08)
    body = max(260, 17 * len(names) + 20)

    figure = go.Figure()
    for values, strategy, name in ((cls, first_token(cls_name), cls_name), (mean, "mean", "mean")):
        figure.add_trace(state_line(values, strategy, name, theme, form=".3f"))
    right = add_states_and_edge(figure, palette, len(cls), names, marks, span, body, theme, ".3f")
    figure.update_layout(yaxis=free_axis(palette, span, "cosine"))
    return finish(figure, palette, 30 + body + TICKS, left=52, right=right, top=30)


def pair_weights(
    weights_a: Any, weights_b: Any, *, label_a: str, label_b: str, theme: str = "light"
) -> go.Figure:
    """Draw the layer weights of both sentences of a pair side by side.

    Args:
        weights_a: (S,), layer weights of the first sentence.
        weights_b: (S,), layer weights of the second sentence.
        label_a: the first sentence, in the accent colour.
        label_b: the second sentence, grey. Purple and orange are kept for signs.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is not finite, or the theme is unknown.
    """
    palette = palette_of(theme)
    colors = (ACCENT[theme], palette.plain)
    weights_a, weights_b = checked_arrays(weights_a=(weights_a, "S"), weights_b=(weights_b, "S"))
    states = len(weights_a)
    uniform = 1.0 / states

    domains, height = stack([(HEADER, 0), (22, 150)], TICKS)
    figure = go.Figure()
    sides = (
        (weights_a, label_a, colors[0]),
        (weights_b, label_b, colors[1]),
    )
    for weights, label, color in sides:
        add_state_bars(figure, weights, color, decimals=2)
        figure.data[-1].update(
            name=axis_label(label),
            hovertext=[hover_text(label)] * states,
            hovertemplate="%{hovertext}<br>%{customdata}: <b>%{y:.3f}</b><extra></extra>",
        )
    add_uniform_line(figure, uniform, palette)
    figure.update_layout(
        xaxis=state_axis(palette, states, anchor="y", title="key state"),
        yaxis=value_axis(palette, domains[1], [*weights_a, *weights_b, uniform]),
        barmode="group",
        bargroupgap=0.06,
    )
    add_swatches(figure, palette, domains[0][1], label_a, label_b, colors)
    note = f"dotted: uniform, {format_number(uniform, '.2f')}"
    add_header(figure, palette, domains[1][1], "", note)
    return finish(figure, palette, height)


def knockout_bars(delta: Any, *, title: str, theme: str = "light") -> go.Figure:
    """Draw how a pair's cosine changes when each hidden state is removed.

    Args:
        delta: (S,), cosine without the state minus the full cosine; NaN where not defined.
        title: a line above the bars.
        theme: "light" or "dark".

    Raises:
        ValueError: `delta` is not one row of numbers, a value is infinite, or the theme is
            unknown.
    """
    palette = palette_of(theme)
    (delta,) = checked_arrays(delta=(delta, "S", "nan"))
    lines = wrap(title, 40, most=2)
    domains, height = stack([(HEADER + 16 * (len(lines) - 1), 150)], TICKS)
    figure = go.Figure()
    add_state_bars(figure, delta, signed_colors(delta, palette), decimals=3, signed=True)
    figure.update_layout(
        xaxis=state_axis(palette, len(delta), anchor="y", title="removed state"),
        yaxis=value_axis(palette, domains[0], delta, signed=True),
    )
    note = "Δ cosine; above zero: closer without the state"
    add_header(figure, palette, domains[0][1], "<br>".join(map(escape, lines)), note)
    return finish(figure, palette, height)


def spearman_strip(
    strategies: Sequence[str], values: Any, low: Any, high: Any, *, theme: str = "light"
) -> go.Figure:
    """Draw the Spearman correlation of every strategy with its interval, the best on top.

    Args:
        strategies: K strategy names.
        values: (K,), correlations from −1 to 1; NaN where it is not defined, drawn last.
        low: (K,), lower ends of the intervals.
        high: (K,), upper ends of the intervals.
        theme: "light" or "dark".

    The figure shows correlations × 100.

    Raises:
        ValueError: shapes disagree, a number is outside −1 to 1, an interval is upside down, a
            name is no strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
    values, low, high = checked_arrays(
        values=(values, "K", "nan"), low=(low, "K", "nan"), high=(high, "K", "nan")
    )
    strategies = checked_texts("strategies", strategies, len(values))
    for name, array in (("values", values), ("low", low), ("high", high)):
        check_within(name, array, -1, 1, "correlations")
    check_intervals(strategies, low, high)
    order = np.argsort(-values, kind="stable")  # NaN last
    strategies = [strategies[index] for index in order]
    values, low, high = 100 * values[order], 100 * low[order], 100 * high[order]

    figure = go.Figure()
    for row, strategy in enumerate(strategies):
        name = escape(strategy)
        printed = (
            f"<b>{format_number(values[row], '.2f')}</b>  "
            f"[{format_number(low[row], '.2f')}, {format_number(high[row], '.2f')}]"
        )
        figure.add_trace(
            go.Scatter(
                x=[low[row], high[row]],
                y=[row, row],
                mode="lines",
                line=dict(color=strategy_color(strategy, theme), width=3),
                hoverinfo="skip",
                name=f"{name} interval",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[values[row]],
                y=[row],
                mode="markers",
                marker=strategy_marker(strategy, theme, size=12),
                customdata=[printed],
                hovertemplate="%{fullData.name}<br>%{customdata}<extra></extra>",
                name=name,
            )
        )
        add_text(
            figure,
            printed,
            palette,
            x=1,
            xanchor="right",
            y=row - 0.5,
            yref="y",
            yanchor="middle",
            yshift=-11,
            font_size=SMALL,
        )
    figure.update_layout(
        xaxis=score_axis(palette, [*values, *low, *high], "Spearman × 100 (higher is better →)"),
        yaxis=sentence_axis(palette, (0, 1), strategies, shift=11, indent=4),
    )
    return finish(figure, palette, len(strategies) * 50 + TICKS, left=4)
