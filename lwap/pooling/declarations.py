"""Every pooling strategy: what it is, what it reads, how it is made, trained and drawn.

The one place where a strategy is declared. A trained pooling has a file of its own for its module,
and an entry here. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from lwap.registry import STRATEGIES, Look, resolve

CLS, MEAN, MAX, LAST_TOKEN = "cls", "mean", "max", "last_token"  # summaries of a bank


@dataclass(frozen=True)
class Training:
    """How a strategy is trained.

    Attributes:
        modules: "module:function" that gives what follows the encoder: (settings, encoder) to a
            list of modules; or the function.
        has_weights: Whether it has weights of its own; the others are trained with the encoder.
        options: Settings of `TrainConfig` that only it reads.
    """

    modules: str | Callable[..., list]
    has_weights: bool = True
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Strategy:
    """A way from a bank's layer summaries to one vector a sentence.

    Attributes:
        name: What `embed`, commands and files call it; "NAME:K" where it is per state.
        label: What it is called in a table of poolings.
        formula: How the vector is made, in words; "{}" is the state's number where it is per state.
        summaries: What of a bank it reads.
        reference: Who uses it.
        look: Its colours and its marker; None where it is context, not a contender.
        pool: Bank (and state) to vectors (N, D), where nothing is trained.
        is_per_state: Whether there is one a state, "NAME:K".
        head: "module:Class" of its trained pooling over layers, or the class; the class' own
            attribute `strategy` is this entry's name.
        stored_as: What `modules.json` calls the class; by default its import path.
        training: How it is trained; None where it never is.
        sentence: Options of a checkpoint to a sentence for its card, without a full stop.
        words: Options of a checkpoint to a few words beside its name.
    """

    name: str
    label: str
    formula: str
    summaries: tuple[str, ...]
    reference: str
    look: Look | None = None
    pool: Callable[..., np.ndarray] | None = None
    is_per_state: bool = False
    head: str | type | None = None
    stored_as: tuple[str, ...] = ()
    training: Training | None = None
    sentence: Callable[[Mapping[str, Any]], str] | None = None
    words: Callable[[Mapping[str, Any]], list[str]] | None = None

    @property
    def needs_training(self) -> bool:
        """Whether it exists only where a checkpoint brings its weights."""
        return self.head is not None

    @property
    def type_names(self) -> tuple[str, ...]:
        """What `modules.json` may call its class: what is written first, then what is read too."""
        if self.head is None:
            return ()
        if isinstance(self.head, str):
            return (*self.stored_as, self.head.replace(":", "."))
        return (*self.stored_as, f"{self.head.__module__}.{self.head.__qualname__}")

    def head_class(self) -> type:
        """Return the class of its trained pooling; imports torch."""
        assert self.head is not None  # only a strategy that needs training is asked
        return resolve(self.head)

    def describe(self, options: Mapping[str, Any]) -> str:
        """Return what a checkpoint with these options is, for its card, without a full stop."""
        return self.sentence(options) if self.sentence else self.label[:1].upper() + self.label[1:]

    def in_words(self, options: Mapping[str, Any]) -> str:
        """Return a checkpoint's pooling in a few words, with what differs from the default."""
        return ", ".join(
            [self.name.replace("_", " "), *(self.words(options) if self.words else ())]
        )


# --- nothing is trained -------------------------------------------------------------------------

