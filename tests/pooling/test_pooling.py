"""The pooling heads against loops written from DESIGN's equations, in float64."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from lwap.encoding.reductions import first_token, last_token, token_max, token_mean
from lwap.errors import ConfigError, ModelError, check_choice
from lwap.pooling.formulas import knocked_out_weights, layer_attention
from lwap.pooling.head import LayerHead
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix

B, S, D = 5, 4, 6
SLOPE = 11 / 48  # the mean of 1/8 and 1/3
OPTIONS = [
    {"query": query, "scale": scale, "residual": residual, "layer_norm": layer_norm}
    for query, scale, residual, layer_norm in itertools.product(
        ("all", "last"), ("states", "sqrt_dim"), ("none", "last_mean"), (False, True)
    )
]


def random_summaries(seed: int = 0, std: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (B, S, D)
    return {
        "layer_cls": std * torch.randn(shape, generator=generator),
        "layer_means": std * torch.randn(shape, generator=generator),
    }


def random_head(seed: int = 0, std: float = 1.0, **options) -> LayerwiseAttentionPooling:
    """Return a head in eval mode, every parameter drawn anew: no default is left in place."""
    head = LayerwiseAttentionPooling(D, S, **options).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return head


def matrix_times(matrix, vector) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def normalised(vector, norm) -> list[float]:
    """torch's LayerNorm of one vector, spelled out."""
    mean = sum(vector) / len(vector)
    variance = sum((x - mean) ** 2 for x in vector) / len(vector)
    weight, bias = norm.weight.tolist(), norm.bias.tolist()
    return [
        (x - mean) / math.sqrt(variance + norm.eps) * w + b
        for x, w, b in zip(vector, weight, bias, strict=True)
    ]


def slow_lwap(head, cls, means, without: int | None = None) -> tuple[list[float], list[list]]:
    """Return e and A of one sentence, equation by equation, for state `without` left out.

    `cls` and `means` are S vectors; the state that is left out leaves keys and values only.
    """

    def activated(matrix, vector):
        return [x if x >= 0 else SLOPE * x for x in matrix_times(matrix.tolist(), vector)]

    c = [normalised(v, head.norm) if head.layer_norm else v for v in cls.tolist()]
    a = [normalised(v, head.norm) if head.layer_norm else v for v in means.tolist()]
    states = [state for state in range(S) if state != without]
    asking = range(S) if head.query_states == "all" else [S - 1]
    keys = {state: activated(head.key.weight, a[state]) for state in states}
    values = {state: activated(head.value.weight, a[state]) for state in states}
    divisor = S if head.scale == "states" else math.sqrt(D)

    attention, pooled = [], [0.0] * D
    for i in asking:
        query = activated(head.query.weight, c[i])
        logits = [sum(q * k for q, k in zip(query, keys[s], strict=True)) / divisor for s in states]
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        row = [exponential / sum(exponentials) for exponential in exponentials]
        attention.append(row)
        for weight, state in zip(row, states, strict=True):
            for d in range(D):
                pooled[d] += weight * values[state][d] / len(asking)
    dense = matrix_times(head.dense.weight.tolist(), [*c[-1], *pooled])
    embedding = [math.tanh(x + b) for x, b in zip(dense, head.dense.bias.tolist(), strict=True)]
    if head.residual == "last_mean":
        last = means[-1].tolist()
        length = math.sqrt(sum(x * x for x in last))
        scale = head.residual_scale.item() * math.sqrt(D)
        embedding = [e + scale * x / length for e, x in zip(embedding, last, strict=True)]
    return embedding, attention


# --- reductions of token states ------------------------------------------------------------------

HIDDEN = torch.randn(3, 5, D, generator=torch.Generator().manual_seed(1))
MASKS = {
    "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]],
    "none": None,
}


@pytest.mark.parametrize("side", list(MASKS))
def test_token_reductions_equal_a_loop_over_real_tokens(side):
    mask = None if MASKS[side] is None else torch.tensor(MASKS[side])
    for row, hidden in enumerate(HIDDEN):
        real = [
            token for place, token in enumerate(hidden) if mask is None or mask[row, place] == 1
        ]
        expected = {
            first_token: real[0],
            last_token: real[-1],
            token_mean: sum(real) / len(real),
            token_max: torch.stack(real).amax(dim=0),
        }
        for reduce, value in expected.items():
            torch.testing.assert_close(reduce(HIDDEN, mask)[row], value)


