"""One training run: data, what is trained, the loop, the best step.

The loop is sentence-transformers' trainer. A head sees cached summaries of a frozen encoder; LoRA
and full runs see the encoder itself.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from lwap.adapters import add_adapter
from lwap.backbone import has_unnormalised_states
from lwap.bank import Progress, encode_layers, layerwise_transformer
from lwap.checkpoints import load
from lwap.errors import ConfigError, InputError, LwapError
from lwap.evaluation.source import Count
from lwap.evaluation.sts import spearman
from lwap.hardware import Precision, resolve_precision
from lwap.pooling import LayerHead, LayerwiseAttentionPooling, ScalarMix
from lwap.training.config import HEAD_POOLINGS, Mode, Objective, TrainConfig
from lwap.training.dev import DevSet, dev_texts
from lwap.training.examples import Examples
from lwap.training.frozen import VIEWS, BankEncoder, dropout_views, set_dropout, view
from lwap.training.objectives import CachedContrastiveLoss, ContrastiveLoss

INITIAL_STD = 0.02  # of a new dense layer's weights, as BERT's

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        model: The encoder with its trained pooling, in eval mode.
        config: The settings.
        metric: What the best step was chosen by: "Spearman × 100 on NAME", or "in-batch accuracy".
        history: A row a look at the dev set: step, loss (mean since the last look), dev,
            alignment, uniformity, layer_weights.
        best_step: The step that was kept.
        results: Measured on the dev set, as written into the manifest.
        triplets: Rows trained on, after dropping duplicates.
        seconds: Duration by part: encoding, training, dev.
    """

    model: SentenceTransformer
    config: TrainConfig
    metric: str
    history: pd.DataFrame
    best_step: int
    results: dict[str, Any]
    triplets: int
    seconds: dict[str, float]


def train(
    config: TrainConfig,
    data: pd.DataFrame | Sequence[str],
    dev_pairs: pd.DataFrame | None = None,
    *,
    dev_name: str = "dev",
    progress: Progress | None = None,
    log: Log | None = None,
) -> TrainResult:
    """Train a pooling, and its encoder if so configured, with a contrastive objective.

    Args:
        config: The settings.
        data: Supervised: columns sent0, sent1 (positive) and perhaps hard_neg, from
            `lwap.data.read_triplets`. Unsupervised: sentences.
        dev_pairs: Columns sentence1, sentence2, score: the best step is chosen by Spearman on
            them. Without it a tenth of the rows is held out, and the step chosen by how often
            the positive comes first among all candidates; needs the supervised objective.
        dev_name: What to call the dev set in the results.
        progress: As in `encode_layers`, over what is encoded before the first step.
        log: Called with a row of the history, and the number of steps, at each look.

    Raises:
        InputError: If a column is missing, or the dev pairs have no scores that can be ranked.
        ConfigError: If a batch is larger than the data, or a setting would be ignored.
        ModelError: If the encoder cannot be had.
        LwapError: If the run diverged before anything was learned.
    """
    started = time.perf_counter()
    examples = Examples.of(data, config.objective)
    _check_dev(config, examples, dev_pairs)
    encoder = load(config.encoder)
    if any(isinstance(module, LayerHead) for module in encoder):
        raise ConfigError(
            f"'{config.encoder}' is a checkpoint with a head. Train from its encoder instead."
        )
    held_out = None
    if dev_pairs is None:
        examples, held_out = examples.hold_out(config.seed)
    examples.check_batch(config)

    encoded_now = examples.texts if config.mode == Mode.HEAD else []
    counted = Count(progress, len(encoded_now) + len(dev_texts(dev_pairs, held_out)))
    dev = DevSet(
        encoder,
        dev_pairs,
        held_out,
        is_frozen=config.mode == Mode.HEAD,
        precision=config.precision,
        progress=counted.advance,
    )
    counted.close()
    set_seed(config.seed)
    model = _model(config, encoder)
    seen = model
    if config.mode == Mode.HEAD:
        seen = _on_summaries(config, model, examples, counted.advance)
    encoded = time.perf_counter()
    history, best_step = _fit(config, model, seen, examples, dev, log)
    done = time.perf_counter()

    model.lwap_name = config.encoder
    results = {
        **dev.results(model, dev_name, config.pooling),
        "best_step": best_step,
    }
    metric = f"Spearman × 100 on {dev_name}"
    if held_out is not None:
        metric = f"in-batch accuracy on {len(held_out)} held-out triplets"
    return TrainResult(
        model=model.eval(),
        config=config,
        metric=metric,
        history=history,
        best_step=best_step,
        results=results,
        triplets=len(examples),
        seconds={
            "encoding": encoded - started,
            "training": done - encoded,
            "dev": time.perf_counter() - done,
        },
    )


