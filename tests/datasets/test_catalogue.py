"""The public sets: tasks read and checked, and downloads from a hub that is played by the test."""

import dataclasses
import errno
import hashlib
import json
import re
from datetime import date
from pathlib import Path

import datasets
import pandas as pd
import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub.errors import LocalEntryNotFoundError

from lwap.datasets import public
from lwap.datasets.download import SOURCES, download, verify_sources
from lwap.datasets.public import PUBLIC_SETS, public_set
from lwap.datasets.readers import (
    data_folder,
    read_pairs,
    read_retrieval,
    read_sentences,
    read_triplets,
)
from lwap.datasets.tasks import (
    STANDARD,
    STS_TASKS,
    available_tasks,
    check_scored,
    fingerprint,
    read_task,
    sts_task,
    task_notes,
)
from lwap.datasets.wikitext import wiki_sentences
from lwap.errors import InputError


def pairs_of(count: int, low: float = 0.0, high: float = 5.0, **changes) -> pd.DataFrame:
    """Return distinct pairs whose scores reach from low to high."""
    table = {
        "sentence1": [f"The cat sat on mat {row}." for row in range(count)],
        "sentence2": [f"A dog lay on rug {row}." for row in range(count)],
        "score": [low + (high - low) * row / (count - 1) for row in range(count)],
    }
    return pd.DataFrame(table | changes)


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


# --- STS tasks ----------------------------------------------------------------------------------


@pytest.fixture
def sts_folder(tmp_path) -> Path:
    """A data folder with small files of four tasks."""
    (tmp_path / "sts").mkdir()
    for name, low in (("sts12", 0), ("stsb-test", 0), ("sick-test", 1), ("sick-dev", 1)):
        pairs_of(5, low).to_csv(tmp_path / "sts" / f"{name}.csv", index=False)
    return tmp_path


def test_the_standard_tasks_are_the_seven_of_the_papers():
    assert STANDARD == ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")
    assert [task.key for task in STS_TASKS if not task.is_test] == ["stsb-dev", "sick-dev"]
    assert len({task.file for task in STS_TASKS}) == len(STS_TASKS)
    assert {task.key for task in STS_TASKS if task.low == 1} == {"sickr", "sick-dev"}


def test_a_task_is_read_from_the_data_folder_and_from_the_sts_folder(sts_folder, monkeypatch):
    expected = pairs_of(5).to_dict("list")
    assert read_task("sts12", sts_folder).to_dict("list") == expected
    assert read_task("sts12", str(sts_folder / "sts")).to_dict("list") == expected
    monkeypatch.setenv("HOME", str(sts_folder))
    assert read_task("sts12", "~/sts").to_dict("list") == expected


def test_a_task_keeps_its_subsets(sts_folder):
    pairs = pairs_of(4, subset=["a", "a", "b", "b"])
    pairs.assign(note="x").to_csv(sts_folder / "sts" / "sts16.csv", index=False)
    assert read_task("sts16", sts_folder).to_dict("list") == pairs.to_dict("list")


def test_the_tasks_that_are_there(sts_folder):
    expected = ["sts12", "stsb", "sickr", "sick-dev"]
    assert available_tasks(sts_folder) == expected
    assert available_tasks(sts_folder / "sts") == expected
    assert available_tasks(sts_folder / "nowhere") == []
    assert available_tasks("a\0b") == []


@pytest.mark.parametrize("key", ["sts17", "STS12", ""])
def test_refuses_a_task_that_does_not_exist(key, sts_folder):
    for use in (
        lambda: sts_task(key),
        lambda: read_task(key, sts_folder),
        lambda: task_notes(key, pairs_of(5)),
    ):
        with pytest.raises(
            InputError, match=rf"no STS task '{key}'\. Tasks: sts12, .*, sickr, stsb-dev, sick-dev"
        ):
            use()


@pytest.mark.parametrize("folder", ["nowhere", "a\0b", "sts/sts12.csv"])
def test_refuses_a_data_folder_that_is_not_there(folder, sts_folder):
    message = r"no data folder '.*'\. LWAP_DATA names .*`python -m lwap data download sts` gets"
    with pytest.raises(InputError, match=message):
        read_task("sts12", f"{sts_folder}/{folder}")


def test_a_missing_task_file_names_both_ways_out(sts_folder):
    with pytest.raises(
        InputError,
        match=r"'sts13\.csv' of STS13 is not in '.*'\. There are sts12\.csv, stsb-test\.csv, "
        r"sick-test\.csv, sick-dev\.csv: choose among them with --tasks \(sts12, stsb, sickr, "
        r"sick-dev\), or get the missing ones with `python -m lwap data download sts`\.",
    ):
        read_task("sts13", sts_folder)


