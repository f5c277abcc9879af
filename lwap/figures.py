"""Plotly figures of layer attention, layer similarity and pair scores.

Pure functions from arrays and lists to `plotly.graph_objects.Figure`. This module knows nothing
about encoders, tensors, tables, pages or files: it imports numpy, plotly and the states' names
only, never writes into an input, and two calls with equal arguments give equal figures.

Shape legend: S hidden states (state 0 = embeddings, state l = layer l, so S = layers + 1),
Q query states (S, or 1 for a single query), N sentences, P sentence pairs, K strategies.

Three rules hold for every figure. Backgrounds are transparent, so that the page's own theme
shows through; `theme` picks the colours of text and marks for a "light" or a "dark" page.
A figure cannot know how wide it will be drawn, so everything is laid out for 340 px and up:
sentences stand above their row instead of beside it, and numbers that would not fit are left to
the hover. Heights are in pixels and already set.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import get_colorscale, hex_to_rgb

from lwap.names import state_name, state_tick

__all__ = [
    "ACCENT",
    "BACKGROUND",
    "DIVERGING",
    "STATE_COLORSCALE",
    "knockout_bars",
    "layer_attention",
    "layer_attention_difference",
    "layer_attention_grid",
    "layer_similarity",
    "pair_heatmap",
    "pair_scores",
    "pair_weights",
    "sentence_weights",
    "spearman_strip",
    "state_name",
    "state_similarity",
    "state_tick",
    "strategy_color",
    "strategy_symbol",
]

ACCENT = {"light": "#0f766e", "dark": "#4fc4b6"}
"""LWAP's own colour; the same as `primaryColor` in the app's theme."""

BACKGROUND = {"light": "#ffffff", "dark": "#12191b"}
"""The page behind the figures; the same as `backgroundColor` in the app's theme."""

STATE_COLORSCALE = "Cividis"
"""Sequential scale of everything that grows from zero: even in lightness, colour-blind safe."""

DIVERGING = {
    "light": (
        (0.0, "#4a2a86"),
        (0.25, "#9d90c9"),
        (0.5, BACKGROUND["light"]),
        (0.75, "#f2b063"),
        (1.0, "#a85000"),
    ),
    "dark": (
        (0.0, "#c3b1ff"),
        (0.25, "#6a58ad"),
        (0.5, BACKGROUND["dark"]),
        (0.75, "#a05f14"),
        (1.0, "#ffbc66"),
    ),
}
"""Differences: purple below zero, orange above, the page's background at zero."""


@dataclass(frozen=True)
class _Palette:
    background: str
    text: str
    muted: str
    grid: str
    zero: str  # the line at zero and other lines that must be found
    plain: str  # bars that belong to no strategy
    band: str  # behind a selected row
    surface: str  # behind a hover text
    gold: str
    negative: str
    positive: str


_PALETTES = {
    "light": _Palette(
        background=BACKGROUND["light"],
        text="#1d2b2e",
        muted="#57676b",
        grid="#e6ecec",
        zero="#9aa8ab",
        plain="#71858a",
        band="rgba(15, 118, 110, 0.10)",
        surface="#ffffff",
        gold="#000000",
        negative="#6a4fa3",
        positive="#c8690f",
    ),
    "dark": _Palette(
        background=BACKGROUND["dark"],
        text="#e3eaea",
        muted="#9fb0b3",
        grid="#273235",
        zero="#66777b",
        plain="#8499a0",
        band="rgba(79, 196, 182, 0.13)",
        surface="#1d282b",
        gold="#ffffff",
        negative="#a08ee0",
        positive="#e8a04a",
    ),
}

# Chosen together with the accent so that any two stay apart for normal, deuteranopic,
# protanopic and tritanopic eyes, with a contrast of 3:1 or more on the page behind them.
_STRATEGIES = {
    #                   light      dark       symbol
    "cls": ("#1f3bb3", "#729afb", "circle"),
    "mean": ("#db640e", "#ed905e", "square"),
    "max": ("#72130b", "#e2390d", "triangle-up"),
    "last_token": ("#6b45d7", "#d5b2fe", "triangle-down"),
    "first_last_mean": ("#c547a3", "#c35483", "diamond"),
    "embed_last_mean": ("#581f68", "#8b5cee", "pentagon"),
    "last_two_mean": ("#795616", "#f1dbba", "hexagon"),
    "all_mean": ("#1690ed", "#298bb7", "cross"),
    "scalar_mix": ("#869270", "#edc812", "x"),
    "lwap": (ACCENT["light"], ACCENT["dark"], "star"),
}
# One layer alone is context, not a contender: greys, with K told by shade and symbol.
_LAYER_GREYS = {
    "light": ("#3f4749", "#8a9396", "#5c6669", "#767f82"),
    "dark": ("#c9d2d4", "#737d80", "#a9b3b6", "#8d979a"),
}
_LAYER_SYMBOLS = {
    "layer_mean": ("hourglass", "diamond-wide", "star-square"),
    "layer_cls": ("bowtie", "diamond-tall", "star-diamond"),
}

_FONT = '"Source Sans", "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
_SIZE = 12  # px, text of a figure
_SMALL = 11  # px, numbers on axes and names in tight places
_LEAST = 9  # px, smaller numbers are left to the hover
_PHONE = 340  # px, the narrowest figure that must be readable
_DIGIT = 0.63  # width of a digit as a share of the font size, in the widest of the fonts above
_LABEL_COLUMNS = 54  # characters of a sentence on an axis
_HOVER_COLUMNS = 42  # characters of a line in a hover text, and of all panels of a grid
_PAIR = " ↔ "  # between the sides of a pair's label
_ATTENTION_HOVER = "query %{customdata[0]} → key %{customdata[1]}: <b>%{z:.3f}</b>"
_LEFT, _RIGHT = 42, 10  # px, margins beside the plot
_HEADER = 40  # px, two lines of text above a row of a figure
_BAR_HEADER = 52  # px, the same below another row and with a colour bar at the right
_TICKS = 44  # px, tick labels and axis title below a figure
_ROW, _BRICK = 46, 22  # px, a row with its sentence above it, and the cells in it


# --- names ---------------------------------------------------------------------------------------


