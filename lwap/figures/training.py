"""Figures of training runs: their course step by step, and what a run has changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import check_within, checked_arrays, upper_end
from lwap.figures.layout import (
    BAR_HEADER,
    HEADER,
    PHONE,
    PLANE_HEAD,
    RIGHT,
    SMALL,
    TICKS,
    add_header,
    add_text,
    cell_height,
    count_legend_lines,
    finish,
    free_axis,
    halo,
    header_color_bar,
    left_margin,
    plane_axes,
    query_axis,
    stack,
    top_legend,
)
from lwap.figures.placement import NEAR, place_labels
from lwap.figures.style import (
    ACCENT,
    CATEGORIES,
    CATEGORY_SYMBOLS,
    CLEAR,
    STATE_COLORSCALE,
    Palette,
    palette_of,
    translucent,
)
from lwap.figures.texts import (
    clean,
    colored,
    escape,
    format_number,
    shorten,
)
from lwap.names import state_names

MOST_RUNS = 6  # that can be told apart
_MOST_POINTS = 1000  # drawn of a line with a value a step
_MOST_LOOKS = 400  # drawn of a line, a path or a heatmap with a value a look
_MANY_LOOKS = 60  # above which a look has no mark of its own
_SMOOTH = 50  # part of the planned steps that a smoothed line averages over
_SIDE = 48  # px, margins for the numbers at both sides
_COLUMNS = ((0.0, 0.455), (0.545, 1.0))  # shares of the width; numbers stand on the outer sides
_BODY = 140  # px, a panel
_THIN_HEAD = 24  # px, the header of a thin panel; two of them are as high as a whole one
_LEGEND_LINE = 20  # px
_LEGEND_WIDTH = 600  # px, at which the legend's lines are reckoned; on a phone it takes more
_ROOM = 0.02  # of the planned steps on both sides of an axis of steps
_SPIKE = 8  # times the usual width of values above them: beyond the axis
_MOST_SPIKES = 200
_DOT = 5  # px
_PLANE_HEIGHT = 340  # px
_OBSTACLES = 120  # points that stand for the lines where labels are placed
_HEAD = 10  # px, half of an end of a path
_PLANE_WIDTHS = (PHONE - 52 - RIGHT, 620, 1030)  # px, where labels must not collide
_KEY = "◆ best, dashed: untouched"
_REVISION = "training"  # the same always: what a click has hidden stays so when drawn anew


@dataclass(frozen=True, eq=False)
class Course:
    """What is known of a run so far: N steps, M looks at the dev set.

    Numbers that are missing or not finite are NaN here; what is left empty is unknown at every
    step or look. The arrays are float64 copies.

    Args:
        name: What the run is called.
        total: Planned steps, so that the axis of steps stays while the run goes on.
        steps: (N,), numbers of the steps done, ascending.
        loss: (N,), or empty.
        gradient_norm: (N,), or empty.
        learning_rate: (N,), or empty.
        sentences_per_second: (N,), or empty.
        looks: (M,), the steps at which the dev set was looked at, ascending; 0 is before training.
        dev: (M,), or empty: Spearman × 100, or accuracy in percent.
        alignment: (M,), or empty.
        uniformity: (M,), or empty.
        layer_weights: (M, S), the mean weights at each look, a look without any is None or NaN;
            None for a pooling without layer weights.
        best: The look with the best dev score, None if there is none yet.
        untouched: The untouched encoder's dev score, None if unknown.

    Raises:
        ValueError: `total` is below 1, numbers of entries disagree, steps do not ascend or are
            below 0, a dev score is outside −100 to 100, or `best` is no look.
    """

    name: str
    total: int
    steps: Any = ()
    loss: Any = ()
    gradient_norm: Any = ()
    learning_rate: Any = ()
    sentences_per_second: Any = ()
    looks: Any = ()
    dev: Any = ()
    alignment: Any = ()
    uniformity: Any = ()
    layer_weights: Any = None
    best: int | None = None
    untouched: float | None = None

    def __post_init__(self) -> None:
        if not self.total >= 1:
            raise ValueError(f"total is {self.total}; a run has 1 planned step or more")
        for owner, names in (("steps", _STEPWISE), ("looks", _LOOKWISE)):
            (at,) = checked_arrays(**{owner: (getattr(self, owner), "N", "empty")})
            if (np.diff(at) <= 0).any() or (at < 0).any():
                raise ValueError(f"{owner} of {self.name!r} do not ascend from 0 on")
            object.__setattr__(self, owner, at)
            for name in names:
                object.__setattr__(self, name, self._column(name, owner, len(at)))
        check_within("dev", self.dev, -100, 100, "scores")
        object.__setattr__(self, "layer_weights", self._weights())
        if self.best is not None and self.best not in self.looks:
            raise ValueError(
                f"best of {self.name!r} is step {self.best}, at which there was no look"
            )
        if self.untouched is not None:
            known = math.isfinite(self.untouched)
            object.__setattr__(self, "untouched", float(self.untouched) if known else None)

    def _column(self, name: str, owner: str, count: int) -> np.ndarray:
        values = np.array(getattr(self, name), dtype=np.float64)
        if values.shape == (0,):
            return np.full(count, np.nan)
        if values.shape != (count,):
            raise ValueError(
                f"{name} of {self.name!r} has shape {values.shape}; expected ({count},) as {owner}"
            )
        return np.where(np.isfinite(values), values, np.nan)

    def _weights(self) -> np.ndarray | None:
        if self.layer_weights is None:
            return None
        rows = [None if row is None else np.asarray(row, float) for row in self.layer_weights]
        known = [row for row in rows if row is not None]
        if rows and not known:
            return None
        missing = np.full(known[0].shape, np.nan) if known else None
        rows = [missing if row is None else row for row in rows]
        shapes = {row.shape for row in rows}
        if len(rows) != len(self.looks) or len(shapes) > 1 or any(len(s) != 1 for s in shapes):
            found = ", ".join(map(str, sorted(shapes)))
            raise ValueError(
                f"layer_weights of {self.name!r} has {len(rows)} rows of shape {found}; expected "
                f"{len(self.looks)} rows as looks, all of shape (S,)"
            )
        states = np.shape(self.layer_weights)[-1] if not rows else len(rows[0])
        return np.array(rows, dtype=np.float64).reshape(len(rows), states)


_STEPWISE = ("loss", "gradient_norm", "learning_rate", "sentences_per_second")
_LOOKWISE = ("dev", "alignment", "uniformity")


# --- the course of runs --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    """One small chart of a course."""

    field: str  # of Course
    head: str  # a safe text
    column: int
    row: int  # from the top of its column
    form: str
    least: float  # width of its axis, so that noise does not look like movement
    note: Callable[[Course], str] = lambda run: ""  # of the only run
    common_note: str = ""  # of several runs
    is_smoothed: bool = False
    has_zero: bool = False


def course(
    runs: Course | Sequence[Course],
    *,
    dev_title: str = "Spearman × 100",
    theme: str = "light",
) -> go.Figure:
    """Draw the course of one or several runs: loss, dev score, geometry, throughput.

    Four small charts over one axis of planned steps; alignment and uniformity share one of them,
    one above the other. Of lines with a value a step, the faint one goes through the lowest and
    the highest value of every few steps, the bold one is their exponential moving average over a
    fiftieth of the planned steps. A number so high that it would flatten all others is a triangle
    at the upper edge, and not part of that average. A diamond marks the best step of a run in
    every chart. A run that has not begun has empty axes.

    Args:
        runs: one run, or up to 6 to be compared.
        dev_title: what the dev scores are.
        theme: "light" or "dark".

    Raises:
        ValueError: there is no run or more than 6, or the theme is unknown.
    """
    panels = (
        _Panel("loss", "Loss ↓", 0, 0, ".4f", 0.02, _loss_note, "bold: smoothed", True),
        _Panel(
            "dev", f"Dev: {escape(shorten(dev_title, 24))} ↑", 1, 0, ".2f", 1.0, _dev_note, _KEY
        ),
        _Panel("alignment", "Alignment ↓", 0, 1, ".3f", 0.02, _last("alignment", ".3f")),
        _Panel("uniformity", "Uniformity ↓", 0, 2, ".3f", 0.1, _last("uniformity", ".3f")),
        _Panel(
            "sentences_per_second",
            "Throughput",
            1,
            1,
            ",.0f",
            1.0,
            _speed_note,
            "sentences a second",
            True,
            True,
        ),
    )
    thin = (HEADER + _BODY) // 2 - _THIN_HEAD
    rows = (
        ((HEADER, _BODY), (_THIN_HEAD, thin), (_THIN_HEAD, thin)),
        ((HEADER, _BODY), (HEADER, _BODY)),
    )
    return _course(runs, panels, rows, theme)


def optimisation(runs: Course | Sequence[Course], *, theme: str = "light") -> go.Figure:
    """Draw the gradient norm and the learning rate of one or several runs, in the way of `course`.

    Args:
        runs: one run, or up to 6 to be compared.
        theme: "light" or "dark".

    Raises:
        ValueError: there is no run or more than 6, or the theme is unknown.
    """
    note = "bold: smoothed"
    panels = (
        _Panel("gradient_norm", "Gradient norm", 0, 0, ".4g", 0.0, lambda run: note, note, True),
        _Panel(
            "learning_rate",
            "Learning rate",
            1,
            0,
            ".3g",
            0.0,
            _rate_note,
            "◆ best step",
            False,
            True,
        ),
    )
    # On a phone the legend of many runs takes from the charts.
    body = _BODY if len(_checked_runs(runs)) <= 3 else _BODY + 50
    return _course(runs, panels, (((HEADER, body),),) * 2, theme)


def _course(
    runs: Course | Sequence[Course],
    panels: Sequence[_Panel],
    rows: Sequence[Sequence[tuple[int, int]]],
    theme: str,
) -> go.Figure:
    """Draw panels in two columns; `rows` are the pixels of header and body of each in a column."""
    palette = palette_of(theme)
    runs = _checked_runs(runs)
    span = _step_span(runs)
    columns = [stack(column, TICKS) for column in rows]
    figure = go.Figure()
    entries = _add_keys(figure, runs, palette, theme, any(p.field == "dev" for p in panels))
    for index, panel in enumerate(panels):
        axis = str(index + 1) if index else ""
        domain = columns[panel.column][0][panel.row]
        place = dict(xaxis=("x", "x2")[panel.column], yaxis=f"y{axis}")
        values = _add_panel(figure, panel, runs, place, span, palette, theme)
        figure.update_layout({f"yaxis{axis}": _panel_axis(palette, panel, values, domain)})
        _add_panel_header(figure, panel, runs, domain[1], bool(len(values)), palette)
        if not len(values):
            middle = dict(x=sum(_COLUMNS[panel.column]) / 2, y=sum(domain) / 2)
            text = colored(_nothing(runs, is_stepwise=panel.field in _STEPWISE), palette.muted)
            add_text(figure, text, palette, xanchor="center", yanchor="middle", **middle)
    lowest = [
        max((p.row, index) for index, p in enumerate(panels) if p.column == column)[1]
        for column in (0, 1)
    ]
    for column, index in enumerate(lowest):
        x_axis = _step_axis(palette, span, nticks=5)
        x_axis |= dict(domain=_COLUMNS[column], anchor=f"y{index + 1 if index else ''}")
        if column:
            x_axis["matches"] = "x"
        figure.update_layout({f"xaxis{column + 1 if column else ''}": x_axis})
    legend = 6 + _LEGEND_LINE * count_legend_lines(entries, _LEGEND_WIDTH)
    figure.update_layout(showlegend=True, legend=top_legend(palette), uirevision=_REVISION)
    return finish(figure, palette, legend + columns[0][1], left=_SIDE, right=_SIDE, top=legend)


def _checked_runs(runs: Course | Sequence[Course]) -> list[Course]:
    runs = [runs] if isinstance(runs, Course) else list(runs)
    if not runs:
        raise ValueError("runs is empty; expected 1 to 6 runs")
    if len(runs) > MOST_RUNS:
        raise ValueError(f"runs has {len(runs)} runs; at most {MOST_RUNS} can be told apart")
    return runs


def _strokes(count: int, theme: str) -> list[tuple[str, str]]:
    """Colour and symbol of every run; one alone has the accent."""
    if count == 1:
        return [(ACCENT[theme], CATEGORY_SYMBOLS[0])]
    return list(zip(CATEGORIES[theme][:count], CATEGORY_SYMBOLS[:count], strict=True))


def _step_span(runs: Sequence[Course]) -> tuple[float, float]:
    """First and last step of the axis: all planned steps, more if a run has done more."""
    return 0.0, float(max(max([run.total, *run.steps[-1:], *run.looks[-1:]]) for run in runs))


def _step_axis(palette: Palette, span: tuple[float, float], nticks: int) -> dict[str, Any]:
    room = _ROOM * span[1]
    axis = free_axis(palette, [span[0] - room, span[1] + room], "step")
    axis |= dict(nticks=nticks, ticks="", ticklabelstandoff=4)
    axis["tickformat"] = "~s" if span[1] >= 10_000 else ",d"
    if span[1] <= 4:
        axis["dtick"] = 1
    return axis


def _add_keys(
    figure: go.Figure, runs: Sequence[Course], palette: Palette, theme: str, has_dev: bool
) -> list[str]:
    """Add the entries of the legend, which stand for all charts; return what they are called."""
    strokes = _strokes(len(runs), theme)
    columns = 30 if len(runs) <= 3 else 17
    entries = []
    nowhere = dict(x=[None], y=[None], showlegend=True, hoverinfo="skip")
    for index, (run, (color, symbol)) in enumerate(zip(runs, strokes, strict=True)):
        entries.append(shorten(run.name, columns))
        figure.add_trace(
            go.Scatter(
                **nowhere,
                mode="lines+markers",
                line=dict(color=color, width=2),
                marker=dict(color=color, symbol=symbol, size=7),
                legendgroup=f"run {index}",
                name=escape(entries[-1]),
            )
        )
    if len(runs) > 1:
        return entries  # the headers say what dashes and diamonds are
    if runs[0].untouched is not None and has_dev:
        entries.append(f"untouched encoder {format_number(runs[0].untouched, '.2f')}")
        dashes = dict(color=palette.muted, width=1.5, dash="dash")
        figure.add_trace(
            go.Scatter(**nowhere, mode="lines", line=dashes, legendgroup="untouched").update(
                name=entries[-1]
            )
        )
    if runs[0].best is not None:
        entries.append("best step")
        marker = _best_marker(ACCENT[theme], palette)
        figure.add_trace(
            go.Scatter(
                **nowhere, mode="markers", marker=marker, legendgroup="best", name=entries[-1]
            )
        )
    return entries


def _best_marker(color: str, palette: Palette, size: int = 11) -> dict[str, Any]:
    return dict(
        symbol="diamond",
        size=size,
        color=color,
        line=dict(color=palette.text, width=1.5),
        opacity=1,
    )


def _add_panel(
    figure: go.Figure,
    panel: _Panel,
    runs: Sequence[Course],
    place: dict[str, str],
    span: tuple[float, float],
    palette: Palette,
    theme: str,
) -> np.ndarray:
    """Add the lines and marks of a panel; return all the numbers that its axis must show."""
    is_stepwise = panel.field in _STEPWISE
    strokes = _strokes(len(runs), theme)
    everything = [getattr(run, panel.field) for run in runs]
    limit = _limit(np.concatenate(everything)) if panel.is_smoothed else math.inf
    shown = np.concatenate(everything)
    shown = shown[shown <= limit]  # NaN neither
    top = float(shown.max(initial=-math.inf))
    if panel.field == "dev":
        shown = np.append(shown, _add_untouched(figure, runs, place, span, palette, theme))
    lines, marks = [], []  # above all faint lines
    for index, (run, values, (color, symbol)) in enumerate(
        zip(runs, everything, strokes, strict=True)
    ):
        at = run.steps if is_stepwise else run.looks
        name = escape(clean(run.name))
        common = dict(**place, legendgroup=f"run {index}", showlegend=False, name=name)
        line = values
        if panel.is_smoothed:
            line = _smoothed(values, run.total / _SMOOTH, limit)
            most = _MOST_POINTS if len(runs) <= 2 else _MOST_POINTS // 2
            faint = dict(color=translucent(color, 0.35 if len(runs) == 1 else 0.2), width=1)
            figure.add_trace(_line(at, values, most, panel.form).update(line=faint, **common))
            marks.append(_spikes(at, values, limit, top, color, panel.form).update(common))
        most = _MOST_POINTS // 2 if is_stepwise else _MOST_LOOKS
        trace = _line(at, line, most, panel.form, "smoothed" if panel.is_smoothed else "")
        trace.update(line=dict(color=color, width=2), **common)
        known = int(np.isfinite(line).sum())
        if known == 1 or (not is_stepwise and known <= _MANY_LOOKS):
            size = 7 if panel.field == "dev" else _DOT
            trace.update(mode="lines+markers", marker=dict(color=color, symbol=symbol, size=size))
        lines.append(trace)
        if run.best is not None:
            marks.append(_best(run.best, at, line, color, panel, palette).update(common))
    figure.add_traces([trace for trace in [*lines, *marks] if len(trace.x)])
    if len(runs) == 1 and runs[0].best is not None:
        figure.add_shape(
            type="line",
            xref=place["xaxis"],
            x0=runs[0].best,
            x1=runs[0].best,
            yref=f"{place['yaxis']} domain",
            y0=0,
            y1=1,
            line=dict(color=palette.zero, width=1, dash="dot"),
            layer="below",
            name="best",
        )
    return shown


def _line(at: np.ndarray, values: np.ndarray, most: int, form: str, said: str = "") -> go.Scatter:
    """Build a line through at most so many points; a missing number is a gap.  at, values: (N,)"""
    kept = _kept(values, most)
    shown = f"<b>%{{y:{form}}}</b>" + (f", {said}" if said else "")
    return go.Scatter(
        x=at[kept].astype(np.int32),
        y=values[kept].astype(np.float32),
        mode="lines",
        hovertemplate=f"%{{fullData.name}}<br>step %{{x:,d}}: {shown}<extra></extra>",
    )


def _kept(values: np.ndarray, most: int) -> np.ndarray:
    """Indices of at most so many values that draw the same line: of every bin both extremes.

    Bins have 2, 4, 8, … values, counted from the first one, so a line that grows keeps its points
    until the bins double. A bin without any number keeps a gap.  values: (N,)
    """
    count = len(values)
    size = 1
    while size * (most - 1) < 2 * count and count > most:
        size *= 2
    if size == 1:
        return np.arange(count)
    bins = np.full((-(-count // size), size), np.nan)
    bins.flat[:count] = values
    starts = size * np.arange(len(bins))
    lowest = starts + np.where(np.isnan(bins), np.inf, bins).argmin(axis=1)
    highest = starts + np.where(np.isnan(bins), -np.inf, bins).argmax(axis=1)
    return np.unique(np.concatenate([lowest, highest, [count - 1]]))


def _smoothed(values: np.ndarray, span: float, limit: float = math.inf) -> np.ndarray:
    """Exponential moving average over the known values so far; NaN where a value is.  (N,)

    Value i has the weight (1 − 2/(span + 1))^(n − i) in the average at n, as in pandas' `ewm`, and
    none if it is above the limit.
    """
    counts = values <= limit  # NaN does not
    decay = 1 - 2 / (max(span, 1.0) + 1)

    def total(terms: np.ndarray) -> np.ndarray:
        sums = accumulate(terms.tolist(), lambda before, term: decay * before + term)
        return np.fromiter(sums, dtype=np.float64, count=len(terms))

    sums, weights = total(np.where(counts, values, 0.0)), total(counts.astype(np.float64))
    is_known = np.isfinite(values) & (weights > 0)
    return np.divide(sums, weights, out=np.full(len(values), np.nan), where=is_known)


def _limit(values: np.ndarray) -> float:
    """The value above which a number would flatten all others; infinite if there is none.  (N,)"""
    known = values[np.isfinite(values)]
    if len(known) < 20:
        return math.inf
    low, usual = np.percentile(known, [5, 95])
    limit = usual + _SPIKE * max(usual - low, 0.02 * abs(usual))
    return float(limit) if known.max() > limit else math.inf


def _spikes(
    at: np.ndarray, values: np.ndarray, limit: float, top: float, color: str, form: str
) -> go.Scatter:
    """Build a triangle at the upper edge for every number beyond the axis, at most the 200 largest.

    at, values: (N,)
    """
    beyond = np.flatnonzero(values > limit)
    beyond = np.sort(beyond[np.argsort(-values[beyond], kind="stable")][:_MOST_SPIKES])
    return go.Scatter(
        x=at[beyond].astype(np.int32),
        y=np.full(len(beyond), top, dtype=np.float32),
        mode="markers",
        marker=dict(symbol="triangle-up", size=8, color=color),
        cliponaxis=False,
        customdata=values[beyond].astype(np.float32),
        hovertemplate=(
            f"%{{fullData.name}}<br>step %{{x:,d}}: <b>%{{customdata:{form}}}</b>, "
            "beyond the axis<extra></extra>"
        ),
    )


def _best(
    best: int, at: np.ndarray, line: np.ndarray, color: str, panel: _Panel, palette: Palette
) -> go.Scatter:
    """Build the diamond on a line at its run's best step, if the line is that long.

    The step itself may have no number.  at, line: (N,)
    """
    known = np.flatnonzero(np.isfinite(line))
    is_there = len(known) and at[known[0]] <= best <= at[known[-1]]
    return go.Scatter(
        x=[best] if is_there else [],
        y=[float(np.interp(best, at[known], line[known]))] if is_there else [],
        mode="markers",
        marker=_best_marker(color, palette, 11 if panel.field == "dev" else 8),
        cliponaxis=False,
        hovertemplate=(
            f"%{{fullData.name}}<br>best step, %{{x:,d}}: <b>%{{y:{panel.form}}}</b><extra></extra>"
        ),
    )


def _add_untouched(
    figure: go.Figure,
    runs: Sequence[Course],
    place: dict[str, str],
    span: tuple[float, float],
    palette: Palette,
    theme: str,
) -> list[float]:
    """Add a dashed line for every score of an untouched encoder; return the scores."""
    colors: dict[float, str] = {}
    for run, (color, _) in zip(runs, _strokes(len(runs), theme), strict=True):
        if run.untouched is not None:
            colors.setdefault(run.untouched, color)
    for value, color in colors.items():
        figure.add_trace(
            go.Scatter(
                x=span,
                y=[value, value],
                mode="lines",
                line=dict(
                    color=palette.muted if len(colors) == 1 else color, width=1.5, dash="dash"
                ),
                hovertemplate="%{fullData.name}: <b>%{y:.2f}</b><extra></extra>",
                legendgroup="untouched",
                showlegend=False,
                name="untouched encoder",
                **place,
            )
        )
    return list(colors)


def _panel_axis(
    palette: Palette, panel: _Panel, values: np.ndarray, domain: tuple[float, float]
) -> dict[str, Any]:
    """Vertical axis of a panel, its numbers on the outer side; without numbers if there are none"""
    axis = free_axis(palette, _span(values, panel.least, panel.has_zero), None)
    return axis | dict(
        domain=domain,
        nticks=3 if domain[1] - domain[0] < 0.25 else 5,
        anchor=("x", "x2")[panel.column],
        side=("left", "right")[panel.column],
        showgrid=bool(len(values)),
        showticklabels=bool(len(values)),
        separatethousands=True,
        exponentformat="e",
        ticklabelstandoff=3,
    )


def _span(values: Any, least: float, has_zero: bool = False) -> list[float]:
    """Range of the known values with some room, at least so wide, or from zero."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return [0.0, 1.0]
    low, high = float(known.min()), float(known.max())
    if has_zero:
        return [0.0, 1.1 * high or 1.0]
    room = max(0.08 * (high - low), (least - (high - low)) / 2) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def _nothing(runs: Sequence[Course], *, is_stepwise: bool = False) -> str:
    """What is said where there is no number to draw."""
    if any(len(run.steps if is_stepwise else run.looks) for run in runs):
        return "no number"
    return "no step yet" if is_stepwise else "no look yet"


