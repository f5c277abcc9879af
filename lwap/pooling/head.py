"""What every trained pooling over layer summaries shares: inputs, checks, saving and loading.

Knows layer summaries only: nothing of text, tokenizers or files other than its own weights.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn

from lwap.encoding.backbone import is_causal_decoder
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.encoding.reductions import first_token, last_token, token_mean
from lwap.errors import ConfigError, ModelError
from lwap.pooling.formulas import layer_attention
from lwap.registry import STRATEGIES


class LayerHead(Module):
    """What a trained pooling over layer summaries shares: its inputs, checks, saving and loading.

    A head reads `features["layer_means"]` and `features["layer_cls"]`, both (B, S, D), or
    `features["layer_query"]` in place of the latter where a causal decoder gives it (there the
    last real token stands for the sentence). It also takes the stock Transformer's
    `all_layer_embeddings` with `attention_mask`. With neither it raises.
    """

    strategy: str  # the name under which the pooling is declared
    query_name = ""  # what asks, where it is no hidden state
    num_states: int
    embedding_dimension: int
    reads_last_token = False  # set in on_model_ready for causal decoders behind a stock Transformer

    @classmethod
    def for_encoder(cls, settings: Any, encoder: LayerwiseTransformer) -> list[nn.Module]:
        """Return what a run trains behind an encoder, by its settings: this pooling, new."""
        options = STRATEGIES[cls.strategy].training.options
        chosen = {name: getattr(settings, name) for name in options}
        return [cls(encoder.get_embedding_dimension(), encoder.num_states, **chosen)]

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

    def on_model_ready(self, model: Any) -> None:
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

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
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
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load configuration and weights. The base class' `load` would skip the weights."""
        hub: dict[str, Any] = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        config = cls.load_config(model_name_or_path=model_name_or_path, **hub)
        return cls.load_torch_weights(model_name_or_path, model=cls(**config), **hub)


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
