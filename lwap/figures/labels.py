"""Texts inside a figure: names of strategies, keys, labels beside marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lwap.figures.panels import Panel
from lwap.figures.placement import NEAR, place_labels
from lwap.figures.style import CLEAR, MODEL, WHITEN, Palette
from lwap.figures.template import PHONE, SMALL, halo
from lwap.figures.texts import LABEL_COLUMNS, colored, count_columns, escape, hover_text, shorten

LINE = 13  # px, a line of a label
_COLUMN = 6.2  # px, a character of a label


def strategy_lines(name: str, columns: int) -> list[str]:
    """Safe lines of a strategy's name: broken after the model and before "+whiten" if too long."""
    if count_columns(name) <= columns:
        return [escape(name)]
    model, _, strategy = name.rpartition(MODEL)
    lines = [f"{model} ·"] if model else []
    if count_columns(strategy) > columns and strategy.endswith(WHITEN):
        lines += [strategy.removesuffix(WHITEN), WHITEN]
    else:
        lines.append(strategy)
    return [escape(shorten(line, columns)) for line in lines]


def swatches(label_a: str, label_b: str, colors: Sequence[str], prefix: str = "") -> Panel:
    """Panel without a plot: two lines that say which sentence has which colour."""
    columns = LABEL_COLUMNS - len(prefix) + 3 if prefix else 40
    keys = [
        (colored("■", color), label)
        for color, label in zip(colors, (label_a, label_b), strict=True)
    ]
    lines = [f"{key} {prefix}{escape(shorten(label, columns))}" for key, label in keys]
    hovers = [f"{key} {hover_text(label)}" for key, label in keys]
    return Panel(0, lines=lines, hover="<br>".join(hovers))


def legend_height(names: Sequence[str], width: int = PHONE, line: int = 24) -> int:
    """Pixels of a horizontal legend of these names, by default on a phone."""
    entry = 44 + 6.8 * max(map(len, names))
    return line * math.ceil(len(names) / max(1, int((width - 8) / entry)))


def centred(text: str, palette: Palette) -> dict[str, Any]:
    """Annotation in the middle of a panel that has nothing to draw.  `text` is safe."""
    x = dict(x=0.5, xref="x domain", xanchor="center")
    return dict(text=colored(text, palette.muted), y=0.5, yref="y domain", yanchor="middle") | x


@dataclass(frozen=True)
class Label:
    """A text beside a mark."""

    lines: Sequence[str]  # safe
    x: float  # of the mark, in its axis' units
    y: float
    radius: float  # px, of the mark
    line: str  # colour of the line to a label that stands far from its mark
    color: str  # of the text


def beside(
    labels: Sequence[Label],
    spans: Sequence[Sequence[float]],
    palette: Palette,
    *,
    obstacles: np.ndarray,
    radii: np.ndarray,
    widths: Sequence[int],
    height: int,
) -> list[dict[str, Any]]:
    """Annotations beside marks, off each other and off obstacles.

    Args:
        labels: What is said beside which mark; the marks are obstacles too.
        spans: Ranges of both axes.
        palette: Of the theme.
        obstacles: (M, 2), what else is drawn, in the axes' units.
        radii: (M,), their sizes in pixels.
        widths: Widths of the plot in pixels at which nothing may collide.
        height: Height of the plot in pixels.
    """
    low, high = np.array(spans).T
    homes = np.array([(label.x, label.y) for label in labels]).reshape(-1, 2)
    sizes = np.array(
        [(_COLUMN * max(map(len, one.lines)), 2 + LINE * len(one.lines)) for one in labels]
    ).reshape(-1, 2)
    offsets = place_labels(
        (np.concatenate([homes, obstacles]) - low) / (high - low),
        np.concatenate([[label.radius for label in labels], radii]),
        range(len(labels)),
        sizes,
        widths=widths,
        height=height,
    )
    notes = []
    for label, (right, up), size in zip(labels, offsets, sizes, strict=True):
        is_far = (np.abs((right, up)) - size / 2).max() - label.radius > NEAR + 1
        # The text may be narrower than was reckoned: let it end at the side of its mark.
        side = int(np.sign(right)) if abs(right) >= size[0] / 2 else 0
        align = ("center", "left", "right")[side]
        font = dict(size=SMALL, color=label.color, shadow=halo(palette))
        text = dict(text="<br>".join(label.lines), font=font, xanchor=align, align=align)
        arrow = dict(showarrow=True, ax=right - side * size[0] / 2, ay=-up, yanchor="middle")
        arrow |= dict(arrowcolor=label.line if is_far else CLEAR, standoff=label.radius - 1)
        notes.append(dict(x=label.x, y=label.y, borderpad=1) | text | arrow)
    return notes
