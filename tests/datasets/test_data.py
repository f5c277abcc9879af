"""What people upload: every format as a path and as bytes, and every way that it can be wrong."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lwap.datasets import readers as data
from lwap.datasets.readers import (
    FORMATS,
    MAX_GROUP,
    SentenceTable,
    data_folder,
    read_pairs,
    read_retrieval,
    read_sentence_table,
    read_sentences,
    read_training,
    read_triplets,
)
from lwap.errors import InputError

PAIRS = pd.DataFrame(
    {
        "sentence1": ["A cat sat.", 'He said "no, never".', "Zeile 1\nZeile 2"],
        "sentence2": ["A dog ran.", "naïve, 🙂", "tab\there"],
        "score": [0.0, 2.5, 5.0],
        "subset": ["a", "a", "b"],
    }
)


def written(table: pd.DataFrame, suffix: str) -> bytes:
    """Return a table as pandas writes it in one of the formats."""
    if suffix == ".parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        return buffer.getvalue()
    if suffix == ".jsonl":
        return table.to_json(orient="records", lines=True, force_ascii=False).encode()
    return table.to_csv(index=False, sep="\t" if suffix == ".tsv" else ",").encode()


@pytest.fixture(params=["path", "text path", "bytes"])
def given(request, tmp_path):
    """Return a function from (content, name) to a reader's arguments, each way of giving a file."""

    def give(content: bytes, name: str) -> tuple:
        if request.param == "bytes":
            return content, name
        file = tmp_path / name
        file.write_bytes(content)
        return (file if request.param == "path" else str(file),)

    return give


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_pairs_come_back_as_they_were_written(given, suffix):
    found = read_pairs(*given(written(PAIRS, suffix), f"pairs{suffix}"))
    assert found.to_dict("list") == PAIRS.to_dict("list")
    assert found["score"].dtype == float


@pytest.mark.parametrize("suffix", FORMATS)
def test_triplets_come_back_as_they_were_written(given, suffix):
    table = pd.DataFrame({"sent0": ["a", "b"], "sent1": ["c", "d"], "hard_neg": ["e", "f"]})
    found = read_triplets(*given(written(table, suffix), f"triplets{suffix.upper()}"))
    assert found.to_dict("list") == table.to_dict("list")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("column", ["sentence", "text", "Sentence", "TEXT"])
def test_sentences_of_a_table(given, suffix, column):
    table = pd.DataFrame({"id": [1, 2, 3], column: ["A cat sat.", "  ", "naïve 🙂"]})
    found = read_sentences(*given(written(table, suffix), f"sentences{suffix}"))
    assert found == ["A cat sat.", "naïve 🙂"]


@pytest.mark.parametrize("name", ["sentences.txt", "SENTENCES.TXT", "sentences"])
def test_sentences_one_a_line(given, name):
    content = "\ufeffA cat sat.\r\n\r\n  naïve 🙂 \nlast\rold Mac".encode()
    found = read_sentences(*given(content, name))
    assert found == ["A cat sat.", "naïve 🙂", "last", "old Mac"]


def test_a_line_ends_at_its_end_only():
    """U+2028, a form feed or a next-line character stand inside of sentences from the web."""
    assert read_sentences("a\u2028b\nc\x0cd\ne\x85f".encode()) == ["a\u2028b", "c\x0cd", "e\x85f"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_looks_like_a_number_or_a_gap_stays_text(suffix):
    words = ["NA", "007", "1e5", "null", "nan", "None", "True", "2020-01-01", "1,5", "+1", "inf"]
    table = pd.DataFrame({"sentence1": words, "sentence2": words[::-1]})
    found = read_pairs(written(table, suffix), f"x{suffix}")
    assert found.to_dict("list") == table.to_dict("list")
    table = pd.DataFrame({"sentence": words})
    assert read_sentences(written(table, suffix), f"x{suffix}") == words


def test_columns_of_numbers_become_text():
    table = pd.DataFrame({"sentence1": [1, 2], "sentence2": [True, False]})
    found = read_pairs(written(table, ".parquet"), "x.parquet")
    assert found.to_dict("list") == {"sentence1": ["1", "2"], "sentence2": ["True", "False"]}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(suffix):
    found = read_pairs(b"\xef\xbb\xbf" + written(PAIRS, suffix), f"x{suffix}")
    assert found.to_dict("list") == PAIRS.to_dict("list")


def test_windows_line_ends_and_blank_lines():
    content = b"sentence1,sentence2\r\n\r\na,b\r\n\r\nc,d\r\n"
    assert read_pairs(content, "x.csv").values.tolist() == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("sent1,sent2,label_score", ["sentence1", "sentence2", "score"]),
        ("text1,text2,similarity", ["sentence1", "sentence2", "score"]),
        ("gold,sentence2,sentence1", ["sentence1", "sentence2", "score"]),
        (" Sentence1 , SENTENCE2,Score", ["sentence1", "sentence2", "score"]),
        ("sentence1,sentence2,Subset", ["sentence1", "sentence2", "subset"]),
        ("sentence1,sentence2,note", ["sentence1", "sentence2"]),
    ],
)
def test_accepted_names_of_pair_columns(header, expected):
    found = read_pairs(f"{header}\n1,2,3\n".encode(), "x.csv")
    assert list(found.columns) == expected
    cells = dict(zip((name.strip().lower() for name in header.split(",")), "123", strict=True))
    for column, names in data.PAIR_COLUMNS.items():
        assert found[column].tolist() == [next(cells[name] for name in names if name in cells)]
    if "score" in expected:
        assert found["score"].tolist() == [
            float(next(cells[n] for n in data.SCORE_COLUMN if n in cells))
        ]