def test_a_folder_without_any_task_file_says_so(tmp_path):
    message = r"'stsb-test\.csv' of STS-B is not in .* No file of another task is there either"
    with pytest.raises(InputError, match=message):
        read_task("stsb", tmp_path)


@pytest.mark.parametrize(
    ("key", "changes", "message"),
    [
        ("sts12", {"score": [0, 1, 5.5]}, r"'sts12\.csv', row 3: the score is 5\.5; .* 0 to 5\. C"),
        ("sts12", {"score": [0, -0.1, 5]}, r"row 2: the score is -0\.1; this set has scores from"),
        ("sickr", {"score": [0.5, 2, 5]}, r"'sick-test\.csv', row 1: the score is 0\.5; .* 1 to 5"),
        ("stsb", {"score": [2, 2, 2]}, r"All 3 pairs of 'stsb-test\.csv' have the same score \(2"),
        ("stsb", {"score": [2, "x", 2]}, r"'stsb-test\.csv', row 2: 'score' is 'x'; scores are n"),
        ("stsb", {"sentence1": ["a", "", "c"]}, r"row 2: 'sentence1' is empty"),
    ],
)
def test_refuses_scores_that_are_not_those_of_the_task(sts_folder, key, changes, message):
    file = sts_folder / "sts" / sts_task(key).file
    pairs_of(3, **changes).to_csv(file, index=False)
    with pytest.raises(InputError, match=message):
        read_task(key, sts_folder)


def test_refuses_a_task_without_scores(sts_folder):
    pairs_of(3).drop(columns="score").to_csv(sts_folder / "sts" / "sts12.csv", index=False)
    message = (
        r"'sts12\.csv' has no column 'score'; it has \['sentence1', 'sentence2'\]\. "
        r"Accepted names: score, label_score, similarity, gold\."
    )
    with pytest.raises(InputError, match=message):
        read_task("sts12", sts_folder)


def test_notes_on_a_task():
    full = pairs_of(1500, subset=["x"] * 1500)
    assert task_notes("sts13", full) == []
    (note,) = task_notes("sts13", full.drop(columns="subset"))
    assert re.search(r"STS13 has 3 subsets; the hub's copy .* only the aggregation 'all'", note)
    (note,) = task_notes("stsb-dev", pairs_of(9))
    assert note.startswith("9 pairs; the published STS-B dev has 1500. Scores on another set")
    repeated = pd.concat([full, full[:1]], ignore_index=True)
    assert [note[:12] for note in task_notes("sts13", repeated)] == ["1 of 1501 pa", "1501 pairs; "]


@pytest.mark.shared_data
@pytest.mark.parametrize("task", STS_TASKS, ids=lambda task: task.key)
def test_the_real_tasks_are_read(task):
    folder = data_folder()
    if task.key not in available_tasks(folder):
        pytest.skip(f"{task.file} is not there; LWAP_DATA names the data folder")
    pairs = read_task(task.key, folder)
    assert len(pairs) == task.pairs
    assert (pairs["score"].min(), pairs["score"].max()) == (task.low, task.high)
    assert (pairs["subset"].nunique() if "subset" in pairs else 0) == task.subsets
    assert fingerprint(pairs) == fingerprint(read_task(task.key, folder / "sts"))
    assert not [note for note in task_notes(task.key, pairs) if "row" not in note]


# --- labelled pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (None, None, None),
        (0, 5, None),
        (0.1, None, r"'mine', row 1: the score is 0; this set has scores from 0\.1\."),
        (None, 4, r"'mine', row 5: the score is 5; this set has scores up to 4\."),
        (1, 5, r"'mine', row 1: the score is 0; this set has scores from 1 to 5\. Correct the row"),
    ],
)
def test_scores_keep_to_a_range_where_one_is_declared(low, high, message):
    if message is None:
        assert check_scored(pairs_of(5), "mine", low, high) == []
    else:
        with pytest.raises(InputError, match=message):
            check_scored(pairs_of(5), "mine", low, high)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            pairs_of(3).drop(columns="score"),
            r"'mine' has no column 'score'; .*Accepted names: scor",
        ),
        (pairs_of(3).drop(columns="sentence2"), r"'mine' has no column 'sentence2'; it has \['s"),
        (pairs_of(3)[:0], r"'mine' has 0 scored pairs; a rank correlation needs at least 3"),
        (pairs_of(3)[:1], r"'mine' has 1 scored pair; a rank correlation needs at least 3"),
        (pairs_of(3, score=[1, float("nan"), 2]), r"'mine', row 2: the score is nan; scores are"),
        (pairs_of(3, score=[1, 2, float("inf")]), r"'mine', row 3: the score is inf; scores are"),
        (pairs_of(3, score=["1", "high", "2"]), r"'mine', row 2: the score is high; scores are"),
        (pairs_of(3, score=[4, 4, 4]), r"All 3 pairs of 'mine' have the same score \(4\): nothing"),
    ],
)
def test_refuses_pairs_that_cannot_be_ranked(pairs, message):
    with pytest.raises(InputError, match=message):
        check_scored(pairs, "mine")


