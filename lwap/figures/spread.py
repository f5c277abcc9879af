"""Figures of how evenly a space's embeddings are spread: cosines, spectra, states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import Axis, free_axis, padded
from lwap.figures.checks import check_within, checked_arrays, checked_texts
from lwap.figures.curves import Curve, curve_axis, curve_margin, curve_panel, names_height
from lwap.figures.labels import Label, beside
from lwap.figures.marks import upright
from lwap.figures.panels import Panel, compose
from lwap.figures.style import (
    Palette,
    first_token,
    palette_of,
    parse_strategy,
    strategy_color,
    strategy_marker,
    translucent,
)
from lwap.figures.template import PHONE
from lwap.figures.texts import clean, colored, escape, format_number, shorten
from lwap.registry import MEASURES

_LEFT = 48  # px, margin
_KEY_LINE = 17  # px, a line of the header, which is a key too
_DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")  # of equal colours
_KEYS = dict(zip((*_DASHES, "dot"), ("━━━", "━ ━", "━ ·", "━━ ━", "━━ ·", "····"), strict=True))
_COSINE_HOVER = "%{fullData.name}<br>cosine %{x:.2f}: density <b>%{y:.2f}</b><extra></extra>"
_SHARE_HOVER = "%{fullData.name}<br>first %{x:,d} directions: <b>%{y:.1f} %</b><extra></extra>"
_ABOVE = 1.15  # times the highest density of the spaces is the end of the axis
_COSINES = 260  # px, body of the cosines
_SPECTRUM = 280  # px, body of the spectra
_TOP = 103  # percent, end of the axis of shares
_EVEN = "even over all directions"
_PANEL = 116  # px, body of a panel of layers
_LEGEND = 22  # px, above the first panel

# What the header says behind the name; form of the values; whether zero belongs to the axis.
# --- cosines -------------------------------------------------------------------------------------


def cosine_distribution(
    edges: Any,
    densities: Any,
    names: Sequence[str],
    *,
    reference: tuple[Any, Any],
    dimension: int,
    means: Any = None,
    theme: str = "light",
) -> go.Figure:
    """Draw how the cosines of random pairs of sentences are distributed in one or two spaces.

    The reference may be many times as high as the spaces' densities: the axis ends a little above
    these, and the header says how high the reference goes.

    Args:
        edges: (B + 1,), edges of the bins of cosines, ascending.
        densities: (K, B), densities of the cosines of 1 or 2 spaces.
        names: K strategy names, each alone or as "model · strategy".
        reference: two arrays (M,), ascending cosines and the density of the cosine of two random
            points of the unit sphere.
        dimension: of the sphere, so of the embeddings.
        means: (K,), mean cosine of each space, drawn as a thin line; NaN draws none.

    Raises:
        ValueError: edges do not ascend, a density is negative, a cosine is outside −1 to 1, or
            there are more than 2 spaces.
    """
    palette = palette_of(theme)
    edges, densities, means, x, heights = _checked_cosines(edges, densities, means, reference)
    names = checked_texts("names", names, len(densities))
    sphere = f"uniform sphere, D = {dimension}"
    traces, keys, shapes = [], [], []
    lines = _lines(names, palette)
    for name, density, mean, line in zip(names, densities, means, lines, strict=True):
        area = dict(fill="tozeroy", fillcolor=translucent(line["color"], 0.16))
        middles = (edges[:-1] + edges[1:]) / 2
        traces.append(_curve(middles, density, line, name, _COSINE_HOVER).update(area))
        said = ""
        if not np.isnan(mean):
            said = f"mean {format_number(mean, '.2f')}"
            thin = dict(line_dash=line["dash"], line_width=1.2, layer="above", name="mean")
            shapes.append(upright(mean, line["color"], **thin))
        keys.append(_key(name, said, line, palette))
    traces.append(_curve(x, heights, _dotted(palette), sphere, _COSINE_HOVER))
    keys.append(_key(sphere, "", _dotted(palette), palette))
    highest = float(densities.max()) or 1.0
    # A reference that is but a little higher is shown whole.
    top = _ABOVE * max(highest, min(float(heights.max()), 1.3 * highest))
    note = "narrow around 0 is uniform"
    if heights.max() > top:
        note += f" · reference peaks at {heights.max():.1f}"
    y_axis = free_axis([0, top]) | dict(nticks=5)
    header = _header("Pairwise cosines", note, keys)
    panel = Panel(_COSINES, traces, y_axis, shapes=shapes, **header)
    x_axis = _cosine_axis(edges, densities, means, reference)
    return compose([panel], x_axis, palette, margin=dict(l=_LEFT))


def _checked_cosines(
    edges: Any, densities: Any, means: Any, reference: tuple[Any, Any]
) -> list[np.ndarray]:
    """Copy edges, densities, means and both arrays of the reference."""
    arrays = checked_arrays(
        edges=(edges, "E"),
        densities=(densities, "KB"),
        means=(np.full(len(densities), np.nan) if means is None else means, "K", "nan"),
        **{f"reference[{place}]": (reference[place], "M") for place in (0, 1)},
    )
    edges, densities, means, x, heights = arrays
    count, bins = densities.shape
    if count > 2:
        raise ValueError(f"densities has {count} spaces; at most 2 can be told apart")
    if len(edges) != bins + 1:
        raise ValueError(f"edges has {len(edges)} entries; expected {bins + 1}, one more than bins")
    for name, ascending in (("edges", edges), ("reference[0]", x)):
        if (np.diff(ascending) <= 0).any():
            raise ValueError(f"{name} do not ascend")
    for name, cosines in (("edges", edges), ("reference[0]", x), ("means", means)):
        check_within(name, cosines, -1 - 1e-6, 1 + 1e-6, "cosines")
    for name, array in (("densities", densities), ("reference[1]", heights)):
        if array.min() < 0:
            raise ValueError(f"{name} are densities from 0, got {array.min():g}")
    return arrays


def _cosine_axis(
    edges: np.ndarray, densities: np.ndarray, means: np.ndarray, reference: tuple[Any, Any]
) -> Axis:
    """Axis of all bins that are not empty, and of the reference but for its tails."""
    x, heights = map(np.asarray, reference)
    is_filled = densities.max(axis=0) > 1e-3 * (densities.max() or 1.0)
    shown = [edges[:-1][is_filled], edges[1:][is_filled], means, x[heights > 0.02 * heights.max()]]
    low, high = padded(np.concatenate(shown), 0.03)
    return free_axis([max(low, -1), min(high, 1)], "cosine of two sentences") | dict(nticks=8)


# --- spectra -------------------------------------------------------------------------------------


def spectra(
    cumulative: Sequence[Any],
    names: Sequence[str],
    *,
    effective_ranks: Any,
    theme: str = "light",
) -> go.Figure:
    """Draw how much of the variance lies in the first principal directions of each space.

    Args:
        cumulative: K arrays (D_k,), share of the variance in the first 1, 2, … directions, from 0
            to 1.
        names: K strategy names, each alone or as "model · strategy".
        effective_ranks: (K,), how many directions are in use, marked on the curves; NaN and
            numbers below 1 leave the mark out.

    Raises:
        ValueError: a share is outside 0 to 1 or below the one before it, or an effective rank is
            above D_k.
    """
    palette = palette_of(theme)
    curves, names, ranks = _checked_spectra(cumulative, names, effective_ranks)
    traces = [_even(size, palette) for size in sorted(set(map(len, curves)))]
    keys, labels = [], []
    for name, curve, rank, line in zip(names, curves, ranks, _lines(names, palette), strict=True):
        directions = np.arange(1, len(curve) + 1)
        traces.append(_curve(directions, 100 * curve, line, name, _SHARE_HOVER))
        keys.append(_key(name, "", line, palette))
        if rank >= 1:  # nor NaN
            share = 100 * float(np.interp(np.log(rank), np.log(directions), curve))
            said = f"effective rank {rank:.0f} of {len(curve)}"
            traces.append(_rank_mark(rank, share, said, name, palette))
            labels.append(Label([said], np.log10(rank), share, 6.0, line["color"], palette.text))
    keys.append(_key(_EVEN, "", _dotted(palette), palette))
    x_axis = _direction_axis(max(map(len, curves)))
    panel = Panel(
        _SPECTRUM,
        traces,
        free_axis([0, _TOP]) | dict(dtick=25, ticksuffix=" %"),
        annotations=_rank_labels(labels, curves, x_axis["range"], palette),
        **_header("Share of the variance", "closer to the dotted line: more even", keys),
    )
    return compose([panel], x_axis, palette, margin=dict(l=_LEFT + 4, r=16))


def _checked_spectra(
    cumulative: Sequence[Any], names: Sequence[str], effective_ranks: Any
) -> tuple[list[np.ndarray], list[str], np.ndarray]:
    curves = [
        checked_arrays(**{f"cumulative[{index}]": (curve, "D")})[0]
        for index, curve in enumerate(cumulative)
    ]
    if not curves:
        raise ValueError("cumulative is empty; expected one array a space")
    names = checked_texts("names", names, len(curves))
    (ranks,) = checked_arrays(effective_ranks=(effective_ranks, "K", "nan"))
    if len(ranks) != len(curves):
        raise ValueError(f"effective_ranks has {len(ranks)} entries; expected {len(curves)}")
    for index, (curve, rank) in enumerate(zip(curves, ranks, strict=True)):
        check_within(f"cumulative[{index}]", curve, -1e-6, 1 + 1e-6, "shares of the variance")
        if (np.diff(curve) < -1e-6).any():
            raise ValueError(f"cumulative[{index}] decreases; it must be a cumulative share")
        check_within(f"effective_ranks[{index}]", np.array([rank]), 0, len(curve), "directions")
    return curves, names, ranks


def _even(size: int, palette: Palette) -> go.Scatter:
    """Build the curve of a space of this size whose variance is the same in all directions."""
    at = np.unique(np.geomspace(1, size, 200))
    return _curve(at, 100 * at / size, _dotted(palette), _EVEN, None).update(hoverinfo="skip")


def _rank_mark(rank: float, share: float, said: str, name: str, palette: Palette) -> go.Scatter:
    said = f"{said}: <b>%{{y:.1f}} %</b> of the variance"
    return go.Scatter(
        x=[rank],
        y=[share],
        mode="markers",
        marker=strategy_marker(name, palette, size=11),
        cliponaxis=False,
        hovertemplate=f"%{{fullData.name}}<br>{said}<extra></extra>",
        name=f"{escape(clean(name))} effective rank",
    )


def _rank_labels(
    labels: Sequence[Label], curves: Sequence[np.ndarray], span: Sequence[float], palette: Palette
) -> list[Axis]:
    """What is said beside the marks, off the curves."""
    dots = []
    for curve in curves:
        at = np.linspace(0, np.log10(len(curve)), 60)
        shares = np.interp(at, np.log10(np.arange(1, len(curve) + 1)), curve)
        dots.append(np.stack([at, 100 * shares], axis=1))
    return beside(
        labels,
        (span, (0, _TOP)),
        palette,
        obstacles=np.concatenate(dots),
        radii=np.full(60 * len(curves), 2.0),
        widths=(PHONE - _LEFT - 20, 620),
        height=_SPECTRUM,
    )


def _direction_axis(widest: int) -> Axis:
    """Logarithmic axis from 1 to the number of directions, which is always named."""
    steps = [step * 10**power for power in range(6) for step in (1, 3)]
    ticks = [step for step in steps if step <= widest / 1.8] + [widest]
    span = [0, max(float(np.log10(widest)), 0.3)]
    return free_axis(span, "number of principal directions, largest first") | dict(
        type="log",
        tickmode="array",
        tickvals=ticks,
        ticktext=[f"{tick:,}" for tick in ticks],
        ticklabelstandoff=3,
    )


# --- layers --------------------------------------------------------------------------------------


def layer_geometry(
    measures: Mapping[str, tuple[Any, Any]],
    references: Mapping[str, Mapping[str, float]],
    *,
    query_name: str = "CLS",
    theme: str = "light",
) -> go.Figure:
    """Draw measures of a space hidden state by hidden state, with the strategies at the right.

    One panel a measure, below each other, for a phone has no room for two beside each other.

    Args:
        measures: any of "uniformity", "alignment", "mean cosine", "IsoScore" and "effective
            rank", in the order of the panels, each with two arrays (S,): of the first tokens'
            vectors and of the mean vectors. NaN leaves a gap; a measure without any number has no
            panel.
        references: strategy name → measure → its value, NaN or left out where unknown.
        query_name: what the first line is; "last token" for causal decoders, which has the colour
            of that strategy.

    Raises:
        ValueError: a measure is unknown or none has a number.
    """
    palette = palette_of(theme)
    courses = _checked_measures(measures)
    for strategy in references:
        parse_strategy(strategy)
    body = max(_PANEL, 12 + names_height(references, 3))
    declared_as = {each.label: each for each in MEASURES.values()}
    panels: list[Panel] = []
    for measure, (first, mean) in courses.items():
        declared = declared_as[measure]
        form, has_zero, note = declared.form, declared.has_zero, declared.axis
        arrow = f" {declared.better}" if declared.better in "↓↑" else ""
        values = [marks.get(measure, np.nan) for marks in references.values()]
        (values,) = checked_arrays(references=(values, "K", "nan", "empty"))
        panel = curve_panel(
            [Curve(first, first_token(query_name), query_name), Curve(mean, "mean", "mean")],
            dict(zip(references, values, strict=True)),
            palette,
            form=form,
            share=0.1,
            zero=has_zero,
            body=body,
            y_axis=dict(nticks=4),
            lines=[f"<b>{escape(measure)}{arrow}</b>  {colored(note, palette.muted)}"],
            header=30,
        )
        for trace, group in zip(panel.traces, (first_token(query_name), "mean"), strict=False):
            trace.update(legendgroup=group, showlegend=not panels)
        panels.append(panel)
    margin = dict(l=_LEFT, r=curve_margin(references))
    x_axis = curve_axis(len(first), references)
    return compose(panels, x_axis, palette, margin=margin, legend=_LEGEND)


def _checked_measures(
    measures: Mapping[str, tuple[Any, Any]],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Copy the measures that have a number."""
    declared = [each.label for each in MEASURES.values() if each.of == "space"]
    if unknown := [name for name in measures if name not in declared]:
        raise ValueError(f"{unknown[0]!r} is no measure; accepted are {', '.join(declared)}")
    arrays = checked_arrays(
        **{
            f"{name}, {kind}": (values, "S", "nan")
            for name, pair in measures.items()
            for kind, values in zip(("first token", "mean"), pair, strict=True)
        }
    )
    known = {
        name: (first, mean)
        for name, first, mean in zip(measures, arrays[::2], arrays[1::2], strict=True)
        if np.isfinite([first, mean]).any()
    }
    if not known:
        raise ValueError("measures has no number to draw")
    return known


