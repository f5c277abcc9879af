"""Figures of layer attention, layer weights and hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import bar_axis, left_margin, query_axis, state_axis
from lwap.figures.charts import bar_panel, brick_panel, matrix_panel, weight_panel
from lwap.figures.checks import check_row, checked_arrays, checked_texts
from lwap.figures.labels import swatches
from lwap.figures.marks import cell_height, matrix, row_band, state_bars
from lwap.figures.panels import BAR_HEADER, HEADER, Panel, color_bar, compose
from lwap.figures.style import CLEAR, DIVERGING, STATE_COLORSCALE, palette_of, signed_colors
from lwap.figures.template import SMALL
from lwap.figures.texts import HOVER_COLUMNS, axis_label, clean, escape, hover_text, shorten, wrap
from lwap.names import state_name, state_tick

_ATTENTION_HOVER = "query %{customdata[0]} → key %{customdata[1]}: <b>%{z:.3f}</b>"
_WEIGHT_HOVER = "%{customdata[0]}<br>%{customdata[1]}: <b>%{z:.3f}</b>"


def layer_attention(
    attention: Any,
    weights: Any,
    knockout: Any,
    *,
    query_names: Sequence[str] | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw the layer weights, the layer attention and the knock-out effect of one sentence.

    Three panels over one axis of key states, so that what a state is given (top), by whom
    (middle) and what its removal does (bottom) stand in line.

    Args:
        attention: (Q, S), row = query state, column = key state; rows sum to one.
        weights: (S,), the column mean of `attention`.
        knockout: (S,), 1 − cosine of the embedding without each state to the full one; NaN where
            it is not defined.
        query_names: Q names for the rows; the states' own names if None, and "layer S-1" for a
            single query.

    Raises:
        ValueError: Q is neither 1 nor S while `query_names` is None.
    """
    palette = palette_of(theme)
    attention, weights, knockout = checked_arrays(
        attention=(attention, "QS"), weights=(weights, "S"), knockout=(knockout, "S", "nan")
    )
    rows = _query_names(query_names, *attention.shape)
    bars = [state_bars(weights, palette.accent)]
    panels = [
        weight_panel(bars, palette, "Layer weights", "column mean; ", body=92),
        matrix_panel(
            attention,
            rows,
            "Layer attention",
            _attention_note(attention),
            ends=(0, float(attention.max()) or 1.0),
            hovertemplate=_ATTENTION_HOVER,
            name="layer attention",
            header=BAR_HEADER,
            x_axis=dict(showticklabels=True),
        ),
        bar_panel(
            knockout,
            palette.plain,
            "Layer knock-out",
            "1 − cosine to the full embedding",
            decimals=3,
            header=HEADER + 26,
        ),
    ]
    x_axis = state_axis(len(weights), "key state")
    return compose(panels, x_axis, palette, margin=dict(l=left_margin(rows[1])))


