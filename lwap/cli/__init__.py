"""The command line, `python -m lwap`: encode, compare, explain, train, models, and measuring.

Torch is imported by the command that needs it, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lwap.cli import changes, mapping, measure, models, training
from lwap.cli.shared import (
    PAPER_MODEL,
    cut,
    model_options,
    output_path,
    print_json,
    rounded,
    show_progress,
    writing,
)
from lwap.errors import InputError, LwapError

_DESCRIPTION = """\
See, test and train poolings over all layers of a sentence encoder.

  encode    sentences -> embeddings, under any pooling strategy
  compare   sentence pairs -> cosines under every strategy, Spearman if the pairs have scores
  explain   which layers a model listens to, and what each is worth (knock-out)
  train     train a pooling on triplets or sentences: head alone (a minute), LoRA, or in full
  models    list, show, verify, rename, delete and import checkpoints

  sts       every strategy and layer on STS12-16, STS-B and SICK-R, with what is significant
  evaluate  the same on labelled pairs of your own
  geometry  alignment, uniformity and isotropy of every strategy and layer
  retrieval semantic search in a BEIR folder: nDCG@10, MAP, MRR@10, Recall@100
  map       two spaces of the same sentences as maps, and what changed between them
  changes   what training changed: a checkpoint against the encoder that it was trained from
  data      list and download public data sets
  cache     what evaluations keep on disk
"""
_EPILOG = """\
Models are checkpoints (lwap models list), the bundled encoder (all-MiniLM-L6-v2), folders, or hub
ids. Strategies: cls, mean, max, last_token, first_last_mean, embed_last_mean, last_two_mean,
all_mean, layer_mean:K, layer_cls:K (K a state, 0 = embeddings), scalar_mix and lwap where the
checkpoint has them, each also as NAME+whiten.

Examples:
  python -m lwap compare --pair 'The dog bit the man.' 'The man bit the dog.'
  python -m lwap encode sentences.txt --output out.npz
  python -m lwap COMMAND --help

