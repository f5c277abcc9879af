"""The command line: what each command prints and writes, and how it refuses."""

import argparse
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sentence_transformers import SentenceTransformer

import lwap
from lwap import cli
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.manifest import MANIFEST
from lwap.checkpoints.save import save_checkpoint
from lwap.cli import training
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.training import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
PAIRS = ROOT / "assets/pairs.csv"
COMMANDS = (
    [],
    ["encode"],
    ["compare"],
    ["explain"],
    ["train"],
    ["models"],
    ["models", "list"],
    ["models", "show"],
    ["models", "verify"],
    ["models", "rename"],
    ["models", "delete"],
    ["models", "import"],
)


@pytest.fixture(autouse=True)
def shelves(tmp_path, monkeypatch) -> Path:
    """A folder for shipped checkpoints and one for runs, both empty, and an own working folder."""
    for name in ("CHECKPOINTS", "RUNS"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(f"LWAP_{name}", str(folder))
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
        training={"epochs": 3},
        results={},
        card="# tiny-head\n\nA card: 79.0 ± 0.5.\n",
    )


@pytest.fixture
def model(saved) -> list[str]:
    return ["--model", str(saved)]


@pytest.fixture
def checkpoint(saved, shelves) -> Path:
    """A shipped checkpoint, to list and to damage."""
    return Path(shutil.copytree(saved, shelves / "checkpoints" / "tiny-head"))


@pytest.fixture
def sentences_file(tmp_path, sentences) -> Path:
    file = tmp_path / "sentences.txt"
    file.write_text("\n".join(sentences[:6]) + "\n\n", "utf-8")
    return file


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return pd.read_csv(PAIRS)[:12]


@pytest.fixture
def pairs_file(tmp_path, pairs) -> Path:
    file = tmp_path / "pairs.csv"
    pairs.to_csv(file, index=False)
    return file


@pytest.fixture
def triplets_file(tmp_path) -> Path:
    file = tmp_path / "triplets.csv"
    pairs = pd.read_csv(PAIRS)
    columns = {
        "sent0": pairs.sentence1,
        "sent1": pairs.sentence2,
        "hard_neg": pairs.sentence2[::-1].to_numpy(),
    }
    pd.DataFrame(columns)[:60].to_csv(file, index=False)
    return file


# --- encode -------------------------------------------------------------------------------------


def test_encode_writes_what_encode_gives(run, model, sentences_file, sentences, tiny_lwap_model):
    printed, errors = run("encode", sentences_file, "--output", "out.npy", *model)
    assert printed == "6 sentences × 32 under lwap -> out.npy\n"
    assert errors == ""
    expected = tiny_lwap_model.encode(sentences[:6])
    np.testing.assert_allclose(np.load("out.npy"), expected, atol=1e-6)


def test_encode_writes_several_strategies_with_their_sentences(
    run_json, model, saved, sentences_file, sentences, tiny_lwap_model
):
    names = ["mean", "layer_cls:2", "lwap", "mean"]
    found = run_json("encode", sentences_file, "-o", "out.npz", "--strategies", *names, *model)
    assert found == {
        "model": "tiny-head",
        "sentences": 6,
        "dimension": 32,
        "strategies": ["mean", "layer_cls:2", "lwap"],
        "truncated": 0,
        "max_tokens": 64,
        "output": "out.npz",
    }
    bank = lwap.encode_layers(tiny_lwap_model, sentences[:6])
    with np.load("out.npz", allow_pickle=False) as file:
        assert set(file.files) == {"texts", "mean", "layer_cls:2", "lwap"}
        assert file["texts"].tolist() == sentences[:6]
        for name in names:
            np.testing.assert_allclose(file[name], lwap.embed(bank, name), atol=1e-6)