def test_pairs_that_repeat_are_noted_and_stay():
    pairs = pairs_of(5)
    swapped = pairs[1:2].rename(columns={"sentence1": "sentence2", "sentence2": "sentence1"})
    given = pd.concat([pairs, pairs[:1], swapped, pairs[:1]], ignore_index=True)
    assert check_scored(given, "mine") == [
        "3 of 8 pairs repeat an earlier one (first: row 6 repeats row 1); each row counts."
    ]
    given.loc[6, "score"] = 4.5
    repeats, contradictions = check_scored(given, "mine")
    assert repeats.startswith("3 of 8 pairs")
    assert contradictions == (
        "1 of these have another score than before (first: row 7 has 4.5, row 2 has 1.25): "
        "no model can fit both."
    )


def test_checking_changes_nothing():
    pairs = pairs_of(4, score=["1", "2", "3", "4"])
    before = pairs.copy(deep=True)
    check_scored(pairs, "mine", 0, 5)
    pd.testing.assert_frame_equal(pairs, before)


def test_a_fingerprint_is_the_hash_of_the_content():
    pairs = pairs_of(2, sentence1=["a", "ü"], score=[0, 4.5], subset=["x", "y"])
    lines = [
        '["sentence1", "sentence2", "score", "subset"]',
        '["a", "A dog lay on rug 0.", "0.0", "x"]',
        '["\\u00fc", "A dog lay on rug 1.", "4.5", "y"]',
    ]
    assert fingerprint(pairs) == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_a_fingerprint_knows_no_format(tmp_path):
    pairs = pairs_of(6, subset=list("aabbcc"))
    pairs.to_csv(tmp_path / "x.csv", index=False)
    pairs.to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    pairs.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    pairs[["score", "subset", "sentence2", "sentence1"]].to_parquet(tmp_path / "x.parquet")
    files = list(tmp_path.iterdir())
    assert len(files) == 4
    assert {fingerprint(read_pairs(file)) for file in files} == {fingerprint(pairs)}
    assert fingerprint(pairs.assign(note="x")) == fingerprint(pairs)


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: pairs[::-1],
        lambda pairs: pairs.drop(columns="subset"),
        lambda pairs: pairs.drop(columns="score"),
        lambda pairs: pairs.assign(score=pairs["score"] + 1e-12),
        lambda pairs: pairs.assign(sentence1=pairs["sentence1"] + " "),
        lambda pairs: pairs.assign(subset="b"),
        lambda pairs: pairs.rename(columns={"sentence1": "sentence2", "sentence2": "sentence1"}),
    ],
)
def test_a_fingerprint_sees_each_change(change):
    pairs = pairs_of(4, subset=["a"] * 4)
    assert fingerprint(change(pairs)) != fingerprint(pairs)


def test_cells_do_not_run_together_in_a_fingerprint():
    one = pairs_of(2, sentence1=['a", "b', "c"], sentence2=["d", "e"])
    other = pairs_of(2, sentence1=["a", "c"], sentence2=['b", "d', "e"])
    assert fingerprint(one) != fingerprint(other)
    with pytest.raises(InputError, match=r"columns sentence1 and sentence2; these have \['a'\]"):
        fingerprint(pd.DataFrame({"a": ["x"]}))


# --- what the hub has ---------------------------------------------------------------------------


def test_each_public_set_is_described():
    assert len({found.name for found in PUBLIC_SETS}) == len(PUBLIC_SETS)
    paths = [file.path for found in PUBLIC_SETS for file in found.files]
    assert len(set(paths)) == len(paths)
    for found in PUBLIC_SETS:
        assert found.about.endswith(".") and found.licence and found.kind in public.FORMATS
        for file in found.files:
            assert file.revision is None or re.fullmatch("[0-9a-f]{40}", file.revision)
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_the_sts_download_covers_every_task():
    found = {Path(file.path).name: file for file in public_set("sts").files}
    assert found.keys() == {task.file for task in STS_TASKS}
    assert {name: file.rows for name, file in found.items()} == {
        task.file: task.pairs for task in STS_TASKS
    }
    assert public_set("sts").licence == (
        "STS12–16: not stated; STS-B: CC BY-SA 4.0; SICK: CC BY-NC-SA 3.0"
    )
    notes = " ".join(public_set("sts").notes)
    assert "no subset names" in notes and "only the aggregation 'all'" in notes


