"""Training beyond the head: LoRA and full runs, dropout views, large batches, what is saved."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.nn import functional

import lwap
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.manifest import Contents, read_info
from lwap.checkpoints.save import save_checkpoint
from lwap.encoding.adapters import ADAPTER, add_adapter, apply_adapter
from lwap.errors import CheckpointError, ConfigError, InputError
from lwap.pooling.strategies import own_vectors
from lwap.training import TrainConfig, train
from lwap.training.batches import _groups, embed_columns
from lwap.training.examples import Examples
from lwap.training.frozen import BankEncoder, dropout_views, view
from lwap.training.objectives import CachedContrastiveLoss, ContrastiveLoss, info_nce

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = {"head": Contents.HEAD, "lora": Contents.ADAPTER, "full": Contents.ENCODER}


@pytest.fixture(scope="module")
def dev_pairs() -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets/pairs.csv")[["sentence1", "sentence2", "score"]]


@pytest.fixture(scope="module")
def triplets() -> pd.DataFrame:
    """48 triplets of the example sentences: the same said otherwise, and another message."""
    table = pd.read_csv(ROOT / "assets/sentences.csv")
    plain, formal = (
        table[table.register == name].sentence.tolist() for name in ("plain", "formal")
    )
    rows = zip(plain[:48], formal[:48], plain[100:148], strict=True)
    return pd.DataFrame(rows, columns=["sent0", "sent1", "hard_neg"])


@pytest.fixture(scope="module")
def settings(tiny_encoder_folder):
    def make(**changes) -> TrainConfig:
        small = {
            "encoder": str(tiny_encoder_folder),
            "mode": "full",
            "batch_size": 16,
            "learning_rate": 1e-3,
            "eval_steps": 2,
            "precision": "fp32",
        }
        return TrainConfig(**(small | changes))

    return make


def encoder_weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model[0].model.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


# --- batches ------------------------------------------------------------------------------------


def columns_of(model, *texts: list[str]) -> list[dict]:
    return [model.preprocess(column) for column in texts]


@pytest.mark.parametrize("group_tokens", [1, 40, 10_000])
@pytest.mark.parametrize("share", [True, False])
def test_a_batch_in_groups_gives_what_each_column_gives_alone(
    share, group_tokens, tiny_model, triplets
):
    model = tiny_model.eval()
    texts = [triplets[name][:7].tolist() for name in triplets]
    texts[2] = [texts[0][3]] * 3 + texts[2][:4]  # a sentence of another column, repeated
    columns = columns_of(model, *texts)
    found = embed_columns(model, columns, share=share, group_tokens=group_tokens)
    for made, features in zip(found, columns, strict=True):
        expected = model(dict(features))["sentence_embedding"]
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


def test_shared_sentences_are_encoded_once(tiny_model, monkeypatch):
    rows = []
    forward = type(tiny_model[0]).forward

    def spy(self, features, **options):
        rows.append(tuple(features["input_ids"].shape))
        return forward(self, features, **options)

    monkeypatch.setattr(type(tiny_model[0]), "forward", spy)
    texts = ["A heron waits.", "A heron waits in the reeds by the river."]
    columns = columns_of(tiny_model, texts, [texts[0]] * 2, texts[::-1])
    embed_columns(tiny_model, columns, group_tokens=10_000)
    assert sum(count for count, _ in rows) == 2
    rows.clear()
    embed_columns(tiny_model, columns, share=False, group_tokens=10_000)
    assert sum(count for count, _ in rows) == 6


@pytest.mark.parametrize(
    ("lengths", "budget", "sizes"),
    [
        ([9, 8, 3, 3, 2, 1], 18, [2, 4]),
        ([9, 9, 9], 1, [1, 1, 1]),  # one alone may be above it
        ([2, 2, 2, 2], 100, [4]),
        ([5], 5, [1]),
    ],
)
def test_groups_fill_the_budget_and_lose_nobody(lengths, budget, sizes):
    groups = _groups(lengths, budget)
    assert [group.stop - group.start for group in groups] == sizes
    assert [row for group in groups for row in range(group.start, group.stop)] == list(
        range(len(lengths))
    )


# --- the objective ------------------------------------------------------------------------------


def simcse(embeddings, temperature, weight) -> float:
    """SimCSE's loss in loops over numbers."""
    unit = [functional.normalize(column, dim=1).numpy() for column in embeddings]
    losses = []
    for i in range(len(unit[0])):
        total = 0.0
        for place, column in enumerate(unit[1:]):
            for j, other in enumerate(column):
                logit = float(unit[0][i] @ other) / temperature
                total += math.exp(logit + (weight if place and i == j else 0.0))
        losses.append(-math.log(math.exp(float(unit[0][i] @ unit[1][i]) / temperature) / total))
    return float(np.mean(losses))


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("columns", [2, 3])
def test_info_nce_is_simcses_formula(columns, weight):
    embeddings = [torch.randn(6, 5, dtype=torch.float64) for _ in range(columns)]
    found = info_nce(embeddings, temperature=0.3, hard_negative_weight=weight)
    assert found.item() == pytest.approx(simcse(embeddings, 0.3, weight), abs=1e-9)


