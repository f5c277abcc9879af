"""The trained pooling modules, and the formulas under them.

Knows layer summaries only: nothing of text, tokenizers or files other than its own weights.

Shapes everywhere: B sentences, T tokens, S = L+1 hidden states (0 = embedding output), D hidden
size, Q query states (S, or 1 with `query="last"`).
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from torch.nn import functional

from lwap.encoding.backbone import is_causal_decoder
from lwap.errors import ConfigError, ModelError, check_choice

# PyTorch's RReLU: a random slope in training, this fixed mean slope (11/48) in eval.
RRELU_LOWER, RRELU_UPPER = 1 / 8, 1 / 3

# Where s of the residual starts (docs/experiments.md, "The residual's form"): of 0.25, 0.5 and 1
# the best on the dev set; larger ones leave the layers next to nothing to add.
RESIDUAL_START = 1.0


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


# --- reductions of token states ---------------------------------------------------------------


def first_token(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the state of each sentence's first real token: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden[:, 0]
    # gather, not hidden[arange(B), index]: the latter freezes the batch size in an ONNX export.
    index = attention_mask.int().argmax(dim=1)
    return hidden.gather(1, index[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def last_token(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the state of each sentence's last real token: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden[:, -1]
    index = attention_mask.shape[1] - 1 - attention_mask.int().flip(1).argmax(dim=1)
    return hidden.gather(1, index[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)


def token_mean(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the mean over real tokens, special tokens included: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden.mean(dim=1)
    weights = attention_mask.to(hidden.dtype)
    total = torch.bmm(weights.unsqueeze(1), hidden).squeeze(1)  # (B, D)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)


def token_max(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the maximum over real tokens in each dimension: (B, T, D), (B, T) -> (B, D)."""
    if attention_mask is None:
        return hidden.amax(dim=1)
    padding = attention_mask.unsqueeze(-1) == 0
    return hidden.masked_fill(padding, torch.finfo(hidden.dtype).min).amax(dim=1)


# --- layer attention --------------------------------------------------------------------------