@pytest.mark.parametrize("use", [public_set, lambda name: download(name, "anywhere")])
def test_refuses_a_set_that_does_not_exist(use):
    with pytest.raises(InputError, match=r"no public set 'glue'\. Sets: sts, nli, .*beir-scifact"):
        use("glue")


def test_the_collection_to_search_in_is_whole():
    assets = Path(__file__).parents[2] / "assets"
    collection = json.loads((assets / "collection.json").read_text("utf-8"))
    sentences = collection["sentences"]
    assert collection["title"] and len(sentences) == len(set(sentences)) == 162
    assert all(text == " ".join(text.split()) and len(text.split()) <= 20 for text in sentences)
    assert len(collection["queries"]) == 8
    for query in collection["queries"]:
        assert query.keys() == {"text", "look_for"} and query["look_for"].endswith(".")
        assert query["text"] not in sentences
    pairs = read_pairs(assets / "pairs.csv")
    assert not set(sentences) & {*pairs["sentence1"], *pairs["sentence2"]}


# --- download -----------------------------------------------------------------------------------

SICK_PARTS = {"train": 6, "dev": 4, "test": 5}


def sick_part(name: str) -> pd.DataFrame:
    pairs = pairs_of(SICK_PARTS[name], low=1.0)
    return pairs.assign(sentence1=name + " " + pairs["sentence1"])


def shrunk() -> tuple[public.PublicSet, ...]:
    """Return the public sets with a few rows each, as many as the `hub` below has."""
    sha256 = {
        name: hashlib.sha256(sick_part(name).to_csv(index=False).encode()).hexdigest()
        for name in SICK_PARTS
    }

    def small(file: public.PublicFile) -> public.PublicFile:
        name = Path(file.path).stem
        if name.startswith("sick-"):
            part = name.removeprefix("sick-")
            return dataclasses.replace(
                file,
                splits=(("test", 15),),
                rows=SICK_PARTS[part],
                sha256=sha256[part],
                block_starts=(0, 4, 5, 6, 9, 10, 11),
            )
        rows = {"corpus": 3, "queries": 4, "qrels": 3}.get(name, 5)
        written = {"queries": 2, "all-nli-triplets": None}.get(name, rows)
        return dataclasses.replace(
            file,
            splits=tuple((split, rows if known else None) for split, known in file.splits),
            rows=file.rows and written,
        )

    return tuple(
        dataclasses.replace(found, files=tuple(map(small, found.files))) for found in PUBLIC_SETS
    )


WIKI = [
    "",
    " = Boats = ",
    " The crew of 1 @,@ 200 left the old harbour . They came ( late ) , as Anna 's log says . ",
    "",
    " The crew of 1 @,@ 200 left the old harbour . ",
]


def hub_content() -> dict[tuple, dict[str, list]]:
    """Return what the played hub has, by id, configuration and split, in the recorded columns."""
    pairs = pairs_of(5).to_dict("list")
    triplets = {
        "anchor": ["A man runs.", "Two dogs play.", "It rains.", "He eats.", 'A "sign", blue'],
        "positive": ["Someone runs.", "Dogs play.", "Water falls.", "Someone eats.", "A sign"],
        "negative": ["A man sleeps.", "Dogs sleep.", "It is dry.", "He fasts.", "No sign"],
    }
    sick = pd.concat([sick_part(name) for name in SICK_PARTS])
    content: dict[tuple, dict[str, list]] = {
        (f"mteb/sts{year}-sts", None, "test"): pairs for year in range(12, 17)
    }
    content |= {
        ("mteb/stsbenchmark-sts", None, "test"): {"genre": ["news"] * 5} | pairs,
        ("mteb/stsbenchmark-sts", None, "validation"): {"genre": ["news"] * 5} | pairs,
        ("mteb/sickr-sts", None, "test"): sick.to_dict("list"),
        ("sentence-transformers/all-nli", "triplet", "train"): triplets,
        ("sentence-transformers/all-nli", "triplet", "dev"): triplets,
        ("sentence-transformers/nli-for-simcse", "triplet", "train"): triplets,
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "validation"): {"text": WIKI},
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "test"): {"text": WIKI},
        ("princeton-nlp/datasets-for-simcse", None, "train"): {"text": ["One  two.", "", " x\ty "]},
    }
    for name in ("scifact", "nfcorpus", "fiqa"):
        hub_id = f"mteb/{name}"
        content[hub_id, "corpus", "corpus"] = {
            "_id": ["d1", "d2", "d3"],
            "title": ["Lead", "", None],
            "text": ["Lead is heavy.", "Zinc is light.", ""],
        }
        content[hub_id, "queries", "queries"] = {
            "_id": ["q1", "q2", "q3", "q4"],
            "text": ["What is heavy?", "What is light?", "Unjudged?", "Train only?"],
        }
        content[hub_id, "default", "test"] = {
            "query-id": ["q1", "q2", "q2"],
            "corpus-id": ["d1", "d2", "d1"],
            "score": [1.0, 2.0, 1.0],
        }
    return content


