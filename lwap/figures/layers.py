"""Figures of layer attention, layer weights and hidden states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import checked_arrays, checked_texts, upper_end
from lwap.figures.layout import (
    BAR_HEADER,
    BRICK,
    HEADER,
    ROW,
    SMALL,
    TICKS,
    add_header,
    add_swatches,
    add_text,
    cell_height,
    finish,
    header_color_bar,
    left_margin,
    query_axis,
    sentence_axis,
    stack,
    state_axis,
    value_axis,
)
from lwap.figures.marks import add_state_bars, add_uniform_line, matrix
from lwap.figures.style import ACCENT, DIVERGING, STATE_COLORSCALE, palette_of, signed_colors
from lwap.figures.texts import (
    HOVER_COLUMNS,
    axis_label,
    clean,
    escape,
    format_number,
    hover_text,
    shorten,
    wrap,
)
from lwap.names import state_name, state_tick

_ATTENTION_HOVER = "query %{customdata[0]} → key %{customdata[1]}: <b>%{z:.3f}</b>"


def layer_attention(
    attention: Any,
    weights: Any,
    knockout: Any,
    *,
    title: str | None = None,
    zmax: float | None = None,
    knockout_title: str = "1 − cosine to the full embedding",
    query_names: Sequence[str] | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw the layer weights, the layer attention and the knock-out effect of one sentence.

    Three rows over one axis of key states, so that what a state is given (top), by whom (middle)
    and what its removal does (bottom) stand in line.

    Args:
        attention: (Q, S), row = query state, column = key state; rows sum to one.
        weights: (S,), the column mean of `attention`.
        knockout: (S,), the effect of removing each state; NaN where it is not defined.
        title: a line above the figure, for instance the sentence.
        zmax: upper end of the colour scale, to compare sentences; the largest value if None.
        knockout_title: what `knockout` measures, with its unit.
        query_names: Q names for the rows; the states' own names if None, and "layer S-1" for a
            single query.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is not finite, Q is neither 1 nor S while
            `query_names` is None, or the theme is unknown.
    """
    palette = palette_of(theme)
    attention, weights, knockout = checked_arrays(
        attention=(attention, "QS"), weights=(weights, "S"), knockout=(knockout, "S", "nan")
    )
    queries, states = attention.shape
    names, ticks = _query_names(query_names, queries, states)
    zmax = upper_end(zmax, attention)
    uniform = 1.0 / states
    left = left_margin(ticks)

    rows = [(HEADER, 92), (BAR_HEADER, queries * cell_height(queries)), (HEADER + 26, 92)]
    domains, height = stack(rows, TICKS)
    figure = go.Figure()
    add_state_bars(figure, weights, ACCENT[theme], decimals=2)
    add_uniform_line(figure, uniform, palette)
    figure.add_trace(
        matrix(
            attention,
            names,
            hover=_ATTENTION_HOVER,
            axis="2",
            scale=(STATE_COLORSCALE, 0, zmax),
            colorbar=header_color_bar(palette, domains[1][1], [0, zmax]),
            name="layer attention",
        )
    )
    add_state_bars(figure, knockout, palette.plain, axis="3", decimals=3)
    figure.update_layout(
        xaxis=state_axis(palette, states, anchor="y", matches="x3", labels=False),
        xaxis2=state_axis(palette, states, anchor="y2", matches="x3"),
        xaxis3=state_axis(palette, states, anchor="y3", title="key state"),
        yaxis=value_axis(palette, domains[0], [*weights, uniform]),
        yaxis2=query_axis(palette, domains[1], ticks, anchor="x2"),
        yaxis3=value_axis(palette, domains[2], knockout),
    )
    note = f"column mean; dotted: uniform, {format_number(uniform, '.2f')}"
    add_header(figure, palette, domains[0][1], "Layer weights", note, left)
    add_header(figure, palette, domains[1][1], "Layer attention", _attention_note(queries), left)
    add_header(figure, palette, domains[2][1], "Layer knock-out", escape(knockout_title), left)
    return finish(figure, palette, height, left=left, title=title)