def test_accepted_names_of_triplet_columns():
    found = read_triplets(b"Negative,anchor,POSITIVE\nn,a,p\n", "x.csv")
    assert found.to_dict("records") == [{"sent0": "a", "sent1": "p", "hard_neg": "n"}]


def test_the_first_accepted_name_wins_wherever_it_stands():
    found = read_pairs(b"text1,sentence1,sentence2,gold,score\nx,a,b,1,2\n", "x.csv")
    assert found.to_dict("records") == [{"sentence1": "a", "sentence2": "b", "score": 2.0}]
    assert read_sentences(b"text,sentence\nx,a\n", "x.csv") == ["a"]


@pytest.mark.parametrize(
    ("cell", "expected"), [(" 4.5 ", 4.5), ("-1", -1), ("1e-3", 0.001), ("0", 0), ("5.", 5)]
)
def test_scores_are_numbers(cell, expected):
    found = read_pairs(f"sentence1,sentence2,score\na,b,{cell}\n".encode(), "x.csv")
    assert found["score"].tolist() == [expected]


def test_the_bundled_pairs_are_read():
    found = read_pairs(Path(__file__).parents[2] / "assets/pairs.csv")
    assert list(found.columns) == ["sentence1", "sentence2", "score", "subset"]
    assert len(found) == 120
    assert found["score"].between(0, 5).all()


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "x.txt").write_text("a\n", "utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_sentences("~/x.txt") == ["a"]


def test_the_data_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LWAP_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("LWAP_DATA")
    assert data_folder().parts[-2:] == ("shared", "data")


# --- what is refused ----------------------------------------------------------------------------


def table_with(cell: str) -> bytes:
    return f"sentence1,sentence2,score\na,b,1\nc,d,{cell}\n".encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", r"'x.csv' is empty\."),
        ("x.csv", b" \n\t\n", r"'x.csv' is empty\."),
        ("x.parquet", b"", r"'x.parquet' is empty\."),
        (
            "x.csv",
            b"sentence1,sentence2\n",
            r"has columns \['sentence1', 'sentence2'\] but no rows",
        ),
        ("x.jsonl", b"{}\n", "but no rows|has no column"),
        (
            "x.csv",
            b"sentence1,b\na,b\n",
            r"'x.csv' has no column 'sentence2'; it has \['sentence1', 'b'\]\. "
            r"Accepted names: sentence2, sent2, text2\.",
        ),
        (
            "x.csv",
            b"sentence1;sentence2\na;b\n",
            r"no column 'sentence1'; it has \['sentence1;sentence2'\]\. Accepted names: sentence1,",
        ),
        ("x.jsonl", b"[1, 2]\n", "has no column 'sentence1'"),
        ("x.csv", b"sentence1,sentence2\na,b\nc,\n", "'x.csv', row 2: 'sentence2' is empty. Fill"),
        ("x.csv", b"sentence1,sentence2\na,b\nc\n", "row 2: 'sentence2' is empty"),
        ("x.csv", b"sentence1,sentence2\n ,b\n", "row 1: 'sentence1' is empty"),
        ("x.csv", b"text1,sent2\na,\n", "row 1: 'sent2' is empty"),
        ("x.jsonl", b'{"sentence1": "a", "sentence2": null}\n', "row 1: 'sentence2' is empty"),
        (
            "x.jsonl",
            b'{"sentence1": "a", "sentence2": "b"}\n{"sentence1": "c"}\n',
            "row 2: 'sentence2' is empty",
        ),
        ("x.csv", table_with("high"), "'x.csv', row 2: 'score' is 'high'; scores are numbers. Fix"),
        ("x.csv", table_with(""), "row 2: 'score' is ''; scores are numbers"),
        ("x.csv", table_with("nan"), "row 2: 'score' is 'nan'; scores are numbers"),
        ("x.csv", table_with("inf"), "row 2: 'score' is 'inf'; scores are numbers"),
        ("x.csv", table_with("-1e999"), "row 2: 'score' is '-1e999'; scores are numbers"),
        ("x.csv", table_with('"4,5"'), "row 2: 'score' is '4,5'; scores are numbers"),
        ("x.jsonl", b'{"sentence1": "a", "sentence2": "b", "score": null}', "'score' is ''"),
        (
            "x.csv",
            "sentence1,sentence2\nä,b\n".encode("latin-1"),
            "byte 20 is 0xe4.*Save it as UTF-8",
        ),
        ("x.csv", "sentence1,sentence2\na,b\n".encode("utf-16"), "'x.csv' is not UTF-8 text"),
        ("x.jsonl", b'{"sentence1": "a"\n', "'x.jsonl' is not a readable .jsonl file: "),
        ("x.jsonl", b"sentence1,sentence2\na,b\n", "is not a readable .jsonl file"),
        (
            "x.csv",
            b'sentence1,sentence2\n"a,b\n',
            "is not a readable .csv file: .*EOF inside string",
        ),
        ("x.csv", b"sentence1,sentence2\na,b\nc,d,e\n", "not a readable .csv file.*line 3, saw 3"),
        ("x.csv", b"sentence1,sentence2\na,b,c\n", "rows have more cells than there are column"),
        ("x.csv", b"sentence1,sentence1 ,sentence2\na,b,c\n", "has two columns 'sentence1'"),
        ("x.parquet", b"PAR1 but no more", "'x.parquet' is not a readable .parquet file: "),
        ("x.parquet", b"a,b\n1,2\n", "is not a readable .parquet file: "),
        (
            "x.xlsx",
            b"PK",
            r"'x.xlsx' ends in '.xlsx'; tables are read from .csv, .tsv, .jsonl, .pa",
        ),
        ("x.txt", b"a\tb\n", "'x.txt' ends in '.txt'; tables are read from"),
        ("x", b"a,b\n", "'x' ends in 'nothing'; tables are read from"),
    ],
)
def test_refuses_a_file_of_pairs(given, name, content, message):
    with pytest.raises(InputError, match=message):
        read_pairs(*given(content, name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"", r"'x.txt' is empty\."),
        (
            "x.txt",
            b"\xef\xbb\xbf\n",
            "'x.txt' holds no sentences. Put one a line, or a column 'sente",
        ),
        ("x.csv", b"sentence,id\n,1\n", "'x.csv' holds no sentences"),
        ("x.csv", b"a,b\nx,y\n", "no column 'sentence'; .* Accepted names: sentence, text"),
        ("x.txt", b"caf\xe9\n", "byte 3 is 0xe9"),
        ("x.md", b"a\n", "'x.md' ends in '.md'; tables are read from"),
    ],
)
def test_refuses_a_file_of_sentences(given, name, content, message):
    with pytest.raises(InputError, match=message):
        read_sentences(*given(content, name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sent0,sent1\na,b\n", "no column 'hard_neg'; .* Accepted names: hard_neg, negative"),
        (b"anchor,positive,negative\na,b,c\na,b,\n", "row 2: 'negative' is empty"),
    ],
)
def test_refuses_a_file_of_triplets(given, content, message):
    with pytest.raises(InputError, match=message):
        read_triplets(*given(content, "x.csv"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_training_data_keep_rows_with_empty_cells(given, suffix):
    table = pd.DataFrame({"sent0": ["a", "b", None], "sent1": ["c", " ", "e"]})
    table["hard_neg"] = [None, "f", "g"]
    table.loc[3] = ["h", "i", "j"]
    found = read_training(*given(written(table, suffix), f"x{suffix}"))
    assert found.sent0.tolist() == ["a", "b", "", "h"]
    assert found.sent1.tolist() == ["c", " ", "e", "i"]
    assert found.hard_neg.tolist() == ["", "f", "g", "j"]


def test_training_data_may_lack_hard_negatives(given):
    found = read_training(*given(b"anchor,positive\na,b\n", "x.csv"))
    assert found.to_dict("list") == {"sent0": ["a"], "sent1": ["b"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sent0\na\n", "'x.csv' has no column 'sent1'; .* Accepted names: sent1, positive"),
        (b"sent0,sent1,no\na,b,c\n", r"no column 'hard_neg'; .* For pairs without hard negatives"),
        (
            b"anchor,positive,negative\na,b,\nc,,d\n",
            "'x.csv': none of the 2 rows is whole; in row 1 'negative' is empty. Fill the cells in",
        ),
    ],
)
def test_refuses_a_file_of_training_data(given, content, message):
    with pytest.raises(InputError, match=message):
        read_training(*given(content, "x.csv"))


@pytest.mark.parametrize("content", [PAIRS.to_parquet()[:-5], PAIRS.to_parquet()[:100]])
def test_refuses_a_truncated_parquet_file(content):
    with pytest.raises(InputError, match=r"'x\.parquet' is not a readable \.parquet"):
        read_pairs(content, "x.parquet")


@pytest.mark.parametrize(
    ("cell", "kind"),
    [(["a", "b"], "list|ndarray"), (["a"], "list|ndarray"), (b"a", "bytes"), ({"a": 1}, "dict")],
)
@pytest.mark.parametrize("column", ["sentence1", "score"])
def test_refuses_cells_that_are_no_text(cell, kind, column):
    table = pd.DataFrame({"sentence1": ["a"], "sentence2": ["b"], "score": [1.0]}).astype(object)
    table[column] = [cell]
    message = rf"row 1: '{column}' is ({kind}), not text\. Write one text in each cell"
    with pytest.raises(InputError, match=message):
        read_pairs(table.to_parquet(), "x.parquet")
    if not isinstance(cell, bytes):
        with pytest.raises(InputError, match=message):
            read_pairs(json.dumps(table.to_dict("records")[0]).encode(), "x.jsonl")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
@pytest.mark.parametrize(
    "read", [read_pairs, read_triplets, read_training, read_sentences, read_sentence_table]
)
def test_noise_is_refused_and_nothing_else_is_raised(read, suffix):
    import random

    noise = random.Random(0).randbytes(500)
    for content in (noise, b"\0" * 50, noise[:7], b'"', b",,,\n,,,\n", b"{" * 200):
        try:
            read(content, f"x{suffix}")
        except InputError as error:
            assert "x" + suffix in str(error)


def test_refuses_a_file_over_the_limit(given, monkeypatch):
    monkeypatch.setattr(data, "MAX_MEGABYTES", 1)
    row = b"a" * 997 + b",b\n"
    content = b"sentence1,sentence2\n" + row * 1_000
    with pytest.raises(InputError, match=r"'x\.csv' has 1 MB; the limit is 1 MB\. Split"):
        read_pairs(*given(content, "x.csv"))
    assert len(read_pairs(*given(content[: -len(row)], "x.csv"))) == 999


def test_a_file_over_the_limit_is_not_read(tmp_path, monkeypatch):
    file = tmp_path / "x.csv"
    with file.open("wb") as stream:
        stream.truncate(data.MAX_MEGABYTES * 1_000_000 + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("the file was read"))
    with pytest.raises(InputError, match="the limit is 200 MB"):
        read_pairs(file)


@pytest.mark.parametrize("name", ["missing.csv", "", "~nobody-here/x.csv", "a\0b.csv", "x" * 5000])
def test_refuses_a_file_that_is_not_there(name):
    with pytest.raises(InputError, match=r"There is no file '.*'\. Check the path\."):
        read_pairs(name)


def test_refuses_a_folder(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        read_sentences(tmp_path)


def test_a_file_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_bytes(b"sentence1,sentence2\na,b\n")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"'x\.csv' cannot be read: Permission"):
        read_pairs(tmp_path / "x.csv")


def test_bytes_without_a_name_are_lines():
    assert read_sentences(b"a\nb\n") == ["a", "b"]
    with pytest.raises(InputError, match="'upload' ends in 'nothing'"):
        read_pairs(b"sentence1,sentence2\na,b\n")


# --- sentences with what a table says of them ---------------------------------------------------

LABELLED = pd.DataFrame(
    {
        "topic": ["cats", "dogs", "", "cats"],
        "sentence": ["A cat sat.", 'He said "no, never".', "naïve 🙂", "tab\there"],
        "length": [3.0, np.nan, -1.5, 2e3],
        "Group": ["a", "b", "a", ""],
        "year": [1999, 2000, 2001, 2002],
    }
)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_of_sentences_keeps_labels_numbers_and_groups(given, suffix):
    found = read_sentence_table(*given(written(LABELLED, suffix), f"mine{suffix}"))
    assert found.sentences == tuple(LABELLED["sentence"])
    assert found.labels == {"topic": ("cats", "dogs", "", "cats")}
    assert list(found.numbers) == ["length", "year"]
    np.testing.assert_array_equal(found.numbers["length"], [3, np.nan, -1.5, 2000])
    assert found.numbers["year"].tolist() == [1999, 2000, 2001, 2002]
    assert all(values.dtype == float for values in found.numbers.values())
    assert found.positives.tolist() == [[0, 2]]
    assert (found.repeated, found.empty, len(found)) == (0, 0, 4)


def test_a_text_file_of_sentences_has_nothing_else(given):
    found = read_sentence_table(*given(b"A cat sat.\n\n A dog ran. \nA cat sat.\n", "x.txt"))
    assert found.sentences == ("A cat sat.", "A dog ran.")
    assert (found.labels, found.numbers, found.positives) == ({}, {}, None)
    assert (found.repeated, found.empty) == (1, 0)


def test_sentences_in_memory_make_a_table():
    found = SentenceTable.of(["b", " a ", "b", "", "a"])
    assert found.sentences == ("b", "a")
    assert (found.labels, found.numbers, found.positives) == ({}, {}, None)
    assert (found.repeated, found.empty) == (2, 1)
    assert len(SentenceTable.of([])) == 0


def test_repeated_and_empty_rows_are_left_out_with_all_that_stands_in_them():
    content = (
        "text,topic,number,group\n"
        "one,a,1,g\n"
        " ,b,2,g\n"
        "two,c,3,g\n"
        " one ,d,word,g\n"  # the first of equal sentences counts
        "two,,,\n"
        '"",e,4,g\n'
        "three,,5,g\n"
    )
    found = read_sentence_table(content.encode(), "x.csv")
    assert found.sentences == ("one", "two", "three")
    assert found.labels == {"topic": ("a", "c", "")}
    assert {name: values.tolist() for name, values in found.numbers.items()} == {
        "number": [1, 3, 5]
    }
    assert found.positives.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert (found.repeated, found.empty) == (2, 2)


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1", "", " 2.5 "], [1, np.nan, 2.5]),
        (["1e3", "-0.5", "+7"], [1000, -0.5, 7]),
        (["007", "1", "2"], [7, 1, 2]),
        (["1", "two", "3"], None),
        (["1", "inf", "3"], None),
        (["1", "nan", "3"], None),
        (["1,5", "2", "3"], None),
        (["True", "False", "True"], None),
        (["2020-01-01", "2020-01-02", ""], None),
        (["", " ", ""], None),
    ],
)
def test_a_column_is_a_number_where_all_its_filled_cells_are(cells, numbers):
    table = pd.DataFrame({"sentence": ["a", "b", "c"], "x": cells})
    found = read_sentence_table(written(table, ".csv"), "x.csv")
    if numbers is None:
        assert found.numbers == {}
        assert found.labels == {"x": tuple(cell.strip() for cell in cells)}
    else:
        assert found.labels == {}
        np.testing.assert_array_equal(found.numbers["x"], numbers)


