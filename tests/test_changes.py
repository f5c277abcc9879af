"""What training changed: the numbers against plain numpy and scipy, in every mode."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lwap import cli, jobs
from lwap.changes import untouched, what_changed
from lwap.checkpoints import identify_encoder, load
from lwap.errors import InputError, ModelError
from lwap.jobs.worker import Worker
from lwap.training import TrainConfig, train
from lwap.training.save import save_result

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "head": {"pooling": "lwap"},
    "mix": {"pooling": "scalar_mix"},
    "lora": {"mode": "lora", "residual": "last_mean"},
    "cls": {"mode": "full", "pooling": "cls"},
    "mean": {"mode": "full", "pooling": "mean"},
}


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    table = pd.read_csv(ROOT / "assets/pairs.csv").head(45)
    return table[["sentence1", "sentence2", "score", "subset"]]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    plain = pd.read_csv(ROOT / "assets/sentences.csv").sentence.tolist()[:40]
    return [*plain, "مرحبا بالعالم", "👩‍🚀 launches 🚀", plain[0]]


@pytest.fixture(scope="module")
def triplets() -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets/triplets.csv").head(40)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("changes")


@pytest.fixture(scope="module")
def trained(shelf, tiny_encoder_folder, triplets, pairs):
    """Return a function that gives the folder of a checkpoint of a kind, trained once."""
    made = {}

    def make(kind: str) -> str:
        if kind not in made:
            config = TrainConfig(
                encoder=str(tiny_encoder_folder),
                epochs=3,
                batch_size=10,
                learning_rate=5e-3,
                precision="fp32",
                **KINDS[kind],
            )
            result = train(config, triplets, pairs, dev_name="the dev set")
            folder = shelf / kind
            save_result(
                result,
                folder,
                name=kind,
                encoder=identify_encoder(config.encoder),
                data_name="examples",
                data_sha256="",
                dev_sha256="",
                command="",
            )
            made[kind] = str(folder)
        return made[kind]

    return make


@pytest.fixture(scope="module")
def change(trained, pairs, texts):
    found = {}

    def get(kind: str):
        if kind not in found:
            found[kind] = what_changed(trained(kind), pairs, texts, pairs_name="the dev set")
        return found[kind]

    return get


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_are_what_encode_gives(kind, change, trained, pairs, texts):
    found = change(kind)
    folder = trained(kind)
    distinct = list(dict.fromkeys(texts))
    assert list(found.sentences) == distinct
    near = []
    for side, name in ((found.before, untouched(folder)), (found.after, folder)):
        model = load(name)
        first, second = (
            unit(model.encode(pairs[column].tolist())) for column in ("sentence1", "sentence2")
        )
        cosines = (first * second).sum(axis=1)
        np.testing.assert_allclose(side.scores["cosine"], cosines, atol=2e-6)
        spearman = 100 * stats.spearmanr(side.scores["cosine"], pairs.score).statistic
        assert side.spearman.value == pytest.approx(spearman, abs=1e-9)
        assert side.spearman.low < spearman < side.spearman.high
        paired = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))
        every = unit(model.encode(paired))
        distances = ((every[:, None] - every[None]) ** 2).sum(axis=2)
        upper = distances[np.triu_indices(len(every), k=1)]
        assert side.geometry.uniformity.value == pytest.approx(
            np.log(np.exp(-2 * upper).mean()), abs=1e-4
        )
        good = pairs[pairs.score >= 4]
        row = {text: place for place, text in enumerate(paired)}
        expected = [
            distances[row[a], row[b]] for a, b in zip(good.sentence1, good.sentence2, strict=True)
        ]
        assert side.geometry.alignment == pytest.approx(np.mean(expected), abs=1e-4)
        vectors = unit(model.encode(distinct))
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -2)
        near.append([set(order[:10]) for order in np.argsort(-similar, axis=1)])
    kept = np.array([len(a & b) / 10 for a, b in zip(*near, strict=True)])
    assert np.abs(found.kept - kept).mean() < 0.01  # but for ties
    assert found.difference.value == pytest.approx(
        found.after.spearman.value - found.before.spearman.value
    )
    assert found.difference.low < found.difference.value < found.difference.high
    assert not found.is_none


def test_pairs_and_sentences_that_changed_most_come_first(change):
    found = change("head")
    moved = found.moved(5, "cosine")
    steps = (moved["cosine after"] - moved["cosine before"]).abs().tolist()
    assert steps == sorted(np.abs(found.moves("cosine")), reverse=True)[:5]
    first = found.changed(3)
    assert [each.kept for each in first] == sorted(found.kept)[:3]
    for each in first:
        assert len(each.lost) == len(each.gained) == round(10 * (1 - each.kept))
        assert not set(each.lost) & set(each.gained)
        assert each.sentence not in {*each.lost, *each.gained}


def test_weights_before_are_those_of_the_run(
    tmp_path, monkeypatch, tiny_encoder_folder, triplets, pairs, texts
):
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path))
    config = TrainConfig(
        encoder=str(tiny_encoder_folder), batch_size=10, epochs=1, precision="fp32"
    )
    run = jobs.create(config, triplets, pairs, name="mine", dev_name="pairs")
    Worker(run, tell=str).work()
    found = what_changed("mine", pairs, texts)
    looks = jobs.Followed(run).read().looks
    assert found.weights.before == pytest.approx(looks[0]["layer_weights"], abs=1e-4)
    assert sum(found.weights.after) == pytest.approx(1, abs=1e-3)
    assert found.chosen_on == len(pairs)
    assert "no evidence of one elsewhere" in found.warning
    other = what_changed("mine", pairs.assign(sentence1=pairs.sentence1 + " So."), texts)
    assert (other.chosen_on, other.warning) == (0, "")


@pytest.mark.parametrize(("kind", "has"), [("head", True), ("lora", True), ("cls", False)])
def test_weights_are_there_where_there_is_a_head_over_layers(kind, has, change):
    assert (change(kind).weights is not None) is has


def test_the_same_model_twice_changed_nothing(trained, pairs, texts):
    folder = trained("head")
    found = what_changed(folder, pairs, texts, before=folder)
    assert found.is_none
    assert found.verdict.endswith("nothing changed.")
    assert (found.kept == 1).all() and found.changed() == []
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)


def test_an_interval_that_spans_zero_decides_nothing(change):
    for kind in KINDS:
        found = change(kind)
        spans = found.difference.low <= 0 <= found.difference.high
        assert ("cannot tell the two apart" in found.verdict) is spans
        assert found.can_be_told_apart is not spans


def test_a_name_of_the_dev_set_is_known(change):
    assert change("head").chosen_on == 45


def test_it_is_plain_data(change):
    found = json.loads(json.dumps(change("lora").to_dict(), allow_nan=False))
    assert found["spearman"]["before"]["value"] == change("lora").before.spearman.value
    assert found["neighbours"]["k"] == 10
    assert len(found["moved"]) == 20


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "nothing"}, ModelError, "'nothing' is no checkpoint"),
        ({"sentences": ["a", "b", "a"]}, InputError, r"Neighbours need 5 different .* there are 2"),
        ({"sentences": ["a", ""] * 5}, InputError, "is empty"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, error, message, trained, pairs, texts):
    given = {"name": trained("head"), "pairs": pairs, "sentences": texts, **changes}
    with pytest.raises(error, match=message):
        what_changed(given.pop("name"), **given)


def test_the_command(run, run_json, trained, pairs, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    pairs.to_csv(tmp_path / "p.csv", index=False)
    (tmp_path / "s.txt").write_text("\n".join(texts), encoding="utf-8")
    files = ["--pairs", tmp_path / "p.csv", "--sentences", tmp_path / "s.txt"]
    printed, _ = run("changes", trained("head"), *files)
    expected = what_changed(trained("head"), pairs, texts)
    assert printed.splitlines()[:2] == ["45 pairs (p), 42 sentences", expected.verdict]
    assert "Mean layer weights on " in printed
    found = run_json("changes", trained("head"), *files)
    assert found["spearman"]["difference"]["value"] == pytest.approx(expected.difference.value)


def test_the_command_shows_its_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["changes", "--help"])
    assert "python -m lwap changes lwap-minilm-residual" in capsys.readouterr().out
