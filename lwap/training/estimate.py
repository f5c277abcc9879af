"""How long a run takes on this machine, and how much memory and disk it needs.

Time is measured: a probe on the real encoder with some of the real sentences, scaled by tokens.
Memory and disk are formulas.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from lwap.encoding.bank import encode_layers, layerwise_transformer
from lwap.encoding.hardware import Precision, resolve_precision
from lwap.training.batches import GROUP_TOKENS, embed_columns
from lwap.training.check import DataCheck, count_tokens, sample, token_limit
from lwap.training.config import Mode, TrainConfig
from lwap.training.examples import Examples, plain
from lwap.training.frozen import VIEWS, BankEncoder
from lwap.training.loop import dataset_rows, planned_steps, world_size
from lwap.training.model import new_model
from lwap.training.objectives import info_nce

DRAWN = 10_000  # sentences of the batches that are drawn to see how long they are
MAX_DRAWN = 30  # batches
PROBE_TOKENS = {"cpu": 2048, "cuda": 16_384, "mps": 4096}  # padded tokens of a probe

# Measured on two CPU cores (docs/experiments.md).
START_SECONDS = 7.0  # Python, its libraries, the encoder
STEP_SECONDS = 0.01  # of the trainer itself
LOOK_SECONDS = 0.1  # of a look, beside the encoder
PAIR_SECONDS = 0.001  # of the intervals of the results, a dev pair
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
class Estimate:
    """What a run takes.

    Attributes:
        seconds: By part: start, encoding, training, looks. A run that `patience` ends takes less.
        steps: Of the optimiser.
        memory: Of the machine, and of the accelerator if the encoder is on one.
        disk: Bytes that are written at most at one time: the model, and two checkpoints, since one
            is written beside the one before.
        disk_free: Bytes free where they are written; None without a folder.
        problems: Why the run would not end well, a sentence each or more.
    """

    seconds: dict[str, float]
    steps: int
    memory: tuple[Memory, ...]
    disk: int
    disk_free: int | None
    problems: tuple[str, ...]

    @property
    def total_seconds(self) -> float:
        """From the start to the finished model."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, totals included."""
        memory = [asdict(each) | {"total": each.total} for each in self.memory]
        found = asdict(self) | {"memory": memory, "problems": list(self.problems)}
        return found | {"total_seconds": self.total_seconds}


def estimate(
    config: TrainConfig,
    data: DataCheck | Examples,
    encoder: SentenceTransformer,
    dev_pairs: pd.DataFrame | None = None,
    *,
    folder: str | Path | None = None,
) -> Estimate:
    """Say what a run would take, before it is started.

    Within a factor of 1.3 of what nine runs on a processor took (docs/experiments.md): memory 0.96
    to 1.22 times the measured peak, time 1.12 to 1.26. A machine that is busy with other work is
    slower by what that takes. On an accelerator neither was measured.

    Args:
        config: The settings.
        data: What `check_data` gave, or the examples: all of them are trained on.
        encoder: From `lwap.load`; it is copied and not changed.
        dev_pairs: As for `train`.
        folder: Where the run writes.

    Raises:
        InputError, ModelError: As `encode_layers`.
    """
    examples = data.examples if isinstance(data, DataCheck) else data
    device = layerwise_transformer(encoder).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return _estimate(config, data, examples, encoder, dev_pairs, folder)


def _estimate(config, data, examples, encoder, dev_pairs, folder) -> Estimate:
    probe = _Probe(config, examples, encoder)
    steps = planned_steps(config, dataset_rows(config, len(examples)), world_size())
    dev_texts = _dev_texts(data, dev_pairs)
    size = _Size.of(config, probe.model)
    memory = _memory(config, examples, len(dev_texts), size, probe)
    disk = _disk(config, size)
    disk_free = None if folder is None else shutil.disk_usage(_existing(Path(folder))).free
    problems = [*_memory_problems(config, memory), *_disk_problems(disk, disk_free, folder)]
    return Estimate(
        seconds=_seconds(config, examples, dev_texts, steps, size, probe),
        steps=steps,
        memory=memory,
        disk=disk,
        disk_free=disk_free,
        problems=tuple(problems),
    )


def _dev_texts(data: DataCheck | Examples, pairs: pd.DataFrame | None) -> list[str]:
    if pairs is not None:
        return list(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))
    if not isinstance(data, DataCheck):
        return []
    # The rows that are held out are not here; rows that are trained on are as long.
    rows = data.examples.table.iloc[: data.rows_held_out]
    return list(dict.fromkeys(text for name in rows for text in rows[name]))


# --- what batches look like ---------------------------------------------------------------------