def test_types_of_a_file_make_no_difference():
    table = pd.DataFrame(
        {
            "sentence": ["a", "b", "c"],
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "yes": [True, False, True],
            "none": [None, None, None],
            "mixed": ["x", None, "z"],
        }
    )
    found = read_sentence_table(written(table, ".parquet"), "x.parquet")
    np.testing.assert_array_equal(found.numbers["whole"], [1, np.nan, 3])
    assert found.labels == {
        "yes": ("True", "False", "True"),
        "none": ("", "", ""),
        "mixed": ("x", "", "z"),
    }
    lines = b'{"sentence": "a", "tag": "x"}\n{"sentence": "b"}\n{"sentence": "c", "tag": null}\n'
    assert read_sentence_table(lines, "x.jsonl").labels == {"tag": ("x", "", "")}


def test_every_pair_of_a_group_means_the_same():
    groups = ["a", "b", "a", "", "a", "b", "c", ""]
    table = pd.DataFrame({"sentence": list("stuvwxyz"), "paraphrase": groups})
    found = read_sentence_table(written(table, ".tsv"), "x.tsv")
    expected = [
        (first, second)
        for first, second in itertools.combinations(range(8), 2)
        if groups[first] == groups[second] != ""
    ]
    assert sorted(map(tuple, found.positives.tolist())) == expected
    assert found.labels == {}
    table["Group"] = [""] * 7 + ["alone"]  # the first accepted name, with no pair in it
    found = read_sentence_table(written(table, ".tsv"), "x.tsv")
    assert found.positives is None
    assert list(found.labels) == ["paraphrase"]


