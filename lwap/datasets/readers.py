"""Readers for the files that people bring: sentences, pairs, triplets, retrieval folders.

CSV, TSV, JSONL and Parquet with named columns, or plain text for sentences; for retrieval the
files of BEIR. A wrong file gets an error that names the column, the row and the accepted names.
Knows no models.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lwap.errors import InputError

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_MEGABYTES = 200

PAIR_COLUMNS: dict[str, tuple[str, ...]] = {
    "sentence1": ("sentence1", "sent1", "text1"),
    "sentence2": ("sentence2", "sent2", "text2"),
}
SCORE_COLUMN = ("score", "label_score", "similarity", "gold")
TRIPLET_COLUMNS: dict[str, tuple[str, ...]] = {
    "sent0": ("sent0", "anchor"),
    "sent1": ("sent1", "positive"),
    "hard_neg": ("hard_neg", "negative"),
}
SENTENCE_COLUMN: dict[str, tuple[str, ...]] = {"sentence": ("sentence", "text")}
GROUP_COLUMN = ("group", "paraphrase")
MAX_GROUP = 50  # sentences that mean the same of which every pair is taken

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
JUDGEMENTS = ("qrels.tsv", "qrels/test.tsv")
JUDGEMENT_COLUMNS = ("query-id", "corpus-id", "score")
MAX_UNKNOWN = 0.01  # share of judgements that may name ids which are not there


@dataclass(frozen=True)
class RetrievalData:
    """A collection, queries, and which documents answer them, as BEIR folders hold them.

    Attributes:
        name: The folder's name.
        document_ids: Of the N documents.
        documents: Title and text of each, joined by a space as BEIR does.
        query_ids: Of the Q queries that have judgements.
        queries: Their texts.
        relevance: For each query the gain by row of document; 0 is judged not relevant.
        dropped: Documents left out because they have neither title nor text.
        unjudged: Queries left out because no judgement that could be used names them.
        unresolved: Judgements left out because their document was dropped, or an id in them is not
            in the collection.
    """

    name: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    relevance: tuple[dict[int, float], ...]
    dropped: int
    unjudged: int
    unresolved: int


def data_folder() -> Path:
    """Return the folder of evaluation and training data: `LWAP_DATA`, else ../shared/data."""
    configured = os.environ.get("LWAP_DATA")
    return Path(configured) if configured else Path(__file__).parents[3] / "shared" / "data"


def read_sentences(source: str | Path | bytes, name: str | None = None) -> list[str]:
    """Read sentences: a text file with one a line (blank lines are skipped), or a table with a
    column `sentence` or `text`.

    Args:
        source: A path, or the bytes of an upload.
        name: The file's name where `source` is bytes.

    Raises:
        InputError: If the file cannot be read, or holds no sentences.
    """
    content, name = _content(source, name)
    if Path(name).suffix.lower() in ("", ".txt"):
        # Not str.splitlines: it also cuts at form feeds and U+2028, inside of sentences.
        lines = _decode(content, name).replace("\r", "\n").split("\n")
        sentences = [line.strip() for line in lines]
    else:
        table = _table(content, name)
        column = _find(table, SENTENCE_COLUMN, name)["sentence"]
        sentences = _cells(table, column, name)
    sentences = [sentence for sentence in sentences if sentence.strip()]
    if not sentences:
        raise InputError(f"'{name}' holds no sentences. Put one a line, or a column 'sentence'.")
    return sentences


@dataclass(frozen=True, eq=False)
class SentenceTable:
    """Sentences, each different, and what else a table says of them.

    Attributes:
        sentences: N different sentences.
        labels: By column, N texts; "" where a row has none.
        numbers: By column, N numbers; NaN where a row has none.
        positives: Rows of pairs that mean the same, from a column `group`, (P, 2); None without.
        repeated: Rows left out because their sentence stands above.
        empty: Rows left out because they have no sentence.
    """

    sentences: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    numbers: dict[str, np.ndarray]
    positives: np.ndarray | None
    repeated: int
    empty: int

    def __len__(self) -> int:
        return len(self.sentences)

    @classmethod
    def of(cls, sentences: Sequence[str]) -> SentenceTable:
        """Make a table of sentences alone."""
        return _sentence_table(pd.DataFrame({"sentence": list(sentences)}), "sentence", "text")


def read_sentence_table(source: str | Path | bytes, name: str | None = None) -> SentenceTable:
    """Read sentences with whatever else a table says of them; a text file has only sentences.

    The column `sentence` or `text` holds the sentences. Sentences of the same `group` mean the
    same. Every other column is a label, or a number where all its filled cells are numbers.

    Raises:
        InputError: As `read_sentences`.
    """
    content, name = _content(source, name)
    if Path(name).suffix.lower() in ("", ".txt"):
        return SentenceTable.of(read_sentences(content, name))
    table = _table(content, name)
    found = _sentence_table(table, _find(table, SENTENCE_COLUMN, name)["sentence"], name)
    if not found.sentences:
        raise InputError(f"'{name}' holds no sentences. Put one in each row of 'sentence'.")
    return found


def _sentence_table(table: pd.DataFrame, column: str, name: str) -> SentenceTable:
    sentences = [text.strip() for text in _cells(table, column, name)]
    is_filled = np.array([bool(text) for text in sentences], dtype=bool)
    first = ~pd.Series(sentences).duplicated().to_numpy() & is_filled
    rows = np.flatnonzero(first)
    labels: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, np.ndarray] = {}
    group = _column(table, GROUP_COLUMN)
    for other in table.columns:
        if other == column:
            continue
        cells = [text.strip() for text in _cells(table, other, name)]
        texts = pd.Series([cells[row] for row in rows], dtype=str)
        values = pd.to_numeric(texts.where(texts != "", None), errors="coerce").to_numpy(float)
        is_number = np.isfinite(values) | (texts == "").to_numpy()
        if is_number.all() and np.isfinite(values).any() and other != group:
            numbers[other] = values
        else:
            labels[other] = tuple(texts)
    return SentenceTable(
        sentences=tuple(sentences[row] for row in rows),
        labels={key: values for key, values in labels.items() if key != group},
        numbers=numbers,
        positives=_same_group(labels[group]) if group is not None else None,
        repeated=int((is_filled & ~first).sum()),
        empty=int((~is_filled).sum()),
    )


def _same_group(groups: Sequence[str]) -> np.ndarray | None:
    """Return the rows of every pair within a group, (P, 2); of a large group a chain of pairs."""
    rows_of: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        if group:
            rows_of.setdefault(group, []).append(row)
    pairs: list[tuple[int, int]] = []
    for rows in rows_of.values():
        if len(rows) <= MAX_GROUP:
            pairs += itertools.combinations(rows, 2)
        else:
            pairs += itertools.pairwise(rows)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2) if pairs else None


def read_pairs(source: str | Path | bytes, name: str | None = None) -> pd.DataFrame:
    """Read pairs with columns `sentence1, sentence2[, score][, subset]`.

    Returns:
        A frame with exactly these columns (those that the file has); `score` as float.

    Raises:
        InputError: If the file cannot be read, lacks a column, or a cell is empty or no number.
    """
    content, name = _content(source, name)
    table = _table(content, name)
    columns = _find(table, PAIR_COLUMNS, name)
    pairs = pd.DataFrame({kept: _texts(table, column, name) for kept, column in columns.items()})
    if score := _column(table, SCORE_COLUMN):
        pairs["score"] = _numbers(table, score, name)
    if subset := _column(table, ("subset",)):
        pairs["subset"] = _cells(table, subset, name)
    return pairs


def read_triplets(source: str | Path | bytes, name: str | None = None) -> pd.DataFrame:
    """Read triplets with columns `sent0, sent1, hard_neg` (or `anchor, positive, negative`).

    Raises:
        InputError: If the file cannot be read, lacks a column, or has an empty cell.
    """
    content, name = _content(source, name)
    table = _table(content, name)
    columns = _find(table, TRIPLET_COLUMNS, name)
    return pd.DataFrame({kept: _texts(table, column, name) for kept, column in columns.items()})


def read_training(source: str | Path | bytes, name: str | None = None) -> pd.DataFrame:
    """Read triplets, or pairs of sentences that mean the same, for training.

    Returns:
        Columns sent0, sent1 and, where the file has one, hard_neg. Every row of the file, an empty
        cell as "": `training.examples` leaves such rows out and counts them.

    Raises:
        InputError: As `read_triplets`, but a file may lack `hard_neg` (or `negative`), and some of
            its rows may have empty cells, not all.
    """
    content, name = _content(source, name)
    table = _table(content, name)
    wanted = dict(TRIPLET_COLUMNS)
    if _column(table, wanted["hard_neg"]) is None:
        del wanted["hard_neg"]
    columns = _find(table, wanted, name)
    if "hard_neg" not in wanted and len(table.columns) > len(columns):
        raise InputError(
            f"'{name}' has no column 'hard_neg'; it has {list(table.columns)}. Accepted names: "
            f"{', '.join(TRIPLET_COLUMNS['hard_neg'])}. For pairs without hard negatives leave "
            "all other columns out."
        )
    found = pd.DataFrame({kept: _cells(table, column, name) for kept, column in columns.items()})
    is_empty = found.map(lambda text: not text.strip())
    if is_empty.any(axis=1).all():
        empty = next(kept for kept in found if is_empty[kept].iloc[0])
        raise InputError(
            f"'{name}': none of the {len(found)} rows is whole; in row 1 '{columns[empty]}' is "
            "empty. Fill the cells in; for pairs leave the column of hard negatives out."
        )
    return found


def read_retrieval(folder: str | Path) -> RetrievalData:
    """Read a retrieval set in the BEIR format, line by line.

    `corpus.jsonl` has `_id`, `title` (optional) and `text` in each line, `queries.jsonl` `_id` and
    `text`; `qrels.tsv` or `qrels/test.tsv` has the columns `query-id, corpus-id, score` with tabs
    between. Judgements without header are taken, too, also as TREC has them
    (`query 0 document gain`).

    What cannot be searched is left out and counted: documents without title and text, queries
    without judgements, and judgements on documents that are not there. The last makes recall and
    MAP a little higher than with a tool that counts what nobody can find.

    Raises:
        InputError: If a file is missing or cannot be read, a line is broken, an id occurs twice, a
            query has no text, a document is judged twice and differently for a query, no
            judgement is left, or more than one judgement in a hundred names an unknown id.
    """
    path = Path(os.path.expanduser(folder))
    if not os.path.isdir(path):
        raise InputError(f"There is no folder '{folder}'. Check the path.")
    path = path.resolve()  # "." has no name
    documents = _texts_by_id(_existing(path, (CORPUS,)), may_be_empty=True)
    queries = _texts_by_id(_existing(path, (QUERIES,)), may_be_empty=False)
    file = _existing(path, JUDGEMENTS)

    kept = [key for key, text in documents.items() if text]
    rows = {key: row for row, key in enumerate(kept)}
    relevance: dict[str, dict[int, float]] = {}
    total, unresolved, unknown = 0, 0, []
    for number, query, document, gain in _judgements(file):
        total += 1
        if query not in queries or document not in rows:
            unresolved += 1
            if query not in queries:
                unknown.append(f"query '{query}' in line {number}")
            elif document not in documents:
                unknown.append(f"document '{document}' in line {number}")
            continue
        gains = relevance.setdefault(query, {})
        if gains.setdefault(rows[document], gain) != gain:
            raise InputError(
                f"'{file.name}', line {number}: query '{query}' and document '{document}' are "
                f"judged {gain:g} here and {gains[rows[document]]:g} above. Keep one."
            )
    if len(unknown) > MAX_UNKNOWN * total:
        raise InputError(
            f"'{file.name}': {len(unknown)} of {total} judgements name ids that are not in "
            f"{CORPUS} or {QUERIES}, the first {unknown[0]}. Check that the files belong together."
        )
    if not relevance:
        raise InputError(f"'{file.name}' judges no document that has a text. Add judgements.")
    judged = [key for key in queries if key in relevance]
    return RetrievalData(
        name=path.name,
        document_ids=tuple(kept),
        documents=tuple(documents[key] for key in kept),
        query_ids=tuple(judged),
        queries=tuple(queries[key] for key in judged),
        relevance=tuple(relevance[key] for key in judged),
        dropped=len(documents) - len(kept),
        unjudged=len(queries) - len(judged),
        unresolved=unresolved,
    )


# --- a retrieval folder -------------------------------------------------------------------------


def _existing(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"'{folder.name}' has no file {' or '.join(names)}. A retrieval folder holds {CORPUS}, "
        f"{QUERIES} and {' or '.join(JUDGEMENTS)}."
    )


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is not blank; the file may be of any size."""
    number = 0
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"'{file.name}' is not UTF-8 text, after line {number}. Save it as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(f"'{file.name}' cannot be read: {error.strerror}.") from error


