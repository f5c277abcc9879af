"""Time of a run, measured on this machine with a probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from lwap.encoding.bank import encode_layers, layerwise_transformer
from lwap.encoding.hardware import Precision
from lwap.training.batches import embed_columns
from lwap.training.check import count_tokens, sample, token_limit
from lwap.training.config import Mode, TrainConfig
from lwap.training.examples import Examples
from lwap.training.frozen import VIEWS, BankEncoder
from lwap.training.memory import Size
from lwap.training.objectives import info_nce
from lwap.training.probe import DRAWN, Probe

PROBE_TOKENS = {"cpu": 2048, "cuda": 16_384, "mps": 4096}  # padded tokens of a probe
# Measured on two CPU cores (docs/experiments.md).
START_SECONDS = 7.0  # Python, its libraries, the encoder
STEP_SECONDS = 0.01  # of the trainer itself
LOOK_SECONDS = 0.1  # of a look, beside the encoder
PAIR_SECONDS = 0.001  # of the intervals of the results, a dev pair


def seconds_of(
    config: TrainConfig,
    examples: Examples,
    dev_texts: Sequence[str],
    steps: int,
    size: Size,
    probe: Probe,
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


def _train_device(config: TrainConfig, probe: Probe) -> torch.device:
    return torch.device("cpu") if config.mode == Mode.HEAD else probe.device


def _timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _seconds_a_token(probe: Probe, precision: Precision) -> float:
    """Time a forward pass over some of the sentences, as the encoding of a bank does it."""
    budget = PROBE_TOKENS.get(probe.device.type, PROBE_TOKENS["cuda"])
    by_length = sorted(probe.tokens, key=lambda text: -probe.tokens[text])
    texts = sample(by_length, max(2, int(budget / probe.mean_tokens)))
    tokens = sum(probe.tokens[text] for text in texts)

    def encode(some: Sequence[str]) -> None:
        encode_layers(probe.model, some, summaries=("cls", "mean"), precision=precision)

    encode(texts[-2:])  # the first pass of a precision prepares it
    return _timed(lambda: encode(texts), probe.device) / tokens


def _seconds_of_a_batch(probe: Probe) -> float:
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


def _seconds_of_a_head(config: TrainConfig, examples: Examples, probe: Probe) -> float:
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