def test_groups_that_are_numbers_are_groups():
    table = pd.DataFrame({"sentence": list("abcd"), "group": [1, 2, 1, 3]})
    found = read_sentence_table(written(table, ".parquet"), "x.parquet")
    assert (found.positives.tolist(), found.numbers, found.labels) == ([[0, 2]], {}, {})


def test_a_large_group_is_a_chain():
    for count, pairs in ((MAX_GROUP, MAX_GROUP * (MAX_GROUP - 1) // 2), (MAX_GROUP + 1, MAX_GROUP)):
        sentences = [f"sentence {row}" for row in range(2 * count)]
        table = pd.DataFrame({"sentence": sentences, "group": ["same", ""] * count})
        found = read_sentence_table(written(table, ".csv"), "x.csv").positives
        assert found.shape == (pairs, 2) and found.dtype == np.int64
        assert set(found.ravel()) == set(range(0, 2 * count, 2))
    assert found.tolist() == [[row, row + 2] for row in range(0, 2 * MAX_GROUP, 2)]


def test_ten_thousand_labels_are_fine():
    table = pd.DataFrame(
        {
            "sentence": [f"sentence {row}" for row in range(10_000)],
            "label": [f"label {row}" for row in range(10_000)],
        }
    )
    found = read_sentence_table(written(table, ".csv"), "x.csv")
    assert found.labels["label"] == tuple(table["label"])
    assert len(found) == 10_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.csv",
            b"a,b\nx,y\n",
            r"'x.csv' has no column 'sentence'; it has \['a', 'b'\]\. Accepted names: sentence, t",
        ),
        ("x.csv", b"sentence,id\n,1\n \t,2\n", "'x.csv' holds no sentences. Put one in each row"),
        ("x.txt", b" \n\n", r"'x.txt' is empty\."),
        ("x.jsonl", b'{"sentence": "a", "x": 1, " x": 2}\n', "two columns 'x'. Rename or remove"),
        ("x.xlsx", b"x", "tables are read from .csv, .tsv, .jsonl, .parquet"),
        (
            "x.jsonl",
            b'{"sentence": "a", "tags": ["x", "y"]}\n',
            r"row 1: 'tags' is list, not text\. Write one text in each cell",
        ),
    ],
)
def test_refuses_a_table_of_sentences(given, name, content, message):
    with pytest.raises(InputError, match=message):
        read_sentence_table(*given(content, name))