def _texts_by_id(file: Path, may_be_empty: bool) -> dict[str, str]:
    """Return title and text by id, in the file's order; empty strings where there is neither."""
    texts: dict[str, str] = {}
    for number, line in _lines(file):
        where = f"'{file.name}', line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)  # without "line 1", which is not the file's
            raise InputError(f"{where} is not JSON: {reason}. Write one object a line.") from error
        if not isinstance(entry, dict) or "_id" not in entry or "text" not in entry:
            has = f"the keys {list(entry)}" if isinstance(entry, dict) else "no keys"
            raise InputError(f"{where} has {has}. Accepted: _id and text, and for documents title.")
        key = entry["_id"]
        if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
            raise InputError(f"{where}: '_id' is {key!r}; an id is a text or a whole number.")
        if (key := str(key)) in texts:
            raise InputError(f"{where}: the id '{key}' stands above, too. Ids are unique.")
        parts = [entry.get("title"), entry["text"]]
        for part in parts:
            if not isinstance(part, str | None):
                raise InputError(f"{where}: {part!r:.40} is {type(part).__name__}, not text.")
        texts[key] = " ".join(part for part in parts if part).strip()
        if not (texts[key] or may_be_empty):
            raise InputError(f"{where}: 'text' is empty. Fill it in or remove the line.")
    if not any(texts.values()):
        raise InputError(f"'{file.name}' holds no texts.")
    return texts


