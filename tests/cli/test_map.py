"""The command `map`: what it prints and writes, and how it refuses."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lwap import cli
from lwap.checkpoints.cached import CachedModel
from lwap.checkpoints.load import identify_encoder
from lwap.checkpoints.save import save_checkpoint
from lwap.datasets.readers import read_sentence_table
from lwap.encoding.diskcache import DiskCache
from lwap.projection.quality import quality
from lwap.projection.space import draw_maps, measure_labels, measure_spaces, neighbourhood_change
from tests.reports.test_report import Report

ROOT = Path(__file__).resolve().parents[2]
ASSET = pd.read_csv(ROOT / "assets/sentences.csv")[:36]
MEASURED = [*measure_labels(), "trustworthiness", "k-NN recall"]


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


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Sentences with labels, numbers and groups."""
    path = tmp_path_factory.mktemp("data") / "mine.csv"
    lengths = ASSET["sentence"].str.len().where(ASSET.index != 3)
    ASSET.assign(length=lengths).to_csv(path, index=False)
    return path


@pytest.fixture
def command(file, saved) -> list:
    return ["map", file, "--model", saved, "--method", "pca"]


@pytest.fixture
def by_hand(tiny_lwap_model, file):
    """Return a function that gives both spaces, their PCA maps, and what changed."""

    def by_hand(strategies=("mean", "lwap")) -> dict:
        table = read_sentence_table(file)
        source = CachedModel(tiny_lwap_model)
        spaces = measure_spaces(
            [source] * 2, strategies, table.sentences, positives=table.positives
        )
        maps = draw_maps(*spaces, "pca")
        return {
            "spaces": spaces,
            "maps": maps,
            "quality": [
                quality(space.unit, xy)
                for space, xy in zip(spaces, (maps.first, maps.second), strict=True)
            ],
            "change": neighbourhood_change(*spaces, table.sentences),
        }

    return by_hand


# --- what comes out -----------------------------------------------------------------------------


def test_json_holds_measures_and_change(run_json, command, by_hand):
    found, expected = run_json(*command), by_hand()
    assert (found["sentences"], found["method"], found["settings"]) == (36, "pca", {})
    assert [row["space"] for row in found["spaces"]] == ["mean", "lwap"]
    for row, space, measured in zip(
        found["spaces"], expected["spaces"], expected["quality"], strict=True
    ):
        assert list(row) == ["space", *MEASURED]
        numbers = [*space.numbers().values(), measured.trustworthiness, measured.knn_recall]
        assert [row[name] for name in MEASURED] == pytest.approx(numbers, rel=1e-3)
    assert found["spaces"][0]["alignment"] > 0  # from the column group
    change = expected["change"]
    assert found["neighbours_kept"] == pytest.approx(change["kept"].mean(), abs=0.01)
    assert len(found["changed_most"]) == 20
    assert list(found["changed_most"][0]) == ["sentence", "kept", "lost", "gained"]
    kept = [row["kept"] for row in found["changed_most"]]
    assert kept == sorted(kept) and kept[0] == pytest.approx(change["kept"].min(), abs=0.1)
    assert os.listdir() == []


def test_the_table_has_a_row_a_sentence(run, command, file, by_hand):
    printed, _ = run(*command, "--output", "map.csv")
    assert printed.endswith("Written: map.csv\n")
    found, table, expected = pd.read_csv("map.csv"), pd.read_csv(file), by_hand()
    assert list(found.columns) == [
        *("sentence", "topic", "register", "length"),
        *("first x", "first y", "first k-NN recall"),
        *("second x", "second y", "second k-NN recall"),
        *("movement", "neighbours kept"),
    ]
    for column in ("sentence", "topic", "register", "length"):
        assert found[column].equals(table[column])
    maps = expected["maps"]
    for side, coordinates in (("first", maps.first), ("second", maps.second)):
        places = found[[f"{side} x", f"{side} y"]].to_numpy()
        assert places == pytest.approx(coordinates, abs=1e-3)
    assert found["movement"].to_numpy() == pytest.approx(maps.moved, abs=1e-2)
    kept = expected["change"].sort_values("row")["kept"].to_numpy()
    assert np.abs(found["neighbours kept"] - kept).mean() < 0.01
    for side, measured in zip(("first", "second"), expected["quality"], strict=True):
        column = found[f"{side} k-NN recall"]
        assert column.mean() == pytest.approx(measured.knn_recall, abs=0.01)