def _add_panel_header(
    figure: go.Figure,
    panel: _Panel,
    runs: Sequence[Course],
    top: float,
    has_numbers: bool,
    palette: Palette,
) -> None:
    """Add the name of a panel, and below it, or behind it in a thin one, what is said of it."""
    note = panel.common_note
    if len(runs) == 1:
        note = panel.note(runs[0]) if has_numbers else ""
    is_thin = panel.field in ("alignment", "uniformity")
    head = f"<b>{panel.head}</b>"
    text = head + ("  " if is_thin else "<br>") + colored(note or "&nbsp;", palette.muted)
    left = _COLUMNS[panel.column][0]
    shift = 0 if panel.column else 3 - _SIDE
    add_text(figure, text, palette, x=left, xshift=shift, y=top, yshift=5)


def _loss_note(run: Course) -> str:
    missing = int(np.isnan(run.loss).sum())
    if missing:
        return f"no number at {missing:,} step{'s' if missing > 1 else ''}"
    mean = _smoothed(run.loss, run.total / _SMOOTH, _limit(run.loss))[-1]
    return f"{format_number(mean, '.4f')}, smoothed"


def _dev_note(run: Course) -> str:
    if run.best is None:
        return ""
    score = run.dev[run.looks == run.best][0]
    return f"best {format_number(score, '.2f')} at step {run.best:,}"


