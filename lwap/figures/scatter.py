"""Figure of pairs by their gold score and their predicted one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import free_axis, padded
from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.marks import OWN_HOVER
from lwap.figures.panels import HEADER, Panel, color_bar, compose
from lwap.figures.points import checked_rows
from lwap.figures.style import growing_scale, palette_of
from lwap.figures.texts import escape, format_number, hover_text

_FEW_SCORES = 30  # distinct gold scores at which points begin to lie on each other
_WEBGL_FROM = 1500  # pairs; fewer are drawn sharper, and saved, as SVG
_HEIGHT = 380  # px
_OPACITY = 0.9


def gold_scatter(
    gold: Any,
    predicted: Any,
    *,
    labels: Sequence[str],
    selected: Sequence[int] | None = None,
    y_title: str = "Cosine",
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

    Raises:
        ValueError: `selected` names no pair.
    """
    palette = palette_of(theme)
    gold, predicted = checked_arrays(gold=(gold, "P", "nan"), predicted=(predicted, "P", "nan"))
    labels = checked_texts("labels", labels, len(gold))
    error = _rank_errors(gold, predicted)
    order = np.argsort(error, kind="stable")[: np.isfinite(error).sum()]  # the worst on top
    chosen = checked_rows("selected", () if selected is None else selected, len(gold), "pair")
    x = gold + _jitter(gold)
    scatter = go.Scattergl if len(order) > _WEBGL_FROM else go.Scatter
    size = 9 if len(order) <= 300 else 7 if len(order) <= _WEBGL_FROM else 5

    def points(rows: np.ndarray, name: str, marker: dict[str, Any]) -> Any:
        hover = [
            f"{hover_text(labels[row], most=3)}<br>"
            f"gold score: <b>{format_number(gold[row], '.2f')}</b><br>"
            f"{escape(y_title)}: <b>{format_number(predicted[row], '.3f')}</b><br>"
            f"rank error: {format_number(error[row], '.1f')} % of pairs"
            for row in rows
        ]
        place = dict(x=x[rows], y=predicted[rows], customdata=rows[:, None].tolist())
        common = dict(mode="markers", hovertext=hover, **OWN_HOVER)
        return scatter(**place, **common, marker=marker, name=name)

    steady = dict(marker_opacity=_OPACITY)
    colors = _error_colors(error[order], theme) | dict(size=size, opacity=_OPACITY)
    traces = [points(order, "pairs", colors).update(selected=steady, unselected=steady)]
    chosen = chosen[np.isfinite(error[chosen])]
    if chosen.size:
        edge = dict(color=palette.accent, width=3)
        ring = dict(symbol="circle-open", size=size + 7, color=palette.accent, line=edge)
        traces.append(points(chosen, "selected", ring))
    note = "distance between the two ranks" if len(order) else "no pair has both scores"
    y_axis = free_axis(padded(predicted[order], 0.06), escape(y_title))
    panel = Panel(_HEIGHT, traces, y_axis, "Rank error, % of pairs", note, header=HEADER + 6)
    x_axis = free_axis(padded(x[order], 0.04), "gold score")
    return compose([panel], x_axis, palette, margin=dict(l=52))


def _rank_errors(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Distance between the ranks by both scores in percent of the pairs that have both.  (P,)"""
    known = np.isfinite(gold + predicted)
    errors = np.full(len(gold), np.nan)
    distance = np.abs(_ranks(gold[known]) - _ranks(predicted[known]))
    errors[known] = 100 * distance / max(known.sum(), 1)
    return errors


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


def _error_colors(errors: np.ndarray, theme: str) -> dict[str, Any]:
    """Part of a marker: the colours of the errors, on a scale from zero."""
    top = float(errors.max(initial=0)) or 1.0
    bar = color_bar([0, top], ".0f")
    scale = dict(cmin=0, cmax=top, colorscale=growing_scale(theme), colorbar=bar)
    return scale | dict(color=errors, line=dict(width=0))
