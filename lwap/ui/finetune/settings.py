"""The settings of a run as the form shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from lwap.encoding.hardware import Precision
from lwap.errors import ConfigError
from lwap.pooling.declarations import DEFAULT_POOLING, Query, Residual, Scale, poolings
from lwap.training.config import Mode, TrainConfig
from lwap.training.presets import config_of

LEAST_EVALUATIONS = 12  # on the dev set in a run


@dataclass(frozen=True)
class Field:
    """A setting of a run as the form shows it.

    Attributes:
        label: For a person.
        help: What it does.
        probe: A value beside the default, to see whether it would have an effect.
        step: By which a number goes up and down; None for a tenth of it.
        choices: Of a choice: value and what it is called; None for the probe's own kind.
    """

    label: str
    help: str
    probe: Any
    step: float | None = None
    choices: Mapping[str, str] | None = None


_TRAINED = {
    str(Mode.HEAD): "The pooling alone",
    str(Mode.LORA): "Adapters and pooling (LoRA)",
    str(Mode.FULL): "Everything",
}


def first() -> dict[str, Field]:
    """Return the settings that stand first, as they are declared now."""
    declared = poolings()
    explained = "; ".join(f"{name}: {entry.label}" for name, entry in declared.items())
    other = next(name for name in declared if name != DEFAULT_POOLING)
    return {
        "mode": Field(
            "What is trained",
            "The pooling on a frozen encoder takes a minute, adapters ten, everything longest.",
            Mode.FULL,
            choices=_TRAINED,
        ),
        "pooling": Field(
            "Pooling", f"{explained}.", other, choices={name: name for name in declared}
        ),
    }


GROUPS: dict[str, dict[str, Field]] = {
    "Pooling": {
        "query": Field(
            "Query",
            "Which states attend: all (the released code) or only the last (the paper).",
            Query.LAST,
        ),
        "scale": Field(
            "Scale",
            "What the attention is divided by: the number of states, or the root of the dimension.",
            Scale.SQRT_DIM,
        ),
        "residual": Field(
            "Residual",
            "last_mean adds the last layer's mean at a learned scale, so that training starts "
            "from the encoder's own mean.",
            Residual.LAST_MEAN,
        ),
        "layer_norm": Field(
            "Layer norm", "For encoders whose inner states are not normalised.", True
        ),
    },
    "Encoder": {
        "lora_rank": Field("Rank of the adapters", "A higher rank can learn more.", 8, 8),
        "lora_alpha": Field(
            "Alpha of the adapters", "Their strength is alpha divided by rank.", 8, 8
        ),
        "dropout": Field("Dropout", "Empty: the encoder's own.", 0.2, 0.05),
        "max_tokens": Field(
            "Tokens a sentence", "Longer sentences are cut; 0: the encoder's limit.", 32, 16
        ),
        "precision": Field(
            "Precision", "auto uses bf16 where the hardware supports it.", Precision.FP32
        ),
    },
    "Length": {
        "epochs": Field("Epochs", "Passes over the data.", 2, 1),
        "max_steps": Field("Maximum steps", "0: no limit.", 10, 100),
        "batch_size": Field(
            "Batch size", "Rows per step; each is compared with all others in its batch.", 32, 8
        ),
        "accumulation": Field(
            "Accumulation", "Batches per step: saves memory, adds no negatives.", 2, 1
        ),
        "mini_batch": Field(
            "Mini-batch",
            "Rows in memory at once; the gradients stay those of the whole batch. 0: all.",
            8,
            8,
        ),
        "eval_steps": Field(
            "Steps between dev evaluations",
            "Empty: the preset's number, fewer if the run is short.",
            10,
            10,
        ),
        "patience": Field(
            "Patience",
            "Dev evaluations without a better score before the run ends; 0: no limit.",
            5,
            1,
        ),
        "seed": Field("Seed", "For the initial weights, the order of rows and dropout.", 1, 1),
    },
    "Optimiser": {
        "learning_rate": Field(
            "Learning rate",
            "At its peak; of the encoder, or of the pooling where that alone is trained.",
            1e-4,
        ),
        "head_learning_rate": Field(
            "Learning rate of the pooling", "Used where the encoder is trained as well.", 3e-4
        ),
        "warmup": Field(
            "Warm-up", "Share of the steps in which the learning rate rises, 0 to 1.", 0.2, 0.05
        ),
        "weight_decay": Field("Weight decay", "The decay of AdamW.", 0.1, 0.01),
        "temperature": Field(
            "Temperature", "Of the loss: a lower one weighs the nearest sentences more.", 0.1, 0.01
        ),
        "hard_negative_weight": Field(
            "Weight of hard negatives",
            "Extra weight of a row's own hard negative; 0 treats it like the others.",
            1.0,
            0.5,
        ),
    },
}
_BY_MODE = ("epochs", "learning_rate", "head_learning_rate")  # whose defaults the mode gives
_DEFAULTS = {field.name: field.default for field in TrainConfig.__dataclass_fields__.values()}


def has_effect(name: str, objective: str, mode: str, pooling: str) -> bool:
    """Say whether a run of this kind would read a setting; the config itself is asked.

    >>> has_effect("lora_rank", "supervised", "lora", "lwap")
    True
    >>> has_effect("lora_rank", "supervised", "head", "lwap")
    False
    """
    probe = next(group[name].probe for group in GROUPS.values() if name in group)
    try:
        TrainConfig(objective=objective, mode=mode, pooling=pooling, **{name: probe})
    except ConfigError:
        return False
    return True


def defaults(preset: str, objective: str, mode: str) -> dict[str, Any]:
    """Return what a preset sets, and what the mode sets where another one was chosen."""
    chosen = config_of(preset, objective)
    found = chosen.to_dict()
    if mode != chosen.mode:
        found |= {
            name: getattr(TrainConfig(objective=objective, mode=mode), name) for name in _BY_MODE
        }
    return found


def fitting_eval_steps(usual: int, rows: int, epochs: int, batch_size: int, max_steps: int) -> int:
    """Return how many steps lie between two dev evaluations: the usual, fewer where a run is short.

    >>> fitting_eval_steps(20, rows=5880, epochs=3, batch_size=64, max_steps=0)
    20
    >>> fitting_eval_steps(20, rows=300, epochs=10, batch_size=32, max_steps=0)
    7
    """
    steps = rows // max(1, batch_size) * epochs
    steps = min(steps, max_steps) if max_steps else steps
    return max(1, min(usual, steps // LEAST_EVALUATIONS))


def settings(preset: str, objective: str, rows: int) -> dict[str, Any]:
    """Draw the options; return a value for every setting but encoder and objective.

    What would have no effect is not drawn and keeps its default. `rows` are those that there are.

    Raises:
        ConfigError: If mode and pooling do not go together.
    """
    own = config_of(preset, objective).to_dict()
    columns = st.columns(2, gap="large")
    found: dict[str, Any] = {}
    for column, (name, field) in zip(columns, first().items(), strict=True):
        with column:
            found[name] = _draw(field, own[name], f"train_{preset}_{objective}_{name}")
    TrainConfig(objective=objective, **found)  # refuses what has nothing to train
    own = defaults(preset, objective, found["mode"])
    for column, (title, group) in zip(st.columns(len(GROUPS)), GROUPS.items(), strict=True):
        with column:
            st.markdown(f"**{title}**")
            drawn = [name for name in group if has_effect(name, objective, **found_kind(found))]
            for name, field in group.items():
                if name not in drawn:
                    found[name] = _DEFAULTS[name]
                    continue
                key = f"train_{preset}_{objective}_{name}"
                if name in _BY_MODE:  # whose defaults are not the preset's
                    key += f"_{found['mode']}"
                if name != "eval_steps":
                    found[name] = _draw(field, own[name], key)
                    continue
                length = {each: found[each] for each in ("epochs", "batch_size", "max_steps")}
                fitting = fitting_eval_steps(own[name], rows, **length)
                typed = _draw(field, None, key, f"{fitting}, to fit the run")
                found[name] = fitting if typed is None else typed
            if not drawn:
                st.caption("Nothing to choose here.")
    return found


def found_kind(found: dict[str, Any]) -> dict[str, str]:
    """Return mode and pooling of settings."""
    return {name: found[name] for name in ("mode", "pooling")}


def _draw(field: Field, default: Any, key: str, empty: str = "the encoder's own") -> Any:
    """Draw a setting; `empty` says what no value stands for, where there is none by default."""
    options: dict[str, Any] = {"key": key, "help": field.help, "persist_state": "session"}
    if isinstance(field.probe, bool):
        return st.toggle(field.label, value=default, **options)
    if isinstance(field.probe, str):
        kind: Any = type(field.probe)  # an enumeration
        named = field.choices or {str(value): str(value) for value in kind}
        choices = list(named)
        index = choices.index(str(default))
        return st.selectbox(field.label, choices, index, format_func=named.get, **options)
    options |= {"placeholder": empty} if default is None else {}
    if isinstance(field.probe, int):
        return st.number_input(field.label, value=default, step=field.step, **options)
    value = None if default is None else float(default)
    step = field.step or value / 10
    return st.number_input(field.label, value=value, step=step, format="%g", **options)