def _last(field: str, form: str) -> Callable[[Course], str]:
    def note(run: Course) -> str:
        values = getattr(run, field)
        known = values[np.isfinite(values)]
        return format_number(known[-1], form) if len(known) else ""

    return note


def _speed_note(run: Course) -> str:
    speeds = run.sentences_per_second
    speeds = _smoothed(speeds, run.total / _SMOOTH, _limit(speeds))
    speeds = speeds[np.isfinite(speeds)]
    return f"{speeds[-1]:,.0f} sentences a second" if len(speeds) else ""


def _rate_note(run: Course) -> str:
    known = run.learning_rate[np.isfinite(run.learning_rate)]
    return f"now {known[-1]:.2g}".replace("-", "−") if len(known) else ""


# --- layer weights -------------------------------------------------------------------------------


def weights_over_time(run: Course, *, zmax: float | None = None, theme: str = "light") -> go.Figure:
    """Draw how the mean layer weights moved: a row a hidden state, a column a look.

    A column stands at its step and reaches half-way to its neighbours. Of more than 400 looks an
    even part is drawn, with the best one.

    Args:
        run: a run of a pooling with layer weights.
        zmax: upper end of the colour scale, to compare runs; if None the largest weight, rounded
            up to 0.05 so that the colours of a run that goes on seldom change.
        theme: "light" or "dark".

    Raises:
        ValueError: the run has no layer weights, a weight is outside 0 to 1, `zmax` is not above
            0, or the theme is unknown.
    """
    palette = palette_of(theme)
    weights = run.layer_weights
    if weights is None:
        raise ValueError(f"{run.name!r} has no layer weights; its pooling reads no layers apart")
    check_within("layer_weights", weights, -1e-6, 1 + 1e-6, "weights")
    states = weights.shape[1]
    kept = _looks_kept(run)
    known = weights[np.isfinite(weights)]
    largest = math.ceil(20 * float(known.max(initial=0.05)) - 1e-9) / 20
    zmax = upper_end(zmax if zmax is not None else largest, weights)
    span = _step_span([run])
    room = _ROOM * span[1]
    names = state_names(states)
    left = left_margin(names or [""]) + 6

    body = max(states, 4) * (cell_height(states) - 4 if states <= 13 else cell_height(states))
    domains, height = stack([(BAR_HEADER + 10, body)], TICKS)
    figure = go.Figure()
    if known.size:
        figure.add_trace(
            go.Heatmap(
                x=_edges(run.looks[kept], span[0] - room, span[1] + room),
                y=np.arange(states),
                z=weights[kept].T.astype(np.float32),
                zmin=0,
                zmax=zmax,
                colorscale=STATE_COLORSCALE,
                colorbar=header_color_bar(palette, domains[0][1], [0, zmax], shift=12),
                hoverongaps=False,
                customdata=np.broadcast_to(run.looks[kept].astype(np.int32), (states, len(kept))),
                hovertemplate=("%{y}, step %{customdata:,d}: <b>%{z:.3f}</b><extra></extra>"),
                name="layer weights",
            )
        )
    else:
        note = colored(_nothing([run]), palette.muted)
        middle = dict(x=0.5, xanchor="center", y=sum(domains[0]) / 2, yanchor="middle")
        add_text(figure, note, palette, **middle)
    y_axis = query_axis(palette, domains[0], names, anchor="x")
    if not states:
        y_axis |= dict(range=[1, 0], showticklabels=False)
    figure.update_layout(
        xaxis=_step_axis(palette, span, nticks=8),
        yaxis=y_axis,
        uirevision=_REVISION,
    )
    note = "mean over the dev set"
    if run.best is not None:
        note = f"▼ best step, {run.best:,}"
        _add_best_column(figure, run.best, palette)
    add_header(figure, palette, domains[0][1], "Layer weights", note, left=left, shift=12)
    return finish(figure, palette, height, left=left, right=RIGHT + 4)


