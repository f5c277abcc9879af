"""Thirty faults made by hand, each put into a copy of the project: do the tests notice?

    python -m tests.faults               with all tests, those beside the fault first
    python -m tests.faults --fast        with what `make test-fast` runs
    python -m tests.faults NAME …        some of them

A fault is one change of one line: a wrong sign, a wrong axis, a dropped mask, a layer off by one,
swapped columns, a setting that nobody reads. The exit code is the number of those missed.
`tests/test_faults.py` checks that every fault still fits the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", ".*_cache", "output")


@dataclass(frozen=True)
class Fault:
    """One change of one file.

    Attributes:
        name: What it is called here.
        file: Below lwap/.
        right: What stands there; once in the file.
        wrong: What takes its place.
        near: Tests that are run first.
    """

    name: str
    file: str
    right: str
    wrong: str
    near: str


FAULTS = (
    Fault(
        "the mean counts padding",
        "encoding/reductions.py",
        "weights = attention_mask.to(hidden.dtype)",
        "weights = torch.ones_like(attention_mask).to(hidden.dtype)",
        "tests/encoding",
    ),
    Fault(
        "the maximum counts padding",
        "encoding/reductions.py",
        "padding = attention_mask.unsqueeze(-1) == 0",
        "padding = attention_mask.unsqueeze(-1) == 2",
        "tests/encoding",
    ),
    Fault(
        "the last token is the first",
        "encoding/reductions.py",
        "return hidden[:, -1]",
        "return hidden[:, 0]",
        "tests/encoding",
    ),
    Fault(
        "sentences of a batch are swapped",
        "encoding/bank.py",
        "arrays[name][rows] = values.float().cpu().numpy()[source]",
        "arrays[name][rows] = values.float().cpu().numpy()[source[::-1]]",
        "tests/encoding",
    ),
    Fault(
        "padding is attended to",
        "encoding/bank.py",
        'features["attention_mask"] = real.long().to(device)',
        'features["attention_mask"] = torch.ones_like(real).long().to(device)',
        "tests/encoding",
    ),
    Fault(
        "the store mixes sentences up",
        "encoding/store.py",
        "out[name][targets] = values[sources]",
        "out[name][targets] = values[sources[::-1]]",
        "tests/encoding",
    ),
    Fault(
        "the store forgets the precision",
        "encoding/store.py",
        "        str(precision),\n    ]",
        "    ]",
        "tests/encoding",
    ),
    Fault(
        "attention over queries",
        "pooling/formulas.py",
        "return logits.softmax(dim=-1,",
        "return logits.softmax(dim=-2,",
        "tests/pooling",
    ),
    Fault(
        "nothing is knocked out",
        "pooling/formulas.py",
        "masked_fill(removed[None, :, None, :], -torch.inf)",
        "masked_fill(removed[None, :, None, :], 0)",
        "tests/pooling",
    ),
    Fault(
        "the scale is not read",
        "pooling/layer_attention.py",
        "by_states = self.scale == Scale.STATES",
        "by_states = True",
        "tests/pooling",
    ),
    Fault(
        "the query is not read",
        "pooling/layer_attention.py",
        "asking = layer_query if self.query_states == Query.ALL else layer_query[:, -1:]",
        "asking = layer_query",
        "tests/pooling",
    ),
    Fault(
        "the residual is taken away",
        "pooling/layer_attention.py",
        "embedding = embedding + self.residual_scale",
        "embedding = embedding - self.residual_scale",
        "tests/pooling",
    ),
    Fault(
        "the scalar mix has no gamma",
        "pooling/scalar_mix.py",
        '"sentence_embedding": self.gamma * mixed',
        '"sentence_embedding": mixed',
        "tests/pooling",
    ),
    Fault(
        "first and last begins at the embeddings",
        "pooling/declarations.py",
        "pool=lambda bank: (bank.mean[:, 1] + bank.mean[:, -1]) / 2",
        "pool=lambda bank: (bank.mean[:, 0] + bank.mean[:, -1]) / 2",
        "tests/pooling",
    ),
    Fault(
        "a layer off by one",
        "pooling/strategies.py",
        "info.pool(bank, int(state))",
        "info.pool(bank, int(state) - 1)",
        "tests/pooling",
    ),
    Fault(
        "whitening keeps the mean",
        "pooling/whitening.py",
        "return ((embeddings - self.mean) @ self.matrix)",
        "return (embeddings @ self.matrix)",
        "tests/pooling",
    ),
    Fault(
        "a cosine without lengths",
        "scores.py",
        "return np.divide(dot, length,",
        "return np.divide(dot, np.ones_like(length),",
        "tests/test_scores.py",
    ),
    Fault(
        "percentiles upside down",
        "scores.py",
        "return 100 * (below + up_to) / 2 / len(ordered)",
        "return 100 - 100 * (below + up_to) / 2 / len(ordered)",
        "tests/test_scores.py",
    ),
    Fault(
        "the last layer is the first",
        "checkpoints/cached.py",
        'f"layer_mean:{last}": "mean"',
        '"layer_mean:0": "mean"',
        "tests/checkpoints",
    ),
    Fault(
        "an interval of 90 percent",
        "evaluation/bootstrap.py",
        "low, high = np.percentile(known, [2.5, 97.5])",
        "low, high = np.percentile(known, [5, 95])",
        "tests/evaluation",
    ),
    Fault(
        "alignment without its square",
        "evaluation/geometry.py",
        "total += (np.linalg.norm(one - other, axis=1) ** exponent).sum()",
        "total += np.linalg.norm(one - other, axis=1).sum()",
        "tests/evaluation",
    ),
    Fault(
        "a discount off by one rank",
        "evaluation/retrieval.py",
        "discounts = 1 / np.log2(1 + ranks)",
        "discounts = 1 / np.log2(2 + ranks)",
        "tests/evaluation",
    ),
    Fault(
        "scores without their subsets",
        "datasets/readers.py",
        'pairs["subset"] = _cells(table, subset, name)',
        'pairs["subset"] = _cells(table, columns["sentence1"], name)',
        "tests/datasets",
    ),
    Fault(
        "both sentences from one column",
        "datasets/readers.py",
        "pairs = pd.DataFrame({kept: _texts(table, column, name)",
        'pairs = pd.DataFrame({kept: _texts(table, columns["sentence1"], name)',
        "tests/datasets",
    ),
    Fault(
        "the temperature multiplies",
        "training/objectives.py",
        "logits = anchors @ torch.cat(candidates).T / temperature",
        "logits = anchors @ torch.cat(candidates).T * temperature",
        "tests/training",
    ),
    Fault(
        "the hard negatives' weight is lost",
        "training/objectives.py",
        "weights[rows, own + column * world] = hard_negative_weight",
        "weights[rows, own + column * world] = 0",
        "tests/training",
    ),
    Fault(
        "the worst step is kept",
        "training/follower.py",
        'row["dev"] > self.best[0]',
        'row["dev"] < self.best[0]',
        "tests/training",
    ),
    Fault(
        "dropout is not read",
        "training/model.py",
        "set_dropout(transformer.model, config.dropout)",
        "set_dropout(transformer.model, None)",
        "tests/training",
    ),
    Fault(
        "a knock-out with the wrong sign",
        "analysis/explanation.py",
        "return without - cosine(",
        "return -without + cosine(",
        "tests/analysis",
    ),
    Fault(
        "the search takes the farthest",
        "analysis/searching.py",
        "ranks[place, found[0]] = np.arange(1, count + 1)",
        "ranks[place, found[0]] = np.arange(count, 0, -1)",
        "tests/analysis",
    ),
)


def broken(fault: Fault, root: Path) -> str:
    """Return the text of the fault's file below `root`, with the fault in it.

    Raises:
        ValueError: If what it changes does not stand there just once.
    """
    text = (root / "lwap" / fault.file).read_text("utf-8")
    if (count := text.count(fault.right)) != 1:
        raise ValueError(f"'{fault.name}': lwap/{fault.file} holds its line {count} times")
    return text.replace(fault.right, fault.wrong)


def is_caught(fault: Fault, fast: bool) -> tuple[bool, str]:
    """Run the tests on a copy with the fault; return whether one failed, and which."""
    with tempfile.TemporaryDirectory(prefix="fault-") as scratch:
        copy = Path(scratch) / "project"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
        (copy / "lwap" / fault.file).write_text(broken(fault, copy), encoding="utf-8")
        only = ["-m", "not slow and not browser"] if fast else []
        for chosen in ([fault.near], ["tests"]):
            command = [sys.executable, "-m", "pytest", "-q", "-x", *only, *chosen]
            environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [*command, "-p", "no:cacheprovider"],
                cwd=copy,
                env=environment,
                capture_output=True,
                text=True,
            )
            failed = [
                line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERR"))
            ]
            if done.returncode == 1 and failed:
                return True, failed[0].split(" - ")[0]
            if done.returncode not in (0, 5):
                return True, done.stdout.strip().splitlines()[-1]
    return False, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="faults to try (default: all)")
    parser.add_argument("--fast", action="store_true", help="with the fast tests alone")
    options = parser.parse_args()
    missed = 0
    for fault in FAULTS:
        if options.names and fault.name not in options.names:
            continue
        started = time.monotonic()
        caught, where = is_caught(fault, options.fast)
        missed += not caught
        seconds = time.monotonic() - started
        print(
            f"{'caught' if caught else 'MISSED'} {seconds:5.0f} s  {fault.name}  {where}",
            flush=True,
        )
    print(f"{missed} missed")
    return missed


if __name__ == "__main__":
    sys.exit(main())
