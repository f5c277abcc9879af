"""What training changed: the numbers against plain numpy and scipy, in every mode."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling

import lwap
from lwap import cli, jobs
from lwap.analysis import changes
from lwap.analysis.changes import untouched, what_changed
from lwap.checkpoints.cached import CachedModel
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.manifest import read_info
from lwap.encoding.diskcache import DiskCache
from lwap.errors import ConfigError, InputError, LwapError, ModelError, StrategyError
from lwap.evaluation.sts import spearman_difference
from lwap.jobs.worker import Worker
from lwap.pooling.strategies import own_vectors
from lwap.training import train
from lwap.training.save import save_result

ROOT = Path(__file__).resolve().parents[2]
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
def shelf(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("changes")


@pytest.fixture(scope="module")
def trained(shelf, settings, triplets, pairs):
    """Return a function that gives the folder of a checkpoint of a kind, trained once."""
    made = {}

    def make(kind: str) -> str:
        if kind not in made:
            config = settings(eval_steps=1, **KINDS[kind])
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


def test_the_difference_is_that_of_a_paired_bootstrap(change, pairs):
    found = change("cls")
    cosines = [side.scores["cosine"] for side in (found.after, found.before)]
    assert found.difference == spearman_difference(*cosines, found.gold)
    random = np.random.default_rng(7)  # other resamples than ours, one pair of ranks after another
    drawn = []
    for _ in range(2000):
        rows = random.integers(0, len(pairs), len(pairs))
        after, before = (
            stats.spearmanr(side[rows], found.gold[rows]).statistic for side in cosines
        )
        drawn.append(100 * (after - before))
    low, high = np.percentile(drawn, [2.5, 97.5])
    width = high - low
    assert found.difference.low == pytest.approx(low, abs=width / 6)
    assert found.difference.high == pytest.approx(high, abs=width / 6)


def test_subsets_are_averaged_if_asked(trained, pairs, texts):
    found = what_changed(trained("cls"), pairs, texts, aggregation="mean")
    for side in (found.before, found.after):
        each = [
            stats.spearmanr(side.scores["cosine"][pairs.subset == name], rows.score).statistic
            for name, rows in pairs.groupby("subset")
        ]
        assert side.spearman.value == pytest.approx(100 * np.mean(each), abs=1e-9)
    assert found.to_dict()["spearman"]["aggregation"] == "mean"


@pytest.mark.parametrize("kind", ["head", "cls"])
def test_ranks_and_percentiles_of_pairs(kind, change, trained, pairs):
    found = change(kind)
    assert found.random_pairs == 2000
    for side, name in ((found.before, untouched(trained(kind))), (found.after, trained(kind))):
        cosines = side.scores["cosine"]
        ranks = [np.mean((cosines < c) + (cosines == c) / 2) * 45 - 0.5 for c in cosines]
        np.testing.assert_allclose(side.scores["rank"], 100 * np.array(ranks) / 44, atol=1e-9)
        paired = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))
        vectors = unit(load(name).encode(paired))
        every = (vectors @ vectors.T)[np.triu_indices(len(paired), k=1)]
        # 2,000 of 4,005 pairs stand for all of them.
        below = [100 * np.mean(every < cosine) for cosine in cosines]
        np.testing.assert_allclose(side.scores["percentile"], below, atol=5)
    np.testing.assert_allclose(
        found.gold_rank, 100 * (stats.rankdata(pairs.score) - 1) / 44, atol=1e-9
    )


@pytest.mark.parametrize(("kind", "times"), [("head", 1), ("mix", 1), ("lora", 2), ("mean", 2)])
def test_each_sentence_is_encoded_once_an_encoder(
    kind, times, trained, pairs, texts, tmp_path, encoded, read_as, monkeypatch
):
    folder, steps = trained(kind), []
    encoded.clear()
    monkeypatch.setattr(changes, "CHUNK", 30)  # the parts of both sides alternate
    cache = DiskCache(tmp_path)
    found = what_changed(
        folder, pairs, texts, cache=cache, progress=lambda *step: steps.append(step)
    )
    every = {*pairs.sentence1, *pairs.sentence2, *texts}
    assert encoded == read_as([*every] * times)
    assert steps[-1] == (times * len(every),) * 2
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    encoded.clear()
    again = what_changed(folder, pairs, texts, cache=cache)
    assert not encoded
    assert again.to_dict() == found.to_dict() == what_changed(folder, pairs, texts).to_dict()


POOLINGS = {
    "mean": lambda: [Pooling(32, "mean")],
    "cls, dense": lambda: [Pooling(32, "cls"), Dense(32, 16)],
    "max": lambda: [Pooling(32, "max"), Normalize()],
    "last_token": lambda: [Pooling(32, "lasttoken")],
    "mean, layernorm, dense": lambda: [Pooling(32, "mean"), LayerNorm(32), Dense(32, 32)],
}


@pytest.mark.parametrize("words", POOLINGS)
@pytest.mark.parametrize("dimension", [None, 7])
def test_own_vectors_are_those_of_encode(words, dimension, tiny_model, texts):
    torch.manual_seed(0)
    modules = [tiny_model[0], *POOLINGS[words]()]
    model = SentenceTransformer(modules=modules, device="cpu", truncate_dim=dimension).eval()
    for parameter in model[-1].parameters():
        torch.nn.init.normal_(parameter)
    found = own_vectors(lwap.encode_layers(model, texts), model)
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-5)
    assert changes._pooling_words(model) == words


@pytest.mark.parametrize("pooling", ["weightedmean", "mean_sqrt_len_tokens"])
def test_a_pooling_of_another_kind_is_refused(pooling, tiny_model, texts):
    model = SentenceTransformer(modules=[tiny_model[0], Pooling(32, pooling)], device="cpu")
    with pytest.raises(StrategyError, match="none of those that are read from layer summaries"):
        own_vectors(lwap.encode_layers(tiny_model, texts), model)


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
    tmp_path, monkeypatch, settings, triplets, pairs, texts
):
    monkeypatch.setenv("LWAP_RUNS", str(tmp_path))
    run = jobs.create(settings(), triplets, pairs, name="mine", dev_name="pairs")
    Worker(run, tell=str).work()
    found = what_changed("mine", pairs, texts)
    looks = jobs.Followed(run).read().looks
    assert list(found.weights.before) == looks[0]["layer_weights"]
    results = read_info(run.model_folder).results
    best = next(look for look in looks if look["step"] == results["best_step"])
    assert list(found.weights.after) == best["layer_weights"]
    assert found.weights.after == pytest.approx(results["layer_weights"], abs=1e-4)
    assert found.chosen_on == len(pairs)
    assert "no evidence of one elsewhere" in found.warning
    other = what_changed("mine", pairs.assign(sentence1=pairs.sentence1 + " So."), texts)
    assert (other.chosen_on, other.warning) == (0, "")


def test_without_a_record_weights_are_measured_here(trained, change, pairs, texts, tmp_path):
    recorded = change("head").weights
    assert recorded.measured_on == "the dev set 'the dev set'"
    assert recorded.before is None  # no run has noted them
    folder = copy_of(trained("head"), tmp_path, results={})
    found = what_changed(folder, pairs, texts).weights
    expected = lwap.explain(load(folder), list(dict.fromkeys(texts))).weights.mean(axis=0)
    assert found.after == pytest.approx(expected, abs=1e-6)
    assert (found.before, found.measured_on) == (None, "these sentences")
    both = what_changed(folder, pairs, texts, before=trained("mix")).weights
    mixed = lwap.explain(load(trained("mix")), texts[:1]).weights[0]
    assert both.before == pytest.approx(mixed, abs=1e-6)  # the same for every sentence


@pytest.mark.parametrize(
    "line",
    [
        "",
        '{"event": "look", "step": 0, "dev": 1}',
        '{"event": "look", "step": 0, "layer_weights": [1, 2]}',
        '{"event": "look", "step": 0, "layer_weights": ["a", "b", "c", "d"]}',
        '{"event": "look", "step": 4, "layer_weights": [0.1, 0.2, 0.3, 0.4]}',
        "no JSON",
    ],
)
def test_a_log_without_the_first_weights_gives_none(line, trained, pairs, texts, tmp_path):
    folder = Path(copy_of(trained("head"), tmp_path / "mine"))
    folder = folder.rename(folder.with_name("model"))
    (folder.parent / "metrics.jsonl").write_text(f"{line}\n", encoding="utf-8")
    assert what_changed(str(folder), pairs, texts).weights.before is None


def copy_of(folder: str, place: Path, **manifest) -> str:
    copied = shutil.copytree(folder, place / "copied")
    file = copied / "lwap.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | manifest), "utf-8")
    return str(copied)


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


def test_pairs_are_known_by_the_copy_of_the_run(trained, pairs, texts, tmp_path):
    folder = Path(copy_of(trained("cls"), tmp_path / "mine"))
    folder = str(folder.rename(folder.with_name("model")))
    pairs[:10].to_parquet(tmp_path / "mine" / "dev.parquet")
    found = what_changed(folder, pairs, texts, pairs_name="the dev set")
    assert found.chosen_on == 10  # whatever the sets are called
    assert found.warning.startswith("The step was chosen on 10 of these 45 pairs, so a gain")
    (tmp_path / "mine" / "dev.parquet").write_bytes(b"damaged")
    assert what_changed(folder, pairs, texts, pairs_name="the dev set").chosen_on == 45


def test_a_collapsed_model_is_told(trained, pairs, texts):
    def collapsed(name):
        model = load(name)
        if name == folder:
            with torch.no_grad():
                model[1].dense.weight.zero_()
                model[1].dense.bias.fill_(1)
        return CachedModel(model, name=name)

    folder = trained("head")
    with pytest.raises(InputError, match="gives every sentence the same vector"):
        what_changed(folder, pairs, texts, load=collapsed)


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        ({"score": np.nan}, InputError, "row 1: the score is nan; scores are numbers"),
        ({"score": 3.0}, InputError, "All 45 pairs of 'the pairs' have the same score"),
        ({"sentence2": " "}, InputError, "Pair 1: sentence2 is empty"),
    ],
    ids=str,
)
def test_pairs_that_cannot_be_ranked_are_refused(broken, error, message, trained, pairs, texts):
    with pytest.raises(error, match=message):
        what_changed(trained("head"), pairs.assign(**broken), texts)


def test_other_refusals(trained, pairs, texts):
    with pytest.raises(InputError, match="no column 'score'"):
        what_changed(trained("head"), pairs.drop(columns="score"), texts)
    with pytest.raises(InputError, match="half a character"):
        what_changed(trained("head"), pairs, [*texts, "half \udfff"])
    half = pairs.assign(sentence1=pd.Series(["half \ud800"] * 45, dtype=object))
    with pytest.raises(InputError, match="Pair 1: sentence1 holds half a character"):
        what_changed(trained("head"), half, texts)
    with pytest.raises(ConfigError, match="aggregation is 'median'"):
        what_changed(trained("head"), pairs, texts, aggregation="median")


def test_five_sentences_have_two_neighbours_each(trained, pairs, texts):
    found = what_changed(trained("cls"), pairs, texts[:5])
    assert (found.k, len(found.kept)) == (2, 5)  # four would always be kept
    assert set(found.kept) <= {0, 0.5, 1}


def test_an_encoder_of_the_hub_is_the_one_of_its_revision(
    trained, tmp_path, tiny_encoder_folder, monkeypatch
):
    asked = []

    def fetch(name, revision, **options):
        asked.append((name, revision))
        return str(tiny_encoder_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    encoder = json.loads((Path(trained("head")) / "lwap.json").read_text("utf-8"))["encoder"]
    folder = copy_of(
        trained("head"), tmp_path, encoder=encoder | {"id": "some/one", "revision": "abc"}
    )
    assert untouched(folder) == str(tiny_encoder_folder)
    assert asked == [("some/one", "abc")]
    assert untouched(trained("head")) == str(tiny_encoder_folder)
    with pytest.raises(LwapError, match="is no checkpoint"):
        untouched(str(tiny_encoder_folder))


@pytest.mark.parametrize("name", ["lwap-minilm", "lwap-minilm-residual"])
def test_a_shipped_one_is_compared_with_the_bundled_encoder(bundled_model, pairs, texts, name):
    table = pairs[::3]
    found = lwap.what_changed(name, table, texts[:8])
    assert untouched(name) == found.before.model == "all-MiniLM-L6-v2"
    first, second = (bundled_model.encode(table[c].tolist()) for c in ("sentence1", "sentence2"))
    cosines = (unit(first) * unit(second)).sum(axis=1)
    np.testing.assert_allclose(found.before.scores["cosine"], cosines, atol=2e-5)
    assert found.before.pooling == "mean"  # and at length 1, which changes no direction


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
    assert "python -m lwap changes lwap-minilm\n" in capsys.readouterr().out


def test_the_command_needs_no_files(run_json, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    found = run_json("changes", trained("lora"))
    assert found["pairs"]["name"] == "the example pairs"
    assert (found["pairs"]["count"], found["neighbours"]["sentences"]) == (120, 612)
    assert found["spearman"]["aggregation"] == "mean"
    assert (tmp_path / "cache" / "banks").is_dir()


def test_the_command_keeps_nothing_if_told(run_json, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("LWAP_CACHE", str(tmp_path / "cache"))
    run_json("changes", trained("mean"), "--before", trained("mean"), "--no-cache")
    assert not (tmp_path / "cache" / "banks").exists()


def test_the_command_says_what_it_cannot_do(refused, trained, tmp_path):
    assert "'nobody' is no checkpoint" in refused("changes", "nobody")
    (tmp_path / "p.csv").write_text("sentence1,sentence2\na,b\n", encoding="utf-8")
    assert "has no column 'score'" in refused(
        "changes", trained("head"), "--pairs", tmp_path / "p.csv"
    )
    assert "no-such.txt" in refused("changes", trained("head"), "--sentences", "no-such.txt")


def test_what_is_printed_has_the_numbers(run, change, trained, pairs, texts, tmp_path):
    pairs.to_csv(tmp_path / "p.csv", index=False)
    (tmp_path / "s.txt").write_text("\n".join(texts), encoding="utf-8")
    files = ("--pairs", tmp_path / "p.csv", "--sentences", tmp_path / "s.txt", "--no-cache")
    printed, _ = run("changes", trained("cls"), *files, "--pairs-name", "the dev set")
    found = change("cls")
    assert "The step was chosen on these pairs, so a gain here is no evidence" in printed
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    for name, side in (("before", found.before), ("after", found.after)):
        measured = (side.spearman.value, side.geometry.uniformity.value, side.geometry.alignment)
        assert rows[name][-3:] == [f"{measured[0]:.2f}", *(f"{m:.3f}" for m in measured[1:])]
    assert "cls, dense" in printed
    assert f"{found.kept.mean():.0%} of the 10 nearest neighbours are the same." in printed
    assert found.changed(1)[0].lost[0][:40] in printed
    assert "Mean layer weights" not in printed
