"""The commands that measure, and cache and data: what they print and write, how they refuse."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from scipy import stats

import lwap
from lwap import cli
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.save import save_checkpoint
from lwap.datasets.public import PUBLIC_SETS, public_set
from lwap.datasets.readers import data_folder, read_retrieval
from lwap.datasets.tasks import available_tasks
from lwap.evaluation import geometry, retrieval
from lwap.evaluation.spaces import geometry_columns

ROOT = Path(__file__).resolve().parents[2]
PAIRS = pd.read_csv(ROOT / "assets/pairs.csv")
REAL_DATA = data_folder().resolve()  # before the tests name folders of their own
FEW = ["--resamples", "50"]
COMMANDS = (
    ["sts"],
    ["evaluate"],
    ["geometry"],
    ["retrieval"],
    ["cache"],
    ["cache", "show"],
    ["cache", "prune"],
    ["cache", "clear"],
    ["data"],
    ["data", "list"],
    ["data", "download"],
)


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch) -> Path:
    """Folders of the test's own for all that is read and written, and an empty working folder."""
    for name in ("CACHE", "CHECKPOINTS", "RUNS", "DATA"):
        monkeypatch.setenv(f"LWAP_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("LWAP_CACHE_GB", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture(scope="module")
def saved(tiny_lwap_model, tiny_encoder_folder, tmp_path_factory) -> Path:
    """A head on the tiny encoder. Do not change it."""
    return save_checkpoint(
        tiny_lwap_model,
        tmp_path_factory.mktemp("saved") / "tiny-head",
        name="tiny-head",
        **identify_encoder(str(tiny_encoder_folder)),
        training={},
        results={},
        card="# tiny-head\n",
    )


@pytest.fixture
def model(saved) -> list[str]:
    return ["--model", str(saved)]


@pytest.fixture(scope="module")
def vectors(tiny_lwap_model):
    """Return a function that gives embeddings of texts under a strategy, without any cache."""

    def vectors(texts, strategy: str) -> np.ndarray:
        return lwap.embed(lwap.encode_layers(tiny_lwap_model, list(texts)), strategy)

    return vectors


@pytest.fixture(scope="module")
def cosines(vectors):
    """Return a function that gives the cosine of each pair of a table, rounded."""

    def cosines(pairs: pd.DataFrame, strategy: str) -> np.ndarray:
        first, second = (
            vectors(pairs[side], strategy).astype(float) for side in ("sentence1", "sentence2")
        )
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        return ((first * second).sum(axis=1) / lengths).round(6)

    return cosines


@pytest.fixture(scope="module")
def tables(cosines) -> dict[str, pd.DataFrame]:
    """Small tasks by title. On the first, `mean` is perfect, so that others are worse for sure."""
    columns = ["sentence1", "sentence2", "score"]
    first = PAIRS[columns][:30].reset_index(drop=True)
    ranks = stats.rankdata(cosines(first, "mean"))
    subsets = {"subset": ["forum"] * 6 + ["news"] * 8}
    return {
        "STS-B": first.assign(score=((ranks - 1) / 29 * 5).round(3)),
        "STS12": PAIRS[columns][30:44].reset_index(drop=True).assign(**subsets),
        "STS13": PAIRS[columns][44:54].reset_index(drop=True),
    }


@pytest.fixture(scope="module")
def data(tables, tmp_path_factory) -> Path:
    """A data folder with three tasks; the last as the hub has it, without its subsets."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sts").mkdir()
    for title, name in {"STS-B": "stsb-test", "STS12": "sts12", "STS13": "sts13"}.items():
        tables[title].to_csv(folder / "sts" / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def sts(data, model) -> list:
    return ["sts", "--data", data, "--tasks", "stsb", "sts12", *FEW, *model]


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "cache").rglob("*.lwap"))


def by_name(rows: list[dict], *keys: str) -> dict:
    return {tuple(row[key] for key in keys): row for row in rows}


# --- sts: the numbers ---------------------------------------------------------------------------


def test_sts_gives_every_number_of_every_strategy(run_json, sts, data, tables, cosines, saved):
    found = run_json(*sts)
    rows = by_name(found["rows"], "task", "strategy", "aggregation")
    strategies = list(dict.fromkeys(row["strategy"] for row in found["rows"]))
    assert strategies == list(lwap.strategies(load(str(saved))))
    layers = {f"layer_{kind}:{state}" for kind in ("mean", "cls") for state in range(4)}
    assert layers | {"mean", "cls", "lwap"} <= set(strategies)
    assert len(rows) == len(found["rows"]) == 3 * len(strategies) * 3
    for row in found["rows"]:
        assert set(row) == {
            *("task", "model", "strategy", "aggregation", "spearman", "low", "high", "pairs")
        }
        assert row["pairs"] == {"STS-B": 30, "STS12": 14, "average": 44}[row["task"]]
        if row["strategy"] == "layer_cls:0":  # the same token in every sentence
            assert (row["spearman"], row["low"], row["high"]) == (None, None, None)
        else:
            assert -100 <= row["low"] <= row["high"] <= 100

    def expected(title: str, strategy: str, aggregation: str) -> float:
        pairs = tables[title].assign(cosine=cosines(tables[title], strategy))
        parts = [pairs]
        if aggregation != "all" and "subset" in pairs:
            parts = [part for _, part in pairs.groupby("subset")]
        each = [100 * stats.spearmanr(part["cosine"], part["score"]).statistic for part in parts]
        return np.average(each, weights=[len(p) for p in parts] if aggregation == "wmean" else None)

    for strategy in ("mean", "lwap", "layer_mean:1", "max"):
        for aggregation in ("all", "mean", "wmean"):
            values = [expected(title, strategy, aggregation) for title in ("STS-B", "STS12")]
            for task, value in zip(
                ("STS-B", "STS12", "average"), [*values, sum(values) / 2], strict=True
            ):
                row = rows[task, strategy, aggregation]
                assert row["spearman"] == pytest.approx(value, abs=1e-6), (task, aggregation)
    sums = {kind: rows["STS12", "lwap", kind]["spearman"] for kind in ("all", "mean", "wmean")}
    assert len(set(sums.values())) == 3

    files = {"STS-B": "stsb-test.csv", "STS12": "sts12.csv"}
    assert found["data_sha256"] == {
        title: hashlib.sha256((data / "sts" / name).read_bytes()).hexdigest()
        for title, name in files.items()
    }
    assert found["trained_with"] == {str(saved): "lwap"}
    assert (found["seed"], found["resamples"], found["precision"]) == (0, 50, "fp32")
    assert found["encoder"] == json.loads((saved / "lwap.json").read_text("utf-8"))["encoder"]["id"]
    assert found["versions"]["lwap"] == lwap.__version__
    assert any("30 pairs; the published STS-B has 1379" in note for note in found["notes"])


def test_only_the_named_strategies_are_scored(run_json, sts):
    found = run_json(*sts, "--strategies", "layer_mean:3", "mean", "layer_mean:3", "--seed", 7)
    assert found["seed"] == 7
    for rows in (found["rows"], found["differences"]):
        assert list(dict.fromkeys(row["strategy"] for row in rows)) == ["layer_mean:3", "mean"]
    values = by_name(found["rows"], "task", "strategy", "aggregation")
    assert values["STS12", "mean", "all"]["spearman"] == pytest.approx(
        values["STS12", "layer_mean:3", "all"]["spearman"]
    )


def table_of(printed: str, names: list[str]) -> dict[str, tuple[list[str], str]]:
    """Return by label the cells and the interval of the printed grid."""
    head, *lines = printed.split("\n\n")[0].splitlines()[1:]
    assert re.split(r" {2,}", head.strip()) == [*names, f"95 % of {names[-1]}"]
    rows = {}
    for line in lines:
        if line.startswith("* "):
            continue
        label, *cells = re.split(r" {2,}", line.rstrip())
        interval = cells.pop() if cells[-1].startswith("[") else ""
        rows[label] = cells, interval
    return rows


@pytest.mark.parametrize("aggregation", ["all", "mean", "wmean"])
def test_the_printed_table_says_what_json_says(aggregation, run, run_json, sts):
    names = ["STS-B", "STS12", "average"]
    strategies = ["cls", "mean", "layer_cls:0", "lwap"]
    arguments = [*sts, "--strategies", *strategies, "--aggregation", aggregation]
    printed, errors = run(*arguments)
    assert printed.startswith(f"Spearman × 100, aggregation '{aggregation}', higher is better\n")
    assert "\n* the best of its column, or not significantly worse (paired boot" in printed
    assert errors.count("Note: ") == errors.count("\n") == 2
    found = run_json(*arguments)
    rows = by_name(found["rows"], "task", "strategy", "aggregation")
    printed_rows = table_of(printed, names)
    assert list(printed_rows) == strategies
    for strategy, (cells, interval) in printed_rows.items():
        for task, cell in zip(names, cells, strict=True):
            value = rows[task, strategy, aggregation]["spearman"]
            assert cell.rstrip("*") == ("–" if value is None else f"{value:.2f}")
        ends = rows["average", strategy, aggregation]
        shown = "" if ends["low"] is None else f"[{ends['low']:.2f}, {ends['high']:.2f}]"
        assert interval == shown
    if aggregation == "all":  # the differences in the JSON, each to the best of its task
        for row in found["differences"]:
            cell = printed_rows[row["strategy"]][0][names.index(row["task"])]
            assert cell.endswith("*") == (not row["significant"] and cell != "–")
        assert [printed_rows[name][0][0][-1] for name in strategies] != ["*"] * 4
        assert printed_rows["mean"][0][0] == "100.00*"


def test_differences_to_a_baseline_and_the_cost_of_another_pooling(run, run_json, sts, saved):
    arguments = [*sts, "--strategies", "mean", "lwap", "layer_cls:0", "cls", "--baseline", "lwap"]
    printed, _ = run(*arguments)
    found = run_json(*arguments)
    lines = printed.split("\nDifference to lwap on average, p adjusted by Holm\n")[1].split("\n\n")
    average = by_name([row for row in found["differences"] if row["task"] == "average"], "strategy")
    shown = {line.split()[0]: line for line in lines[0].splitlines()}
    assert list(shown) == ["mean", "cls"]  # not the baseline, nor what is undefined
    for name, line in shown.items():
        row = average[name,]
        assert (row["baseline"], type(row["significant"])) == ("lwap", bool)
        p_value = "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
        assert line.split(maxsplit=1)[1] == (
            f"{row['difference']:+.2f}  [{row['low']:+.2f}, {row['high']:+.2f}]  p {p_value}"
        )
    title, *rows = lines[1].splitlines()
    assert title == f"{saved} was trained with lwap. Read with another pooling it loses:"
    costs = by_name(found["mismatch"], "strategy")
    assert [row.split()[0] for row in rows] == ["mean", "layer_cls:0", "cls"][::2]
    for line in rows:
        row = costs[line.split()[0],]
        mark = "" if row["significant"] else "  (not significant)"
        assert line.split(maxsplit=1)[1] == (
            f"{row['cost']:.2f}  [{row['low']:.2f}, {row['high']:.2f}]{mark}"
        )
        value = average[row["strategy"],]["difference"]
        assert row["cost"] == pytest.approx(-value)
    assert "--baseline" not in printed and "Difference" not in run(*arguments[:-2])[0]


def test_one_task_and_one_strategy_need_no_comparison(run, data, model):
    printed, _ = run(
        *("sts", "--data", data / "sts", "--tasks", "stsb", *FEW, "--strategies", "cls"), *model
    )
    assert list(table_of(printed, ["STS-B"])) == ["cls"]
    assert "not significantly worse" not in printed and "average" not in printed
    assert re.search(r"^  STS-B: 30 pairs, SHA-256 [0-9a-f]{16}…$", printed, re.MULTILINE)


def test_hidden_subsets_leave_gaps_not_guesses(run, run_json, data, model):
    arguments = ["sts", "--data", data, "--tasks", "stsb", "sts13", "--strategies", "mean", "cls"]
    arguments += [*FEW, *model]
    printed, errors = run(*arguments, "--aggregation", "mean")
    for cells, interval in table_of(printed, ["STS-B", "STS13", "average"]).values():
        assert cells[1:] == ["–", "–"] and interval == ""
    assert "STS13: No subset names (STS13 has 3 subsets" in errors
    found = run_json(*arguments)
    assert {row["aggregation"] for row in found["rows"] if row["task"] != "STS-B"} == {"all"}


# --- sts: files, cache, several models ----------------------------------------------------------


def test_results_are_written_in_every_format(run, run_json, sts):
    outputs = ["r.csv", "r.parquet", "r.json", "r.md", "r.tex"]
    arguments = [*sts, "--strategies", "mean", "lwap", "layer_cls:0"]
    flags = [part for name in outputs for part in ("--output", name)]
    printed, _ = run(*arguments, *flags)
    assert printed.splitlines()[-5:] == [f"Written: {name}" for name in outputs]
    assert sorted(os.listdir()) == sorted(outputs)
    found = run_json(*arguments)
    assert json.loads(Path("r.json").read_text("utf-8")) == found
    expected = pd.DataFrame(found["rows"])
    pd.testing.assert_frame_equal(pd.read_csv("r.csv"), expected, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet("r.parquet"), expected, check_dtype=False)
    facts = json.loads(parquet.read_schema("r.parquet").metadata[b"lwap"])
    assert facts == {key: value for key, value in found.items() if key in facts}
    assert {"data_sha256", "encoder", "versions", "seed", "trained_with"} <= facts.keys()
    assert "| `layer_cls:0` | – | – | – | – |" in Path("r.md").read_text("utf-8")
    assert r"\texttt{layer\_cls:0} & – & – & – & – \\" in Path("r.tex").read_text("utf-8")
    assert "STS12" not in run(*arguments[:4], "stsb", *arguments[6:], "--aggregation", "mean")[0]


@pytest.mark.slow
def test_a_second_run_is_equal_and_needs_neither_model_nor_torch(run, sts, own_place):
    texts = [f"{first} {second}" for first in "abcdefgh" for second in "abcdefgh"]
    scored = [PAIRS["sentence1"][0], PAIRS["sentence1"][1]]
    Path("corpus.txt").write_text("\n".join([*texts, *scored]), "utf-8")
    arguments = [*sts, "--strategies", "mean", "lwap", "mean+whiten", "--whiten-on", "corpus.txt"]
    first = run(*arguments, "--json")
    assert "2 sentences of 'corpus.txt' are also scored" in first[0]
    assert entries(own_place)
    assert run(*arguments, "--json") == first
    (own_place / "torch.py").write_text("raise ImportError('torch was imported')")
    done = subprocess.run(
        [sys.executable, "-m", "lwap", *map(str, arguments), "--json"],
        env={**os.environ, "PYTHONPATH": f"{own_place}{os.pathsep}{ROOT}"},
        capture_output=True,
        timeout=120,
    )
    assert (done.stdout.decode(), done.stderr.decode()) == first


def damage(files: list[Path]) -> None:
    for file in files:
        content = bytearray(file.read_bytes())
        content[-5] ^= 0xFF
        file.write_bytes(content)


def test_without_cache_nothing_is_read_or_written(run, sts, own_place):
    arguments = [*sts, "--strategies", "mean", "--json"]
    first = run(*arguments, "--no-cache")
    assert entries(own_place) == []
    assert run(*arguments) == first
    damage(entries(own_place))  # who reads one says so, and removes it
    damaged = {file: file.read_bytes() for file in entries(own_place)}
    assert damaged and run(*arguments, "--no-cache") == first
    assert {file: file.read_bytes() for file in entries(own_place)} == damaged


def test_a_damaged_entry_changes_no_number(run, sts, own_place):
    arguments = [*sts, "--strategies", "mean", "lwap"]
    first, notes = run(*arguments)
    damaged = entries(own_place)
    assert {file.relative_to(own_place / "cache").parts[0] for file in damaged} == {
        *("banks", "draws", "facts", "scores")
    }
    damage(damaged)
    again, errors = run(*arguments)
    assert again == first
    added = [line for line in errors.splitlines() if line not in notes.splitlines()]
    assert len(added) == len(damaged)
    assert all(line.startswith("Note: A damaged entry of the cache was removed") for line in added)
    assert run(*arguments) == (first, notes)


def test_two_models_stand_side_by_side(run, run_json, sts, saved, make_encoder):
    other = str(make_encoder("bert", seed=1))
    arguments = [*sts[:-2], "--strategies", "mean", "lwap", "--model", str(saved), other]
    printed, _ = run(*arguments, "--output", "t.tex", "--output", "t.md")
    labels = [f"{saved} · mean", f"{saved} · lwap", f"{other} · mean"]
    assert list(table_of(printed, ["STS-B", "STS12", "average"])) == labels
    found = run_json(*arguments, "--baseline", labels[2])
    rows = by_name(found["rows"], "task", "model", "strategy", "aggregation")
    assert found["model"] == [str(saved), other]
    assert {key[1:3] for key in rows} == {
        (str(saved), "mean"),
        (str(saved), "lwap"),
        (other, "mean"),
    }
    values = [rows["STS12", name, "mean", "all"]["spearman"] for name in (str(saved), other)]
    assert values[0] != values[1]
    assert {row["baseline"] for row in found["differences"]} == {labels[2]}
    encoders = found["encoder"]
    assert encoders.keys() == {str(saved), other}
    words = f"encoder {encoders[str(saved)]} ({saved}), {other} ({other}), fp32"
    assert words in printed and words in Path("t.md").read_text("utf-8")
    assert r"\{" not in Path("t.tex").read_text("utf-8")


def test_geometry_beside_sts(run, run_json, sts):
    arguments = [*sts, "--strategies", "mean", "layer_cls:0", "--geometry", "--seed", 3]
    found = run_json(*arguments)
    assert [entry["data"] for entry in found["geometry"]] == ["STS-B", "STS12"]
    assert [entry["seed"] for entry in found["geometry"]] == [3, 3]
    for entry in found["geometry"]:
        expected = run_json(
            *("geometry", "--data", sts[2], "--task", entry["data"].lower().replace("-", "")),
            *("--strategies", "mean", "layer_cls:0", "--seed", 3, *sts[-2:]),
        )
        assert entry == expected
    printed, _ = run(*arguments)
    assert len(re.findall(r"sentences of (STS-B|STS12), alignment over \d+ pairs", printed)) == 2


def test_long_names_keep_their_columns(run, tables, model):
    names = ["a_name_of_many_letters", "another_name_of_many"]
    for name, title in zip(names, ("STS-B", "STS12"), strict=True):
        tables[title].to_csv(f"{name}.csv", index=False)
    files = [f"{name}.csv" for name in names]
    printed, _ = run("evaluate", *files, "--strategies", "mean", "cls", *FEW, *model)
    assert list(table_of(printed, [*names, "average"])) == ["mean", "cls"]
    lines = printed.splitlines()[1:4]
    for name in names:
        end = lines[0].index(name) + len(name)
        assert all(re.fullmatch(r"\d\.\d\d", line[end - 4 : end]) for line in lines[1:])


@pytest.mark.shared_data
@pytest.mark.slow
def test_the_bundled_encoder_on_sts_b(run):
    if "stsb" not in available_tasks(REAL_DATA):
        pytest.skip("stsb-test.csv is not there; LWAP_DATA names the data folder")
    named = ["--strategies", "mean", "--model", "all-MiniLM-L6-v2", *FEW]
    printed, errors = run("sts", "--data", REAL_DATA / "sts", "--tasks", "stsb", *named)
    assert all(line.startswith("Note: STS-B: ") for line in errors.splitlines())
    ((value,), _) = table_of(printed, ["STS-B"])["mean"]
    assert float(value.rstrip("*")) == pytest.approx(82.03, abs=0.02)


# --- whitening ----------------------------------------------------------------------------------


def test_whitening_needs_a_corpus_and_says_which(run_json, refused, sts, tables, cosines, vectors):
    texts = [f"{first} {second}" for first in "abcdefgh" for second in "abcdefgh"]
    Path("corpus.txt").write_text("\n".join(texts), "utf-8")
    strategies = ["--strategies", "mean", "mean+whiten"]
    found = run_json(*sts, *strategies, "--whiten-on", "corpus.txt")
    assert found["whiten_on"] == "corpus.txt"
    fitted = vectors(texts, "mean").astype(float)
    centred = fitted - fitted.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / (len(texts) - 1))
    kept = values > 1e-8 * values.max()
    matrix = axes[:, kept] / np.sqrt(values[kept])
    first, second = (
        (vectors(tables["STS12"][side], "mean") - fitted.mean(axis=0)) @ matrix
        for side in ("sentence1", "sentence2")
    )
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    whitened = (first * second).sum(axis=1) / lengths
    expected = 100 * stats.spearmanr(whitened, tables["STS12"]["score"]).statistic
    rows = by_name(found["rows"], "task", "strategy", "aggregation")
    assert rows["STS12", "mean+whiten", "all"]["spearman"] == pytest.approx(expected, abs=0.5)
    assert abs(expected - rows["STS12", "mean", "all"]["spearman"]) > 1

    assert "needs a corpus to fit the whitening on" in refused(*sts, *strategies)
    assert "--whiten-on has no effect" in refused(*sts, "--whiten-on", "corpus.txt")
    same = tables["STS-B"]["sentence1"]
    Path("same.txt").write_text("\n".join(same), "utf-8")
    assert "needs more than 32 distinct sentences; 'same.txt' has 0" in refused(
        *sts, *strategies, "--whiten-on", "same.txt"
    )


# --- evaluate -----------------------------------------------------------------------------------


def test_evaluate_scores_own_files(run, run_json, tables, cosines, model):
    for name, title in {"mine": "STS12", "theirs": "STS13"}.items():
        tables[title].to_csv(f"{name}.csv", index=False)
    arguments = ["evaluate", "mine.csv", "theirs.csv", "--strategies", "lwap", "mean", *FEW]
    found = run_json(*arguments, "--geometry", "--range", "0", "5", *model)
    rows = by_name(found["rows"], "task", "strategy", "aggregation")
    assert list(found["data_sha256"]) == ["mine", "theirs"]
    for name, title in {"mine": "STS12", "theirs": "STS13"}.items():
        pairs = tables[title]
        expected = 100 * stats.spearmanr(cosines(pairs, "lwap"), pairs["score"]).statistic
        assert rows[name, "lwap", "all"]["spearman"] == pytest.approx(expected, abs=1e-6)
    assert ("mine", "lwap", "wmean") in rows and ("theirs", "lwap", "mean") in rows
    assert [entry["data"] for entry in found["geometry"]] == ["mine", "theirs"]
    assert found["notes"] == []
    assert list(table_of(run(*arguments, *model)[0], ["mine", "theirs", "average"])) == [
        *("lwap", "mean")
    ]


def test_repeated_pairs_are_noted(run, tables, model):
    table = tables["STS13"]
    swapped = table[:1].rename(columns={"sentence1": "sentence2", "sentence2": "sentence1"})
    pd.concat([table, table[:2], swapped.assign(score=4.75)]).to_csv("twice.csv", index=False)
    printed, errors = run("evaluate", "twice.csv", "--strategies", "mean", *FEW, *model)
    assert "13 pairs; encoder" in printed
    assert errors.splitlines() == [
        "Note: twice: 3 of 13 pairs repeat an earlier one (first: row 11 repeats row 1); each row "
        "counts.",
        "Note: twice: 1 of these have another score than before (first: row 13 has 4.75, row 1 has "
        f"{table['score'][0]:g}): no model can fit both.",
    ]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"score": ["", *"1234"]}, [], "row 1: 'score' is ''; scores are numbers"),
        ({"score": [*"1234", "nan"]}, [], "row 5: 'score' is 'nan'; scores are numbers"),
        ({"score": ["inf", *"1234"]}, [], "row 1: 'score' is 'inf'; scores are numbers"),
        ({"score": [*"123", "four", "5"]}, [], "row 4: 'score' is 'four'; scores are numbers"),
        ({"score": [3] * 5}, [], "All 5 pairs of 'mine' have the same score (3)"),
        ({"score": range(5)}, ["--range", "0", "3"], "row 5: the score is 4; this set has scores"),
        ({"score": range(5)}, ["--range", "3", "0"], "--range is 3 0; give the lowest score, then"),
        ({"score": range(5)}, ["--range", "0", "nan"], "--range is 0 nan; give the lowest score"),
        ({"sentence2": ["a", "b", " ", "c", "d"]}, [], "row 3: 'sentence2' is empty"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(change, options, message, refused, model):
    table = {"sentence1": list("abcde"), "sentence2": list("fghij"), "score": range(5)}
    pd.DataFrame(table | change).to_csv("mine.csv", index=False)
    assert message in refused("evaluate", "mine.csv", *options, *model)


def test_files_that_cannot_be_scored_are_refused(refused, tables, model):
    table = tables["STS13"]
    table[:2].to_csv("two.csv", index=False)
    assert "'two' has 2 scored pairs; a rank correlation needs at least 3" in refused(
        "evaluate", "two.csv", *model
    )
    table.drop(columns="score").to_csv("unscored.csv", index=False)
    assert "no column 'score'; it has ['sentence1', 'sentence2']. Accepted names: score" in refused(
        "evaluate", "unscored.csv", *model
    )
    table.rename(columns={"sentence1": "left"}).to_csv("named.csv", index=False)
    assert "no column 'sentence1'" in refused("evaluate", "named.csv", *model)
    assert "There is no file 'nowhere.csv'" in refused("evaluate", "nowhere.csv", *model)
    assert "ends in '.txt'; tables are read from .csv" in refused(
        "evaluate", str(Path("mine.txt").write_text("a") and "mine.txt"), *model
    )
    table.to_csv("average.csv", index=False)
    table.to_csv("good.csv", index=False)
    assert "Two tasks are called 'good'" in refused("evaluate", "good.csv", "good.csv", *model)
    assert "'average' is what the mean over all files is called. Rename" in refused(
        "evaluate", "good.csv", "average.csv", *model
    )


# --- geometry -----------------------------------------------------------------------------------


def test_geometry_prints_writes_and_returns_the_same(run, run_json, data, tables, vectors, model):
    names = ["mean", "layer_cls:0", "first_last_mean"]
    arguments = ["geometry", "--data", data, "--task", "stsb", "--strategies", *names, *model]
    found = run_json(*arguments, "--output", "g.csv")
    assert [row["strategy"] for row in found["rows"]] == names
    pairs = tables["STS-B"]
    texts = list(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))
    rows = [texts.index(text) for text in pairs["sentence1"]]
    others = [texts.index(text) for text in pairs["sentence2"]]
    good = np.column_stack([rows, others])[pairs["score"] >= 4]
    expected = geometry.measure(vectors(texts, "mean"), good)
    row = found["rows"][0]
    assert row["alignment"] == pytest.approx(expected.alignment, rel=1e-4)
    assert row["uniformity"] == pytest.approx(expected.uniformity.value, rel=1e-4)
    assert row["isoscore"] == pytest.approx(expected.isoscore, rel=1e-4)
    assert (found["sentences"], found["positives"], found["positive_at"]) == (
        *(len(texts), len(good), 4.0),
    )
    assert found["is_exact"] is True and found["data"] == "STS-B"
    assert set(row) == {"strategy", *geometry_columns()}
    # The same vector for every sentence has no geometry; 0 would be a perfect alignment.
    assert {found["rows"][1][name] for name in geometry_columns()} == {None}
    pd.testing.assert_frame_equal(
        pd.read_csv("g.csv"),
        pd.DataFrame(found["rows"]).astype({name: float for name in geometry_columns()}),
    )
    printed, errors = run(*arguments, "--output", "g.csv")
    assert errors.startswith("Note: STS-B: 30 pairs; the published STS-B has 1379")
    title, head, *lines = printed.splitlines()
    assert title.endswith(
        f" on {len(texts)} sentences of STS-B, alignment over {len(good)} pairs with a score of 4 "
        "or more"
    )
    assert re.split(r" {2,}", head.strip()) == [
        *("alignment ↓", "uniformity ↓", "cosine →0", "eff. rank ↑", "IsoScore ↑")
    ]
    assert lines[0].split() == [
        "mean",
        *(f"{row[name]:.3f}" for name in ("alignment", "uniformity", "mean_random_cosine")),
        f"{row['effective_rank']:.1f}",
        f"{row['isoscore']:.3f}",
    ]
    assert lines[1].split() == ["layer_cls:0", *"–––––"]
    assert lines[-1] == "Written: g.csv"


def test_geometry_of_a_file_of_ones_own(run, run_json, tables, model):
    texts = [f"{first} {second}" for first in "abcdefgh" for second in "abcdefgh"]
    Path("corpus.txt").write_text("\n".join(texts), "utf-8")
    tables["STS12"].to_csv("mine.csv", index=False)
    arguments = ["geometry", "mine.csv", "--positive-at", 3, *model]
    assert len(run_json(*arguments)["rows"]) == 17
    arguments += ["--strategies", "mean", "first_last_mean+whiten", "--whiten-on", "corpus.txt"]
    found = run_json(*arguments)
    assert found["data"] == "mine"
    assert found["positives"] == (tables["STS12"]["score"] >= 3).sum()
    lines = run(*arguments)[0].splitlines()[1:]
    assert len({len(line) for line in lines}) == 1  # a long name moves no column


# --- retrieval ----------------------------------------------------------------------------------


@pytest.fixture
def beir() -> Path:
    """A BEIR folder in the working folder: 20 documents, one of them empty and one too long."""
    folder = Path("search")
    folder.mkdir()
    texts = [*PAIRS["sentence2"][:18], "", "word " * 100]
    documents = [{"_id": f"d{row}", "title": "", "text": text} for row, text in enumerate(texts)]
    queries = [{"_id": f"q{row}", "text": PAIRS["sentence1"][row]} for row in range(7)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    judged = [(f"q{row}", f"d{row}", 1) for row in range(6)]
    judged += [("q0", "d9", 2), ("q1", "d18", 1), ("q2", "d11", 0)]
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judged)]
    (folder / "qrels.tsv").write_text("\n".join(lines), "utf-8")
    return folder


def test_retrieval_is_that_of_embeddings_by_hand(
    run, run_json, beir, vectors, model, tiny_lwap_model
):
    arguments = ["retrieval", beir, "--strategies", "lwap", "layer_mean:1", *model]
    found = run_json(*arguments, "--seed", 5, "--output", "r.csv")
    data = read_retrieval(beir)
    rows = by_name(found["rows"], "strategy", "measure")
    assert len(rows) == 8
    for strategy in ("lwap", "layer_mean:1"):
        documents, queries = vectors(data.documents, strategy), vectors(data.queries, strategy)
        unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, documents)]
        ranking = np.argsort(-(unit[0].astype(float) @ unit[1].T), axis=1, kind="stable")
        scores = retrieval.evaluate(ranking, data.relevance, depth=19, seed=5)
        for key, name in retrieval.MEASURES.items():
            row = rows[strategy, name]
            numbers = (row["value"], row["low"], row["high"])
            assert numbers == pytest.approx(tuple(vars(scores.means[key]).values())), name
            assert row["queries"] == 6
    assert rows["lwap", "MAP"]["value"] != rows["layer_mean:1", "MAP"]["value"]
    assert (found["documents"], found["depth"], found["data"]) == (19, 19, "search")
    cut = lwap.encode_layers(tiny_lwap_model, data.documents).is_truncated.sum()
    assert 1 <= cut < 19
    assert (found["truncated"], found["max_tokens"], found["seed"]) == (cut, 64, 5)
    pd.testing.assert_frame_equal(pd.read_csv("r.csv"), pd.DataFrame(found["rows"]))

    printed, errors = run(*arguments, "--seed", 5, "--output", "r.csv")
    title, head, *lines = printed.splitlines()
    assert title.endswith(" on search: 19 documents, 6 queries; MAP over the first 19")
    assert re.split(r" {2,}", head.strip()) == [
        *("nDCG@10", "MAP", "MRR@10", "Recall@100", "95 % of nDCG@10")
    ]
    for line, strategy in zip(lines, ("lwap", "layer_mean:1"), strict=False):
        values = [100 * rows[strategy, name]["value"] for name in retrieval.MEASURES.values()]
        ends = rows[strategy, "nDCG@10"]
        interval = f"[{100 * ends['low']:.2f}, {100 * ends['high']:.2f}]"
        assert line.split(maxsplit=5) == [strategy, *(f"{v:.2f}" for v in values), interval]
    assert lines[-1] == "Written: r.csv"
    assert errors.splitlines() == [
        "Note: 1 documents without text are left out.",
        "Note: 1 judgements name a document that is not there.",
        "Note: 1 queries without judgements are left out.",
        f"Note: {cut} of 19 documents are longer than the encoder's limit of 64 tokens; only their "
        "beginning was read.",
    ]


def test_a_folder_that_cannot_be_searched_is_refused(refused, beir, model):
    assert "There is no folder 'nowhere'" in refused("retrieval", "nowhere", *model)
    (beir / "corpus.jsonl").unlink()
    assert "'search' has no file corpus.jsonl. A retrieval folder holds" in refused(
        "retrieval", beir, *model
    )


# --- what is refused ----------------------------------------------------------------------------

STS = ["sts", "--data", "DATA", "--tasks", "stsb", "--strategies", "mean"]
GEOMETRY_OF = ["geometry", "--data", "DATA"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sts"], "There are no STS tasks in .* Name their folder .* or measure pairs of your own"),
        (["sts", "--data", "nowhere"], "There is no data folder 'nowhere'. .*data download sts"),
        (
            ["sts", "--data", "DATA"],
            r"'sts14.csv' of STS14 is not in .*choose among them with --tasks \(sts12, sts13, stsb",
        ),
        (["sts", "--data", "."], "No file of another task is there either: give another folder"),
        (
            ["sts", "--data", "DATA", "--tasks", "sts14"],
            "'sts14.csv' of STS14 is not in .* get the missing ones with `python -m lwap data down",
        ),
        (["sts", "--data", "DATA", "--tasks", "stsX"], "no STS task 'stsX'. Tasks: sts12, sts13"),
        ([*STS, "median"], "has no strategy 'median'. It has cls, mean, .*can end in '.whiten'"),
        ([*STS, "layer_mean:9"], "has no strategy 'layer_mean:9'. It has cls, mean"),
        ([*STS, "--baseline", "cls"], "--baseline is 'cls'; the strategies of this run are mean"),
        ([*STS, "--model", "a", "b", "c"], "3 models are named; compare one or two at a time"),
        ([*STS, "--model", "MODEL", "MODEL"], "is named twice. Compare two different models"),
        ([*STS, "--model", "no/model"], "'no/model' is not on this machine"),
        ([*STS, "--output", "o.xlsx"], "--output is 'o.xlsx'; it must end in .csv or .parquet"),
        ([*STS, "-o", "o.csv", "-o", "o"], "--output is 'o'; it must end in .csv or .parquet"),
        ([*STS, "--output", "no/o.csv"], "'no/o.csv' cannot be written: there is no folder 'no'"),
        ([*STS, "--resamples", "9"], "resamples is 9; it must be between 10 and 100,000"),
        ([*STS, "--seed", "-1"], "--seed is -1; it must be 0 or more"),
        ([*STS, "--precision", "fp8"], "precision is 'fp8'; it must be one of 'fp32'"),
        ([*STS, "--device", "abacus"], "Device 'abacus' cannot be used here"),
        ([*GEOMETRY_OF, "MINE", "--task", "stsb"], "Give either a file .* or --task, not both"),
        ([*GEOMETRY_OF, "--positive-at", "5.5"], "No pair of 'STS-B' has a score of 5.5 .*lower"),
        ([*GEOMETRY_OF, "--positive-at", "nan"], "No pair of 'STS-B' has a score of nan or more"),
        ([*GEOMETRY_OF, "--task", "nothing"], "no STS task 'nothing'. Tasks: sts12"),
        ([*GEOMETRY_OF, "--output", "g.json"], "--output is 'g.json'; it must end in .csv"),
        ([*GEOMETRY_OF, "--seed", "-1"], "--seed is -1"),
        (["retrieval", ".", "--output", "r.md"], "--output is 'r.md'; it must end in .csv"),
        (["retrieval", ".", "--seed", "-1"], "--seed is -1"),
        (["cache", "prune", "--limit", "-1"], "The limit is -1 GB; it must be 0 or more"),
        (["data", "download", "nothing"], "no public set 'nothing'. Sets: sts, nli"),
    ],
    ids=lambda value: " ".join(value[:1] + value[-2:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_used_is_refused_in_one_line(
    arguments, message, refused, data, saved, own_place
):
    names = {"DATA": data, "MODEL": saved, "MINE": data / "sts" / "stsb-test.csv"}
    arguments = [names.get(part, part) for part in arguments]
    if arguments[0] not in ("cache", "data") and "--model" not in arguments:
        arguments += ["--model", saved]
    assert re.search(message, refused(*arguments))
    assert os.listdir() == []


def test_an_output_that_is_a_folder_is_refused(refused, sts):
    for name in ("o.csv", "o.parquet", "o.json", "o.md"):
        Path(name).mkdir()
        message = refused(*sts, "--strategies", "mean", "--output", name)
        assert f"'{name}' cannot be written: " in message


def test_a_limit_that_is_no_number_is_refused(refused, sts, monkeypatch):
    monkeypatch.setenv("LWAP_CACHE_GB", "much")
    for arguments in (sts, ["cache", "show"]):
        assert "LWAP_CACHE_GB is 'much'; it must be a number of gigabytes" in refused(*arguments)


# --- cache --------------------------------------------------------------------------------------


def test_the_cache_is_shown_and_emptied(run, run_json, sts, own_place):
    assert run_json("cache", "show")["kinds"] == []
    run(*sts, "--strategies", "mean")
    others = own_place / "cache" / "banks" / "mine.safetensors"
    others.write_text("not ours")
    kinds = {entry["kind"]: entry for entry in run_json("cache", "show")["kinds"]}
    assert set(kinds) == {"banks", "draws", "facts", "scores"}
    assert kinds["draws"]["entries"] == 2
    total = sum(file.stat().st_size for file in entries(own_place))
    assert sum(entry["bytes"] for entry in kinds.values()) == total
    printed, _ = run("cache", "show")
    assert printed.startswith(f"{own_place / 'cache'}: 0.00 of 5 GB\n")
    assert re.search(r"^  draws +2 entries +\d+\.\d MB$", printed, re.MULTILINE)

    assert run_json("cache", "prune") == {"removed_bytes": 0}
    assert run_json("cache", "prune", "--limit", "1") == {"removed_bytes": 0}
    assert run_json("cache", "prune", "--limit", "0") == {"removed_bytes": total}
    assert entries(own_place) == []
    run(*sts, "--strategies", "mean")
    assert run("cache", "clear") == (f"Removed {total / 1e6:.1f} MB.\n", "")
    assert entries(own_place) == []
    assert others.read_text() == "not ours"
    assert (own_place / "cache" / "sha256.json").is_file()


def test_prune_removes_the_oldest_first(run, run_json, sts, own_place):
    run(*sts, "--strategies", "mean")
    files = entries(own_place)
    for age, file in enumerate(files):
        os.utime(file, (1e9 - age, 1e9 - age))
    kept = files[0]
    limit = (kept.stat().st_size + 1) / 1e9
    run_json("cache", "prune", "--limit", f"{limit:.12f}")
    assert entries(own_place) == [kept]


# --- data ---------------------------------------------------------------------------------------


def test_data_sets_are_listed(run, run_json, data):
    found = run_json("data", "list", "--folder", data)
    assert found["folder"] == str(data)
    assert found["sts"] == ["sts12", "sts13", "stsb"]
    assert [entry["name"] for entry in found["sets"]] == [entry.name for entry in PUBLIC_SETS]
    assert all(entry["licences"] and entry["hub_ids"] for entry in found["sets"])
    printed, _ = run("data", "list", "--folder", data)
    assert re.search(r"^  stsb +STS-B +there$", printed, re.MULTILINE)
    assert re.search(r"^  sickr +SICK-R +not there$", printed, re.MULTILINE)
    for entry in PUBLIC_SETS:
        assert re.search(rf"^  {entry.name} +{re.escape(entry.about)}  \[.+\]$", printed, re.M)
    assert run_json("data", "list")["sts"] == []  # LWAP_DATA is empty here


def test_a_set_is_downloaded_once(run, run_json, monkeypatch, own_place):
    lines = ["The crew saw many old boats . Nobody in the town knew why ."]

    def hub(*arguments, split, **options):
        count = dict(public_set("wiki").files[0].splits)[split]
        return datasets.Dataset.from_dict({"text": lines * count})

    monkeypatch.setattr(datasets, "load_dataset", hub)
    target = own_place / "data" / "wiki" / "wikitext2-sentences.txt"
    assert run("data", "download", "wiki") == (f"Written: {target}\n", "")
    assert target.read_text("utf-8").splitlines() == [
        *("The crew saw many old boats.", "Nobody in the town knew why.")
    ]
    found = run_json("data", "download", "wiki", "--folder", own_place / "other")
    assert found == {"files": [str(own_place / "other" / "wiki" / target.name)]}
    assert run_json("data", "list")["sources"][0].startswith(
        "wiki/wikitext2-sentences.txt: good, 2 rows of Salesforce/wikitext"
    )


def test_without_a_network_the_ways_out_are_named(refused, monkeypatch, own_place):
    def hub(*arguments, **options):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", hub)
    message = refused("data", "download", "sts")
    assert "is not on this machine and the Hugging Face hub cannot be reached" in message
    assert "Try again with a network" in message
    assert "Or bring the files yourself (CSV with the columns sentence1, sentence2, sco" in message
    assert "sts/sts12.csv" in message and "LWAP_DATA" in message
    assert list((own_place / "data").iterdir()) == []
    assert "one revision cannot be of all" in refused("data", "download", "sts", "--revision", "x")


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*command, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    examples = re.findall(r"^ +python -m (lwap .*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example)[1:]
        assert words[: len(command)] == command
        cli.parser().parse_args(words)


def test_an_action_must_be_named(capsys):
    for group in ("cache", "data"):
        with pytest.raises(SystemExit) as exit_info:
            cli.main([group])
        assert exit_info.value.code == 2
        assert "required: ACTION" in capsys.readouterr().err
