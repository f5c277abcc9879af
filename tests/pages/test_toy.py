"""An idea is a declaration: a pooling, an objective and a measure of this file go all the way.

Trained, saved, loaded, evaluated, explained, offered and drawn on the pages, without a word about
them anywhere else.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import lwap
from lwap import cli
from lwap.checkpoints.load import identify_encoder
from lwap.checkpoints.manifest import read_info
from lwap.evaluation.declarations import Measure
from lwap.pooling.declarations import Strategy, Training
from lwap.pooling.formulas import knocked_out_weights
from lwap.pooling.head import LayerHead, check_dimensions
from lwap.registry import MEASURES, OBJECTIVES, STRATEGIES, Look
from lwap.training.declarations import Objective
from lwap.training.save import save_result
from tests.pages.driving import ROOT

POOLING, OBJECTIVE, MEASURE = "toy_mix", "toy_pull", "toy_spread"


class ToyMix(LayerHead):
    """One weight a state, and a stretch of every dimension."""

    strategy = POOLING
    query_name = "toy"
    config_keys = ["embedding_dimension", "num_states"]  # noqa: RUF012

    def __init__(self, embedding_dimension: int, num_states: int) -> None:
        super().__init__()
        check_dimensions(embedding_dimension, num_states)
        self.embedding_dimension, self.num_states = embedding_dimension, num_states
        self.weights = nn.Parameter(torch.linspace(-1, 1, num_states))
        self.stretch = nn.Parameter(torch.ones(embedding_dimension))

    def logits_and_values(self, layer_query, layer_means, training=False):
        return self.weights.expand(len(layer_means), 1, -1), layer_means

    def forward(self, features, **kwargs):
        attention, values = self.attend(*self.layer_summaries(features))
        mixed = torch.einsum("bs,bsd->bd", attention[:, 0], values)
        return {
            **features,
            "sentence_embedding": self.stretch * mixed,
            "layer_attention": attention,
        }

    def knock_out(self, layer_query, layer_means):
        logits, values = self.logits_and_values(layer_query, layer_means)
        return self.stretch * (knocked_out_weights(logits) @ values)


class ToyPull(nn.Module):
    """Pull positives to their anchors, and push nothing away."""

    def __init__(self, model, settings, gather) -> None:
        super().__init__()
        self.model, self.temperature = model, settings.temperature

    def forward(self, sentence_features, labels):
        anchors, positives, *_ = (
            nn.functional.normalize(self.model(each)["sentence_embedding"], dim=-1)
            for each in sentence_features
        )
        return ((anchors - positives) ** 2).sum(dim=1).mean() / self.temperature


@pytest.fixture(scope="module", autouse=True)
def declared():
    """Declare the three, and take them out again."""
    STRATEGIES.add(
        Strategy(
            name=POOLING,
            label="toy mix",
            formula="one weight a state and one a dimension",
            summaries=("cls", "mean"),
            reference="this test",
            look=Look("#123456", "#abcdef", "star-diamond"),
            head=ToyMix,
            training=Training(ToyMix.for_encoder),
        )
    )
    OBJECTIVES.add(
        Objective(
            name=OBJECTIVE,
            label="Toy pull",
            explanation="A sentence and one that means the same, nothing against them.",
            has_positives=True,
            loss=ToyPull,
            card="with the toy objective",
        )
    )
    MEASURES.add(
        Measure(
            name=MEASURE,
            label="toy spread",
            better="↑",
            explanation="Mean standard deviation of the dimensions.",
            compute=lambda vectors: np.std(vectors, axis=0).mean(),
        )
    )
    yield
    STRATEGIES.remove(POOLING)
    OBJECTIVES.remove(OBJECTIVE)
    MEASURES.remove(MEASURE)


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets/pairs.csv")[["sentence1", "sentence2", "score"]].head(40)


@pytest.fixture(scope="module")
def result(tiny_encoder_folder, pairs):
    """A run with both. Do not change it."""
    triplets = pd.read_csv(ROOT / "assets/triplets.csv").head(40)
    config = lwap.TrainConfig(
        encoder=str(tiny_encoder_folder),
        pooling=POOLING,
        objective=OBJECTIVE,
        epochs=8,
        batch_size=20,
        learning_rate=3e-3,
        eval_steps=4,
        precision="fp32",
    )
    return lwap.train(config, triplets, pairs, dev_name="toy pairs")


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    """The run's checkpoint. Do not change it."""
    target = tmp_path_factory.mktemp("toys") / "toy"
    return save_result(
        result,
        target,
        name="toy",
        encoder=identify_encoder(result.config.encoder),
        data_name="toys",
        data_sha256="0" * 64,
        dev_sha256="0" * 64,
        command="",
    )


