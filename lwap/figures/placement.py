"""Where labels stand so that they do not lie on each other; Plotly leaves them where it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NEAR = 2  # px, from a mark to a label that needs no line to it
_GAPS = (NEAR, 12, 20, 28, 38, 50, 64, 80)  # px, from a mark to the places of its label
_LINE = (0.4, 0.5, 0.6, 0.7, 0.8)  # of the way to a label, where its line must not be covered
_PIECE = np.full((1, 2), 2.0)  # px, half the size of a piece of a line

Boxes = tuple[np.ndarray, np.ndarray]  # (W, O, 2), middles at each width, and (O, 2), half sizes


def spread_apart(values: np.ndarray, heights: np.ndarray, span: Sequence[float]) -> np.ndarray:
    """Move values as little as needed for labels of these heights not to overlap, inside `span`.

    Least squares under order constraints: values that collide form a block around their mean.
    values, heights: (K,)
    """
    if not values.size:
        return values.copy()
    order = np.argsort(values, kind="stable")
    sizes = heights[order]
    offsets = np.concatenate([[0.0], np.cumsum(sizes[:-1] + sizes[1:]) / 2])
    blocks: list[list[float]] = []
    for value in (values[order] - offsets).tolist():
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = np.array([np.mean(block) for block in blocks for _ in block])
    lower, upper = span[0] + sizes[0] / 2, span[1] - offsets[-1] - sizes[-1] / 2
    spread = np.empty_like(values)
    spread[order] = np.clip(placed, lower, max(upper, lower)) + offsets
    return spread


def place_labels(
    marks: np.ndarray,
    radii: np.ndarray,
    owners: Sequence[int],
    sizes: np.ndarray,
    *,
    widths: Sequence[int],
    height: int,
) -> np.ndarray:
    """Choose for every label where it stands beside its mark: pixels right of it, and above.

    A figure cannot know its width, so a place is as good as it is at all `widths` together: a
    wider figure moves marks apart, but labels keep their size. Labels are placed one by one, then
    placed anew with all others standing; of several orders the best counts.

    Args:
        marks: (M, 2), shares of the plot from its lower left corner of all that is drawn.
        radii: (M,), half the sizes of the marks in pixels.
        owners: N indices of the marks that have a label.
        sizes: (N, 2), width and height of the labels in pixels.
        widths: W widths of the plot in pixels that must work.
        height: height of the plot in pixels.

    Returns:
        (N, 2), offsets from a mark to the middle of its label.
    """
    if not len(owners):
        return np.zeros((0, 2))
    scales = np.array([(width, height) for width in widths], dtype=np.float64)[:, None]  # (W, 1, 2)
    obstacles = marks * scales, np.stack([radii, radii], axis=1)
    labels = [
        _label(obstacles[0][:, owner, None], size / 2, radii[owner], obstacles, scales)
        for owner, size in zip(owners, sizes, strict=True)
    ]
    outward = np.argsort(np.abs(marks[owners] - marks.mean(axis=0)).sum(axis=1), kind="stable")
    found = []
    for order in (outward, outward[::-1], np.arange(len(labels))):
        chosen: dict[int, int] = {}
        costs: dict[int, float] = {}
        for index in [*order.tolist()] * 3:
            others = [(labels[i], place) for i, place in chosen.items() if i != index]
            cost = labels[index].costs + _among(labels[index], others)
            chosen[index], costs[index] = int(cost.argmin()), float(cost.min())
        found.append((sum(costs.values()), [labels[i].places[chosen[i]] for i in sorted(chosen)]))
    return np.array(min(found, key=lambda solution: solution[0])[1])


@dataclass(frozen=True)
class _Label:
    """A label and the C places where it may stand."""

    home: np.ndarray  # (W, 1, 2), its mark in pixels
    half: np.ndarray  # (2,), half its size
    places: np.ndarray  # (C, 2), offsets from the mark to its middle
    has_line: np.ndarray  # (C,), whether it is so far that a line leads to it
    costs: np.ndarray  # (C,), as far as the other labels do not matter

    def covers(self, boxes: Boxes, weight: float) -> np.ndarray:
        """What each place costs for lying on these boxes, and its line for crossing them.  (C,)"""
        cost = weight * _overlaps(self.home + self.places, self.half, boxes)
        for share in _LINE:
            line = _overlaps(self.home + share * self.places, _PIECE, boxes)
            cost = cost + 8.0 * np.where(self.has_line, line, 0)
        return cost.sum(axis=0)


def _label(
    home: np.ndarray, half: np.ndarray, radius: float, obstacles: Boxes, scales: np.ndarray
) -> _Label:
    """Find the places of a label, and what they cost by their distance and by what they cover."""
    places, gaps, costs = [], [], []
    for gap in _GAPS:
        for side in (1, -1):
            for share in (0, -1, 1) if gap == NEAR else (0, -0.5, 0.5, -1, 1):
                for place in dict.fromkeys([(side, share), (share, side)]):
                    places.append((half + radius + gap) * place)
                    gaps.append(gap)
                    costs.append(4.0 * gap + 8 * (abs(share) == 1) + 2 * (place[0] < 0))
    label = _Label(home, half, np.array(places), np.array(gaps) > NEAR, np.array(costs))
    middles = home + label.places  # (W, C, 2)
    outside = np.maximum(half - middles, 0) + np.maximum(middles + half - scales, 0)
    outside_cost = 200.0 * outside.sum(axis=(0, 2))
    total = len(scales) * label.costs + outside_cost + label.covers(obstacles, 2.0)
    return replace(label, costs=total)


def _among(label: _Label, others: Sequence[tuple[_Label, int]]) -> np.ndarray:
    """What each place of a label costs for covering other labels and the lines to them.  (C,)"""
    if not others:
        return np.zeros(len(label.places))
    middles = np.concatenate([one.home + one.places[place] for one, place in others], axis=1)
    cost = label.covers((middles, np.array([one.half for one, _ in others])), 4.0)
    lines = [
        one.home + share * one.places[place]
        for one, place in others
        for share in _LINE
        if one.has_line[place]
    ]
    if lines:
        boxes = np.concatenate(lines, axis=1), _PIECE
        cost = cost + 8.0 * _overlaps(label.home + label.places, label.half, boxes).sum(axis=0)
    return cost


def _overlaps(middles: np.ndarray, half: np.ndarray, boxes: Boxes) -> np.ndarray:
    """Area that boxes of half size `half` share with all others.  middles: (W, C, 2) -> (W, C)"""
    distance = np.abs(middles[:, :, None] - boxes[0][:, None])  # (W, C, O, 2)
    return np.maximum(half + boxes[1] - distance, 0).prod(axis=-1).sum(axis=-1)
