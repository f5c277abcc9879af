"""The presets: each is a valid run for each objective, and all that it says arrives."""

import pytest

from lwap.errors import ConfigError
from lwap.registry import OBJECTIVES
from lwap.training import TrainConfig
from lwap.training.presets import PRESETS, config_of


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_a_valid_run_and_all_of_it_arrives(name, objective):
    preset = PRESETS[name]
    config = config_of(name, objective)
    assert config.objective == objective
    has_positives = OBJECTIVES[objective].has_positives
    own = preset.with_positives if has_positives else preset.without_positives
    said = {**preset.settings, **own}
    assert said  # nothing said, nothing tested
    # What would be ignored is refused by TrainConfig itself.
    assert {key: getattr(config, key) for key in said} == said
    assert TrainConfig(**config.to_dict()) == config


def test_presets_are_known_by_their_names():
    assert list(PRESETS) == ["minute", "ten-minutes", "paper"]
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.title and preset.description.endswith(".")
        assert "\n" not in preset.description


def test_a_minute_is_the_default_with_the_encoders_mean_beside_it():
    assert config_of("minute") == TrainConfig(residual="last_mean")


def test_dropout_positives_are_told_apart_less_sharply():
    """At 0.1 they gave the better encoder on STS-B dev (docs/experiments.md)."""
    for name in ("minute", "ten-minutes"):
        found = [config_of(name, objective).temperature for objective in OBJECTIVES]
        assert found == [0.05, 0.1]


def test_the_papers_setting():
    supervised, unsupervised = (config_of("paper", objective) for objective in OBJECTIVES)
    for config in (supervised, unsupervised):
        assert (config.encoder, config.mode) == ("bert-base-uncased", "full")
        assert (config.pooling, config.query, config.scale) == ("lwap", "all", "states")
        assert (config.residual, config.layer_norm) == ("none", False)
        assert (config.batch_size, config.temperature, config.warmup) == (64, 0.05, 0)
        assert config.hard_negative_weight == 0
        assert config.head_learning_rate == config.learning_rate
    found = [(c.epochs, c.learning_rate, c.max_tokens) for c in (supervised, unsupervised)]
    assert found == [(3, 2e-5, 64), (1, 3e-5, 32)]


def test_a_setting_can_be_changed():
    config = config_of("ten-minutes", "unsupervised", lora_rank=4, encoder="bert-base-uncased")
    assert (config.lora_rank, config.encoder, config.mode) == (4, "bert-base-uncased", "lora")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hour", {}, "There is no preset 'hour'. There are: minute, ten-minutes, paper"),
        ("minute", {"rank": 4}, "There is no setting 'rank'. There are: encoder, objective, mode"),
        ("minute", {"lora_rank": 4}, "lora_rank would have no effect"),
        ("minute", {"pooling": "scalar_mix"}, "residual would have no effect"),
        ("paper", {"objective": "guess"}, "objective is 'guess'; it must be one of"),
        ("paper", {"batch_size": 1}, "batch_size is 1; it must be between 2"),
    ],
)
def test_what_is_no_preset_or_setting_is_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of(name, **changes)