def test_it_is_trained(result):
    losses = result.history["loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0]
    assert result.results["dev_spearman"].keys() == {POOLING, "mean", "cls"}


def test_it_is_saved_with_a_card_and_loaded_as_it_was(result, folder, pairs):
    info = read_info(folder)
    assert info.pooling == POOLING
    card = (folder / "README.md").read_text("utf-8")
    assert "Toy mix, on top of" in card and "with the toy objective" in card
    texts = pairs["sentence1"].tolist()
    np.testing.assert_allclose(
        lwap.load(folder, device="cpu").encode(texts), result.model.encode(texts), atol=1e-6
    )
    assert lwap.verify(str(folder))


def test_it_is_evaluated_beside_the_others(folder, pairs):
    model = lwap.load(folder, device="cpu")
    assert POOLING in lwap.strategies(model)
    task = lwap.Task.from_pairs(pairs, "toy pairs")
    found = lwap.evaluate_sts(model, [task], ["mean", POOLING], resamples=20)
    assert found.own == {found.models[0]: POOLING}
    own = model.encode([*task.first, *task.second]).astype(float)
    unit = own / np.linalg.norm(own, axis=1, keepdims=True)
    expected = (unit[: len(task)] * unit[len(task) :]).sum(axis=1)
    np.testing.assert_allclose(found.cosines[0][1], expected, atol=1e-5)


def test_it_is_explained(folder, pairs):
    texts = pairs["sentence1"].head(3).tolist()
    found = lwap.explain(lwap.load(folder, device="cpu"), texts)
    assert found.strategy == POOLING and found.query_names == ["toy"]
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)


def test_the_measure_is_in_the_table(folder, pairs):
    model, task = lwap.load(folder, device="cpu"), lwap.Task.from_pairs(pairs, "toy pairs")
    row = lwap.evaluate_geometry(model, task, [POOLING]).table.iloc[0]
    texts = list(dict.fromkeys([*task.first, *task.second]))
    assert row[MEASURE] == pytest.approx(model.encode(texts).std(axis=0).mean(), rel=1e-4)


def test_the_commands_offer_them(run_json, capsys, folder, pairs, tmp_path):
    cli.parser.cache_clear()  # other tests may have asked before
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert OBJECTIVE in text and POOLING in text
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    found = run_json("compare", tmp_path / "pairs.csv", "--model", folder)
    assert POOLING in found["spearman"]


@pytest.fixture
def open_toy(open_page, folder, monkeypatch):
    """Open a page where the toy is the only checkpoint."""

    def open_toy(page: str, **link):
        app = open_page(page, checkpoints=folder.parent, **link)
        assert not app.exception and not app.error
        return app

    return open_toy


def words(app) -> str:
    return " ".join(element.value for element in [*app.markdown, *app.caption])


def test_the_pages_offer_and_draw_them(open_toy):
    layers = open_toy("layers")
    assert layers.get("plotly_chart") and "toy mix" in words(layers)
    pairs_page = open_toy("pairs")
    assert POOLING in pairs_page.multiselect(key="strategies").value
    finetune = open_toy("finetune")
    assert POOLING in finetune.selectbox(key="train_minute_supervised_pooling").options
    assert "Toy pull" in finetune.segmented_control(key="train_objective").options
    models = open_toy("models")
    assert "toy mix" in models.dataframe[0].value.to_string()
