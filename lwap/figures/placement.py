"""Labels that do not lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NEAR = 2  # px, from a mark to a label that needs no line to it
_LINE = (0.4, 0.5, 0.6, 0.7, 0.8)  # of the way to a label, where its line must not be covered
_PIECE = np.full((1, 2), 2.0)  # px, half the size of a piece of a line


def spread_apart(values: np.ndarray, heights: np.ndarray, span: Sequence[float]) -> np.ndarray:
    """Move values as little as needed for labels of these heights not to overlap, inside `span`.

    Least squares under order constraints: values that collide form a block around their mean.
    values, heights: (K,)
    """
    order = np.argsort(values, kind="stable")
    if not order.size:
        return values.copy()
    sorted_heights = heights[order]
    offsets = np.concatenate([[0.0], np.cumsum(sorted_heights[:-1] + sorted_heights[1:]) / 2])
    wanted = values[order] - offsets
    blocks: list[list[float]] = []  # sum, count
    for value in wanted:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    placed = np.array([total / count for total, count in blocks for _ in range(int(count))])
    lower = span[0] + sorted_heights[0] / 2
    upper = span[1] - offsets[-1] - sorted_heights[-1] / 2
    placed = np.clip(placed, lower, max(upper, lower))
    spread = np.empty_like(values)
    spread[order] = placed + offsets
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
        widths: widths of the plot in pixels that must work.
        height: height of the plot in pixels.

    Returns:
        (N, 2), offsets from a mark to the middle of its label.
    """
    scales = np.array([(width, height) for width in widths], dtype=np.float64)[:, None]  # (W, 1, 2)
    if not len(owners):
        return np.zeros((0, 2))
    obstacles = marks * scales, np.stack([radii, radii], axis=1)
    labels = [
        _label(obstacles[0][:, owner, None], size / 2, radii[owner], obstacles, scales)
        for owner, size in zip(owners, sizes, strict=True)
    ]
    outward = np.argsort(np.abs(marks[owners] - marks.mean(axis=0)).sum(axis=1), kind="stable")
    least = np.inf
    for order in (outward, outward[::-1], np.arange(len(labels))):
        chosen: dict[int, int] = {}
        costs = dict.fromkeys(range(len(labels)), 0.0)
        for index in [*order.tolist()] * 3:
            others = [(labels[i], place) for i, place in chosen.items() if i != index]
            cost = labels[index].costs + _costs(labels[index], others)
            chosen[index] = int(cost.argmin())
            costs[index] = float(cost.min())
        total = sum(costs.values())
        if total < least:
            least = total
            best = np.array([labels[i].places[chosen[i]] for i in range(len(labels))])
    return best


@dataclass(frozen=True)
class _Label:
    """A label and the places where it may stand."""

    home: np.ndarray  # (W, 1, 2), its mark in pixels
    half: np.ndarray  # (2,), half its size
    places: np.ndarray  # (C, 2), offsets from the mark to its middle
    has_line: np.ndarray  # (C,), whether it is so far that a line leads to it
    costs: np.ndarray  # (C,), as far as the other labels do not matter


def _label(
    home: np.ndarray,
    half: np.ndarray,
    radius: float,
    obstacles: tuple[np.ndarray, np.ndarray],
    scales: np.ndarray,
) -> _Label:
    """Find the places of a label, and what they cost by their distance and by what they cover."""
    places, has_line, costs = [], [], []
    for gap in (NEAR, 12, 20, 28, 38, 50, 64, 80):
        reach = half + radius + gap
        for side in (1, -1):
            for share in (0, -1, 1) if gap == NEAR else (0, -0.5, 0.5, -1, 1):
                for place in dict.fromkeys([(side, share), (share, side)]):
                    places.append(reach * place)
                    has_line.append(gap > NEAR)
                    costs.append(4.0 * gap + 8 * (abs(share) == 1) + 2 * (place[0] < 0))
    label = _Label(home, half, np.array(places), np.array(has_line), np.array(costs))
    middles = home + label.places  # (W, C, 2)
    outside = np.maximum(half - middles, 0) + np.maximum(middles + half - scales, 0)
    cost = label.costs + 200.0 * outside.sum(axis=-1) + 2.0 * _overlaps(middles, half, *obstacles)
    for share in _LINE:
        covered = _overlaps(home + share * label.places, _PIECE, *obstacles)
        cost = cost + 8.0 * np.where(label.has_line, covered, 0)
    return replace(label, costs=cost.sum(axis=0))


def _costs(label: _Label, others: Sequence[tuple[_Label, int]]) -> np.ndarray:
    """What each place of a label costs for covering other labels and the lines to them.  (C,)"""
    if not others:
        return np.zeros(len(label.places))
    middles = label.home + label.places  # (W, C, 2)
    standing = (
        np.concatenate([other.home + other.places[place] for other, place in others], axis=1),
        np.array([other.half for other, _ in others]),
    )
    cost = 4.0 * _overlaps(middles, label.half, *standing)
    for share in _LINE:
        covered = _overlaps(label.home + share * label.places, _PIECE, *standing)
        cost = cost + 8.0 * np.where(label.has_line, covered, 0)
        lines = [
            other.home + share * other.places[place]
            for other, place in others
            if other.has_line[place]
        ]
        if lines:
            cost = cost + 8.0 * _overlaps(
                middles, label.half, np.concatenate(lines, axis=1), _PIECE
            )
    return cost.sum(axis=0)


def _overlaps(
    middles: np.ndarray, half: np.ndarray, others: np.ndarray, other_half: np.ndarray
) -> np.ndarray:
    """Area that each box shares with all others.

    middles: (W, C, 2), others: (W, O, 2), half and other_half: half the sizes of the boxes
    """
    distance = np.abs(middles[:, :, None] - others[:, None])  # (W, C, O, 2)
    return np.maximum(half + other_half - distance, 0).prod(axis=-1).sum(axis=-1)