@pytest.fixture
def hub(monkeypatch):
    """Play a hub with small sets; return its content and, under "calls", what was asked of it."""
    content = hub_content()
    content["calls"] = []

    def load_dataset(path, name=None, *, split, **options):
        content["calls"].append((path, name, split, options))
        found = content[path, name, split]
        if isinstance(found, Exception):
            raise found
        return datasets.Dataset.from_dict(found)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(public, "PUBLIC_SETS", shrunk())
    return content


@pytest.mark.parametrize("found", PUBLIC_SETS, ids=lambda found: found.name)
def test_each_set_is_downloaded(hub, tmp_path, found):
    done = []
    files = download(found.name, tmp_path, progress=lambda *numbers: done.append(numbers))
    assert [str(file.relative_to(tmp_path)) for file in files] == [f.path for f in found.files]
    assert files_below(tmp_path) == sorted([*(f.path for f in found.files), SOURCES])
    assert done == [(step, len(files)) for step in range(1, len(files) + 1)]
    asked = {(path, name, options["revision"]) for path, name, _, options in hub["calls"]}
    assert asked == {(f.hub_id, f.config, f.revision) for f in found.files}
    assert not any("trust_remote_code" in options for *_, options in hub["calls"])
    reports = verify_sources(tmp_path)
    assert len(reports) == len(files) and all(": good, " in report for report in reports)


def test_the_sts_files_are_the_tasks_of_this_project(hub, tmp_path):
    download("sts", tmp_path)
    assert available_tasks(tmp_path) == [task.key for task in STS_TASKS]
    assert read_task("stsb-dev", tmp_path).to_dict("list") == pairs_of(5).to_dict("list")
    for key, part in (("sickr", "test"), ("sick-dev", "dev")):
        assert read_task(key, tmp_path).to_dict("list") == sick_part(part).to_dict("list")
    assert (tmp_path / "sts/sts12.csv").read_text().startswith("sentence1,sentence2,score\n")


@pytest.mark.parametrize("order", [["train", "test", "dev"], ["test", "dev", "train"]])
def test_the_test_part_of_sick_is_found_in_any_order_of_the_parts(hub, tmp_path, order):
    joined = pd.concat([sick_part(name) for name in order])
    hub["mteb/sickr-sts", None, "test"] = joined.to_dict("list")
    download("sts", tmp_path)
    assert read_task("sickr", tmp_path).to_dict("list") == sick_part("test").to_dict("list")


def test_sick_in_an_unknown_order_is_refused(hub, tmp_path):
    shuffled = pd.concat([sick_part(name) for name in SICK_PARTS]).sample(frac=1, random_state=0)
    hub["mteb/sickr-sts", None, "test"] = shuffled.to_dict("list")
    message = r"The 5 pairs of 'sts/sick-test\.csv' are not among the 15 of 'mteb/sickr-sts'"
    with pytest.raises(InputError, match=message):
        download("sts", tmp_path)
    assert files_below(tmp_path) == []


@pytest.mark.shared_data
def test_the_real_sick_is_cut_out_of_the_hubs(monkeypatch, tmp_path):
    """The hub's copy is train, dev and test, one after the other."""
    folder = data_folder() / "sts"
    if not (folder / "sick-train.csv").is_file():
        pytest.skip("sick-train.csv is not there; LWAP_DATA names the data folder")
    parts = [read_pairs(folder / f"sick-{name}.csv") for name in ("train", "dev", "test")]
    real = datasets.Dataset.from_pandas(pd.concat(parts, ignore_index=True))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: real)
    chosen = public_set("sts")
    only_sick = [file for file in chosen.files if file.hub_id == "mteb/sickr-sts"]
    changed = dataclasses.replace(chosen, files=tuple(only_sick))
    monkeypatch.setattr(public, "PUBLIC_SETS", (changed,))
    assert len(download("sts", tmp_path)) == 2
    for key in ("sickr", "sick-dev"):
        assert fingerprint(read_task(key, tmp_path)) == fingerprint(read_task(key, folder))


def test_triplets_take_this_projects_names(hub, tmp_path):
    hub["sentence-transformers/all-nli", "triplet", "train"]["negative"][1] = None
    hub["sentence-transformers/all-nli", "triplet", "train"]["positive"][3] = " "
    files = download("nli", tmp_path)
    triplets = read_triplets(files[0])
    assert triplets.columns.tolist() == ["sent0", "sent1", "hard_neg"]
    assert triplets["sent0"].tolist() == ["A man runs.", "It rains.", 'A "sign", blue']
    assert json.loads((tmp_path / SOURCES).read_text())["files"]["nli/all-nli-triplets.csv"][
        "rows"
    ] == len(triplets)


