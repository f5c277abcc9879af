"""Figures of training runs step by step: small charts side by side, a run a colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis, free_axis
from lwap.figures.labels import centred, legend_height
from lwap.figures.marks import upright
from lwap.figures.panels import HEADER, Panel, compose
from lwap.figures.run import (
    OF_STEPS,
    REVISION,
    RunCurves,
    best_marker,
    checked_runs,
    last_step,
    nothing,
    range_of,
    step_axis,
    strokes,
)
from lwap.figures.series import extremes, smoothed, spike_limit
from lwap.figures.style import Palette, palette_of, translucent
from lwap.figures.template import WIDE
from lwap.figures.texts import clean, colored, escape, format_number, shorten

_MOST_POINTS = 1000  # drawn of a line with a value a step
_MANY = 60  # dev evaluations, above which one has no mark of its own
_SMOOTH = 50  # part of the planned steps that a smoothed line averages over
_SIDE = 48  # px, margins for the numbers at both sides
_COLUMNS = ((0.0, 0.455), (0.545, 1.0))  # shares of the width; numbers stand on the outer sides
_BODY = 140  # px, a chart
_THIN_HEADER = 24  # px; two thin charts are as high as a whole one
_THIN_BODY = (HEADER + _BODY) // 2 - _THIN_HEADER
_LEGEND_LINE = 20  # px
_MOST_SPIKES = 200
_SMOOTHED, _SPEED = "bold: smoothed", "sentences a second"


@dataclass(frozen=True)
class _Chart:
    """What a chart shows of the runs, and how."""

    field: str  # of `RunCurves`
    head: str  # a safe text
    form: str  # of the values
    note: Callable[[RunCurves], str]  # what is said of one run alone
    common_note: str = ""  # what is said of several
    least: float = 0.0  # width of the axis, so that noise does not look like movement
    column: int = 0
    body: int = _BODY
    is_smoothed: bool = False  # a bold moving average lies over the faint values
    has_zero: bool = False  # the axis begins at zero

    @property
    def is_of_steps(self) -> bool:
        return self.field in OF_STEPS


def training_curves(
    runs: RunCurves | Sequence[RunCurves],
    *,
    dev_title: str = "Spearman × 100",
    theme: str = "light",
) -> go.Figure:
    """Draw the curves of one or several runs: loss, dev score, geometry, throughput.

    Of lines with a value a step, the faint one goes through the lowest and the highest value of
    every few steps, the bold one is their exponential moving average over a fiftieth of the
    planned steps. A number so high that it would flatten all others is a triangle at the upper
    edge, and not part of that average. A diamond marks the best step of a run in every chart. A
    run that has not begun has empty axes.

    Args:
        runs: one run, or up to 6 to be compared.
        dev_title: what the dev scores are.

    Raises:
        ValueError: there is no run or more than 6.
    """
    dev = f"Dev: {escape(shorten(dev_title, 24))} ↑"
    thin: dict[str, Any] = dict(body=_THIN_BODY)
    charts = (
        _Chart("loss", "Loss ↓", ".4f", _loss_note, _SMOOTHED, 0.02, is_smoothed=True),
        _Chart("dev", dev, ".2f", _dev_note, "◆ best, dashed: untouched", 1.0, column=1),
        _Chart("alignment", "Alignment ↓", ".3f", _latest("alignment"), least=0.02, **thin),
        _Chart("uniformity", "Uniformity ↓", ".3f", _latest("uniformity"), least=0.1, **thin),
        _Chart(
            "sentences_per_second",
            "Throughput",
            ",.0f",
            _speed_note,
            _SPEED,
            1.0,
            1,
            _BODY,
            True,
            True,
        ),
    )
    return _side_by_side(checked_runs(runs), charts, palette_of(theme))


def optimisation_curves(
    runs: RunCurves | Sequence[RunCurves], *, theme: str = "light"
) -> go.Figure:
    """Draw gradient norm and learning rate of runs, in the way of `training_curves`.

    Args:
        runs: one run, or up to 6 to be compared.

    Raises:
        ValueError: there is no run or more than 6.
    """
    runs = checked_runs(runs)
    # On a phone the legend of many runs takes from the charts.
    place: dict[str, Any] = dict(body=_BODY if len(runs) <= 3 else _BODY + 50)
    norm, rate = "gradient_norm", "learning_rate"
    charts = (
        _Chart(
            norm,
            "Gradient norm",
            ".4g",
            lambda run: _SMOOTHED,
            _SMOOTHED,
            is_smoothed=True,
            **place,
        ),
        _Chart(
            rate,
            "Learning rate",
            ".3g",
            _rate_note,
            "◆ best step",
            column=1,
            has_zero=True,
            **place,
        ),
    )
    return _side_by_side(runs, charts, palette_of(theme))


def _side_by_side(
    runs: Sequence[RunCurves], charts: Sequence[_Chart], palette: Palette
) -> go.Figure:
    entries = _legend(runs, palette, any(chart.field == "dev" for chart in charts))
    panels = [_panel(chart, runs, palette) for chart in charts]
    panels[0] = replace(panels[0], traces=[*entries, *panels[0].traces])
    return compose(
        panels,
        step_axis(runs, 5),
        palette,
        columns=_COLUMNS,
        margin=dict(l=_SIDE, r=_SIDE),
        legend=6 + legend_height([entry.name for entry in entries], WIDE, _LEGEND_LINE),
        uirevision=REVISION,
    )


def _legend(runs: Sequence[RunCurves], palette: Palette, has_dev: bool) -> list[go.Scatter]:
    """Entries that stand for all charts: runs, and of one alone the dashes and the diamond."""

    def entry(name: str, group: str, **style: Any) -> go.Scatter:
        nowhere = dict(x=[None], y=[None], showlegend=True, hoverinfo="skip")
        return go.Scatter(**nowhere, name=name, legendgroup=group, **style)

    entries = []
    for index, (run, (color, symbol)) in enumerate(zip(runs, strokes(runs, palette), strict=True)):
        name = escape(shorten(run.name, 30 if len(runs) <= 3 else 17))
        style = dict(
            line=dict(color=color, width=2), marker=dict(color=color, symbol=symbol, size=7)
        )
        entries.append(entry(name, f"run {index}", mode="lines+markers", **style))
    if len(runs) > 1:
        return entries  # the headers say what dashes and diamonds are
    if runs[0].untouched is not None and has_dev:
        name = f"untouched encoder {format_number(runs[0].untouched, '.2f')}"
        entries.append(entry(name, "untouched", mode="lines", line=_dashed(palette.muted)))
    if runs[0].best is not None:
        marker = best_marker(palette.accent, palette)
        entries.append(entry("best step", "best", mode="markers", marker=marker))
    return entries


def _dashed(color: str) -> dict[str, Any]:
    return dict(color=color, width=1.5, dash="dash")


# --- a chart -------------------------------------------------------------------------------------


def _panel(chart: _Chart, runs: Sequence[RunCurves], palette: Palette) -> Panel:
    values = np.concatenate([getattr(run, chart.field) for run in runs])
    limit = spike_limit(values) if chart.is_smoothed else math.inf
    traces = _untouched(runs, palette) if chart.field == "dev" else []
    shown = np.array([*values[values <= limit], *(trace.y[0] for trace in traces)])  # NaN neither
    top = float(shown.max(initial=-math.inf))
    bold, marks = [], []  # above all faint lines
    for index, (run, (color, symbol)) in enumerate(zip(runs, strokes(runs, palette), strict=True)):
        common = dict(legendgroup=f"run {index}", showlegend=False, name=escape(clean(run.name)))
        at = run.steps if chart.is_of_steps else run.dev_steps
        line = getattr(run, chart.field)
        if chart.is_smoothed:
            most = _MOST_POINTS if len(runs) <= 2 else _MOST_POINTS // 2
            faint = dict(color=translucent(color, 0.35 if len(runs) == 1 else 0.2), width=1)
            traces.append(_line(chart, at, line, most).update(line=faint, **common))
            marks.append(_spikes(chart, at, line, limit, top).update(marker_color=color, **common))
            line = smoothed(line, run.total / _SMOOTH, limit)
        trace = _line(chart, at, line, _MOST_POINTS // 2, "smoothed" if chart.is_smoothed else "")
        bold.append(trace.update(line=dict(color=color, width=2), **common))
        known = int(np.isfinite(line).sum())
        if known == 1 or (not chart.is_of_steps and known <= _MANY):
            size = 7 if chart.field == "dev" else 5
            trace.update(mode="lines+markers", marker=dict(color=color, symbol=symbol, size=size))
        marker = best_marker(color, palette, 11 if chart.field == "dev" else 8)
        marks.append(_best(chart, run.best, at, line).update(marker=marker, **common))
    traces = [trace for trace in [*traces, *bold, *marks] if len(trace.x)]
    shapes = []
    if len(runs) == 1 and runs[0].best is not None:
        shapes = [upright(runs[0].best, palette.zero, line_dash="dot", name="best")]
    said = [] if len(shown) else [centred(nothing(runs, of_steps=chart.is_of_steps), palette)]
    header = _header(chart, runs, bool(len(shown)), palette)
    return replace(
        header, traces=traces, y_axis=_axis(chart, shown), annotations=said, shapes=shapes
    )


def _header(chart: _Chart, runs: Sequence[RunCurves], has_values: bool, palette: Palette) -> Panel:
    """Panel with a chart's name, and below it, or behind it in a thin one, what is said of it."""
    note = chart.common_note
    if len(runs) == 1:
        note = chart.note(runs[0]) if has_values else ""
    note = note or "&nbsp;"
    if chart.body >= _BODY:
        return Panel(chart.body, head=chart.head, note=note, column=chart.column)
    line = f"<b>{chart.head}</b>  {colored(note, palette.muted)}"
    return Panel(chart.body, lines=[line], header=_THIN_HEADER, column=chart.column)