def test_what_is_printed_is_what_json_says(run, run_json, command):
    printed, _ = run(*command, "-o", "map.csv", "-o", "map.html")
    found = run_json(*command)
    head, names, *rows = printed.split("\n\n")[0].splitlines()
    assert head == "36 sentences"
    assert re.split(r" {2,}", names.strip()) == MEASURED
    for line, row in zip(rows, found["spaces"], strict=True):
        assert line.split() == [row["space"], *(f"{row[name]:.3f}" for name in MEASURED)]
    share = f"{found['neighbours_kept']:.0%}"
    assert f"\n{share} of the 10 nearest neighbours are the same in both.\n" in printed
    assert printed.splitlines()[-2:] == ["Written: map.csv", "Written: map.html"]
    assert sorted(os.listdir()) == ["map.csv", "map.html"]


def test_the_page_is_whole_and_harmless(run, command, saved, own_place):
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    sentences = [nasty, "<b>bold</b> & more", *ASSET["sentence"][:10]]
    labels = [nasty, "", *["plain"] * 10]
    pd.DataFrame({"sentence": sentences, "kind": labels}).to_csv("nasty.csv", index=False)
    run("map", "nasty.csv", *command[2:], "--output", "map.html")
    html = Path("map.html").read_text("utf-8")
    report = Report(html)
    assert report.open == []
    for tag, attributes in report.tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert not {"src", "href", "srcset", "action"} & attributes.keys(), (tag, attributes)
    library, *drawings = report.inside("script")
    assert "plotly.js v" in library[:200] and len(library) > 1_000_000
    assert not any("://" in script.replace("https://plot.ly", "") for script in drawings)
    assert len(html) < 8_000_000
    assert "alert(1)" in html and "<script>alert" not in html and "<img" not in html[len(library) :]
    assert nasty in report.inside("td")
    assert len(report.figures) == 2
    assert report.inside("h1") == ["mean and lwap"]


@pytest.mark.parametrize(
    ("options", "colour"),
    [
        ([], "cooking"),  # the first label
        (["--colour", "register"], "casual"),
        (["--colour", "length"], "length"),
    ],
)
def test_a_column_colours_the_page(options, colour, run, command):
    run(*command, *options, "--output", "map.html")
    for figure in Report(Path("map.html").read_text("utf-8")).figures:
        assert colour in json.dumps(figure)
        assert ("casual" in json.dumps(figure)) == (colour == "casual")


def test_without_columns_the_change_colours_the_page(run, run_json, command, own_place):
    Path("plain.txt").write_text("\n".join(ASSET["sentence"][:9]), "utf-8")
    arguments = ["map", "plain.txt", *command[2:]]
    printed, _ = run(*arguments, "-o", "map.html")
    assert "Neighbours changed" in Path("map.html").read_text("utf-8")
    assert run_json(*arguments)["spaces"][0]["alignment"] is None
    assert printed.splitlines()[2].split()[2] == "–"


def test_one_strategy_is_compared_with_itself(run_json, run, command):
    found = run_json(*command, "--strategies", "layer_mean:1")
    first, second = found["spaces"]
    assert first == second and first["space"] == "layer_mean:1"
    assert found["neighbours_kept"] == 1
    assert {(row["lost"], row["gained"]) for row in found["changed_most"]} == {("", "")}
    run(*command, "--strategies", "cls", "cls", "-o", "map.csv")
    table = pd.read_csv("map.csv")
    assert (table["movement"] == 0).all()
    assert table["first x"].equals(table["second x"])


