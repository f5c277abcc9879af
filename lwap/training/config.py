"""The settings of a training run, checked before anything is loaded. Knows no models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from lwap.encoding.hardware import Precision
from lwap.encoding.sources import BUNDLED_ID
from lwap.errors import ConfigError, check_choice
from lwap.pooling.declarations import DEFAULT_POOLING, Query, Residual, Scale, poolings
from lwap.registry import OBJECTIVES, STRATEGIES
from lwap.training.declarations import DEFAULT_OBJECTIVE


class Mode(StrEnum):
    """What is trained."""

    HEAD = "head"  # the pooling alone, on cached summaries of a frozen encoder
    LORA = "lora"  # low-rank adapters of the encoder, and the pooling
    FULL = "full"  # everything


# What None stands for, by mode.
LEARNING_RATE = {Mode.HEAD: 1e-3, Mode.LORA: 1e-4, Mode.FULL: 2e-5}
HEAD_LEARNING_RATE = {Mode.LORA: 1e-3, Mode.FULL: 1e-4}
EPOCHS = {Mode.HEAD: 3, Mode.LORA: 1, Mode.FULL: 1}


@dataclass(frozen=True)
class TrainConfig:
    """A contrastive run.

    Attributes:
        objective: "supervised" (pairs or triplets) or "unsupervised" (sentences).
        mode: What is trained: "head", "lora" or "full".
        encoder: Where it starts from: "all-MiniLM-L6-v2", a folder, a hub id, or a checkpoint
            whose encoder was trained as well; its pooling is left behind.
        pooling: "lwap", "scalar_mix", "cls" (with SimCSE's dense and tanh) or "mean".
        query, scale, residual, layer_norm: Options of `LayerwiseAttentionPooling`.
        epochs: Passes over the data; None: 3 for a head, else 1.
        max_steps: Steps after which the run ends, whatever `epochs` says; 0 is no limit.
        batch_size: Rows a step; each is compared with all others of its batch. A larger batch
            has more negatives.
        accumulation: Batches whose gradients are added before a step. It saves memory and adds
            no negatives.
        mini_batch: Rows that are in memory at once, with the gradients of the whole batch
            (GradCache); 0 takes the batch whole. Not for a head, which needs no such thing.
        learning_rate: Peak of the linear schedule, of the head or of the encoder; None: 1e-3 for
            a head, 1e-4 for LoRA, 2e-5 in full.
        head_learning_rate: Of the pooling beside an encoder; None: 1e-3 with LoRA, 1e-4 in full.
        warmup: Share of the steps over which the rate rises, 0 to 1.
        weight_decay: Of AdamW.
        temperature: τ of InfoNCE, on cosines.
        hard_negative_weight: Constant added to the logit of a triplet's own hard negative
            (SimCSE's); 0 is plain InfoNCE.
        dropout: Of the encoder, in full and LoRA runs and between the two views of the
            unsupervised objective; None: the encoder's own.
        max_tokens: Tokens that are read of a training sentence; 0 is the encoder's limit.
        lora_rank, lora_alpha: Of the adapters.
        eval_steps: Steps between two looks at the dev set; the best one is kept.
        patience: Looks without a better score after which the run ends; 0 never ends it early.
        precision: Of the encoder: in training, and in a head's pass over the training sentences.
        seed: Of initialisation, order, dropout and RReLU slopes.

    Raises:
        ConfigError: If a value is outside its range, or a setting would have no effect.
    """

    encoder: str = BUNDLED_ID
    objective: str = DEFAULT_OBJECTIVE
    mode: str = Mode.HEAD
    pooling: str = DEFAULT_POOLING
    query: str = Query.ALL
    scale: str = Scale.STATES
    residual: str = Residual.NONE
    layer_norm: bool = False
    epochs: int | None = None
    max_steps: int = 0
    batch_size: int = 64
    accumulation: int = 1
    mini_batch: int = 0
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.0
    temperature: float = 0.05
    hard_negative_weight: float = 0.0
    dropout: float | None = None
    max_tokens: int = 0
    lora_rank: int = 16
    lora_alpha: int = 32
    eval_steps: int = 20
    patience: int = 0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), _KINDS[field.name])
        for name, choices in (
            ("mode", Mode),
            ("query", Query),
            ("scale", Scale),
            ("residual", Residual),
            ("precision", Precision),
        ):
            check_choice(name, getattr(self, name), choices)
        for name, declared in (("objective", OBJECTIVES), ("pooling", poolings())):
            if getattr(self, name) not in declared:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(declared)}."
                )
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be between {low} and {high}.")
        self._refuse_without_effect()
        for name, defaults in (("learning_rate", LEARNING_RATE), ("epochs", EPOCHS)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults[Mode(self.mode)])
        if self.head_learning_rate is None and self.has_own_head_rate:
            object.__setattr__(self, "head_learning_rate", HEAD_LEARNING_RATE[Mode(self.mode)])

    @property
    def has_own_head_rate(self) -> bool:
        """Whether the pooling has weights beside an encoder that is trained."""
        return self.mode != Mode.HEAD and STRATEGIES[self.pooling].training.has_weights

    @property
    def has_positives(self) -> bool:
        """Whether rows bring their positives; else each sentence is its own, seen twice."""
        return OBJECTIVES[self.objective].has_positives

    def _refuse_without_effect(self) -> None:
        """Refuse what nothing would read.

        Raises:
            ConfigError: With the settings and what they belong to.
        """
        has_weights = STRATEGIES[self.pooling].training.has_weights
        objective = OBJECTIVES[self.objective]
        if self.mode == Mode.HEAD and not has_weights:
            raise ConfigError(
                f"mode 'head' trains the pooling alone, and pooling '{self.pooling}' has no "
                "weights. Choose mode 'lora' or 'full', or another pooling."
            )
        groups = [
            *(
                (
                    self.pooling != name,
                    entry.training.options,
                    f"these are options of pooling '{name}', and pooling is '{self.pooling}'",
                )
                for name, entry in poolings().items()
                if entry.training
            ),
            (
                self.mode == Mode.HEAD,
                ("head_learning_rate", "mini_batch", "accumulation"),
                "a head has one rate, learning_rate, and a batch of any size fits",
            ),
            (
                self.mode != Mode.LORA,
                ("lora_rank", "lora_alpha"),
                f"these belong to mode 'lora', and mode is '{self.mode}'",
            ),
            (
                self.mode != Mode.HEAD and not has_weights,
                ("head_learning_rate",),
                f"pooling '{self.pooling}' has no weights of its own",
            ),
            (
                self.mode == Mode.HEAD and objective.has_positives,
                ("dropout", "max_tokens"),
                "a frozen encoder reads each sentence once, as it is",
            ),
            (True, objective.unused, objective.unused_because),
        ]
        defaults = {field.name: field.default for field in fields(self)}
        for applies, names, why in groups:
            changed = [name for name in names if getattr(self, name) != defaults[name]]
            if applies and changed:
                raise ConfigError(
                    f"{', '.join(changed)} would have no effect: {why}. Leave "
                    f"{'it' if len(changed) == 1 else 'them'} out."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for a manifest."""
        return {
            name: str(value) if isinstance(value, str) else value
            for name, value in asdict(self).items()
        }


_KINDS: dict[str, type] = {
    **dict.fromkeys(
        ("encoder", "objective", "mode", "pooling", "query", "scale", "residual", "precision"), str
    ),
    **dict.fromkeys(
        (
            "max_steps",
            "batch_size",
            "accumulation",
            "mini_batch",
            "max_tokens",
            "lora_rank",
            "lora_alpha",
            "eval_steps",
            "patience",
            "seed",
            "epochs",
        ),
        int,
    ),
    **dict.fromkeys(
        (
            "learning_rate",
            "head_learning_rate",
            "warmup",
            "weight_decay",
            "temperature",
            "hard_negative_weight",
            "dropout",
        ),
        float,
    ),
    "layer_norm": bool,
}
_OPTIONAL = {"epochs", "learning_rate", "head_learning_rate", "dropout"}
_RANGES = (
    ("epochs", 1, 1000),
    ("max_steps", 0, 10**7),
    ("batch_size", 2, 65536),
    ("accumulation", 1, 1024),
    ("mini_batch", 0, 65536),
    ("learning_rate", 1e-7, 100.0),
    ("head_learning_rate", 1e-7, 100.0),
    ("warmup", 0.0, 1.0),
    ("weight_decay", 0.0, 10.0),
    ("temperature", 1e-3, 10.0),
    ("hard_negative_weight", -20.0, 20.0),
    ("dropout", 0.0, 0.9),
    ("max_tokens", 0, 1_000_000),
    ("lora_rank", 1, 1024),
    ("lora_alpha", 1, 4096),
    ("eval_steps", 1, 10**6),
    ("patience", 0, 10**6),
    ("seed", 0, 2**32 - 1),
)


def _check_type(name: str, value: object, wanted: type) -> None:
    if value is None and name in _OPTIONAL:
        return
    accepted = (int, float) if wanted is float else wanted
    if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{name} is {value!r}; it must be of type {wanted.__name__}.")