def test_wikitext_becomes_sentences(hub, tmp_path):
    (file,) = download("wiki", tmp_path)
    assert read_sentences(file) == [
        "The crew of 1,200 left the old harbour.",
        "They came (late), as Anna's log says.",
    ]


def test_sentences_lose_only_their_blanks(hub, tmp_path):
    (file,) = download("wiki1m", tmp_path)
    assert read_sentences(file) == ["One two.", "x y"]
    assert hub["calls"][0][3]["data_files"] == "wiki1m_for_simcse.txt"


def test_a_retrieval_set_becomes_a_beir_folder(hub, tmp_path):
    corpus, queries, qrels = download("beir-scifact", tmp_path)
    assert corpus.read_text().splitlines() == [
        '{"_id": "d1", "title": "Lead", "text": "Lead is heavy."}',
        '{"_id": "d2", "title": "", "text": "Zinc is light."}',
        '{"_id": "d3", "title": "", "text": ""}',
    ]
    assert [json.loads(line)["_id"] for line in queries.read_text().splitlines()] == ["q1", "q2"]
    assert qrels.read_text() == ("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\nq2\td1\t1\n")
    found = read_retrieval(tmp_path / "retrieval/scifact")
    assert found.query_ids == ("q1", "q2")
    assert found.relevance == ({0: 1}, {1: 2, 0: 1})


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['He said " it is over " and left .'], ['He said "it is over" and left.']),
        (
            ['" It is over . " Then he went home early .'],
            ["Then he went home early."],  # the first sentence has three words
        ),
        (
            ["They won 3 – 1 ( after a draw ) . It was a well @-@ earned win ! Was it ?"],
            ["They won 3 – 1 (after a draw).", "It was a well-earned win!"],
        ),
        (
            ["It weighs 0 @.@ 7 kg ( 1 @.@ 5 lb . ) The U.S. team didn 't weigh it ."],
            ["It weighs 0.7 kg (1.5 lb.)", "The U.S. team didn't weigh it."],
        ),
        (["The price of it was $ 5 , or 10 % ; cheap"], ["The price of it was $5, or 10%; cheap"]),
        (["A line with an <unk> word in it ."], []),
        (["1 2 3 4 5 6 . . ."], []),
        ([" = = Long Heading of a Page = = "], []),
        (["w " * 61 + "."], []),
        (["w " * 59 + "w."], ["w " * 59 + "w."]),
        (["Three words only .", ""], []),
    ],
)
def test_wikitext_is_cut_and_joined_as_people_write(lines, expected):
    assert wiki_sentences(lines) == expected


def test_what_was_downloaded_is_recorded(hub, tmp_path):
    download("beir-scifact", tmp_path)
    download("wiki", tmp_path)
    content = json.loads((tmp_path / SOURCES).read_text("utf-8"))
    assert list(content["files"]) == sorted(files_below(tmp_path), key=str)[1:]
    entry = content["files"]["wiki/wikitext2-sentences.txt"]
    digest = hashlib.sha256((tmp_path / "wiki/wikitext2-sentences.txt").read_bytes()).hexdigest()
    assert abs((date.fromisoformat(entry.pop("date")) - date.today()).days) <= 1
    assert entry == {
        "set": "wiki",
        "hub_id": "Salesforce/wikitext",
        "config": "wikitext-2-raw-v1",
        "splits": ["validation", "test"],
        "revision": None,
        "licence": "CC BY-SA 3.0 and GFDL",
        "rows": 2,
        "sha256": digest,
    }
    revision = content["files"]["retrieval/scifact/qrels.tsv"]["revision"]
    assert revision == public_set("beir-scifact").files[2].revision


def test_another_revision_is_asked_for_and_recorded(hub, tmp_path):
    download("wiki", tmp_path, revision="refs/pr/1")
    assert {call[3]["revision"] for call in hub["calls"]} == {"refs/pr/1"}
    content = json.loads((tmp_path / SOURCES).read_text("utf-8"))
    assert content["files"]["wiki/wikitext2-sentences.txt"]["revision"] == "refs/pr/1"
    with pytest.raises(InputError, match=r"'sts' is made from 7 data sets of the hub \(mteb/sts12"):
        download("sts", tmp_path, revision="refs/pr/1")


# --- what is in the way -------------------------------------------------------------------------


