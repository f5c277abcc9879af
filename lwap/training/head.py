"""Train a head on the cached layer summaries of a frozen encoder.

The encoder runs once over the distinct sentences; after that a step costs what the head costs.
sentence-transformers' trainer sees an ordinary model whose first module looks summaries up.
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
from sentence_transformers.base.modules import InputModule
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from lwap.backbone import has_unnormalised_states
from lwap.bank import LayerBank, Progress, encode_layers, layerwise_transformer
from lwap.checkpoints import load
from lwap.errors import ConfigError, InputError, LwapError
from lwap.evaluation.sts import (
    Difference,
    Interval,
    spearman,
    spearman_difference,
    spearman_interval,
)
from lwap.pooling import LayerHead, LayerwiseAttentionPooling, ScalarMix
from lwap.scores import cosine
from lwap.strategy import embed, head_chunks, run_head
from lwap.training.config import TrainConfig
from lwap.training.objectives import HardNegativeRankingLoss

DEV_SHARE = 0.1  # of the triplets, held out when there are no scored pairs to select on

Log = Callable[[dict[str, Any]], None]


class BankEncoder(InputModule):
    """A frozen encoder that was run already: looks up the layer summaries of known sentences.

    Inputs: sentences of the bank. Outputs: `layer_cls` (the bank's query vectors) and
    `layer_means`, (B, S, D).
    """

    save_in_root = False

    def __init__(self, bank: LayerBank) -> None:
        super().__init__()
        self.row_of = {text: row for row, text in enumerate(bank.texts)}
        # Buffers move with the model; they are no part of its state dict.
        self.register_buffer("layer_query", torch.from_numpy(bank.query), persistent=False)
        self.register_buffer("layer_means", torch.from_numpy(bank.mean), persistent=False)

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs) -> dict:
        """Return the sentences' rows as "input_ids" (B, 1), where the trainer looks for them."""
        return {"input_ids": torch.tensor([[self.row_of[text]] for text in inputs])}

    def forward(self, features: dict[str, Any], **kwargs) -> dict[str, Any]:
        """Add `layer_cls` and `layer_means`, (B, S, D)."""
        rows = features["input_ids"][:, 0]
        return {
            **features,
            "layer_cls": self.layer_query[rows],
            "layer_means": self.layer_means[rows],
        }

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.layer_means.shape[-1]

    def save(self, output_path: str, *args, **kwargs) -> None:
        """Write nothing: the bank belongs to the training sentences, not to the model."""


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        model: The frozen encoder with the trained head, in eval mode.
        config: The settings.
        metric: What the best step was chosen by: "Spearman × 100 on NAME", or "in-batch accuracy".
        history: A row a look at the dev set: step, loss (mean since the last look), dev.
        best_step: The step that was kept.
        results: Measured on the dev set, as written into the manifest.
        triplets: Triplets trained on, after dropping duplicates.
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
    triplets: pd.DataFrame,
    dev_pairs: pd.DataFrame | None = None,
    *,
    dev_name: str = "dev",
    progress: Progress | None = None,
    log: Log | None = None,
) -> TrainResult:
    """Train a head on triplets with the supervised contrastive objective, encoder frozen.

    Args:
        config: The settings.
        triplets: Columns sent0, sent1 (positive), hard_neg, from `lwap.data.read_triplets`.
        dev_pairs: Columns sentence1, sentence2, score: the best step is chosen by Spearman on
            them. Without it a tenth of the triplets is held out, and the step chosen by how often
            the positive comes first among all candidates.
        dev_name: What to call the dev set in the results.
        progress: As in `encode_layers`, over training and dev sentences.
        log: Called with {"step", "steps", "loss", "dev"} at each look at the dev set.

    Raises:
        InputError: If a column is missing, or the dev pairs have no scores that can be ranked.
        ConfigError: If a batch is larger than the data.
        ModelError: If the encoder cannot be had.
        LwapError: If the run diverged before anything was learned.
    """
    started = time.perf_counter()
    _check_columns("triplets", triplets, _COLUMNS)
    if dev_pairs is not None:
        _check_columns("dev pairs", dev_pairs, ("sentence1", "sentence2", "score"))
        # Any ranking will do: this raises if the scores themselves cannot be ranked.
        spearman(np.arange(len(dev_pairs)), dev_pairs["score"].to_numpy(dtype=float))
    model = load(config.encoder)
    transformer = layerwise_transformer(model)
    if any(isinstance(module, LayerHead) for module in model):
        raise ConfigError(
            f"'{config.encoder}' is a checkpoint with a head. Train from its encoder instead."
        )
    triplets = triplets.drop_duplicates(["sent0", "sent1", "hard_neg"]).reset_index(drop=True)
    held_out = None
    if dev_pairs is None:
        # By anchor: an anchor on both sides would be scored on what it was trained on.
        anchors = triplets["sent0"].drop_duplicates().sample(frac=1, random_state=config.seed)
        is_held_out = triplets["sent0"].isin(anchors[: max(1, int(len(anchors) * DEV_SHARE))])
        held_out = triplets[is_held_out]
        triplets = triplets[~is_held_out].reset_index(drop=True)
    if len(triplets) < config.batch_size:
        raise ConfigError(
            f"batch_size is {config.batch_size}, but there are only {len(triplets)} triplets to "
            "train on. Use a smaller batch or more triplets."
        )

    dev_columns = ["sentence1", "sentence2"] if held_out is None else list(_COLUMNS)
    dev_frame = dev_pairs if held_out is None else held_out
    dev_texts = list(dict.fromkeys(text for name in dev_columns for text in dev_frame[name]))
    texts = list(dict.fromkeys(text for name in _COLUMNS for text in triplets[name]))

    def advance(part_done: int, before: int) -> None:
        if progress is not None:
            progress(before + part_done, len(texts) + len(dev_texts))

    bank = encode_layers(
        model,
        texts,
        summaries=("cls", "mean"),
        precision=config.precision,
        progress=lambda done, _: advance(done, 0),
    )
    # All summaries: the baselines of the results come from it.
    dev_bank = encode_layers(model, dev_texts, progress=lambda done, _: advance(done, len(texts)))
    encoded = time.perf_counter()

    set_seed(config.seed)
    head = _new_head(config, transformer)
    measure = (
        _spearman_on(dev_bank, dev_pairs) if held_out is None else _accuracy_on(dev_bank, held_out)
    )
    history, best_step = _fit(config, bank, head, triplets, measure, log)
    trained = time.perf_counter()

    result_model = SentenceTransformer(
        modules=[transformer, head],
        device=str(transformer.device),
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
    )
    result_model.lwap_name = config.encoder
    results: dict[str, Any] = {"dev_set": dev_name, "best_step": best_step}
    if held_out is None:
        results |= _dev_results(dev_bank, head, config, dev_pairs)
        metric = f"Spearman × 100 on {dev_name}"
    else:
        results |= {"dev_accuracy": measure(head), "dev_triplets": len(held_out)}
        metric = f"in-batch accuracy on {len(held_out)} held-out triplets"
    return TrainResult(
        model=result_model.eval(),
        config=config,
        metric=metric,
        history=history,
        best_step=best_step,
        results=results,
        triplets=len(triplets),
        seconds={
            "encoding": encoded - started,
            "training": trained - encoded,
            "dev": time.perf_counter() - trained,
        },
    )