def test_encode_says_what_was_cut(run, run_json, model, tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("short\n" + "word " * 100, "utf-8")
    _, errors = run("encode", file, "-o", "out.npy", *model)
    assert errors == "1 of them were cut to the encoder's limit of 64 tokens.\n"
    assert run_json("encode", file, "-o", "out.npy", *model)["truncated"] == 1


def test_encode_whitens_on_another_file(run, tiny_encoder_folder, sentences_file, tmp_path):
    texts = [f"{first} {second}" for first in "abcdefgh" for second in "abcdefgh"]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(texts + texts[:9]), "utf-8")
    arguments = ["--strategies", "mean+whiten", "--model", tiny_encoder_folder]
    run("encode", sentences_file, "-o", "out.npy", "--whiten-on", corpus, *arguments)
    model = load(str(tiny_encoder_folder))
    whitening = lwap.fit_whitening(lwap.encode_layers(model, texts), "mean", corpus="corpus")
    bank = lwap.encode_layers(model, sentences_file.read_text("utf-8").split("\n")[:6])
    expected = lwap.embed(bank, "mean+whiten", whitening=whitening)
    np.testing.assert_allclose(np.load("out.npy"), expected, atol=1e-3)


def test_precision_arrives(run, model, sentences_file):
    found = {}
    for name in ("", "fp32", "bf16"):
        options = ["--precision", name] if name else []
        run("encode", sentences_file, "-o", "out.npy", *options, *model)
        found[name] = np.load("out.npy")
    assert np.array_equal(found[""], found["fp32"])
    error = np.abs(found["bf16"] - found["fp32"]).max()
    assert 0 < error < 0.05 * np.abs(found["fp32"]).max()


# --- compare ------------------------------------------------------------------------------------


def test_compare_prints_correlations_and_the_first_pairs(run, model, pairs_file, pairs):
    printed, errors = run(
        "compare", pairs_file, "--strategies", "mean", "lwap", "--show", 2, *model
    )
    assert errors == ""
    assert printed.startswith("Spearman × 100 with the scores [95 % interval], higher is better\n")
    for name in ("mean", "lwap"):
        assert re.search(rf"^  {name} +-?\d+\.\d\d  \[-?\d+\.\d\d, -?\d+\.\d\d\]$", printed, re.M)
    for place in (0, 1):
        assert f"{place + 1}. {pairs.sentence1[place]}\n   {pairs.sentence2[place]}\n" in printed
    assert pairs.sentence1[2] not in printed
    assert "… and 10 more pairs; --output FILE.csv writes them all." in printed
    assert len(re.findall(r"^   mean -?\d\.\d{3}  lwap -?\d\.\d{3}$", printed, re.MULTILINE)) == 2


def test_compare_gives_every_pair_as_json(run_json, model, pairs_file, pairs, tiny_lwap_model):
    found = run_json("compare", pairs_file, "--strategies", "mean", "lwap", *model)
    assert found["model"] == "tiny-head"
    assert [row["sentence1"] for row in found["pairs"]] == pairs.sentence1.tolist()
    assert [row["score"] for row in found["pairs"]] == pairs.score.tolist()
    first, second = (
        tiny_lwap_model.encode(pairs[name].tolist(), normalize_embeddings=True)
        for name in ("sentence1", "sentence2")
    )
    cosines = (first.astype(float) * second).sum(axis=1)
    assert [row["lwap"] for row in found["pairs"]] == pytest.approx(cosines.tolist(), abs=1e-5)
    expected = 100 * stats.spearmanr(cosines.round(6), pairs.score).statistic
    score = found["spearman"]["lwap"]
    assert score["value"] == pytest.approx(expected, abs=0.01)
    assert score["low"] <= score["value"] <= score["high"]


def test_compare_takes_pairs_from_the_command(run, run_json, model):
    arguments = ["--pair", "a dog", "a cat", "--pair", "a dog", "a dog", *model]
    found = run_json("compare", *arguments)
    assert [(row["sentence1"], row["sentence2"]) for row in found["pairs"]] == [
        ("a dog", "a cat"),
        ("a dog", "a dog"),
    ]
    assert found["spearman"] == {}
    strategies = set(found["pairs"][1]) - {"sentence1", "sentence2"}
    assert {"cls", "mean", "lwap", "all_mean"} <= strategies
    assert not any(name.startswith("layer_") for name in strategies)
    assert [found["pairs"][1][name] for name in strategies] == pytest.approx([1] * len(strategies))
    assert "Spearman" not in run("compare", *arguments)[0]


