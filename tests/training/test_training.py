"""Training a head: settings, the objective, the cached encoder, the run, and its model card."""

import dataclasses
import json
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn.modules.module import register_module_forward_pre_hook

import lwap
from lwap.checkpoints.load import identify_encoder, load
from lwap.checkpoints.save import save_checkpoint
from lwap.encoding.bank import encode_layers
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.errors import ConfigError, InputError
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix
from lwap.training import TrainConfig, train
from lwap.training.card import write_card
from lwap.training.examples import Examples
from lwap.training.frozen import BankEncoder
from lwap.training.objectives import ContrastiveLoss

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ordinary(settings, triplets, dev_pairs):
    """An ordinary run: its result, its events, its calls of `progress`. Do not change them."""
    events, calls = [], []
    result = train(
        settings(),
        triplets,
        dev_pairs,
        dev_name="examples",
        log=events.append,
        progress=lambda *call: calls.append(call),
    )
    return result, events, calls


@pytest.fixture(scope="module")
def result(ordinary):
    return ordinary[0]


def steps_of(config: TrainConfig, triplets, dev_pairs) -> list[dict]:
    """Run, and return what was said of each step."""
    events = []
    train(config, triplets, dev_pairs, log=events.append)
    return [event for event in events if event["event"] == "step"]


def head_weights(result) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in result.model[1].state_dict().items()}


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def scipy_spearman(model, pairs: pd.DataFrame) -> float:
    """Return Spearman × 100 of the model's own `encode` on scored pairs."""
    first, second = (
        model.encode(pairs[name].tolist(), normalize_embeddings=True).astype(float)
        for name in ("sentence1", "sentence2")
    )
    return 100 * stats.spearmanr((first * second).sum(axis=1).round(6), pairs.score).statistic


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pooling", "first", "must be one of lwap, scalar_mix, cls, mean"),
        ("query", "first", "must be one of 'all', 'last'"),
        ("scale", "none", "must be one of 'states', 'sqrt_dim'"),
        ("residual", "mean", "must be one of 'none', 'last_mean'"),
        ("precision", "fp8", "must be one of 'fp32', 'bf16', 'auto'"),
        ("epochs", 0, "between 1 and 1000"),
        ("epochs", 1001, "between 1 and 1000"),
        ("batch_size", 1, "between 2 and 65536"),
        ("learning_rate", 0.0, "between 1e-07 and 100.0"),
        ("learning_rate", 150.0, "between 1e-07 and 100.0"),
        ("learning_rate", float("nan"), "between 1e-07 and 100.0"),
        ("warmup", -0.1, "between 0.0 and 1.0"),
        ("warmup", 1.1, "between 0.0 and 1.0"),
        ("weight_decay", -1.0, "between 0.0 and 10.0"),
        ("temperature", 0.0, "between 0.001 and 10.0"),
        ("temperature", -0.05, "between 0.001 and 10.0"),
        ("hard_negative_weight", 21.0, "between -20.0 and 20.0"),
        ("hard_negative_weight", float("inf"), "between -20.0 and 20.0"),
        ("eval_steps", 0, "between 1 and 1000000"),
        ("seed", -1, "between 0 and 4294967295"),
        ("seed", 2**32, "between 0 and 4294967295"),
        ("epochs", 1.5, "of type int"),
        ("epochs", True, "of type int"),
        ("batch_size", "64", "of type int"),
        ("learning_rate", "1e-3", "of type float"),
        ("layer_norm", "no", "of type bool"),
        ("encoder", None, "of type str"),
    ],
)
def test_a_value_outside_its_range_is_named(field, value, message):
    with pytest.raises(ConfigError, match=re.escape(f"{field} is {value!r}"[:-1])) as found:
        TrainConfig(**{field: value})
    assert message in str(found.value)