_COLUMNS = ("sent0", "sent1", "hard_neg")


def _check_columns(name: str, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise InputError(
            f"The {name} have no column '{missing[0]}'; they need {', '.join(columns)}, and have "
            f"{list(frame.columns)}."
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


class _KeepBest(TrainerCallback):
    """Looks at the dev set every k steps and keeps the best head's weights in memory."""

    def __init__(self, config, head, measure, log) -> None:
        self.config, self.head, self.measure, self.report = config, head, measure, log
        self.rows: list[dict[str, Any]] = []
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None
        self.losses: list[float] = []
        self.has_diverged = False

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

    def look(self, state) -> None:
        value = self.measure(self.head)
        row = {
            "step": state.global_step,
            "steps": state.max_steps,
            "loss": float(np.mean(self.losses)) if self.losses else float("nan"),
            "dev": value,
        }
        self.losses = []
        self.rows.append(row)
        if self.report is not None:
            self.report(row)
        if np.isfinite(value) and (self.best is None or value > self.best[0]):
            weights = {name: tensor.clone() for name, tensor in self.head.state_dict().items()}
            self.best = (value, state.global_step, weights)


class _Trainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer without its model card: this project writes its own."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        pass


def _fit(
    config: TrainConfig,
    bank: LayerBank,
    head: LayerHead,
    triplets: pd.DataFrame,
    measure: Callable[[LayerHead], float],
    log: Log | None,
) -> tuple[pd.DataFrame, int]:
    """Train `head` in place and leave it at its best step; return the history and that step."""
    model = SentenceTransformer(modules=[BankEncoder(bank), head], device="cpu")
    keeper = _KeepBest(config, head, measure, log)
    disable_progress_bar()
    steps = config.epochs * (len(triplets) // config.batch_size)
    with tempfile.TemporaryDirectory(prefix="lwap-train-") as scratch:
        trainer = _Trainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=scratch,
                num_train_epochs=config.epochs,
                per_device_train_batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                warmup_steps=math.ceil(config.warmup * steps),
                weight_decay=config.weight_decay,
                seed=config.seed,
                dataloader_drop_last=True,
                logging_steps=1,
                logging_nan_inf_filter=False,  # it would log the mean of the losses before
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=Dataset.from_dict(
                {
                    "anchor": triplets["sent0"].tolist(),
                    "positive": triplets["sent1"].tolist(),
                    "negative": triplets["hard_neg"].tolist(),
                }
            ),
            loss=HardNegativeRankingLoss(model, config.temperature, config.hard_negative_weight),
            callbacks=[keeper],
        )
        trainer.remove_callback(PrinterCallback)  # `log` reports instead
        trainer.train()
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
    head.load_state_dict(weights)
    head.eval()
    return pd.DataFrame(keeper.rows), best_step


# --- measures on the dev set --------------------------------------------------------------------


def _rows_of(bank: LayerBank, texts: Sequence[str]) -> np.ndarray:
    row_of = {text: row for row, text in enumerate(bank.texts)}
    return np.array([row_of[text] for text in texts])


def _spearman_on(bank: LayerBank, pairs: pd.DataFrame) -> Callable[[LayerHead], float]:
    first, second = _rows_of(bank, pairs["sentence1"]), _rows_of(bank, pairs["sentence2"])
    gold = pairs["score"].to_numpy(dtype=float, copy=True)

    def measure(head: LayerHead) -> float:
        vectors = run_head(bank, head)
        if not np.isfinite(vectors).all():
            return float("nan")
        try:
            return spearman(cosine(vectors[first], vectors[second]), gold)
        except InputError:  # the head has collapsed: all cosines are the same
            return float("nan")

    return measure


def _accuracy_on(bank: LayerBank, triplets: pd.DataFrame) -> Callable[[LayerHead], float]:
    rows = {name: _rows_of(bank, triplets[name]) for name in _COLUMNS}

    def measure(head: LayerHead) -> float:
        vectors = run_head(bank, head)
        if not np.isfinite(vectors).all():
            return float("nan")
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
        candidates = np.concatenate([vectors[rows["sent1"]], vectors[rows["hard_neg"]]])
        best = (vectors[rows["sent0"]] @ candidates.T).argmax(axis=1)
        return float(100 * (best == np.arange(len(best))).mean())

    return measure


def _dev_results(
    bank: LayerBank, head: LayerHead, config: TrainConfig, pairs: pd.DataFrame
) -> dict[str, Any]:
    """Return the head's, the encoder's mean's and its CLS' Spearman, and the paired difference."""
    first, second = _rows_of(bank, pairs["sentence1"]), _rows_of(bank, pairs["sentence2"])
    gold = pairs["score"].to_numpy(dtype=float, copy=True)

    def cosines(vectors: np.ndarray) -> np.ndarray:
        return cosine(vectors[first], vectors[second])

    scores = {
        config.pooling: cosines(run_head(bank, head)),
        "mean": cosines(embed(bank, "mean")),
        "cls": cosines(embed(bank, "cls")),
    }
    return {
        "dev_pairs": len(gold),
        "dev_spearman": {
            name: _as_dict(spearman_interval(values, gold)) for name, values in scores.items()
        },
        "dev_difference_to_mean": _as_dict(
            spearman_difference(scores[config.pooling], scores["mean"], gold)
        ),
        "layer_weights": [round(w, 4) for w in _mean_weights(bank, head).tolist()],
    }


def _mean_weights(bank: LayerBank, head: LayerHead) -> np.ndarray:
    total = np.zeros(head.num_states)
    with torch.inference_mode():
        for query, means, _ in head_chunks(bank, next(head.parameters())):
            attention, _ = head.attend(query, means)
            total += attention.mean(dim=1).sum(dim=0).double().cpu().numpy()
    return total / len(bank)


def _as_dict(value: Interval | Difference) -> dict[str, float]:
    return {name: round(number, 4) for name, number in vars(value).items()}


def default_output(config: TrainConfig, folder: Path) -> Path:
    """Return a new run's model folder: FOLDER/POOLING-RESIDUAL-TIME/model."""
    kind = config.pooling if config.residual == "none" else f"{config.pooling}-{config.residual}"
    return folder / f"{kind.replace('_', '-')}-{time.strftime('%Y%m%d-%H%M%S')}" / "model"
