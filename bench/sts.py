"""All strategies and states on the seven STS tasks, from nothing and from the cache, against
sentence-transformers' evaluator, which encodes the task anew for every strategy.

Ours is the whole command in a process of its own, start-up included: `python -m lwap sts`, first
with an empty cache folder, then again with what the first run left there. The peer is one pass of
`EmbeddingSimilarityEvaluator` over the same tasks with mean pooling, the model already loaded; it
reports Spearman without intervals. Needs the STS sets in LWAP_DATA or ../shared/data.

    python bench/sts.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import ROOT, machine, own_peak_megabytes, peak_megabytes, ratio, report

MODEL = "lwap-minilm-residual"  # the encoder's strategies, its states, and a trained head


def run_ours(cache: Path, precision: str) -> tuple[float, dict[str, Any]]:
    """Run the command; return its seconds and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lwap", "sts", "--json"),
            *("--model", MODEL, "--precision", precision),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "LWAP_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
    )
    return time.perf_counter() - started, json.loads(done.stdout)


def run_peer(model, tasks) -> dict[str, float]:
    """Evaluate mean pooling on every task, one after the other; return Spearman × 100."""
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
    )

    found = {}
    for task in tasks:
        evaluator = EmbeddingSimilarityEvaluator(
            list(task.first),
            list(task.second),
            task.gold.tolist(),
            main_similarity="cosine",
            similarity_fn_names=["cosine"],
            name=task.name,
            show_progress_bar=False,
            write_csv=False,
        )
        found[task.name] = 100 * evaluator(model)[evaluator.primary_metric]
    return found


def standard():
    """Return the seven tasks."""
    from lwap.datasets.readers import data_folder
    from lwap.datasets.tasks import STANDARD
    from lwap.evaluation.tasks import standard_tasks

    return standard_tasks(data_folder(), STANDARD)


def own_pairs(count: int) -> None:
    """Evaluate `count` made-up pairs; print the peak over the loaded model, in MB."""
    import random

    import numpy as np
    import pandas as pd

    from lwap.checkpoints.load import load
    from lwap.encoding.diskcache import DiskCache
    from lwap.evaluation.benchmark import evaluate_sts
    from lwap.evaluation.tasks import Task

    words = ["river", "stone", "light", "paper", "garden", "winter", "music", "train", "bread"]
    random_words = random.Random(0)
    texts = [
        " ".join(random_words.choices(words, k=8)) + f" {number}" for number in range(2 * count)
    ]
    table = pd.DataFrame(
        {
            "sentence1": texts[:count],
            "sentence2": texts[count:],
            "score": np.random.default_rng(0).integers(0, 6, count).astype(float),
        }
    )
    task = Task.from_pairs(table, "made up")
    model = load(MODEL)
    model.encode(texts[:64])
    loaded = own_peak_megabytes()
    with tempfile.TemporaryDirectory() as folder:
        evaluate_sts(model, [task], cache=DiskCache(Path(folder)), precision="auto")
    print(round(own_peak_megabytes() - loaded, 1))


def main() -> None:
    """Measure, or run one side alone for its memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="of ours; the peer is fp32")
    parser.add_argument("--own-pairs", type=int, default=100_000, help="for the peak memory")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--side", choices=["own-pairs"], help="run one side once and stop")
    options = parser.parse_args()
    if options.side:
        own_pairs(options.own_pairs)
        return

    from sentence_transformers import SentenceTransformer

    from lwap.encoding.sources import resolve_encoder

    tasks = standard()
    peer = SentenceTransformer(str(resolve_encoder("bundled")))
    peer.encode(list(tasks[0].first[:64]))
    cold, warm, theirs, printed, expected = [], [], [], {}, {}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seconds, printed = run_ours(Path(folder), options.precision)
            cold.append(seconds)
            warm.append(run_ours(Path(folder), options.precision)[0])
        started = time.perf_counter()
        expected = run_peer(peer, tasks)
        theirs.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        exact_seconds, exact = run_ours(Path(folder), "fp32")
    strategies = len({row["strategy"] for row in printed["rows"]})
    scores = {
        name: {
            row["task"]: row["spearman"]
            for row in found["rows"]
            if row["aggregation"] == "all" and row["strategy"] == "mean"
        }
        for name, found in (("run", printed), ("fp32", exact))
    }
    figures = {
        "tasks": len(tasks),
        "pairs": sum(map(len, tasks)),
        "sentences": len({text for task in tasks for text in (*task.first, *task.second)}),
        "strategies": strategies,
        "repeats": options.repeats,
        "precision": printed["precision"],
        "seconds_cold": round(statistics.median(cold), 1),
        "seconds_cold_range": [round(min(cold), 1), round(max(cold), 1)],
        "seconds_warm": round(statistics.median(warm), 2),
        "seconds_warm_range": [round(min(warm), 2), round(max(warm), 2)],
        "seconds_cold_fp32": round(exact_seconds, 1),
        "seconds_peer_one_strategy": round(statistics.median(theirs), 1),
        # The peer passes over all sentences once a strategy; measured once, times the strategies.
        "ratio_peer": round(strategies * ratio(theirs, cold)["median"], 1),
        "ratio_peer_one_strategy": ratio(theirs, cold),
        "largest_difference_to_peer": round(
            max(abs(scores["run"][name] - expected[name]) for name in expected), 3
        ),
        "largest_difference_to_peer_fp32": round(
            max(abs(scores["fp32"][name] - expected[name]) for name in expected), 3
        ),
        "own_pairs": options.own_pairs,
        "own_pairs_peak_mb_over_model": peak_megabytes(
            sys.argv[0], "--side", "own-pairs", "--own-pairs", str(options.own_pairs)
        ),
        "machine": machine(),
    }
    report(figures, options.json)


if __name__ == "__main__":
    main()