def test_compare_writes_a_table(run, model, pairs_file, pairs):
    printed, _ = run(
        "compare", pairs_file, "--strategies", "mean", "-o", "s.csv", "--show", 0, *model
    )
    assert printed.endswith("Written: s.csv\n")
    with open("s.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sentence1", "sentence2", "score", "mean"]
    assert [row["sentence2"] for row in rows] == pairs.sentence2.tolist()
    assert all(-1 <= float(row["mean"]) <= 1 for row in rows)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [([3] * 12, r"All 12 pairs have the same score \(3\)"), ([1, 2], "there are 2")],
)
def test_scores_that_cannot_be_ranked_do_not_withhold_the_cosines(
    scores, reason, run, model, pairs, tmp_path
):
    file = tmp_path / "flat.csv"
    pairs[: len(scores)].assign(score=scores).to_csv(file, index=False)
    printed, errors = run("compare", file, "--strategies", "mean", "cls", *model)
    assert re.fullmatch(rf"No Spearman for mean, cls: .*{reason}.*\n", errors)
    assert printed.startswith(f"1. {pairs.sentence1[0]}\n")


# --- explain ------------------------------------------------------------------------------------


def test_explain_draws_the_states(run, model, saved):
    printed, errors = run("explain", "She never said that.", "She said that.", *model)
    assert errors == ""
    assert printed.startswith(f"{saved}: weight of each state, and knock-out (1 − cosine without")
    assert "\nShe never said that.\n" in printed
    line = r"^  (embeddings|layer \d) +(\d\.\d{3})  (█* *)  -?\d\.\d{4}$"
    lines = re.findall(line, printed, re.MULTILINE)
    assert [name for name, *_ in lines] == ["embeddings", "layer 1", "layer 2", "layer 3"] * 2
    for rows in (lines[:4], lines[4:]):
        assert sum(float(weight) for _, weight, _ in rows) == pytest.approx(1, abs=2e-3)
        assert max(bar.count("█") for *_, bar in rows) == 24


def test_explain_gives_the_whole_matrix_as_json(run_json, model, tiny_lwap_model, sentences_file):
    texts = sentences_file.read_text("utf-8").split("\n")[:6]
    found = run_json("explain", "--file", sentences_file, *model)
    expected = lwap.explain(tiny_lwap_model, texts)
    assert found["strategy"] == "lwap"
    assert found["states"] == ["embeddings", "layer 1", "layer 2", "layer 3"]
    assert [row["text"] for row in found["sentences"]] == texts
    for name in ("weights", "knockout", "attention"):
        values = np.array([row[name] for row in found["sentences"]])
        np.testing.assert_allclose(values, getattr(expected, name), atol=2e-5)
    for row, count in zip(found["sentences"], expected.token_counts, strict=True):
        assert (row["tokens"], row["is_truncated"]) == (count, False)


def test_explain_says_what_was_cut(run, model):
    printed, _ = run("explain", "word " * 100, *model)
    assert "  (cut to the encoder's limit of 64 tokens)\n" in printed


# --- train --------------------------------------------------------------------------------------


@pytest.fixture
def train_arguments(triplets_file, pairs_file, tiny_encoder_folder) -> list:
    options = {
        "--triplets": triplets_file,
        "--dev": pairs_file,
        "--encoder": tiny_encoder_folder,
        "--epochs": 2,
        "--batch-size": 20,
        "--eval-steps": 2,
        "--precision": "fp32",
    }
    return ["train", *(str(part) for option in options.items() for part in option)]


def recorded_command(folder: Path) -> list[str]:
    """Return the command in a model card, as a shell would split it."""
    card = (folder / "README.md").read_text("utf-8")
    command = re.search(r"```bash\n(python -m lwap train .*?)\n```", card, re.DOTALL).group(1)
    return shlex.split(command.replace("\\\n", " "))[3:]


def parsed_config(arguments: list[str]) -> TrainConfig:
    return training.train_config(cli.parser().parse_args(arguments))


