"""A frozen encoder that was run already: summaries of known sentences instead of a forward pass.

sentence-transformers' trainer then sees an ordinary model, and a step costs what the head costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import nn

from lwap.encoding.bank import LayerBank, Progress, layerwise_transformer
from lwap.encoding.hardware import in_precision, resolve_precision

VIEW = "\x1f"  # between the number of a view and its sentence
VIEWS = 4  # of each sentence, under as many dropout masks
VIEW_ROWS = 32  # sentences of one forward pass


class BankEncoder(InputModule):
    """A frozen encoder that was run already: looks up the layer summaries of known sentences.

    Inputs: sentences of the bank. Outputs: `layer_cls` (the bank's query vectors) and
    `layer_means`, (B, S, D), and `sentence_embedding`, the last state's first token.
    """

    save_in_root = False

    def __init__(self, bank: LayerBank | tuple[Sequence[str], torch.Tensor, torch.Tensor]) -> None:
        super().__init__()
        if isinstance(bank, LayerBank):
            texts, query, means = bank.texts, bank.query, bank.mean
            query, means = torch.from_numpy(query), torch.from_numpy(means)
        else:
            texts, query, means = bank
        self.row_of = {text: row for row, text in enumerate(texts)}
        # Buffers move with the model; they are no part of its state dict.
        self.register_buffer("layer_query", query, persistent=False)
        self.register_buffer("layer_means", means, persistent=False)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict:
        """Return the sentences' rows as "input_ids" (B, 1), where the trainer looks for them."""
        return {"input_ids": torch.tensor([[self.row_of[text]] for text in inputs])}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `layer_cls` and `layer_means`, (B, S, D), and `sentence_embedding` (B, D)."""
        rows = features["input_ids"][:, 0]
        query = self.layer_query[rows]
        return {
            **features,
            "layer_cls": query,
            "layer_means": self.layer_means[rows],
            "sentence_embedding": query[:, -1],
        }

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.layer_means.shape[-1]

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the bank belongs to the training sentences, not to the model."""


def dropout_views(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    views: int = VIEWS,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Run an encoder over each sentence several times, each with dropout of its own.

    Args:
        model: From `lwap.load`.
        texts: N sentences.
        views: Of each sentence.
        precision: "fp32", "bf16", or "auto" (bf16 where the hardware multiplies it natively).
        progress: Called with the number of sentences done and N.

    Returns:
        Names (`view` of each sentence), query vectors and means, (views · N, S, D), for
        `BankEncoder`.
    """
    transformer = layerwise_transformer(model)
    arithmetic = resolve_precision(precision, transformer.device)
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    shape = (views * len(texts), transformer.num_states, transformer.get_embedding_dimension())
    query, means = torch.empty(shape), torch.empty(shape)
    was_training = transformer.training
    transformer.train()
    try:
        with torch.no_grad(), in_precision(arithmetic, transformer.device):
            for start in range(0, len(order), VIEW_ROWS):
                rows = torch.tensor(order[start : start + VIEW_ROWS])
                features = transformer.preprocess([texts[row] for row in rows])
                features = {
                    name: value.to(transformer.device) if torch.is_tensor(value) else value
                    for name, value in features.items()
                }
                for number in range(views):
                    made = transformer(dict(features))
                    place = rows + number * len(texts)
                    query[place] = made.get("layer_query", made["layer_cls"]).float().cpu()
                    means[place] = made["layer_means"].float().cpu()
                if progress is not None:
                    progress(start + len(rows), len(texts))
    finally:
        transformer.train(was_training)
    return [view(text, number) for number in range(views) for text in texts], query, means


def view(text: str, number: int) -> str:
    """Return the name of one view of a sentence."""
    return f"{number}{VIEW}{text}"


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Set every dropout of an encoder to a share, 0 to 1; None leaves it as it is."""
    if share is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        for name in ("dropout_prob", "attention_dropout", "dropout_p"):
            # Attention kernels take the number from an attribute of their layer.
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)