@pytest.mark.parametrize(
    "options",
    [
        {"query": "last"},
        {"scale": "sqrt_dim"},
        {"residual": "last_mean"},
        {"layer_norm": True},
        {"query": "last", "layer_norm": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_an_option_without_effect_is_refused(options):
    TrainConfig(pooling="lwap", **options)
    with pytest.raises(ConfigError, match=f"^{', '.join(options)} would have no effect"):
        TrainConfig(pooling="scalar_mix", **options)


def test_settings_survive_json():
    config = TrainConfig(
        query="last", residual="last_mean", layer_norm=True, hard_negative_weight=-0.5, seed=7
    )
    written = json.loads(json.dumps(config.to_dict()))
    assert written.keys() == {field.name for field in dataclasses.fields(TrainConfig)}
    assert {type(value) for value in config.to_dict().values() if value is not None} == {
        str,
        int,
        float,
        bool,
    }
    assert TrainConfig(**written) == config


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 1


# --- the objective ------------------------------------------------------------------------------


def random_embeddings(columns: int = 3, batch: int = 6, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 5, generator=generator, dtype=torch.float64) for _ in range(columns)]


def slow_loss(embeddings: list[torch.Tensor], temperature: float, weight: float) -> float:
    """SimCSE's formula, one sentence after the other."""
    anchors, positives, *negatives = [column.tolist() for column in embeddings]

    def similarity(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return math.exp(dot / math.hypot(*a) / math.hypot(*b) / temperature)

    total = 0.0
    for i, anchor in enumerate(anchors):
        denominator = 0.0
        for j in range(len(anchors)):
            denominator += similarity(anchor, positives[j])
            for column in negatives:
                own = math.exp(weight) if i == j else 1.0
                denominator += own * similarity(anchor, column[j])
        total -= math.log(similarity(anchor, positives[i]) / denominator)
    return total / len(anchors)


@pytest.fixture
def loss_of(tiny_model):
    def make(temperature: float = 0.05, weight: float = 0.0) -> ContrastiveLoss:
        return ContrastiveLoss(tiny_model, temperature, weight)

    return make


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.05, 0.7])
@pytest.mark.parametrize("weight", [0.0, 1.0, -2.5, 20.0])
def test_loss_is_simcses_formula(weight, temperature, columns, loss_of):
    embeddings = random_embeddings(columns)
    found = loss_of(temperature, weight).compute_loss_from_embeddings(embeddings, None)
    assert found.item() == pytest.approx(slow_loss(embeddings, temperature, weight), rel=1e-9)


def test_weight_zero_is_multiple_negatives_ranking_loss_exactly(loss_of, tiny_model):
    embeddings = [column.float() for column in random_embeddings()]
    theirs = MultipleNegativesRankingLoss(tiny_model, scale=20.0)
    expected = theirs.compute_loss_from_embeddings(embeddings, None)
    assert torch.equal(loss_of(0.05).compute_loss_from_embeddings(embeddings, None), expected)
    # The own branch, too: a weight that is all but zero goes through it.
    nearly = loss_of(0.05, 1e-12).compute_loss_from_embeddings(embeddings, None)
    assert nearly.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_weight_is_not_a_multiple_of_the_cosine(loss_of):
    # Orthogonal negatives have cosine 0, which sentence-transformers' hardness would not touch.
    anchors = torch.eye(2, 6, dtype=torch.float64)
    embeddings = [anchors, anchors, anchors.roll(3, dims=1)]
    plain, weighted = (
        loss_of(1.0, weight).compute_loss_from_embeddings(embeddings, None) for weight in (0, 2)
    )
    e = math.e  # own positive 1, the three others 0
    assert plain.item() == pytest.approx(-math.log(e / (e + 3)))
    assert weighted.item() == pytest.approx(-math.log(e / (e + 2 + e**2)))


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_gradients_are_those_of_finite_differences(weight, loss_of):
    loss = loss_of(0.5, weight)
    embeddings = [column.requires_grad_() for column in random_embeddings(batch=3)]
    assert torch.autograd.gradcheck(
        lambda *columns: loss.compute_loss_from_embeddings(list(columns), None), embeddings
    )


def test_a_weight_pushes_harder_against_the_own_negative(loss_of):
    def pull(weight):
        embeddings = random_embeddings()
        embeddings[2].requires_grad_()
        loss_of(0.5, weight).compute_loss_from_embeddings(embeddings, None).backward()
        return embeddings[2].grad.norm()

    assert pull(-2) < pull(0) < pull(2)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_order_of_a_batch_is_irrelevant(weight, loss_of):
    embeddings = random_embeddings()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = [column[order] for column in embeddings]
    found = loss_of(0.1, weight).compute_loss_from_embeddings(shuffled, None)
    expected = loss_of(0.1, weight).compute_loss_from_embeddings(embeddings, None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_loss_of_a_model_is_the_loss_of_its_embeddings(tiny_model, loss_of, triplets):
    columns = [triplets[name][:4].tolist() for name in ("sent0", "sent1", "hard_neg")]
    loss = loss_of(0.05, 1.0)
    with torch.inference_mode():
        found = loss([tiny_model.preprocess(texts) for texts in columns], None)
    embeddings = [tiny_model.encode(texts, convert_to_tensor=True) for texts in columns]
    assert found.item() == pytest.approx(slow_loss(embeddings, 0.05, 1.0), rel=1e-4)


def test_loss_names_its_settings(loss_of):
    settings = loss_of(0.25, 1.5).get_config_dict()
    assert (settings["scale"], settings["hard_negative_weight"]) == (4.0, 1.5)


# --- the cached encoder -------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_bank_encoder_gives_what_the_transformer_gives(architecture, make_encoder, sentences):
    model = load(str(make_encoder(architecture)), device="cpu")
    cached = BankEncoder(encode_layers(model, sentences))
    texts = [sentences[place] for place in (4, 0, 4, 7)]
    found = cached(cached.preprocess(texts))
    with torch.inference_mode():
        expected = model[0](model.preprocess(texts))
    query = "layer_query" if architecture == "gpt2" else "layer_cls"
    torch.testing.assert_close(found["layer_cls"], expected[query], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["layer_means"], expected["layer_means"], atol=1e-5, rtol=1e-4)
    assert cached.get_embedding_dimension() == 32


def test_bank_encoder_belongs_to_its_sentences_alone(tiny_model, sentences, tmp_path):
    cached = BankEncoder(encode_layers(tiny_model, sentences))
    assert list(cached.parameters()) == []
    assert cached.state_dict() == {}
    cached.save(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError, match="never seen"):
        cached.preprocess(["never seen"])


# --- a run --------------------------------------------------------------------------------------


def test_the_loss_falls(settings, triplets, dev_pairs):
    result = train(settings(epochs=30, eval_steps=9), triplets, dev_pairs)
    losses = result.history.loss.dropna()
    assert losses.iloc[-2:].mean() < 0.6 * losses.iloc[:2].mean()


RATES = {"lwap": 5e-3, "scalar_mix": 0.5}  # that a pooling learns at in six steps


@pytest.mark.parametrize("pooling", RATES)
def test_a_seed_decides_everything(pooling, settings, triplets, dev_pairs):
    options = {"pooling": pooling, "learning_rate": RATES[pooling]}
    first, again, other = (
        train(settings(seed=seed, **options), triplets, dev_pairs) for seed in (3, 3, 4)
    )
    assert are_equal(head_weights(first), head_weights(again))
    pd.testing.assert_frame_equal(first.history, again.history)
    assert first.results == again.results
    assert not are_equal(head_weights(first), head_weights(other))
    if pooling == "lwap":  # a mix starts with equal weights
        assert first.history.layer_weights[0] != other.history.layer_weights[0]


@pytest.mark.parametrize("pooling", RATES)
def test_the_reported_score_is_the_models_own(pooling, settings, triplets, dev_pairs):
    config = settings(pooling=pooling, learning_rate=RATES[pooling])
    result = train(config, triplets, dev_pairs)
    best = result.history.dev.max()
    assert result.history.dev.nunique() > 2
    assert result.history.set_index("step").dev[result.best_step] == best
    assert result.results["dev_spearman"][pooling]["value"] == pytest.approx(best, abs=1e-4)
    assert scipy_spearman(result.model, dev_pairs) == pytest.approx(best, abs=0.05)
    assert result.results["best_step"] == result.best_step
    bank = encode_layers(result.model, dev_pairs.sentence1)
    np.testing.assert_allclose(
        lwap.embed(bank, pooling), result.model.encode(dev_pairs.sentence1.tolist()), atol=1e-4
    )


def test_the_baselines_are_the_encoders(result, dev_pairs, tiny_encoder_folder):
    assert result.metric == "Spearman × 100 on examples"
    assert result.results["dev_set"] == "examples"
    assert result.results["dev_pairs"] == len(dev_pairs)
    scores = result.results["dev_spearman"]
    for name in ("mean", "cls"):
        encoder = load(str(tiny_encoder_folder))
        encoder[1].pooling_mode = name
        assert scores[name]["value"] == pytest.approx(scipy_spearman(encoder, dev_pairs), abs=0.05)
        assert scores[name]["low"] < scores[name]["value"] < scores[name]["high"]
    difference = result.results["dev_difference_to_mean"]
    assert difference["value"] == pytest.approx(
        scores["lwap"]["value"] - scores["mean"]["value"], abs=2e-4
    )
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert 0 < difference["p_value"] <= 1
    weights = result.results["layer_weights"]
    found = lwap.explain(
        result.model, list(dict.fromkeys([*dev_pairs.sentence1, *dev_pairs.sentence2]))
    ).weights
    assert weights == pytest.approx(found.mean(axis=0).tolist(), abs=1e-3)
    assert sum(weights) == pytest.approx(1, abs=1e-3)


def test_the_encoder_is_not_touched(result, tiny_encoder_folder):
    untouched = load(str(tiny_encoder_folder))[0].state_dict()
    assert isinstance(result.model[0], LayerwiseTransformer)
    assert are_equal(result.model[0].state_dict(), untouched)
    assert not result.model.training


def test_the_result_can_be_saved_and_loaded(result, dev_pairs, tmp_path):
    config = result.config
    folder = save_checkpoint(
        result.model,
        tmp_path / "head",
        name="head",
        **identify_encoder(config.encoder),
        training=config.to_dict(),
        results=result.results,
        card="",
    )
    texts = dev_pairs.sentence1[:5].tolist()
    np.testing.assert_array_equal(load(folder).encode(texts), result.model.encode(texts))


def test_a_prompt_of_the_encoder_stays(settings, triplets, dev_pairs, tiny_model, tmp_path):
    model = SentenceTransformer(
        modules=[tiny_model[0], Pooling(32, "mean")],
        device="cpu",
        prompts={"sts": "compare : "},
        default_prompt_name="sts",
    )
    model.save(str(tmp_path), create_model_card=False)
    result = train(settings(encoder=str(tmp_path)), triplets, dev_pairs)
    assert result.model.default_prompt_name == "sts"
    best = result.history.dev.max()
    assert scipy_spearman(result.model, dev_pairs) == pytest.approx(best, abs=0.05)


# --- what is reported during a run --------------------------------------------------------------


def test_history_and_log_say_the_same(ordinary):
    events, history = ordinary[1], ordinary[0].history
    looks = [event for event in events if event["event"] == "look"]
    pd.testing.assert_frame_equal(pd.DataFrame(looks).drop(columns="event"), history)
    measures = ["dev", "alignment", "uniformity", "layer_weights"]
    assert set(history.columns) == {"step", "steps", "loss", *measures}
    assert history.steps.tolist() == [6] * 4
    assert history.step.tolist() == [0, 2, 4, 6]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 6
    assert math.isnan(history.loss[0])  # nothing was trained yet
    means = [np.mean(losses[start : start + 2]) for start in (0, 2, 4)]
    assert history.loss[1:].tolist() == pytest.approx(means, abs=1e-4)


@pytest.mark.parametrize(
    ("eval_steps", "expected"),
    [(1, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 4, 6]), (999, [0, 6])],  # the last step always is
)
def test_steps_are_looked_at(eval_steps, expected, settings, triplets, dev_pairs):
    history = train(settings(eval_steps=eval_steps), triplets, dev_pairs).history
    assert history.step.tolist() == expected
    assert history.loss[1:].notna().all()


def test_progress_counts_every_distinct_sentence_once(ordinary, triplets, dev_pairs):
    texts = {text for name in triplets for text in triplets[name]}
    dev = {text for name in ("sentence1", "sentence2") for text in dev_pairs[name]}
    done, totals = zip(*ordinary[2], strict=True)
    assert set(totals) == {len(texts) + len(dev)}
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]