def test_train_writes_a_checkpoint_with_a_card(run, train_arguments, shelves, tiny_encoder_folder):
    printed, errors = run(*train_arguments, "--output", "my-head", "--dev-name", "examples")
    assert all(line.startswith("Note: ") for line in errors.splitlines())
    assert re.search(r"^step     0 of 6   untrained    dev -?\d+\.\d\d$", printed, re.MULTILINE)
    assert re.search(r"^step     6 of 6   loss \d\.\d{3}   dev -?\d+\.\d\d$", printed, re.MULTILINE)
    assert "\nBest by Spearman × 100 on examples: step " in printed
    for name in ("lwap", "mean", "cls"):
        assert re.search(rf"^  {name} +-?\d+\.\d\d  \[-?\d+\.\d\d, -?\d+\.\d\d\]$", printed, re.M)
    assert re.search(r"^Written: my-head \(0\.0 MB, with model card\)$", printed, re.MULTILINE)
    model = load("my-head")
    assert isinstance(model[1], LayerwiseAttentionPooling)
    manifest = json.loads(Path("my-head", MANIFEST).read_text("utf-8"))
    assert manifest["name"] == "my-head"
    assert manifest["encoder"]["id"] == str(tiny_encoder_folder)
    assert manifest["training"]["data"] == "triplets.csv"
    assert manifest["training"]["triplets"] == 60
    assert manifest["results"]["dev_set"] == "examples"
    assert "## Results" in Path("my-head", "README.md").read_text("utf-8")
    assert list((shelves / "runs").iterdir()) == []


@pytest.mark.slow
def test_train_prints_one_object(run_json, train_arguments):
    found = run_json(*train_arguments, "--output", "head", "--name", "a-name", "--seed", "3")
    assert (found["name"], found["folder"]) == ("a-name", "head")
    assert found["size_bytes"] == sum(
        file.stat().st_size for file in Path("head").rglob("*") if file.is_file()
    )
    assert found["best_step"] == found["results"]["best_step"]
    assert set(found["results"]["dev_spearman"]) == {"lwap", "mean", "cls"}
    assert len(found["seconds"]) == 3


@pytest.mark.slow
def test_train_writes_to_a_run_without_output(run, run_json, train_arguments, shelves):
    without_dev = [part for part in train_arguments if "pairs.csv" not in part and part != "--dev"]
    found = run_json(*without_dev, "--residual", "last_mean")
    assert re.fullmatch(r"lwap-last-mean-\d{8}-\d{6}", found["name"])
    assert found["folder"] == str(shelves / "runs" / found["name"] / "model")
    assert found["results"]["dev_triplets"] == 6
    assert found["name"] in run("models", "list")[0]
    assert run("models", "show", found["name"])[0].startswith("---\n")


# Other than the default in every setting that a mode has, so that one that is dropped shows.
SETTINGS = {
    "head": {
        "query": "last",
        "scale": "sqrt_dim",
        "residual": "last_mean",
        "layer_norm": True,
        "epochs": 2,
        "batch_size": 25,
        "learning_rate": 2e-5,
        "warmup": 0.25,
        "weight_decay": 0.01,
        "temperature": 0.07,
        "hard_negative_weight": -1e-05,
        "eval_steps": 3,
        "patience": 5,
        "precision": "fp32",
        "seed": 11,
    },
    "lora": {
        "mode": "lora",
        "objective": "unsupervised",
        "pooling": "cls",
        "max_steps": 2,
        "batch_size": 8,
        "accumulation": 2,
        "mini_batch": 4,
        "learning_rate": 2e-4,
        "head_learning_rate": 3e-4,
        "dropout": 0.2,
        "max_tokens": 9,
        "lora_rank": 3,
        "lora_alpha": 5,
    },
}


def test_every_setting_is_tested():
    tested = {name for settings in SETTINGS.values() for name in settings}
    assert tested | {"encoder"} == TrainConfig().to_dict().keys()