# --- lines and their keys ------------------------------------------------------------------------


def _lines(names: Sequence[str], palette: Palette) -> list[dict[str, Any]]:
    """Style of every space's line: equal colours differ in their dashes."""
    colors = [strategy_color(name, palette.theme) for name in names]
    before = [colors[:index].count(color) for index, color in enumerate(colors)]
    return [
        dict(color=color, width=2, dash=_DASHES[count % len(_DASHES)])
        for color, count in zip(colors, before, strict=True)
    ]


def _dotted(palette: Palette) -> dict[str, Any]:
    """Style of what the spaces are compared with."""
    return dict(color=palette.gold, width=1.5, dash="dot")


def _curve(
    x: np.ndarray, y: np.ndarray, line: dict[str, Any], name: str, hover: str | None
) -> go.Scatter:
    name = escape(clean(name))
    return go.Scatter(x=x, y=y, mode="lines", line=line, hovertemplate=hover, name=name)


def _key(name: str, said: str, line: dict[str, Any], palette: Palette) -> str:
    """A safe line of the key: a piece of the line, its name, and what is said of it."""
    text = escape(shorten(name, 44 - len(said)))
    said = f", {colored(said, palette.muted)}" if said else ""
    return f"{colored(_KEYS[line['dash']], line['color'])} {text}{said}"


def _header(head: str, note: str, keys: Sequence[str]) -> dict[str, Any]:
    """Header of a panel with a key below it."""
    height = 10 + _KEY_LINE * (2 + len(keys))
    return dict(head=head, note=note, lines=keys, header=height, lift=2)