def _looks_kept(run: Course) -> np.ndarray:
    """Indices of at most 400 looks, evenly, with the best and the last one."""
    count = len(run.looks)
    size = 1
    while count > size * (_MOST_LOOKS - 2):
        size *= 2
    last = [count - 1] if count else []
    return np.unique(
        [*range(0, count, size), *np.flatnonzero(run.looks == run.best), *last]
    ).astype(int)


def _edges(at: np.ndarray, low: float, high: float) -> np.ndarray:
    """Edges of columns half-way between their steps, inside the axis.  at: (M,) -> (M + 1,)"""
    gaps = np.diff(at) / 2
    first, last = (gaps[0], gaps[-1]) if len(gaps) else ((high - low) / 40,) * 2
    edges = np.concatenate([[at[0] - first], at[:-1] + gaps, [at[-1] + last]])
    return np.clip(edges, low, high)


def _add_best_column(figure: go.Figure, best: float, palette: Palette) -> None:
    """Add a triangle above the column of the best step, and a line through it."""
    for color, dash, width in ((palette.background, "solid", 2.5), (palette.text, "dot", 1.5)):
        figure.add_shape(
            type="line",
            x0=best,
            x1=best,
            yref="y domain",
            y0=0,
            y1=1,
            line=dict(color=color, width=width, dash=dash),
            layer="above",
            name="best",
        )
    figure.add_annotation(
        text="▼",
        x=best,
        yref="y domain",
        y=1,
        yanchor="bottom",
        yshift=-4,
        showarrow=False,
        borderpad=0,
        font=dict(size=SMALL, color=palette.text),
    )


