"""Figure of strategies in the plane of alignment and uniformity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lwap.figures.axes import free_axis, padded
from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.labels import Label, beside, strategy_lines
from lwap.figures.marks import dots
from lwap.figures.panels import HEADER, Panel, compose
from lwap.figures.style import (
    STATE_COLORSCALE,
    Palette,
    ink,
    palette_of,
    parse_strategy,
    strategy_color,
    strategy_marker,
    translucent,
)
from lwap.figures.template import LEAST, PHONE, RIGHT
from lwap.figures.texts import clean, colored, escape, format_number
from lwap.names import state_tick

PLANE_LEFT = 52  # px, margin
PLANE_WIDTHS = (PHONE - PLANE_LEFT - RIGHT, 620, 1030)  # px, of the plot; labels must not collide
_DOT, _SMALL_DOT = 16, 8  # px, a state with its number, and one without
_LINE_COLUMNS = 24  # characters of a line of a label


def plane_panel(body: int, traces: Sequence[Any], span: Sequence[float], **panel: Any) -> Panel:
    """Build the plane; `span` is the range of the alignment, upwards."""
    y_axis = free_axis(span, "← alignment, lower is better")
    head = "Better towards the lower left ↙"
    return Panel(body, traces, y_axis, head, header=HEADER + 8, **panel)


def plane_axis(span: Sequence[float]) -> dict[str, Any]:
    """Horizontal axis of the plane; `span` is the range of the uniformity."""
    return free_axis(span, "← uniformity, lower is better")


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
    """
    palette = palette_of(theme)
    alignment, uniformity = checked_arrays(
        alignment=(alignment, "K", "nan"), uniformity=(uniformity, "K", "nan")
    )
    names = checked_texts("names", names, len(alignment))
    points = np.stack([uniformity, alignment], axis=1)
    plane = _Plane(names, points, [parse_strategy(name)[1] for name in names], palette)
    panel = plane_panel(
        plane.height,
        [*map(plane.path_marks, plane.paths), *map(plane.strategy_mark, plane.strategies)],
        plane.spans[1],
        note="paths: one hidden state alone, numbered" if plane.paths else "one mark a strategy",
        annotations=plane.labels(),
    )
    return compose([panel], plane_axis(plane.spans[0]), palette, margin=dict(l=PLANE_LEFT))


@dataclass(frozen=True)
class _Plane:
    """What is drawn where; a point is known by its index."""

    names: list[str]
    points: np.ndarray  # (K, 2), uniformity and alignment
    states: list[int | None]  # the hidden state of a single layer
    palette: Palette

    @cached_property
    def known(self) -> list[int]:
        return np.flatnonzero(np.isfinite(self.points).all(axis=1)).tolist()

    @cached_property
    def strategies(self) -> list[int]:
        """All points but the single layers."""
        return [index for index in self.known if self.states[index] is None]

    @cached_property
    def paths(self) -> dict[str, list[int]]:
        """Single layers of one kind, in order of their state."""
        paths: dict[str, list[int]] = {}
        for index in sorted(self.known, key=lambda index: self.states[index] or 0):
            if self.states[index] is not None:
                # "model · layer_mean:3+whiten" is on the path "model · layer_mean+whiten"
                name = self.names[index].replace(f":{self.states[index]}", "")
                paths.setdefault(name, []).append(index)
        return dict(sorted(paths.items(), key=lambda path: min(path[1])))

    @cached_property
    def spans(self) -> tuple[list[float], list[float]]:
        """Ranges of both axes."""
        shown = self.points[self.known]
        return padded(shown[:, 0], 0.1), padded(shown[:, 1], 0.1)

    @property
    def height(self) -> int:
        return max(340, min(560, 300 + 10 * len(self.strategies)))

    @cached_property
    def numbered(self) -> list[int]:
        """Single layers whose number has room on a phone.

        The last of a path first, then every fourth, every second, all: where points crowd, the
        numbers stay even.
        """
        lasts = [path[-1] for path in self.paths.values()]

        def order(index: int) -> tuple[int, int]:
            state = self.states[index] or 0  # every one of a path has one
            return (0 if index in lasts else 1 + (state % 4 > 0) + state % 2), -state

        low, high = np.array(self.spans).T
        pixels = (self.points - low) / (high - low) * [PLANE_WIDTHS[0], self.height]
        taken, numbered = list(self.strategies), []
        for index in sorted((i for path in self.paths.values() for i in path), key=order):
            distances = np.abs(pixels[taken] - pixels[index]).max(axis=1)
            if distances.min(initial=np.inf) > _DOT:
                taken.append(index)
                numbered.append(index)
        return numbered

    def hover(self, index: int) -> str:
        x, y = (format_number(value, ".3f") for value in self.points[index])
        name = escape(clean(self.names[index]))
        return f"{name}<br>uniformity <b>{x}</b><br>alignment <b>{y}</b>"

    def strategy_mark(self, index: int) -> go.Scatter:
        marker = strategy_marker(self.names[index], self.palette, size=12)
        x, y = self.points[index]
        name = escape(self.names[index])
        return dots([x], [y], marker, [self.hover(index)], [[index]], name=name)

    def path_marks(self, name: str) -> go.Scatter:
        """Build single layers as points on a line in the colour of their kind."""
        path = self.paths[name]
        kind = "cls" if parse_strategy(self.names[path[0]])[0] == "layer_cls" else "mean"
        states = np.array([self.states[index] for index in path])
        deepest = max(self.states[i] or 0 for path in self.paths.values() for i in path) or 1
        is_numbered = np.isin(path, self.numbered)
        # The embeddings are named beside the path: "emb" is too wide for a dot.
        texts = [
            colored(state_tick(state), color) if state and shown else ""
            for state, color, shown in zip(
                states, ink(STATE_COLORSCALE, states / deepest), is_numbered, strict=True
            )
        ]
        marker = dict(
            symbol="circle",
            size=np.where(is_numbered, _DOT, _SMALL_DOT),
            color=states,
            cmin=0,
            cmax=deepest,
            colorscale=STATE_COLORSCALE,
            line=dict(color=self.palette.zero, width=1),
            opacity=1,
        )
        hover, data = list(map(self.hover, path)), [[index] for index in path]
        x, y = self.points[path].T
        return dots(x, y, marker, hover, data, name=escape(name)).update(
            mode="lines+markers+text",
            line=dict(color=translucent(strategy_color(kind, self.palette.theme), 0.75), width=1.5),
            text=texts,
            textposition="middle center",
            textfont=dict(size=LEAST),
        )

    def labels(self) -> list[dict[str, Any]]:
        """Names of strategies beside their marks, and of paths beside their first state."""
        named = {index: self.names[index] for index in self.strategies}
        named |= {path[0]: name for name, path in self.paths.items()}
        labels = []
        for index, name in named.items():
            lines = strategy_lines(name, _LINE_COLUMNS)
            is_path = self.states[index] is not None
            if self.states[index] == 0:
                lines[-1] += ", emb"
            color = self.palette.muted if is_path else self.palette.text
            x, y = self.points[index]
            labels.append(Label(lines, x, y, self.radius(index), self.palette.zero, color))
        others = [index for index in self.known if index not in named]
        return beside(
            labels,
            self.spans,
            self.palette,
            obstacles=self.points[others],
            radii=np.array([self.radius(index) for index in others]),
            widths=PLANE_WIDTHS,
            height=self.height,
        )

    def radius(self, index: int) -> float:
        if self.states[index] is None:
            return 7
        return (_DOT if index in self.numbered else _SMALL_DOT) / 2
