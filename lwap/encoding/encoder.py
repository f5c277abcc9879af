"""The encoder: every hidden state's CLS and mean in one forward pass.

Knows nothing about trained heads or checkpoints.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lwap.encoding.backbone import find_layers, is_causal_decoder, position_limit
from lwap.encoding.reductions import first_token, last_token, token_mean
from lwap.errors import ModelError

# --- one forward pass, all states ---------------------------------------------------------------


@dataclass
class _Collector:
    """Reduces each hidden state as it passes by, so that no token states are kept."""

    attention_mask: Tensor | None
    wants_last_token: bool
    cls: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    last: list[Tensor] = field(default_factory=list)

    def add(self, hidden: Tensor) -> None:
        self.cls.append(first_token(hidden, self.attention_mask))
        self.means.append(token_mean(hidden, self.attention_mask))
        if self.wants_last_token:
            self.last.append(last_token(hidden, self.attention_mask))


# A fast tokenizer keeps padding and truncation as state of its own: two threads that ask for
# different ones get each other's, in silence. Reentrant: `preprocess` calls itself for prompts.
TOKENIZER_LOCK = threading.RLock()

_COLLECTOR: ContextVar[_Collector | None] = ContextVar("lwap_collector", default=None)


def _record_layer_input(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: the input of layer l is hidden state l-1, whatever the layer returns.

    A module-level function, so that a hooked model pickles and copies; it reads a ContextVar, so
    that threads do not meet.
    """
    collector = _COLLECTOR.get()
    if collector is not None:
        collector.add(args[0] if args else kwargs["hidden_states"])


class LayerwiseTransformer(Transformer):
    """sentence-transformers' Transformer that also gives the CLS and the mean of every state.

    Takes the same arguments as its base class. Forward adds to the features, for S = L+1 states:

    - `layer_cls` (B, S, D): the first real token of each state;
    - `layer_means` (B, S, D): the mean over the real tokens of each state;
    - `layer_query` (B, S, D), causal decoders only: the last real token, since there the first
      one has seen nothing of the sentence.

    State 0 is the embedding output; state L is `token_embeddings`, i.e. after the final norm of a
    pre-norm model. Equal to reducing `output_hidden_states`, without holding the token states.

    Raises:
        ModelError: If the architecture's layers cannot be found, or some have no weights.
    """

    tokenizer: PreTrainedTokenizerBase  # a model without one is refused
    max_seq_length: Any  # of tokens; None where there is no limit

    def __init__(self, model_name_or_path: str, **kwargs: Any) -> None:
        super().__init__(model_name_or_path, **kwargs)
        self._install_hooks()
        # As the bank pads: padding on the left would shift absolute positions, so that a
        # sentence's vector depended on its batch.
        self.tokenizer.padding_side = "right"

    def _load_model(self, model_name_or_path: str, *args: Any, **kwargs: Any) -> PreTrainedModel:
        """Load the weights, all of them.

        transformers gives random numbers to what a file lacks, and only its log says so.
        """
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        loaded: Any = super()._load_model(model_name_or_path, *args, **kwargs)
        model, found = loaded  # both, since loading info was asked for
        random = found["missing_keys"] | {name for name, *_ in found["mismatched_keys"]}
        # A pooler is never read here, and many encoders are published without one.
        lacking = sorted(name for name in random if "pooler." not in name)
        if lacking:
            raise ModelError(
                f"The weights of '{model_name_or_path}' do not fit its config.json: {len(lacking)} "
                f"tensors are missing or of another shape, {lacking[0]} for one. Copy or download "
                "the model again."
            )
        return model

    def _install_hooks(self) -> None:
        for layer in find_layers(self.model):
            if _record_layer_input not in layer._forward_pre_hooks.values():
                layer.register_forward_pre_hook(_record_layer_input, with_kwargs=True)
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise ModelError("This model has no text tokenizer; LWAP Explorer reads text encoders.")
        if tokenizer.pad_token is None:  # GPT-2, Llama: padding is masked, any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        limit = position_limit(self.config)
        if limit is not None and (self.max_seq_length or 0) > limit:
            self.max_seq_length = limit

    @classmethod
    def from_transformer(cls, transformer: Transformer) -> LayerwiseTransformer:
        """Return a layer-wise view of a stock Transformer module; it shares the weights."""
        if isinstance(transformer, cls):
            return transformer
        view = cls.__new__(cls)
        view.__dict__.update(transformer.__dict__)
        view._install_hooks()
        return view

    @property
    def num_states(self) -> int:
        """S = L+1: the embeddings and every layer."""
        return self.config.num_hidden_layers + 1

    @property
    def device(self) -> torch.device:
        """Where the encoder's weights are."""
        return next(self.model.parameters()).device

    @property
    def is_causal(self) -> bool:
        """Whether each token sees only the tokens before it."""
        return is_causal_decoder(self.config)

    def preprocess(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Tokenise as the base class does, one thread at a time."""
        with TOKENIZER_LOCK:
            return super().preprocess(*args, **kwargs)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the encoder once and add `layer_cls`, `layer_means` (and `layer_query`)."""
        collector = _Collector(features.get("attention_mask"), self.is_causal)
        reset = _COLLECTOR.set(collector)
        try:
            features = super().forward(features, **kwargs)
        finally:
            _COLLECTOR.reset(reset)
        collector.add(features["token_embeddings"])
        if len(collector.cls) != self.num_states:
            raise ModelError(
                f"{type(self.model).__name__} ran {len(collector.cls) - 1} layers, but its "
                f"configuration says {self.num_states - 1}. This architecture is not supported."
            )
        features["layer_cls"] = torch.stack(collector.cls, dim=1)
        features["layer_means"] = torch.stack(collector.means, dim=1)
        if collector.wants_last_token:
            features["layer_query"] = torch.stack(collector.last, dim=1)
        return features
