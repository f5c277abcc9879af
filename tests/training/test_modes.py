"""Training beyond the head: LoRA and full runs, dropout views, large batches, what is saved."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_pre_hook

import lwap
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.manifest import Contents, read_info
from lwap.checkpoints.save import save_checkpoint
from lwap.encoding.adapters import ADAPTER, add_adapter, apply_adapter
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.errors import CheckpointError, ConfigError, InputError
from lwap.pooling.strategies import own_vectors
from lwap.training import TrainConfig, train
from lwap.training.batches import _groups, embed_columns
from lwap.training.examples import Examples
from lwap.training.frozen import BankEncoder, dropout_views, view
from lwap.training.objectives import CachedContrastiveLoss, ContrastiveLoss, info_nce

CONTENTS = {"head": Contents.HEAD, "lora": Contents.ADAPTER, "full": Contents.ENCODER}


@pytest.fixture(scope="module")
def settings(settings):
    """Return a function that makes a small run of everything, encoder included; 3 steps."""

    def make(**changes) -> TrainConfig:
        return settings(**{"mode": "full", "epochs": 1, "learning_rate": 1e-3, **changes})

    return make


@pytest.fixture(scope="module")
def run_of(settings, triplets, dev_pairs):
    """Return a function from mode and pooling to such a run, made once. Do not change it."""
    made = {}

    def run(mode: str, pooling: str):
        if (mode, pooling) not in made:
            rate = 1e-3 if mode == "full" else 1e-2
            config = settings(mode=mode, pooling=pooling, learning_rate=rate)
            made[mode, pooling] = train(config, triplets, dev_pairs)
            assert made[mode, pooling].best_step > 0
        return made[mode, pooling]

    return run


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
    texts = [triplets[name][:7].tolist() for name in triplets]
    texts[2] = [texts[0][3]] * 3 + texts[2][:4]  # a sentence of another column, repeated
    columns = columns_of(tiny_model, *texts)
    found = embed_columns(tiny_model, columns, share=share, group_tokens=group_tokens)
    for made, features in zip(found, columns, strict=True):
        expected = tiny_model(dict(features))["sentence_embedding"]
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


def test_shared_sentences_are_encoded_once(tiny_model):
    rows = []
    texts = ["A heron waits.", "A heron waits in the reeds by the river."]
    columns = columns_of(tiny_model, texts, [texts[0]] * 2, texts[::-1])
    hook = tiny_model[0].register_forward_pre_hook(
        lambda module, inputs: rows.append(len(inputs[0]["input_ids"]))
    )
    try:
        embed_columns(tiny_model, columns, group_tokens=10_000)
        assert sum(rows) == 2
        rows.clear()
        embed_columns(tiny_model, columns, share=False, group_tokens=10_000)
        assert sum(rows) == 6
    finally:
        hook.remove()


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
def test_a_cached_batch_has_the_loss_and_gradients_of_the_whole(weight, model, triplets):
    columns = [triplets[name][:8].tolist() for name in triplets]
    found = []
    for loss in (
        ContrastiveLoss(model.eval(), 0.1, weight),
        CachedContrastiveLoss(model, 0.1, weight, mini_batch=3),
    ):
        model.zero_grad()
        value = loss(columns_of(model, *columns), None)
        value.backward()
        gradients = {
            name: value.grad.clone()
            for name, value in model.named_parameters()
            if value.grad is not None
        }
        found.append((value.item(), gradients))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-4, rtol=1e-3)
    model.zero_grad()


def test_two_views_differ_by_dropout_alone(model):
    texts = ["A heron waits in the reeds.", "The crane lifts a beam.", "Nobody swims here."]
    loss = ContrastiveLoss(model, 0.05, share=False)
    model.train()
    torch.manual_seed(0)
    first, second = embed_columns(model, columns_of(model, texts, texts), share=False)
    assert not torch.allclose(first, second)
    model.eval()  # no dropout: the closed form of cos(a, a) = 1
    first, second = embed_columns(model, columns_of(model, texts, texts), share=False)
    torch.testing.assert_close(first, second)
    unit = functional.normalize(first, dim=1)
    logits = (unit @ unit.T / 0.05).detach()
    closed = -(1 / 0.05 - torch.logsumexp(logits, dim=1)).mean()
    found = loss(columns_of(model, texts, texts), None)
    assert found.item() == pytest.approx(closed.item(), abs=1e-4)
    theirs = MultipleNegativesRankingLoss(model, scale=20)
    assert found.item() == pytest.approx(theirs(columns_of(model, texts, texts), None).item())


def test_views_of_a_frozen_encoder_differ_and_dropout_0_makes_them_equal(model):
    texts = ["A heron waits in the reeds.", "Nobody swims."]
    names, query, means = dropout_views(model, texts, views=2)
    assert names == [view(text, number) for number in (0, 1) for text in texts]
    assert not torch.allclose(means[0], means[2])
    head = BankEncoder((names, query, means))
    made = head(head.preprocess([view(texts[1], 1)]))
    torch.testing.assert_close(made["layer_means"][0], means[3])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    _, _, means = dropout_views(model, texts, views=2)
    torch.testing.assert_close(means[0], means[2])
    torch.testing.assert_close(means[1], means[3])


def test_views_are_made_in_the_precision_that_is_set(settings, triplets, dev_pairs):
    losses = []
    for precision in ("fp32", "bf16"):
        events = []
        config = settings(mode="head", objective="unsupervised", precision=precision, max_steps=1)
        train(config, triplets["sent0"].tolist(), dev_pairs, log=events.append)
        losses += [event["loss"] for event in events if event["event"] == "step"]
    assert 0 < abs(losses[1] - losses[0]) < 0.1  # rounded, under the same dropout masks


def test_views_in_bf16_are_those_in_fp32_but_for_rounding(model):
    texts = ["A heron waits in the reeds.", "Nobody swims."]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    _, _, exact = dropout_views(model, texts, views=2)
    _, _, rounded = dropout_views(model, texts, views=2, precision="bf16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.999


# --- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["lwap", "scalar_mix", "cls", "mean"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_what_is_trained_changes_and_nothing_else(mode, pooling, run_of, tiny_encoder_folder):
    result = run_of(mode, pooling)
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
    config = settings(mode=mode, objective=objective, max_steps=2)
    first, second = (train(config, triplets[:30], dev_pairs) for _ in range(2))
    assert first.history.loss[1:].tolist() == second.history.loss[1:].tolist()
    texts = ["A heron waits.", "Nobody swims in the river."]
    np.testing.assert_array_equal(first.model.encode(texts), second.model.encode(texts))


@pytest.mark.parametrize("mode", ["head", "lora", "full"])
@pytest.mark.parametrize("pooling", ["lwap", "cls", "mean"])
def test_a_saved_model_gives_the_same_embeddings(
    pooling, mode, settings, run_of, tmp_path, tiny_encoder_folder
):
    if (mode, pooling) == ("head", "mean"):
        with pytest.raises(ConfigError, match="pooling 'mean' has no weights"):
            settings(mode=mode, pooling=pooling)
        return
    result = run_of(mode, pooling)
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


def test_the_score_is_that_of_the_models_own_encode(run_of, dev_pairs):
    result = run_of("lora", "cls")
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


def test_dropout_max_tokens_and_accumulation_arrive(settings, triplets, dev_pairs):
    seen, events = set(), []

    def read(module, inputs):
        if isinstance(module, LayerwiseTransformer) and module.training:
            shares = {m.p for m in module.model.modules() if isinstance(m, torch.nn.Dropout)}
            seen.add((frozenset(shares), inputs[0]["input_ids"].shape[1]))

    config = settings(dropout=0.25, max_tokens=7, accumulation=2, batch_size=10)
    hook = register_module_forward_pre_hook(read)
    try:
        result = train(config, triplets, dev_pairs, log=events.append)
    finally:
        hook.remove()
    assert seen == {(frozenset({0.25}), 7)}
    rows = [event["rows"] for event in events if event["event"] == "step"]
    assert rows == [20, 20, 20]
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


def test_sentences_need_dev_pairs_and_the_unsupervised_objective(settings, triplets):
    texts = triplets["sent0"].tolist()
    with pytest.raises(ConfigError, match="has no positives to hold out"):
        train(settings(objective="unsupervised"), texts)
    with pytest.raises(InputError, match="needs pairs or triplets"):
        train(settings(), texts)


def test_pairs_without_hard_negatives_are_trained_on(settings, triplets, dev_pairs):
    result = train(settings(max_steps=1), triplets[["sent0", "sent1"]], dev_pairs)
    assert result.triplets == 60
    with pytest.raises(InputError, match="have no column 'hard_neg'"):
        Examples.of(triplets.rename(columns={"hard_neg": "negative"}), "supervised")
