"""What is trained: an encoder with a new pooling, with adapters, or a pooling on summaries."""

from __future__ import annotations

import contextlib
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from lwap.encoding.adapters import add_adapter
from lwap.encoding.bank import Progress, encode_layers, layerwise_transformer
from lwap.registry import STRATEGIES, resolve
from lwap.training.config import Mode, TrainConfig
from lwap.training.dev_evaluation import reading
from lwap.training.examples import Examples
from lwap.training.frozen import BankEncoder, dropout_views, set_dropout


def new_model(config: TrainConfig, encoder: SentenceTransformer) -> SentenceTransformer:
    """Return the encoder with a new pooling; adapters in it where mode is "lora"."""
    transformer = layerwise_transformer(encoder)
    after = resolve(STRATEGIES[config.pooling].training.modules)(config, transformer)
    set_dropout(transformer.model, config.dropout)
    if config.mode == Mode.LORA:
        add_adapter(transformer.model, config.lora_rank, config.lora_alpha)
    return SentenceTransformer(
        modules=[transformer, *after],
        device=str(transformer.device),
        **_prompts(encoder),
    )


def _prompts(model: SentenceTransformer) -> dict[str, Any]:
    return {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}


def reading_at_most(transformer: Any, tokens: int) -> contextlib.AbstractContextManager[None]:
    """Let an encoder read no more than so many tokens for a while; 0 is its own limit."""
    limit = transformer.max_seq_length
    return reading(transformer, min(tokens, limit or tokens) if tokens else limit)


def on_summaries(
    config: TrainConfig, model: SentenceTransformer, examples: Examples, progress: Progress
) -> SentenceTransformer:
    """Return the model of a head run: summaries in its encoder's place, the same pooling."""
    transformer, *after = list(model)
    before = SentenceTransformer(modules=[transformer], **_prompts(model))
    if not config.has_positives:
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