# --- a retrieval folder -------------------------------------------------------------------------

CORPUS = [
    {"_id": "d1", "title": "Wings", "text": "Lift of a wing."},
    {"_id": "d2", "title": "", "text": "naïve\u2028🙂"},
    {"_id": "d3", "title": "Only a title", "text": ""},
    {"_id": 4, "text": "No title.", "metadata": {"year": 1960}},
]
QUERIES = [{"_id": "q1", "text": "wing lift"}, {"_id": "q2", "text": "title", "metadata": {}}]
JUDGED = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t4\t0\nq2\td3\t1\n"


def json_lines(entries: list[dict], end: str = "\n") -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + end for entry in entries)


@pytest.fixture
def collection(tmp_path):
    """Return a function that writes a retrieval folder, the given parts in place of good ones."""

    def write(
        corpus: str | bytes | None = json_lines(CORPUS),
        queries: str | bytes | None = json_lines(QUERIES),
        judgements: str | bytes | None = JUDGED,
        place: str = "qrels.tsv",
    ) -> Path:
        folder = tmp_path / "planes"
        (folder / "qrels").mkdir(parents=True)
        for name, content in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
            if content is not None:
                content = content if isinstance(content, bytes) else content.encode()
                (folder / name).write_bytes(content)
        if judgements is not None:
            content = judgements if isinstance(judgements, bytes) else judgements.encode()
            (folder / place).write_bytes(content)
        return folder

    return write


