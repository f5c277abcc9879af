"""Fetch the public sets from the hub: read, checked, written, and verified later.

Knows no models, and `datasets` is imported only by the function that downloads.

The hub's copies of STS12–16 carry no subset names, so on a downloaded copy only the aggregation
`all` can be computed, not `mean` and `wmean`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lwap.datasets.public import FORMATS, PublicFile, PublicSet, public_set
from lwap.datasets.readers import (
    read_pairs,
    read_retrieval,
    read_sentences,
    read_triplets,
)
from lwap.datasets.tasks import STS_TASKS, check_scored
from lwap.datasets.wikitext import wiki_sentences
from lwap.encoding.sources import file_sha256
from lwap.errors import InputError

Progress = Callable[[int, int], None]
SOURCES = "SOURCES.json"
SOURCES_FORMAT = 1


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
    assert file.rows is not None  # every file with blocks says how long they are
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
