"""Figures of how evenly a space's embeddings are spread: cosines, spectra, states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import check_within, checked_arrays, checked_texts
from lwap.figures.layout import (
    PHONE,
    RIGHT,
    SMALL,
    TICKS,
    add_text,
    finish,
    free_axis,
    halo,
    padded,
    stack,
    strategy_lines,
    top_legend,
)
from lwap.figures.marks import add_states_and_edge, state_line
from lwap.figures.placement import place_labels
from lwap.figures.style import (
    Palette,
    first_token,
    palette_of,
    parse_strategy,
    strategy_color,
    strategy_marker,
    translucent,
)
from lwap.figures.texts import clean, colored, escape, format_number, shorten

_LEFT = 48  # px, margin
_KEY_LINE = 17  # px, a line of the key above the plot
_HEAD = 42  # px, the header above it
_DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")  # of equal colours
_KEYS = dict(zip(_DASHES, ("━━━", "━ ━", "━ ·", "━━ ━", "━━ ·"), strict=True))
_DOTTED = "····"
_COSINE_HOVER = "%{fullData.name}<br>cosine %{x:.2f}: density <b>%{y:.2f}</b><extra></extra>"
_SHARE_HOVER = "%{fullData.name}<br>first %{x:,d} directions: <b>%{y:.1f} %</b><extra></extra>"
_ABOVE = 1.15  # times the highest density of the spaces is the end of the axis
_LEGEND = 22  # px, above the first panel
_PANEL = 116  # px, body of a panel
_SPECTRUM = 280  # px, body of the spectra

# What the header says behind the name; form of the values; whether zero belongs to the axis.
_MEASURES = {
    "uniformity": (" ↓", "lower is more uniform", ".2f", False),
    "alignment": (" ↓", "lower: positive pairs nearer", ".3f", False),
    "mean cosine": ("", "0 is isotropic", ".2f", True),
    "IsoScore": (" ↑", "1 is isotropic", ".3f", False),
    "effective rank": (" ↑", "higher: more directions in use", ".1f", False),
}


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
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, edges do not ascend, a density is negative, a cosine is
            outside −1 to 1, there are more than 2 spaces, a name is no strategy, or the theme is
            unknown.
    """
    palette = palette_of(theme)
    edges, densities, x, heights = checked_arrays(
        edges=(edges, "E"),
        densities=(densities, "KB"),
        **{"reference[0]": (reference[0], "M"), "reference[1]": (reference[1], "M")},
    )
    count, bins = densities.shape
    names = checked_texts("names", names, count)
    if count > 2:
        raise ValueError(f"densities has {count} spaces; at most 2 can be told apart")
    if len(edges) != bins + 1:
        raise ValueError(f"edges has {len(edges)} entries; expected {bins + 1}, one more than bins")
    for name, ascending in (("edges", edges), ("reference[0]", x)):
        if (np.diff(ascending) <= 0).any():
            raise ValueError(f"{name} do not ascend")
        check_within(name, ascending, -1 - 1e-6, 1 + 1e-6, "cosines")
    for name, array in (("densities", densities), ("reference[1]", heights)):
        if array.min() < 0:
            raise ValueError(f"{name} are densities from 0, got {array.min():g}")
    (means,) = checked_arrays(
        means=(np.full(count, np.nan) if means is None else means, "K", "nan")
    )
    if len(means) != count:
        raise ValueError(f"means has {len(means)} entries; expected {count}")
    check_within("means", means, -1 - 1e-6, 1 + 1e-6, "cosines")

    middles = (edges[:-1] + edges[1:]) / 2
    highest = float(densities.max()) or 1.0
    # A reference that is but a little higher is shown whole.
    top = _ABOVE * max(highest, min(float(heights.max()), 1.3 * highest))
    figure = go.Figure()
    keys = []
    for name, density, mean, (color, dash) in zip(
        names, densities, means, _strokes(names, theme), strict=True
    ):
        safe = escape(clean(name))
        figure.add_trace(
            go.Scatter(
                x=middles,
                y=density,
                mode="lines",
                line=dict(color=color, width=2, dash=dash),
                fill="tozeroy",
                fillcolor=translucent(color, 0.16),
                hovertemplate=_COSINE_HOVER,
                name=safe,
            )
        )
        said = ""
        if not np.isnan(mean):
            figure.add_vline(x=mean, line=dict(color=color, width=1.2, dash=dash), name="mean")
            said = f"mean {format_number(mean, '.2f')}"
        keys.append(_key(name, said, color, dash, palette))
    label = f"uniform sphere, D = {dimension}"
    figure.add_trace(
        go.Scatter(
            x=x,
            y=heights,
            mode="lines",
            line=dict(color=palette.gold, width=1.5, dash="dot"),
            hovertemplate=_COSINE_HOVER,
            name=label,
        )
    )
    peak = f"reference peaks at {format_number(heights.max(), '.1f')}"
    keys.append(f"{colored(_DOTTED, palette.gold)} {label}")
    note = "narrow around 0 is uniform"
    if heights.max() > top:
        note += f" · {peak}"
    is_filled = densities.max(axis=0) > 1e-3 * highest
    seen = np.concatenate([edges[:-1][is_filled], edges[1:][is_filled], means])
    tails = x[heights > 0.02 * heights.max()]
    span = padded(np.concatenate([seen, tails]), 0.03)
    figure.update_layout(
        xaxis=free_axis(palette, [max(span[0], -1), min(span[1], 1)], "cosine of two sentences")
        | dict(nticks=8),
        yaxis=free_axis(palette, [0, top], None) | dict(nticks=5),
    )
    height, margin = _add_keyed_header(figure, palette, "Pairwise cosines", note, keys, 260)
    return finish(figure, palette, height, left=_LEFT, top=margin)


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
        theme: "light" or "dark".

    Raises:
        ValueError: numbers of entries disagree, a share is outside 0 to 1 or below the one before
            it, an effective rank is above D_k, a name is no strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
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

    figure = go.Figure()
    widest = max(map(len, curves))
    for size in sorted({len(curve) for curve in curves}):
        at = np.unique(np.geomspace(1, size, 200))
        figure.add_trace(
            go.Scatter(
                x=at,
                y=100 * at / size,
                mode="lines",
                line=dict(color=palette.gold, width=1.5, dash="dot"),
                hoverinfo="skip",
                name="even over all directions",
            )
        )
    keys, marks = [], []
    for name, curve, rank, (color, dash) in zip(
        names, curves, ranks, _strokes(names, theme), strict=True
    ):
        safe = escape(clean(name))
        at = np.arange(1, len(curve) + 1)
        figure.add_trace(
            go.Scatter(
                x=at,
                y=100 * curve,
                mode="lines",
                line=dict(color=color, width=2, dash=dash),
                hovertemplate=_SHARE_HOVER,
                name=safe,
            )
        )
        keys.append(_key(name, "", color, dash, palette))
        if not rank >= 1:  # nor NaN
            continue
        share = 100 * float(np.interp(np.log(rank), np.log(at), curve))
        said = f"effective rank {format_number(rank, '.0f')} of {len(curve)}"
        marks.append((float(rank), share, said, color))
        figure.add_trace(
            go.Scatter(
                x=[rank],
                y=[share],
                mode="markers",
                marker=strategy_marker(name, theme, size=11),
                cliponaxis=False,
                hovertemplate=f"%{{fullData.name}}<br>{said}: <b>%{{y:.1f}} %</b> of the variance"
                "<extra></extra>",
                name=f"{safe} effective rank",
            )
        )
    keys.append(f"{colored(_DOTTED, palette.gold)} even over all directions")
    _add_rank_labels(figure, marks, curves, widest, palette)
    figure.update_layout(
        xaxis=free_axis(
            palette,
            [0, max(float(np.log10(widest)), 0.3)],
            "number of principal directions, largest first",
        )
        | _log_ticks(widest)
        | dict(ticklabelstandoff=3),
        yaxis=free_axis(palette, [0, 103], None) | dict(dtick=25, ticksuffix=" %"),
    )
    note = "nearer to the dotted line: more even"
    height, margin = _add_keyed_header(
        figure, palette, "Share of the variance", note, keys, _SPECTRUM
    )
    return finish(figure, palette, height, left=_LEFT + 4, right=16, top=margin)