@pytest.mark.parametrize("place", ["qrels.tsv", "qrels/test.tsv"])
@pytest.mark.parametrize("kind", [Path, str])
def test_a_collection_is_read(collection, place, kind):
    found = read_retrieval(kind(collection(place=place)))
    assert found.name == "planes"
    assert found.document_ids == ("d1", "d2", "d3", "4")
    assert found.documents == (
        "Wings Lift of a wing.",
        "naïve\u2028🙂",
        "Only a title",
        "No title.",
    )
    assert (found.query_ids, found.queries) == (("q1", "q2"), ("wing lift", "title"))
    assert found.relevance == ({0: 2, 3: 0}, {2: 1})
    assert (found.dropped, found.unjudged, found.unresolved) == (0, 0, 0)


def test_the_current_folder_has_a_name(collection, monkeypatch):
    monkeypatch.chdir(collection())
    assert read_retrieval(".").name == "planes"


def test_qrels_beside_the_folder_of_splits_come_first(collection):
    folder = collection()
    (folder / "qrels" / "test.tsv").write_text("q1 0 d2 1")
    assert read_retrieval(folder).relevance == ({0: 2, 3: 0}, {2: 1})


@pytest.mark.parametrize(
    "judgements",
    [
        JUDGED.replace("\n", "\r\n"),
        "\ufeff" + JUDGED,
        JUDGED.replace("query-id\tcorpus-id\tscore", "Query_ID\tCorpus_ID\tSCORE"),
        JUDGED.partition("\n")[2],
        "q1 0 d1 2\nq1 0 4 0\n\nq2 Q0 d3 1\n",
        "q1\t0\td1\t2\nq1\t0\t4\t0\nq2\t0\td3\t1",
        "q1  d1  2.0\nq1  4  0\nq2  d3  1\n",
        JUDGED + "q1\td1\t2\n",
    ],
)
def test_forms_of_judgements(collection, judgements):
    found = read_retrieval(collection(judgements=judgements))
    assert found.relevance == ({0: 2, 3: 0}, {2: 1})