def _axis(chart: _Chart, values: np.ndarray) -> Axis:
    """Axis with its numbers on the outer side; without any if there is nothing to draw."""
    span = range_of(values, chart.least)
    if chart.has_zero:
        span = [0.0, 1.1 * float(values.max(initial=0)) or 1.0]
    return free_axis(span) | dict(
        nticks=3 if chart.body < _BODY else 5,
        side=("left", "right")[chart.column],
        showgrid=bool(len(values)),
        showticklabels=bool(len(values)),
        separatethousands=True,
        ticklabelstandoff=3,
    )


def _line(
    chart: _Chart, at: np.ndarray, values: np.ndarray, most: int, said: str = ""
) -> go.Scatter:
    """Build a line through at most so many points; a missing number is a gap.  at, values: (N,)"""
    kept = extremes(values, most)
    value = f"<b>%{{y:{chart.form}}}</b>" + (f", {said}" if said else "")
    return go.Scatter(
        x=at[kept].astype(np.int32),
        y=values[kept].astype(np.float32),
        mode="lines",
        hovertemplate=f"%{{fullData.name}}<br>step %{{x:,d}}: {value}<extra></extra>",
    )


def _spikes(
    chart: _Chart, at: np.ndarray, values: np.ndarray, limit: float, top: float
) -> go.Scatter:
    """Build a triangle at the upper edge for the numbers beyond the axis, at most the 200 largest.

    at, values: (N,)
    """
    beyond = np.flatnonzero(values > limit)
    beyond = np.sort(beyond[np.argsort(-values[beyond], kind="stable")][:_MOST_SPIKES])
    value = f"<b>%{{customdata:{chart.form}}}</b>, beyond the axis"
    return go.Scatter(
        x=at[beyond].astype(np.int32),
        y=np.full(len(beyond), top, dtype=np.float32),
        mode="markers",
        marker=dict(symbol="triangle-up", size=8),
        cliponaxis=False,
        customdata=values[beyond].astype(np.float32),
        hovertemplate=f"%{{fullData.name}}<br>step %{{x:,d}}: {value}<extra></extra>",
    )