def strategy_color(name: str, theme: str = "light") -> str:
    """Return the fixed colour of a pooling strategy; `X+whiten` has the colour of X.

    >>> strategy_color("lwap"), strategy_color("mean+whiten") == strategy_color("mean")
    ('#0f766e', True)

    Raises ValueError for a name that is no strategy and for an unknown theme.
    """
    _palette(theme)
    base, layer = _parse_strategy(name)
    if layer is None:
        return _STRATEGIES[base][0 if theme == "light" else 1]
    greys = _LAYER_GREYS[theme]
    return greys[layer % len(greys)]


def strategy_symbol(name: str) -> str:
    """Return the fixed marker symbol of a pooling strategy; open for `X+whiten`.

    The second channel beside the colour: no two of the named strategies share a symbol.

    >>> strategy_symbol("mean"), strategy_symbol("mean+whiten")
    ('square', 'square-open')

    Raises ValueError for a name that is no strategy.
    """
    base, layer = _parse_strategy(name)
    if layer is None:
        symbol = _STRATEGIES[base][2]
    else:
        symbols = _LAYER_SYMBOLS[base]
        symbol = symbols[layer % len(symbols)]
    return symbol + "-open" if name.endswith("+whiten") else symbol


def _parse_strategy(name: str) -> tuple[str, int | None]:
    """Split a strategy into its base name and, for a single layer, the layer's number."""
    base = name.removesuffix("+whiten")
    if base in _STRATEGIES:
        return base, None
    head, _, layer = base.partition(":")
    if head in _LAYER_SYMBOLS and layer.isdecimal():
        return head, int(layer)
    accepted = ", ".join([*_STRATEGIES, "layer_mean:K", "layer_cls:K"])
    raise ValueError(
        f"{name!r} is not a pooling strategy; accepted are {accepted}, each also with '+whiten'"
    )