@pytest.mark.parametrize("mode", ["head", pytest.param("lora", marks=pytest.mark.slow)])
def test_every_setting_arrives_and_the_card_repeats_it(
    mode, run, make_encoder, triplets_file, pairs_file, monkeypatch, tmp_path
):
    settings = {"encoder": str(make_encoder("modernbert")), **SETTINGS[mode]}
    defaults = TrainConfig().to_dict()
    assert not [name for name, value in settings.items() if value == defaults[name]]
    kind, file = "triplets", triplets_file
    if mode == "lora":
        kind, file = "sentences", triplets_file.with_name("sentences.txt")
        texts = pd.read_csv(triplets_file)["sent0"].tolist()
        file.write_text("\n".join(texts), encoding="utf-8")
    arguments = ["train", f"--{kind}", str(file), "--dev", str(pairs_file)]
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        arguments.append(flag if value is True else f"{flag}={value}")

    monkeypatch.setenv("LWAP_DATA", str(tmp_path))
    names = ["--data-name", "it's $5", "--dev-name", "examples (dev)", "--name", "n"]
    run(*arguments, *names, "--output", "head")
    config = TrainConfig(**settings)
    trained = json.loads(Path("head", MANIFEST).read_text("utf-8"))["training"]
    assert {name: trained[name] for name in defaults} == config.to_dict()

    command = recorded_command(Path("head"))
    assert parsed_config(command) == config
    options = cli.parser().parse_args(command)
    assert getattr(options, kind) == f"$LWAP_DATA/{file.name}"
    assert options.dev == "$LWAP_DATA/pairs.csv"
    assert (options.data_name, options.dev_name, options.name) == ("it's $5", "examples (dev)", "n")


@pytest.mark.slow
def test_a_recorded_command_is_short_and_survives_a_shell_and_another_folder(
    run, train_arguments, tiny_encoder_folder, triplets_file, shelves, tmp_path, monkeypatch
):
    data = tmp_path / "da ta"
    data.mkdir()
    odd = Path(shutil.copy(triplets_file, data / "it's & triplets.csv"))
    train_arguments[train_arguments.index("--triplets") + 1] = str(odd)
    train_arguments[train_arguments.index("--encoder") + 1] = tiny_encoder_folder.name
    train_arguments += ["--pooling", "scalar_mix"]
    monkeypatch.setenv("LWAP_DATA", str(data))
    monkeypatch.chdir(tiny_encoder_folder.parent)
    run(*train_arguments, "--output", shelves / "head")
    monkeypatch.chdir(shelves)
    assert load("head").encode(["text"]).shape == (1, 32)

    command = recorded_command(Path("head"))
    assert parsed_config(command) == parsed_config(train_arguments)
    # In the data folder, and elsewhere.
    files = ["--triplets", "$LWAP_DATA/it's & triplets.csv", "--dev", "pairs.csv"]
    assert command[:5] == ["train", *files]
    assert "--seed" not in command and "--query" not in command and "--name" not in command

    card = Path("head", "README.md").read_text("utf-8")
    command = re.search(r"```bash\npython -m lwap train (.*?)\n```", card, re.DOTALL).group(1)
    found = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"],
        env={**os.environ, "LWAP_DATA": str(tmp_path)},  # without a space, as it stands unquoted
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split("\n")[:2] == ["--triplets", f"{tmp_path}/it's & triplets.csv"]


def test_what_is_not_said_is_the_settings_default():
    assert parsed_config(["train", "--triplets", "x.csv"]) == TrainConfig()


