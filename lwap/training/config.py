"""The settings of a training run, checked before anything is loaded. Knows no models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from lwap.errors import ConfigError, check_choice
from lwap.hardware import Precision
from lwap.pooling import Query, Residual, Scale
from lwap.sources import BUNDLED_ID

POOLINGS = ("lwap", "scalar_mix")


@dataclass(frozen=True)
class TrainConfig:
    """A supervised contrastive run with a frozen encoder: only the head is trained.

    Attributes:
        encoder: The frozen encoder: "all-MiniLM-L6-v2", a folder, or a hub id.
        pooling: The head: "lwap" or "scalar_mix".
        query, scale, residual, layer_norm: Options of `LayerwiseAttentionPooling`.
        epochs: Passes over the triplets.
        batch_size: Triplets a step; each is compared with 2 · batch_size − 1 negatives.
        learning_rate: Peak of the linear schedule.
        warmup: Share of the steps over which the rate rises, 0 to 1.
        weight_decay: Of AdamW.
        temperature: τ of InfoNCE, on cosines.
        hard_negative_weight: Constant added to the logit of a triplet's own hard negative
            (SimCSE's); 0 is plain InfoNCE.
        eval_steps: Steps between two looks at the dev set; the best one is kept.
        precision: Of the encoder's pass over the training sentences; the dev set is always fp32.
        seed: Of initialisation, order and RReLU slopes.

    Raises:
        ConfigError: If a value is outside its range, or an option has no effect on this pooling.
    """

    encoder: str = BUNDLED_ID
    pooling: str = "lwap"
    query: str = Query.ALL
    scale: str = Scale.STATES
    residual: str = Residual.NONE
    layer_norm: bool = False
    epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    temperature: float = 0.05
    hard_negative_weight: float = 0.0
    eval_steps: int = 20
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), type(field.default))
        for name, choices in (
            ("query", Query),
            ("scale", Scale),
            ("residual", Residual),
            ("precision", Precision),
        ):
            check_choice(name, getattr(self, name), choices)
        if self.pooling not in POOLINGS:
            raise ConfigError(
                f"pooling is {self.pooling!r}; a head is one of {', '.join(POOLINGS)}."
            )
        if self.pooling != "lwap":
            defaults = {"query": "all", "scale": "states", "residual": "none", "layer_norm": False}
            changed = [name for name, value in defaults.items() if getattr(self, name) != value]
            if changed:
                raise ConfigError(
                    f"{', '.join(changed)} would have no effect: these are options of pooling "
                    f"'lwap', and pooling is '{self.pooling}'. Leave them out."
                )
        for name, low, high in (
            ("epochs", 1, 1000),
            ("batch_size", 2, 65536),
            ("learning_rate", 1e-7, 1.0),
            ("warmup", 0.0, 1.0),
            ("weight_decay", 0.0, 10.0),
            ("temperature", 1e-3, 10.0),
            ("hard_negative_weight", -20.0, 20.0),
            ("eval_steps", 1, 10**6),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be between {low} and {high}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for a manifest."""
        return {
            name: str(value) if isinstance(value, str) else value
            for name, value in asdict(self).items()
        }


def _check_type(name: str, value: object, kind: type) -> None:
    wanted = next(base for base in (bool, int, float, str) if issubclass(kind, base))
    accepted = (int, float) if wanted is float else wanted
    if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{name} is {value!r}; it must be of type {wanted.__name__}.")
