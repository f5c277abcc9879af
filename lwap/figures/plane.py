"""Figure of strategies in the plane of alignment and uniformity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.layout import (
    HEADER,
    LEAST,
    PHONE,
    PLANE_HEAD,
    RIGHT,
    SMALL,
    TICKS,
    add_header,
    finish,
    padded,
    plane_axes,
    stack,
    strategy_lines,
)
from lwap.figures.marks import CLICKABLE
from lwap.figures.placement import NEAR, place_labels
from lwap.figures.style import (
    CLEAR,
    MODEL,
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

_LEFT = 52  # px, margin
_WIDTHS = (
    PHONE - _LEFT - RIGHT,
    620,
    1030,
)  # px, of the plot, where labels must not collide
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
    plane = _plane(names, np.stack([uniformity, alignment], axis=1))

    figure = go.Figure()
    hover = [
        f"{escape(clean(name))}<br>uniformity <b>{format_number(x, '.3f')}</b><br>"
        f"alignment <b>{format_number(y, '.3f')}</b>"
        for name, x, y in zip(names, uniformity, alignment, strict=True)
    ]
    numbered = _numbered_states(plane)
    for name in plane.paths:
        _add_path(figure, palette, plane, name, numbered, hover, theme)
    for index in plane.strategies:
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
    _add_labels(figure, palette, plane, numbered)
    domains, height = stack([(HEADER + 8, plane.height)], TICKS)
    figure.update_layout(**plane_axes(palette, plane.spans, domains[0]))
    note = "paths: one hidden state alone, numbered" if plane.paths else "one mark a strategy"
    add_header(figure, palette, domains[0][1], PLANE_HEAD, note, left=_LEFT)
    return finish(figure, palette, height, left=_LEFT)


@dataclass(frozen=True)
class _Plane:
    """What is drawn where; a point is known by its index."""

    names: list[str]
    points: np.ndarray  # (K, 2), uniformity and alignment
    paths: dict[str, list[int]]  # single layers of one kind, in order of their state
    strategies: list[int]  # all other points
    spans: tuple[list[float], list[float]]  # ranges of both axes
    height: int  # px

    @property
    def shares(self) -> np.ndarray:
        """Places as shares of the plot, from its lower left corner.  (K, 2)"""
        low, high = np.array(self.spans).T
        return (self.points - low) / (high - low)

    def state(self, index: int) -> int:
        """The hidden state of a single layer."""
        return parse_strategy(self.names[index])[1] or 0


def _plane(names: list[str], points: np.ndarray) -> _Plane:
    paths: dict[str, list[int]] = {}
    strategies = []
    for index, name in enumerate(names):
        head, layer = parse_strategy(name)
        if not np.isfinite(points[index]).all():
            continue
        if layer is None:
            strategies.append(index)
        else:
            # "model · layer_mean:3+whiten" is on the path "model · layer_mean+whiten"
            paths.setdefault(name.replace(f"{head}:{layer}", head), []).append(index)
    for path in paths.values():
        path.sort(key=lambda index: parse_strategy(names[index])[1])
    shown = points[np.isfinite(points).all(axis=1)]
    spans = padded(shown[:, 0], 0.1), padded(shown[:, 1], 0.1)
    height = max(340, min(560, 300 + 10 * len(strategies)))
    return _Plane(names, points, paths, strategies, spans, height)


def _add_path(
    figure: go.Figure,
    palette: Palette,
    plane: _Plane,
    name: str,
    numbered: Sequence[int],
    hover: Sequence[str],
    theme: str,
) -> None:
    """Add single layers as points on a line in the colour of their kind."""
    path = plane.paths[name]
    kind = "mean" if "layer_mean" in name.rpartition(MODEL)[2] else "cls"
    states = np.array([plane.state(index) for index in path])
    deepest = max(plane.state(index) for path in plane.paths.values() for index in path) or 1
    colors = ink(STATE_COLORSCALE, states / deepest)
    is_numbered = np.isin(path, numbered)
    figure.add_trace(
        go.Scatter(
            x=plane.points[path, 0],
            y=plane.points[path, 1],
            mode="lines+markers+text",
            line=dict(color=translucent(strategy_color(kind, theme), 0.75), width=1.5),
            marker=dict(
                symbol="circle",
                size=np.where(is_numbered, _DOT, _SMALL_DOT),
                color=states,
                cmin=0,
                cmax=deepest,
                colorscale=STATE_COLORSCALE,
                line=dict(color=palette.zero, width=1),
                opacity=1,
            ),
            # The embeddings are named beside the path: "emb" is too wide for a dot.
            text=[
                colored(state_tick(state), color) if state and shown else ""
                for state, color, shown in zip(states, colors, is_numbered, strict=True)
            ],
            textposition="middle center",
            textfont=dict(size=LEAST),
            hovertext=[hover[index] for index in path],
            customdata=[[index] for index in path],
            name=escape(name),
            **CLICKABLE,
        )
    )


def _numbered_states(plane: _Plane) -> list[int]:
    """Indices of the single layers whose number has room on a phone.

    The last of a path first, then every fourth, every second, all: where points crowd, the
    numbers stay even.
    """

    def order(index: int) -> tuple[int, int]:
        state = plane.state(index)
        is_last = any(index == path[-1] for path in plane.paths.values())
        return (0 if is_last else 1 if state % 4 == 0 else 2 if state % 2 == 0 else 3), -state

    pixels = plane.shares * [_WIDTHS[0], plane.height]
    taken = list(plane.strategies)
    numbered = []
    for index in sorted((i for path in plane.paths.values() for i in path), key=order):
        distances = np.abs(pixels[taken] - pixels[index]).max(axis=1)
        if distances.min(initial=np.inf) > _DOT:
            taken.append(index)
            numbered.append(index)
    return numbered


def _add_labels(
    figure: go.Figure, palette: Palette, plane: _Plane, numbered: Sequence[int]
) -> None:
    """Add the names of strategies beside their marks, and of paths beside their first state."""
    labels = {
        index: strategy_lines(plane.names[index], _LINE_COLUMNS) for index in plane.strategies
    }
    for name, path in plane.paths.items():
        labels[path[0]] = strategy_lines(name, _LINE_COLUMNS)
        if plane.state(path[0]) == 0:
            labels[path[0]][-1] += ", emb"
    drawn = [*plane.strategies, *(index for path in plane.paths.values() for index in path)]
    radii = np.array(
        [
            7 if index in plane.strategies else (_DOT if index in numbered else _SMALL_DOT) / 2
            for index in drawn
        ]
    )
    owners = [drawn.index(index) for index in labels]
    sizes = np.array(
        [(6.2 * max(map(len, lines)), 2 + 13 * len(lines)) for lines in labels.values()]
    ).reshape(-1, 2)
    offsets = place_labels(
        plane.shares[drawn], radii, owners, sizes, widths=_WIDTHS, height=plane.height
    )
    for (index, lines), radius, (right, up), size in zip(
        labels.items(), radii[owners], offsets, sizes, strict=True
    ):
        is_far = (np.abs((right, up)) - size / 2).max() - radius > NEAR + 1
        # The text may be narrower than was reckoned: let it end at the side of its mark.
        side = int(np.sign(right)) if abs(right) >= size[0] / 2 else 0
        align = ("center", "left", "right")[side]
        color = palette.text if index in plane.strategies else palette.muted
        figure.add_annotation(
            text="<br>".join(lines),
            x=plane.points[index, 0],
            y=plane.points[index, 1],
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=palette.zero if is_far else CLEAR,
            standoff=radius - 1,
            ax=right - side * size[0] / 2,
            ay=-up,
            xanchor=align,
            align=align,
            borderpad=1,
            font=dict(size=SMALL, color=color),
        )
