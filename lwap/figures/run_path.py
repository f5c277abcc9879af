"""Figure of training runs as paths in the plane of alignment and uniformity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis
from lwap.figures.labels import Label, beside, centred
from lwap.figures.panels import compose
from lwap.figures.plane import PLANE_LEFT, PLANE_WIDTHS, plane_axis, plane_panel
from lwap.figures.run import (
    REVISION,
    RunCurves,
    best_marker,
    checked_runs,
    nothing,
    range_of,
    strokes,
)
from lwap.figures.style import Palette, palette_of, translucent
from lwap.figures.texts import clean, colored, escape, shorten

_HEIGHT = 340  # px
_MANY = 60  # evaluations, above which their marks are smaller
_DOT, _SMALL_DOT = 5, 3  # px
_OBSTACLES = 120  # points that stand for the lines where labels are placed
_END = 10  # px, half of an end of a path
_HOVER = (
    "%{fullData.name}<br>step %{customdata[1]:,d}<br>uniformity <b>%{x:.3f}</b><br>"
    "alignment <b>%{y:.3f}</b><extra></extra>"
)


@dataclass(frozen=True)
class _Path:
    """The evaluations of a run that have both numbers."""

    index: int  # of the run
    run: RunCurves
    color: str
    steps: np.ndarray  # (M,)
    points: np.ndarray  # (M, 2), uniformity and alignment

    @property
    def best(self) -> list[int]:
        """Index of the best evaluation, if it is among them."""
        return np.flatnonzero(self.steps == self.run.best).tolist()


def alignment_uniformity_path(
    runs: RunCurves | Sequence[RunCurves], *, theme: str = "light"
) -> go.Figure:
    """Draw the path of runs in the plane of alignment and uniformity, one dev evaluation a point.

    The first point is hollow, the last one an arrowhead, the best one a diamond. Both measures are
    better when lower. An evaluation without both numbers is left out. `customdata` of every point
    is [index of the run, its step].

    Args:
        runs: one run, or up to 6 to be compared.

    Raises:
        ValueError: there is no run or more than 6.
    """
    palette = palette_of(theme)
    runs = checked_runs(runs)
    colors = [color for color, _ in strokes(runs, palette)]
    paths = [_path(index, *pair) for index, pair in enumerate(zip(runs, colors, strict=True))]
    everything = np.concatenate([path.points for path in paths])
    spans = range_of(everything[:, 0], 0.1), range_of(everything[:, 1], 0.02)
    note = "○ first evaluation, ➤ last" + (", ◆ best" if any(path.best for path in paths) else "")
    traces = [trace for path in paths if len(path.steps) for trace in _traces(path, palette)]
    names = _names(paths, spans, palette)
    if not traces:
        names = [centred(nothing(runs), palette)]
    panel = plane_panel(_HEIGHT, traces, spans[1], note=note, annotations=names)
    figure = compose(
        [panel], plane_axis(spans[0]), palette, margin=dict(l=PLANE_LEFT), uirevision=REVISION
    )
    ticks = dict(showticklabels=bool(traces))
    return figure.update_xaxes(ticks).update_yaxes(ticks)


def _path(index: int, run: RunCurves, color: str) -> _Path:
    kept = run.drawn_evaluations()
    points = np.stack([run.uniformity[kept], run.alignment[kept]], axis=1)
    is_known = np.isfinite(points).all(axis=1)
    return _Path(index, run, color, run.dev_steps[kept][is_known], points[is_known])


def _traces(path: _Path, palette: Palette) -> list[go.Scatter]:
    """Build the points on a line, the arrowhead at its end, and the diamond."""
    count, color = len(path.steps), path.color
    dots = max(count - 1, 1)  # the last one of several is an arrowhead
    small = _DOT if count <= _MANY else _SMALL_DOT
    x, y = path.points.T.astype(np.float32)
    data = np.stack([np.full(count, path.index), path.steps], axis=1).astype(np.int32)
    common = dict(hovertemplate=_HOVER, name=escape(clean(path.run.name)))
    marker = dict(
        size=[11, *[small] * (dots - 1), *[0] * (count - dots)],
        color=[palette.background, *[color] * (count - 1)],
        line=dict(color=color, width=[2, *[0] * (count - 1)]),
        opacity=1,
    )
    line = dict(color=translucent(color, 0.75), width=1.5)
    traces = [
        go.Scatter(
            x=x, y=y, customdata=data, mode="lines+markers", line=line, marker=marker, **common
        )
    ]
    if count > 1:
        # plotly turns it by the point before, and draws no mark at a first point.
        head = dict(symbol="arrow", size=[0, 15], color=color, angleref="previous", line_width=0)
        ends = dict(x=x[-2:], y=y[-2:], customdata=data[-2:])
        traces.append(go.Scatter(**ends, mode="markers", marker=head | dict(opacity=1), **common))
    for place in path.best:
        at = dict(x=x[[place]], y=y[[place]], customdata=[[path.index, int(path.steps[place])]])
        best = common | dict(hovertemplate=_HOVER.replace("<br>step", "<br>best step,"))
        traces.append(go.Scatter(**at, mode="markers", marker=best_marker(color, palette), **best))
    return traces


def _names(
    paths: Sequence[_Path], spans: Sequence[Sequence[float]], palette: Palette
) -> list[Axis]:
    """Of one run the steps of the first, the best and the last point; of several their names."""
    labels = []
    for path in paths:
        if not len(path.steps):
            continue
        last = len(path.steps) - 1
        said = {last: escape(shorten(path.run.name, 22))}
        if len(paths) == 1:
            said = {place: f"step {path.steps[place]:,.0f}" for place in (0, last)}
            said |= {place: f"best, step {path.run.best:,}" for place in path.best}
        labels += [
            Label([text], x, y, _END, path.color, palette.text)
            for (x, y), text in ((path.points[place], text) for place, text in said.items())
        ]
    ways = np.concatenate([_along(path.points, len(paths)) for path in paths])
    radii = np.full(len(ways), 3.0)
    sizes: dict[str, Any] = dict(widths=PLANE_WIDTHS, height=_HEIGHT)
    names = beside(labels, spans, palette, obstacles=ways, radii=radii, **sizes)
    if len(paths) > 1:
        for label, name in zip(labels, names, strict=True):  # a near one has no line
            name["text"] = colored("■ ", label.line) + name["text"]
    return names


def _along(points: np.ndarray, paths: int) -> np.ndarray:
    """Points on the line through these, evenly between one and the next.  (M, 2)"""
    if len(points) < 2:
        return points
    at = np.linspace(0, len(points) - 1, _OBSTACLES // paths)
    return np.stack([np.interp(at, np.arange(len(points)), values) for values in points.T], axis=1)