def layer_attention_grid(
    attentions: Any, labels: Sequence[str], *, theme: str = "light"
) -> go.Figure:
    """Draw the layer attention of several sentences two by two, on one colour scale.

    Args:
        attentions: (N, Q, S), one matrix a sentence.
        labels: N sentences.
    """
    palette = palette_of(theme)
    (attentions,) = checked_arrays(attentions=(attentions, "NQS"))
    count, queries, states = attentions.shape
    labels = checked_texts("labels", labels, count)
    columns = [(0.0, 0.465), (0.535, 1.0)] if count > 1 else [(0.0, 1.0)]
    across = len(columns)  # more do not read on a phone
    names, ticks = _query_names(None, queries, states)
    body = queries * (cell_height(queries) - (6 if across > 1 else 0))
    note = "rows: query state" if queries > 1 else "one query"
    panels = [Panel(0, head="Layer attention", note=note, header=HEADER + 6, column=None)]
    for index, (attention, label) in enumerate(zip(attentions, labels, strict=True)):
        hover = hover_text(label)
        heatmap = matrix(
            attention,
            names,
            hovertemplate="%{text}<br>" + _ATTENTION_HOVER,
            text=np.full(attention.shape, hover),
            coloraxis="coloraxis",
            name=axis_label(label),
        )
        lines = wrap(label, HOVER_COLUMNS // across + (across > 1), most=2)
        place = dict(xref="x domain", x=0, yref="y domain", y=1, borderpad=2, font_size=SMALL)
        title = dict(text="<br>".join(map(escape, lines)), hovertext=hover) | place
        column = index % across
        y_axis = query_axis(ticks) | dict(showticklabels=column == 0)
        panels.append(Panel(body, [heatmap], y_axis, column=column, annotations=[title]))
    zmax = float(attentions.max()) or 1.0
    bar = color_bar([0, zmax]) | dict(yanchor="top", tickfont_color=palette.muted)
    scale = dict(cmin=0, cmax=zmax, colorscale=STATE_COLORSCALE, colorbar=bar)
    x_axis = state_axis(states, "key state", most=max(2, 8 // across))
    return compose(panels, x_axis, palette, columns=columns, coloraxis=scale)


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
    """
    palette = palette_of(theme)
    a, b, weights_a, weights_b = checked_arrays(
        a=(a, "QS"), b=(b, "QS"), weights_a=(weights_a, "S"), weights_b=(weights_b, "S")
    )
    difference, weights = b - a, weights_b - weights_a
    limit = float(np.abs(difference).max()) or 1.0
    panels = [
        swatches(label_a, label_b, (palette.negative, palette.positive), prefix="more in: "),
        bar_panel(
            weights,
            signed_colors(weights, palette),
            "Layer weights",
            "difference of the column means",
            body=110,
            signed=True,
        ),
        matrix_panel(
            difference,
            _query_names(None, *a.shape),
            "Layer attention",
            _attention_note(a),
            ends=(-limit, 0, limit),
            colors=DIVERGING[theme],
            form="+.2f",
            hovertemplate=_ATTENTION_HOVER.replace(":.3f", ":+.3f"),
            name="difference",
            header=BAR_HEADER,
        ),
    ]
    return compose(panels, state_axis(len(weights), "key state"), palette)


def sentence_weights(weights: Any, labels: Sequence[str], *, theme: str = "light") -> go.Figure:
    """Draw the layer weights of every sentence, and their mean with its spread above.

    The error bars are one standard deviation over the N sentences (N − 1 in the denominator);
    a single sentence has none.

    Args:
        weights: (N, S), row = sentence, column = key state.
        labels: N sentences; equal ones keep rows of their own.
    """
    palette = palette_of(theme)
    (weights,) = checked_arrays(weights=(weights, "NS"))
    count, states = weights.shape
    labels = checked_texts("labels", labels, count)
    mean = weights.mean(axis=0)
    bars = [state_bars(mean, palette.accent)]
    spread, note = 0.0, "one sentence"
    if count > 1:
        spread, note = weights.std(axis=0, ddof=1), f"± standard deviation, {count} sentences"
        # A second bar, of no colour and up to the end of the error bar, carries the number.
        top = state_bars(mean + spread, CLEAR, name="top", hoverinfo="skip")
        bars.append(top.update(text=bars[0].text, customdata=None, hovertemplate=None))
        bars[0].update(
            text=None,
            error_y=dict(type="data", array=spread, color=palette.text, thickness=1.2, width=3),
            hovertemplate="%{customdata}: <b>%{y:.3f}</b> ± %{error_y.array:.3f}<extra></extra>",
        )
    rows = brick_panel(
        weights,
        labels,
        palette,
        "Layer weights",
        note="one row a sentence",
        header=BAR_HEADER + 12,
        ends=(0, float(weights.max()) or 1.0),
        most=200,
        hovertemplate=_WEIGHT_HOVER,
        name="layer weights",
    )
    means = Panel(96, bars, bar_axis(mean + spread), "Mean layer weights", note)
    return compose([means, rows], state_axis(states, "key state"), palette, barmode="overlay")


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

    Raises:
        ValueError: there is no model or `selected` is no row.
    """
    palette = palette_of(theme)
    known = [checked_arrays(weights=(row, "S"))[0] for row in weights]
    if not known:
        raise ValueError("weights is empty: there is no model")
    labels = checked_texts("labels", labels, len(known))
    check_row("selected", selected, len(known))
    states = max(map(len, known))
    values = np.full((len(known), states), np.nan)
    for row, found in enumerate(known):
        values[row, : len(found)] = found
    panel = brick_panel(
        values,
        labels,
        palette,
        "Layer weights",
        note="one row a model",
        header=BAR_HEADER,
        shapes=row_band(selected, palette),
        ends=(0, float(np.nanmax(values)) or 1.0),
        hovertemplate=_WEIGHT_HOVER,
        name="layer weights",
    )
    return compose([panel], state_axis(states, "state"), palette, margin=dict(l=4))


def state_similarity(similarity: Any, *, theme: str = "light") -> go.Figure:
    """Draw the cosine between the hidden states of one encoder.

    The colour scale runs from 0 (or the lowest value, when one is negative) to 1.

    Args:
        similarity: (S, S), cosine of state i (row) and state j (column).
    """
    palette = palette_of(theme)
    (similarity,) = checked_arrays(similarity=(similarity, "SS"))
    panel = matrix_panel(
        similarity,
        _query_names(None, *similarity.shape),
        "State similarity",
        "cosine of hidden states",
        ends=(min(0.0, float(similarity.min())), 1),
        hovertemplate="%{customdata[0]} and %{customdata[1]}: <b>%{z:.3f}</b>",
        name="cosine",
        header=HEADER + 4,
    )
    return compose([panel], state_axis(len(similarity), "hidden state"), palette)


def _attention_note(attention: np.ndarray) -> str:
    return "query (row) → key state (column)" if len(attention) > 1 else "one query → key state"


def _query_names(
    names: Sequence[str] | None, queries: int, states: int
) -> tuple[list[str], list[str]]:
    """Full names (for hovers) and ticks of the Q query states."""
    if names is not None:
        names = checked_texts("query_names", names, queries)
        full, ticks = map(clean, names), (shorten(name, 14) for name in names)
        return list(map(escape, full)), list(map(escape, ticks))
    if queries not in (1, states):
        raise ValueError(f"Q = {queries} query states; without query_names Q is 1 or S = {states}")
    indices = range(states) if queries == states else [states - 1]
    return list(map(state_name, indices)), list(map(state_tick, indices))