def test_the_help_names_the_defaults(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    printed = " ".join(capsys.readouterr()[0].split())
    for name, field in TrainConfig.__dataclass_fields__.items():
        flag = f"--{name.replace('_', '-')} {name.upper()}"
        if field.type in ("int", "float"):
            assert re.search(rf"{flag} [^()]*(\([^()]*\) )?\(default {field.default}\)", printed)


def test_sentences_are_for_the_unsupervised_objective():
    assert parsed_config(["train", "--sentences", "x.txt"]) == TrainConfig(objective="unsupervised")


def test_a_preset_can_be_changed():
    found = parsed_config(["train", "--triplets", "x.csv", "--preset", "minute", "--seed", "3"])
    assert found == TrainConfig(residual="last_mean", seed=3)


# A run prints its first look before it trains, and `refused` sees that nothing was printed.


def test_a_target_that_cannot_be_written_is_refused_before_training(
    refused, train_arguments, tmp_path
):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    for target, message in (
        (tmp_path / "thesis", "exists and is no checkpoint"),
        (tmp_path / "thesis" / "chapter.tex", "exists and is no checkpoint"),
        (tmp_path / "thesis" / "chapter.tex" / "head", "cannot be written"),
    ):
        assert message in refused(*train_arguments, "--output", target)


def test_an_encoder_that_cannot_be_had_is_refused_before_training(
    refused, train_arguments, checkpoint
):
    place = train_arguments.index("--encoder") + 1
    for encoder, message in (
        ("nobody/nothing", "'nobody/nothing' is not on this machine"),
        ("tiny-head", "is a checkpoint with a head. Train from its encoder"),
    ):
        train_arguments[place] = encoder
        assert message in refused(*train_arguments, "--output", "head")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "epochs is 0; it must be between 1 and 1000"),
        (["--pooling", "mean"], "mode 'head' trains the pooling alone, and pooling 'mean' has no"),
        (["--pooling", "first"], "pooling is 'first'; it must be one of lwap, scalar_mix, cls"),
        (["--lora-rank", "4"], "lora_rank would have no effect: these belong to mode 'lora'"),
        (["--sentences", "x.txt"], "Give --triplets FILE, or --sentences FILE, one of the two"),
        (["--objective", "unsupervised", "--hard-negative-weight", "1"], "would have no effect"),
        (["--query", "first"], "query is 'first'; it must be one of 'all', 'last'"),
        (["--precision", "fp8"], "precision is 'fp8'"),
        (["--pooling", "scalar_mix", "--query", "last"], "query would have no effect"),
        (["--batch-size", "61"], "batch_size is 61, but there are only 60 triplets"),
        (["--triplets", "nowhere.csv"], "There is no file 'nowhere.csv'"),
        (["--dev", "nowhere.csv"], "There is no file 'nowhere.csv'"),
    ],
)
def test_train_refuses(options, message, refused, train_arguments):
    assert message in refused(*train_arguments, "--output", "head", *options)
    assert os.listdir() == []


def test_train_refuses_files_with_other_columns(
    refused, train_arguments, pairs_file, triplets_file, pairs, tmp_path
):
    assert "'pairs.csv' has no column 'sent0'" in refused(
        *train_arguments, "--triplets", pairs_file
    )
    assert "no column 'sentence2'" in refused(*train_arguments, "--dev", triplets_file)
    unscored = tmp_path / "unscored.csv"
    pairs.drop(columns="score").to_csv(unscored, index=False)
    assert "no column 'score'" in refused(*train_arguments, "--dev", unscored)


# --- models -------------------------------------------------------------------------------------


def test_models_are_listed(run, run_json, checkpoint, tiny_encoder_folder):
    printed, _ = run("models", "list")
    lines = printed.splitlines()
    assert re.fullmatch(
        rf"tiny-head +lwap +0\.\d MB  {re.escape(str(tiny_encoder_folder))}", lines[0]
    )
    assert lines[-1].startswith("all-MiniLM-L6-v2 ")
    found = run_json("models", "list")
    assert found["encoder"] == "all-MiniLM-L6-v2"
    (info,) = found["checkpoints"]
    assert info["name"] == "tiny-head"
    assert info["folder"] == str(checkpoint)
    assert (info["num_states"], info["pooling"], info["options"]["query"]) == (4, "lwap", "all")


def test_a_models_card_is_shown(run, run_json, checkpoint):
    assert run("models", "show", "tiny-head")[0] == "# tiny-head\n\nA card: 79.0 ± 0.5.\n\n"
    assert run_json("models", "show", checkpoint)["training"] == {"epochs": 3}
    (checkpoint / "README.md").unlink()
    assert run("models", "show", "tiny-head")[0] == f"{checkpoint} has no model card.\n"


def test_models_are_verified(run, run_json, checkpoint):
    printed, _ = run("models", "verify")
    assert printed.startswith("tiny-head: good\n  format 1\n")
    found = run_json("models", "verify", "tiny-head")
    assert list(found) == ["tiny-head"]
    assert "loads, and encodes into 32 dimensions" in found["tiny-head"]


def test_no_models(run, run_json):
    assert run("models", "list")[0].count("\n") == 1  # the bundled encoder
    assert run("models", "verify")[0] == "There are no checkpoints.\n"
    assert run_json("models", "verify") == {}