def test_half_precision_embeddings_are_compared_in_full():
    embeddings = [torch.randn(8, 16) for _ in range(3)]
    half = [column.bfloat16() for column in embeddings]
    found = info_nce(half, temperature=0.05, hard_negative_weight=1.0)
    exact = [column.bfloat16().float() for column in embeddings]
    assert found.dtype == torch.float32
    assert found == info_nce(exact, temperature=0.05, hard_negative_weight=1.0)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_cached_batch_has_the_loss_and_gradients_of_the_whole(weight, tiny_model, triplets):
    columns = [triplets[name][:8].tolist() for name in triplets]
    found = []
    for loss in (
        ContrastiveLoss(tiny_model.eval(), 0.1, weight),
        CachedContrastiveLoss(tiny_model, 0.1, weight, mini_batch=3),
    ):
        tiny_model.zero_grad()
        value = loss(columns_of(tiny_model, *columns), None)
        value.backward()
        gradients = {
            name: value.grad.clone()
            for name, value in tiny_model.named_parameters()
            if value.grad is not None
        }
        found.append((value.item(), gradients))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-4, rtol=1e-3)
    tiny_model.zero_grad()


def test_two_views_differ_by_dropout_alone(tiny_model):
    texts = ["A heron waits in the reeds.", "The crane lifts a beam.", "Nobody swims here."]
    loss = ContrastiveLoss(tiny_model, 0.05, share=False)
    tiny_model.train()
    torch.manual_seed(0)
    first, second = embed_columns(tiny_model, columns_of(tiny_model, texts, texts), share=False)
    assert not torch.allclose(first, second)
    tiny_model.eval()  # no dropout: the closed form of cos(a, a) = 1
    first, second = embed_columns(tiny_model, columns_of(tiny_model, texts, texts), share=False)
    torch.testing.assert_close(first, second)
    unit = functional.normalize(first, dim=1)
    logits = (unit @ unit.T / 0.05).detach()
    closed = -(1 / 0.05 - torch.logsumexp(logits, dim=1)).mean()
    found = loss(columns_of(tiny_model, texts, texts), None)
    assert found.item() == pytest.approx(closed.item(), abs=1e-4)
    theirs = MultipleNegativesRankingLoss(tiny_model, scale=20)
    assert found.item() == pytest.approx(theirs(columns_of(tiny_model, texts, texts), None).item())


def test_views_of_a_frozen_encoder_differ_and_dropout_0_makes_them_equal(tiny_model):
    texts = ["A heron waits in the reeds.", "Nobody swims."]
    names, query, means = dropout_views(tiny_model, texts, views=2)
    assert names == [view(text, number) for number in (0, 1) for text in texts]
    assert not torch.allclose(means[0], means[2])
    head = BankEncoder((names, query, means))
    made = head(head.preprocess([view(texts[1], 1)]))
    torch.testing.assert_close(made["layer_means"][0], means[3])
    for module in tiny_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    _, _, means = dropout_views(tiny_model, texts, views=2)
    torch.testing.assert_close(means[0], means[2])
    torch.testing.assert_close(means[1], means[3])


def test_views_are_made_in_the_precision_that_is_set(settings, triplets, dev_pairs, monkeypatch):
    from lwap.training import frozen

    asked = []
    original = frozen.in_precision

    def spy(precision, device):
        asked.append(str(precision))
        return original(precision, device)

    monkeypatch.setattr(frozen, "in_precision", spy)
    for precision in ("bf16", "fp32"):
        config = settings(mode="head", objective="unsupervised", precision=precision, max_steps=1)
        train(config, triplets["sent0"].tolist(), dev_pairs)
    assert asked == ["bf16", "fp32"]