@pytest.mark.parametrize("reduce", [first_token, last_token, token_mean, token_max])
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_stands_in_padding_is_irrelevant(reduce, side):
    mask = torch.tensor(MASKS[side])
    other = torch.where(mask.unsqueeze(-1) == 1, HIDDEN, torch.full_like(HIDDEN, 1e4))
    assert torch.equal(reduce(HIDDEN, mask), reduce(other, mask))


def test_maximum_of_negative_values_is_not_that_of_the_padding():
    hidden, mask = -torch.ones(1, 2, D), torch.tensor([[1, 0]])
    assert torch.equal(token_max(hidden, mask), -torch.ones(1, D))


@pytest.mark.parametrize("reduce", [first_token, last_token, token_mean, token_max])
def test_token_reductions_keep_the_dtype(reduce):
    mask = torch.tensor(MASKS["right"])
    assert reduce(HIDDEN.bfloat16(), mask).dtype == torch.bfloat16


# --- layer-wise attention pooling -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: "-".join(map(str, options.values()))
)
def test_equals_the_equations(options):
    head, features = random_head(std=0.5, **options), random_summaries()
    found = head(features)
    doubled = {name: value.double() for name, value in features.items()}
    exact = copy.deepcopy(head).double()(doubled)
    for row in range(B):
        embedding, attention = slow_lwap(
            head, doubled["layer_cls"][row], doubled["layer_means"][row]
        )
        for output, limit in ((found, 1e-6), (exact, 1e-12)):
            vector, weights = (
                output[name][row].detach().numpy()
                for name in ("sentence_embedding", "layer_attention")
            )
            assert np.abs(vector - embedding).max() <= limit
            assert np.abs(weights - attention).max() <= limit
    assert found["layer_attention"].shape == (B, S if options["query"] == "all" else 1, S)
    assert found["sentence_embedding"].shape == (B, D)


def test_the_defaults_are_those_of_the_released_code():
    head = LayerwiseAttentionPooling(embedding_dimension=D, num_states=S)
    assert head.get_config_dict() == {
        "embedding_dimension": D,
        "num_states": S,
        "query": "all",
        "scale": "states",
        "residual": "none",
        "layer_norm": False,
    }
    assert head.logit_divisor == S
    assert LayerwiseAttentionPooling(D, S, scale="sqrt_dim").logit_divisor == math.sqrt(D)


def test_a_state_dict_of_the_documented_keys_loads_strictly():
    shapes = {
        "query.weight": (D, D),
        "key.weight": (D, D),
        "value.weight": (D, D),
        "dense.weight": (D, 2 * D),
        "dense.bias": (D,),
    }
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    head = LayerwiseAttentionPooling(embedding_dimension=D, num_states=S)
    head.load_state_dict(weights, strict=True)
    assert list(head.state_dict()) == list(shapes)
    assert all(torch.equal(head.state_dict()[name], weights[name]) for name in shapes)


@pytest.mark.parametrize("options", OPTIONS[::5])
def test_attention_rows_sum_to_one(options):
    attention = random_head(**options)(random_summaries(std=3))["layer_attention"]
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:2]))


def test_eval_is_deterministic_and_train_is_random():
    head, features = random_head(), random_summaries()

    def embed() -> torch.Tensor:
        return head(features)["sentence_embedding"]

    assert torch.equal(embed(), embed())
    head.train()
    first, second = embed(), embed()
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    again = embed()
    torch.manual_seed(3)
    assert torch.equal(again, embed())