STRATEGIES.add(
    Strategy(
        name="cls",
        label="first token",
        formula="first token of state L",
        summaries=(CLS,),
        reference="BERT, SimCSE",
        look=Look("#1f3bb3", "#729afb", "circle"),
        pool=lambda bank: bank.cls[:, -1],
        training=Training("lwap.pooling.stock:cls_with_dense"),
        sentence=lambda _: "The first token's vector through a dense layer and tanh (SimCSE's)",
    )
)
STRATEGIES.add(
    Strategy(
        name="mean",
        label="mean pooling",
        formula="mean over tokens of state L",
        summaries=(MEAN,),
        reference="Sentence-BERT",
        look=Look("#db640e", "#ed905e", "square"),
        pool=lambda bank: bank.mean[:, -1],
        training=Training("lwap.pooling.stock:mean", has_weights=False),
    )
)
STRATEGIES.add(
    Strategy(
        name="max",
        label="maximum over tokens",
        formula="maximum over tokens of state L",
        summaries=(MAX,),
        reference="Sentence-BERT",
        look=Look("#72130b", "#e2390d", "triangle-up"),
        pool=lambda bank: bank.max,
    )
)
STRATEGIES.add(
    Strategy(
        name="last_token",
        label="last token",
        formula="last token of state L",
        summaries=(LAST_TOKEN,),
        reference="decoders",
        look=Look("#6b45d7", "#d5b2fe", "triangle-down"),
        pool=lambda bank: bank.last_token,
    )
)
STRATEGIES.add(
    Strategy(
        name="first_last_mean",
        label="mean of the first and the last layer",
        formula="average of the token means of states 1 and L",
        summaries=(MEAN,),
        reference="BERT-whitening, SimCSE",
        look=Look("#c547a3", "#c35483", "diamond"),
        pool=lambda bank: (bank.mean[:, 1] + bank.mean[:, -1]) / 2,
    )
)
STRATEGIES.add(
    Strategy(
        name="embed_last_mean",
        label="mean of the embeddings and the last layer",
        formula="average of the token means of states 0 and L",
        summaries=(MEAN,),
        reference="Oh et al. 2022, released code",
        look=Look("#581f68", "#8b5cee", "pentagon"),
        pool=lambda bank: (bank.mean[:, 0] + bank.mean[:, -1]) / 2,
    )
)
STRATEGIES.add(
    Strategy(
        name="last_two_mean",
        label="mean of the last two layers",
        formula="average of the token means of states L-1 and L",
        summaries=(MEAN,),
        reference="BERT-flow",
        look=Look("#795616", "#f1dbba", "hexagon"),
        pool=lambda bank: (bank.mean[:, -2] + bank.mean[:, -1]) / 2,
    )
)
STRATEGIES.add(
    Strategy(
        name="all_mean",
        label="mean of all states",
        formula="average of the token means of all states",
        summaries=(MEAN,),
        reference="WhiteningBERT",
        look=Look("#1690ed", "#298bb7", "cross"),
        pool=lambda bank: bank.mean.mean(axis=1),
    )
)
STRATEGIES.add(
    Strategy(
        name="layer_mean",
        label="mean over tokens of one state",
        formula="mean over tokens of state {}",
        summaries=(MEAN,),
        reference="layer probing",
        pool=lambda bank, state: bank.mean[:, state],
        is_per_state=True,
    )
)
STRATEGIES.add(
    Strategy(
        name="layer_cls",
        label="first token of one state",
        formula="first token of state {}",
        summaries=(CLS,),
        reference="layer probing",
        pool=lambda bank, state: bank.cls[:, state],
        is_per_state=True,
    )
)


# --- trained poolings over layers ---------------------------------------------------------------


class Query(StrEnum):
    """Which states ask in the layer attention: all S (the released code), or only the last."""

    ALL = "all"
    LAST = "last"


class Scale(StrEnum):
    """What the attention logits are divided by: S (the released code), or √D (the convention)."""

    STATES = "states"
    SQRT_DIM = "sqrt_dim"


class Residual(StrEnum):
    """What is added to the head's output: nothing (the paper), or the last layer's mean vector."""

    NONE = "none"
    LAST_MEAN = "last_mean"


def _lwap_sentence(options: Mapping[str, Any]) -> str:
    kind = "Layer-wise attention pooling (Oh et al., COLING 2022)"
    if options["residual"] == Residual.LAST_MEAN:
        return f"{kind} plus the last layer's mean vector at a learned scale"
    return f"{kind} as in the authors' released code"


def _lwap_words(options: Mapping[str, Any]) -> list[str]:
    said = {
        "last query": options.get("query") == Query.LAST,
        "+ last mean": options.get("residual") == Residual.LAST_MEAN,
        "layer norm": bool(options.get("layer_norm")),
    }
    return [words for words, applies in said.items() if applies]


STRATEGIES.add(
    Strategy(
        name="scalar_mix",
        label="scalar mix",
        formula="learned weights over the token means of all states, the same for every sentence",
        summaries=(CLS, MEAN),
        reference="ELMo, COMET",
        look=Look("#869270", "#edc812", "x"),
        head="lwap.pooling.scalar_mix:ScalarMix",
        stored_as=("lwap.pooling.ScalarMix",),
        training=Training("lwap.pooling.scalar_mix:ScalarMix.for_encoder"),
        sentence=lambda _: "A scalar mix (one learned weight a layer, ELMo's)",
    )
)
STRATEGIES.add(
    Strategy(
        name="lwap",
        label="layer attention",
        formula="layer-wise attention pooling: weights over all states, made for each sentence",
        summaries=(CLS, MEAN),
        reference="Oh et al. 2022",
        look=Look("#0f766e", "#4fc4b6", "star"),
        head="lwap.pooling.layer_attention:LayerwiseAttentionPooling",
        stored_as=("lwap.pooling.LayerwiseAttentionPooling",),
        training=Training(
            "lwap.pooling.layer_attention:LayerwiseAttentionPooling.for_encoder",
            options=("query", "scale", "residual", "layer_norm"),
        ),
        sentence=_lwap_sentence,
        words=_lwap_words,
    )
)

DEFAULT_POOLING = "lwap"  # what the project is about


def needs_training(name: str) -> bool:
    """Say whether a name is that of a trained pooling over layers."""
    return name in STRATEGIES and STRATEGIES[name].needs_training


def poolings() -> dict[str, Strategy]:
    """Return the strategies that can be trained, the default first."""
    names = [name for name, entry in STRATEGIES.items() if entry.training is not None]
    first = sorted(names, key=lambda name: not STRATEGIES[name].needs_training)
    return {name: STRATEGIES[name] for name in dict.fromkeys([DEFAULT_POOLING, *first])}