def test_a_run_is_silent(settings, triplets, dev_pairs, capfd):
    train(settings(), triplets, dev_pairs)
    train(settings(pooling="scalar_mix"), triplets)
    assert capfd.readouterr() == ("", "")


def test_seconds_are_by_part(result):
    assert list(result.seconds) == ["encoding", "training", "dev"]
    assert min(result.seconds.values()) > 0


@pytest.mark.parametrize("limit", [0, 6])
def test_views_are_read_up_to_the_limit(limit, settings, triplets, dev_pairs):
    widths = []

    def read(module, inputs):
        if isinstance(module, LayerwiseTransformer) and module.training:
            widths.append(inputs[0]["input_ids"].shape[1])

    config = settings(objective="unsupervised", max_tokens=limit, max_steps=1)
    hook = register_module_forward_pre_hook(read)
    try:
        train(config, triplets.sent0.tolist(), dev_pairs)
    finally:
        hook.remove()
    assert max(widths) == 6 if limit else max(widths) > 6


def test_nothing_is_left_on_disk(settings, triplets, dev_pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    train(settings(), triplets, dev_pairs)
    assert list(tmp_path.iterdir()) == []


# --- where each setting arrives -----------------------------------------------------------------


def test_the_encoder_arrives(settings, triplets, dev_pairs, make_encoder):
    other = make_encoder("bert", seed=5, num_hidden_layers=2)
    result = train(settings(encoder=str(other)), triplets, dev_pairs)
    assert result.model.lwap_name == str(other)
    assert result.model[0].num_states == result.model[1].num_states == 3
    assert are_equal(result.model[0].state_dict(), load(str(other))[0].state_dict())


def test_the_pooling_arrives(result, settings, triplets, dev_pairs):
    assert type(result.model[1]) is LayerwiseAttentionPooling
    config = settings(pooling="scalar_mix", learning_rate=RATES["scalar_mix"])
    result = train(config, triplets, dev_pairs)
    assert type(result.model[1]) is ScalarMix
    assert result.model[1].weights.std() > 0  # equal to begin with


def test_the_heads_options_arrive(settings, triplets, dev_pairs):
    options = {"query": "last", "scale": "sqrt_dim", "residual": "last_mean", "layer_norm": True}
    result = train(settings(**options), triplets, dev_pairs)
    found = result.model[1].get_config_dict()
    assert found == options | {"embedding_dimension": 32, "num_states": 4}


def test_epochs_and_batch_size_arrive(settings, triplets, dev_pairs):
    steps = steps_of(settings(epochs=3, batch_size=25), triplets, dev_pairs)
    assert {step["rows"] for step in steps} == {25}
    assert len(steps) == steps[0]["steps"] == 3 * (60 // 25)


@pytest.mark.parametrize(("warmup", "rising"), [(0.0, 0), (0.5, 3), (0.51, 4), (1.0, 6)])
def test_the_learning_rate_and_the_warmup_arrive(warmup, rising, settings, triplets, dev_pairs):
    config = settings(learning_rate=0.004, warmup=warmup)
    rates = [step["learning_rate"] for step in steps_of(config, triplets, dev_pairs)]
    assert rates[:rising] == pytest.approx([0.004 * step / rising for step in range(rising)])
    falling = np.linspace(0.004, 0, 7 - rising)[: 6 - rising]  # linear, to zero
    assert rates[rising:] == pytest.approx(falling.tolist())


def test_the_objective_is_that_of_the_settings_and_the_columns(
    settings, triplets, dev_pairs, tiny_model
):
    """All triplets in one batch: the first loss is that of the untrained mix, by hand."""
    config = settings(
        pooling="scalar_mix", batch_size=60, temperature=0.2, hard_negative_weight=1.5
    )
    steps = steps_of(config, triplets, dev_pairs)
    columns = [triplets[name].tolist() for name in ("sent0", "sent1", "hard_neg")]
    means = [encode_layers(tiny_model, texts).mean for texts in columns]
    untrained = [torch.from_numpy(each.mean(axis=1).astype(float)) for each in means]
    assert steps[0]["loss"] == pytest.approx(slow_loss(untrained, 0.2, 1.5), rel=1e-4)


def test_the_precision_arrives_at_the_triplets_alone(settings, triplets, dev_pairs):
    exact, rounded = [], []
    for precision, events in (("fp32", exact), ("bf16", rounded)):
        train(settings(precision=precision, max_steps=1), triplets, dev_pairs, log=events.append)
    for event, other in zip(exact, rounded, strict=True):
        if event["step"] == 0:  # the untouched encoder, and the untrained head
            assert json.dumps(other) == json.dumps(event)
        elif event["event"] == "step":
            assert 0 < abs(other["loss"] - event["loss"]) < 0.1


# --- held-out triplets --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_without_dev_pairs_a_tenth_is_held_out(seed, settings, triplets):
    result = train(settings(batch_size=9, seed=seed), triplets)
    trained, held_out = Examples.of(triplets, "supervised").hold_out(seed)
    assert result.triplets == len(trained) == 54
    assert result.results["dev_triplets"] == len(held_out) == 6
    assert result.metric == "in-batch accuracy on 6 held-out triplets"
    parts = pd.concat([trained.table, held_out.table])
    assert sorted(map(tuple, parts.values)) == sorted(map(tuple, triplets.values))

    columns = [result.model.encode(texts) for texts in held_out.columns]
    right = 0
    for place, anchor in enumerate(columns[0]):
        candidates = [*columns[1], *columns[2]]
        cosines = [
            float(anchor @ other / np.linalg.norm(anchor) / np.linalg.norm(other))
            for other in candidates
        ]
        right += cosines.index(max(cosines)) == place
    assert result.results["dev_accuracy"] == pytest.approx(100 * right / 6)
    assert result.results["dev_accuracy"] == result.history.dev.max()


def test_the_seed_decides_what_is_held_out(triplets):
    examples = Examples.of(triplets, "supervised")
    first, again, other = (set(examples.hold_out(seed)[1].columns[0]) for seed in (0, 0, 1))
    assert first == again != other


# --- what cannot be trained ---------------------------------------------------------------------


def test_duplicates_are_dropped(settings, triplets, dev_pairs):
    once = train(settings(), triplets, dev_pairs)
    twice = train(settings(), pd.concat([triplets, triplets[:30]]), dev_pairs)
    assert once.triplets == twice.triplets == 60
    assert are_equal(head_weights(once), head_weights(twice))


def test_the_callers_frames_are_not_changed(settings, triplets, dev_pairs):
    before = triplets.copy(), dev_pairs.copy()
    train(settings(), triplets, dev_pairs)
    train(settings(), triplets)
    pd.testing.assert_frame_equal(triplets, before[0])
    pd.testing.assert_frame_equal(dev_pairs, before[1])


@pytest.mark.parametrize(
    ("rows", "has_dev", "left"), [(19, True, 19), (22, False, 20), (1, True, 1)]
)
def test_a_batch_larger_than_the_data_is_refused(
    rows, has_dev, left, settings, triplets, dev_pairs
):
    config = settings(batch_size=21)
    with pytest.raises(ConfigError, match=f"batch_size is 21, but there are only {left} triplets"):
        train(config, triplets[:rows], dev_pairs if has_dev else None)


def nothing_is_encoded(done, total):
    pytest.fail("the sentences were encoded before the data were checked")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dev: dev.drop(columns="score"), "dev pairs have no column 'score'; they need"),
        (lambda dev: dev.drop(columns="sentence2"), "dev pairs have no column 'sentence2'"),
        (lambda dev: dev.assign(score=3.0), r"All 40 pairs have the same score \(3\)"),
        (lambda dev: dev[:2], "at least 3 scored pairs; there are 2"),
        (lambda dev: dev.assign(score=dev.score.where(dev.index != 6)), "Pair 7: the score is nan"),
    ],
)
def test_dev_pairs_that_cannot_be_ranked_are_refused(
    change, message, settings, triplets, dev_pairs
):
    with pytest.raises(InputError, match=message):
        train(settings(), triplets, change(dev_pairs), progress=nothing_is_encoded)