def test_views_in_bf16_are_those_in_fp32_but_for_rounding(tiny_model):
    texts = ["A heron waits in the reeds.", "Nobody swims."]
    for module in tiny_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    _, _, exact = dropout_views(tiny_model, texts, views=2)
    _, _, rounded = dropout_views(tiny_model, texts, views=2, precision="bf16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.999


# --- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["lwap", "scalar_mix", "cls", "mean"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_what_is_trained_changes_and_nothing_else(
    mode, pooling, settings, triplets, dev_pairs, tiny_encoder_folder
):
    result = train(settings(mode=mode, pooling=pooling), triplets, dev_pairs)
    before = encoder_weights(load(str(tiny_encoder_folder)))
    after = encoder_weights(result.model)
    if mode == "lora":
        plain = {name.replace(".base_layer", ""): value for name, value in after.items()}
        assert changed(before, plain) == set()
        assert any("lora_A" in name for name in after)
        assert any(value.any() for name, value in after.items() if "lora_B" in name)
    else:
        assert len(changed(before, after)) > len(before) / 2
    assert result.history.loss.iloc[-1] < result.history.loss.iloc[1] + 0.5
    assert {"dev", "alignment", "uniformity"} <= set(result.history.columns)
    assert ("layer_weights" in result.history) == (pooling in ("lwap", "scalar_mix"))


@pytest.mark.parametrize("mode", ["head", "lora", "full"])
@pytest.mark.parametrize("objective", ["supervised", "unsupervised"])
def test_a_seed_decides_everything(objective, mode, settings, triplets, dev_pairs):
    config = settings(mode=mode, objective=objective, epochs=1)
    first, second = (train(config, triplets, dev_pairs) for _ in range(2))
    assert first.history.loss[1:].tolist() == second.history.loss[1:].tolist()
    texts = ["A heron waits.", "Nobody swims in the river."]
    np.testing.assert_array_equal(first.model.encode(texts), second.model.encode(texts))


@pytest.mark.parametrize("mode", ["head", "lora", "full"])
@pytest.mark.parametrize("pooling", ["lwap", "cls", "mean"])
def test_a_saved_model_gives_the_same_embeddings(
    pooling, mode, settings, triplets, dev_pairs, tmp_path, tiny_encoder_folder
):
    if (mode, pooling) == ("head", "mean"):
        with pytest.raises(ConfigError, match="pooling 'mean' has no weights"):
            settings(mode=mode, pooling=pooling)
        return
    result = train(settings(mode=mode, pooling=pooling), triplets, dev_pairs)
    texts = ["A heron waits.", "Nobody swims in the river.", "x"]
    expected = result.model.encode(texts)
    bank = lwap.encode_layers(result.model, texts)
    np.testing.assert_allclose(own_vectors(bank, result.model), expected, atol=1e-5)
    folder = save_checkpoint(
        result.model,
        tmp_path / "mine",
        name="mine",
        **identify_encoder(str(tiny_encoder_folder)),
        training=result.config.to_dict(),
        results=result.results,
        card="A model.",
        contains=CONTENTS[mode],
    )
    again = load(str(folder))
    np.testing.assert_allclose(again.encode(texts), expected, atol=1e-5)
    assert read_info(folder).pooling == pooling
    assert (folder / "model.safetensors").exists() == (mode == "full")
    assert (folder / ADAPTER).exists() == (mode == "lora")
    assert not any("lora" in name for name in encoder_weights(again))
    assert all(parameter.requires_grad for parameter in again[0].model.parameters())
    lwap.verify(str(folder))


def test_the_score_is_that_of_the_models_own_encode(settings, triplets, dev_pairs):
    result = train(settings(pooling="cls", mode="lora"), triplets, dev_pairs)
    first, second = (
        result.model.encode(dev_pairs[name].tolist(), normalize_embeddings=True).astype(float)
        for name in ("sentence1", "sentence2")
    )
    cosines = (first * second).sum(axis=1).round(6)
    expected = 100 * pd.Series(cosines).corr(dev_pairs.score, method="spearman")
    assert result.results["dev_spearman"]["trained"]["value"] == pytest.approx(expected, abs=0.01)
    assert {"mean", "cls", "trained"} == result.results["dev_spearman"].keys()