class _Probe:
    """A copy of the model that a run would train, batches as the run would draw them."""

    def __init__(self, config: TrainConfig, examples: Examples, encoder) -> None:
        self.config = config
        self.model = new_model(config, copy.deepcopy(encoder))
        self.transformer = layerwise_transformer(self.model)
        self.device = self.transformer.device
        self.budget = GROUP_TOKENS.get(self.device.type, GROUP_TOKENS["cuda"])
        columns = examples.columns
        if not config.has_positives:
            columns = columns * 2
        self.rows = self._draw(columns)
        drawn = list(dict.fromkeys(text for batch in self.rows for row in batch for text in row))
        counts = count_tokens(drawn, encoder).clip(max=token_limit(config, encoder))
        self.tokens = dict(zip(drawn, counts.tolist(), strict=True))
        self.mean_tokens = float(counts.mean())
        self.batches = [self.padded(batch, config.mini_batch) for batch in self.rows]

    def _draw(self, columns: Sequence[Sequence[str]]) -> list[list[tuple[str, ...]]]:
        random = np.random.default_rng(self.config.seed)
        rows, size = len(columns[0]), min(self.config.batch_size, len(columns[0]))
        count = min(MAX_DRAWN, max(3, DRAWN // (size * len(columns))))
        return [
            [
                tuple(column[row] for column in columns)
                for row in random.choice(rows, size, replace=False)
            ]
            for _ in range(count)
        ]

    def padded(
        self, batch: Sequence[tuple[str, ...]], mini_batch: int = 0
    ) -> list[tuple[int, int]]:
        """Return the sentences and the width in tokens of each forward pass of a batch."""
        if mini_batch:
            return [
                (len(column[start : start + mini_batch]), max(map(self.tokens.get, column)))
                for column in zip(*batch, strict=True)
                for start in range(0, len(column), mini_batch)
            ]
        texts = [text for row in batch for text in row]
        if self.config.has_positives:
            texts = list({plain(text): text for text in texts}.values())
        groups: list[tuple[int, int]] = []
        for tokens in sorted((self.tokens[text] for text in texts), reverse=True):
            if groups and (groups[-1][0] + 1) * groups[-1][1] <= self.budget:
                groups[-1] = (groups[-1][0] + 1, groups[-1][1])
            else:
                groups.append((1, tokens))
        return groups

    def precision(self) -> Precision:
        """Return the arithmetic of the encoder."""
        return resolve_precision(self.config.precision, self.device)


@dataclass(frozen=True)
class _Size:
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
    def of(cls, config: TrainConfig, model: SentenceTransformer) -> _Size:
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


# --- memory -------------------------------------------------------------------------------------


def activation_bytes(
    size: _Size, groups: Sequence[tuple[int, int]], *, has_dropout: bool, width: float = FLOAT
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


def _memory(
    config: TrainConfig, examples: Examples, dev_sentences: int, size: _Size, probe: _Probe
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


def _memory_problems(config: TrainConfig, memory: Sequence[Memory]) -> list[str]:
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


# --- disk ---------------------------------------------------------------------------------------


def _disk(config: TrainConfig, size: _Size) -> int:
    # Weights now, the best ones, and Adam's two moments.
    checkpoint = 4 * size.trained * FLOAT
    model = (size.encoder + size.after if config.mode == Mode.FULL else size.trained) * FLOAT
    return SMALL_FILES + checkpoint + max(checkpoint, model)


def _existing(folder: Path) -> Path:
    """Return the nearest folder above that is there already."""
    folder = Path(os.path.abspath(folder))
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _disk_problems(needed: int, free: int | None, folder: str | Path | None) -> list[str]:
    if free is None or needed <= free:
        return []
    return [
        f"The run writes up to {_gigabytes(needed)}, and {_gigabytes(free)} are free on the disk "
        f"of '{folder}'. Make room, choose another folder, or train fewer weights (mode 'lora' or "
        "'head')."
    ]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


# --- time ---------------------------------------------------------------------------------------


def _seconds(
    config: TrainConfig,
    examples: Examples,
    dev_texts: Sequence[str],
    steps: int,
    size: _Size,
    probe: _Probe,
) -> dict[str, float]:
    precise = _seconds_a_token(probe, Precision.FP32)
    usual = precise
    if probe.precision() != Precision.FP32:
        usual = _seconds_a_token(probe, probe.precision())
    dev_tokens = 0.0
    if dev_texts:
        some = count_tokens(sample(dev_texts, DRAWN), probe.model)
        dev_tokens = float(some.clip(max=layerwise_transformer(probe.model).max_seq_length).mean())
        dev_tokens *= len(dev_texts)
    encoding = dev_tokens * precise
    looks = 1 + steps // config.eval_steps + (steps % config.eval_steps > 0)
    looking = looks * LOOK_SECONDS + PAIR_SECONDS * len(dev_texts) / 2
    if config.mode == Mode.HEAD:
        tokens = len(examples.texts) * probe.mean_tokens
        encoding += tokens * usual * (1 if config.has_positives else VIEWS)
        step = _seconds_of_a_head(config, examples, probe)
    else:
        looking += dev_tokens * (looks * usual + precise)
        step = config.accumulation * _seconds_of_a_batch(probe)
    step += STEP_SECONDS + _seconds_of_adam(size.trained, _train_device(config, probe))
    return {
        "start": START_SECONDS,
        "encoding": encoding,
        "training": steps * step,
        "looks": looking,
    }


def _train_device(config: TrainConfig, probe: _Probe) -> torch.device:
    return torch.device("cpu") if config.mode == Mode.HEAD else probe.device


def _timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _seconds_a_token(probe: _Probe, precision: Precision) -> float:
    """Time a forward pass over some of the sentences, as the encoding of a bank does it."""
    budget = PROBE_TOKENS.get(probe.device.type, PROBE_TOKENS["cuda"])
    by_length = sorted(probe.tokens, key=lambda text: -probe.tokens[text])
    texts = sample(by_length, max(2, int(budget / probe.mean_tokens)))
    tokens = sum(probe.tokens[text] for text in texts)

    def encode(some: Sequence[str]) -> None:
        encode_layers(probe.model, some, summaries=("cls", "mean"), precision=precision)

    encode(texts[-2:])  # the first pass of a precision prepares it
    return _timed(lambda: encode(texts), probe.device) / tokens


def _seconds_of_a_batch(probe: _Probe) -> float:
    """Time forward and backward of some rows of a batch; scale by the padded tokens of a batch."""
    config = probe.config
    budget = PROBE_TOKENS.get(probe.device.type, PROBE_TOKENS["cuda"])
    batch = probe.rows[0]
    count = 2
    while count < len(batch) and _tokens(probe.padded(batch[: count + 1])) <= budget:
        count += 1
    rows, tokens = batch[:count], _tokens(probe.padded(batch[:count]))
    model, limit = probe.model.train(), probe.transformer.max_seq_length
    probe.transformer.max_seq_length = token_limit(config, model)
    is_bf16 = probe.precision() == Precision.BF16

    def step(some: Sequence[tuple[str, ...]]) -> None:
        with torch.autocast(probe.device.type, dtype=torch.bfloat16, enabled=is_bf16):
            features = [
                {
                    name: value.to(probe.device) if torch.is_tensor(value) else value
                    for name, value in model.preprocess(list(column)).items()
                }
                for column in zip(*some, strict=True)
            ]
            embeddings = embed_columns(model, features, share=config.has_positives)
            info_nce(embeddings, temperature=config.temperature).backward()
        model.zero_grad()

    try:
        step(rows[:2])
        seconds = _timed(lambda: step(rows), probe.device) / tokens
    finally:
        probe.transformer.max_seq_length = limit
        model.eval()
    # GradCache runs forward once more; backward takes twice as long as forward.
    again = 4 / 3 if config.mini_batch else 1
    return again * seconds * float(np.mean([_tokens(groups) for groups in probe.batches]))


def _tokens(groups: Sequence[tuple[int, int]]) -> int:
    return sum(sentences * width for sentences, width in groups)


def _seconds_of_a_head(config: TrainConfig, examples: Examples, probe: _Probe) -> float:
    """Time forward and backward of a head on summaries of as many sentences as a batch has."""
    columns = max(2, len(examples.columns))
    names = [str(row) for row in range(columns * min(config.batch_size, len(examples)))]
    size = (len(names), probe.transformer.num_states, probe.transformer.get_embedding_dimension())
    after = [module for module in list(probe.model)[1:] if list(module.parameters())]
    bank = BankEncoder((names, torch.randn(size), torch.randn(size)))
    head = SentenceTransformer(modules=[bank, *after], device="cpu").train()

    def step() -> None:
        made = head(head.preprocess(names))["sentence_embedding"]
        info_nce(made.chunk(columns), temperature=config.temperature).backward()
        head.zero_grad()

    step()
    return min(_timed(step, torch.device("cpu")) for _ in range(2))


def _seconds_of_adam(parameters: int, device: torch.device) -> float:
    """Time a step of the optimiser, clipping of gradients included, on some of the parameters."""
    count = min(parameters, 4_000_000)
    weights = nn.Parameter(torch.zeros(count, device=device))
    weights.grad = torch.ones_like(weights)
    optimizer = torch.optim.AdamW([weights])

    def step() -> None:
        nn.utils.clip_grad_norm_([weights], 1.0)
        optimizer.step()

    step()
    return _timed(step, device) * parameters / count
