"""The STS tasks and what their files hold; checks of labelled pairs. Knows no models."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lwap.datasets.readers import (
    SCORE_COLUMN,
    read_pairs,
)
from lwap.errors import InputError

STS_FOLDER = "sts"
LEAST_PAIRS = 3  # that a rank correlation can be computed from


@dataclass(frozen=True)
class StsTask:
    """One labelled set of the semantic textual similarity tasks.

    Attributes:
        key: What commands and tables call it.
        title: What papers call it.
        file: Its file in the folder `sts`.
        pairs: How many pairs the published set has.
        low, high: The range of its scores; higher is more similar.
        is_test: Whether it is for reporting only. The others are for choosing.
        subsets: How many subsets the published set has; 0 if it is not divided.
    """

    key: str
    title: str
    file: str
    pairs: int
    low: float = 0.0
    high: float = 5.0
    is_test: bool = True
    subsets: int = 0


STS_TASKS = (
    StsTask("sts12", "STS12", "sts12.csv", 3108, subsets=5),
    StsTask("sts13", "STS13", "sts13.csv", 1500, subsets=3),
    StsTask("sts14", "STS14", "sts14.csv", 3750, subsets=6),
    StsTask("sts15", "STS15", "sts15.csv", 3000, subsets=5),
    StsTask("sts16", "STS16", "sts16.csv", 1186, subsets=5),
    StsTask("stsb", "STS-B", "stsb-test.csv", 1379),
    StsTask("sickr", "SICK-R", "sick-test.csv", 4927, low=1.0),
    StsTask("stsb-dev", "STS-B dev", "stsb-dev.csv", 1500, is_test=False),
    StsTask("sick-dev", "SICK-R dev", "sick-dev.csv", 500, low=1.0, is_test=False),
)
# The seven that papers report.
STANDARD = tuple(task.key for task in STS_TASKS if task.is_test)


def sts_task(key: str) -> StsTask:
    """Return the STS task of a key.

    >>> sts_task("sickr").pairs
    4927

    Raises:
        InputError: If there is no such task.
    """
    for task in STS_TASKS:
        if task.key == key:
            return task
    known = ", ".join(task.key for task in STS_TASKS)
    raise InputError(f"There is no STS task '{key}'. Tasks: {known}.")


def available_tasks(folder: str | Path) -> list[str]:
    """Return the keys of the tasks whose file is in a folder; none where there is no folder.

    Args:
        folder: The data folder, which holds `sts`, or the folder `sts` itself.
    """
    return [task.key for task in STS_TASKS if task_file(task, folder) is not None]


def read_task(key: str, folder: str | Path) -> pd.DataFrame:
    """Read one STS task.

    Args:
        key: Of one of `STS_TASKS`.
        folder: The data folder, which holds `sts`, or the folder `sts` itself.

    Returns:
        A frame with the columns `sentence1`, `sentence2`, `score` and, if the file has subsets,
        `subset`. `task_notes` says what to bear in mind about it.

    Raises:
        InputError: If there is no such task, folder or file, the file cannot be read, or its scores
            are not those of the task.
    """
    task = sts_task(key)
    if not os.path.isdir(os.path.expanduser(folder)):
        raise InputError(
            f"There is no data folder '{folder}'. LWAP_DATA names another one; "
            "`python -m lwap data download sts` gets the STS sets."
        )
    file = task_file(task, folder)
    if file is None:
        there = available_tasks(folder)
        found = (
            f"There are {', '.join(sts_task(other).file for other in there)}: choose among them "
            f"with --tasks ({', '.join(there)})"
            if there
            else "No file of another task is there either: give another folder"
        )
        raise InputError(
            f"'{task.file}' of {task.title} is not in '{folder}'. {found}, or get the missing ones "
            "with `python -m lwap data download sts`."
        )
    pairs = read_pairs(file)
    check_scored(pairs, file.name, task.low, task.high)
    return pairs


def task_notes(key: str, pairs: pd.DataFrame) -> list[str]:
    """Return what to bear in mind about the pairs of a task, each as a sentence or two.

    Raises:
        InputError: As `check_scored`, or if there is no such task.
    """
    task = sts_task(key)
    notes = check_scored(pairs, task.file, task.low, task.high)
    if len(pairs) != task.pairs:
        notes.append(
            f"{len(pairs)} pairs; the published {task.title} has {task.pairs}. Scores on another "
            "set cannot be compared with published ones."
        )
    if task.subsets and "subset" not in pairs:
        notes.append(
            f"No subset names ({task.title} has {task.subsets} subsets; the hub's copy leaves the "
            "names out): only the aggregation 'all' can be computed."
        )
    return notes


def task_file(task: StsTask, folder: str | Path) -> Path | None:
    """Return the file of a task in the data folder or its folder `sts`; None where it is not."""
    path = Path(os.path.expanduser(folder))
    candidates = (path / STS_FOLDER / task.file, path / task.file)
    # os.path says False of a name that no file can have, where Path raises.
    return next((file for file in candidates if os.path.isfile(file)), None)


def check_scored(
    pairs: pd.DataFrame, name: str, low: float | None = None, high: float | None = None
) -> list[str]:
    """Check that labelled pairs can be ranked, and return what is worth knowing about them.

    Args:
        pairs: As `lwap.datasets.readers.read_pairs` gives them.
        name: What messages call the set.
        low, high: The range that the scores must keep to, where it is known.

    Returns:
        Notes, one or two sentences each: pairs that occur more than once, and such pairs whose
        scores contradict each other. A pair in the other order is the same pair: its cosine is.

    Raises:
        InputError: If there is no score column, there are fewer than three pairs, a score is no
            finite number or outside of the range, or all scores are the same.
    """
    for column in ("sentence1", "sentence2", "score"):
        if column not in pairs:
            accepted = f" Accepted names: {', '.join(SCORE_COLUMN)}." if column == "score" else ""
            raise InputError(
                f"'{name}' has no column '{column}'; it has {list(pairs.columns)}.{accepted}"
            )
    if len(pairs) < LEAST_PAIRS:
        raise InputError(
            f"'{name}' has {len(pairs)} scored {'pair' if len(pairs) == 1 else 'pairs'}; a rank "
            f"correlation needs at least {LEAST_PAIRS}."
        )
    scores = pd.to_numeric(pairs["score"], errors="coerce")
    numbers = scores.to_numpy(float, na_value=math.nan).tolist()
    for row, (number, given) in enumerate(zip(numbers, pairs["score"], strict=True), start=1):
        if not math.isfinite(number):
            raise InputError(f"'{name}', row {row}: the score is {given}; scores are numbers.")
        if (low is not None and number < low) or (high is not None and number > high):
            raise InputError(
                f"'{name}', row {row}: the score is {number:g}; this set has scores "
                f"{_range(low, high)}. Correct the row, or bring all scores to that range."
            )
    if min(numbers) == max(numbers):
        raise InputError(
            f"All {len(pairs)} pairs of '{name}' have the same score ({numbers[0]:g}): nothing can "
            "be ranked. Add pairs with other scores."
        )
    return _notes_on_repeats(pairs, numbers)


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"up to {high:g}"
    return f"from {low:g}" if high is None else f"from {low:g} to {high:g}"


def _notes_on_repeats(pairs: pd.DataFrame, scores: Sequence[float]) -> list[str]:
    seen: dict[tuple[str, ...], int] = {}
    repeats: list[tuple[int, int]] = []  # row, and the row of the first occurrence
    texts = zip(pairs["sentence1"], pairs["sentence2"], strict=True)
    for row, pair in enumerate(texts, start=1):
        first = seen.setdefault(tuple(sorted(map(str, pair))), row)
        if first != row:
            repeats.append((row, first))
    notes = []
    if repeats:
        row, first = repeats[0]
        notes.append(
            f"{len(repeats)} of {len(pairs)} pairs repeat an earlier one (first: row {row} repeats "
            f"row {first}); each row counts."
        )
    contradictions = [
        (row, first) for row, first in repeats if scores[row - 1] != scores[first - 1]
    ]
    if contradictions:
        row, first = contradictions[0]
        notes.append(
            f"{len(contradictions)} of these have another score than before (first: row {row} has "
            f"{scores[row - 1]:g}, row {first} has {scores[first - 1]:g}): no model can fit both."
        )
    return notes


def fingerprint(pairs: pd.DataFrame) -> str:
    """Return the SHA-256 of what a table of pairs says, whatever format it was read from.

    The columns `sentence1`, `sentence2`, `score`, `subset` count as far as they are there, and the
    order of the rows: bootstrap resamples depend on it.

    >>> import pandas as pd
    >>> pairs = pd.DataFrame({"sentence1": ["a"], "sentence2": ["b"], "score": [4]})
    >>> fingerprint(pairs) == fingerprint(pairs.astype({"score": float}))
    True

    Raises:
        InputError: If there are no columns `sentence1` and `sentence2`.
    """
    columns = [name for name in ("sentence1", "sentence2", "score", "subset") if name in pairs]
    if columns[:2] != ["sentence1", "sentence2"]:
        raise InputError(
            f"Pairs have the columns sentence1 and sentence2; these have {list(pairs.columns)}."
        )
    digest = hashlib.sha256(json.dumps(columns).encode())
    for row in zip(*(pairs[name] for name in columns), strict=True):
        cells = [
            repr(float(cell) + 0.0) if name == "score" else str(cell)  # + 0.0: -0.0 is 0.0
            for name, cell in zip(columns, row, strict=True)
        ]
        digest.update(b"\n" + json.dumps(cells).encode())
    return digest.hexdigest()