# --- the figures ---------------------------------------------------------------------------------


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
    palette = _palette(theme)
    attention, weights, knockout = _arrays(
        attention=(attention, "QS"), weights=(weights, "S"), knockout=(knockout, "S", "nan")
    )
    queries, states = attention.shape
    names, ticks = _query_names(query_names, queries, states)
    zmax = _upper_end(zmax, attention)
    uniform = 1.0 / states
    left = _left_margin(ticks)

    rows = [(_HEADER, 92), (_BAR_HEADER, queries * _cell_height(queries)), (_HEADER + 26, 92)]
    domains, height = _stack(rows, _TICKS)
    figure = go.Figure()
    _add_state_bars(figure, weights, ACCENT[theme], decimals=2)
    _add_uniform_line(figure, uniform, palette)
    figure.add_trace(
        _matrix(
            attention,
            names,
            hover=_ATTENTION_HOVER,
            axis="2",
            scale=(STATE_COLORSCALE, 0, zmax),
            colorbar=_color_bar(palette, domains[1][1], [0, zmax]),
            name="layer attention",
        )
    )
    _add_state_bars(figure, knockout, palette.plain, axis="3", decimals=3)
    figure.update_layout(
        xaxis=_state_axis(palette, states, anchor="y", matches="x3", labels=False),
        xaxis2=_state_axis(palette, states, anchor="y2", matches="x3"),
        xaxis3=_state_axis(palette, states, anchor="y3", title="key state"),
        yaxis=_value_axis(palette, domains[0], [*weights, uniform]),
        yaxis2=_query_axis(palette, domains[1], ticks, anchor="x2"),
        yaxis3=_value_axis(palette, domains[2], knockout),
    )
    note = f"column mean; dotted: uniform, {_number(uniform, '.2f')}"
    _add_header(figure, palette, domains[0][1], "Layer weights", note, left)
    _add_header(figure, palette, domains[1][1], "Layer attention", _attention_note(queries), left)
    _add_header(figure, palette, domains[2][1], "Layer knock-out", _escape(knockout_title), left)
    return _finish(figure, palette, height, left=left, title=title)


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
    palette = _palette(theme)
    (attentions,) = _arrays(attentions=(attentions, "NQS"))
    count, queries, states = attentions.shape
    labels = _texts("labels", labels, count)
    if columns < 1:
        raise ValueError(f"columns must be 1 or more, got {columns}")
    columns = min(columns, count)
    zmax = _upper_end(zmax, attentions)
    names, ticks = _query_names(None, queries, states)
    body = queries * (_cell_height(queries) - (6 if columns > 1 else 0))
    gap = 0.07 if columns > 1 else 0.0
    width = (1 - gap * (columns - 1)) / columns

    rows = [(_HEADER + 6, 0)] + [(_HEADER, body)] * math.ceil(count / columns)
    domains, height = _stack(rows, _TICKS)
    figure = go.Figure()
    for index, (attention, label) in enumerate(zip(attentions, labels, strict=True)):
        row, column = divmod(index, columns)
        domain = domains[row + 1]
        start = column * (width + gap)
        axis = str(index + 1) if index else ""
        is_last = index + columns >= count  # of its column
        figure.add_trace(
            _matrix(
                attention,
                names,
                hover="%{text}<br>" + _ATTENTION_HOVER,
                axis=axis,
                text=np.full(attention.shape, _hover_text(label)),
                coloraxis="coloraxis",
                name=_label(label),
            )
        )
        x_axis = _state_axis(
            palette,
            states,
            anchor=f"y{axis}",
            matches="x" if index else None,
            title="key state" if is_last else None,
            labels=is_last,
            most=max(2, 8 // columns),
        )
        y_axis = _query_axis(palette, domain, ticks, anchor=f"x{axis}", labels=column == 0)
        figure.update_layout(
            {f"xaxis{axis}": x_axis | {"domain": [start, start + width]}, f"yaxis{axis}": y_axis}
        )
        lines = _wrap(label, _HOVER_COLUMNS // columns + (columns > 1), most=2)
        _add_text(
            figure,
            "<br>".join(map(_escape, lines)),
            palette,
            hovertext=_hover_text(label),
            x=start,
            y=domain[1],
            borderpad=2,
            font_size=_SMALL,
        )
    color_bar = _color_bar(palette, domains[0][1], [0, zmax])
    figure.update_layout(
        coloraxis=dict(cmin=0, cmax=zmax, colorscale=STATE_COLORSCALE, colorbar=color_bar)
    )
    note = "rows: query state" if queries > 1 else "one query"
    _add_header(figure, palette, domains[0][1], "Layer attention", note)
    return _finish(figure, palette, height)


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
    palette = _palette(theme)
    a, b, weights_a, weights_b = _arrays(
        a=(a, "QS"), b=(b, "QS"), weights_a=(weights_a, "S"), weights_b=(weights_b, "S")
    )
    queries, states = a.shape
    names, ticks = _query_names(None, queries, states)
    difference, weights = b - a, weights_b - weights_a
    limit = _upper_end(None, np.abs(difference))

    rows = [(_HEADER, 0), (_HEADER, 110), (_BAR_HEADER, queries * _cell_height(queries))]
    domains, height = _stack(rows, _TICKS)
    figure = go.Figure()
    _add_state_bars(figure, weights, _signed_colors(weights, palette), decimals=2, signed=True)
    figure.add_trace(
        _matrix(
            difference,
            names,
            hover=_ATTENTION_HOVER.replace(":.3f", ":+.3f"),
            axis="2",
            form="+.2f",
            scale=([list(stop) for stop in DIVERGING[theme]], -limit, limit),
            colorbar=_color_bar(palette, domains[2][1], [-limit, 0, limit]),
            name="difference",
        )
    )
    figure.update_layout(
        xaxis=_state_axis(palette, states, anchor="y", matches="x2", labels=False),
        xaxis2=_state_axis(palette, states, anchor="y2", title="key state"),
        yaxis=_value_axis(palette, domains[1], weights, signed=True),
        yaxis2=_query_axis(palette, domains[2], ticks, anchor="x2"),
    )
    signs = (palette.negative, palette.positive)
    _add_swatches(figure, palette, domains[0][1], label_a, label_b, signs, prefix="more in: ")
    _add_header(figure, palette, domains[1][1], "Layer weights", "difference of the column means")
    _add_header(figure, palette, domains[2][1], "Layer attention", _attention_note(queries))
    return _finish(figure, palette, height)


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
    palette = _palette(theme)
    (weights,) = _arrays(weights=(weights, "NS"))
    count, states = weights.shape
    labels = _texts("labels", labels, count)
    zmax = _upper_end(None, weights)
    mean = weights.mean(axis=0)
    spread = weights.std(axis=0, ddof=1) if count > 1 else None

    domains, height = _stack([(_HEADER, 96), (_BAR_HEADER + 12, count * _ROW)], _TICKS)
    figure = go.Figure()
    _add_state_bars(figure, mean, ACCENT[theme], decimals=2, spread=spread, line=palette.text)
    figure.add_trace(
        _matrix(
            weights,
            [_hover_text(label) for label in labels],
            hover="%{customdata[0]}<br>%{customdata[1]}: <b>%{z:.3f}</b>",
            axis="2",
            ygap=_ROW - _BRICK,
            form=".2f" if weights.size <= 200 else None,
            scale=(STATE_COLORSCALE, 0, zmax),
            colorbar=_color_bar(palette, domains[1][1], [0, zmax], shift=12),
            name="layer weights",
        )
    )
    figure.update_layout(
        xaxis=_state_axis(palette, states, anchor="y", matches="x2", labels=False),
        xaxis2=_state_axis(palette, states, anchor="y2", title="key state"),
        yaxis=_value_axis(palette, domains[0], mean if spread is None else mean + spread),
        yaxis2=_sentence_axis(palette, domains[1], labels, shift=3),
    )
    note = "one sentence" if spread is None else f"± standard deviation, {count} sentences"
    _add_header(figure, palette, domains[0][1], "Mean layer weights", note)
    _add_header(figure, palette, domains[1][1], "Layer weights", "one row a sentence", shift=12)
    return _finish(figure, palette, height)


def state_similarity(similarity: Any, *, theme: str = "light") -> go.Figure:
    """Draw the cosine between the hidden states of one encoder.

    Args:
        similarity: (S, S), cosine of state i (row) and state j (column).
        theme: "light" or "dark".

    The colour scale runs from 0 (or the lowest value, when one is negative) to 1.

    Raises:
        ValueError: the matrix is not square, a value is not finite, or the theme is unknown.
    """
    palette = _palette(theme)
    (similarity,) = _arrays(similarity=(similarity, "SS"))
    states = len(similarity)
    low = min(0.0, float(similarity.min()))
    names, ticks = _query_names(None, states, states)

    domains, height = _stack([(_HEADER + 4, states * _cell_height(states))], _TICKS)
    figure = go.Figure(
        _matrix(
            similarity,
            names,
            hover="%{customdata[0]} and %{customdata[1]}: <b>%{z:.3f}</b>",
            scale=(STATE_COLORSCALE, low, 1),
            colorbar=_color_bar(palette, domains[0][1], [low, 1]),
            name="cosine",
        )
    )
    figure.update_layout(
        xaxis=_state_axis(palette, states, anchor="y", title="hidden state"),
        yaxis=_query_axis(palette, domains[0], ticks, anchor="x"),
    )
    _add_header(figure, palette, domains[0][1], "State similarity", "cosine of hidden states")
    return _finish(figure, palette, height)


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
    palette = _palette(theme)
    arrays = {"values": (values, "PK", "nan")}
    if gold is not None:
        arrays["gold"] = (gold, "P", "nan")
    values, *known_gold = _arrays(**arrays)
    pairs, count = values.shape
    strategies = _texts("strategies", strategies, count)
    labels = _texts("labels", labels, pairs)
    if selected is not None and not 0 <= selected < pairs:
        raise ValueError(f"selected is row {selected}; the rows are 0 to {pairs - 1}")

    figure = go.Figure(_range_lines(values, palette))
    hover = [_hover_text(label) for label in labels]
    for gold in known_gold:
        edge = dict(color=palette.gold, width=3)
        marker = dict(symbol="line-ns", size=13, color=palette.gold, line=edge)
        figure.add_trace(_row_dots("gold", gold, hover, value_format, marker))
    for strategy, scores in zip(strategies, values.T, strict=True):
        marker = _strategy_marker(strategy, theme, size=11)
        figure.add_trace(_row_dots(_escape(strategy), scores, hover, value_format, marker))
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
        xaxis=_score_axis(palette, np.column_stack([values, *known_gold]), _escape(x_title)),
        yaxis=_sentence_axis(palette, (0, 1), labels, shift=11, indent=4),
        showlegend=True,
        legend=_legend(palette),
    )
    legend = 24 * _legend_lines([*strategies, *["gold"] * len(known_gold)])
    return _finish(figure, palette, legend + pairs * 50 + _TICKS, left=4, top=4)


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
    palette = _palette(theme)
    (values,) = _arrays(values=(values, "PK", "nan"))
    pairs, count = values.shape
    strategies = [_escape(name) for name in _texts("strategies", strategies, count)]
    labels = _texts("labels", labels, pairs)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5

    names_height = int(7 * max(map(len, strategies))) + 36  # upright on a phone
    domains, height = _stack([(50, pairs * _ROW)], names_height)
    figure = go.Figure(
        _matrix(
            values,
            [_hover_text(label) for label in labels],
            strategies,
            hover=f"%{{customdata[0]}}<br>%{{customdata[1]}}: <b>%{{z:{value_format}}}</b>",
            ygap=_ROW - _BRICK,
            form=value_format if values.size <= 400 else None,
            scale=(STATE_COLORSCALE, low, high),
            colorbar=_color_bar(palette, domains[0][1], [low, high], value_format, shift=12),
            name=_escape(color_title),
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
            tickfont=dict(size=_SMALL, color=palette.text),
            title=_axis_title(palette, "pooling strategy") | {"standoff": 8},
            fixedrange=True,
        ),
        yaxis=_sentence_axis(palette, domains[0], labels, shift=3),
    )
    title = "<br>".join(map(_escape, _wrap(color_title, 26, most=2)))
    _add_header(figure, palette, domains[0][1], title, "", left=4, shift=12)
    return _finish(figure, palette, height, left=4, bottom=42)


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
    palette = _palette(theme)
    cls, mean = _arrays(cls=(cls, "S"), mean=(mean, "S"))
    names = [_escape(name) for name in references]
    (marks,) = _arrays(references=(list(references.values()), "K", "empty"))
    states = len(cls)
    slot = states - 1 + max(0.7, 0.09 * states)  # where the strategies stand
    span = _padded([*cls, *mean, *marks], 0.08)
    body = max(260, 17 * len(names) + 20)
    per_pixel = (span[1] - span[0]) / body
    first = "last_token" if cls_name.replace("_", " ").startswith("last token") else "cls"

    figure = go.Figure()
    for values, strategy, name in ((cls, first, _escape(cls_name)), (mean, "mean", "mean")):
        figure.add_trace(
            go.Scatter(
                x=np.arange(states),
                y=values,
                mode="lines+markers",
                line=dict(color=strategy_color(strategy, theme), width=2),
                marker=_strategy_marker(strategy, theme, size=7),
                customdata=_state_names(states),
                hovertemplate=f"{name}, %{{customdata}}: <b>%{{y:.3f}}</b><extra></extra>",
                name=name,
            )
        )
    shown = _spread_apart(marks, 16 * per_pixel, span)
    for strategy, name, value, beside in zip(references, names, marks, shown, strict=True):
        color = strategy_color(strategy, theme)
        edge = dict(color=color, width=3)
        figure.add_trace(
            go.Scatter(
                x=[slot],
                y=[value],
                mode="markers",
                marker=dict(symbol="line-ew", size=11, color=color, line=edge),
                cliponaxis=False,
                hovertemplate=f"{name}: <b>%{{y:.3f}}</b><extra></extra>",
                showlegend=False,
                name=name,
            )
        )
        figure.add_annotation(
            text=name,
            x=slot,
            y=value,
            xshift=9,
            ax=24,
            ay=(value - beside) / per_pixel,
            xanchor="left",
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=color,
            borderpad=1,
            font=dict(size=_SMALL, color=palette.text),
        )
    if names:
        figure.add_vline(x=(states - 1 + slot) / 2, line=dict(color=palette.grid, width=1))
    right = int(40 + 6.9 * max(map(len, names))) if names else _RIGHT
    x_axis = _state_axis(palette, states, anchor="y", title="hidden state", most=6 if names else 9)
    figure.update_layout(
        xaxis=x_axis | {"range": [-0.4, slot + 0.25 if names else states - 0.6]},
        yaxis=dict(
            range=span,
            nticks=6,
            gridcolor=palette.grid,
            zeroline=False,
            tickfont=dict(size=_SMALL, color=palette.muted),
            title=_axis_title(palette, "cosine"),
            fixedrange=True,
        ),
        showlegend=True,
        legend=_legend(palette),
    )
    return _finish(figure, palette, 30 + body + _TICKS, left=52, right=right, top=30)


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
    palette = _palette(theme)
    colors = (ACCENT[theme], palette.plain)
    weights_a, weights_b = _arrays(weights_a=(weights_a, "S"), weights_b=(weights_b, "S"))
    states = len(weights_a)
    uniform = 1.0 / states

    domains, height = _stack([(_HEADER, 0), (22, 150)], _TICKS)
    figure = go.Figure()
    sides = (
        (weights_a, label_a, colors[0]),
        (weights_b, label_b, colors[1]),
    )
    for weights, label, color in sides:
        _add_state_bars(figure, weights, color, decimals=2)
        figure.data[-1].update(
            name=_label(label),
            hovertext=[_hover_text(label)] * states,
            hovertemplate="%{hovertext}<br>%{customdata}: <b>%{y:.3f}</b><extra></extra>",
        )
    _add_uniform_line(figure, uniform, palette)
    figure.update_layout(
        xaxis=_state_axis(palette, states, anchor="y", title="key state"),
        yaxis=_value_axis(palette, domains[1], [*weights_a, *weights_b, uniform]),
        barmode="group",
        bargroupgap=0.06,
    )
    _add_swatches(figure, palette, domains[0][1], label_a, label_b, colors)
    note = f"dotted: uniform, {_number(uniform, '.2f')}"
    _add_header(figure, palette, domains[1][1], "", note)
    return _finish(figure, palette, height)


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
    palette = _palette(theme)
    (delta,) = _arrays(delta=(delta, "S", "nan"))
    lines = _wrap(title, 40, most=2)
    domains, height = _stack([(_HEADER + 16 * (len(lines) - 1), 150)], _TICKS)
    figure = go.Figure()
    _add_state_bars(figure, delta, _signed_colors(delta, palette), decimals=3, signed=True)
    figure.update_layout(
        xaxis=_state_axis(palette, len(delta), anchor="y", title="removed state"),
        yaxis=_value_axis(palette, domains[0], delta, signed=True),
    )
    note = "Δ cosine; above zero: closer without the state"
    _add_header(figure, palette, domains[0][1], "<br>".join(map(_escape, lines)), note)
    return _finish(figure, palette, height)


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
    palette = _palette(theme)
    values, low, high = _arrays(
        values=(values, "K", "nan"), low=(low, "K", "nan"), high=(high, "K", "nan")
    )
    strategies = _texts("strategies", strategies, len(values))
    for name, array in (("values", values), ("low", low), ("high", high)):
        if (np.abs(array) > 1).any():
            worst = array[np.nanargmax(np.abs(array))]
            raise ValueError(f"{name} are correlations from -1 to 1, got {worst:g}")
    for strategy, start, end in zip(strategies, low, high, strict=True):
        if start > end:
            raise ValueError(
                f"the interval of {strategy!r} ends at {end:g}, below its start {start:g}"
            )
    order = np.argsort(-values, kind="stable")  # NaN last
    strategies = [strategies[index] for index in order]
    values, low, high = 100 * values[order], 100 * low[order], 100 * high[order]

    figure = go.Figure()
    for row, strategy in enumerate(strategies):
        name = _escape(strategy)
        printed = (
            f"<b>{_number(values[row], '.2f')}</b>  "
            f"[{_number(low[row], '.2f')}, {_number(high[row], '.2f')}]"
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
                marker=_strategy_marker(strategy, theme, size=12),
                customdata=[printed],
                hovertemplate=f"{name}<br>%{{customdata}}<extra></extra>",
                name=name,
            )
        )
        _add_text(
            figure,
            printed,
            palette,
            x=1,
            xanchor="right",
            y=row - 0.5,
            yref="y",
            yanchor="middle",
            yshift=-11,
            font_size=_SMALL,
        )
    figure.update_layout(
        xaxis=_score_axis(palette, [*values, *low, *high], "Spearman × 100 (higher is better →)"),
        yaxis=_sentence_axis(palette, (0, 1), strategies, shift=11, indent=4),
    )
    return _finish(figure, palette, len(strategies) * 50 + _TICKS, left=4)