def test_gains_may_be_fractions_or_negative(collection):
    found = read_retrieval(collection(judgements="q1 0 d1 0.5\nq1 0 d2 -2\n"))
    assert found.relevance == ({0: 0.5, 1: -2},)


@pytest.mark.parametrize("nothing", [{"text": ""}, {"title": " ", "text": None}, {"text": "\n"}])
def test_what_cannot_be_searched_is_left_out_and_counted(collection, nothing):
    corpus = [CORPUS[0], {"_id": "empty", **nothing}, *CORPUS[1:]]
    queries = [{"_id": "q0", "text": "nobody judged this"}, *QUERIES, {"_id": "q3", "text": "x"}]
    judgements = JUDGED + "q1\tempty\t3\nq3\tempty\t1\n"
    found = read_retrieval(collection(json_lines(corpus), json_lines(queries), judgements))
    assert found.document_ids == ("d1", "d2", "d3", "4")
    assert found.query_ids == ("q1", "q2")
    assert found.relevance == ({0: 2, 3: 0}, {2: 1})
    assert (found.dropped, found.unjudged, found.unresolved) == (1, 2, 2)


def test_one_stray_judgement_in_a_hundred_is_left_out_and_counted(collection):
    corpus = [{"_id": str(number), "text": f"Text {number}."} for number in range(99)]
    judgements = "".join(f"q1 0 {number} 1\n" for number in range(100))
    found = read_retrieval(collection(json_lines(corpus), json_lines(QUERIES), judgements))
    assert len(found.relevance[0]) == 99
    assert found.unresolved == 1