def test_verify_names_every_bad_checkpoint_and_prints_the_good_ones(saved, shelves, capsys):
    for name in ("cut", "good", "unreadable"):
        shutil.copytree(saved, shelves / "checkpoints" / name)
    (shelves / "checkpoints" / "unreadable" / MANIFEST).write_text("{")
    weights = next((shelves / "checkpoints" / "cut").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    assert cli.main(["models", "verify"]) == 2
    printed, errors = capsys.readouterr()
    assert printed.startswith("good: good\n")
    assert "cut:" not in printed
    assert errors.count("\n") == 1
    assert re.search(r"'cut': '.*' has SHA-256 .* And: .*unreadable.* is not readable JSON", errors)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "nowhere.txt", "-o", "o.npy"], "There is no file 'nowhere.txt'"),
        (["encode", "x" * 5000, "-o", "o.npy"], "There is no file 'xxx"),
        (["compare", "nowhere.csv"], "There is no file 'nowhere.csv'"),
        (["explain", "--file", "nowhere.txt"], "There is no file 'nowhere.txt'"),
        (["encode", "FILE", "-o", "o.csv"], "--output is 'o.csv'; it must end in .npy or .npz"),
        (["encode", "FILE", "-o", "npy"], "--output is 'npy'; it must end in .npy or .npz"),
        (["encode", "FILE", "-o", "not/there/o.npy"], "there is no folder 'not/there'"),
        (["compare", "PAIRS", "-o", "o.xlsx"], "--output is 'o.xlsx'; it must end in .csv"),
        (["compare"], "Give either a file of pairs or --pair"),
        (["compare", "PAIRS", "--pair", "a", "b"], "Give either a file of pairs or --pair"),
        (["compare", "--pair", "a", ""], "Pair 1: sentence2 is empty ('')"),
        (["compare", "--pair", "a", "b", "--pair", " ", "b"], "Pair 2: sentence1 is empty (' ')"),
        (["compare", "PAIRS", "--show", "-1"], "--show is -1; it must be 0 or more"),
        (["explain"], "Give sentences, or --file FILE, one of the two"),
        (["explain", "a", "--file", "FILE"], "Give sentences, or --file FILE, one of the two"),
        (["explain", "a", ""], "Sentence 2 of 2 is empty ('')"),
        (["compare", "PAIRS", "--strategies", "median"], "has no strategy 'median'. It has cls"),
        (["encode", "FILE", "-o", "o.npy", "--strategies", "layer_mean:9"], "asks for state 9"),
        (
            ["compare", "PAIRS", "--strategies", "mean", "scalar_mix"],
            "has no strategy 'scalar_mix'",
        ),
        (["encode", "FILE", "-o", "o.npy", "--strategies", "mean", "cls"], "one strategy, not 2"),
        (["encode", "FILE", "-o", "o.npy", "--precision", "fp8"], "precision is 'fp8'"),
        (["compare", "PAIRS", "--device", "abacus"], "Device 'abacus' cannot be used here"),
        (["compare", "PAIRS", "--strategies", "mean+whiten"], "'mean+whiten' needs --whiten-on"),
        (["compare", "PAIRS", "--whiten-on", "FILE"], "--whiten-on has no effect"),
        (
            ["compare", "PAIRS", "--strategies", "mean+whiten", "--whiten-on", "FILE"],
            "needs more than 32",
        ),
        (["compare", "FILE"], "'sentences.txt' ends in '.txt'; tables are read from"),
        (["encode", "PAIRS", "-o", "o.npy"], "'pairs.csv' has no column 'sentence'"),
        (["models", "show", "nothing"], "There is no checkpoint 'nothing'. There are: none"),
        (["models", "verify", "nothing"], "There is no checkpoint 'nothing'. There are: none"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_input_that_cannot_be_used_is_one_line(
    arguments, message, refused, model, sentences_file, pairs_file
):
    files = {"FILE": str(sentences_file), "PAIRS": str(pairs_file)}
    arguments = [files.get(argument, argument) for argument in arguments]
    if arguments[0] != "models":
        arguments += model
    assert message in refused(*arguments)
    assert os.listdir() == []


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00", b"sentence1,sentence2\n"])
def test_files_without_content_are_refused(content, refused, model, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    assert "'bad.csv'" in refused("compare", file, *model)
    assert "'bad.csv'" in refused("encode", file, "-o", "o.npy", *model)
    assert "'bad.csv'" in refused("train", "--triplets", file)


@pytest.mark.parametrize(
    "arguments", [["compare", "--pair", "a", "b"], ["explain", "a"]], ids=lambda value: value[0]
)
def test_models_that_cannot_be_had_are_refused(arguments, refused, checkpoint, tmp_path):
    def message(name):
        return refused(*arguments, "--model", name)

    assert "'nobody/nothing' is not on this machine" in message("nobody/nothing")
    assert "neither a folder here nor a well-formed hub id" in message("a/b/c")
    assert "No model was named" in message("")
    assert "is no model folder" in message(tmp_path)
    weights = next(checkpoint.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "The file is damaged or was changed" in message("tiny-head")


def test_a_model_without_a_head_is_not_explained(refused, tiny_encoder_folder):
    message = refused("explain", "a", "--model", tiny_encoder_folder)
    assert "has no trained layer attention to look at" in message


def test_half_a_character_is_refused(refused, model, tmp_path):
    assert "half a character" in refused("compare", "--pair", "caf\udce9", "coffee", *model)
    assert "half a character" in refused("explain", "caf\udce9", *model)
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"sentence1": "\\ud83d", "sentence2": "b"}\n')
    refused("compare", file, *model)


def test_a_message_stays_one_line(refused):
    assert "a file" in refused("compare", "a\nfile\n.csv")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["encode"],
        ["encode", "x.txt"],
        ["compare", "--pair", "one"],
        ["compare", "x.csv", "--show", "many"],
        ["train", "--triplets", "x.csv", "--epochs", "many"],
        ["models"],
        ["models", "show"],
    ],
    ids=" ".join,
)
def test_arguments_that_do_not_parse_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert re.search(r"^usage: lwap", errors)
    assert re.search(r"^lwap.*: error: ", errors.splitlines()[-1])