def test_slopes_in_training_lie_between_an_eighth_and_a_third():
    head = LayerwiseAttentionPooling(1, S).train()
    with torch.no_grad():
        for name, weight in {"value": -1.0, "query": 0.0, "key": 0.0}.items():
            getattr(head, name).weight.fill_(weight)
        head.dense.weight.copy_(torch.tensor([[0.0, 1.0]]))
        head.dense.bias.zero_()
    ones = torch.ones(500, S, 1)
    # Even attention over S values −slope: p is the mean of S slopes.
    pooled = head({"layer_cls": ones, "layer_means": ones})["sentence_embedding"].atanh().flatten()
    assert (-pooled > 1 / 8).all() and (-pooled < 1 / 3).all()
    assert -pooled.mean().item() == pytest.approx(SLOPE, abs=0.01)
    pooled = head.eval()({"layer_cls": ones, "layer_means": ones})["sentence_embedding"].atanh()
    assert -pooled.mean().item() == pytest.approx(SLOPE, abs=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_reach_every_parameter_and_every_state(options):
    head = random_head(**options)
    features = {name: value.requires_grad_() for name, value in random_summaries(std=0.3).items()}
    head(features)["sentence_embedding"].square().sum().backward()
    means = features["layer_means"].grad.abs().sum(dim=(0, 2))
    queries = features["layer_cls"].grad.abs().sum(dim=(0, 2))
    assert (means > 0).all()
    # With query="last" only the last CLS asks; the others are not part of the formula.
    expected = [True] * S if options["query"] == "all" else [False] * (S - 1) + [True]
    assert (queries > 0).tolist() == expected
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())


@pytest.mark.parametrize(
    "head", [random_head(), random_head(residual="last_mean", layer_norm=True), ScalarMix(D, S)]
)
def test_inputs_are_never_written_to(head):
    features = random_summaries()
    kept = {name: value.clone() for name, value in features.items()}
    given = dict(features)
    head(features)
    head.knock_out(features["layer_cls"], features["layer_means"])
    assert features.keys() == given.keys()
    assert all(features[name] is given[name] for name in given)
    assert all(torch.equal(features[name], kept[name]) for name in kept)


def test_a_batch_gives_what_its_sentences_give_alone():
    head, features = random_head(), random_summaries()
    whole = head(features)["sentence_embedding"]
    for row in range(B):
        alone = head({name: value[row : row + 1] for name, value in features.items()})
        torch.testing.assert_close(alone["sentence_embedding"][0], whole[row])


def test_causal_decoders_ask_with_the_last_token():
    head, features = random_head(), random_summaries()
    last = random_summaries(seed=1)["layer_cls"]
    found = head({**features, "layer_query": last})["sentence_embedding"]
    assert torch.equal(found, head({**features, "layer_cls": last})["sentence_embedding"])
    assert not torch.allclose(found, head(features)["sentence_embedding"])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("reads_last_token", [False, True])
@pytest.mark.parametrize("head", [random_head(), ScalarMix(D, S)])
def test_all_layer_embeddings_of_the_stock_transformer_give_the_same(head, side, reads_last_token):
    generator = torch.Generator().manual_seed(2)
    states = [torch.randn(3, 5, D, generator=generator) for _ in range(S)]
    mask = torch.tensor(MASKS[side])
    token = last_token if reads_last_token else first_token
    summaries = {
        "layer_cls": torch.stack([token(state, mask) for state in states], dim=1),
        "layer_means": torch.stack([token_mean(state, mask) for state in states], dim=1),
    }
    head = copy.deepcopy(head)
    head.reads_last_token = reads_last_token
    found = head({"all_layer_embeddings": tuple(states), "attention_mask": mask})
    expected = head(summaries)
    for name in ("sentence_embedding", "layer_attention"):
        assert torch.equal(found[name], expected[name])


def test_attention_runs_in_float32_at_least():
    half = {name: value.bfloat16() for name, value in random_summaries().items()}
    head = random_head().bfloat16()
    found = head(half)
    assert found["layer_attention"].dtype == torch.float32
    assert found["sentence_embedding"].dtype == torch.bfloat16
    assert layer_attention(torch.zeros(1, 1, 2, dtype=torch.float64)).dtype == torch.float64


def test_extreme_logits_stay_finite():
    head, features = random_head(), random_summaries(std=1e4)
    found = head(features)
    assert torch.isfinite(found["sentence_embedding"]).all()
    assert torch.equal(found["layer_attention"].amax(dim=-1), torch.ones(B, S))
    removed = head.knock_out(features["layer_cls"], features["layer_means"])
    assert torch.isfinite(removed).all()
    loss = found["sentence_embedding"].sum() + removed.sum()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