def test_adapters_of_another_encoder_are_refused(tiny_encoder_folder, tmp_path, make_encoder):
    from lwap.encoding.adapters import save_adapter

    model = load(str(tiny_encoder_folder))[0].model
    with pytest.raises(CheckpointError, match="has no adapters to save"):
        save_adapter(model, tmp_path / "none")
    add_adapter(model, 2, 4)
    save_adapter(model, tmp_path / "adapter")
    assert all("lora_" in name for name in load_file(tmp_path / "adapter/adapter.safetensors"))
    other = load(str(make_encoder("distilbert")))[0].model
    with pytest.raises(CheckpointError, match="do not fit the encoder"):
        apply_adapter(other, tmp_path / "adapter")


def test_settings_of_a_mode_have_its_defaults():
    rates = {mode: TrainConfig(mode=mode).learning_rate for mode in ("head", "lora", "full")}
    assert rates == {"head": 1e-3, "lora": 1e-4, "full": 2e-5}
    assert TrainConfig(mode="full").head_learning_rate == 1e-4
    assert TrainConfig(mode="full", pooling="mean").head_learning_rate is None
    assert TrainConfig().epochs == 3 and TrainConfig(mode="full").epochs == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "head", "mini_batch": 8}, "mini_batch would have no effect"),
        ({"mode": "head", "dropout": 0.1}, "dropout would have no effect"),
        ({"mode": "full", "lora_rank": 4}, "lora_rank would have no effect"),
        ({"mode": "full", "pooling": "cls", "residual": "last_mean"}, "residual would have no"),
        ({"pooling": "mean", "head_learning_rate": 1e-3}, "head_learning_rate would have no"),
        ({"objective": "unsupervised", "hard_negative_weight": 1.0}, "no hard negatives"),
        ({"mode": "half"}, "mode is 'half'; it must be one of 'head', 'lora', 'full'"),
        ({"objective": "guess"}, "objective is 'guess'"),
        ({"dropout": 0.95}, "dropout is 0.95; it must be between"),
    ],
)
def test_what_would_be_ignored_is_refused(changes, message, settings):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_dropout_max_tokens_and_rates_arrive(settings, triplets, dev_pairs, monkeypatch):
    from sentence_transformers import SentenceTransformerTrainer

    ran = []
    original = SentenceTransformerTrainer.train

    def spy(self, *args, **kwargs):
        transformer = self.model[0]
        shares = {m.p for m in transformer.model.modules() if isinstance(m, torch.nn.Dropout)}
        width = transformer.preprocess(["word " * 40])["input_ids"].shape[1]
        ran.append((self, shares, width))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformerTrainer, "train", spy)
    config = settings(
        dropout=0.25, max_tokens=7, head_learning_rate=0.02, accumulation=2, max_steps=1, warmup=0.0
    )
    result = train(config, triplets, dev_pairs)
    ((trainer, shares, width),) = ran
    assert shares == {0.25}
    assert width == 7
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {0.02, 1e-3}
    assert trainer.args.gradient_accumulation_steps == 2
    assert trainer.state.global_step == 1
    assert result.model[0].preprocess(["word " * 40])["input_ids"].shape[1] > 7  # as it was


def test_dev_sentences_are_read_whole_whatever_is_cut_off_in_training(
    settings, triplets, dev_pairs
):
    config = settings(pooling="mean", max_tokens=4, max_steps=1)
    said = []
    train(config, triplets, dev_pairs, log=said.append)
    start, before = (
        next(line for line in said if line["event"] == event) for event in ("start", "look")
    )
    assert before["dev"] == pytest.approx(start["untouched"], abs=1e-3)


def test_patience_ends_a_run(settings, triplets, dev_pairs, monkeypatch):
    from lwap.training.dev_evaluation import DevSet

    monkeypatch.setattr(DevSet, "look", lambda dev, model: {"dev": 1.0})
    result = train(settings(epochs=10, eval_steps=1, patience=3), triplets, dev_pairs)
    assert result.history.step.tolist() == [0, 1, 2, 3]
    assert result.best_step == 0


def test_sentences_need_dev_pairs_and_the_unsupervised_objective(settings, triplets):
    texts = triplets["sent0"].tolist()
    with pytest.raises(ConfigError, match="has no positives to hold out"):
        train(settings(objective="unsupervised"), texts)
    with pytest.raises(InputError, match="needs pairs or triplets"):
        train(settings(), texts)


def test_pairs_without_hard_negatives_are_trained_on(settings, triplets, dev_pairs):
    result = train(settings(), triplets[["sent0", "sent1"]], dev_pairs)
    assert result.triplets == 48
    with pytest.raises(InputError, match="have no column 'hard_neg'"):
        Examples.of(triplets.rename(columns={"hard_neg": "negative"}), "supervised")
