"""Training against sentence-transformers' trainer, and a head from the first command to the end.

Full mode: the bundled encoder with its own mean pooling on SNLI triplets, the same rows in the same
order, batch 64, the same learning rate and warm-up. The peer is sentence-transformers' trainer with
MultipleNegativesRankingLoss at its defaults; ours is what `python -m lwap train --mode full` does:
distinct sentences of a batch once, in groups of like length, bf16 where the processor has it. Both
sides run in turn in one process, from the same seed, another one each repeat. Dropout differs, so
the losses are compared over several seeds.

Head mode: the command `python -m lwap train` in a process of its own, start-up and encoding
included, on all triplets, with STS-B dev to choose the step on.

    python bench/train.py --json
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _measure import ROOT, machine, own_peak_megabytes, peak_megabytes, ratio, report

BATCH, RATE, TEMPERATURE, WARMUP = 64, 2e-5, 0.05, 0.1


def triplets(rows: int):
    """Return the first rows of the SNLI triplets."""
    from lwap.datasets.readers import data_folder, read_training

    return read_training(data_folder() / "nli" / "snli-triplets.csv").iloc[:rows]


def peer(rows, steps: int, seed: int) -> tuple[float, list[float]]:
    """Train with sentence-transformers; return seconds of the loop and the loss of each step."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers.trainer_callback import PrinterCallback

    from lwap.encoding.sources import resolve_encoder

    model = SentenceTransformer(str(resolve_encoder("bundled")))
    columns = {
        "anchor": rows["sent0"].tolist(),
        "positive": rows["sent1"].tolist(),
        "negative": rows["hard_neg"].tolist(),
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=BATCH,
                learning_rate=RATE,
                warmup_steps=math.ceil(WARMUP * steps),
                seed=seed,
                save_strategy="no",
                logging_steps=1,
                report_to=[],
                disable_tqdm=True,
                dataloader_drop_last=True,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
        )
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]


class _NoLook:
    """A dev set that takes no time: the peer looks at none."""

    def look(self, model) -> dict[str, Any]:
        return {"dev": 0.0}

    def untouched(self) -> float:
        return 0.0


def ours(rows, steps: int, seed: int, precision: str = "auto") -> tuple[float, list[float]]:
    """Train as full mode does; return seconds of the loop and the loss of each step."""
    from transformers import set_seed

    import lwap
    from lwap.training import TrainConfig
    from lwap.training.examples import Examples
    from lwap.training.loop import fit
    from lwap.training.model import new_model

    config = TrainConfig(
        mode="full",
        pooling="mean",
        batch_size=BATCH,
        learning_rate=RATE,
        warmup=WARMUP,
        temperature=TEMPERATURE,
        max_steps=steps,
        eval_steps=10**6,
        precision=precision,
        seed=seed,
    )
    set_seed(seed)
    model = new_model(config, lwap.load())
    losses: list[float] = []

    def log(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            losses.append(event["loss"])

    examples = Examples.of(rows, config.objective)
    started = time.perf_counter()
    fit(config, model, model, examples, _NoLook(), log=log)
    return time.perf_counter() - started, losses


def head_seconds(rows: int) -> float:
    """Return the seconds of the command that trains a head, from start to written checkpoint."""
    from lwap.datasets.readers import data_folder

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "triplets.csv"
        triplets(rows).to_csv(file, index=False)
        started = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "lwap", "train", "--triplets", str(file), "--dev"),
                *(str(data_folder() / "sts" / "stsb-dev.csv"), "--residual", "last_mean"),
                *("--output", str(Path(folder) / "head"), "--json"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return time.perf_counter() - started


def main() -> None:
    """Measure, or run one side alone for its memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="of full mode, a repeat")
    parser.add_argument("--rows", type=int, default=5880, help="triplets")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--side", choices=["ours", "peer"], help="run one side once and stop")
    options = parser.parse_args()
    rows = triplets(options.rows)
    sides = {
        "peer": peer,
        "ours": ours,
        "fp32": lambda *arguments: ours(*arguments, precision="fp32"),
    }
    if options.side:
        sides[options.side](rows, 4, 0)
        print(own_peak_megabytes())
        return

    head = [head_seconds(options.rows) for _ in range(options.repeats)]
    for run in sides.values():  # imports, first allocations
        run(rows.iloc[: 2 * BATCH], 2, 0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[list[float]]] = {name: [] for name in sides}
    for seed in range(options.repeats):
        for name, run in sides.items():
            took, found = run(rows, options.steps, seed)
            seconds[name].append(took)
            losses[name].append(found)

    means = {name: np.mean(found, axis=1) for name, found in losses.items()}
    thirds = {
        name: [round(float(part.mean()), 4) for part in np.array_split(np.mean(found, axis=0), 4)]
        for name, found in losses.items()
    }
    figures = {
        "seconds_head": round(median(head), 1),
        "seconds_head_range": [round(min(head), 1), round(max(head), 1)],
        "ratio_full": ratio(seconds["peer"], seconds["ours"])["median"],
        "ratio_full_range": ratio(seconds["peer"], seconds["ours"]),
        "ratio_full_fp32_range": ratio(seconds["peer"], seconds["fp32"]),
        "sentences_per_second": {
            name: round(options.steps * BATCH * 3 / median(values))
            for name, values in seconds.items()
        },
        "loss_by_quarter": thirds,
        "loss_ours_minus_peer": [round(float(value), 4) for value in means["ours"] - means["peer"]],
        "loss_spread_of_peer": round(float(np.std(means["peer"], ddof=1)), 4),
        "first_loss": {name: round(found[0][0], 4) for name, found in losses.items()},
        "triplets": options.rows,
        "steps": options.steps,
        "repeats": options.repeats,
        "peak_mb_ours": peak_megabytes(sys.argv[0], "--side", "ours"),
        "peak_mb_peer": peak_megabytes(sys.argv[0], "--side", "peer"),
        "machine": machine(),
    }
    report(figures, options.json)


if __name__ == "__main__":
    main()
