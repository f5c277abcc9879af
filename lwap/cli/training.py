"""The commands that train: `train` for one run, `jobs` for runs that are or were at work."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lwap.cli.shared import print_json, rounded, show_progress, shown
from lwap.errors import ConfigError, InputError, LwapError
from lwap.pooling.declarations import DEFAULT_POOLING, poolings
from lwap.registry import OBJECTIVES


def _train(options: argparse.Namespace) -> None:
    from lwap.checkpoints.load import identify_encoder
    from lwap.checkpoints.save import check_target
    from lwap.datasets.readers import data_folder, read_pairs, read_sentences, read_training
    from lwap.encoding.hardware import resolve_device
    from lwap.encoding.sources import file_sha256
    from lwap.training.check import check_data
    from lwap.training.follower import is_first_process, world_size
    from lwap.training.save import command_of, given_settings

    resolve_device("auto")
    config = train_config(options)
    if bool(options.triplets) == bool(options.sentences):
        raise InputError("Give --triplets FILE, or --sentences FILE, one of the two.")
    source = Path(options.triplets or options.sentences)
    data = read_training(source) if options.triplets else read_sentences(source)
    dev = read_pairs(options.dev) if options.dev else None
    dev_name = options.dev_name or (Path(options.dev).stem if options.dev else "held-out")
    # What would be refused later is refused before it is trained.
    if options.output:
        check_target(Path(options.output))
    elif world_size() > 1:
        raise InputError(
            "Under torchrun give --output: only one process can have the run's folder."
        )
    encoder = identify_encoder(config.encoder)
    check = check_data(config, data, dev, dev_name=dev_name)
    if options.check:
        _print_check(options, config, check, data, dev, dev_name)
        return
    if check.problems:
        raise ConfigError(" ".join(check.problems))
    if not options.json and is_first_process():
        for warning in check.warnings:
            print(f"Note: {warning}", file=sys.stderr)
    names = {"data_name": options.data_name, "dev_name": options.dev_name, "name": options.name}
    about = {
        "data_name": options.data_name or source.name,
        "data_sha256": file_sha256(source),
        "dev_sha256": file_sha256(Path(options.dev)) if options.dev else "",
        "command": command_of(
            config,
            shown(source, data_folder()),
            shown(Path(options.dev), data_folder()) if options.dev else None,
            kind="triplets" if options.triplets else "sentences",
            **names,
        ),
    }
    if options.output:
        _train_into(Path(options.output), options, config, data, dev, dev_name, encoder, about)
        return
    from lwap import jobs

    run = jobs.create(
        config,
        data,
        dev,
        given=given_settings(config),
        name=options.name,
        dev_name=dev_name,
        **about,
    )
    if options.detach:
        jobs.start(run)
        if options.json:
            print_json({"name": run.name, "folder": str(run.folder)})
        else:
            print(
                f"Started: {run.name}\n  python -m lwap jobs show {run.name}\n"
                f"  python -m lwap jobs stop {run.name}"
            )
        return
    _work(run, options)


def train_config(options: argparse.Namespace):
    """Return the settings: those of the preset, and what was said beside it."""
    from lwap.training import TrainConfig
    from lwap.training.declarations import DEFAULT_OBJECTIVE, objective_of
    from lwap.training.presets import config_of

    names = TrainConfig.__dataclass_fields__
    said = {name: value for name, value in vars(options).items() if name in names}
    if options.sentences and not options.triplets:
        said.setdefault("objective", objective_of(False))
    if not options.preset:
        return TrainConfig(**said)
    return config_of(options.preset, said.pop("objective", DEFAULT_OBJECTIVE), **said)


def _train_into(output: Path, options, config, data, dev, dev_name, encoder, about) -> None:
    """Train here and now, into a folder that the person named; nothing else is kept."""
    from lwap.training import train
    from lwap.training.follower import is_first_process
    from lwap.training.save import save_result

    name = options.name or (output.parent.name if output.name == "model" else output.name)

    with show_progress("sentences encoded", options) as progress:
        result = train(config, data, dev, dev_name=dev_name, progress=progress, log=_looks(options))
    if not is_first_process():
        return
    save_result(result, output, name=name, encoder=encoder, **about)
    _print_result(options, output, name, result.seconds)
    if result.diverged_at is not None:
        print(f"The run diverged at step {result.diverged_at}.", file=sys.stderr)


def _looks(options: argparse.Namespace) -> Callable[[dict[str, Any]], None]:
    """Return what prints a run's looks at the dev set, unless JSON is asked for."""

    def say(event: dict[str, Any]) -> None:
        if event["event"] == "look" and not options.json:
            print(_line(event), flush=True)

    return say


