"""Facts about models, each against what the model does."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, BertConfig

from lwap.encoding.backbone import (
    find_layers,
    has_unnormalised_states,
    is_causal_decoder,
    position_limit,
)
from lwap.errors import ModelError


@pytest.fixture
def plain_model(architecture, make_encoder):
    return AutoModel.from_pretrained(make_encoder(architecture), dtype=torch.float32).eval()


def random_ids(model, tokens: int = 8, rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, model.config.vocab_size, (rows, tokens), generator=generator)


def test_layers_take_the_hidden_states_in_order(plain_model):
    """Compare what each layer is given with `output_hidden_states`, the last state aside."""
    given = []
    for layer in find_layers(plain_model):
        layer.register_forward_pre_hook(
            lambda module, args, kwargs: given.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    with torch.inference_mode():
        states = plain_model(random_ids(plain_model), output_hidden_states=True).hidden_states
    assert len(given) == len(states) - 1 == 3
    assert all(torch.equal(mine, state) for mine, state in zip(given, states[:-1], strict=True))


def test_albert_has_one_layer_that_runs_often(make_encoder):
    model = AutoModel.from_pretrained(make_encoder("albert"))
    assert len(find_layers(model)) == 1
    model = AutoModel.from_pretrained(make_encoder("albert", num_hidden_groups=3))
    assert len(find_layers(model)) == 3


def test_a_causal_decoder_is_one_whose_first_token_sees_nothing(plain_model):
    """Change the last token: only where tokens see what follows does the first one's state move."""
    ids = random_ids(plain_model)
    other = ids.clone()
    other[:, -1] = (ids[:, -1] - 5 + 1) % 20 + 5
    with torch.inference_mode():
        first, second = (plain_model(tokens).last_hidden_state[:, 0] for tokens in (ids, other))
    assert is_causal_decoder(plain_model.config) == torch.equal(first, second)


def test_bert_as_a_decoder_is_causal():
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, is_decoder=True
    )
    assert is_causal_decoder(config)
    model = AutoModel.from_config(config).eval()
    ids = random_ids(model)
    other = torch.cat([ids[:, :-1], 35 - ids[:, -1:]], dim=1).clamp(5, 29)
    assert not torch.equal(ids, other)
    with torch.inference_mode():
        first, second = (model(tokens).last_hidden_state[:, 0] for tokens in (ids, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("is_bidirectional", [False, True])
def test_gemma_3_reads_both_ways_if_its_configuration_says_so(is_bidirectional):
    config = AutoConfig.for_model(
        "gemma3_text", num_hidden_layers=1, use_bidirectional_attention=is_bidirectional
    )
    assert is_causal_decoder(config) == (not is_bidirectional)


def test_a_model_is_pre_norm_if_a_norm_follows_its_last_layer(plain_model):
    outputs = []
    find_layers(plain_model)[-1].register_forward_hook(
        lambda module, args, output: outputs.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    with torch.inference_mode():
        last = plain_model(random_ids(plain_model)).last_hidden_state
    assert has_unnormalised_states(plain_model.config) == (not torch.equal(outputs[-1], last))


@pytest.mark.parametrize(
    ("model_type", "is_pre_norm"),
    [("eurobert", True), ("megatron-bert", True), ("roberta-prelayernorm", True), ("ernie", False)],
)
def test_other_pre_norm_encoders(model_type, is_pre_norm):
    config = AutoConfig.for_model(
        model_type,
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=32,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
    )
    test_a_model_is_pre_norm_if_a_norm_follows_its_last_layer(AutoModel.from_config(config).eval())
    assert has_unnormalised_states(config) == is_pre_norm


def test_position_limit_is_the_longest_input_that_runs(plain_model):
    limit = position_limit(plain_model.config)
    assert limit == 64
    with torch.inference_mode():
        plain_model(random_ids(plain_model, tokens=limit, rows=1))
        # Absolute positions end there; relative and rotary ones go on.
        if plain_model.config.model_type in {"roberta", "xlm-roberta", "mpnet", "bert", "gpt2"}:
            with pytest.raises((IndexError, RuntimeError)):
                plain_model(random_ids(plain_model, tokens=limit + 1, rows=1))


def test_no_position_limit_without_position_embeddings():
    assert position_limit(AutoConfig.for_model("t5")) is None


def test_refuses_a_model_without_transformer_layers():
    config = AutoConfig.for_model(
        "resnet", embedding_size=4, hidden_sizes=[4], depths=[1], num_labels=2
    )
    with pytest.raises(ModelError, match=r"No transformer layers found in ResNet.*'resnet'"):
        find_layers(AutoModelForImageClassification.from_config(config))


def test_layers_are_found_by_length_where_transformers_has_no_record(monkeypatch, make_encoder):
    model = AutoModel.from_pretrained(make_encoder("bert"))
    by_class = find_layers(model)
    monkeypatch.setattr("lwap.encoding.backbone._CAN_RECORD_REGISTRY", {})
    assert isinstance(model.encoder.layer, nn.ModuleList)
    assert find_layers(model) == by_class == list(model.encoder.layer)