# --- scalar mix ----------------------------------------------------------------------------------


def random_mix() -> ScalarMix:
    mix = ScalarMix(D, S).eval()
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
        mix.gamma.fill_(1.7)
    return mix


def slow_mix(mix: ScalarMix, means, without: int | None = None) -> list[float]:
    states = [state for state in range(S) if state != without]
    exponentials = {state: math.exp(mix.weights[state].item()) for state in states}
    total = sum(exponentials.values())
    return [
        mix.gamma.item() * sum(exponentials[s] / total * means[s, d].item() for s in states)
        for d in range(D)
    ]


def test_scalar_mix_equals_a_loop():
    mix, features = random_mix(), random_summaries()
    found = mix(features)
    for row in range(B):
        expected = slow_mix(mix, features["layer_means"][row])
        assert found["sentence_embedding"][row].tolist() == pytest.approx(expected, abs=1e-6)
    assert found["layer_attention"].shape == (B, 1, S)
    assert torch.equal(found["layer_attention"][0], found["layer_attention"][-1])
    torch.testing.assert_close(found["layer_attention"].sum(dim=-1), torch.ones(B, 1))


def test_an_untrained_scalar_mix_is_the_mean_of_all_states():
    features = random_summaries()
    torch.testing.assert_close(
        ScalarMix(D, S)(features)["sentence_embedding"], features["layer_means"].mean(dim=1)
    )


# --- knock-out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: "-".join(map(str, options.values()))
)
@pytest.mark.parametrize("std", [1.0, 30.0])
def test_knock_out_equals_the_equations_without_the_state(options, std):
    """At std 30 single states have all the attention: what is left has underflowed in it."""
    head, features = random_head(**options).double(), random_summaries(std=std)
    cls, means = features["layer_cls"].double(), features["layer_means"].double()
    expected = [
        [slow_lwap(head, cls[row], means[row], without=state)[0] for state in range(S)]
        for row in range(B)
    ]
    assert np.abs(head.knock_out(cls, means).detach().numpy() - expected).max() <= 1e-9
    if std == 1.0:
        single = head.float().knock_out(cls.float(), means.float())
        assert single.shape == (B, S, D)
        assert np.abs(single.detach().numpy() - expected).max() <= 1e-5


def test_scalar_mix_knock_out_equals_a_loop():
    mix, features = random_mix(), random_summaries()
    found = mix.knock_out(features["layer_cls"], features["layer_means"])
    for row, state in itertools.product(range(B), range(S)):
        expected = slow_mix(mix, features["layer_means"][row], without=state)
        assert found[row, state].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_state_without_attention_is_no_loss():
    logits = torch.tensor([[[2.0, 1.0, -torch.inf, 0.0]]])
    weights = knocked_out_weights(logits)
    torch.testing.assert_close(weights[0, 2], layer_attention(logits)[0, 0])
    assert torch.equal(weights[0].diagonal(), torch.zeros(4))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 4))


def test_what_is_left_keeps_its_order_where_one_state_had_all_the_attention():
    logits = torch.tensor([[[1000.0, 0.0, math.log(3.0)]]])
    assert layer_attention(logits)[0, 0].tolist() == [1.0, 0.0, 0.0]
    assert knocked_out_weights(logits)[0, 0].tolist() == pytest.approx([0.0, 0.25, 0.75])


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features",
    [{}, {"token_embeddings": torch.zeros(1, 2, D)}, {"layer_means": torch.zeros(1, S, D)}],
)
@pytest.mark.parametrize("head", [random_head(), ScalarMix(D, S)])
def test_refuses_features_without_layers(head, features):
    with pytest.raises(ModelError, match=r"needs every layer, but its input has only \["):
        head(features)