def _best(chart: _Chart, best: int | None, at: np.ndarray, line: np.ndarray) -> go.Scatter:
    """Build the diamond on a line at its run's best step, if the line is that long.

    The step itself may have no number.  at, line: (N,)
    """
    known = np.flatnonzero(np.isfinite(line))
    steps: list[int] = []
    if best is not None and len(known) and at[known[0]] <= best <= at[known[-1]]:
        steps = [best]
    value = f"<b>%{{y:{chart.form}}}</b>"
    return go.Scatter(
        x=steps,
        y=[float(np.interp(step, at[known], line[known])) for step in steps],
        mode="markers",
        cliponaxis=False,
        hovertemplate=f"%{{fullData.name}}<br>best step, %{{x:,d}}: {value}<extra></extra>",
    )


def _untouched(runs: Sequence[RunCurves], palette: Palette) -> list[go.Scatter]:
    """Build a dashed line for every score of an untouched encoder."""
    colors: dict[float, str] = {}
    for run, (color, _) in zip(runs, strokes(runs, palette), strict=True):
        if run.untouched is not None:
            colors.setdefault(run.untouched, color)
    common = dict(mode="lines", legendgroup="untouched", showlegend=False, name="untouched encoder")
    return [
        go.Scatter(
            x=[0.0, last_step(runs)],
            y=[value, value],
            line=_dashed(palette.muted if len(colors) == 1 else color),
            hovertemplate="%{fullData.name}: <b>%{y:.2f}</b><extra></extra>",
            **common,
        )
        for value, color in colors.items()
    ]


# --- what is said of one run ---------------------------------------------------------------------


def _loss_note(run: RunCurves) -> str:
    missing = int(np.isnan(run.loss).sum())
    if missing:
        return f"no value at {missing:,} step{'s' if missing > 1 else ''}"
    return f"{_last(_average(run, run.loss), '.4f')}, smoothed"


def _dev_note(run: RunCurves) -> str:
    if run.best is None:
        return ""
    score = run.dev[run.dev_steps == run.best][0]
    return f"best {format_number(score, '.2f')} at step {run.best:,}"


def _latest(field: str) -> Callable[[RunCurves], str]:
    return lambda run: _last(getattr(run, field), ".3f")


def _speed_note(run: RunCurves) -> str:
    latest = _last(_average(run, run.sentences_per_second), ",.0f")
    return latest and f"{latest} {_SPEED}"


def _rate_note(run: RunCurves) -> str:
    latest = _last(run.learning_rate, ".2g")
    return latest and f"now {latest}"


def _average(run: RunCurves, values: np.ndarray) -> np.ndarray:
    return smoothed(values, run.total / _SMOOTH, spike_limit(values))


def _last(values: np.ndarray, form: str) -> str:
    known = values[np.isfinite(values)]
    return format_number(known[-1], form) if len(known) else ""
