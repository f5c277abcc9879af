"""Figure of pairs by their gold score and their predicted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.layout import (
    HEADER,
    TICKS,
    add_header,
    finish,
    free_axis,
    header_color_bar,
    padded,
    stack,
)
from lwap.figures.marks import CLICKABLE
from lwap.figures.style import (
    ACCENT,
    growing_scale,
    palette_of,
)
from lwap.figures.texts import (
    clean,
    escape,
    format_number,
    hover_text,
)

_FEW_SCORES = 30  # distinct gold scores at which points begin to lie on each other
_WEBGL_FROM = 1500  # pairs; fewer are drawn sharper, and saved, as SVG


def gold_scatter(
    gold: Any,
    predicted: Any,
    *,
    labels: Sequence[str],
    selected: Sequence[int] | None = None,
    y_title: str = "Cosine",
    slices: Mapping[str, Any] | None = None,
    theme: str = "light",
) -> go.Figure:
    """Draw every pair by its gold score and its predicted one, the worst mistakes standing out.

    A pair's rank error is the distance between its ranks by the two scores, in percent of the P
    pairs; ties have their average rank, as in Spearman's correlation. `customdata` of every point
    is [its index]. Where there are few gold scores, points are moved a little to both sides.

    Args:
        gold: (P,), gold scores; a pair with NaN is left out and takes no rank.
        predicted: (P,), predicted scores; NaN as above.
        labels: P pairs, for instance "first ↔ second".
        selected: indices of pairs to draw on top in the accent colour.
        y_title: what the predicted scores are.
        slices: slice name → (P,) whether a pair belongs to it, for the hover.
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is infinite, `selected` names no pair, or the theme
            is unknown.
    """
    palette = palette_of(theme)
    slices = dict(slices or {})
    members = {f"slice {name!r}": (mask, "P") for name, mask in slices.items()}
    gold, predicted, *masks = checked_arrays(
        gold=(gold, "P", "nan"), predicted=(predicted, "P", "nan"), **members
    )
    labels = checked_texts("labels", labels, len(gold))
    chosen = sorted({int(index) for index in selected}) if selected is not None else []
    for index in chosen:
        if not 0 <= index < len(gold):
            raise ValueError(f"selected names pair {index}; the pairs are 0 to {len(gold) - 1}")
    known = np.flatnonzero(np.isfinite(gold + predicted))
    error = np.full(len(gold), np.nan)
    error[known] = 100 * np.abs(_ranks(gold[known]) - _ranks(predicted[known])) / max(len(known), 1)
    order = known[np.argsort(error[known], kind="stable")]  # the worst are drawn last
    x = gold + _jitter(gold)
    top = float(error[known].max(initial=0)) or 1.0
    hover = [
        _pair_hover(
            labels[index],
            (gold[index], predicted[index], error[index]),
            [name for name, mask in zip(slices, masks, strict=True) if mask[index]],
            y_title,
        )
        for index in order
    ]
    size = 9 if len(order) <= 300 else 7 if len(order) <= _WEBGL_FROM else 5
    trace = go.Scattergl if len(order) > _WEBGL_FROM else go.Scatter
    domains, height = stack([(HEADER + 6, 380)], TICKS)
    color_bar = header_color_bar(palette, domains[0][1], [0, top], form=".0f")
    figure = go.Figure()
    figure.add_trace(
        trace(
            x=x[order],
            y=predicted[order],
            mode="markers",
            marker=dict(
                size=size,
                color=error[order],
                cmin=0,
                cmax=top,
                colorscale=growing_scale(theme),
                colorbar=color_bar,
                line=dict(width=0),
                opacity=0.9,
            ),
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            customdata=order[:, None].tolist(),
            selected=dict(marker=dict(opacity=0.9)),
            unselected=dict(marker=dict(opacity=0.9)),
            name="pairs",
        )
    )
    texts = dict(zip(order.tolist(), hover, strict=True))
    chosen = [index for index in chosen if index in texts]
    if chosen:
        edge = dict(color=ACCENT[theme], width=3)
        figure.add_trace(
            trace(
                x=x[chosen],
                y=predicted[chosen],
                mode="markers",
                marker=dict(symbol="circle-open", size=size + 7, color=ACCENT[theme], line=edge),
                hovertext=[texts[index] for index in chosen],
                customdata=[[index] for index in chosen],
                **CLICKABLE,
                name="selected",
            )
        )
    y_axis = free_axis(palette, padded(predicted[known], 0.06), escape(y_title))
    figure.update_layout(
        xaxis=free_axis(palette, padded(x[known], 0.04), "gold score"),
        yaxis=y_axis | {"domain": domains[0]},
    )
    note = "distance between the two ranks" if len(known) else "no pair has both scores"
    add_header(figure, palette, domains[0][1], "Rank error, % of pairs", note, left=52)
    return finish(figure, palette, height, left=52)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties with their average.  (P,)"""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def _jitter(values: np.ndarray) -> np.ndarray:
    """Offsets that part points of equal value, up to a quarter of the way to the next.  (P,)

    Only where values are few for their number. The steps of the golden ratio spread any count of
    points evenly, and every call alike.
    """
    offsets = np.zeros_like(values)
    distinct, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    if not 1 < len(distinct) <= _FEW_SCORES or counts.max() < 3:
        return offsets
    reach = min(0.25 * np.diff(distinct).min(), 0.04 * np.ptp(distinct))
    for value in distinct:
        rows = np.flatnonzero(values == value)
        offsets[rows] = reach * (2 * (np.arange(len(rows)) * 0.618034 % 1) - 1)
    return offsets


def _pair_hover(
    label: str, numbers: tuple[float, float, float], slices: Sequence[str], y_title: str
) -> str:
    gold, predicted, error = numbers
    lines = [
        hover_text(label, most=3),
        f"gold score: <b>{format_number(gold, '.2f')}</b>",
        f"{escape(y_title)}: <b>{format_number(predicted, '.3f')}</b>",
        f"rank error: {format_number(error, '.1f')} % of pairs",
    ]
    if slices:
        lines.append(f"in {', '.join(escape(clean(name)) for name in slices)}")
    return "<br>".join(lines)