def test_the_same_file_may_be_there(hub, tmp_path):
    first = download("nli", tmp_path)
    times = [file.stat().st_mtime_ns for file in first]
    assert download("nli", tmp_path) == first
    assert [file.stat().st_mtime_ns for file in first] == times


def test_a_different_file_is_not_replaced_unless_asked(hub, tmp_path):
    (tmp_path / "nli").mkdir()
    own = tmp_path / "nli/all-nli-triplets.csv"
    own.write_text("mine")
    message = (
        r"In '.*' nli/all-nli-triplets\.csv is already there with other content\. Nothing was "
        r"written\. Give another folder, move them away, or overwrite them \(--overwrite\)\."
    )
    with pytest.raises(InputError, match=message):
        download("nli", tmp_path)
    assert files_below(tmp_path) == ["nli/all-nli-triplets.csv"]
    assert own.read_text() == "mine"
    download("nli", tmp_path, overwrite=True)
    assert len(read_triplets(own)) == 5


@pytest.mark.parametrize(
    ("name", "key", "change", "message"),
    [
        (
            "sts",
            ("mteb/sts14-sts", None, "test"),
            pairs_of(4).to_dict("list"),
            r"'mteb/sts14-sts', split 'test', has 4 rows, not 5: the hub's data set has changed",
        ),
        (
            "sts",
            ("mteb/sts14-sts", None, "test"),
            pairs_of(5).rename(columns={"score": "label"}).to_dict("list"),
            r"'mteb/sts14-sts', split 'test', has the columns \['sentence1', 'sentence2', "
            r"'label'\]; score is missing\..*CSV with the columns sentence1, sentence2, score\)",
        ),
        (
            "sts",
            ("mteb/sts14-sts", None, "test"),
            pairs_of(5, high=100.0).to_dict("list"),
            r"'sts/sts14\.csv', row 2: the score is 25; this set has scores from 0 to 5",
        ),
        (
            "sts",
            ("mteb/sts14-sts", None, "test"),
            pairs_of(5, sentence2=["a", "b", "", "d", "e"]).to_dict("list"),
            r"'sts14\.csv', row 3: 'sentence2' is empty",
        ),
        (
            "wiki",
            ("Salesforce/wikitext", "wikitext-2-raw-v1", "test"),
            {"text": WIKI[:3]},
            r"'Salesforce/wikitext' \(wikitext-2-raw-v1\), split 'test', has 3 rows, not 5",
        ),
        (
            "beir-scifact",
            ("mteb/scifact", "queries", "queries"),
            {"_id": ["q1", "x", "y", "z"], "text": ["a", "b", "c", "d"]},
            r"'qrels\.tsv': 2 of 3 judgements name ids that are not in",
        ),
        (
            "beir-scifact",
            ("mteb/scifact", "default", "test"),
            {"query-id": ["q1"] * 3, "corpus-id": ["d1", "d2", "d3"], "score": [1, 1, 1]},
            r"'retrieval/scifact/queries\.jsonl' made from 'mteb/scifact' has 1 rows, not 2",
        ),
        (
            "beir-scifact",
            ("mteb/scifact", "corpus", "corpus"),
            {"id": ["d1"], "text": ["x"]},
            r"'mteb/scifact' \(corpus\), .*; _id, title are missing\..*a BEIR folder with corpus",
        ),
    ],
)
def test_another_data_set_than_expected_leaves_nothing(hub, tmp_path, name, key, change, message):
    hub[key] = change
    with pytest.raises(InputError, match=message):
        download(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_texts_than_expected_leave_nothing(hub, tmp_path, monkeypatch):
    (chosen,) = (found for found in shrunk() if found.name == "nli-simcse")
    file = dataclasses.replace(chosen.files[0], sha256="0" * 64)
    monkeypatch.setattr(public, "PUBLIC_SETS", (dataclasses.replace(chosen, files=(file,)),))
    message = r"'nli/simcse-triplets\.csv' made .* has SHA-256 [0-9a-f]{64}, not 0{64}: the hub's"
    with pytest.raises(InputError, match=message):
        download("nli-simcse", tmp_path)
    assert list(tmp_path.iterdir()) == []


def error_of(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def played_transport_error() -> Exception:
    """Return an error as httpx and httpx2 raise it: the hub's library changed from one to other."""
    base = type("TransportError", (Exception,), {})
    return type("ConnectError", (base,), {})("no route to host")


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach 'x' on the Hub (ConnectError)"),
            r"^'Salesforce/wikitext' is not on this machine and the Hugging Face hub cannot be "
            r"reached\. Try again with a network\. Or bring the files yourself \(text with one "
            r"sentence a line\): wiki/wikitext2-sentences\.txt and so on, in a folder that "
            r"LWAP_DATA names\.$",
        ),
        (
            ConnectionError("Couldn't reach 'x' on the Hub (OfflineModeIsEnabled)"),
            r"Try again with a network and without HF_HUB_OFFLINE, which forbids to use it\. Or b",
        ),
        (TimeoutError("timed out"), "the Hugging Face hub cannot be reached"),
        (played_transport_error(), "the Hugging Face hub cannot be reached"),
        (LocalEntryNotFoundError("not in the cache"), "the Hugging Face hub cannot be reached"),
        (
            DatasetNotFoundError("Dataset 'x' doesn't exist on the Hub or cannot be accessed."),
            r"The Hugging Face hub has no data set 'Salesforce/wikitext' that you may read\. Or b",
        ),
        (
            DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub. You must be auth…"),
            r"is gated: ask for access at https://huggingface\.co/datasets/Salesforce/wikitext, "
            r"then run `hf auth login`\.",
        ),
        (
            DatasetNotFoundError("Revision 'main' doesn't exist for dataset 'x' on the Hub."),
            r"'Salesforce/wikitext' has no revision 'None'\. Leave it out, or give another\.",
        ),
        (NO_SPACE, r"the disk of the hub's cache is full\. Make room, or .* with HF_HOME\."),
        (
            error_of(DatasetGenerationError("An error occurred"), NO_SPACE),
            r"the disk of the hub's cache is full",
        ),
        (
            ValueError("BuilderConfig 'x' not found. Available: ['y']\nmore"),
            r"split 'validation', cannot be loaded \(BuilderConfig 'x' not found\. Available: "
            r"\['y'\]\)\. Or bring",
        ),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), "found x.py"),
        (KeyError(), r"cannot be loaded \(KeyError\)\."),
    ],
)
def test_what_the_hub_raises_says_what_to_do(hub, tmp_path, error, message):
    hub["Salesforce/wikitext", "wikitext-2-raw-v1", "validation"] = error
    with pytest.raises(InputError, match=message) as raised:
        download("wiki", tmp_path)
    assert raised.value.__cause__ is error
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_real_library_says_so(tmp_path, monkeypatch):
    """Tests run with HF_HUB_OFFLINE=1; nothing here is played."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    message = r"^'mteb/sts12-sts' is not on this machine and .* without HF_HUB_OFFLINE, which forb"
    with pytest.raises(InputError, match=message):
        download("sts", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(hub, tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "a\0b"):
        with pytest.raises(
            InputError, match=r"cannot be written to: .*\. Give another folder; LWA"
        ):
            download("wiki", folder)
    assert hub["calls"] == []  # before anything is fetched


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NO_SPACE, r"The disk of '.*' is full; nothing was written\. Make room, or give another"),
        (PermissionError(errno.EACCES, "Permission denied"), "written to: Permission denied. Give"),
    ],
)
def test_a_disk_that_refuses_leaves_nothing(hub, tmp_path, monkeypatch, error, message):
    def refuse(self, *arguments, **options):
        raise error

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(InputError, match=message):
        download("nli", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_is_stopped_leaves_nothing(hub, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download("sts", tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []


# --- what was downloaded ------------------------------------------------------------------------


def test_files_are_verified(hub, tmp_path):
    assert verify_sources(tmp_path) == []
    download("nli", tmp_path)
    download("wiki", tmp_path)
    (tmp_path / "nli/all-nli-triplets.csv").write_text("other")
    (tmp_path / "wiki/wikitext2-sentences.txt").unlink()
    dev, triplets, wiki = verify_sources(str(tmp_path))
    assert re.fullmatch(
        r"nli/all-nli-dev-triplets\.csv: good, 5 rows of sentence-transformers/all-nli, \d{4}-.*",
        dev,
    )
    assert re.fullmatch(
        r"nli/all-nli-triplets\.csv: changed since \d{4}-\d\d-\d\d; moved away, `python -m lwap "
        r"data download nli` gets it again",
        triplets,
    )
    assert wiki == (
        "wiki/wikitext2-sentences.txt: missing; `python -m lwap data download wiki` gets it again"
    )
    (tmp_path / "nli/all-nli-triplets.csv").unlink()
    download("nli", tmp_path)
    assert sum(": good" in line for line in verify_sources(tmp_path)) == 2


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"format": 1, "files": {"x": {}}}', '{"format": 2, "files": {}}', "\xff"],
)
def test_a_damaged_record_is_an_error_before_the_download(hub, tmp_path, content):
    (tmp_path / SOURCES).write_bytes(content.encode("latin-1"))
    message = r"SOURCES\.json' is damaged or of another version\. Remove it \(the data stay\)"
    for use in (verify_sources, lambda folder: download("wiki", folder)):
        with pytest.raises(InputError, match=message):
            use(tmp_path)
    assert hub["calls"] == []
