"""Figure of strategies in the plane of alignment and uniformity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.layout import (
    HEADER,
    LEAST,
    PHONE,
    SMALL,
    TICKS,
    add_header,
    finish,
    free_axis,
    padded,
    stack,
    strategy_lines,
)
from lwap.figures.marks import CLICKABLE
from lwap.figures.placement import NEAR, place_labels
from lwap.figures.style import (
    CLEAR,
    STATE_COLORSCALE,
    Palette,
    ink,
    palette_of,
    parse_strategy,
    strategy_color,
    strategy_marker,
    translucent,
)
from lwap.figures.texts import (
    clean,
    colored,
    escape,
    format_number,
)
from lwap.names import state_tick

_WIDTHS = (PHONE - 62, 620, 1030)  # px, of the plot; labels must not collide at any of them
_DOT, _SMALL_DOT = 16, 8  # px, a state with its number, and one without
_LINE_COLUMNS = 24  # characters of a line of a label


def alignment_uniformity(
    alignment: Any, uniformity: Any, names: Sequence[str], *, theme: str = "light"
) -> go.Figure:
    """Draw strategies in the plane of alignment and uniformity; both are better when lower.

    Single layers of one kind are joined into a thin path, coloured and numbered by state on the
    scale of hidden states. `customdata` of every point is [its index].

    Args:
        alignment: (K,), mean squared distance of positive pairs; NaN leaves the point out.
        uniformity: (K,), log of the mean Gaussian potential of random pairs; NaN as above.
        names: K strategy names, each alone or as "model · strategy".
        theme: "light" or "dark".

    Raises:
        ValueError: shapes disagree, a value is infinite, a name is no strategy, or the theme is
            unknown.
    """
    palette = palette_of(theme)
    alignment, uniformity = checked_arrays(
        alignment=(alignment, "K", "nan"), uniformity=(uniformity, "K", "nan")
    )
    names = checked_texts("names", names, len(alignment))
    paths, strategies = _paths_and_strategies(names, np.isfinite(alignment + uniformity))
    spans = padded(uniformity, 0.1), padded(alignment, 0.1)
    body = max(340, min(560, 300 + 10 * len(strategies)))
    shares = np.stack(
        [
            (values - span[0]) / (span[1] - span[0])
            for values, span in zip((uniformity, alignment), spans, strict=True)
        ],
        axis=1,
    )  # (K, 2)

    figure = go.Figure()
    hover = [
        f"{escape(clean(name))}<br>uniformity <b>{format_number(x, '.3f')}</b><br>"
        f"alignment <b>{format_number(y, '.3f')}</b>"
        for name, x, y in zip(names, uniformity, alignment, strict=True)
    ]
    deepest = max((parse_strategy(names[i])[1] for path in paths.values() for i in path), default=0)
    numbered = _numbered_states(paths, strategies, shares, names, body)
    for path_name, path in paths.items():
        head = "mean" if parse_strategy(names[path[0]])[0] == "layer_mean" else "cls"
        states = np.array([parse_strategy(names[i])[1] for i in path])
        is_numbered = np.isin(path, numbered)
        colors = ink(STATE_COLORSCALE, states / max(deepest, 1))
        figure.add_trace(
            go.Scatter(
                x=uniformity[path],
                y=alignment[path],
                mode="lines+markers+text",
                line=dict(color=translucent(strategy_color(head, theme), 0.75), width=1.5),
                marker=dict(
                    symbol="circle",
                    size=np.where(is_numbered, _DOT, _SMALL_DOT),
                    color=states,
                    cmin=0,
                    cmax=max(deepest, 1),
                    colorscale=STATE_COLORSCALE,
                    line=dict(color=palette.zero, width=1),
                    opacity=1,
                ),
                text=[
                    colored(state_tick(state), color) if shown else ""
                    for state, color, shown in zip(
                        states, colors, is_numbered & (states > 0), strict=True
                    )
                ],
                textposition="middle center",
                textfont=dict(size=LEAST),
                hovertext=[hover[i] for i in path],
                customdata=[[i] for i in path],
                name=escape(path_name),
                **CLICKABLE,
            )
        )
    for index in strategies:
        figure.add_trace(
            go.Scatter(
                x=[uniformity[index]],
                y=[alignment[index]],
                mode="markers",
                marker=strategy_marker(names[index], theme, size=12),
                hovertext=[hover[index]],
                customdata=[[index]],
                name=escape(names[index]),
                **CLICKABLE,
            )
        )
    _add_plane_labels(figure, palette, names, paths, strategies, numbered, shares, spans, body)
    x_axis = free_axis(palette, spans[0], "← uniformity, lower is better")
    y_axis = free_axis(palette, spans[1], "← alignment, lower is better")
    domains, height = stack([(HEADER + 8, body)], TICKS)
    figure.update_layout(xaxis=x_axis, yaxis=y_axis | {"domain": domains[0]})
    note = "paths: one hidden state alone, numbered" if paths else "one mark a strategy"
    add_header(figure, palette, domains[0][1], "Better towards the lower left ↙", note, left=52)
    return finish(figure, palette, height, left=52)


def _paths_and_strategies(
    names: Sequence[str], known: np.ndarray
) -> tuple[dict[str, list[int]], list[int]]:
    """Indices of the single layers of each kind in order of their state, and of all others."""
    paths: dict[str, list[int]] = {}
    strategies = []
    for index in np.flatnonzero(known).tolist():
        head, layer = parse_strategy(names[index])
        if layer is None:
            strategies.append(index)
        else:
            # "model · layer_mean:3+whiten" is on the path "model · layer_mean+whiten"
            paths.setdefault(names[index].replace(f"{head}:{layer}", head), []).append(index)
    for path in paths.values():
        path.sort(key=lambda index: parse_strategy(names[index])[1])
    return paths, strategies


def _numbered_states(
    paths: Mapping[str, list[int]],
    strategies: Sequence[int],
    shares: np.ndarray,
    names: Sequence[str],
    body: int,
) -> list[int]:
    """Indices of the single layers whose number has room on a phone, the deepest first.

    shares: (K, 2)
    """
    pixels = shares * [_WIDTHS[0], body]
    taken = list(strategies)
    numbered = []
    # Deepest first, then every fourth, every second, all: numbers stay even where points crowd.
    for index in sorted(
        (index for path in paths.values() for index in path),
        key=lambda index: _priority(paths, names, index),
    ):
        distances = np.abs(pixels[taken] - pixels[index]).max(axis=1, initial=0)
        if not taken or distances.min() > _DOT:
            taken.append(index)
            numbered.append(index)
    return numbered


def _priority(paths: Mapping[str, list[int]], names: Sequence[str], index: int) -> tuple[int, int]:
    state = parse_strategy(names[index])[1] or 0
    if any(index == path[-1] for path in paths.values()):
        return 0, 0
    return (1 if state % 4 == 0 else 2 if state % 2 == 0 else 3), -state


def _add_plane_labels(
    figure: go.Figure,
    palette: Palette,
    names: Sequence[str],
    paths: Mapping[str, list[int]],
    strategies: Sequence[int],
    numbered: Sequence[int],
    shares: np.ndarray,
    spans: Sequence[Sequence[float]],
    body: int,
) -> None:
    """Add the names of strategies beside their marks, and of paths beside their first state."""
    labels = {index: strategy_lines(names[index], _LINE_COLUMNS) for index in strategies}
    for name, path in paths.items():
        lines = strategy_lines(name, _LINE_COLUMNS)
        if parse_strategy(names[path[0]])[1] == 0:
            lines[-1] += ", emb"
        labels[path[0]] = lines
    drawn = [*strategies, *(index for path in paths.values() for index in path)]
    radii = np.array(
        [7 if i in strategies else (_DOT if i in numbered else _SMALL_DOT) / 2 for i in drawn]
    )
    owners = [drawn.index(index) for index in labels]
    sizes = np.array(
        [(6.2 * max(map(len, lines)), 2 + 13 * len(lines)) for lines in labels.values()]
    ).reshape(-1, 2)
    offsets = place_labels(shares[drawn], radii, owners, sizes, widths=_WIDTHS, height=body)
    for (point, lines), radius, (right, up), size in zip(
        labels.items(), radii[owners], offsets, sizes, strict=True
    ):
        is_far = (np.abs((right, up)) - size / 2).max() - radius > NEAR + 1
        color = palette.text if point in strategies else palette.muted
        # The text may be narrower than was reckoned: let it end at the side of its mark.
        side = int(np.sign(right)) if abs(right) >= size[0] / 2 else 0
        align = ("center", "left", "right")[side]
        figure.add_annotation(
            text="<br>".join(lines),
            x=spans[0][0] + shares[point, 0] * (spans[0][1] - spans[0][0]),
            y=spans[1][0] + shares[point, 1] * (spans[1][1] - spans[1][0]),
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=palette.zero if is_far else CLEAR,
            standoff=radius - 1,
            ax=right - side * size[0] / 2,
            xanchor=align,
            ay=-up,
            align=align,
            borderpad=1,
            font=dict(size=SMALL, color=color),
        )