def _judgements(file: Path) -> Iterator[tuple[int, str, str, float]]:
    """Yield line number, query id, document id and gain of each judgement."""
    for place, (number, line) in enumerate(_lines(file)):
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split())]
        if place == 0 and [cell.lower().replace("_", "-") for cell in cells] == [
            *JUDGEMENT_COLUMNS
        ]:
            continue
        if len(cells) == 4:  # TREC: the second column is the iteration, which nobody uses
            del cells[1]
        try:
            query, document, text = cells
            gain = float(text)
            if not math.isfinite(gain):
                raise ValueError
        except ValueError:
            raise InputError(
                f"'{file.name}', line {number}: {line!r:.60} is no judgement. Accepted: a header "
                f"{', '.join(JUDGEMENT_COLUMNS)} and three columns with tabs between, or four as "
                "TREC has them (query, 0, document, gain); gains are numbers."
            ) from None
        yield number, query, document, int(gain) if gain.is_integer() else gain


# --- the file -----------------------------------------------------------------------------------


def _content(source: str | Path | bytes, name: str | None) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        content, name = source, name or "upload"
    else:
        # os.path says False of a name that no file can have, where Path raises.
        path = Path(os.path.expanduser(source))
        if not os.path.isfile(path):
            raise InputError(f"There is no file '{source}'. Check the path.")
        name = name or path.name
        _check_size(path.stat().st_size, name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"'{name}' cannot be read: {error.strerror}.") from error
    _check_size(len(content), name)
    if not content.strip():
        raise InputError(f"'{name}' is empty.")
    return content, name


