"""What points on a map say by their colours and marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from lwap.figures.checks import checked_arrays, checked_texts
from lwap.figures.style import CATEGORIES, CATEGORY_SYMBOLS, palette_of
from lwap.figures.texts import clean, escape, format_number, shorten

_MOST = len(CATEGORIES["light"])
_NAME = 24  # columns of a category in the legend


@dataclass(frozen=True)
class Group:
    """Points of one trace: one category, or all that have a value."""

    name: str
    rows: np.ndarray  # sorted
    color: str
    symbol: str = "circle"
    rank: int = 0  # in the legend
    has_values: bool = False  # its points have colours of their own


@dataclass(frozen=True, eq=False)
class PointColors:
    """The colour of N points by a value or by a category; without both, all are alike.

    Args:
        values: (N,), a number of each point; NaN is unknown and drawn in grey.
        name: What the values are, for header and hover.
        form: Format of the values.
        ends: The values at the ends of the colour scale, for maps that are to have one scale.
            None: the lowest and the highest value.
        categories: N labels, "" or None where there is none.
        order: The categories that have a colour, in order of the colours, at most 12; all others
            are grey. None: the most frequent ones.

    Raises:
        ValueError: both values and categories are given, a value is infinite, the ends are not
            ascending, or `order` comes without categories or has more than 12, repeated or empty
            entries.
    """

    values: Any = None
    name: str = ""
    form: str = ".2f"
    ends: tuple[float, float] | None = None
    categories: Sequence[str | None] | None = None
    order: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.values is not None and self.categories is not None:
            raise ValueError("values and categories are both given; a point has one colour")
        if self.values is not None:
            (values,) = checked_arrays(values=(self.values, "N", "nan"))
            object.__setattr__(self, "values", values)
            object.__setattr__(self, "ends", self._checked_ends())
        if self.categories is not None and not isinstance(self.categories, str):
            labels = ["" if label is None else label for label in self.categories]
            object.__setattr__(self, "categories", labels)
        if self.order is not None:
            object.__setattr__(self, "order", self._checked_order(self.order))

    def _checked_ends(self) -> tuple[float, float]:
        if self.ends is None:
            known = self.values[np.isfinite(self.values)]
            return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        low, high = map(float, self.ends)
        if not (np.isfinite([low, high]).all() and low <= high):
            raise ValueError(f"ends are {self.ends}; expected two numbers, the lower one first")
        return low, high

    def _checked_order(self, order: Sequence[str]) -> list[str]:
        if self.categories is None:
            raise ValueError("order is given without the categories that it orders")
        order = [str(label) for label in order]
        if len(order) > _MOST:
            raise ValueError(f"order has {len(order)} categories; there are {_MOST} colours")
        if len(set(order)) < len(order):
            raise ValueError(f"order names a category twice: {order}")
        if "" in order:
            raise ValueError("order has an empty label, which is no category")
        return order

    def groups(self, count: int, theme: str) -> list[Group]:
        """Return the points of each colour, in the order in which they are drawn."""
        palette = palette_of(theme)
        if self.values is not None:
            if len(self.values) != count:
                raise ValueError(f"values has {len(self.values)} entries; expected {count}")
            known = np.isfinite(self.values)
            return [
                Group("unknown", np.flatnonzero(~known), palette.zero),
                Group("values", np.flatnonzero(known), palette.plain, has_values=True),
            ]
        if self.categories is None:
            return [Group("points", np.arange(count), palette.plain)]
        # None was made "" at the start.
        texts: Any = checked_texts("categories", cast(Sequence[str], self.categories), count)
        labels = np.array(texts, dtype=object)
        counts = Counter(labels[labels != ""].tolist())
        order = self.order
        if order is None:
            order = sorted(counts, key=lambda label: (-counts[label], label))[:_MOST]
        is_other = (labels != "") & ~np.isin(labels, np.array(order, dtype=object))
        others = f"other ({len(counts.keys() - set(order))})"
        last = len(order)
        greys = [
            Group("no label", np.flatnonzero(labels == ""), palette.zero, "circle-open", last + 1),
            Group(others, np.flatnonzero(is_other), palette.zero, rank=last),
        ]
        return greys + [
            Group(
                escape(shorten(label, _NAME)),
                np.flatnonzero(labels == label),
                CATEGORIES[theme][place],
                CATEGORY_SYMBOLS[place % len(CATEGORY_SYMBOLS)],
                place,
            )
            for place, label in enumerate(order)
        ]

    def line(self, row: int) -> str:
        """Return what the hover of a point says below its sentence."""
        if self.values is not None:
            value = self.values[row]
            printed = "unknown" if np.isnan(value) else f"<b>{format_number(value, self.form)}</b>"
            return f"{escape(clean(self.name))}: {printed}" if self.name else printed
        if self.categories is not None:
            label = str(self.categories[row])
            return f"<b>{escape(clean(label))}</b>" if label else "no label"
        return ""


@dataclass(frozen=True, eq=False)
class CheckedMarks:
    """`PointMarks` as arrays of rows in ascending order; what there is none of is empty."""

    drawn: np.ndarray
    selected: np.ndarray
    focus: np.ndarray  # (1,) or (0,)
    neighbours: np.ndarray
    added: np.ndarray  # (M, 2)
    added_texts: list[str]


@dataclass(frozen=True, eq=False)
class PointMarks:
    """Which of N sentences have a mark on a map, and which of them stand out.

    Args:
        drawn: Rows that have a mark, above the density of all N points. None: every row has one
            and there is no density.
        selected: Rows that are ringed in the accent colour, drawn or not; of more than 4,000 an
            even part.
        focus: A row with a bold ring.
        neighbours: Rows that are joined with the focus by thin lines.
        added: (M, 2), where new sentences stand.
        added_texts: The M new sentences.
    """

    drawn: Sequence[int] | np.ndarray | None = None
    selected: Sequence[int] | np.ndarray = ()
    focus: int | None = None
    neighbours: Sequence[int] | np.ndarray = ()
    added: Any = None
    added_texts: Sequence[str] = ()

    def checked(self, count: int) -> CheckedMarks:
        """Return the same with all rows in ascending order and places as arrays; None is empty."""
        focus: tuple[int, ...] = () if self.focus is None else (self.focus,)
        rows: dict[str, Sequence[int] | np.ndarray] = {
            "drawn": range(count) if self.drawn is None else self.drawn,
            "selected": self.selected,
            "focus": focus,
            "neighbours": self.neighbours,
        }
        found = {name: checked_rows(name, given, count) for name, given in rows.items()}
        if found["neighbours"].size and not focus:
            raise ValueError("neighbours are joined with the focus, but focus is None")
        added = np.zeros((0, 2)) if self.added is None else self.added
        added = checked_places("added", added, "M", "empty")
        texts = checked_texts("added_texts", self.added_texts, len(added))
        return CheckedMarks(**found, added=added, added_texts=texts)


def checked_places(name: str, places: Any, letters: str, *permissions: str) -> np.ndarray:
    """Copy points of the plane, of one shape letter a dimension but the last, to float64."""
    shape = np.shape(places)
    if len(shape) != len(letters) + 1 or shape[-1] != 2:
        raise ValueError(f"{name} has shape {shape}; expected ({', '.join(letters)}, 2)")
    (array,) = checked_arrays(**{name: (places, f"{letters}C", *permissions)})
    return array


def checked_rows(
    name: str, rows: Sequence[int] | np.ndarray, count: int, what: str = "row"
) -> np.ndarray:
    """Different rows in ascending order."""
    found = np.unique(np.asarray(rows if isinstance(rows, np.ndarray) else list(rows)))
    if not found.size:
        return np.zeros(0, dtype=int)
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} are {what}s, so whole numbers, got {found[0]}")
    outside = found[(found < 0) | (found >= count)]
    if outside.size:
        raise ValueError(f"{name} names {what} {outside[0]}; the {what}s are 0 to {count - 1}")
    return found.astype(int)