def test_two_models_are_compared(run, run_json, command, saved, tiny_encoder_folder, file):
    both = [*command, "--second-model", tiny_encoder_folder]
    found = run_json(*both, "--strategies", "lwap", "mean")
    assert [row["space"] for row in found["spaces"]] == [
        f"{saved} · lwap",
        f"{tiny_encoder_folder} · mean",
    ]
    # The plain encoder has no strategy of its own.
    default = run_json(*both)
    assert [row["space"].split(" · ")[1] for row in default["spaces"]] == ["mean", "cls"]
    again = run_json(*command, "--strategies", "mean", "lwap")
    for name in measure_labels():
        assert found["spaces"][1][name] == pytest.approx(again["spaces"][0][name], rel=1e-4)
    run(*both, "-o", "map.html")
    assert Report(Path("map.html").read_text("utf-8")).inside("h1") == [
        f"{saved} · mean and {tiny_encoder_folder} · cls"
    ]


def test_a_second_run_reads_the_cache_and_no_cache_writes_none(run_json, command, own_place):
    without = run_json(*command, "--no-cache")
    assert list((own_place / "cache").rglob("*.lwap")) == []
    first = run_json(*command)
    assert DiskCache().names("neighbours")
    again = run_json(*command)
    assert again == first
    for name in MEASURED:
        assert without["spaces"][1][name] == pytest.approx(first["spaces"][1][name], abs=0.01)


def test_a_umap_map_is_drawn_once(run_json, run, command, umap, monkeypatch):
    arguments = [*command[:-2], "--neighbours", 8, "--min-dist", 0.3, "--seed", 2]
    found = run_json(*arguments, "--output", "map.csv")
    assert found["method"] == "umap"
    assert found["settings"] == {"n_neighbors": 8, "min_dist": 0.3, "seed": 2}
    assert 0.5 < found["spaces"][0]["trustworthiness"] <= 1
    assert len(DiskCache().names("maps")) == 2
    assert [line[0] for line in umap.log()] == ["import", *["begin", "end"] * 2]
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("drawn again"))
    assert run_json(*arguments, "--output", "again.csv") == found
    assert Path("again.csv").read_bytes() == Path("map.csv").read_bytes()
    run(*arguments, "--output", "map.html")
    assert "In a UMAP map only nearness means something" in Path("map.html").read_text("utf-8")
    table = pd.read_csv("map.csv")
    radii = [
        np.sqrt(np.square(table[[f"{side} x", f"{side} y"]]).sum(axis=1).mean())
        for side in ("first", "second")
    ]
    assert radii[0] == pytest.approx(radii[1], rel=1e-3)
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        run(*arguments[:-1], 3, "--json")


# --- what is refused ----------------------------------------------------------------------------