def _check_size(size: int, name: str) -> None:
    if size > MAX_MEGABYTES * 1_000_000:
        raise InputError(
            f"'{name}' has {size / 1_000_000:.0f} MB; the limit is {MAX_MEGABYTES} MB. "
            "Split the file, or sample from it."
        )


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"'{name}' is not UTF-8 text (byte {error.start} is {content[error.start]:#04x}). "
            "Save it as UTF-8."
        ) from error


def _table(content: bytes, name: str) -> pd.DataFrame:
    suffix = Path(name).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"'{name}' ends in '{suffix or 'nothing'}'; tables are read from {', '.join(FORMATS)}."
        )
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(io.BytesIO(content))
        else:
            text = io.StringIO(_decode(content, name))
            if suffix == ".jsonl":
                table = pd.read_json(text, lines=True, dtype=False)
            else:
                # As text: a sentence such as "NA", "007" or "1e5" stays what it is.
                separator = "\t" if suffix == ".tsv" else ","
                table = pd.read_csv(text, sep=separator, dtype=str, keep_default_na=False)
    except InputError:
        raise
    except Exception as error:  # each parser has errors of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"'{name}' is not a readable {suffix} file: {reason}.") from error
    if suffix in (".csv", ".tsv") and not isinstance(table.index, pd.RangeIndex):
        # pandas takes the first cells for row labels, which would shift the columns.
        raise InputError(
            f"'{name}': the rows have more cells than there are column names "
            f"({list(table.columns)}). Put quotes around sentences that hold a separator."
        )
    table.columns = [str(column).strip() for column in table.columns]
    if not table.columns.is_unique:
        repeated = table.columns[table.columns.duplicated()][0]
        raise InputError(f"'{name}' has two columns '{repeated}'. Rename or remove one.")
    if table.empty:
        raise InputError(f"'{name}' has columns {list(table.columns)} but no rows.")
    return table