def test_triplets_without_a_column_are_refused(settings, triplets):
    renamed = triplets.rename(columns={"hard_neg": "negative"})
    with pytest.raises(
        InputError, match=r"triplets have no column 'hard_neg'; they need .*negativ"
    ):
        train(settings(), renamed, progress=nothing_is_encoded)


def test_rows_that_cannot_be_used_are_left_out_and_counted(settings, triplets, dev_pairs):
    whole = train(settings(), triplets[:40], dev_pairs)
    broken = triplets.copy()
    broken.loc[40:44, "sent1"] = "  "
    broken.loc[45:49, "sent1"] = broken.sent0[45:50]
    broken.loc[50:54, "hard_neg"] = broken.sent1[50:55]
    broken.loc[55:59, "hard_neg"] = None
    result = train(settings(), broken, dev_pairs)
    assert result.triplets == 40
    assert are_equal(head_weights(whole), head_weights(result))
    with pytest.raises(
        ConfigError, match=r"there are only 40 triplets .*\(20 of 60 were left out\)"
    ):
        train(settings(batch_size=41), broken, dev_pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table[:0], "There are no triplets to train on"),
        (
            lambda table: table.assign(sent1=""),
            r"None of the 60 triplets can be used \(empty cell: 60\)\. Row 1: sent1 is empty\.",
        ),
        (
            lambda table: table.assign(sent1=table.sent0),
            r"\(sent0 is sent1: 60\)\. Row 1: sent0 and sent1 are the same \('",
        ),
    ],
)
def test_data_without_a_row_to_train_on_are_refused(change, message, settings, triplets, dev_pairs):
    with pytest.raises(InputError, match=message):
        train(settings(), change(triplets), dev_pairs, progress=nothing_is_encoded)