OUT = ["-o", "map.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"Name a file: --output map\.html, or map\.csv for a table; or --json\."),
        (["-o", "map.png"], r"--output is 'map\.png'; it must end in \.html or \.csv"),
        ([*OUT, "-o", "map"], r"--output is 'map'; it must end in \.html or \.csv"),
        (["-o", "no/map.csv"], "'no/map.csv' cannot be written: there is no folder 'no'"),
        (
            [*OUT, "--colour", "mood"],
            r"--colour is 'mood'; '.*mine\.csv' has the columns topic, register, length\.",
        ),
        ([*OUT, "--neighbours", "1"], "n_neighbors is 1; it must be 2 to 200"),
        ([*OUT, "--neighbours", "201"], "n_neighbors is 201; it must be 2 to 200"),
        ([*OUT, "--min-dist", "1.5"], "min_dist is 1.5; it must be 0 to 1"),
        ([*OUT, "--min-dist", "nan"], "min_dist is nan; it must be 0 to 1"),
        ([*OUT, "--seed", "-1"], "seed is -1; it must be 0 to"),
        ([*OUT, "--method", "tsne"], "method is 'tsne'; it must be one of 'pca', 'umap'"),
        ([*OUT, "--strategies", "median"], "has no strategy 'median'. It has cls, mean"),
        ([*OUT, "--strategies", "a", "b", "c"], "3 strategies are named; a map compares one or"),
        ([*OUT, "--strategies", "mean", "mean+whiten"], "needs a corpus to fit the whitening on"),
        ([*OUT, "--strategies", "mean", "layer_cls:0"], "strategy 'layer_cls:0': All vectors of"),
        ([*OUT, "--model", "no/model"], "'no/model' is not on this machine"),
        ([*OUT, "--second-model", "no/model"], "'no/model' is not on this machine"),
        ([*OUT, "--device", "abacus"], "Device 'abacus' cannot be used here"),
        ([*OUT, "--precision", "fp8"], "precision is 'fp8'; it must be one of 'fp32'"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_used_is_refused_in_one_line(arguments, message, refused, command):
    assert re.search(message, refused(*command, *arguments))
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\ntwo\nthree\nfour\n", "A map needs 5 different sentences or more, not 4. Add some"),
        ("the same\n" * 40, "A map needs 5 different sentences or more, not 1"),
        ("\n\n", "'mine.txt' is empty"),
    ],
)
def test_too_few_sentences_are_refused(content, message, refused, command, own_place):
    (own_place / "mine.txt").write_text(content, "utf-8")
    for method in ("pca", "umap"):
        arguments = [
            "map",
            own_place / "mine.txt",
            *command[2:4],
            "--method",
            method,
            "-o",
            "m.csv",
        ]
        assert message in refused(*arguments)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "text1,text2\na,b\n", "'x.csv' has no column 'sentence'; it has"),
        ("x.xlsx", "sentence\na\n", "tables are read from .csv, .tsv, .jsonl, .parquet"),
        ("missing.csv", None, "There is no file 'missing.csv'"),
    ],
)
def test_files_without_sentences_are_refused(name, content, message, refused, command, own_place):
    if content is not None:
        Path(name).write_text(content, "utf-8")
    assert message in refused("map", name, *command[2:], *OUT)
    assert not Path("map.csv").exists()


def test_a_text_file_has_no_column_to_colour_by(refused, command, own_place):
    (own_place / "mine.txt").write_text("\n".join(ASSET["sentence"][:9]), "utf-8")
    message = refused("map", own_place / "mine.txt", *command[2:], *OUT, "--colour", "topic")
    assert re.search(r"--colour is 'topic'; '.*mine\.txt' has no other column\.", message)


def test_settings_are_refused_before_anything_is_encoded(refused, run, command, own_place):
    for arguments in (
        ["--method", "tsne"],
        ["--neighbours", "1"],
        ["--colour", "mood"],
        ["--strategies", "mean", "median"],
    ):
        refused(*command, *arguments, *OUT)
    kept = own_place / "cache" / "banks"  # all that is encoded
    assert not kept.exists()
    run(*command, *OUT)
    assert kept.exists()


def test_an_output_that_is_a_folder_is_refused(refused, command, own_place):
    Path("map.csv").mkdir()
    assert "'map.csv' cannot be written: Is a directory" in refused(*command, *OUT)


def test_a_number_that_is_none_is_refused_by_the_parser(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([str(part) for part in [*command, *OUT, "--neighbours", "many"]])
    assert exit_info.value.code == 2
    assert "invalid int value: 'many'" in capsys.readouterr().err


# --- help ---------------------------------------------------------------------------------------


def test_help_shows_examples_that_parse(capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["map", "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    examples = re.findall(r"^ +python -m (lwap .*)$", text, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        words = shlex.split(example)[1:]
        assert words[0] == "map"
        cli.parser().parse_args(words)


def test_the_file_of_the_example_can_be_mapped():
    """`assets/sentences.csv` is what the help and the page show: groups, labels, no repeats."""
    table = read_sentence_table(ROOT / "assets/sentences.csv")
    assert len(table) == len(pd.read_csv(ROOT / "assets/sentences.csv"))
    assert (table.repeated, table.empty) == (0, 0)
    assert list(table.labels) == ["topic", "register"] and table.numbers == {}
    assert len(table.positives) > 100
