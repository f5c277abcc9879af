"""Memory and disk of a run, by formula."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from lwap.encoding.bank import layerwise_transformer
from lwap.encoding.hardware import Precision
from lwap.training.config import Mode, TrainConfig
from lwap.training.examples import Examples
from lwap.training.frozen import VIEWS
from lwap.training.probe import Probe

PROCESS_BYTES = 700_000_000  # Python, its libraries, and what a forward pass works with
# What the allocator of the machine's own memory takes for each byte of activations: what is kept
# until backward lies between what is freed, and LoRA frees three times as much.
SCATTER = {Mode.LORA: 1.9, Mode.FULL: 1.35}
CUDA_BYTES = 600_000_000  # a context with its kernels
SMALL_FILES = 3_000_000  # tokenizer, configuration, card, log
FLOAT = 4  # bytes of float32


@dataclass(frozen=True)
class Memory:
    """What a run needs of one memory.

    Attributes:
        device: "cpu" (the machine's own), "cuda:0", …
        parts: Bytes by what they are for.
        free: Bytes that are free now.
    """

    device: str
    parts: dict[str, int]
    free: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Size:
    """Numbers of a model: parameters of the encoder, of what is trained; its shape."""

    encoder: int
    after: int
    trained: int
    states: int
    dimension: int
    layers: int
    inner: int
    heads: int

    @classmethod
    def of(cls, config: TrainConfig, model: SentenceTransformer) -> Size:
        transformer = layerwise_transformer(model)
        facts = transformer.config
        encoder = sum(value.numel() for value in transformer.parameters())
        after = sum(value.numel() for module in list(model)[1:] for value in module.parameters())
        trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
        dimension = transformer.get_embedding_dimension()
        inner = next(
            (
                value
                for name in ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim")
                if isinstance(value := getattr(facts, name, None), int)
            ),
            4 * dimension,
        )
        return cls(
            encoder=encoder,
            after=after,
            trained=after if config.mode == Mode.HEAD else trained,
            states=transformer.num_states,
            dimension=dimension,
            layers=transformer.num_states - 1,
            inner=inner,
            heads=getattr(facts, "num_attention_heads", 12),
        )


def activation_bytes(
    size: Size, groups: Sequence[tuple[int, int]], *, has_dropout: bool, width: float = FLOAT
) -> int:
    """Return the bytes that backward needs of forward passes of (sentences, tokens) each.

    Of each token and layer: the input, queries, keys, values, the attention's output, the inputs
    of both norms and of the second linear part, 8 D values; what goes into and comes out of the
    activation, 2 times the inner size; with dropout two masks of D, and the attention
    probabilities, their mask and their product, 3 · heads · tokens.

    Source: Korthikanti et al. 2022 (Reducing Activation Recomputation in Large Transformer
    Models), equation 1, 34 s b h + 5 a s² b bytes with values of 2 bytes and masks of 1. Here
    masks are as wide as values, and the inner size need not be 4 D.
    """
    values = 0
    for sentences, tokens in groups:
        each = 8 * size.dimension + 2 * size.inner
        if has_dropout:
            each += 2 * size.dimension + 3 * size.heads * tokens
        values += sentences * tokens * (size.layers * each + 4 * size.dimension)
    return int(values * width)


def memory_of(
    config: TrainConfig, examples: Examples, dev_sentences: int, size: Size, probe: Probe
) -> tuple[Memory, ...]:
    summary = 2 * size.states * size.dimension * FLOAT  # CLS and mean of a sentence
    texts = examples.texts
    host = {
        "process": PROCESS_BYTES,
        # Strings, the table, and the trainer's own data set.
        "sentences": 3 * sum(len(text) + 60 for column in examples.columns for text in column),
        "summaries": dev_sentences * summary,
        "best weights": 2 * size.trained * FLOAT,  # the old are there while the new are copied
    }
    trained = {
        "weights": (size.encoder + size.after) * FLOAT,
        "gradients": size.trained * FLOAT,
        "optimizer": 2 * size.trained * FLOAT,  # Adam's two moments
    }
    has_dropout = any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in probe.model.modules()
    )
    if config.mode == Mode.HEAD:
        host["summaries"] += len(texts) * summary * (1 if config.has_positives else VIEWS)
        rows = config.batch_size * (len(examples.columns) if config.has_positives else 2)
        # Keys, queries, values, before and after their activation, and the inputs.
        trained["activations"] = rows * size.states * size.dimension * 8 * FLOAT
    else:
        host["summaries"] += dev_sentences * summary  # of each look, beside those at the start
        scatter = SCATTER[Mode(config.mode)] if probe.device.type == "cpu" else 1.1
        passes = [groups[:1] if config.mini_batch else groups for groups in probe.batches]
        width = 3 if probe.precision() == Precision.BF16 else FLOAT
        trained["activations"] = int(
            scatter
            * max(
                activation_bytes(size, groups, has_dropout=has_dropout, width=width)
                for groups in passes
            )
        )
        if width != FLOAT:
            trained["copies in bf16"] = size.encoder * 2
    if probe.device.type != "cuda":
        return (Memory(str(probe.device), host | trained, free_memory()),)
    # A head is trained on the machine's own memory, from summaries.
    on_host = trained if config.mode == Mode.HEAD else {}
    there = {"weights": size.encoder * FLOAT} if config.mode == Mode.HEAD else trained
    free, _ = torch.cuda.mem_get_info(probe.device)
    # What this process holds of it, the copy included, the run's own process has to itself.
    return (
        Memory("cpu", host | on_host, free_memory()),
        Memory(str(probe.device), {"context": CUDA_BYTES} | there, free),
    )


def free_memory() -> int:
    """Return the bytes that a new process can have, within its container's limit."""
    free = psutil.virtual_memory().available
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such system, or no limit
        return free
    return min(free, limit - used + int(facts.get("inactive_file", 0)))


def memory_problems(config: TrainConfig, memory: Sequence[Memory]) -> list[str]:
    found = []
    for each in memory:
        if each.total <= each.free:
            continue
        largest = max(each.parts, key=lambda part: each.parts[part])
        found.append(
            f"The run needs about {_gigabytes(each.total)} of memory on {each.device}, "
            f"{_gigabytes(each.parts[largest])} of it for {largest}, and "
            f"{_gigabytes(each.free)} are free. {_memory_advice(config, largest)}"
        )
    return found


def _memory_advice(config: TrainConfig, largest: str) -> str:
    if largest == "summaries":
        return "Train on fewer sentences, or choose mode 'lora', which keeps no summaries."
    if config.mode == Mode.HEAD:
        return "Set a smaller batch_size, bring fewer sentences, or choose a smaller encoder."
    if largest == "activations":
        smaller = max(1, (config.mini_batch or config.batch_size) // 4)
        return (
            f"Set mini_batch to {smaller}, which keeps the negatives of the whole batch, or a "
            "smaller batch_size or max_tokens."
        )
    if config.mode == Mode.FULL:
        return "Choose mode 'lora' or 'head', which train far fewer weights, or a smaller encoder."
    return "Choose mode 'head', or a smaller encoder."


def disk_bytes(config: TrainConfig, size: Size) -> int:
    # Weights now, the best ones, and Adam's two moments.
    checkpoint = 4 * size.trained * FLOAT
    model = (size.encoder + size.after if config.mode == Mode.FULL else size.trained) * FLOAT
    return SMALL_FILES + checkpoint + max(checkpoint, model)


def existing_parent(folder: Path) -> Path:
    """Return the nearest folder above that is there already."""
    folder = Path(os.path.abspath(folder))
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def disk_problems(needed: int, free: int | None, folder: str | Path | None) -> list[str]:
    if free is None or needed <= free:
        return []
    return [
        f"The run writes up to {_gigabytes(needed)}, and {_gigabytes(free)} are free on the disk "
        f"of '{folder}'. Make room, choose another folder, or train fewer weights (mode 'lora' or "
        "'head')."
    ]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