def _line(event: dict[str, Any]) -> str:
    loss = f"loss {event['loss']:.3f}" if event["step"] else "untrained "
    return f"step {event['step']:>5} of {event['steps']}   {loss}   dev {event['dev']:.2f}"


def _print_result(
    options: argparse.Namespace, folder: Path, name: str, seconds: dict[str, float]
) -> None:
    from lwap.checkpoints.manifest import read_info

    info = read_info(folder, name)
    results, metric = info.results, info.training["metric"]
    if options.json:
        print_json(
            {
                "name": name,
                "folder": str(folder),
                "size_bytes": info.size_bytes,
                "best_step": results["best_step"],
                "results": results,
                "seconds": rounded(list(seconds.values())),
            }
        )
        return
    print(f"\nBest by {metric}: step {results['best_step']}")
    for key, score in results.get("dev_spearman", {}).items():
        print(f"  {key:<12}{score['value']:.2f}  [{score['low']:.2f}, {score['high']:.2f}]")
    print(f"Seconds: {', '.join(f'{part} {s:.1f}' for part, s in seconds.items())}")
    print(f"Written: {folder} ({info.size_bytes / 1e6:.1f} MB, with model card)")


def _work(run, options: argparse.Namespace) -> None:
    """Work on a run here, until it ends or Ctrl-C stops it at a checkpoint."""
    from lwap.jobs.state import Phase
    from lwap.jobs.worker import Worker

    started = time.perf_counter()

    with show_progress("sentences encoded", options) as progress:
        worker = Worker(run, say=_looks(options), progress=progress, tell=_log_to(run))
        before = signal.signal(signal.SIGINT, worker.tell_to_stop)
        try:
            phase = worker.work()
        finally:
            signal.signal(signal.SIGINT, before)
    if phase == Phase.FAILED:
        raise LwapError(worker.status.message)
    if phase == Phase.STOPPED:
        checkpoint = run.checkpoint
        at = f"a checkpoint of step {checkpoint} is kept" if checkpoint else "nothing was trained"
        print(f"Stopped; {at}. Resume: python -m lwap jobs resume {run.name}", file=sys.stderr)
        raise SystemExit(130)
    seconds = {"in all": time.perf_counter() - started}
    _print_result(options, run.model_folder, run.name, seconds)
    if worker.status.message and not options.json:
        print(worker.status.message, file=sys.stderr)


