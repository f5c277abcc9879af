"""The command `models`: list, show, verify, rename, delete, import and merge checkpoints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lwap.cli.shared import DEFAULT_MODEL, print_json, show_progress, shown
from lwap.errors import InputError, LwapError


def _list(options: argparse.Namespace) -> None:
    from lwap.checkpoints.manifest import list_checkpoints
    from lwap.encoding.sources import BUNDLED

    found = list_checkpoints()
    if options.json:
        print_json({"checkpoints": [_info_dict(info) for info in found], "encoder": BUNDLED})
        return
    for info in found:
        print(f"{info.name:<26}{info.pooling:<12}{info.size_bytes / 1e6:5.1f} MB  {info.encoder}")
    print(f"{BUNDLED:<26}{'mean':<12}          the bundled encoder, untouched")


def _show(options: argparse.Namespace) -> None:
    from lwap.checkpoints.manifest import CARD, find_checkpoint, list_checkpoints, read_info
    from lwap.errors import ModelError

    folder = find_checkpoint(options.name)
    if folder is None:
        names = ", ".join(info.name for info in list_checkpoints()) or "none"
        raise ModelError(f"There is no checkpoint '{options.name}'. There are: {names}.")
    if options.json:
        print_json(_info_dict(read_info(folder)))
        return
    card = folder / CARD
    print(card.read_text(encoding="utf-8") if card.is_file() else f"{folder} has no model card.")


def _verify(options: argparse.Namespace) -> None:
    from lwap.checkpoints.manifest import checkpoint_names
    from lwap.checkpoints.verify import verify
    from lwap.errors import CheckpointError

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


def _rename(options: argparse.Namespace) -> None:
    from lwap.library.edit import rename

    model = rename(options.name, options.new)
    if options.json:
        print_json({"name": model.name, "folder": str(model.folder)})
    else:
        print(f"'{options.name}' is called '{model.name}' now.")


def _delete(options: argparse.Namespace) -> None:
    from lwap.library.edit import delete, what_stays
    from lwap.library.stored import own_model

    model = own_model(options.name, "deleted")
    if not options.yes:
        if options.json or not sys.stdin.isatty():
            raise InputError(
                f"'{model.name}' was not deleted: nobody can be asked here. Add --yes to delete it "
                "without being asked."
            )
        beside = ", ".join(what_stays(model))
        print(f"{model.folder}: {model.size_bytes / 1e6:.1f} MB, with its card and its scores.")
        print(f"Stays: {beside}." if beside else "Nothing of the run stays.")
        try:
            answer = input("Delete it for good? [y/N] ")
        except EOFError:  # Ctrl-D
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Not deleted.")
            return
    stays = delete(model.name)
    if options.json:
        print_json({"deleted": model.name, "folder": str(model.folder), "stays": stays})
    else:
        print(f"Deleted: {model.name}" + (f" ({', '.join(stays)} stay)" if stays else ""))


def _import(options: argparse.Namespace) -> None:
    from lwap.library.archive import import_checkpoint

    model = import_checkpoint(options.path, options.name)
    if options.json:
        print_json(
            {
                "name": model.name,
                "folder": str(model.folder),
                "size_bytes": model.size_bytes,
            }
        )
    else:
        print(f"Imported: {model.name} ({model.size_bytes / 1e6:.1f} MB), verified.")


def _merge(options: argparse.Namespace) -> None:
    from lwap.checkpoints.manifest import read_info, runs_folder
    from lwap.checkpoints.save import check_target
    from lwap.datasets.readers import data_folder, read_pairs
    from lwap.encoding.sources import file_sha256
    from lwap.library.edit import check_name
    from lwap.library.stored import MODEL
    from lwap.training.merge import merge_checkpoints, save_merged
    from lwap.training.save import merge_command

    if options.output:
        folder = Path(options.output)
    else:
        check_name(options.name)
        folder = runs_folder() / options.name / MODEL
    check_target(folder)
    dev = read_pairs(options.dev) if options.dev else None
    dev_name = options.dev_name or (Path(options.dev).stem if options.dev else "")
    with show_progress("sentences encoded", options) as progress:
        merged = merge_checkpoints(
            options.names,
            weights=options.weights,
            rank=options.rank,
            dev_pairs=dev,
            dev_name=dev_name,
            progress=progress,
        )
    save_merged(
        merged,
        folder,
        name=options.name,
        dev_sha256=file_sha256(Path(options.dev)) if options.dev else "",
        command=merge_command(
            options.names,
            name=options.name,
            weights=options.weights,
            rank=options.rank,
            dev=shown(Path(options.dev), data_folder()) if options.dev else None,
            dev_name=options.dev_name,
        ),
    )
    info = read_info(folder, options.name)
    if options.json:
        print_json({**_info_dict(info), "held": merged.held})
        return
    how = "the average" if merged.is_average else "the weighted sum"
    print(f"{info.name}: {how} of {len(merged.parts)} checkpoints, ", end="")
    print(f"{info.size_bytes / 1e6:.1f} MB, in {folder}")
    if merged.held is not None:
        print(
            f"Adapters of rank {merged.rank} hold {merged.held:.0%} of the encoder's squared "
            "change."
        )
    for name, score in info.results.get("dev_spearman", {}).items():
        title = {"mean": "encoder, mean", "cls": "encoder, CLS"}.get(name, info.name)
        print(f"  {title:<14} {score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]")


def _info_dict(info) -> dict[str, Any]:
    return {**vars(info), "folder": str(info.folder)}


def add_commands(commands, formatter: type[argparse.HelpFormatter]) -> None:
    """Add the command of this module to the parser of `python -m lwap`."""
    summary = "List, show, verify, rename, delete, import and merge checkpoints."
    models = commands.add_parser(
        "models",
        help=summary,
        description=summary,
        epilog="Example:\n  python -m lwap models list",
        formatter_class=formatter,
    )
    actions = models.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, run: Callable, summary: str, arguments: str, more: str = ""):
        action = actions.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example:\n  python -m lwap models {name} {arguments}".rstrip() + more,
            formatter_class=formatter,
        )
        action.set_defaults(run=run)
        action.add_argument("--json", action="store_true", help="print one JSON object")
        return action

    add("list", _list, "List shipped checkpoints and finished runs.", "")
    show = add("show", _show, "Print a checkpoint's model card.", DEFAULT_MODEL)
    show.add_argument("name", help="a checkpoint, a run or a folder")
    verifying = add(
        "verify",
        _verify,
        "Check files, classes and encoder by SHA-256, and load it.",
        DEFAULT_MODEL,
    )
    verifying.add_argument("names", nargs="*", help="default: all")
    renaming = add("rename", _rename, "Rename a checkpoint of your own.", "lwap-mine mine-v2")
    renaming.add_argument("name", help="a checkpoint in the runs folder")
    renaming.add_argument("new", help="its new name: letters, digits, '-', '_' and '.'")
    deleting = add(
        "delete",
        _delete,
        "Delete a checkpoint of your own.",
        "mine-v2",
        "\n\nOnly the checkpoint goes; settings, log and metrics of its run stay.",
    )
    deleting.add_argument("name", help="a checkpoint in the runs folder")
    deleting.add_argument("--yes", action="store_true", help="do not ask")
    importing = add(
        "import",
        _import,
        "Import a checkpoint from a zip file or a folder, and verify it.",
        "checkpoint.zip --name mine",
        "\n\nA folder that sentence-transformers saved is taken as well. Pickles, code, links and\n"
        "paths that leave the folder are refused.",
    )
    merging = add(
        "merge",
        _merge,
        "Merge checkpoints of one encoder and one pooling: what they changed, averaged or added.",
        "run-1 run-2 run-3 --name mine --rank 32 --dev dev.csv",
        "\n  python -m lwap models merge sentences-run triplets-run --weights 1 1 --name mine"
        "\n\nThe average of runs that differ in seed or temperature is often better than each\n"
        "(Wortsman et al. 2022, Model soups). With --weights 1 1 the changes of two runs, with\n"
        "other data or objectives, add up (Ilharco et al. 2023, task arithmetic).",
    )
    merging.add_argument("names", nargs="+", metavar="name", help="a checkpoint, a run, a folder")
    merging.add_argument("--name", required=True, help="what the result will be called")
    merging.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="of each change, above 0 (default: 1/n each, the average)",
    )
    merging.add_argument(
        "--rank",
        type=int,
        help="keep the encoder's change as adapters of this rank (default: all of the encoder)",
    )
    merging.add_argument("--dev", help="CSV of scored pairs to measure the result on")
    merging.add_argument("--dev-name", help="what the card calls them (default: the file's name)")
    merging.add_argument("--output", help="where to (default: the runs folder)")
    importing.add_argument("path", help="a zip file, or a checkpoint's folder")
    importing.add_argument("--name", help="what it will be called (default: its own name)")
