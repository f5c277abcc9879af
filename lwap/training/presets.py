"""Ready-made settings of a run. Knows no models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lwap.errors import ConfigError
from lwap.pooling.declarations import DEFAULT_POOLING
from lwap.registry import OBJECTIVES
from lwap.training.config import Mode, TrainConfig
from lwap.training.declarations import DEFAULT_OBJECTIVE


@dataclass(frozen=True)
class Preset:
    """Settings with a name; what it does not set keeps its default.

    Attributes:
        name: As in `PRESETS`.
        title: For a person.
        description: One line: what it trains, and where it ends.
        settings: Fields of `TrainConfig`, whatever the objective.
        with_positives, without_positives: Fields that go beside them with an objective whose rows
            bring their positives, or do not.
    """

    name: str
    title: str
    description: str
    settings: Mapping[str, Any]
    with_positives: Mapping[str, Any] = field(default_factory=dict)
    without_positives: Mapping[str, Any] = field(default_factory=dict)


_ALL = (
    Preset(
        name="minute",
        title="A minute",
        description="The pooling alone, beside the encoder's own mean: a frozen encoder, a few "
        "thousand rows.",
        settings={"mode": Mode.HEAD, "pooling": DEFAULT_POOLING, "residual": "last_mean"},
        without_positives={"temperature": 0.1},
    ),
    Preset(
        name="ten-minutes",
        title="Ten minutes",
        description="Low-rank adapters in the bundled encoder and the pooling beside its mean: it "
        "can learn what a frozen encoder does not say.",
        settings={
            "mode": Mode.LORA,
            "pooling": DEFAULT_POOLING,
            "residual": "last_mean",
            "max_tokens": 64,
        },
        without_positives={"temperature": 0.1},
    ),
    Preset(
        name="paper",
        title="The paper's setting",
        description="All of BERT-base with the paper's pooling, as in its experiments: hours on a "
        "graphics card, days without one. BERT comes from the hub.",
        settings={
            "encoder": "bert-base-uncased",
            "mode": Mode.FULL,
            "pooling": DEFAULT_POOLING,
            "batch_size": 64,
            "temperature": 0.05,
            "warmup": 0.0,
            "eval_steps": 125,
        },
        # One rate for the encoder and its pooling.
        with_positives={
            "epochs": 3,
            "learning_rate": 2e-5,
            "head_learning_rate": 2e-5,
            "max_tokens": 64,
        },
        without_positives={
            "epochs": 1,
            "learning_rate": 3e-5,
            "head_learning_rate": 3e-5,
            "max_tokens": 32,
        },
    ),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def config_of(preset: str, objective: str = DEFAULT_OBJECTIVE, **changes: Any) -> TrainConfig:
    """Return the settings of a preset for an objective, some of them changed.

    The paper's setting is supervised as Oh et al. 2022 have it, on NLI triplets; unsupervised it
    is that of SimCSE's released code for BERT-base, on a million sentences of Wikipedia.

    Args:
        preset: "minute", "ten-minutes" or "paper".
        objective: Of `lwap.registry.OBJECTIVES`.
        changes: Fields of `TrainConfig` in place of the preset's.

    Raises:
        ConfigError: If there is no such preset, or a setting is wrong or would have no effect.

    Sources: Oh et al. 2022 (Don't Judge a Language Model by Its Last Layer); Gao et al. 2021
    (SimCSE), `run_unsup_example.sh` and the table of hyperparameters of its repository: batch 64,
    3e-5, 32 tokens, 1 epoch, temperature 0.05, no warm-up, a look every 125 steps.
    """
    if preset not in PRESETS:
        raise ConfigError(f"There is no preset {preset!r}. There are: {', '.join(PRESETS)}.")
    chosen = PRESETS[preset]
    unknown = sorted(changes.keys() - TrainConfig.__dataclass_fields__.keys())
    if unknown:
        raise ConfigError(
            f"There is no setting {unknown[0]!r}. There are: "
            f"{', '.join(TrainConfig.__dataclass_fields__)}."
        )
    if objective not in OBJECTIVES:
        return TrainConfig(objective=objective)  # which says what there is
    has_positives = OBJECTIVES[objective].has_positives
    own = chosen.with_positives if has_positives else chosen.without_positives
    return TrainConfig(**{**chosen.settings, **own, "objective": objective, **changes})