def test_two_stray_judgements_in_a_hundred_are_an_error(collection):
    corpus = [{"_id": str(number), "text": f"Text {number}."} for number in range(98)]
    judgements = "".join(f"q1 0 {number} 1\n" for number in range(100))
    message = (
        "'qrels.tsv': 2 of 100 judgements name ids that are not in corpus.jsonl or queries.jsonl, "
        "the first document '98' in line 99. Check that the files belong together"
    )
    with pytest.raises(InputError, match=message):
        read_retrieval(collection(json_lines(corpus), json_lines(QUERIES), judgements))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"corpus": None}, r"'planes' has no file corpus\.jsonl\. A retrieval folder holds corpus"),
        ({"queries": None}, r"has no file queries\.jsonl\."),
        ({"judgements": None}, r"no file qrels\.tsv or qrels/test\.tsv\. A retrieval folder hol"),
        ({"corpus": "\n"}, "'corpus.jsonl' holds no texts"),
        ({"queries": b""}, "'queries.jsonl' holds no texts"),
        ({"corpus": '{"_id": "a", "text": ""}'}, "'corpus.jsonl' holds no texts"),
        (
            {"corpus": json_lines(CORPUS) + "{'_id': 5}"},
            r"'corpus.jsonl', line 5 is not JSON: Expecting property name.*Write one object a line",
        ),
        ({"queries": '{"_id": "q1", "text": '}, "'queries.jsonl', line 1 is not JSON: Expecting"),
        ({"corpus": "[" * 100_000}, "'corpus.jsonl', line 1 is not JSON: "),
        ({"corpus": "[1, 2]"}, r"'corpus.jsonl', line 1 has no keys\. Accepted: _id and text"),
        (
            {"corpus": '\n{"id": "a", "text": "b"}'},
            r"line 2 has the keys \['id', 'text'\]\. Accepted: _id and text, and for doc",
        ),
        ({"queries": '{"_id": "a", "query": "b"}'}, r"'queries.jsonl', line 1 has the keys \['_id"),
        ({"corpus": '{"_id": null, "text": "b"}'}, "line 1: '_id' is None; an id is a text or a"),
        ({"corpus": '{"_id": "", "text": "b"}'}, "line 1: '_id' is ''"),
        ({"corpus": '{"_id": true, "text": "b"}'}, "line 1: '_id' is True"),
        ({"corpus": '{"_id": "a", "text": ["b"]}'}, r"line 1: \['b'\] is list, not text"),
        ({"corpus": '{"_id": "a", "title": 7, "text": ""}'}, "line 1: 7 is int, not text"),
        (
            {"corpus": json_lines([*CORPUS, {"_id": "4", "text": "again"}])},
            "'corpus.jsonl', line 5: the id '4' stands above, too. Ids are unique",
        ),
        ({"queries": json_lines([*QUERIES, QUERIES[0]])}, "line 3: the id 'q1' stands above"),
        (
            {"queries": json_lines([QUERIES[0], {"_id": "q2", "text": " "}])},
            "'queries.jsonl', line 2: 'text' is empty. Fill it in or remove the line",
        ),
        ({"corpus": b'{"_id": "a", "text": "caf\xe9"}'}, "'corpus.jsonl' is not UTF-8 text, after"),
        ({"judgements": JUDGED.encode("utf-16")}, r"'qrels\.tsv' is not UTF-8 text.* Save it as"),
        (
            {"judgements": JUDGED + "q1\td2\thigh\n"},
            r"'qrels\.tsv', line 5: 'q1\\td2\\thigh' is no judgement\. Accepted: a header",
        ),
        ({"judgements": JUDGED + "q1\td2\n"}, "line 5: .* is no judgement"),
        ({"judgements": JUDGED + "q1\td2\tnan\n"}, "line 5: .* gains are numbers"),
        ({"judgements": "query\tdocument\tgain\nq1\td1\t1"}, "line 1: .* is no judgement"),
        (
            {"judgements": JUDGED + "q1\td1\t1\n"},
            r"line 5: query 'q1' and document 'd1' are judged 1 here and 2 above\. Keep one",
        ),
        ({"judgements": JUDGED + "q9\td1\t1\n"}, r"1 of 4 .*, the first query 'q9' in line 5\."),
        ({"judgements": "\n"}, "'qrels.tsv' judges no document that has a text. Add judgements"),
    ],
)
def test_refuses_a_retrieval_folder(collection, parts, message):
    with pytest.raises(InputError, match=message):
        read_retrieval(collection(**parts))


@pytest.mark.parametrize("name", ["missing", "~nobody-here/x", "a\0b", "x" * 5000])
def test_refuses_a_retrieval_folder_that_is_not_there(name):
    with pytest.raises(InputError, match=r"There is no folder '.*'\. Check the path\."):
        read_retrieval(name)


def test_a_retrieval_folder_is_no_file(collection):
    with pytest.raises(InputError, match="There is no folder"):
        read_retrieval(collection() / "corpus.jsonl")


def test_a_collection_may_be_larger_than_an_upload(collection, monkeypatch):
    monkeypatch.setattr(data, "MAX_MEGABYTES", 0)
    assert len(read_retrieval(collection()).documents) == 4


def test_a_collection_that_cannot_be_read_says_why(collection, monkeypatch):
    folder = collection()

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"'corpus.jsonl' cannot be read: Permission denied"):
        read_retrieval(folder)


@pytest.mark.shared_data
def test_cranfield_is_read():
    folder = data_folder() / "retrieval" / "cranfield"
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not there; LWAP_DATA names the data folder")
    found = read_retrieval(folder)
    # Two of the 1,400 abstracts are empty and not in the file; one of these is judged.
    assert (len(found.documents), len(found.queries)) == (1398, 225)
    assert sum(map(len, found.relevance)) == 1611
    assert {gain for gains in found.relevance for gain in gains.values()} == {1, 2, 3, 4}
    assert (found.dropped, found.unjudged, found.unresolved) == (0, 0, 1)