def _find(table: pd.DataFrame, wanted: dict[str, tuple[str, ...]], name: str) -> dict[str, str]:
    found = {}
    for kept, accepted in wanted.items():
        column = _column(table, accepted)
        if column is None:
            raise InputError(
                f"'{name}' has no column '{kept}'; it has {list(table.columns)}. "
                f"Accepted names: {', '.join(accepted)}."
            )
        found[kept] = column
    return found


def _column(table: pd.DataFrame, accepted: tuple[str, ...]) -> str | None:
    """Return the column with the first of the accepted names that is there, in any case."""
    by_name = {column.lower(): column for column in reversed(table.columns)}
    return next((by_name[name] for name in accepted if name in by_name), None)


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or value is pd.NA or value != value else str(value)


def _cells(table: pd.DataFrame, column: str, name: str) -> list[str]:
    for row, value in enumerate(table[column], start=1):
        if isinstance(value, bytes) or pd.api.types.is_list_like(value):
            raise InputError(
                f"'{name}', row {row}: '{column}' is {type(value).__name__}, not text. "
                "Write one text in each cell."
            )
    return [_cell(value) for value in table[column]]


def _texts(table: pd.DataFrame, column: str, name: str) -> list[str]:
    texts = _cells(table, column, name)
    for row, text in enumerate(texts, start=1):
        if not text.strip():
            raise InputError(
                f"'{name}', row {row}: '{column}' is empty. Fill it in or remove the row."
            )
    return texts


def _numbers(table: pd.DataFrame, column: str, name: str) -> list[float]:
    texts = _cells(table, column, name)
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float, copy=True)
    for row, (number, text) in enumerate(zip(numbers, texts, strict=True), start=1):
        if number != number or abs(number) == float("inf"):
            raise InputError(
                f"'{name}', row {row}: '{column}' is {text!r}; scores are numbers. "
                "Fix the file or remove the column."
            )
    return numbers.tolist()