def _add_rank_labels(
    figure: go.Figure,
    marks: Sequence[tuple[float, float, str, str]],
    curves: Sequence[np.ndarray],
    widest: int,
    palette: Palette,
) -> None:
    """Add what each mark says beside it, off the curves.  marks: x, y, text, colour"""
    if not marks:
        return
    length = max(float(np.log10(widest)), 0.3)
    dots = [(np.log10(x) / length, y / 103) for x, y, _, _ in marks]
    for curve in curves:
        shares = np.linspace(0, 1, 60)
        at = shares * np.log10(len(curve))
        heights = np.interp(at, np.log10(np.arange(1, len(curve) + 1)), curve)
        dots += zip(at / length, heights * 100 / 103, strict=True)
    radii = np.where(np.arange(len(dots)) < len(marks), 6.0, 2.0)
    sizes = np.array([(6.2 * len(text), 14) for _, _, text, _ in marks])
    offsets = place_labels(
        np.array(dots),
        radii,
        range(len(marks)),
        sizes,
        widths=(PHONE - _LEFT - 20, 620),
        height=_SPECTRUM,
    )
    for (x, y, text, color), (right, up) in zip(marks, offsets, strict=True):
        figure.add_annotation(
            text=text,
            x=np.log10(x),
            y=y,
            ax=right,
            ay=-up,
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=color,
            standoff=5,
            borderpad=1,
            font=dict(size=SMALL, color=palette.text, shadow=halo(palette)),
        )


def _log_ticks(widest: int) -> dict[str, Any]:
    """Ticks from 1 to the number of directions, which is always named."""
    steps = [step * 10**power for power in range(6) for step in (1, 3)]
    ticks = [step for step in steps if step <= widest / 1.8] + [widest]
    return dict(
        type="log", tickmode="array", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks]
    )