def test_a_checkpoint_with_a_head_is_refused(
    settings, triplets, dev_pairs, tiny_lwap_model, tmp_path
):
    tiny_lwap_model.save(str(tmp_path), create_model_card=False)
    with pytest.raises(ConfigError, match=r"is a checkpoint with a head\. Train from its"):
        train(settings(encoder=str(tmp_path)), triplets, dev_pairs, progress=nothing_is_encoded)


def test_a_pre_norm_encoder_needs_layer_norm(settings, triplets, dev_pairs, make_encoder):
    encoder = str(make_encoder("modernbert"))
    with pytest.raises(ConfigError, match=r"modernbert are not normalised .*--layer-norm"):
        train(settings(encoder=encoder), triplets, dev_pairs)
    result = train(settings(encoder=encoder, layer_norm=True), triplets, dev_pairs)
    assert result.model[1].layer_norm is True


# --- the model card -----------------------------------------------------------------------------


@pytest.fixture
def card_of():
    def write(result, dev_sha256="d" * 64) -> str:
        return write_card(
            "my-head",
            result,
            command="python -m lwap train --triplets t.csv",
            data="60 example triplets",
            data_sha256="abcdef0123456789" * 4,
            dev_sha256=dev_sha256,
            contains="head",
        )

    return write


def test_card_says_what_was_measured(card_of, settings, triplets, dev_pairs):
    result = train(settings(residual="last_mean", seed=5), triplets, dev_pairs, dev_name="examples")
    card = card_of(result)
    for name, title in (
        ("lwap", r"\*\*this model\*\*"),
        ("mean", "encoder, mean"),
        ("cls", "encoder, CLS"),
    ):
        score = result.results["dev_spearman"][name]
        row = f"{score['value']:.2f} | [{score['low']:.2f}, {score['high']:.2f}]"
        assert re.search(rf"\| {title} \| {re.escape(row)} \|", card)
    difference = result.results["dev_difference_to_mean"]
    interval = f"{difference['value']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}]"
    assert f"{interval}, paired bootstrap, p = {difference['p_value']:.3f}." in card
    assert "on examples (40 pairs, SHA-256 of the file `dddddddddddddddd…`)" in card
    assert "- Data: 60 example triplets, 60 triplets. SHA-256" in card
    assert "`abcdef0123456789…`" in card
    assert "```bash\npython -m lwap train --triplets t.csv\n```" in card
    assert f"Best step by Spearman × 100 on examples: {result.best_step} of 6." in card
    assert "2 epochs, batch 20, learning rate 0.005, temperature 0.05, " in card
    assert "hard-negative weight 0, weight decay 0, seed 5." in card
    assert "residual `last_mean`" in card
    assert "plus the last layer's mean" in card
    assert "# my-head\n" in card