# --- traces --------------------------------------------------------------------------------------


def _matrix(
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
    names[:, :, 1] = _state_names(values.shape[1]) if columns is None else columns
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
    room = (_PHONE - _LEFT - _RIGHT) / columns - 4
    texts = [[_number(value, form, missing="") for value in row] for row in values]
    for brief in (False, True):
        if brief:
            texts = [[_brief(text) for text in row] for row in texts]
        longest = max(len(text) for row in texts for text in row)
        size = min(_SIZE, int(room / (_DIGIT * max(longest, 1))))
        if size >= _LEAST:
            break
    if size < _LEAST:
        return {}
    is_dark = _luminance(scale, (values - low) / (high - low)) < 0.179
    texts = [
        [
            f'<span style="color:{"#fff" if dark else "#000"}">{text}</span>'
            for text, dark in zip(row, darks, strict=True)
        ]
        for row, darks in zip(texts, is_dark, strict=True)
    ]
    return dict(text=texts, texttemplate="%{text}", textfont=dict(size=size))


def _luminance(scale: Any, shares: np.ndarray) -> np.ndarray:
    """Relative luminance (WCAG 2) of the colours at these shares of a colour scale."""
    stops = get_colorscale(scale) if isinstance(scale, str) else scale
    positions = [position for position, _ in stops]
    colors = np.array([hex_to_rgb(color) for _, color in stops]) / 255.0
    shares = np.clip(np.nan_to_num(shares), 0, 1)
    rgb = np.stack([np.interp(shares, positions, channel) for channel in colors.T], axis=-1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def _add_state_bars(
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
        texts = [_scientific(value, signed) for value in values]
    else:
        texts = [_number(value, f"{sign}.{decimals}f") for value in values]
    if signed and not is_tiny:  # as wide as the others, so that all are shown or none
        texts = [text if text[0] in "+−–" else f"±{text}" for text in texts]
    bar = 0.8 * (_PHONE - _LEFT - _RIGHT) / len(values)
    if max(map(len, texts)) * _DIGIT * _LEAST > bar:
        texts = [_brief(text) for text in texts]
    common = dict(x=np.arange(len(values)), xaxis=f"x{axis}", yaxis=f"y{axis}", cliponaxis=False)
    numbers = dict(text=texts, textposition="outside", textangle=0)
    bars = go.Bar(
        **common,
        y=values,
        marker=dict(color=color),
        customdata=_state_names(len(values)),
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
    clear = dict(color="rgba(0, 0, 0, 0)")
    figure.add_trace(
        go.Bar(**common, **numbers, y=values + spread, marker=clear, hoverinfo="skip", name="top")
    )
    figure.update_layout(barmode="overlay")


def _signed_colors(values: np.ndarray, palette: _Palette) -> list[str]:
    return [palette.negative if value < 0 else palette.positive for value in values]


def _add_uniform_line(figure: go.Figure, uniform: float, palette: _Palette) -> None:
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


def _row_dots(
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
        hovertext=[_number(score, form) for score in scores],
        hovertemplate=f"%{{text}}<br>{name}: <b>%{{hovertext}}</b><extra></extra>",
        name=name,
    )


def _range_lines(values: np.ndarray, palette: _Palette) -> go.Scatter:
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


def _strategy_marker(name: str, theme: str, *, size: int) -> dict[str, Any]:
    """Colour and symbol of a strategy, with an edge that parts dots lying on each other."""
    symbol, color = strategy_symbol(name), strategy_color(name, theme)
    edge = dict(color=BACKGROUND[theme], width=1)
    if symbol.endswith("-open"):
        edge = dict(color=color, width=2)
    if symbol.startswith("star"):
        size += 3
    return dict(symbol=symbol, size=size, color=color, line=edge, opacity=1)


# --- axes and layout -----------------------------------------------------------------------------


def _stack(rows: Sequence[tuple[int, int]], bottom: int) -> tuple[list[tuple[float, float]], int]:
    """Stack rows of (header, body) pixels, first on top.

    Returns the vertical domain of every body, as shares of the plot, and the figure's height with
    `bottom` pixels below the last body.
    """
    total = sum(header + body for header, body in rows)
    domains, used = [], 0
    for header, body in rows:
        top = used + header
        used = top + body
        domains.append((max(0.0, 1 - used / total), 1 - top / total))
    return domains, total + bottom


def _state_axis(
    palette: _Palette,
    states: int,
    *,
    anchor: str,
    matches: str | None = None,
    title: str | None = None,
    labels: bool = True,
    most: int = 9,
) -> dict[str, Any]:
    """Horizontal axis of hidden states; above 13 states only some are named, evenly."""
    step = 1
    if states > 13 or most < 9:
        least = math.ceil((states - 1) / most)
        even = [s for s in range(least, 2 * least + 1) if s and (states - 1) % s == 0]
        step = even[0] if even else max(least, 1)
    shown = list(range(0, states, step))
    return dict(
        anchor=anchor,
        matches=matches,
        range=[-0.5, states - 0.5],
        tickmode="array",
        tickvals=shown,
        ticktext=[state_tick(index) for index in shown],
        tickangle=0,
        ticks="",
        showticklabels=labels,
        showgrid=False,
        zeroline=False,
        tickfont=dict(size=_SIZE, color=palette.muted),
        title=_axis_title(palette, title),
        fixedrange=True,
    )


def _query_axis(
    palette: _Palette,
    domain: tuple[float, float],
    ticks: Sequence[str],
    *,
    anchor: str,
    labels: bool = True,
) -> dict[str, Any]:
    """Vertical axis of query states, embeddings on top as in a printed matrix."""
    count = len(ticks)
    return dict(
        anchor=anchor,
        domain=domain,
        range=[count - 0.5, -0.5],
        tickmode="array",
        tickvals=np.arange(count),
        ticktext=list(ticks),
        ticks="",
        ticklabelstandoff=4,
        showticklabels=labels,
        showgrid=False,
        zeroline=False,
        tickfont=dict(size=_SIZE if count <= 13 else 10, color=palette.muted),
        fixedrange=True,
    )


def _value_axis(
    palette: _Palette, domain: tuple[float, float], values: Any, *, signed: bool = False
) -> dict[str, Any]:
    """Vertical axis of bars, from zero, with room for the numbers beyond their ends."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    low, high = min(0.0, known.min(initial=0.0)), max(0.0, known.max(initial=0.0))
    if low == high:
        high = 1.0
    room = 0.24 * (high - low)
    return dict(
        domain=domain,
        range=[low - room if low < 0 else 0.0, high + room if high > 0 else room],
        nticks=4,
        tickformat="+" if signed else None,
        exponentformat="e",  # not 60µ
        labelalias={"+0": "0"},
        gridcolor=palette.grid,
        zeroline=True,
        zerolinecolor=palette.zero,
        zerolinewidth=1,
        ticklabelstandoff=4,
        tickfont=dict(size=_SMALL, color=palette.muted),
        fixedrange=True,
    )


def _sentence_axis(
    palette: _Palette,
    domain: tuple[float, float],
    labels: Sequence[str],
    *,
    shift: int,
    indent: int = 0,
) -> dict[str, Any]:
    """Vertical axis with one row a sentence, first on top, each named at the top of its row.

    Rows sit at 0, 1, 2, …; a category axis would merge equal sentences into one row. The axis
    stands on the right-hand side of the plot's left edge, which puts the names over the rows;
    `ticklabelposition="inside"` would too, but hides the labels of the other axis. `shift` is
    the distance in pixels from the upper edge of a row to the middle of its name, `indent` that
    from the left edge.
    """
    count = len(labels)
    return dict(
        domain=domain,
        range=[count - 0.5, -0.5],
        tickmode="array",
        tickvals=np.arange(count) - 0.5,
        ticktext=[_label(label) for label in labels],
        side="right",
        anchor="free",
        position=0,
        ticklabelstandoff=indent,
        ticklabelshift=-shift,  # plotly counts upwards
        ticks="",
        showgrid=False,
        zeroline=False,
        tickfont=dict(size=_SIZE, color=palette.text),
        fixedrange=True,
    )


def _score_axis(palette: _Palette, scores: Any, title: str) -> dict[str, Any]:
    """Horizontal axis of dots that stand in rows."""
    return dict(
        range=_padded(scores, 0.06),
        nticks=6,
        gridcolor=palette.grid,
        zeroline=False,
        tickfont=dict(size=_SMALL, color=palette.muted),
        title=_axis_title(palette, title),
        fixedrange=True,
    )


def _axis_title(palette: _Palette, text: str | None) -> dict[str, Any]:
    return dict(text=text, font=dict(size=_SIZE, color=palette.muted), standoff=4)


def _color_bar(
    palette: _Palette, top: float, ticks: Sequence[float], form: str = ".2f", shift: int = 0
) -> dict[str, Any]:
    """Thin horizontal colour bar in the right third of a row's header, `shift` pixels higher."""
    return dict(
        orientation="h",
        x=1,
        xanchor="right",
        y=top,
        yanchor="bottom",
        len=0.36,
        thickness=8,
        xpad=14,
        ypad=4 + shift,
        outlinewidth=0,
        tickvals=list(ticks),
        ticktext=[_number(value, form) for value in ticks],
        ticks="",
        ticklabeloverflow="allow",
        tickfont=dict(size=_SMALL, color=palette.muted),
    )


def _legend(palette: _Palette) -> dict[str, Any]:
    """Horizontal legend above the plot."""
    return dict(
        orientation="h",
        x=0,
        xanchor="left",
        y=1,
        yanchor="bottom",
        font=dict(size=_SIZE, color=palette.text),
        bgcolor="rgba(0, 0, 0, 0)",
        itemwidth=30,
        tracegroupgap=0,
    )


def _legend_lines(names: Sequence[str]) -> int:
    """Lines that a horizontal legend of these names takes on a phone."""
    entry = 44 + 6.8 * max(map(len, names))
    return math.ceil(len(names) / max(1, int((_PHONE - 8) / entry)))


def _add_text(figure: go.Figure, text: str, palette: _Palette, **arguments: Any) -> None:
    """Add a text at a place of the paper; by default left-aligned, with its foot at `y`."""
    defaults = dict(x=0, xref="paper", xanchor="left", yref="paper", yanchor="bottom", align="left")
    size = arguments.pop("font_size", _SIZE)
    figure.add_annotation(
        text=text,
        showarrow=False,
        **{"borderpad": 0, "font": dict(size=size, color=palette.text)} | defaults | arguments,
    )


def _add_header(
    figure: go.Figure,
    palette: _Palette,
    top: float,
    head: str,
    note: str,
    left: int = _LEFT,
    shift: int = 0,
) -> None:
    """Add a bold line and a quiet one above a row, flush with the figure's left edge.

    `head` and `note` are safe texts. `shift` pixels are left free above the row, for the first
    sentence's name.
    """
    lines = [f"<b>{head}</b>"] if head else []
    if note:
        lines.append(f'<span style="color:{palette.muted}">{note}</span>')
    _add_text(figure, "<br>".join(lines), palette, xshift=3 - left, y=top, yshift=5 + shift)


def _add_swatches(
    figure: go.Figure,
    palette: _Palette,
    top: float,
    label_a: str,
    label_b: str,
    colors: tuple[str, str],
    prefix: str = "",
) -> None:
    """Add two lines that say which sentence has which colour."""
    sides = ((colors[0], label_a, 21), (colors[1], label_b, 4))
    for color, label, shift in sides:
        name = _escape(_shorten(label, _LABEL_COLUMNS - len(prefix) + 3 if prefix else 40))
        _add_text(
            figure,
            f'<span style="color:{color}">■</span> {prefix}{name}',
            palette,
            hovertext=_hover_text(label),
            xshift=3 - _LEFT,
            y=top,
            yshift=shift,
        )


def _finish(
    figure: go.Figure,
    palette: _Palette,
    height: int,
    *,
    left: int = _LEFT,
    right: int = _RIGHT,
    top: int = 0,
    bottom: int = _TICKS,
    title: str | None = None,
) -> go.Figure:
    """Set what all figures share: fonts, transparent paper, margins, hover, no dragging."""
    title_lines = _wrap(title, 40, most=2) if title else []
    room = 10 + 18 * len(title_lines) if title_lines else 0
    figure.update_layout(
        template="none",
        height=height + room,
        margin=dict(l=left, r=right, t=top + room, b=bottom, pad=0),
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font=dict(family=_FONT, size=_SIZE, color=palette.text),
        hovermode="closest",
        hoverlabel=dict(
            bgcolor=palette.surface,
            bordercolor=palette.zero,
            font=dict(family=_FONT, size=_SIZE, color=palette.text),
            align="left",
        ),
        modebar=dict(bgcolor="rgba(0, 0, 0, 0)", color=palette.muted, activecolor=palette.text),
        dragmode=False,  # so that a finger on the figure scrolls the page
        uniformtext=dict(minsize=_LEAST, mode="hide"),  # numbers on bars that do not fit
    )
    if figure.layout.showlegend is None:
        figure.update_layout(showlegend=False)
    if title_lines:
        _add_text(
            figure,
            "<b>" + "<br>".join(map(_escape, title_lines)) + "</b>",
            palette,
            xshift=3 - left,
            y=1,
            yanchor="top",
            yshift=room - 3,
            font_size=13,
        )
    halo = ", ".join(f"0 0 {blur}px {palette.background}" for blur in (1, 2, 2, 4))
    figure.update_traces(
        textfont=dict(size=_SIZE, color=palette.text, shadow=halo), selector=dict(type="bar")
    )
    return figure


def _cell_height(rows: int) -> int:
    """Pixels of a heatmap's row: enough for a number up to 13 rows, for a tick label beyond."""
    return 34 if rows == 1 else 28 if rows <= 9 else 24 if rows <= 13 else 16


def _left_margin(ticks: Sequence[str]) -> int:
    return max(_LEFT, int(10 + 7 * max(map(len, ticks))))


def _padded(values: Any, share: float) -> list[float]:
    """Range of the finite values with `share` of its width on both sides."""
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known)]
    if not known.size:
        return [0.0, 1.0]
    low, high = float(known.min()), float(known.max())
    room = share * (high - low) or 0.05
    return [low - room, high + room]


def _spread_apart(values: np.ndarray, gap: float, span: Sequence[float]) -> np.ndarray:
    """Move values as little as needed for neighbours to be `gap` apart, inside `span`.  (K,)

    Least squares under order constraints: values that collide form a block around their mean.
    """
    order = np.argsort(values, kind="stable")
    wanted = values[order] - gap * np.arange(len(values))
    blocks: list[list[float]] = []  # sum, count
    for value in wanted:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    placed = np.array([total / count for total, count in blocks for _ in range(int(count))])
    upper = span[1] - gap * (len(values) - 0.5)
    placed = np.clip(placed, span[0] + gap / 2, max(upper, span[0] + gap / 2))
    spread = np.empty_like(values)
    spread[order] = placed + gap * np.arange(len(values))
    return spread


# --- texts ---------------------------------------------------------------------------------------


def _number(value: float, form: str, missing: str = "–") -> str:
    """Format a number with a true minus sign; −0.00 is 0.00, a missing number is a dash."""
    if math.isnan(value):
        return missing
    text = format(float(value), form)
    if not text.strip("+-0.,%"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _scientific(value: float, signed: bool) -> str:
    """Print a tiny number with one digit, 0.00006 as 6e-5; 0 stays 0."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits, exponent = f"{value:{'+' if signed else ''}.0e}".split("e")
    return f"{digits.replace('-', '−')}e−{abs(int(exponent))}"


def _brief(text: str) -> str:
    """Leave out what says least in a printed share or cosine: 0.14 is .14, and 1.00 is 1."""
    sign = text[:1] if text[:1] in ("+", "−", "±") else ""
    number = text.removeprefix(sign)
    if number.startswith("0."):
        return sign + number[1:]
    return sign + "1" if number.rstrip("0") == "1." else text


def _clusters(text: str) -> Iterator[str]:
    """Split a text into what a reader sees as one character, so that cuts keep emoji whole."""
    cluster = ""
    for character in text:
        code = ord(character)
        joins = (
            unicodedata.category(character) in ("Mn", "Me", "Mc")
            or character == "\u200d"  # zero-width joiner
            or cluster.endswith("\u200d")
            or 0x1F3FB <= code <= 0x1F3FF  # skin tones
            or 0xE0020 <= code <= 0xE007F  # tags in flags
            or (_is_flag_letter(character) and len(cluster) == 1 and _is_flag_letter(cluster))
        )
        if cluster and not joins:
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _is_flag_letter(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF


def _columns(text: str) -> int:
    """Width of a text in columns: East Asian characters and emoji take two."""
    return sum(
        2 if unicodedata.east_asian_width(c[0]) in "WF" or ord(c[0]) >= 0x1F000 else 1
        for c in _clusters(text)
    )


def _clean(text: str) -> str:
    """Put a text on one line, without control characters or broken surrogates."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split()) or "(empty)"


def _shorten(text: str, columns: int) -> str:
    """Cut a text to so many columns, the last one an ellipsis."""
    text = _clean(text)
    if _columns(text) <= columns:
        return text
    return _cut(text, columns - 1) + "…"


def _cut(text: str, columns: int) -> str:
    """The beginning of a text, at most so many columns wide."""
    kept, used = "", 0
    for cluster in _clusters(text):
        used += _columns(cluster)
        if used > columns:
            break
        kept += cluster
    return kept.rstrip()


def _wrap(text: str, columns: int, most: int | None = None) -> list[str]:
    """Break a text into lines of so many columns, the last of `most` lines shortened."""
    lines = [""]
    for word in _clean(text).split(" "):
        if lines[-1] and _columns(lines[-1]) + 1 + _columns(word) > columns:
            lines.append("")
        elif lines[-1]:
            lines[-1] += " "
        for cluster in _clusters(word):
            if _columns(lines[-1]) + _columns(cluster) > columns:
                lines.append("")
            lines[-1] += cluster
    if most and len(lines) > most:
        lines = [*lines[: most - 1], _cut(lines[most - 1], columns - 1) + "…"]
    return lines


def _escape(text: str) -> str:
    """Make a text safe for plotly's HTML subset and for MathJax, and keep its direction.

    Quotes stay: plotly does not decode them, and without "<" they open nothing. A text with
    right-to-left letters is isolated, so that its ellipsis and full stop stay at its own end.
    """
    escaped = html.escape(text, quote=False).replace("$", "&#36;")
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
        return f"\u2068{escaped}\u2069"
    return escaped


def _label(text: str) -> str:
    """A sentence or a pair for an axis: shortened and escaped.

    A pair "first ↔ second" is shortened on both sides, each side with its own direction.
    """
    sides = _clean(text).split(_PAIR)
    if len(sides) != 2:
        return _escape(_shorten(text, _LABEL_COLUMNS))
    room = _LABEL_COLUMNS - len(_PAIR)
    first, second = map(_columns, sides)
    left = max(room // 2, room - second)
    right = max(room // 2, room - first)
    return _PAIR.join([_escape(_shorten(sides[0], left)), _escape(_shorten(sides[1], right))])


def _hover_text(text: str) -> str:
    """The full text for a hover: wrapped and escaped, the sides of a pair on lines of their own."""
    sides = _clean(text).split(_PAIR)
    if len(sides) == 2:
        sides[1] = _PAIR.lstrip() + sides[1]
    else:
        sides = [text]
    return "<br>".join(_escape(line) for side in sides for line in _wrap(side, _HOVER_COLUMNS))


def _attention_note(queries: int) -> str:
    return "query (row) → key state (column)" if queries > 1 else "one query → key state"


def _state_names(states: int) -> list[str]:
    return [state_name(index) for index in range(states)]


def _query_names(
    names: Sequence[str] | None, queries: int, states: int
) -> tuple[list[str], list[str]]:
    """Full names (for hovers) and ticks of the Q query states."""
    if names is not None:
        names = _texts("query_names", names, queries)
        return [_escape(_clean(name)) for name in names], [
            _escape(_shorten(name, 14)) for name in names
        ]
    if queries not in (1, states):
        raise ValueError(f"Q = {queries} query states; without query_names Q is 1 or S = {states}")
    indices = range(states) if queries == states else [states - 1]
    return [state_name(index) for index in indices], [state_tick(index) for index in indices]


# --- checks --------------------------------------------------------------------------------------


def _palette(theme: str) -> _Palette:
    if theme not in _PALETTES:
        raise ValueError(f"theme is {theme!r}; accepted are 'light' and 'dark'")
    return _PALETTES[theme]


def _arrays(**specs: tuple[Any, ...]) -> list[np.ndarray]:
    """Copy inputs to float64 arrays after checking their shapes against each other.

    Every keyword is an argument's name with (value, shape letters, permissions): one letter a
    dimension, equal letters must have equal sizes. Permissions are "nan" (missing numbers) and
    "empty" (no entries).
    """
    sizes: dict[str, tuple[int, str]] = {}
    arrays = []
    for name, (value, letters, *permissions) in specs.items():
        array = np.array(value, dtype=np.float64)
        shape = f"({', '.join(letters)})"
        if array.ndim != len(letters):
            raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
        for letter, size in zip(letters, array.shape, strict=True):
            known, owner = sizes.setdefault(letter, (size, name))
            if size != known:
                raise ValueError(
                    f"{name} has shape {array.shape}; expected {shape} with {letter} = {known}"
                    + (f" as in {owner}" if owner != name else "")
                )
        if array.size == 0 and "empty" not in permissions:
            raise ValueError(f"{name} is empty: its shape is {array.shape}")
        if not np.isfinite(array).all():
            if "nan" not in permissions:
                raise ValueError(f"{name} has values that are not finite")
            if np.isinf(array).any():
                raise ValueError(f"{name} has infinite values; use NaN for what is missing")
        arrays.append(array)
    return arrays


def _texts(name: str, texts: Sequence[str], count: int) -> list[str]:
    if isinstance(texts, str):
        raise ValueError(f"{name} is one text, {texts!r}; expected a list of {count}")
    texts = [str(text) for text in texts]
    if len(texts) != count:
        raise ValueError(f"{name} has {len(texts)} entries; expected {count}")
    return texts


def _upper_end(zmax: float | None, values: np.ndarray) -> float:
    """Upper end of a colour scale from zero: as asked for, else the largest value."""
    if zmax is None:
        return float(values.max()) or 1.0
    if not (math.isfinite(zmax) and zmax > 0):
        raise ValueError(f"zmax must be a number above 0, got {zmax}")
    return float(zmax)
