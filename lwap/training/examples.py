"""What a run is trained on: columns of sentences, out of triplets, pairs or sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pandas as pd

from lwap.encoding.bank import is_unicode
from lwap.errors import ConfigError, InputError
from lwap.registry import OBJECTIVES
from lwap.training.config import TrainConfig
from lwap.training.declarations import objective_of

COLUMNS = ("sent0", "sent1", "hard_neg")
DEV_SHARE = 0.1  # of the rows, held out when there are no scored pairs to select on
NOTES = 5  # rows that are named for each reason

_Row = tuple[int, Sequence[str], Sequence[Any]]  # its number from 1, its columns, its cells


class Reason(StrEnum):
    """Why a row is left out; the first that applies."""

    EMPTY = "empty cell"
    BROKEN = "half a character"
    NO_INFORMATION = "sent0 is sent1"
    CONTRADICTION = "hard_neg is sent0 or sent1"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Dropped:
    """Rows that are left out for one reason.

    Attributes:
        reason: Of `Reason`.
        count: How many.
        rows: The first of them, counted from 1.
        notes: What is wrong with these, a sentence each: "Row 14: hard_neg is empty."
    """

    reason: str
    count: int
    rows: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of anchor, positive and perhaps hard negative; of anchors alone without supervision.

    Attributes:
        table: Columns sent0[, sent1[, hard_neg]], distinct rows that can be trained on.
        read: Rows, or sentences without supervision, that were given.
        dropped: What was left out of them, by reason.
    """

    table: pd.DataFrame
    read: int
    dropped: tuple[Dropped, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def columns(self) -> list[list[str]]:
        """The columns as lists."""
        return [self.table[name].tolist() for name in self.table.columns]

    @property
    def texts(self) -> list[str]:
        """The distinct sentences."""
        return list(dict.fromkeys(text for column in self.columns for text in column))

    @property
    def unit(self) -> str:
        """What a row is, in the plural: "triplets", "pairs" or "sentences"."""
        return ("sentences", "pairs", "triplets")[len(self.table.columns) - 1]

    @classmethod
    def of(cls, data: pd.DataFrame | Sequence[str], objective: str) -> Examples:
        """Read what an objective needs out of triplets, pairs or sentences.

        Raises:
            InputError: If a column is missing or of no use, or no row can be used.
        """
        examples = cls.read_from(data, objective)
        if not len(examples):
            raise InputError(examples.nothing_left())
        return examples

    @classmethod
    def read_from(cls, data: pd.DataFrame | Sequence[str], objective: str) -> Examples:
        """Read as `of` does, but let there be no row that can be used.

        Raises:
            InputError: If a column is missing or of no use.
        """
        if not OBJECTIVES[objective].has_positives:
            return _keep(("sent0",), _sentences(data))
        names = _columns(data, objective)
        assert isinstance(data, pd.DataFrame)  # or there are no columns
        rows = zip(*(data[name] for name in names), strict=True)
        return _keep(names, ((row, names, cells) for row, cells in enumerate(rows, start=1)))

    def nothing_left(self) -> str:
        """Return, in words, why there is nothing to train on."""
        if not self.read:
            return f"There are no {self.unit} to train on. Give at least one batch of them."
        reasons = "; ".join(f"{each.reason}: {each.count}" for each in self.dropped)
        return (
            f"None of the {self.read} {self.unit} can be used ({reasons}). "
            f"{self.dropped[0].notes[0]} Mend the file, or choose another."
        )

    def hold_out(self, seed: int) -> tuple[Examples, Examples]:
        """Return what is trained on and a tenth that is not, parted by anchor."""
        # By anchor: an anchor on both sides would be scored on what it was trained on.
        anchors = self.table["sent0"].drop_duplicates().sample(frac=1, random_state=seed)
        is_held_out = self.table["sent0"].isin(anchors[: max(1, int(len(anchors) * DEV_SHARE))])
        kept = self.table[~is_held_out].reset_index(drop=True)
        held_out = self.table[is_held_out].reset_index(drop=True)
        return replace(self, table=kept), Examples(held_out, len(held_out))

    def check_batch(self, config: TrainConfig) -> None:
        """Refuse a batch that the data do not fill.

        Raises:
            ConfigError: With both sizes.
        """
        if len(self) < config.batch_size:
            lost = sum(each.count for each in self.dropped)
            raise ConfigError(
                f"batch_size is {config.batch_size}, but there are only {len(self)} {self.unit} "
                f"to train on{f' ({lost} of {self.read} were left out)' if lost else ''}. Use a "
                "smaller batch or more data."
            )


def plain(text: str) -> str:
    """Return a sentence with single spaces, by which rows are compared.

    >>> plain("  One\\u00a0  two. ")
    'One two.'
    """
    return " ".join(text.split())


def _columns(data: pd.DataFrame | Sequence[str], objective: str) -> tuple[str, ...]:
    if not isinstance(data, pd.DataFrame):
        raise InputError(
            f"The {objective} objective needs pairs or triplets (sent0, sent1[, hard_neg]), not "
            f"sentences. Choose objective '{objective_of(False)}'."
        )
    names = tuple(name for name in COLUMNS if name in data)
    missing = [name for name in COLUMNS[:2] if name not in data]
    if not missing and len(names) == 2 and len(data.columns) > 2:
        missing = [COLUMNS[2]]  # a negative under another name would not be read
    if missing:
        raise InputError(
            f"The triplets have no column '{missing[0]}'; they need {', '.join(COLUMNS)}, "
            f"or without the last for pairs, and have {list(data.columns)}."
        )
    return names


def _sentences(data: pd.DataFrame | Sequence[str]) -> Iterator[_Row]:
    if not isinstance(data, pd.DataFrame):
        return ((row, ("the sentence",), (text,)) for row, text in enumerate(data, start=1))
    # Whatever sentences there are: the premises of triplets are sentences, too.
    names = [name for name in ("sentence", *COLUMNS) if name in data]
    if not names:
        raise InputError(f"The data have no column 'sentence'; they have {list(data.columns)}.")
    return (
        (row, (name,), (text,)) for name in names for row, text in enumerate(data[name], start=1)
    )


def _keep(columns: Sequence[str], rows: Iterable[_Row]) -> Examples:
    """Sort rows into those that can be trained on and those that cannot."""
    first: dict[tuple[str, ...], int] = {}
    kept: list[Sequence[str]] = []
    lost: dict[Reason, list[tuple[int, str]]] = {}
    read = 0
    for row, names, cells in rows:
        read += 1
        fault = _fault(names, cells)
        if fault is None:
            content = tuple(map(plain, cells))
            if content in first:
                fault = Reason.DUPLICATE, f"the same as row {first[content]}"
            else:
                first[content] = row
                kept.append(cells)
        if fault is not None:
            lost.setdefault(fault[0], []).append((row, fault[1]))
    dropped = tuple(
        Dropped(
            reason=str(reason),
            count=len(lost[reason]),
            rows=tuple(row for row, _ in lost[reason][:NOTES]),
            notes=tuple(f"Row {row}: {note}." for row, note in lost[reason][:NOTES]),
        )
        for reason in Reason
        if reason in lost
    )
    return Examples(pd.DataFrame(kept, columns=list(columns)), read, dropped)


def _fault(names: Sequence[str], cells: Sequence[Any]) -> tuple[Reason, str] | None:
    """Return why a row cannot be used by itself."""
    for name, cell in zip(names, cells, strict=True):
        if not isinstance(cell, str) or not cell.strip():
            return Reason.EMPTY, f"{name} is empty"
        if not is_unicode(cell):
            return Reason.BROKEN, f"{name} holds half a character, a lone surrogate"
    if len(cells) == 1:
        return None
    anchor, positive, *negative = map(plain, cells)
    if anchor == positive:
        return Reason.NO_INFORMATION, f"sent0 and sent1 are the same ({_short(anchor)})"
    if negative and negative[0] in (anchor, positive):
        same = "sent0" if negative[0] == anchor else "sent1"
        return Reason.CONTRADICTION, f"hard_neg is {same} ({_short(negative[0])})"
    return None


def _short(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
