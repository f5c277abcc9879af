"""The command line, `python -m lwap`: encode, compare, explain, train, models, and measuring.

Torch is imported by the command that needs it, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lwap.cli import mapping, measure
from lwap.cli.shared import (
    DEFAULT_MODEL,
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
  models    list, show and verify checkpoints

  sts       every strategy and layer on STS12-16, STS-B and SICK-R, with what is significant
  evaluate  the same on labelled pairs of your own
  geometry  alignment, uniformity and isotropy of every strategy and layer
  retrieval semantic search in a BEIR folder: nDCG@10, MAP, MRR@10, Recall@100
  map       two spaces of the same sentences as maps, and what changed between them
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
    sys.stdout.reconfigure(errors="backslashreplace")  # a name need not fit the console's encoding
    options = _parser().parse_args(arguments)
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

    from lwap.bank import encode_layers
    from lwap.checkpoints import load
    from lwap.data import read_sentences
    from lwap.strategy import embed, needed_summaries, own_strategy

    output = output_path(options.output, ".npy", ".npz")
    texts = read_sentences(options.file)
    model = load(options.model, device=options.device)
    strategies = list(dict.fromkeys(options.strategies or [own_strategy(model) or "mean"]))
    if output.suffix == ".npy" and len(strategies) > 1:
        raise InputError(f"A .npy file holds one strategy, not {len(strategies)}; use .npz.")
    whitening = _whitening(options, model, strategies)
    with show_progress("sentences", options) as progress:
        bank = encode_layers(
            model,
            texts,
            summaries=needed_summaries(strategies),
            precision=options.precision,
            progress=progress,
        )
    vectors = {name: embed(bank, name, whitening=whitening) for name in strategies}
    with writing(output):
        if output.suffix == ".npy":
            np.save(output, vectors[strategies[0]])
        else:
            np.savez(output, texts=np.array(bank.texts), **vectors)
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
    from lwap.checkpoints import load
    from lwap.comparison import compare
    from lwap.data import read_pairs
    from lwap.evaluation.sts import spearman_interval
    from lwap.strategy import default_strategies

    if bool(options.file) == bool(options.pair):
        raise InputError("Give either a file of pairs or --pair SENTENCE SENTENCE (repeatable).")
    if options.show < 0:
        raise InputError(f"--show is {options.show}; it must be 0 or more.")
    output = output_path(options.output, ".csv") if options.output else None
    pairs = read_pairs(options.file) if options.file else options.pair
    model = load(options.model, device=options.device)
    strategies = list(dict.fromkeys(options.strategies or default_strategies(model)))
    whitening = _whitening(options, model, strategies)
    with show_progress("pairs", options) as progress:
        table = compare(
            model,
            pairs,
            strategies,
            whitening=whitening,
            precision=options.precision,
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
        print_json({"model": model.lwap_name, "pairs": rows, "spearman": correlations})
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
    from lwap.checkpoints import load
    from lwap.data import read_sentences
    from lwap.explanation import explain

    if bool(options.file) == bool(options.sentences):
        raise InputError("Give sentences, or --file FILE, one of the two.")
    texts = read_sentences(options.file) if options.file else options.sentences
    with show_progress("sentences", options) as progress:
        found = explain(load(options.model, device=options.device), texts, progress=progress)
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


def _train(options: argparse.Namespace) -> None:
    from lwap.checkpoints import check_target, identify_encoder, save_checkpoint
    from lwap.data import data_folder, read_pairs, read_sentences, read_training
    from lwap.hardware import resolve_device
    from lwap.manifest import read_info, runs_folder
    from lwap.sources import file_sha256
    from lwap.training import TrainConfig, train
    from lwap.training.card import write_card
    from lwap.training.run import default_output

    names = TrainConfig.__dataclass_fields__
    config = TrainConfig(**{name: getattr(options, name) for name in names})
    resolve_device("auto")
    if bool(options.triplets) == bool(options.sentences):
        raise InputError("Give --triplets FILE, or --sentences FILE, one of the two.")
    source = Path(options.triplets or options.sentences)
    data = read_training(source) if options.triplets else read_sentences(source)
    dev = read_pairs(options.dev) if options.dev else None
    output = Path(options.output) if options.output else default_output(config, runs_folder())
    name = options.name or (output.parent.name if output.name == "model" else output.name)
    # What would refuse to be saved is refused before it is trained.
    check_target(output)
    encoder = identify_encoder(config.encoder)

    def log(row: dict[str, Any]) -> None:
        if not options.json:
            loss = f"loss {row['loss']:.3f}" if row["step"] else "untrained "
            print(f"step {row['step']:>5} of {row['steps']}   {loss}   dev {row['dev']:.2f}")

    with show_progress("sentences encoded", options) as progress:
        result = train(
            config,
            data,
            dev,
            dev_name=options.dev_name or (Path(options.dev).stem if options.dev else "held-out"),
            progress=progress,
            log=log,
        )
    card = write_card(
        name,
        result,
        command=_train_command(options, config, data_folder()),
        data=options.data_name or source.name,
        data_sha256=file_sha256(source),
        dev_sha256=file_sha256(Path(options.dev)) if options.dev else "",
    )
    save_checkpoint(
        result.model,
        output,
        name=name,
        **encoder,
        training={
            **config.to_dict(),
            "data": options.data_name or source.name,
            "triplets": result.triplets,
            "metric": result.metric,
        },
        results=result.results,
        card=card,
        contains={"head": "head", "lora": "adapter", "full": "encoder"}[config.mode],
    )
    info = read_info(output, name)
    if options.json:
        print_json(
            {
                "name": name,
                "folder": str(output),
                "size_bytes": info.size_bytes,
                "best_step": result.best_step,
                "results": result.results,
                "seconds": rounded(list(result.seconds.values())),
            }
        )
        return
    print(f"\nBest by {result.metric}: step {result.best_step}")
    for key, score in result.results.get("dev_spearman", {}).items():
        print(f"  {key:<12}{score['value']:.2f}  [{score['low']:.2f}, {score['high']:.2f}]")
    print(f"Seconds: {', '.join(f'{part} {s:.1f}' for part, s in result.seconds.items())}")
    print(f"Written: {output} ({info.size_bytes / 1e6:.1f} MB, with model card)")


def _models_list(options: argparse.Namespace) -> None:
    from lwap.manifest import list_checkpoints
    from lwap.sources import BUNDLED

    found = list_checkpoints()
    if options.json:
        print_json({"checkpoints": [_info_dict(info) for info in found], "encoder": BUNDLED})
        return
    for info in found:
        print(f"{info.name:<26}{info.pooling:<12}{info.size_bytes / 1e6:5.1f} MB  {info.encoder}")
    print(f"{BUNDLED:<26}{'mean':<12}          the bundled encoder, untouched")


def _models_show(options: argparse.Namespace) -> None:
    from lwap.errors import ModelError
    from lwap.manifest import CARD, find_checkpoint, list_checkpoints, read_info

    folder = find_checkpoint(options.name)
    if folder is None:
        names = ", ".join(info.name for info in list_checkpoints()) or "none"
        raise ModelError(f"There is no checkpoint '{options.name}'. There are: {names}.")
    if options.json:
        print_json(_info_dict(read_info(folder)))
        return
    card = folder / CARD
    print(card.read_text(encoding="utf-8") if card.is_file() else f"{folder} has no model card.")


def _models_verify(options: argparse.Namespace) -> None:
    from lwap.checkpoints import verify
    from lwap.errors import CheckpointError
    from lwap.manifest import checkpoint_names

    checked, errors = {}, []
    for name in options.names or checkpoint_names():
        try:
            checked[name] = verify(name)
        except LwapError as error:
            errors.append(str(error))
    if options.json:
        print_json(checked)
    else:
        for name, lines in checked.items():
            print(f"{name}: good")
            for line in lines:
                print(f"  {line}")
        if not checked and not errors:
            print("There are no checkpoints.")
    if errors:
        raise CheckpointError(" And: ".join(errors))


# --- shared by the commands ---------------------------------------------------------------------


def _whitening(options: argparse.Namespace, model, strategies: Sequence[str]) -> dict | None:
    from lwap.bank import encode_layers
    from lwap.data import read_sentences
    from lwap.strategy import fit_whitening, needed_summaries, split_whitening

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
        bank = encode_layers(
            model,
            texts,
            summaries=needed_summaries(bases),
            precision=options.precision,
            progress=progress,
        )
    corpus = Path(options.whiten_on).name
    return {base: fit_whitening(bank, base, corpus=corpus) for base in bases}


def _train_command(options: argparse.Namespace, config, data: Path) -> str:
    """Return the command that gives this run again, data paths from LWAP_DATA on."""

    def shown(path: str) -> str:
        with contextlib.suppress(ValueError):
            inside = Path(path).resolve().relative_to(data.resolve()).as_posix()
            return f"$LWAP_DATA/{shlex.quote(inside)}"
        return shlex.quote(Path(path).name)

    kind = "triplets" if options.triplets else "sentences"
    parts = [f"python -m lwap train --{kind} {shown(getattr(options, kind))}"]
    if options.dev:
        parts.append(f"--dev {shown(options.dev)}")
    fields = type(config).__dataclass_fields__
    # What the mode decides when it is not said need not be said again.
    said = {name: getattr(options, name) for name in fields}
    given = {name: value for name, value in said.items() if value != fields[name].default}
    given |= {name: getattr(options, name) for name in ("data_name", "dev_name", "name")}
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            parts.append(flag)
        elif value is not None:
            # With "=": argparse takes -1e-05 for an option otherwise.
            joint = "=" if str(value).startswith("-") else " "
            parts.append(f"{flag}{joint}{shlex.quote(str(value))}")
    return " \\\n    ".join(parts)


def _info_dict(info) -> dict[str, Any]:
    return {**vars(info), "folder": str(info.folder)}


# --- the parser ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="lwap", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=formatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

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
    # The paper's head: the residual one leans on the last mean, so its knock-outs are tiny.
    model_options(explain, strategies=None, model=PAPER_MODEL)

    _add_train(add)
    measure.add_commands(add, commands, formatter)
    mapping.add_commands(add)

    models = commands.add_parser(
        "models",
        help="List, show and verify checkpoints.",
        description="List, show and verify checkpoints.",
        epilog="Example:\n  python -m lwap models list",
        formatter_class=formatter,
    )
    actions = models.add_subparsers(metavar="ACTION", required=True)

    def add_action(name: str, run: Callable, summary: str, arguments: str):
        action = actions.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example:\n  python -m lwap models {name} {arguments}".rstrip(),
            formatter_class=formatter,
        )
        action.set_defaults(run=run)
        return action

    listing = add_action("list", _models_list, "List shipped checkpoints and finished runs.", "")
    show = add_action("show", _models_show, "Print a checkpoint's model card.", DEFAULT_MODEL)
    show.add_argument("name", help="a checkpoint, a run or a folder")
    verifying = add_action(
        "verify",
        _models_verify,
        "Check files, classes and encoder by SHA-256, and load it.",
        DEFAULT_MODEL,
    )
    verifying.add_argument("names", nargs="*", help="default: all")
    for command in (listing, show, verifying):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_train(add: Callable[..., argparse.ArgumentParser]) -> None:
    train = add(
        "train",
        _train,
        "Train a pooling, and its encoder if asked to, with a contrastive objective.",
        "Examples:\n"
        "  python -m lwap train --triplets triplets.csv --dev pairs.csv --residual last_mean\n"
        "  python -m lwap train --triplets triplets.csv --dev pairs.csv --mode full\n"
        "  python -m lwap train --sentences FILE --objective unsupervised --dev pairs.csv\n\n"
        "Without --dev a tenth of the triplets is held out to choose the best step on.",
    )
    files = train.add_argument_group("data")
    files.add_argument("--triplets", help="sent0, sent1, hard_neg (or anchor, positive, negative)")
    files.add_argument("--sentences", help="for the unsupervised objective: one a line")
    files.add_argument("--dev", help="scored pairs that the best step is chosen on")
    files.add_argument("--dev-name", help="its name in the card (default: the file's)")
    files.add_argument("--data-name", help="the triplets' name in the card (default: the file's)")
    files.add_argument("--output", "-o", help="checkpoint folder (default: runs/…/model)")
    files.add_argument("--name", help="the checkpoint's name (default: the folder's)")
    files.add_argument("--json", action="store_true", help="print one JSON object")

    # The defaults are TrainConfig's; read here without importing torch.
    what = train.add_argument_group("what is trained")
    what.add_argument(
        "--encoder",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="folder or hub id (default: the bundled all-MiniLM-L6-v2)",
    )
    what.add_argument(
        "--mode", default="head", help="head (default, encoder frozen), lora, or full"
    )
    what.add_argument(
        "--objective",
        default="supervised",
        help="supervised (default: pairs or triplets) or unsupervised (sentences, dropout)",
    )
    what.add_argument(
        "--pooling", default="lwap", help="lwap (default), scalar_mix, cls (dense, tanh), mean"
    )
    what.add_argument("--query", default="all", help="all (default, released code) or last (paper)")
    what.add_argument("--scale", default="states", help="states (default) or sqrt_dim")
    what.add_argument("--residual", default="none", help="none (default, the paper) or last_mean")
    what.add_argument("--layer-norm", action="store_true", help="for pre-norm encoders")
    run = train.add_argument_group("run")
    for name, kind, default, text in _RUN_OPTIONS:
        said = "the mode's" if default is None else default
        run.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default {said})")


_RUN_OPTIONS = (
    ("epochs", int, None, "passes over the data: 3 for a head, else 1"),
    ("max-steps", int, 0, "steps after which the run ends; 0 is no limit"),
    ("batch-size", int, 64, "rows a step; more rows are more negatives"),
    ("accumulation", int, 1, "batches a step; adds no negatives"),
    ("mini-batch", int, 0, "rows in memory at once, with the batch's own gradients; 0 is all"),
    ("learning-rate", float, None, "peak: 1e-3 for a head, 5e-4 with LoRA, 2e-5 in full"),
    ("head-learning-rate", float, None, "of the pooling beside an encoder: 1e-3, 1e-4"),
    ("warmup", float, 0.1, "share of steps over which the rate rises"),
    ("weight-decay", float, 0.0, "of AdamW"),
    ("temperature", float, 0.05, "of InfoNCE, on cosines"),
    ("hard-negative-weight", float, 0.0, "added to the own hard negative's logit (SimCSE)"),
    ("dropout", float, None, "of the encoder: its own"),
    ("max-tokens", int, 0, "read of a training sentence; 0 is the encoder's limit"),
    ("lora-rank", int, 16, "of the adapters"),
    ("lora-alpha", int, 32, "of the adapters"),
    ("eval-steps", int, 20, "steps between two looks at the dev set"),
    ("patience", int, 0, "looks without a better score before the run ends; 0 is never"),
    ("precision", str, "auto", "of the encoder: fp32, bf16, or auto"),
    ("seed", int, 0, "of initialisation, order, dropout and RReLU slopes"),
)
