"""Layer-wise attention pooling: weights over all states, for each sentence (Oh et al. 2022)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lwap.encoding.backbone import has_unnormalised_states
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.errors import ConfigError, check_choice
from lwap.pooling.declarations import Query, Residual, Scale
from lwap.pooling.formulas import knocked_out_weights, layer_logits
from lwap.pooling.head import LayerHead, check_dimensions

# PyTorch's RReLU: a random slope in training, this fixed mean slope (11/48) in eval.
RRELU_LOWER, RRELU_UPPER = 1 / 8, 1 / 3

# Where s of the residual starts (docs/experiments.md, "The residual's form"): of 0.25, 0.5 and 1
# the best on the dev set; larger ones leave the layers next to nothing to add.
RESIDUAL_START = 1.0


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

    @classmethod
    def for_encoder(cls, settings: Any, encoder: LayerwiseTransformer) -> list[nn.Module]:
        """Return what a run trains behind an encoder, by its settings.

        Raises:
            ConfigError: If the encoder's inner states differ in scale and nothing normalises them.
        """
        if has_unnormalised_states(encoder.config) and not settings.layer_norm:
            raise ConfigError(
                f"The inner states of {encoder.config.model_type} are not normalised and differ "
                "in scale by layer. Set layer_norm (--layer-norm)."
            )
        return super().for_encoder(settings, encoder)

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

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
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