# --- the plane of alignment and uniformity -------------------------------------------------------


def plane_path(runs: Course | Sequence[Course], *, theme: str = "light") -> go.Figure:
    """Draw the path of runs in the plane of alignment and uniformity, look by look.

    The first look is hollow, the last one an arrowhead, the best one a diamond. Both measures are
    better when lower. A look without both numbers is left out. `customdata` of every point is
    [index of the run, its step].

    Args:
        runs: one run, or up to 6 to be compared.
        theme: "light" or "dark".

    Raises:
        ValueError: there is no run or more than 6, or the theme is unknown.
    """
    palette = palette_of(theme)
    runs = _checked_runs(runs)
    strokes = _strokes(len(runs), theme)
    paths = []
    for run in runs:
        kept = _looks_kept(run)
        points = np.stack([run.uniformity[kept], run.alignment[kept]], axis=1)
        is_known = np.isfinite(points).all(axis=1)
        paths.append((run.looks[kept][is_known], points[is_known]))
    everything = np.concatenate([points for _, points in paths])
    spans = _span(everything[:, 0], 0.1), _span(everything[:, 1], 0.02)
    domains, height = stack([(HEADER + 8, _PLANE_HEIGHT)], TICKS)

    figure = go.Figure()
    for index, (run, (steps, points), (color, _)) in enumerate(
        zip(runs, paths, strokes, strict=True)
    ):
        if len(steps):
            _add_path(figure, index, run, steps, points, color, palette)
    labels = _path_labels(runs, paths)
    _add_path_labels(figure, paths, labels, spans, [color for color, _ in strokes], palette)
    figure.update_layout(**plane_axes(palette, spans, domains[0]), uirevision=_REVISION)
    note = "○ first look, ➤ last one"
    if any(run.best in steps for run, (steps, _) in zip(runs, paths, strict=True)):
        note += ", ◆ best"
    add_header(figure, palette, domains[0][1], PLANE_HEAD, note, left=52)
    if not len(everything):
        for axis in ("xaxis", "yaxis"):
            figure.update_layout({axis: dict(showticklabels=False)})
        text = colored(_nothing(runs), palette.muted)
        middle = dict(x=0.5, xanchor="center", y=sum(domains[0]) / 2, yanchor="middle")
        add_text(figure, text, palette, **middle)
    return finish(figure, palette, height, left=52)


