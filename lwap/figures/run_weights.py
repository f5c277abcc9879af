"""Figure of the layer weights of a run, evaluation by evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import left_margin, query_axis
from lwap.figures.checks import check_within
from lwap.figures.labels import centred
from lwap.figures.marks import cell_height, upright
from lwap.figures.panels import BAR_HEADER, Panel, color_bar, compose
from lwap.figures.run import REVISION, RunCurves, nothing, step_axis
from lwap.figures.style import palette_of
from lwap.figures.template import RIGHT, SMALL
from lwap.names import state_names

_HOVER = "%{y}, step %{customdata:,d}: <b>%{z:.3f}</b><extra></extra>"


def weights_over_time(run: RunCurves, *, theme: str = "light") -> go.Figure:
    """Draw how the mean layer weights moved: a row a hidden state, a column a dev evaluation.

    A column stands at its step and reaches half-way to its neighbours. Of more than 400
    evaluations an even part is drawn, with the best one. The scale ends at the largest weight,
    rounded up to 0.05, so that the colours of a run that goes on seldom change.

    Args:
        run: a run of a pooling with layer weights.

    Raises:
        ValueError: the run has no layer weights, or a weight is outside 0 to 1.
    """
    palette = palette_of(theme)
    weights = run.layer_weights
    if weights is None:
        raise ValueError(f"{run.name!r} has no layer weights; its pooling does not weigh layers")
    check_within("layer_weights", weights, -1e-6, 1 + 1e-6, "weights")
    states = weights.shape[1]
    names, x_axis = state_names(states), step_axis([run], 8)
    traces, notes, shapes = [], [], []
    if np.isfinite(weights).any():
        traces.append(_heatmap(run, x_axis["range"]))
    else:
        notes.append(centred(nothing([run]), palette))
    said = "mean over the dev set"
    if run.best is not None:
        said = f"▼ best step, {run.best:,}"
        lines = ((palette.background, "solid", 2.5), (palette.text, "dot", 1.5))
        shapes = [
            upright(run.best, color, line_dash=dash, line_width=width, layer="above", name="best")
            for color, dash, width in lines
        ]
        top = dict(x=run.best, yref="y domain", y=1, xanchor="center", yshift=-4)
        notes.append(top | dict(text="▼", font_size=SMALL))
    panel = Panel(
        max(states, 4) * (cell_height(states) - 4 if states <= 13 else cell_height(states)),
        traces,
        query_axis(names) if states else dict(range=[1, 0], showticklabels=False),
        head="Layer weights",
        note=said,
        header=BAR_HEADER + 10,
        lift=12,
        annotations=notes,
        shapes=shapes,
    )
    margin = dict(l=left_margin(names or [""]) + 6, r=RIGHT + 4)
    return compose([panel], x_axis, palette, margin=margin, uirevision=REVISION)


def _heatmap(run: RunCurves, span: Sequence[float]) -> go.Heatmap:
    """Build one column a dev evaluation.  span: of the axis of steps"""
    kept = run.drawn_evaluations()
    steps, weights = run.dev_steps[kept], run.layer_weights
    top = math.ceil(20 * float(np.nanmax(weights, initial=0.05)) - 1e-9) / 20
    states = weights.shape[1]
    return go.Heatmap(
        x=_edges(steps, *span),
        y=np.arange(states),
        z=weights[kept].T.astype(np.float32),
        zmin=0,
        zmax=top,
        colorbar=color_bar([0, top]),
        xgap=0,
        ygap=0,
        customdata=np.broadcast_to(steps.astype(np.int32), (states, len(kept))),
        hovertemplate=_HOVER,
        name="layer weights",
    )


def _edges(at: np.ndarray, low: float, high: float) -> np.ndarray:
    """Edges of columns half-way between their steps, inside the axis.  at: (M,) -> (M + 1,)"""
    gaps = np.diff(at) / 2
    first, last = (gaps[0], gaps[-1]) if len(gaps) else ((high - low) / 40,) * 2
    edges = np.concatenate([[at[0] - first], at[:-1] + gaps, [at[-1] + last]])
    return np.clip(edges, low, high)