@pytest.mark.parametrize(
    ("shape", "found"), [((B, S + 1, D), r"5 states of 6\."), ((B, S, D + 1), r"4 states of 7\.")]
)
@pytest.mark.parametrize("head", [random_head(), ScalarMix(D, S)])
def test_refuses_another_encoder(head, shape, found):
    features = {"layer_cls": torch.zeros(shape), "layer_means": torch.zeros(shape)}
    message = f"made for 4 states of 6 dimensions, but the encoder gives {found}"
    with pytest.raises(ModelError, match=message):
        head(features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": "first"}, "query is 'first'; it must be one of 'all', 'last'"),
        ({"scale": "none"}, "scale is 'none'; it must be one of 'states', 'sqrt_dim'"),
        ({"residual": "cls"}, "residual is 'cls'; it must be one of 'none', 'last_mean'"),
        ({"residual": None}, "residual is None; it must be one of"),
        ({"num_states": 1}, "num_states ≥ 2 .* not 6 and 1"),
        ({"embedding_dimension": 0}, "embedding_dimension ≥ 1 .* not 0 and 4"),
    ],
)
def test_refuses_an_option(options, message):
    with pytest.raises(ConfigError, match=message):
        LayerwiseAttentionPooling(**{"embedding_dimension": D, "num_states": S, **options})


def test_scalar_mix_refuses_a_single_state():
    with pytest.raises(ConfigError, match="not 6 and 1"):
        ScalarMix(D, 1)


def test_check_choice_gives_a_member():
    from lwap.pooling.declarations import Query

    assert check_choice("query", "last", Query) is Query.LAST
    assert check_choice("query", Query.ALL, Query) is Query.ALL


def test_every_head_says_how_it_attends():
    with pytest.raises(NotImplementedError):
        LayerHead.logits_and_values(ScalarMix(D, S), torch.zeros(1, S, D), torch.zeros(1, S, D))


# --- in a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*OPTIONS[::3], None])
def test_save_and_load_keep_options_and_weights(options, tmp_path):
    head = random_mix() if options is None else random_head(**options)
    head.save(str(tmp_path), safe_serialization=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config == head.get_config_dict()
    loaded = type(head).load(str(tmp_path)).eval()
    assert loaded.get_config_dict() == head.get_config_dict()
    assert loaded.state_dict().keys() == head.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in head.state_dict().items())
    features = random_summaries()
    for name in ("sentence_embedding", "layer_attention"):
        assert torch.equal(loaded(features)[name], head(features)[name])


@pytest.mark.parametrize("architecture_name", ["bert", "gpt2"])
def test_behind_the_stock_transformer_with_all_hidden_states(
    make_encoder, sentences, architecture_name
):
    """`on_model_ready` tells the head that a decoder is asked with its last token."""
    import lwap

    folder = str(make_encoder(architecture_name))
    ours = lwap.load(folder, device="cpu")
    torch.manual_seed(0)
    head = LayerwiseAttentionPooling(32, 4)
    mine = SentenceTransformer(modules=[ours[0], head], device="cpu")
    stock = Transformer(folder, config_kwargs={"output_hidden_states": True})
    theirs = SentenceTransformer(modules=[stock, copy.deepcopy(head)], device="cpu")
    difference = np.abs(mine.encode(sentences[:6]) - theirs.encode(sentences[:6])).max()
    assert difference <= 1e-6
    assert mine.get_embedding_dimension() == 32


@pytest.mark.parametrize(("dimension", "states"), [(16, 4), (32, 5)])
def test_a_model_with_a_head_of_another_encoder_is_refused(tiny_model, dimension, states):
    message = f"made for {states} states of {dimension} dimensions, but the encoder has 4 states"
    with pytest.raises(ModelError, match=message):
        SentenceTransformer(
            modules=[tiny_model[0], LayerwiseAttentionPooling(dimension, states)], device="cpu"
        )


def test_encode_gives_the_attention_of_each_sentence(tiny_lwap_model, sentences):
    rows = tiny_lwap_model.encode(sentences[:3], output_value=None)
    assert [row["layer_attention"].shape for row in rows] == [(4, 4)] * 3
    for row, vector in zip(rows, tiny_lwap_model.encode(sentences[:3]), strict=True):
        assert np.abs(row["sentence_embedding"].numpy() - vector).max() <= 1e-6