def _check_dev(config: TrainConfig, examples: Examples, pairs: pd.DataFrame | None) -> None:
    if pairs is None:
        if config.objective == Objective.UNSUPERVISED:
            raise ConfigError(
                "The unsupervised objective has no positives to hold out; the best step is chosen "
                "on scored pairs. Give dev pairs (sentence1, sentence2, score)."
            )
        return
    missing = [name for name in ("sentence1", "sentence2", "score") if name not in pairs]
    if missing:
        raise InputError(
            f"The dev pairs have no column '{missing[0]}'; they need sentence1, sentence2, score, "
            f"and have {list(pairs.columns)}."
        )
    # Any ranking will do: this raises if the scores themselves cannot be ranked.
    spearman(np.arange(len(pairs)), pairs["score"].to_numpy(dtype=float))


# --- what is trained ----------------------------------------------------------------------------


def _model(config: TrainConfig, encoder: SentenceTransformer) -> SentenceTransformer:
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


def _on_summaries(
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
        bank = dropout_views(before, examples.texts, progress=progress)
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


# --- the loop -----------------------------------------------------------------------------------


class _KeepBest(TrainerCallback):
    """Looks at the dev set every k steps and keeps the best weights in memory."""

    def __init__(self, config: TrainConfig, model: SentenceTransformer, dev: DevSet, log) -> None:
        self.config, self.model, self.dev, self.report = config, model, dev, log
        self.rows: list[dict[str, Any]] = []
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None
        self.losses: list[float] = []
        self.has_diverged = False
        self.since_best = 0

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.look(state)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        self.losses.append(float(logs["loss"]))
        if not np.isfinite(self.losses[-1]):
            control.should_training_stop = self.has_diverged = True
        step = state.global_step
        if self.has_diverged or step % self.config.eval_steps == 0 or step == state.max_steps:
            self.look(state)
        if self.config.patience and self.since_best >= self.config.patience:
            control.should_training_stop = True

    def look(self, state) -> None:
        was_training = self.model.training
        found = self.dev.look(self.model.eval())
        self.model.train(was_training)
        row = {
            "step": state.global_step,
            "steps": state.max_steps,
            "loss": float(np.mean(self.losses)) if self.losses else float("nan"),
            **found,
        }
        self.losses = []
        self.rows.append(row)
        if self.report is not None:
            self.report(row)
        self.since_best += 1
        if np.isfinite(row["dev"]) and (self.best is None or row["dev"] > self.best[0]):
            weights = {name: value.detach().cpu().clone() for name, value in self.weights().items()}
            self.best, self.since_best = (row["dev"], state.global_step, weights), 0

    def weights(self) -> dict[str, torch.Tensor]:
        """Return what training changes, by name."""
        names = {name for name, value in self.model.named_parameters() if value.requires_grad}
        if self.config.mode == Mode.HEAD:  # the encoder is not part of what is trained
            names = {name for name in names if not name.startswith("0.")}
        return {name: value for name, value in self.model.state_dict().items() if name in names}

    def restore(self, weights: dict[str, torch.Tensor]) -> None:
        """Put weights back."""
        self.model.load_state_dict(weights, strict=False)


class _Trainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer without its model card: this project writes its own."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        pass


def _fit(
    config: TrainConfig,
    model: SentenceTransformer,
    seen: SentenceTransformer,
    examples: Examples,
    dev: DevSet,
    log: Log | None,
) -> tuple[pd.DataFrame, int]:
    """Train `model` in place and leave it at its best step; return the history and that step.

    The trainer sees `seen`: the model, or its pooling behind summaries of a frozen encoder.
    """
    is_frozen = seen is not model
    keeper = _KeepBest(config, model, dev, log)
    disable_progress_bar()
    dataset = _dataset(config, examples)
    batches = len(dataset) // config.batch_size
    steps = math.ceil(batches / config.accumulation) * config.epochs
    steps = min(steps, config.max_steps) if config.max_steps else steps
    is_unsupervised = config.objective == Objective.UNSUPERVISED
    transformer = layerwise_transformer(model)
    device = torch.device("cpu") if is_frozen else transformer.device
    is_bf16 = not is_frozen and resolve_precision(config.precision, device) == Precision.BF16
    if config.mini_batch:
        loss: nn.Module = CachedContrastiveLoss(
            seen,
            config.temperature,
            config.hard_negative_weight,
            mini_batch=config.mini_batch,
        )
    else:
        loss = ContrastiveLoss(
            seen, config.temperature, config.hard_negative_weight, share=not is_unsupervised
        )
    limit = transformer.max_seq_length
    if config.max_tokens and not is_frozen:
        transformer.max_seq_length = min(config.max_tokens, limit or config.max_tokens)
    rates = {r"model\.[1-9]": config.head_learning_rate} if config.has_own_head_rate else {}
    try:
        with tempfile.TemporaryDirectory(prefix="lwap-train-") as scratch:
            trainer = _Trainer(
                model=seen,
                args=SentenceTransformerTrainingArguments(
                    output_dir=scratch,
                    num_train_epochs=config.epochs,
                    max_steps=steps if config.max_steps else -1,
                    per_device_train_batch_size=config.batch_size,
                    gradient_accumulation_steps=config.accumulation,
                    learning_rate=config.learning_rate,
                    learning_rate_mapping=rates,
                    warmup_steps=math.ceil(config.warmup * steps),
                    weight_decay=config.weight_decay,
                    seed=config.seed,
                    bf16=is_bf16,
                    dataloader_drop_last=True,
                    logging_steps=1,
                    logging_nan_inf_filter=False,  # it would log the mean of the losses before
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                    use_cpu=device.type == "cpu",
                ),
                train_dataset=dataset,
                loss=loss,
                callbacks=[keeper],
            )
            trainer.remove_callback(PrinterCallback)  # `log` reports instead
            trainer.train()
    finally:
        transformer.max_seq_length = limit
    has_collapsed = not np.isfinite([row["dev"] for row in keeper.rows[1:]]).any()
    if keeper.best is None or has_collapsed or (keeper.has_diverged and keeper.best[1] == 0):
        last = keeper.rows[-1]
        raise LwapError(
            f"The run diverged: at step {last['step']} the loss is {last['loss']:.3g} and the dev "
            f"score {last['dev']:.3g}, and no step was better than the untrained head "
            f"(learning_rate {config.learning_rate}, temperature {config.temperature}). Lower the "
            "learning rate."
        )
    _, best_step, weights = keeper.best
    keeper.restore(weights)
    model.eval()
    return pd.DataFrame(keeper.rows), best_step


def _dataset(config: TrainConfig, examples: Examples) -> Dataset:
    """Return the columns that the loss takes."""
    if config.objective == Objective.SUPERVISED:
        names = ("anchor", "positive", "negative")
        return Dataset.from_dict(dict(zip(names, examples.columns, strict=False)))
    (texts,) = examples.columns
    if config.mode != Mode.HEAD:  # the same twice: dropout differs
        return Dataset.from_dict({"anchor": texts, "positive": texts})
    pairs = [(view(t, n), view(t, n + 1)) for n in range(0, VIEWS, 2) for t in texts]
    anchors, positives = zip(*pairs, strict=True)
    return Dataset.from_dict({"anchor": list(anchors), "positive": list(positives)})


def default_output(config: TrainConfig, folder: Path) -> Path:
    """Return a new run's model folder: FOLDER/POOLING-RESIDUAL-TIME/model."""
    kind = config.pooling if config.residual == "none" else f"{config.pooling}-{config.residual}"
    return folder / f"{kind.replace('_', '-')}-{time.strftime('%Y%m%d-%H%M%S')}" / "model"
