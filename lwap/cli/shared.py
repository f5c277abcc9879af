"""What the commands share: models and strategies as options, progress, output, JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lwap.errors import InputError

DEFAULT_MODEL = "lwap-minilm"
PAPER_MODEL = "lwap-minilm-paper"


@contextlib.contextmanager
def show_progress(unit: str, options: argparse.Namespace) -> Iterator[Callable[[int, int], None]]:
    """Give a progress callback that draws a bar on a terminal's standard error after a second."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", delay=1, disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def output_path(name: str, *suffixes: str) -> Path:
    """Return the path of an output file, checked before there is work to lose."""
    path = Path(name)
    if path.suffix not in suffixes:
        raise InputError(f"--output is '{path}'; it must end in {' or '.join(suffixes)}.")
    if not os.path.isdir(path.parent):
        raise InputError(f"'{path}' cannot be written: there is no folder '{path.parent}'.")
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror or error}.") from error


def rounded(values) -> list:
    import numpy as np

    return np.round(np.asarray(values, dtype=float), 6).tolist()


def print_json(content: Any) -> None:
    print(json.dumps(content, ensure_ascii=False, allow_nan=False, default=str))


def cut(text: str, limit: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def model_options(
    command: argparse.ArgumentParser, strategies: str | None, model: str = DEFAULT_MODEL
) -> None:
    command.add_argument("--model", "-m", default=model, help=f"model (default {model})")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    if strategies is not None:
        command.add_argument("--strategies", nargs="+", metavar="NAME", help=strategies)
        command.add_argument(
            "--precision",
            default="fp32",
            help="fp32 (default), bf16, or auto: bf16 where the hardware has it, faster in bulk",
        )
        command.add_argument(
            "--whiten-on", metavar="FILE", help="sentences that NAME+whiten is fitted on"
        )
    command.add_argument("--json", action="store_true", help="print one JSON object")


def shown(file: Path, data: Path) -> str:
    """Return a file as a card names it: from the data folder on, else by its name alone."""
    with contextlib.suppress(ValueError):
        inside = file.resolve().relative_to(data.resolve()).as_posix()
        return f"$LWAP_DATA/{shlex.quote(inside)}"
    return shlex.quote(file.name)