class Failing(io.TextIOWrapper):
    """A terminal on which nothing can be written."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_a_bug_keeps_its_traceback(monkeypatch, model):
    monkeypatch.setattr(sys, "stdout", Failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["explain", "a", *model])


def test_an_interrupt_is_no_bug(monkeypatch, model, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(KeyboardInterrupt()))
    assert cli.main(["explain", "a", *model]) == 130
    assert capsys.readouterr().err == "lwap: stopped\n"


def test_a_full_disk_is_named(monkeypatch, refused, model, sentences_file):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    message = refused("encode", sentences_file, "-o", "o.npy", *model)
    assert "'o.npy' cannot be written: No space left on device" in message


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
        if "COMMAND" not in words:
            cli.parser().parse_args(words)


def test_every_option_has_help():
    def parsers(parser):
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    yield from parsers(inner)

    missing = [
        (parser.prog, action.dest)
        for parser in parsers(cli.parser())
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert missing == []


# --- as a program -------------------------------------------------------------------------------


def start(*arguments, path: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "lwap", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.mark.slow
def test_the_program_prints_one_object_and_nothing_else(saved):
    done = start("compare", "--pair", "a dog", "a cat", "--model", saved, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["pairs"][0]["sentence2"] == "a cat"


def test_the_program_exits_with_2_and_one_line():
    done = start("models", "show", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"lwap: error: There is no checkpoint 'nothing'.*\n", done.stderr)


def test_the_program_answers_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    for command in (["--help"], ["train", "--help"]):
        done = start(*command, path=str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        assert "Example" in done.stdout


def test_a_reader_that_leaves_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -0` does
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert cli.main(["models", "list"]) == 0
        monkeypatch.undo()


def test_a_console_of_another_encoding_is_no_error(monkeypatch, model):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert cli.main(["explain", "a", *model]) == 0
    assert rb"\u2588" in printed.getvalue()


def test_the_api_and_the_program_agree(saved, run_json):
    found = run_json("compare", "--pair", "a dog", "a cat", "--model", saved)
    table = lwap.compare(load(saved), [("a dog", "a cat")])
    for name in table.columns[2:]:
        assert found["pairs"][0][name] == pytest.approx(table[name][0], abs=1e-9)
    assert isinstance(load(saved), SentenceTransformer)