def layer_attention_grid(
    attentions: Any,
    labels: Sequence[str],
    *,
    zmax: float | None = None,
    columns: int = 2,
    theme: str = "light",
) -> go.Figure:
    """Draw the layer attention of several sentences side by side, on one colour scale.

    Args:
        attentions: (N, Q, S), one matrix a sentence.
        labels: N sentences.
        zmax: upper end of the common colour scale; the largest value if None.
        columns: panels in a row; 2 still reads on a phone, more do not.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is not finite, `columns` is below 1, or the theme is
            unknown.
    """
    palette = palette_of(theme)
    (attentions,) = checked_arrays(attentions=(attentions, "NQS"))
    count, queries, states = attentions.shape
    labels = checked_texts("labels", labels, count)
    if columns < 1:
        raise ValueError(f"columns must be 1 or more, got {columns}")
    columns = min(columns, count)
    zmax = upper_end(zmax, attentions)
    names, ticks = _query_names(None, queries, states)
    body = queries * (cell_height(queries) - (6 if columns > 1 else 0))
    gap = 0.07 if columns > 1 else 0.0
    width = (1 - gap * (columns - 1)) / columns

    rows = [(HEADER + 6, 0)] + [(HEADER, body)] * math.ceil(count / columns)
    domains, height = stack(rows, TICKS)
    figure = go.Figure()
    for index, (attention, label) in enumerate(zip(attentions, labels, strict=True)):
        row, column = divmod(index, columns)
        domain = domains[row + 1]
        start = column * (width + gap)
        axis = str(index + 1) if index else ""
        is_last = index + columns >= count  # of its column
        figure.add_trace(
            matrix(
                attention,
                names,
                hover="%{text}<br>" + _ATTENTION_HOVER,
                axis=axis,
                text=np.full(attention.shape, hover_text(label)),
                coloraxis="coloraxis",
                name=axis_label(label),
            )
        )
        x_axis = state_axis(
            palette,
            states,
            anchor=f"y{axis}",
            matches="x" if index else None,
            title="key state" if is_last else None,
            labels=is_last,
            most=max(2, 8 // columns),
        )
        y_axis = query_axis(palette, domain, ticks, anchor=f"x{axis}", labels=column == 0)
        figure.update_layout(
            {f"xaxis{axis}": x_axis | {"domain": [start, start + width]}, f"yaxis{axis}": y_axis}
        )
        lines = wrap(label, HOVER_COLUMNS // columns + (columns > 1), most=2)
        add_text(
            figure,
            "<br>".join(map(escape, lines)),
            palette,
            hovertext=hover_text(label),
            x=start,
            y=domain[1],
            borderpad=2,
            font_size=SMALL,
        )
    color_bar = header_color_bar(palette, domains[0][1], [0, zmax])
    figure.update_layout(
        coloraxis=dict(cmin=0, cmax=zmax, colorscale=STATE_COLORSCALE, colorbar=color_bar)
    )
    note = "rows: query state" if queries > 1 else "one query"
    add_header(figure, palette, domains[0][1], "Layer attention", note)
    return finish(figure, palette, height)


def layer_attention_difference(
    a: Any,
    b: Any,
    weights_a: Any,
    weights_b: Any,
    *,
    label_a: str,
    label_b: str,
    theme: str = "light",
) -> go.Figure:
    """Draw how the layer attention of `b` differs from that of `a`: weights and matrix, b − a.

    Orange is more in `b`, purple is more in `a`; both colour scales are symmetric around zero.

    Args:
        a: (Q, S), layer attention of the first sentence.
        b: (Q, S), layer attention of the second sentence.
        weights_a: (S,), layer weights of the first sentence.
        weights_b: (S,), layer weights of the second sentence.
        label_a: the first sentence.
        label_b: the second sentence.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is not finite, or the theme is unknown.
    """
    palette = palette_of(theme)
    a, b, weights_a, weights_b = checked_arrays(
        a=(a, "QS"), b=(b, "QS"), weights_a=(weights_a, "S"), weights_b=(weights_b, "S")
    )
    queries, states = a.shape
    names, ticks = _query_names(None, queries, states)
    difference, weights = b - a, weights_b - weights_a
    limit = upper_end(None, np.abs(difference))

    rows = [(HEADER, 0), (HEADER, 110), (BAR_HEADER, queries * cell_height(queries))]
    domains, height = stack(rows, TICKS)
    figure = go.Figure()
    add_state_bars(figure, weights, signed_colors(weights, palette), decimals=2, signed=True)
    figure.add_trace(
        matrix(
            difference,
            names,
            hover=_ATTENTION_HOVER.replace(":.3f", ":+.3f"),
            axis="2",
            form="+.2f",
            scale=([list(stop) for stop in DIVERGING[theme]], -limit, limit),
            colorbar=header_color_bar(palette, domains[2][1], [-limit, 0, limit]),
            name="difference",
        )
    )
    figure.update_layout(
        xaxis=state_axis(palette, states, anchor="y", matches="x2", labels=False),
        xaxis2=state_axis(palette, states, anchor="y2", title="key state"),
        yaxis=value_axis(palette, domains[1], weights, signed=True),
        yaxis2=query_axis(palette, domains[2], ticks, anchor="x2"),
    )
    signs = (palette.negative, palette.positive)
    add_swatches(figure, palette, domains[0][1], label_a, label_b, signs, prefix="more in: ")
    add_header(figure, palette, domains[1][1], "Layer weights", "difference of the column means")
    add_header(figure, palette, domains[2][1], "Layer attention", _attention_note(queries))
    return finish(figure, palette, height)


def sentence_weights(weights: Any, labels: Sequence[str], *, theme: str = "light") -> go.Figure:
    """Draw the layer weights of every sentence, and their mean with its spread above.

    Args:
        weights: (N, S), row = sentence, column = key state.
        labels: N sentences; equal ones keep rows of their own.
        theme: "light" or "dark".

    The error bars are one standard deviation over the N sentences (N − 1 in the denominator);
    a single sentence has none.

    Raises:
        ValueError: shapes disagree, a value is not finite, or the theme is unknown.
    """
    palette = palette_of(theme)
    (weights,) = checked_arrays(weights=(weights, "NS"))
    count, states = weights.shape
    labels = checked_texts("labels", labels, count)
    zmax = upper_end(None, weights)
    mean = weights.mean(axis=0)
    spread = weights.std(axis=0, ddof=1) if count > 1 else None

    domains, height = stack([(HEADER, 96), (BAR_HEADER + 12, count * ROW)], TICKS)
    figure = go.Figure()
    add_state_bars(figure, mean, ACCENT[theme], decimals=2, spread=spread, line=palette.text)
    figure.add_trace(
        matrix(
            weights,
            [hover_text(label) for label in labels],
            hover="%{customdata[0]}<br>%{customdata[1]}: <b>%{z:.3f}</b>",
            axis="2",
            ygap=ROW - BRICK,
            form=".2f" if weights.size <= 200 else None,
            scale=(STATE_COLORSCALE, 0, zmax),
            colorbar=header_color_bar(palette, domains[1][1], [0, zmax], shift=12),
            name="layer weights",
        )
    )
    figure.update_layout(
        xaxis=state_axis(palette, states, anchor="y", matches="x2", labels=False),
        xaxis2=state_axis(palette, states, anchor="y2", title="key state"),
        yaxis=value_axis(palette, domains[0], mean if spread is None else mean + spread),
        yaxis2=sentence_axis(palette, domains[1], labels, shift=3),
    )
    note = "one sentence" if spread is None else f"± standard deviation, {count} sentences"
    add_header(figure, palette, domains[0][1], "Mean layer weights", note)
    add_header(figure, palette, domains[1][1], "Layer weights", "one row a sentence", shift=12)
    return finish(figure, palette, height)


def model_weights(
    weights: Sequence[Any],
    labels: Sequence[str],
    *,
    selected: int | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw the layer weights of several models, one row each; they may differ in their depth.

    Args:
        weights: N arrays (S,), the weight of each state; S may differ, and what a model does not
            have stays empty.
        labels: N names of models.
        selected: row with a band behind its name; None for no row.
        theme: "light" or "dark".

    Raises:
        ValueError: there is no model, their numbers disagree, a weight is not finite, `selected`
            is no row, or the theme is unknown.
    """
    palette = palette_of(theme)
    known = [checked_arrays(weights=(row, "S"))[0] for row in weights]
    if not known:
        raise ValueError("weights is empty: there is no model")
    labels = checked_texts("labels", labels, len(known))
    if selected is not None and not 0 <= selected < len(known):
        raise ValueError(f"selected is {selected}; there are rows 0 to {len(known) - 1}")
    states = max(map(len, known))
    values = np.full((len(known), states), np.nan)
    for row, found in enumerate(known):
        values[row, : len(found)] = found
    zmax = upper_end(None, np.concatenate(known))

    domains, height = stack([(BAR_HEADER, len(known) * ROW)], TICKS)
    figure = go.Figure(
        matrix(
            values,
            [hover_text(label) for label in labels],
            hover="%{customdata[0]}<br>%{customdata[1]}: <b>%{z:.3f}</b>",
            ygap=ROW - BRICK,
            form=".2f" if values.size <= 400 else None,
            scale=(STATE_COLORSCALE, 0, zmax),
            colorbar=header_color_bar(palette, domains[0][1], [0, zmax], shift=12),
            name="layer weights",
        )
    )
    if selected is not None:
        figure.add_shape(
            name="selected",
            type="rect",
            layer="below",
            xref="paper",
            x0=0,
            x1=1,
            y0=selected - 0.5,
            y1=selected + 0.5,
            line_width=0,
            fillcolor=palette.band,
        )
    figure.update_layout(
        xaxis=state_axis(palette, states, anchor="y", title="state"),
        yaxis=sentence_axis(palette, domains[0], labels, shift=3),
    )
    add_header(figure, palette, domains[0][1], "Layer weights", "one row a model", 4, shift=12)
    return finish(figure, palette, height, left=4)


def state_similarity(similarity: Any, *, theme: str = "light") -> go.Figure:
    """Draw the cosine between the hidden states of one encoder.

    Args:
        similarity: (S, S), cosine of state i (row) and state j (column).
        theme: "light" or "dark".

    The colour scale runs from 0 (or the lowest value, when one is negative) to 1.

    Raises:
        ValueError: the matrix is not square, a value is not finite, or the theme is unknown.
    """
    palette = palette_of(theme)
    (similarity,) = checked_arrays(similarity=(similarity, "SS"))
    states = len(similarity)
    low = min(0.0, float(similarity.min()))
    names, ticks = _query_names(None, states, states)

    domains, height = stack([(HEADER + 4, states * cell_height(states))], TICKS)
    figure = go.Figure(
        matrix(
            similarity,
            names,
            hover="%{customdata[0]} and %{customdata[1]}: <b>%{z:.3f}</b>",
            scale=(STATE_COLORSCALE, low, 1),
            colorbar=header_color_bar(palette, domains[0][1], [low, 1]),
            name="cosine",
        )
    )
    figure.update_layout(
        xaxis=state_axis(palette, states, anchor="y", title="hidden state"),
        yaxis=query_axis(palette, domains[0], ticks, anchor="x"),
    )
    add_header(figure, palette, domains[0][1], "State similarity", "cosine of hidden states")
    return finish(figure, palette, height)


def _attention_note(queries: int) -> str:
    return "query (row) → key state (column)" if queries > 1 else "one query → key state"


def _query_names(
    names: Sequence[str] | None, queries: int, states: int
) -> tuple[list[str], list[str]]:
    """Full names (for hovers) and ticks of the Q query states."""
    if names is not None:
        names = checked_texts("query_names", names, queries)
        return [escape(clean(name)) for name in names], [
            escape(shorten(name, 14)) for name in names
        ]
    if queries not in (1, states):
        raise ValueError(f"Q = {queries} query states; without query_names Q is 1 or S = {states}")
    indices = range(states) if queries == states else [states - 1]
    return [state_name(index) for index in indices], [state_tick(index) for index in indices]
