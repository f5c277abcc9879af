"""Figures of what a training run has changed: layer weights and pairs, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.layout import (
    HEADER,
    SMALL,
    TICKS,
    add_header,
    count_legend_lines,
    finish,
    halo,
    score_axis,
    sentence_axis,
    stack,
    state_axis,
    top_legend,
    value_axis,
)
from lwap.figures.marks import CLICKABLE, add_state_bars, add_uniform_line, steady
from lwap.figures.style import ACCENT, CLEAR, palette_of, signed_colors, translucent
from lwap.figures.texts import escape, format_number, hover_text, shorten

_REVISION = "training"  # the same always: what a click has hidden stays so when drawn anew
_LEGEND_LINE = 20  # px


def weights_before_after(weights: Mapping[str, Any], *, theme: str = "light") -> go.Figure:
    """Draw the mean layer weights of a model before and after, and their difference.

    Args:
        weights: what the model is called → its weights (S,), in order of time, at most 4; None
            leaves one out, and with only one there is no difference. The difference is that of
            the last to the first.
        theme: "light" or "dark".

    Raises:
        ValueError: there are no weights or more than 4, shapes disagree, a weight is not finite,
            or the theme is unknown.
    """
    palette = palette_of(theme)
    given = {name: values for name, values in weights.items() if values is not None}
    if not 1 <= len(given) <= 4:
        raise ValueError(f"weights has {len(given)} states of a model; expected 1 to 4")
    arrays = checked_arrays(**{f"weights[{name!r}]": (v, "S") for name, v in given.items()})
    states = len(arrays[0])
    uniform = 1.0 / states
    colors = [ACCENT[theme]]
    if len(arrays) > 1:
        colors.insert(0, palette.plain)
    for share in np.linspace(0.7, 0.4, max(len(arrays) - 2, 0)):
        colors.insert(1, translucent(ACCENT[theme], round(float(share), 2)))

    rows = [(HEADER, 150)]
    if len(arrays) > 1:
        rows.append((HEADER + 8, 92))
    domains, height = stack(rows, TICKS)
    figure = go.Figure()
    for name, values, color in zip(given, arrays, colors, strict=True):
        add_state_bars(figure, values, color, decimals=2)
        figure.data[-1].update(
            name=escape(shorten(name, 30)),
            hovertemplate=("%{fullData.name}<br>%{customdata}: <b>%{y:.3f}</b><extra></extra>"),
        )
    add_uniform_line(figure, uniform, palette)
    figure.update_layout(
        xaxis=state_axis(palette, states, anchor="y", title="hidden state"),
        yaxis=value_axis(palette, domains[0], [*np.concatenate(arrays), uniform]),
        barmode="group",
        bargroupgap=0.06,
        showlegend=len(arrays) > 1,
        legend=top_legend(palette),
        uirevision=_REVISION,
    )
    note = f"dotted: uniform, {format_number(uniform, '.2f')}"
    add_header(figure, palette, domains[0][1], "Mean layer weights", note)
    if len(arrays) > 1:
        difference = arrays[-1] - arrays[0]
        shown = signed_colors(difference, palette)
        add_state_bars(figure, difference, shown, axis="2", decimals=2, signed=True)
        figure.data[-1].update(showlegend=False, name="difference")
        figure.update_layout(
            xaxis=dict(showticklabels=False, title=None, matches="x2"),
            xaxis2=state_axis(palette, states, anchor="y2", title="hidden state"),
            yaxis2=value_axis(palette, domains[1], difference, signed=True),
        )
        first, *_, last = (escape(shorten(name, 20)) for name in given)
        add_header(figure, palette, domains[1][1], "Difference", f"{last} − {first}")
    legend = 0
    if len(arrays) > 1:
        legend = _LEGEND_LINE * count_legend_lines([shorten(name, 30) for name in given])
    return finish(figure, palette, legend + height, top=legend)


def moved_pairs(
    before: Any,
    after: Any,
    labels: Sequence[str],
    *,
    gold: Any = None,
    most: int = 12,
    x_title: str = "cosine",
    value_format: str = ".3f",
    names: tuple[str, str] = ("before", "after"),
    theme: str = "light",
) -> go.Figure:
    """Draw the pairs whose score moved most: one row a pair, from before to after.

    The largest movement is on top; a pair without both scores is left out. Orange pairs rose,
    purple ones fell. `customdata` of every dot is [index of the pair].

    Args:
        before: (P,), scores before; NaN where unknown.
        after: (P,), scores after, on the same scale; NaN as above.
        labels: P pairs, for instance "first ↔ second", whole in the hover; equal ones keep rows
            of their own.
        gold: (P,), reference scores on the same scale, NaN where unknown; no marks if None.
        most: rows that are drawn.
        x_title: what the scale is, with its unit.
        value_format: Python format of a score.
        names: what before and after are called.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is infinite, `most` is below 1, or the theme is
            unknown.
    """
    palette = palette_of(theme)
    arrays = {"before": (before, "P", "nan", "empty"), "after": (after, "P", "nan", "empty")}
    if gold is not None:
        arrays["gold"] = (gold, "P", "nan", "empty")
    before, after, *known_gold = checked_arrays(**arrays)
    labels = checked_texts("labels", labels, len(before))
    if most < 1:
        raise ValueError(f"most must be 1 or more, got {most}")
    safe = [escape(shorten(name, 16)) for name in checked_texts("names", names, 2)]
    moves = after - before
    known = np.flatnonzero(np.isfinite(moves))
    order = known[np.argsort(-np.abs(moves[known]), kind="stable")][:most]

    numbers = [before[order], after[order], *(gold[order] for gold in known_gold)]
    moves = moves[order]
    colors = signed_colors(moves, palette)
    domains, height = stack([(HEADER, max(len(order), 1) * 50)], TICKS)
    figure = go.Figure()
    for color in dict.fromkeys(colors):
        chosen = np.flatnonzero(np.array(colors) == color)
        gap = np.full(len(chosen), np.nan)
        ends = np.stack([numbers[0][chosen], numbers[1][chosen], gap], axis=1)
        figure.add_trace(
            go.Scatter(
                x=ends.ravel(),
                y=np.stack([chosen, chosen, gap], axis=1).ravel(),
                mode="lines",
                line=dict(color=color, width=3),
                hoverinfo="skip",
                name="rose" if color == palette.positive else "fell",
            )
        )
    hover = [
        _pair_hover(labels[pair], safe, [array[row] for array in numbers], value_format)
        for row, pair in enumerate(order)
    ]
    marks: list[tuple[str, dict[str, Any]]] = [
        (safe[0], dict(symbol="circle", size=10, color=palette.background)),
        (safe[1], dict(symbol="circle", size=12, color=colors)),
        ("gold", dict(symbol="line-ns", size=12, color=palette.gold)),
    ]
    edges = (
        dict(color=colors, width=2),
        dict(color=palette.background, width=1),
        dict(color=palette.gold, width=3),
    )
    for (name, marker), edge, scores in zip(marks, edges, numbers, strict=False):
        figure.add_trace(
            go.Scatter(
                x=scores,
                y=np.arange(len(order)),
                mode="markers",
                marker=marker | dict(line=edge, opacity=1),
                customdata=order[:, None].tolist(),
                hovertext=hover,
                name=name,
                **CLICKABLE,
            )
        )
    figure.add_trace(
        go.Scatter(
            x=(numbers[0] + numbers[1]) / 2,
            y=np.arange(len(order)),
            mode="markers+text",
            marker=dict(size=12, color=CLEAR),  # the text stands below it
            text=[format_number(move, f"+{value_format}") for move in moves],
            textposition="bottom center",
            textfont=dict(size=SMALL, color=palette.text, shadow=halo(palette)),
            hoverinfo="skip",
            name="movement",
            **steady(palette.text),
        )
    )
    axis = score_axis(palette, np.concatenate(numbers), escape(x_title))
    figure.update_layout(
        xaxis=axis,
        yaxis=sentence_axis(
            palette, domains[0], [labels[pair] for pair in order], shift=11, indent=4
        ),
        uirevision=_REVISION,
    )
    if not len(order):
        figure.update_layout(yaxis=dict(range=[0.5, -0.5]))
    key = f"○ {safe[0]} → ● {safe[1]}" + (", ┃ gold" if known_gold else "")
    if not len(order):
        key = "no pair has both scores"
    add_header(figure, palette, domains[0][1], "Pairs that moved most", key, left=4)
    return finish(figure, palette, height, left=4)


def _pair_hover(label: str, names: Sequence[str], scores: Sequence[float], form: str) -> str:
    lines = [hover_text(label)]
    for name, score in zip((*names, "gold"), scores, strict=False):
        lines.append(f"{name}: <b>{format_number(score, form)}</b>")
    lines.append(f"movement: <b>{format_number(scores[1] - scores[0], f'+{form}')}</b>")
    return "<br>".join(lines)
