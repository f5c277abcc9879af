"""Tasks of scored pairs: of a data folder, of a file, or of a table."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lwap.datasets.readers import read_pairs
from lwap.datasets.tasks import (
    check_scored,
    fingerprint,
    read_task,
    sts_task,
    task_file,
    task_notes,
)
from lwap.encoding.sources import file_sha256
from lwap.errors import InputError


@dataclass(frozen=True, eq=False)
class Task:
    """P scored pairs.

    Attributes:
        name: What it is called in tables.
        first, second: The sentences.
        gold: The scores, (P,).
        subsets: The subset of each pair; None for a task of one set.
        sha256: Of its file, or of its content where there is no file.
        has_hidden_subsets: Whether it has subsets that this copy does not name, so that only
            the aggregation `all` can be computed.
        notes: What a reader of its numbers should know.
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: np.ndarray
    subsets: tuple[str, ...] | None
    sha256: str
    has_hidden_subsets: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    @property
    def number(self) -> int:
        """A number that follows from the sentences, to seed the task's resamples with."""
        texts = "\0".join([*self.first, *self.second])
        return zlib.crc32(texts.encode(errors="backslashreplace"))

    @classmethod
    def from_pairs(
        cls,
        pairs: pd.DataFrame,
        name: str,
        *,
        sha256: str | None = None,
        has_hidden_subsets: bool = False,
        low: float | None = None,
        high: float | None = None,
    ) -> Task:
        """Return a task of labelled pairs: `sentence1, sentence2, score[, subset]`.

        Raises:
            InputError: If there are fewer than 3 pairs, or scores that are missing, not numbers,
                all the same, or outside of [low, high]; or a sentence is empty.
        """
        notes = check_scored(pairs, name, low, high)
        for side in ("sentence1", "sentence2"):
            for row, text in enumerate(pairs[side], start=1):
                if not isinstance(text, str) or not text.strip():
                    raise InputError(
                        f"'{name}', row {row}: '{side}' is empty ({text!r}). Fill it in or remove "
                        "the row."
                    )
        subsets = tuple(pairs["subset"]) if "subset" in pairs else None
        return cls(
            name=name,
            first=tuple(pairs["sentence1"]),
            second=tuple(pairs["sentence2"]),
            gold=pairs["score"].to_numpy(dtype=float, copy=True),
            subsets=subsets,
            sha256=sha256 or fingerprint(pairs),
            has_hidden_subsets=has_hidden_subsets and subsets is None,
            notes=tuple(f"{name}: {note}" for note in notes),
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        low: float | None = None,
        high: float | None = None,
    ) -> Task:
        """Return a task of the person's own labelled pairs in a file.

        Raises:
            InputError: As `read_pairs` and `from_pairs`.
        """
        pairs = read_pairs(path)
        sha256 = file_sha256(Path(path).expanduser())
        return cls.from_pairs(pairs, name or Path(path).stem, sha256=sha256, low=low, high=high)


def standard_tasks(folder: str | Path, keys: Sequence[str]) -> list[Task]:
    """Return STS tasks of a data folder, by their keys in the catalogue.

    Raises:
        InputError: If a key, the folder or a file is missing; the message says what there is.
    """
    tasks = []
    for key in dict.fromkeys(keys):
        pairs = read_task(key, folder)
        entry = sts_task(key)
        file = task_file(entry, folder)
        assert file is not None  # it was read
        task = Task.from_pairs(
            pairs,
            entry.title,
            sha256=file_sha256(file),
            has_hidden_subsets=entry.subsets > 1,
            low=entry.low,
            high=entry.high,
        )
        # That pairs repeat is news of somebody's own file, not of a published set.
        known = check_scored(pairs, entry.file) if len(pairs) == entry.pairs else []
        notes = tuple(
            f"{entry.title}: {note}" for note in task_notes(key, pairs) if note not in known
        )
        tasks.append(replace(task, notes=notes))
    return tasks
