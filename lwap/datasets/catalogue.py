"""The public sets: which STS tasks there are, what their files hold, where the hub has them.

Reads, checks, downloads and verifies data files. Knows no models, and `datasets` is imported only
by the function that downloads.

The hub's copies of STS12–16 carry no subset names, so on a downloaded copy only the aggregation
`all` can be computed, not `mean` and `wmean`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lwap.datasets.readers import (
    SCORE_COLUMN,
    read_pairs,
    read_retrieval,
    read_sentences,
    read_triplets,
)
from lwap.encoding.sources import file_sha256
from lwap.errors import InputError

Progress = Callable[[int, int], None]

STS_FOLDER = "sts"
SOURCES = "SOURCES.json"
SOURCES_FORMAT = 1
LEAST_PAIRS = 3  # that a rank correlation can be computed from


# --- STS tasks ----------------------------------------------------------------------------------


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


# --- labelled pairs -----------------------------------------------------------------------------


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


# --- what the hub has ---------------------------------------------------------------------------


@dataclass(frozen=True)
class PublicFile:
    """One file that a download writes, and what of the hub it is made from.

    Attributes:
        path: Below the data folder.
        hub_id: The data set on the Hugging Face hub.
        splits: Name and rows (None: not known) of each split that goes in.
        licence: Of the content, as its publishers state it.
        config: The hub's configuration of the data set, where it has several.
        data_file: The one file to read, where the hub has no configurations.
        revision: The commit that is read unless another is asked for; None is the newest.
        rows: Rows of the written file, None where the hub's texts must be seen first.
        sha256: Of the written file, None where it is not known: that takes the hub's very texts.
            SICK's are the published ones; those of STS12–16 and STS-B differ from SentEval's by a
            few characters, though not in scores or in what repeats.
        block_starts: Where the file's rows may start among the split's, which has more.
        is_tokenised: Whether the text is WikiText's, with spaces around punctuation.
    """

    path: str
    hub_id: str
    splits: tuple[tuple[str, int | None], ...]
    licence: str
    config: str | None = None
    data_file: str | None = None
    revision: str | None = None
    rows: int | None = None
    sha256: str | None = None
    block_starts: tuple[int, ...] = ()
    is_tokenised: bool = False


@dataclass(frozen=True)
class PublicSet:
    """What one download gets.

    Attributes:
        name: What `python -m lwap data download` takes.
        about: What it is and what it serves.
        kind: "pairs", "triplets", "sentences" or "retrieval"; see `FORMATS`.
        files: What is written.
        notes: What to bear in mind.
    """

    name: str
    about: str
    kind: str
    files: tuple[PublicFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """The data sets on the hub that it is made from."""
        return tuple(dict.fromkeys(file.hub_id for file in self.files))

    @property
    def licence(self) -> str:
        """The licences of its files."""
        return "; ".join(dict.fromkeys(file.licence for file in self.files))


# What a person can bring instead of a download.
FORMATS = {
    "pairs": "CSV with the columns sentence1, sentence2, score",
    "triplets": "CSV with the columns sent0, sent1, hard_neg",
    "sentences": "text with one sentence a line",
    "retrieval": "a BEIR folder with corpus.jsonl, queries.jsonl, qrels.tsv",
}

_SEMEVAL_LICENCE = "STS12–16: not stated"
_STSB_LICENCE = "STS-B: CC BY-SA 4.0"
_SICK_LICENCE = "SICK: CC BY-NC-SA 3.0"
_NLI_LICENCE = "SNLI: CC BY-SA 4.0; MultiNLI: mostly the OANC's licence"
_SICK_REVISION = "20a6d6f312dd54037fe07a32d58e5e168867909d"
_STSB_REVISION = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"


def _semeval(year: int, rows: int, revision: str) -> PublicFile:
    return PublicFile(
        f"sts/sts{year}.csv",
        f"mteb/sts{year}-sts",
        (("test", rows),),
        _SEMEVAL_LICENCE,
        revision=revision,
        rows=rows,
    )


def _stsb(name: str, split: str, rows: int) -> PublicFile:
    return PublicFile(
        f"sts/stsb-{name}.csv",
        "mteb/stsbenchmark-sts",
        ((split, rows),),
        _STSB_LICENCE,
        revision=_STSB_REVISION,
        rows=rows,
    )


def _sick(name: str, rows: int, sha256: str, block_starts: tuple[int, ...]) -> PublicFile:
    """The hub's "test" is all of SICK: 4,500 pairs of train, 500 of dev, 4,927 of test.

    Train comes first; which rows are which part is told by the SHA-256 of each possible block.
    """
    return PublicFile(
        f"sts/sick-{name}.csv",
        "mteb/sickr-sts",
        (("test", 9927),),
        _SICK_LICENCE,
        revision=_SICK_REVISION,
        rows=rows,
        sha256=sha256,
        block_starts=block_starts,
    )


def _beir(
    name: str, licence: str, revision: str, documents: int, all_queries: int, test: tuple[int, int]
) -> tuple[PublicFile, ...]:
    """BeIR's own copies need a loading script, which `datasets` no longer runs; MTEB's do not."""
    queries, judgements = test
    common = {"hub_id": f"mteb/{name}", "licence": licence, "revision": revision}
    folder = f"retrieval/{name}"
    return (
        PublicFile(
            f"{folder}/corpus.jsonl",
            splits=(("corpus", documents),),
            config="corpus",
            rows=documents,
            **common,
        ),
        PublicFile(
            f"{folder}/queries.jsonl",
            splits=(("queries", all_queries),),
            config="queries",
            rows=queries,
            **common,
        ),
        PublicFile(
            f"{folder}/qrels.tsv",
            splits=(("test", judgements),),
            config="default",
            rows=judgements,
            **common,
        ),
    )


_JUDGED_ONLY = (
    "Only the queries with judgements in the test split are kept, as MTEB evaluates them."
)

PUBLIC_SETS = (
    PublicSet(
        "sts",
        "The seven STS tasks that papers report, and the dev sets of STS-B and SICK to choose on.",
        "pairs",
        (
            _semeval(12, 3108, "a0d554a64d88156834ff5ae9920b964011b16384"),
            _semeval(13, 1500, "7e90230a92c190f1bf69ae9002b8cea547a64cca"),
            _semeval(14, 3750, "6031580fec1f6af667f0bd2da0a551cf4f0b2375"),
            _semeval(15, 3000, "ae752c7c21bf194d8b67fd573edf7ae58183cbe3"),
            _semeval(16, 1186, "4d8694f8f0e0100860b497b999b3dbed754a0513"),
            _stsb("test", "test", 1379),
            _stsb("dev", "validation", 1500),
            _sick(
                "test",
                4927,
                "1f3aae5c75e9e1e082bb4753095b3716c4e14bd60f215cfaa3168939fd6262a1",
                (5000, 4500, 500, 0),
            ),
            _sick(
                "dev",
                500,
                "3a6e9c038117fafe49fc3e0b3e6c79f751491fef089828e09b825c8726b3552d",
                (4500, 9427, 4927, 0),
            ),
        ),
        (
            "The hub's copies of STS12–16 carry no subset names: only the aggregation 'all' can be "
            "computed on them, not 'mean' and 'wmean'.",
            "SICK-R here is the test set, 4,927 pairs, as SentEval and SimCSE report it. The hub's "
            "copy joins train, dev and test, and MTEB's SICK-R is over all 9,927: the two differ "
            "(bundled encoder, mean pooling: 77.15 and 77.58).",
        ),
    ),
    PublicSet(
        "nli",
        "Triplets of SNLI and MultiNLI (premise, entailed, contradicted) for supervised training.",
        "triplets",
        (
            PublicFile(
                "nli/all-nli-triplets.csv",
                "sentence-transformers/all-nli",
                (("train", 557_850),),
                _NLI_LICENCE,
                config="triplet",
            ),
            PublicFile(
                "nli/all-nli-dev-triplets.csv",
                "sentence-transformers/all-nli",
                (("dev", 6584),),
                _NLI_LICENCE,
                config="triplet",
            ),
        ),
        ("About 100 MB. Rows with an empty text are left out.",),
    ),
    PublicSet(
        "nli-simcse",
        "The NLI triplets of SimCSE, as republished with the training data of BGE-M3.",
        "triplets",
        (
            PublicFile(
                "nli/simcse-triplets.csv",
                "sentence-transformers/nli-for-simcse",
                (("train", 274_951),),
                _NLI_LICENCE,
                config="triplet",
            ),
        ),
        ("About 50 MB. Rows with an empty text are left out.",),
    ),
    PublicSet(
        "wiki",
        "Sentences of WikiText-2, validation and test, for whitening and unsupervised training.",
        "sentences",
        (
            PublicFile(
                "wiki/wikitext2-sentences.txt",
                "Salesforce/wikitext",
                (("validation", 3760), ("test", 4358)),
                "CC BY-SA 3.0 and GFDL",
                config="wikitext-2-raw-v1",
                is_tokenised=True,
            ),
        ),
        (
            "Headings are left out, spaces around punctuation removed, paragraphs cut into "
            "sentences of 4 to 60 words, repeats dropped.",
        ),
    ),
    PublicSet(
        "wiki1m",
        "The million Wikipedia sentences that SimCSE trains on without labels.",
        "sentences",
        (
            PublicFile(
                "wiki/wiki1m-sentences.txt",
                "princeton-nlp/datasets-for-simcse",
                (("train", None),),
                "Wikipedia: CC BY-SA",
                data_file="wiki1m_for_simcse.txt",
            ),
        ),
        ("About 120 MB. Blank lines are left out.",),
    ),
    PublicSet(
        "beir-scifact",
        "Scientific claims and the abstracts that support or refute them.",
        "retrieval",
        _beir(
            "scifact",
            "stated differently: CC BY-NC 4.0 by MTEB, CC BY-SA 4.0 by BEIR",
            "d56462d0e63a25450459c4f213e49ffdb866f7f9",
            5183,
            1109,
            (300, 339),
        ),
        (_JUDGED_ONLY,),
    ),
    PublicSet(
        "beir-nfcorpus",
        "Questions of lay people on nutrition, and medical articles.",
        "retrieval",
        _beir(
            "nfcorpus",
            "not stated by MTEB; CC BY-SA 4.0 by BEIR",
            "ec0fa4fe99da2ff19ca1214b7966684033a58814",
            3633,
            3237,
            (323, 12_334),
        ),
        (_JUDGED_ONLY,),
    ),
    PublicSet(
        "beir-fiqa",
        "Questions on finance, and answers from forums.",
        "retrieval",
        _beir(
            "fiqa",
            "not stated by MTEB; CC BY-SA 4.0 by BEIR",
            "27a168819829fe9bcd655c2df245fb19452e8e06",
            57_638,
            6648,
            (648, 1706),
        ),
        (_JUDGED_ONLY, "Some documents are empty; a search leaves them out."),
    ),
)


def public_set(name: str) -> PublicSet:
    """Return the public set of a name.

    >>> public_set("wiki").hub_ids
    ('Salesforce/wikitext',)

    Raises:
        InputError: If there is no such set.
    """
    for found in PUBLIC_SETS:
        if found.name == name:
            return found
    known = ", ".join(found.name for found in PUBLIC_SETS)
    raise InputError(f"There is no public set '{name}'. Sets: {known}.")


# --- download -----------------------------------------------------------------------------------


def download(
    name: str,
    folder: str | Path,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Fetch a public set from the Hugging Face hub, in this project's file formats.

    Files are made in a folder beside, checked by the project's own readers, and only then moved
    into place: either all of them or, with an error, none. `SOURCES.json` in the folder records
    for each where it comes from, its licence, rows, SHA-256 and the day.

    Args:
        name: Of one of `PUBLIC_SETS`.
        folder: The data folder; made if it is not there.
        revision: Another commit, branch or tag of the hub's data set than the usual one.
        overwrite: Replace files that are there and differ.
        progress: Called with (files done, files in all) after each file.

    Returns:
        The files, whether written now or already there with the same content.

    Raises:
        InputError: If the set is unknown; the hub cannot be reached or has it no more, in other
            columns or with other numbers of rows; a different file is in the way; or the folder
            cannot be written.
    """
    chosen = public_set(name)
    if revision is not None and len(chosen.hub_ids) > 1:
        raise InputError(
            f"'{name}' is made from {len(chosen.hub_ids)} data sets of the hub "
            f"({', '.join(chosen.hub_ids)}); one revision cannot be of all. Leave it out."
        )
    root = Path(os.path.expanduser(folder))
    recorded = _read_sources(root)  # before the download, so that a damaged one costs no time
    try:
        root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    except (OSError, ValueError) as error:
        raise _cannot_write(root, error) from error
    try:
        entries = {}
        for file, rows in _make(chosen, staging, revision, progress):
            sha256 = file_sha256(staging / file.path)
            if file.sha256 is not None and sha256 != file.sha256:
                raise InputError(
                    f"'{file.path}' made from '{file.hub_id}' has SHA-256 {sha256}, not "
                    f"{file.sha256}: the hub's texts have changed. Nothing was written."
                )
            entries[file.path] = _entry(chosen, file, revision, rows, sha256)
        same = _already_there(root, entries, overwrite)
        for path in entries:
            if path not in same:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / path, root / path)
        content = {"format": SOURCES_FORMAT, "files": dict(sorted((recorded | entries).items()))}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (staging / SOURCES).write_text(text, encoding="utf-8")
        os.replace(staging / SOURCES, root / SOURCES)
    except OSError as error:
        raise _cannot_write(root, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [root / path for path in entries]


def _entry(
    chosen: PublicSet, file: PublicFile, revision: str | None, rows: int, sha256: str
) -> dict[str, Any]:
    return {
        "set": chosen.name,
        "hub_id": file.hub_id,
        "config": file.config,
        "splits": [split for split, _ in file.splits],
        "revision": revision or file.revision,
        "licence": file.licence,
        "rows": rows,
        "sha256": sha256,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _already_there(root: Path, entries: dict[str, dict[str, Any]], overwrite: bool) -> set[str]:
    """Return the paths whose file is there with the same content."""
    same, different = set(), []
    for path, entry in entries.items():
        if not (root / path).exists():
            continue
        if (root / path).is_file() and file_sha256(root / path) == entry["sha256"]:
            same.add(path)
        else:
            different.append(path)
    if different and not overwrite:
        raise InputError(
            f"In '{root}' {', '.join(different)} {'is' if len(different) == 1 else 'are'} already "
            "there with other content. Nothing was written. Give another folder, move them away, "
            "or overwrite them (--overwrite)."
        )
    return same


def _cannot_write(root: Path, error: Exception) -> InputError:
    if _is_disk_full(error):
        return InputError(
            f"The disk of '{root}' is full; nothing was written. Make room, or give another folder."
        )
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(
        f"'{root}' cannot be written to: {reason}. Give another folder; LWAP_DATA names the one "
        "that is read."
    )


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one of those behind it says that there is no space left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- from the hub's columns to our formats ------------------------------------------------------


def _make(
    chosen: PublicSet, staging: Path, revision: str | None, progress: Progress | None
) -> Iterator[tuple[PublicFile, int]]:
    """Write each file of a set below `staging`, and yield it with its number of rows."""
    makers = {"pairs": _make_pairs, "triplets": _make_triplets, "sentences": _make_sentences}
    if chosen.kind == "retrieval":
        files = _make_retrieval(chosen, staging, revision)
    else:
        files = (
            (file, makers[chosen.kind](chosen, file, staging, revision)) for file in chosen.files
        )
    for done, (file, rows) in enumerate(files, start=1):
        if file.rows is not None and rows != file.rows:
            raise InputError(
                f"'{file.path}' made from '{file.hub_id}' has {rows} rows, not {file.rows}: the "
                "hub's data set has changed. Nothing was written."
            )
        yield file, rows
        if progress is not None:
            progress(done, len(chosen.files))


def _make_pairs(chosen: PublicSet, file: PublicFile, staging: Path, revision: str | None) -> int:
    table = _load(chosen, file, ("sentence1", "sentence2", "score"), revision)
    if file.block_starts:
        table = _block(file, table)
    target = _write_csv(table, staging / file.path)
    pairs = read_pairs(target)
    task = next((task for task in STS_TASKS if task.file == target.name), None)
    check_scored(pairs, file.path, *((task.low, task.high) if task else ()))
    return len(pairs)


def _block(file: PublicFile, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table that are the file's, told by their SHA-256."""
    for start in file.block_starts:
        block = table.iloc[start : start + file.rows]
        if hashlib.sha256(_csv(block).encode()).hexdigest() == file.sha256:
            return block
    raise InputError(
        f"The {file.rows} pairs of '{file.path}' are not among the {len(table)} of "
        f"'{file.hub_id}' in the known order: the hub's data set has changed. Nothing was written."
    )


def _make_triplets(chosen: PublicSet, file: PublicFile, staging: Path, revision: str | None) -> int:
    table = _load(chosen, file, ("anchor", "positive", "negative"), revision)
    table.columns = ["sent0", "sent1", "hard_neg"]
    is_whole = table.map(lambda cell: isinstance(cell, str) and bool(cell.strip())).all(axis=1)
    return len(read_triplets(_write_csv(table[is_whole], staging / file.path)))


def _make_sentences(
    chosen: PublicSet, file: PublicFile, staging: Path, revision: str | None
) -> int:
    lines = _load(chosen, file, ("text",), revision)["text"]
    texts = (line for line in lines if isinstance(line, str))
    if file.is_tokenised:
        sentences = wiki_sentences(texts)
    else:
        sentences = [sentence for text in texts if (sentence := " ".join(text.split()))]
    target = staging / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{sentence}\n" for sentence in sentences), "utf-8", newline="\n")
    return len(read_sentences(target))


def _make_retrieval(
    chosen: PublicSet, staging: Path, revision: str | None
) -> Iterator[tuple[PublicFile, int]]:
    corpus_file, queries_file, qrels_file = chosen.files
    folder = (staging / qrels_file.path).parent
    folder.mkdir(parents=True)
    columns = ("query-id", "corpus-id", "score")
    judgements = _load(chosen, qrels_file, columns, revision)
    rows = [
        (str(query), str(document), float(gain))
        for query, document, gain in judgements.itertuples(index=False)
    ]
    lines = ["\t".join(columns), *(f"{query}\t{doc}\t{gain:g}" for query, doc, gain in rows)]
    _write_lines(lines, staging / qrels_file.path)

    judged = {query for query, _, _ in rows}
    queries = [
        {"_id": str(key), "text": _text(text)}
        for key, text in _load(chosen, queries_file, ("_id", "text"), revision).itertuples(
            index=False
        )
        if str(key) in judged
    ]
    _write_lines(map(_json, queries), staging / queries_file.path)

    documents = [
        {"_id": str(key), "title": _text(title), "text": _text(text)}
        for key, title, text in _load(
            chosen, corpus_file, ("_id", "title", "text"), revision
        ).itertuples(index=False)
    ]
    _write_lines(map(_json, documents), staging / corpus_file.path)

    read_retrieval(folder)
    yield corpus_file, len(documents)
    yield queries_file, len(queries)
    yield qrels_file, len(rows)


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def _write_csv(table: pd.DataFrame, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_csv(table), encoding="utf-8", newline="\n")
    return target


def _text(cell: object) -> str:
    return cell if isinstance(cell, str) else ""  # None or NaN where the hub has nothing


def _json(entry: dict[str, str]) -> str:
    return json.dumps(entry, ensure_ascii=False)


def _write_lines(lines: Iterable[str], target: Path) -> None:
    with target.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _load(
    chosen: PublicSet, file: PublicFile, columns: tuple[str, ...], revision: str | None
) -> pd.DataFrame:
    """Return the named columns of a file's splits, one below the other.

    Raises:
        InputError: If the hub cannot give them, or with other columns or numbers of rows.
    """
    import datasets

    where = f"'{file.hub_id}'" + (f" ({file.config})" if file.config else "")
    options: dict[str, Any] = {"revision": revision or file.revision}
    if file.data_file is not None:
        options["data_files"] = file.data_file
    tables = []
    for split, rows in file.splits:
        try:
            found = datasets.load_dataset(file.hub_id, file.config, split=split, **options)
        except Exception as error:  # what the hub, the network and the disk raise has no base class
            raise _hub_error(chosen, file, split, options["revision"], error) from error
        missing = [column for column in columns if column not in found.column_names]
        if missing:
            raise InputError(
                f"{where}, split '{split}', has the columns {found.column_names}; "
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. The hub's "
                f"data set has changed. Nothing was written. {_own_files(chosen)}"
            )
        if rows is not None and len(found) != rows:
            raise InputError(
                f"{where}, split '{split}', has {len(found)} rows, not {rows}: the hub's data set "
                "has changed, or the download is incomplete. Nothing was written."
            )
        tables.append(found.select_columns(list(columns)).to_pandas())
    return pd.concat(tables, ignore_index=True)[list(columns)]


def _hub_error(
    chosen: PublicSet, file: PublicFile, split: str, revision: str | None, error: Exception
) -> InputError:
    from datasets.exceptions import DatasetNotFoundError

    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    if _is_disk_full(error):
        said = (
            f"'{file.hub_id}' cannot be downloaded: the disk of the hub's cache is full. Make "
            "room, or name another cache folder with HF_HOME"
        )
    elif _is_network_error(error):
        said = (
            f"'{file.hub_id}' is not on this machine and the Hugging Face hub cannot be reached. "
            "Try again with a network"
        )
        if "OfflineModeIsEnabled" in reason or "offline" in reason.lower():
            said += " and without HF_HUB_OFFLINE, which forbids to use it"
    elif isinstance(error, DatasetNotFoundError) and "gated" in reason:
        said = (
            f"'{file.hub_id}' is gated: ask for access at "
            f"https://huggingface.co/datasets/{file.hub_id}, then run `hf auth login`"
        )
    elif isinstance(error, DatasetNotFoundError) and reason.startswith("Revision"):
        said = f"'{file.hub_id}' has no revision '{revision}'. Leave it out, or give another"
    elif isinstance(error, DatasetNotFoundError):
        said = f"The Hugging Face hub has no data set '{file.hub_id}' that you may read"
    else:
        said = f"'{file.hub_id}', split '{split}', cannot be loaded ({reason.rstrip('.')})"
    return InputError(f"{said}. {_own_files(chosen)}")


def _is_network_error(error: Exception) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, ConnectionError | TimeoutError | LocalEntryNotFoundError):
        return True
    # Of httpx or httpx2, whichever the hub's library uses.
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _own_files(chosen: PublicSet) -> str:
    return (
        f"Or bring the files yourself ({FORMATS[chosen.kind]}): {chosen.files[0].path} and so on, "
        "in a folder that LWAP_DATA names."
    )


# --- WikiText -----------------------------------------------------------------------------------

WORDS_A_SENTENCE = (4, 60)

_ENDS = {".", "!", "?"}
_JOINERS = {"@-@": "-", "@,@": ",", "@.@": "."}
_GLUED_LEFT = {",", ".", ";", ":", "!", "?", ")", "]", "%", "'"}
_SUFFIXES = {"'s", "'t", "'re", "'ve", "'ll", "'d", "'m", "n't"}
_GLUED_RIGHT = {"(", "[", "$", "£", "€"}


def wiki_sentences(lines: Iterable[str]) -> list[str]:
    """Cut lines of WikiText into sentences as people write them, each once.

    Its text has a space around every punctuation mark but not within abbreviations, so that a
    sentence ends at a full stop that stands alone, outside of quotation marks and brackets.

    >>> wiki_sentences([" = Boats = ", ' The crew saw 1 @,@ 200 " old " boats . Nobody sank . '])
    ['The crew saw 1,200 "old" boats.']

    The second sentence has fewer than four words.
    """
    least, most = WORDS_A_SENTENCE
    found: dict[str, None] = {}
    for line in lines:
        if line.strip().startswith("="):
            continue
        for tokens in _cut(line.split()):
            sentence = _join(tokens)
            is_text = "<unk>" not in tokens and any(map(str.isalpha, sentence))
            if is_text and least <= len(sentence.split()) <= most:
                found[sentence] = None
    return list(found)


def _cut(tokens: Sequence[str]) -> Iterator[list[str]]:
    sentence: list[str] = []
    has_ended = False
    for token in tokens:
        is_closing = token == ")" or (token == '"' and sentence.count('"') % 2 == 1)
        if has_ended and not is_closing and _is_balanced(sentence):
            yield sentence
            sentence, has_ended = [], False
        sentence.append(token)
        has_ended = token in _ENDS or (has_ended and is_closing)
    if sentence:
        yield sentence


def _is_balanced(tokens: Sequence[str]) -> bool:
    return tokens.count('"') % 2 == 0 and tokens.count("(") <= tokens.count(")")


def _join(tokens: Sequence[str]) -> str:
    text, wants_space, is_quoting = "", False, False
    for token in tokens:
        if token in _JOINERS:
            text, wants_space = text + _JOINERS[token], False
        elif token == '"':
            text += '"' if is_quoting or not wants_space else ' "'
            is_quoting, wants_space = not is_quoting, is_quoting
        else:
            is_glued = token in _GLUED_LEFT or token in _SUFFIXES
            text += token if is_glued or not wants_space else f" {token}"
            wants_space = token not in _GLUED_RIGHT
    return text


# --- what was downloaded ------------------------------------------------------------------------


def verify_sources(folder: str | Path) -> list[str]:
    """Compare the downloaded files of a folder with what `SOURCES.json` says of them.

    Returns:
        A line for each file, "PATH: good …", "PATH: changed …" or "PATH: missing …"; none where
        nothing was downloaded.

    Raises:
        InputError: If `SOURCES.json` is damaged.
    """
    root = Path(os.path.expanduser(folder))
    lines = []
    for path, entry in _read_sources(root).items():
        again = f"`python -m lwap data download {entry['set']}` gets it again"
        if not os.path.isfile(root / path):
            lines.append(f"{path}: missing; {again}")
        elif file_sha256(root / path) != entry["sha256"]:
            lines.append(f"{path}: changed since {entry['date']}; moved away, {again}")
        else:
            lines.append(
                f"{path}: good, {entry['rows']} rows of {entry['hub_id']}, {entry['date']}"
            )
    return lines


def _read_sources(root: Path) -> dict[str, dict[str, Any]]:
    file = root / SOURCES
    if not os.path.isfile(file):
        return {}
    wanted = {"set", "hub_id", "rows", "sha256", "date"}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        files = content["files"]
        is_known = content["format"] == SOURCES_FORMAT
        if not (is_known and all(wanted <= entry.keys() for entry in files.values())):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{file}' is damaged or of another version. Remove it (the data stay) and download "
            "again."
        ) from error
    return files