def _add_path(
    figure: go.Figure,
    index: int,
    run: Course,
    steps: np.ndarray,
    points: np.ndarray,
    color: str,
    palette: Palette,
) -> None:
    """Add the looks of a run as marks on a line.  steps: (M,), points: (M, 2)"""
    count = len(steps)
    dots = max(count - 1, 1)  # the last one of several is an arrowhead
    sizes = [11, *[_DOT if count <= _MANY_LOOKS else 3] * (dots - 1), *[0] * (count - dots)]
    hover = (
        "%{fullData.name}<br>step %{customdata[1]:,d}<br>uniformity <b>%{x:.3f}</b><br>"
        "alignment <b>%{y:.3f}</b><extra></extra>"
    )
    common = dict(
        x=points[:, 0].astype(np.float32),
        y=points[:, 1].astype(np.float32),
        customdata=np.stack([np.full(count, index), steps], axis=1).astype(np.int32),
        hovertemplate=hover,
        name=escape(clean(run.name)),
    )
    figure.add_trace(
        go.Scatter(
            **common,
            mode="lines+markers",
            line=dict(color=translucent(color, 0.75), width=1.5),
            marker=dict(
                size=sizes,
                color=[palette.background, *[color] * (count - 1)],
                line=dict(color=color, width=[2, *[0] * (count - 1)]),
                opacity=1,
            ),
        )
    )
    if count > 1:
        # plotly turns it by the point before, and draws no mark at a first point.
        head = dict(symbol="arrow", size=[0, 15], color=color, angleref="previous", opacity=1)
        ends = common | {key: common[key][-2:] for key in ("x", "y", "customdata")}
        figure.add_trace(go.Scatter(**ends, mode="markers", marker=head | dict(line_width=0)))
    for place in np.flatnonzero(steps == run.best):
        figure.add_trace(
            go.Scatter(
                x=points[[place], 0].astype(np.float32),
                y=points[[place], 1].astype(np.float32),
                mode="markers",
                marker=_best_marker(color, palette),
                customdata=[[index, int(run.best)]],
                hovertemplate=hover.replace("<br>step", "<br>best step,"),
                name=escape(clean(run.name)),
            )
        )