Exit codes: 0 done, 2 input that cannot be used (one line on standard error says what and why).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    output: Any = sys.stdout
    output.reconfigure(errors="backslashreplace")  # a name need not fit the console's encoding
    options = parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except LwapError as error:
        print(f"lwap: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lwap: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


# --- the commands -------------------------------------------------------------------------------


def _encode(options: argparse.Namespace) -> None:
    import numpy as np

    from lwap.checkpoints.cached import CachedModel
    from lwap.datasets.readers import read_sentences
    from lwap.pooling.strategies import embed, needed_summaries

    output = output_path(options.output, ".npy", ".npz")
    texts = read_sentences(options.file)
    model = CachedModel(options.model, precision=options.precision, device=options.device)
    strategies = list(dict.fromkeys(options.strategies or [model.facts.own or "mean"]))
    if output.suffix == ".npy" and len(strategies) > 1:
        raise InputError(f"A .npy file holds one strategy, not {len(strategies)}; use .npz.")
    whitening = _whitening(options, model, strategies)
    with show_progress("sentences", options) as progress:
        bank = model.bank(texts, summaries=needed_summaries(strategies), progress=progress)
    vectors = {name: embed(bank, name, whitening=whitening) for name in strategies}
    with writing(output):
        if output.suffix == ".npy":
            np.save(output, vectors[strategies[0]])
        else:
            arrays: dict[str, Any] = {"texts": np.array(bank.texts), **vectors}
            np.savez(output, **arrays)
    truncated = int(bank.is_truncated.sum())
    summary = {
        "model": bank.encoder,
        "sentences": len(bank),
        "dimension": bank.dimension,
        "strategies": strategies,
        "truncated": truncated,
        "max_tokens": bank.max_tokens,
        "output": str(output),
    }
    if options.json:
        print_json(summary)
        return
    print(f"{len(bank)} sentences × {bank.dimension} under {', '.join(strategies)} -> {output}")
    if truncated:
        print(
            f"{truncated} of them were cut to the encoder's limit of {bank.max_tokens} tokens.",
            file=sys.stderr,
        )


def _compare(options: argparse.Namespace) -> None:
    from lwap.analysis.comparison import compare
    from lwap.checkpoints.cached import CachedModel
    from lwap.datasets.readers import read_pairs
    from lwap.evaluation.sts import spearman_interval

    if bool(options.file) == bool(options.pair):
        raise InputError("Give either a file of pairs or --pair SENTENCE SENTENCE (repeatable).")
    if options.show < 0:
        raise InputError(f"--show is {options.show}; it must be 0 or more.")
    output = output_path(options.output, ".csv") if options.output else None
    pairs = read_pairs(options.file) if options.file else options.pair
    model = CachedModel(options.model, precision=options.precision, device=options.device)
    strategies = list(dict.fromkeys(options.strategies or model.default_strategies))
    whitening = _whitening(options, model, strategies)
    with show_progress("pairs", options) as progress:
        table = compare(
            model,
            pairs,
            strategies,
            whitening=whitening,
            progress=progress,
        )
    correlations: dict[str, dict[str, float]] = {}
    lacking: dict[str, list[str]] = {}
    for name in strategies if "score" in table else ():
        try:
            score = spearman_interval(table[name].to_numpy(), table["score"].to_numpy())
            correlations[name] = vars(score)
        except InputError as error:  # the cosines are still worth having
            lacking.setdefault(str(error), []).append(name)
    for reason, names in lacking.items():
        print(f"No Spearman for {', '.join(names)}: {reason}", file=sys.stderr)
    if output:
        with writing(output):
            table.to_csv(output, index=False)
    if options.json:
        rows = json.loads(table.to_json(orient="records", double_precision=10))
        print_json({"model": model.model.lwap_name, "pairs": rows, "spearman": correlations})
        return
    if correlations:
        print("Spearman × 100 with the scores [95 % interval], higher is better")
        for name in sorted(correlations, key=lambda key: -correlations[key]["value"]):
            score = correlations[name]
            print(f"  {name:<18}{score['value']:7.2f}  [{score['low']:.2f}, {score['high']:.2f}]")
        print()
    for place, row in table.head(options.show).iterrows():
        print(f"{place + 1}. {cut(row['sentence1'])}\n   {cut(row['sentence2'])}")
        print("   " + "  ".join(f"{name} {row[name]:.3f}" for name in strategies))
    if len(table) > options.show:
        print(f"… and {len(table) - options.show} more pairs; --output FILE.csv writes them all.")
    if output:
        print(f"Written: {output}")


def _explain(options: argparse.Namespace) -> None:
    from lwap.analysis.explanation import explain
    from lwap.checkpoints.cached import CachedModel
    from lwap.datasets.readers import read_sentences

    if bool(options.file) == bool(options.sentences):
        raise InputError("Give sentences, or --file FILE, one of the two.")
    texts = read_sentences(options.file) if options.file else options.sentences
    with show_progress("sentences", options) as progress:
        found = explain(CachedModel(options.model, device=options.device), texts, progress=progress)
    if options.json:
        print_json(
            {
                "model": options.model,
                "strategy": found.strategy,
                "states": found.state_names,
                "sentences": [
                    {
                        "text": text,
                        "tokens": int(found.token_counts[row]),
                        "is_truncated": bool(found.is_truncated[row]),
                        "weights": rounded(found.weights[row]),
                        "knockout": rounded(found.knockout[row]),
                        "attention": rounded(found.attention[row]),
                    }
                    for row, text in enumerate(texts)
                ],
            }
        )
        return
    print(f"{options.model}: weight of each state, and knock-out (1 − cosine without it)")
    for row, text in enumerate(texts):
        print(f"\n{cut(text)}")
        if found.is_truncated[row]:
            print(f"  (cut to the encoder's limit of {found.max_tokens} tokens)")
        highest = found.weights[row].max()
        for place, name in enumerate(found.state_names):
            weight, effect = found.weights[row, place], found.knockout[row, place]
            bar = "█" * round(24 * weight / highest)
            print(f"  {name:<12}{weight:.3f}  {bar:<24}  {effect:.4f}")


# --- shared by the commands ---------------------------------------------------------------------


def _whitening(options: argparse.Namespace, model, strategies: Sequence[str]) -> dict | None:
    from lwap.datasets.readers import read_sentences
    from lwap.pooling.strategies import fit_whitening, needed_summaries, split_whitening

    bases = [base for base, whitened in map(split_whitening, strategies) if whitened]
    if not bases:
        if options.whiten_on:
            raise InputError("--whiten-on has no effect: no strategy ends in '+whiten'.")
        return None
    if not options.whiten_on:
        raise InputError(
            f"'{bases[0]}+whiten' needs --whiten-on FILE: sentences to fit on, other than those "
            "that are scored."
        )
    texts = list(dict.fromkeys(read_sentences(options.whiten_on)))
    with show_progress("sentences for whitening", options) as progress:
        bank = model.bank(texts, summaries=needed_summaries(bases), progress=progress)
    corpus = Path(options.whiten_on).name
    return {base: fit_whitening(bank, base, corpus=corpus) for base in bases}


# --- the parser ---------------------------------------------------------------------------------


@functools.cache  # 25 ms, and it does not change
def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    formatter = argparse.RawDescriptionHelpFormatter
    program = argparse.ArgumentParser(
        prog="lwap", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=formatter
    )
    commands = program.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable, summary: str, epilog: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=summary, description=summary, epilog=epilog, formatter_class=formatter
        )
        command.set_defaults(run=run)
        return command

    encode = add(
        "encode",
        _encode,
        "Encode sentences under one or several pooling strategies.",
        "Example:\n  python -m lwap encode sentences.txt --strategies lwap mean --output out.npz",
    )
    encode.add_argument("file", help="sentences: .txt (one a line), or a table with 'sentence'")
    encode.add_argument("--output", "-o", required=True, help=".npy (one strategy) or .npz")
    model_options(encode, strategies="default: the model's own")

    compare = add(
        "compare",
        _compare,
        "Score sentence pairs under every pooling strategy.",
        "Examples:\n"
        "  python -m lwap compare --pair 'The dog bit the man.' 'The man bit the dog.'\n"
        "  python -m lwap compare pairs.csv --strategies mean lwap --output scores.csv",
    )
    compare.add_argument(
        "file", nargs="?", help="CSV, TSV, JSONL or Parquet: sentence1, sentence2[, score]"
    )
    compare.add_argument("--pair", nargs=2, action="append", metavar=("A", "B"), help="one pair")
    compare.add_argument("--output", "-o", help="write all scores to this CSV file")
    compare.add_argument("--show", type=int, default=10, help="pairs to print (default 10)")
    model_options(compare, strategies="default: all but the single layers")

    explain = add(
        "explain",
        _explain,
        "Show which layers the model listens to for each sentence, and what each is worth.",
        "Example:\n  python -m lwap explain 'She never said that.' 'She said that.'\n\n"
        "The weight says where the head looks; the knock-out says how far the embedding moves\n"
        "when that state is removed and the attention renormalised. Read both: a high weight on\n"
        "a state whose removal changes nothing explains nothing.",
    )
    explain.add_argument("sentences", nargs="*", help="sentences, quoted")
    explain.add_argument("--file", help="read the sentences from a file")
    # The paper's head: the others lean on the last mean, so that their knock-outs are small.
    model_options(explain, strategies=None, model=PAPER_MODEL)

    training.add_commands(add, commands, formatter)
    measure.add_commands(add, commands, formatter)
    mapping.add_commands(add)
    changes.add_commands(add)

    models.add_commands(commands, formatter)
    return program
