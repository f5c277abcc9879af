"""What is trained: an encoder with a new pooling, with adapters, or a pooling on summaries."""

from __future__ import annotations

import contextlib

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from lwap.encoding.adapters import add_adapter
from lwap.encoding.backbone import has_unnormalised_states
from lwap.encoding.bank import Progress, encode_layers, layerwise_transformer
from lwap.errors import ConfigError
from lwap.pooling.head import LayerHead
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix
from lwap.training.config import HEAD_POOLINGS, Mode, Objective, TrainConfig
from lwap.training.dev_evaluation import reading
from lwap.training.examples import Examples
from lwap.training.frozen import BankEncoder, dropout_views, set_dropout

INITIAL_STD = 0.02  # of a new dense layer's weights, as BERT's


def new_model(config: TrainConfig, encoder: SentenceTransformer) -> SentenceTransformer:
    """Return the encoder with a new pooling; adapters in it where mode is "lora"."""
    transformer = layerwise_transformer(encoder)
    size = transformer.get_embedding_dimension()
    if config.pooling in HEAD_POOLINGS:
        after: list[nn.Module] = [_new_head(config, transformer)]
    else:
        after = [Pooling(size, config.pooling)]
        if config.pooling == "cls":
            dense = Dense(size, size, activation_function=nn.Tanh())
            nn.init.normal_(dense.linear.weight, std=INITIAL_STD)
            nn.init.zeros_(dense.linear.bias)
            after.append(dense)
    set_dropout(transformer.model, config.dropout)
    if config.mode == Mode.LORA:
        add_adapter(transformer.model, config.lora_rank, config.lora_alpha)
    return SentenceTransformer(
        modules=[transformer, *after],
        device=str(transformer.device),
        prompts=encoder.prompts,
        default_prompt_name=encoder.default_prompt_name,
    )


def _new_head(config: TrainConfig, transformer) -> LayerHead:
    size = (transformer.get_embedding_dimension(), transformer.num_states)
    if config.pooling == "scalar_mix":
        return ScalarMix(*size)
    if has_unnormalised_states(transformer.config) and not config.layer_norm:
        raise ConfigError(
            f"The inner states of {transformer.config.model_type} are not normalised and differ "
            "in scale by layer. Set layer_norm (--layer-norm)."
        )
    return LayerwiseAttentionPooling(
        *size,
        query=config.query,
        scale=config.scale,
        residual=config.residual,
        layer_norm=config.layer_norm,
    )


def reading_at_most(transformer, tokens: int) -> contextlib.AbstractContextManager[None]:
    """Let an encoder read no more than so many tokens for a while; 0 is its own limit."""
    limit = transformer.max_seq_length
    return reading(transformer, min(tokens, limit or tokens) if tokens else limit)


def on_summaries(
    config: TrainConfig, model: SentenceTransformer, examples: Examples, progress: Progress
) -> SentenceTransformer:
    """Return the model of a head run: summaries in its encoder's place, the same pooling."""
    transformer, *after = list(model)
    before = SentenceTransformer(
        modules=[transformer],
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
    )
    if config.objective == Objective.UNSUPERVISED:
        with reading_at_most(transformer, config.max_tokens):
            bank = dropout_views(
                before, examples.texts, precision=config.precision, progress=progress
            )
    else:
        bank = encode_layers(
            before,
            examples.texts,
            summaries=("cls", "mean"),
            precision=config.precision,
            progress=progress,
        )
    after = [module for module in after if not isinstance(module, Pooling)]
    return SentenceTransformer(modules=[BankEncoder(bank), *after], device="cpu")
