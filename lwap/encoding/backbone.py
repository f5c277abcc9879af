"""Facts about a transformers model: its layers, which way it reads, what the hardware can.

Knows nothing about pooling, sentences or sentence-transformers.
"""

from __future__ import annotations

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from lwap.errors import ModelError

# Position ids of these models start at padding_idx + 1 = 2, so two positions are not usable.
_OFFSET_POSITIONS = {
    "roberta",
    "xlm-roberta",
    "camembert",
    "mpnet",
    "xlm-roberta-xl",
    "data2vec-text",
}

# Encoders whose layers normalise their input, with one more norm after the last layer.
_PRE_NORM = {
    "modernbert",
    "eurobert",
    "megatron-bert",
    "roberta-prelayernorm",
    "xlm-roberta-xl",
    "esm",
}


def find_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules whose inputs are hidden states 0 … L-1, in the order they run.

    By class first (ALBERT has one module that runs L times, so the list then has one entry), by a
    `ModuleList` of length L second (MPNet, DeBERTa-v2).

    Raises:
        ModelError: If the architecture has no layers that can be recognised.
    """
    # The registry is private to transformers; where it has no entry the search below decides.
    recorded = (_CAN_RECORD_REGISTRY.get(model) or {}).get("hidden_states")
    layer_class = getattr(recorded, "target_class", recorded)
    if isinstance(layer_class, type):
        layers = [module for module in model.modules() if isinstance(module, layer_class)]
        if layers:
            return layers
    num_layers = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return list(module)
    raise ModelError(
        f"No transformer layers found in {type(model).__name__} "
        f"(model type '{model.config.model_type}'). LWAP Explorer reads text encoders such as "
        "BERT, RoBERTa, MPNet, DeBERTa or ModernBERT, and decoders such as Qwen3, Llama or GPT-2."
    )


def is_causal_decoder(config: PretrainedConfig) -> bool:
    """Say whether each token sees only the tokens before it (Llama, Qwen3, GPT-2, …).

    There the first token has seen nothing of the sentence; the last real token stands for it.
    """
    if getattr(config, "is_causal", None) is False:
        return False
    if getattr(config, "use_bidirectional_attention", None):
        return False
    model_type = config.model_type
    only_causal = (
        model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
    return only_causal or bool(getattr(config, "is_decoder", False))


def has_unnormalised_states(config: PretrainedConfig) -> bool:
    """Say whether inner states are raw residual streams (pre-norm), of different scales."""
    return is_causal_decoder(config) or config.model_type in _PRE_NORM


def position_limit(config: PretrainedConfig) -> int | None:
    """Return how many tokens fit the position embeddings, or None where there is no such limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or config.model_type == "deberta-v2":
        return positions
    return positions - 2 if config.model_type in _OFFSET_POSITIONS else positions