def geometry_course(
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
        theme: "light" or "dark".

    Raises:
        ValueError: a measure is unknown or none has a number, shapes disagree, a value is
            infinite, a name is no strategy, or the theme is unknown.
    """
    palette = palette_of(theme)
    unknown = [name for name in measures if name not in _MEASURES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no measure; accepted are {', '.join(_MEASURES)}")
    arrays = checked_arrays(
        **{
            f"{name}, {kind}": (values, "S", "nan")
            for name, pair in measures.items()
            for kind, values in zip(("first token", "mean"), pair, strict=True)
        }
    )
    courses = {
        name: (first, mean)
        for name, first, mean in zip(measures, arrays[::2], arrays[1::2], strict=True)
        if np.isfinite([first, mean]).any()
    }
    if not courses:
        raise ValueError("measures has no number to draw")
    for strategy in references:
        parse_strategy(strategy)
    states = len(arrays[0])
    labels = {name: strategy_lines(name, 18) for name in references}
    body = max(_PANEL, 12 + sum(3 + 13 * len(lines) for lines in labels.values()))
    domains, height = stack([(30, body)] * len(courses), TICKS)

    figure = go.Figure()
    right, state_axis = RIGHT, None
    for index, (measure, (first, mean)) in enumerate(courses.items()):
        axis = "" if index == 0 else str(index + 1)
        arrow, note, form, has_zero = _MEASURES[measure]
        (values,) = checked_arrays(
            references=(
                [marks.get(measure, np.nan) for marks in references.values()],
                "K",
                "nan",
                "empty",
            )
        )
        known = {
            name: lines
            for (name, lines), value in zip(labels.items(), values, strict=True)
            if not np.isnan(value)
        }
        values = values[np.isfinite(values)]
        span = padded(np.concatenate([first, mean, values, [0.0] if has_zero else []]), 0.1)
        for line, strategy, name in (
            (first, first_token(query_name), query_name),
            (mean, "mean", "mean"),
        ):
            trace = state_line(line, strategy, name, theme, form=form)
            trace.update(yaxis=f"y{axis}", legendgroup=strategy, showlegend=index == 0)
            figure.add_trace(trace)
        # The marks at the edge are made for the first axis; here they move to the panel's own.
        edge = go.Figure()
        room = add_states_and_edge(edge, palette, states, known, values, span, body, theme, form)
        figure.add_traces([trace.update(yaxis=f"y{axis}") for trace in edge.data])
        for label in edge.layout.annotations:
            figure.add_annotation(label.update(yref=f"y{axis}"))
        for line in edge.layout.shapes:
            figure.add_shape(line.update(yref=f"y{axis} domain"))
        if state_axis is None or room > RIGHT:
            state_axis = edge.layout.xaxis
        right = max(right, room)
        y_axis = free_axis(palette, span, None) | dict(nticks=4, domain=domains[index])
        if has_zero:
            y_axis |= dict(zeroline=True, zerolinecolor=palette.zero, zerolinewidth=1)
        figure.update_layout({f"yaxis{axis}": y_axis})
        head = f"{escape(measure)}{arrow}"
        add_text(
            figure,
            f"<b>{head}</b>  {colored(note, palette.muted)}",
            palette,
            xshift=3 - _LEFT,
            y=domains[index][1],
            yshift=5,
        )
    last = "" if len(courses) == 1 else str(len(courses))
    figure.update_layout(
        xaxis=state_axis.update(anchor=f"y{last}"), showlegend=True, legend=top_legend(palette)
    )
    return finish(figure, palette, _LEGEND + height, left=_LEFT, right=right, top=_LEGEND)


# --- shared --------------------------------------------------------------------------------------


def _strokes(names: Sequence[str], theme: str) -> list[tuple[str, str]]:
    """Colour and dash of every line: equal colours differ in their dashes."""
    strokes: list[tuple[str, str]] = []
    for name in names:
        color = strategy_color(name, theme)
        before = sum(color == other for other, _ in strokes)
        strokes.append((color, _DASHES[before % len(_DASHES)]))
    return strokes


def _key(name: str, said: str, color: str, dash: str, palette: Palette) -> str:
    """A safe line of the key: a piece of the line, its name, and what is said of it."""
    text = escape(shorten(name, 44 - len(said)))
    said = f", {colored(said, palette.muted)}" if said else ""
    return f"{colored(_KEYS[dash], color)} {text}{said}"


def _add_keyed_header(
    figure: go.Figure, palette: Palette, head: str, note: str, keys: Sequence[str], body: int
) -> tuple[int, int]:
    """Add a header with a key below it; return the figure's height and its top margin."""
    lines = [f"<b>{head}</b>", colored(note, palette.muted), *keys]
    add_text(figure, "<br>".join(lines), palette, xshift=3 - _LEFT, y=1, yshift=7)
    margin = 10 + _KEY_LINE * len(lines)
    return margin + body + TICKS, margin