def _along(points: np.ndarray, count: int) -> np.ndarray:
    """So many points on the line through these, evenly between one and the next.  (M, 2)"""
    if len(points) < 2:
        return points
    at = np.linspace(0, len(points) - 1, count)
    numbers = np.arange(len(points))
    return np.stack([np.interp(at, numbers, values) for values in points.T], axis=1)


def _path_labels(
    runs: Sequence[Course], paths: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[tuple[int, int, str]]:
    """What is said beside which look: run, index of its look, text.

    Of one run the steps of the first, the best and the last look; of several the run's name at
    the last one.
    """
    labels = []
    for index, (run, (steps, _)) in enumerate(zip(runs, paths, strict=True)):
        if not len(steps):
            continue
        if len(runs) > 1:
            labels.append((index, len(steps) - 1, shorten(run.name, 22)))
            continue
        said = {0: f"step {steps[0]:,.0f}"}
        said[len(steps) - 1] = f"step {steps[-1]:,.0f}"
        for place in np.flatnonzero(steps == run.best):
            said[int(place)] = f"best, step {run.best:,}"
        labels += [(index, place, text) for place, text in said.items()]
    return labels


def _add_path_labels(
    figure: go.Figure,
    paths: Sequence[tuple[np.ndarray, np.ndarray]],
    labels: Sequence[tuple[int, int, str]],
    spans: tuple[list[float], list[float]],
    colors: Sequence[str],
    palette: Palette,
) -> None:
    """Add the labels beside their looks, off the paths."""
    low, high = np.array(spans).T
    homes = np.array([paths[index][1][place] for index, place, _ in labels]).reshape(-1, 2)
    sizes = np.array([(6.4 * len(text), 15) for *_, text in labels]).reshape(-1, 2)
    # What labels should not cover: the ends, and the lines as so many points.
    ways = [homes, *(_along(points, _OBSTACLES // len(paths)) for _, points in paths)]
    shares = (np.concatenate(ways) - low) / (high - low)
    radii = np.where(np.arange(len(shares)) < len(homes), _HEAD, 3.0)
    offsets = place_labels(
        shares, radii, range(len(homes)), sizes, widths=_PLANE_WIDTHS, height=_PLANE_HEIGHT
    )
    for (index, _, text), home, (right, up), size in zip(
        labels, homes, offsets, sizes, strict=True
    ):
        is_far = (np.abs((right, up)) - size / 2).max() - _HEAD > NEAR + 1
        side = int(np.sign(right)) if abs(right) >= size[0] / 2 else 0
        align = ("center", "left", "right")[side]
        mark = "" if len(paths) == 1 else colored("■ ", colors[index])
        figure.add_annotation(
            text=mark + escape(text),
            x=home[0],
            y=home[1],
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=colors[index] if is_far else CLEAR,
            standoff=_HEAD - 2,
            ax=right - side * size[0] / 2,
            ay=-up,
            xanchor=align,
            align=align,
            borderpad=1,
            font=dict(size=SMALL, color=palette.text, shadow=halo(palette)),
        )