def layer_logits(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Return q_i · k_l / scale: (B, Q, D), (B, S, D) -> (B, Q, S).

    >>> layer_logits(torch.ones(1, 1, 4), torch.ones(1, 2, 4), scale=2.0)
    tensor([[[2., 2.]]])
    """
    return torch.einsum("bqd,bsd->bqs", queries, keys) / scale


def layer_attention(logits: Tensor) -> Tensor:
    """Return A[i,l] = softmax_l(logits[i,l]), in at least float32: (B, Q, S) -> (B, Q, S).

    >>> layer_attention(torch.zeros(1, 1, 2))
    tensor([[[0.5000, 0.5000]]])
    """
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def knocked_out_weights(logits: Tensor) -> Tensor:
    """Return the weight of each state after one state is removed: (B, Q, S) -> (B, S, S).

    Row s of the result belongs to "state s removed": the removed column is 0, every query's
    softmax runs over the states that are left, and the mean over queries is taken. From the logits
    and not from the attention, which may have underflowed to 0 in all the states that are left.

    >>> knocked_out_weights(torch.zeros(1, 1, 3))
    tensor([[[0.0000, 0.5000, 0.5000],
             [0.5000, 0.0000, 0.5000],
             [0.5000, 0.5000, 0.0000]]])
    """
    removed = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)  # (S, S)
    kept = logits.unsqueeze(1).masked_fill(removed[None, :, None, :], -torch.inf)
    return layer_attention(kept).mean(dim=2)  # (B, S removed, Q, S) -> (B, S removed, S)


class LayerHead(Module):
    """What a trained pooling over layer summaries shares: its inputs, checks, saving and loading.

    A head reads `features["layer_means"]` and `features["layer_cls"]`, both (B, S, D), or
    `features["layer_query"]` in place of the latter where a causal decoder gives it (there the
    last real token stands for the sentence). It also takes the stock Transformer's
    `all_layer_embeddings` with `attention_mask`. With neither it raises.
    """

    strategy: str
    num_states: int
    embedding_dimension: int
    reads_last_token = False  # set in on_model_ready for causal decoders behind a stock Transformer

    def layer_summaries(self, features: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the query vectors and the means of all states, both (B, S, D).

        Raises:
            ModelError: If the features hold neither summaries nor all layers, or have another
                number of states or dimension than this head.
        """
        if "layer_means" in features and "layer_cls" in features:
            query = features.get("layer_query", features["layer_cls"])
            means = features["layer_means"]
        elif "all_layer_embeddings" in features:
            mask = features.get("attention_mask")
            token = last_token if self.reads_last_token else first_token
            states = features["all_layer_embeddings"]
            query = torch.stack([token(state, mask) for state in states], dim=1)
            means = torch.stack([token_mean(state, mask) for state in states], dim=1)
        else:
            raise ModelError(
                f"{type(self).__name__} needs every layer, but its input has only "
                f"{sorted(features)}. Put lwap.LayerwiseTransformer before it, or set "
                "output_hidden_states=True in the stock Transformer's config_kwargs."
            )
        expected = (self.num_states, self.embedding_dimension)
        if tuple(means.shape[1:]) != expected:
            raise ModelError(
                f"{type(self).__name__} was made for {expected[0]} states of {expected[1]} "
                f"dimensions, but the encoder gives {means.shape[1]} states of {means.shape[2]}. "
                "Use the encoder that the head was trained on."
            )
        return query, means

    def logits_and_values(
        self, layer_query: Tensor, layer_means: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of the layer attention (B, Q, S), and values (B, S, D)."""
        raise NotImplementedError

    def attend(
        self, layer_query: Tensor, layer_means: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return layer attention (B, Q, S) and values (B, S, D) of summaries (B, S, D)."""
        logits, values = self.logits_and_values(layer_query, layer_means, training)
        return layer_attention(logits), values

    def get_embedding_dimension(self) -> int:
        """Return D, the dimension of the sentence embedding."""
        return self.embedding_dimension

    def on_model_ready(self, model: nn.Module) -> None:
        """Check this head against the encoder as soon as the whole model is assembled.

        Raises:
            ModelError: If the encoder has another number of states or another hidden size.
        """
        encoder = model[0]
        config = getattr(encoder, "config", None)
        if config is None:  # not a transformer, e.g. a bank of summaries: checked at forward
            return
        self.reads_last_token = is_causal_decoder(config)
        states = (getattr(config, "num_hidden_layers", 0) + 1, encoder.get_embedding_dimension())
        expected = (self.num_states, self.embedding_dimension)
        if states != expected:
            raise ModelError(
                f"{type(self).__name__} was made for {expected[0]} states of {expected[1]} "
                f"dimensions, but the encoder has {states[0]} states of {states[1]}. "
                "Use the encoder that the head was trained on."
            )

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write the configuration and the weights (safetensors only) into `output_path`."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs,
    ):
        """Load configuration and weights. The base class' `load` would skip the weights."""
        hub = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        config = cls.load_config(model_name_or_path=model_name_or_path, **hub)
        return cls.load_torch_weights(model_name_or_path, model=cls(**config), **hub)


class LayerwiseAttentionPooling(LayerHead):
    """Attend over all hidden states with one query a state, and read the sentence out of that.

    With c_l the first token (CLS) and a_l the token mean of state l:

        q_i = φ(W_q c_i)    k_l = φ(W_k a_l)    v_l = φ(W_v a_l)      φ = RReLU
        A[i,l] = softmax_l( q_i · k_l / S )                           layer attention
        p = mean_i Σ_l A[i,l] v_l
        e = tanh( W_d [c_L ; p] + b )

    This is the computation of the authors' released code (`query="all"`, `scale="states"`). The
    paper's equations read as one query, the last CLS (`query="last"`); `scale="sqrt_dim"` divides
    by √D as is usual for attention. RReLU draws its slope in training and uses 11/48 in eval, so
    eval is deterministic.

    `residual="last_mean"` returns e + s · √D · a_L / ‖a_L‖ with a learnable s, so that on an
    encoder that was tuned for mean pooling the head adds to it instead of starting over: W_d and b
    start at 0, and so an untrained head is the encoder's own mean.
    `layer_norm=True` normalises every c_l and a_l first, for pre-norm encoders (ModernBERT, Llama,
    Qwen3, GPT-2) whose inner states differ in scale.

    Args:
        embedding_dimension: D, the encoder's hidden size.
        num_states: S = L+1, the encoder's layers plus one.
        query: "all" or "last".
        scale: "states" or "sqrt_dim".
        residual: "none" or "last_mean".
        layer_norm: Whether to normalise the summaries before use.

    Inputs: `layer_cls` and `layer_means`, (B, S, D); or `all_layer_embeddings`, `attention_mask`.
    Outputs: `sentence_embedding` (B, D), `layer_attention` (B, Q, S).

    Raises:
        ConfigError: If an option has a value outside those above.

    Source: Oh et al. 2022, "Don't Judge a Language Model by Its Last Layer" (COLING 2022).
    """

    strategy = "lwap"
    config_keys = [  # noqa: RUF012 (the base class declares it so)
        "embedding_dimension",
        "num_states",
        "query",
        "scale",
        "residual",
        "layer_norm",
    ]

    def __init__(
        self,
        embedding_dimension: int,
        num_states: int,
        query: str = "all",
        scale: str = "states",
        residual: str = "none",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        check_dimensions(embedding_dimension, num_states)
        self.embedding_dimension = embedding_dimension
        self.num_states = num_states
        # Plain strings: they go to config.json and into torch.compile's guards.
        self.query_states = str(check_choice("query", query, Query))
        self.scale = str(check_choice("scale", scale, Scale))
        self.residual = str(check_choice("residual", residual, Residual))
        self.layer_norm = bool(layer_norm)

        self.query = nn.Linear(embedding_dimension, embedding_dimension, bias=False)
        self.key = nn.Linear(embedding_dimension, embedding_dimension, bias=False)
        self.value = nn.Linear(embedding_dimension, embedding_dimension, bias=False)
        self.dense = nn.Linear(2 * embedding_dimension, embedding_dimension)
        if self.residual == Residual.LAST_MEAN:
            self.residual_scale = nn.Parameter(torch.tensor(RESIDUAL_START))
            nn.init.zeros_(self.dense.weight)
            nn.init.zeros_(self.dense.bias)
        if self.layer_norm:
            self.norm = nn.LayerNorm(embedding_dimension)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the constructor's arguments, as saved in config.json."""
        # `self.query` is the projection W_q: the state dict's key names are part of the format.
        config = {key: getattr(self, key) for key in self.config_keys if key != "query"}
        return {**config, "query": self.query_states}

    @property
    def logit_divisor(self) -> float:
        """The number that attention logits are divided by."""
        by_states = self.scale == Scale.STATES
        return float(self.num_states) if by_states else math.sqrt(self.embedding_dimension)

    def logits_and_values(
        self, layer_query: Tensor, layer_means: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return q_i · k_l over the divisor (B, Q, S), and values (B, S, D)."""
        if self.layer_norm:
            layer_query, layer_means = self.norm(layer_query), self.norm(layer_means)
        asking = layer_query if self.query_states == Query.ALL else layer_query[:, -1:]

        def activate(projected: Tensor) -> Tensor:
            return functional.rrelu(projected, RRELU_LOWER, RRELU_UPPER, training=training)

        queries = activate(self.query(asking))  # (B, Q, D)
        keys = activate(self.key(layer_means))  # (B, S, D)
        values = activate(self.value(layer_means))  # (B, S, D)
        return layer_logits(queries, keys, self.logit_divisor), values

    def read_out(self, pooled: Tensor, layer_query: Tensor, layer_means: Tensor) -> Tensor:
        """Return e from p (B, …, D): tanh(W_d [c_L ; p] + b), plus the residual if it is on."""
        last_query, last_mean = layer_query[:, -1], layer_means[:, -1]  # (B, D)
        if self.layer_norm:
            last_query = self.norm(last_query)
        while last_query.dim() < pooled.dim():
            last_query, last_mean = last_query.unsqueeze(1), last_mean.unsqueeze(1)
        joined = torch.cat([last_query.expand_as(pooled), pooled], dim=-1)  # (B, …, 2D)
        embedding = torch.tanh(self.dense(joined))
        if self.residual == Residual.LAST_MEAN:
            length = math.sqrt(self.embedding_dimension)
            direction = functional.normalize(last_mean, dim=-1)
            embedding = embedding + self.residual_scale * length * direction
        return embedding

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `sentence_embedding` (B, D) and `layer_attention` (B, Q, S) to the features."""
        layer_query, layer_means = self.layer_summaries(features)
        attention, values = self.attend(layer_query, layer_means, training=self.training)
        weights = attention.mean(dim=1).to(values.dtype)  # mean_i first: the sum over l is linear
        pooled = torch.einsum("bs,bsd->bd", weights, values)
        return {
            **features,
            "sentence_embedding": self.read_out(pooled, layer_query, layer_means),
            "layer_attention": attention,
        }

    def knock_out(self, layer_query: Tensor, layer_means: Tensor) -> Tensor:
        """Return the embeddings with one state removed: (B, S, D) twice -> (B, S removed, D).

        The state leaves keys and values, and the attention is renormalised. c_L and the residual
        are not part of the attention and stay.
        """
        logits, values = self.logits_and_values(layer_query, layer_means)
        weights = knocked_out_weights(logits).to(values.dtype)  # (B, S, S)
        return self.read_out(weights @ values, layer_query, layer_means)


class ScalarMix(LayerHead):
    """Mix the token means of all states with one learned weight a state.

        e = γ Σ_l softmax(w)_l a_l

    The weights are the same for every sentence (ELMo's and COMET's scalar mix).

    Args:
        embedding_dimension: D, the encoder's hidden size.
        num_states: S = L+1.

    Inputs: as `LayerwiseAttentionPooling`. Outputs: `sentence_embedding` (B, D),
    `layer_attention` (B, 1, S).

    Source: Peters et al. 2018 (ELMo), equation 1; Rei et al. 2020 (COMET).
    """

    strategy = "scalar_mix"
    config_keys = ["embedding_dimension", "num_states"]  # noqa: RUF012

    def __init__(self, embedding_dimension: int, num_states: int) -> None:
        super().__init__()
        check_dimensions(embedding_dimension, num_states)
        self.embedding_dimension = embedding_dimension
        self.num_states = num_states
        self.weights = nn.Parameter(torch.zeros(num_states))
        self.gamma = nn.Parameter(torch.ones(()))

    def logits_and_values(
        self, layer_query: Tensor, layer_means: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the same logits for every sentence, (B, 1, S), and the means as values."""
        return self.weights.expand(len(layer_means), 1, -1), layer_means

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `sentence_embedding` (B, D) and `layer_attention` (B, 1, S) to the features."""
        layer_query, layer_means = self.layer_summaries(features)
        attention, values = self.attend(layer_query, layer_means)
        mixed = torch.einsum("bs,bsd->bd", attention[:, 0].to(values.dtype), values)
        return {
            **features,
            "sentence_embedding": self.gamma * mixed,
            "layer_attention": attention,
        }

    def knock_out(self, layer_query: Tensor, layer_means: Tensor) -> Tensor:
        """Return the embeddings with one state removed and the weights renormalised, (B, S, D)."""
        logits, values = self.logits_and_values(layer_query, layer_means)
        return self.gamma * (knocked_out_weights(logits).to(values.dtype) @ values)


def check_dimensions(embedding_dimension: int, num_states: int) -> None:
    """Refuse a hidden size below 1 or fewer than 2 states.

    Raises:
        ConfigError: With the two values.
    """
    if embedding_dimension < 1 or num_states < 2:
        raise ConfigError(
            f"A pooling over layers needs embedding_dimension ≥ 1 and num_states ≥ 2 (embeddings "
            f"and at least one layer), not {embedding_dimension} and {num_states}."
        )