def test_card_draws_the_layer_weights(card_of, result):
    lines = re.findall(r"^(embeddings|layer \d) +(\d\.\d{3})  (█*)$", card_of(result), re.MULTILINE)
    assert [name for name, _, _ in lines] == ["embeddings", "layer 1", "layer 2", "layer 3"]
    weights = result.results["layer_weights"]
    assert [float(weight) for _, weight, _ in lines] == pytest.approx(weights, abs=6e-4)
    bars = [len(bar) for _, _, bar in lines]
    assert max(bars) == 40
    assert bars == [round(40 * weight / max(weights)) for weight in weights]


def test_card_says_whether_the_difference_spans_zero(card_of, result):
    for low, high, verdict in (
        (-1.0, 0.5, "The interval spans zero: on this set the two cannot be told apart."),
        (0.1, 0.5, "The interval excludes zero."),
        (-2.0, -0.1, "The interval excludes zero."),
    ):
        difference = result.results["dev_difference_to_mean"] | {"low": low, "high": high}
        results = result.results | {"dev_difference_to_mean": difference}
        assert verdict in card_of(dataclasses.replace(result, results=results))


def test_card_of_a_scalar_mix(card_of, settings, triplets, dev_pairs):
    card = card_of(train(settings(pooling="scalar_mix"), triplets, dev_pairs))
    assert "A scalar mix (one learned weight a layer" in card
    assert "**this model**" in card
    assert "Options:" not in card
    assert "## Layer weights" in card


def test_card_of_a_held_out_run(card_of, settings, triplets):
    result = train(settings(), triplets)
    card = card_of(result, dev_sha256="")
    accuracy = result.results["dev_accuracy"]
    assert f"In-batch accuracy on 6 held-out triplets: {accuracy:.2f} %." in card
    assert "Spearman" not in card
    assert "54 triplets. SHA-256" in card
    assert "## Layer weights" in card


def test_card_of_pairs(card_of, settings, triplets):
    result = train(settings(), triplets[list(triplets.columns[:2])])
    card = card_of(result, dev_sha256="")
    held_out = result.results["dev_triplets"]
    assert f"In-batch accuracy on {held_out} held-out pairs: " in card
    assert f", {result.triplets} pairs" in card
    assert result.metric == f"in-batch accuracy on {held_out} held-out pairs"


def test_cards_front_matter_is_yaml(card_of, result):
    config = dataclasses.replace(result.config, encoder="models/a: b #c [d] 'e'")
    card = card_of(dataclasses.replace(result, config=config))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "sentence-transformers"
    assert front["base_model"] == config.encoder
    assert "layer-wise-attention-pooling" in front["tags"]