def _log_to(run) -> Callable[[str], None]:
    from lwap.jobs.folder import LOG

    def tell(text: str) -> None:
        with (run.folder / LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")

    return tell


def _print_check(options, config, check, data, dev, dev_name) -> None:
    """Say what a run would be trained on and what it would take."""
    from lwap.checkpoints.load import load
    from lwap.checkpoints.manifest import runs_folder
    from lwap.training.check import check_data
    from lwap.training.estimate import estimate

    found = None
    if not check.problems:
        encoder = load(config.encoder)
        check = check_data(config, data, dev, dev_name=dev_name, encoder=encoder)
        folder = Path(options.output) if options.output else runs_folder()
        found = estimate(config, check, encoder, dev, folder=folder)
    problems = [*check.problems, *(found.problems if found else ())]
    if options.json:
        print_json({"check": check.to_dict(), "estimate": found.to_dict() if found else None})
    else:
        print(f"{check.rows_read} {check.unit} read, {check.rows_kept} kept")
        for dropped in check.dropped:
            print(f"  dropped: {dropped.count} ({dropped.reason}), {' '.join(dropped.notes)}")
        if check.rows_held_out:
            print(f"  held out to choose the best step: {check.rows_held_out}")
        if check.lengths:
            print(
                f"  tokens: median {check.lengths.median:.0f}, 95 % at most "
                f"{check.lengths.high:.0f}, longest {check.lengths.most}"
            )
        print(f"  steps: {check.steps} ({check.steps_an_epoch} an epoch)")
        for warning in check.warnings:
            print(f"Note: {warning}")
        if found:
            memory = ", ".join(
                f"{each.total / 1e9:.1f} of {each.free / 1e9:.1f} GB free ({each.device})"
                for each in found.memory
            )
            print(f"Takes about {found.total_seconds:.0f} s; memory {memory}.")
    if problems:
        raise ConfigError(" ".join(problems))


# --- jobs ---------------------------------------------------------------------------------------


def _jobs_list(options: argparse.Namespace) -> None:
    from lwap.jobs import control

    runs = control.list_runs()
    if options.json:
        print_json({"runs": [_job(run) for run in runs]})
        return
    for run in runs:
        status = run.status
        step = f"{status.step} of {status.steps}" if status.steps else ""
        print(f"{run.name:<40}{control.state(run):<12}{step}")
    if not runs:
        print("There are no runs.")


def _job(run) -> dict[str, Any]:
    from lwap.jobs import control

    try:
        config = dict(run.request.config)
    except LwapError as error:
        return {"name": run.name, "folder": str(run.folder), "problem": str(error)}
    return {
        "name": run.name,
        "folder": str(run.folder),
        "state": str(control.state(run)),
        "why": control.why(run),
        "checkpoint": run.checkpoint,
        "has_model": run.has_model,
        **{name: value for name, value in asdict(run.status).items() if name != "message"},
        "config": config,
    }


def _jobs_show(options: argparse.Namespace) -> None:
    from lwap.jobs import control
    from lwap.jobs.events import Followed

    run = control.find(options.name)
    history = Followed(run).read()
    if options.json:
        looks = [
            {name: None if value != value else value for name, value in look.items()}
            for look in history.looks
        ]
        print_json({**_job(run), "looks": looks, "resumed_at": history.resumed_at})
        return
    print(f"{run.name}: {control.state(run)}. {control.why(run)}".rstrip())
    for look in history.looks:
        print(_line(look))
    left = history.seconds_left()
    if control.state(run).is_active and left is not None:
        print(f"About {left:.0f} s left.")


def _jobs_log(options: argparse.Namespace) -> None:
    from lwap.jobs import control

    print(control.find(options.name).log_tail(options.lines))


def _jobs_stop(options: argparse.Namespace) -> None:
    from lwap.jobs import control

    run = control.find(options.name)
    control.stop(run)
    while options.wait and control.state(run).is_active:
        time.sleep(0.2)
    print(f"{run.name}: {control.state(run)}")


def _jobs_resume(options: argparse.Namespace) -> None:
    from lwap.jobs import control

    run = control.find(options.name)
    control.resume(run)
    print(f"{run.name}: {control.state(run)}")


def _jobs_delete(options: argparse.Namespace) -> None:
    from lwap.jobs import control

    run = control.find(options.name)
    if run.has_model and not options.yes:
        raise InputError(
            f"'{run.name}' has a model, which would be deleted too. Add --yes to do so."
        )
    control.delete(run)
    print(f"Deleted: {run.name}")


# --- the parser ---------------------------------------------------------------------------------


def add_commands(add: Callable[..., argparse.ArgumentParser], commands, formatter) -> None:
    """Add `train` and `jobs` to the parser."""
    _add_train(add)
    jobs = commands.add_parser(
        "jobs",
        help="list, show, stop, resume and delete training runs",
        description="Training runs that are, or were, at work in processes of their own.",
        formatter_class=formatter,
    )
    verbs = jobs.add_subparsers(metavar="VERB", required=True)
    for verb, run, text in (
        ("list", _jobs_list, "all runs, the newest first"),
        ("show", _jobs_show, "how a run goes, or how it ended"),
        ("log", _jobs_log, "what a run's process wrote"),
        ("stop", _jobs_stop, "write a checkpoint after the step at hand, and end"),
        ("resume", _jobs_resume, "go on from the last checkpoint, as if nothing had happened"),
        ("delete", _jobs_delete, "delete a run with its checkpoints and its model"),
    ):
        command = verbs.add_parser(verb, help=text, description=text)
        command.set_defaults(run=run)
        if verb != "list":
            command.add_argument("name", help="the run's name")
        if verb in ("list", "show"):
            command.add_argument("--json", action="store_true", help="print one JSON object")
        if verb == "log":
            command.add_argument("--lines", type=int, default=200, help="last lines (default 200)")
        if verb == "stop":
            command.add_argument("--wait", action="store_true", help="until it has ended")
        if verb == "delete":
            command.add_argument("--yes", action="store_true", help="even if it has a model")


def _add_train(add: Callable[..., argparse.ArgumentParser]) -> None:
    train = add(
        "train",
        _train,
        "Train a pooling, and its encoder if asked to, with a contrastive objective.",
        "Examples:\n"
        "  python -m lwap train --triplets triplets.csv --dev pairs.csv --residual last_mean\n"
        "  python -m lwap train --triplets triplets.csv --dev pairs.csv --mode full\n"
        "  python -m lwap train --sentences FILE --objective unsupervised --dev pairs.csv\n\n"
        "Without --dev a tenth of the triplets is held out to choose the best step on.\n"
        "Without --output the run gets a folder among the runs: Ctrl-C stops it at a checkpoint,\n"
        "and `jobs resume` goes on. On several GPUs: torchrun -m lwap train … --output FOLDER.",
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
    files.add_argument("--check", action="store_true", help="check data and settings, and end")
    files.add_argument("--detach", action="store_true", help="start a process of its own, and end")

    # No defaults: what is not said is the preset's, or TrainConfig's.
    what = train.add_argument_group("what is trained", argument_default=argparse.SUPPRESS)
    what.add_argument(
        "--preset", default=None, help="minute, ten-minutes or paper; other options change it"
    )
    what.add_argument(
        "--encoder",
        help="folder, hub id, or a checkpoint whose encoder was trained (default: the bundled "
        "all-MiniLM-L6-v2)",
    )
    what.add_argument("--mode", help="head (default, encoder frozen), lora, or full")
    said = "; ".join(f"{each.name}: {each.explanation}" for each in OBJECTIVES.values())
    what.add_argument("--objective", help=said)
    what.add_argument("--pooling", help=f"{', '.join(poolings())} (default {DEFAULT_POOLING})")
    what.add_argument("--query", help="all (default, released code) or last (paper)")
    what.add_argument("--scale", help="states (default) or sqrt_dim")
    what.add_argument("--residual", help="none (default, the paper) or last_mean")
    what.add_argument("--layer-norm", action="store_true", help="for pre-norm encoders")
    run = train.add_argument_group("run", argument_default=argparse.SUPPRESS)
    for name, kind, default, text in _RUN_OPTIONS:
        said = "the mode's" if default is None else default
        run.add_argument(f"--{name}", type=kind, help=f"{text} (default {said})")


_RUN_OPTIONS = (
    ("epochs", int, None, "passes over the data: 3 for a head, else 1"),
    ("max-steps", int, 0, "steps after which the run ends; 0 is no limit"),
    ("batch-size", int, 64, "rows a step; more rows are more negatives"),
    ("accumulation", int, 1, "batches a step; adds no negatives"),
    ("mini-batch", int, 0, "rows in memory at once, with the batch's own gradients; 0 is all"),
    ("learning-rate", float, None, "peak: 1e-3 for a head, 1e-4 with LoRA, 2e-5 in full"),
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
