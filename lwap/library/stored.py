"""Checkpoints as a person manages them: list, rename, delete, import, pass on as a zip file.

Shipped checkpoints stay as they are. A person's own lie in the runs folder as RUN/model, beside
what else the run has written. Torch is imported only where a model is verified.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lwap.checkpoints.manifest import (
    CARD,
    MANIFEST,
    CheckpointInfo,
    checkpoints_folder,
    folder_size,
    read_info,
    runs_folder,
)
from lwap.encoding.sources import is_bundled_name
from lwap.errors import LwapError, ModelError

MODEL = "model"  # the folder of a run that holds its checkpoint


@dataclass(frozen=True)
class StoredModel:
    """A checkpoint on this machine, a damaged one included.

    Attributes:
        name: The name that `lwap.load` takes.
        folder: Where it is.
        is_shipped: Whether it came with the app, and so can be neither renamed nor deleted.
        size_bytes: Size on disk.
        info: What it says of itself; None where that cannot be read.
        problem: What is wrong with it at first sight, or ""; `verify` looks closer.
    """

    name: str
    folder: Path
    is_shipped: bool
    size_bytes: int
    info: CheckpointInfo | None
    problem: str = ""


def list_models() -> list[StoredModel]:
    """Return shipped checkpoints first, then the person's own, each by name; damaged ones too.

    Unlike `list_checkpoints`, which gives what can be loaded.
    """
    found: list[StoredModel] = []
    for parent, inner, is_shipped in (
        (checkpoints_folder(), "", True),
        (runs_folder(), MODEL, False),
    ):
        for name in names_in(parent):
            folder = parent / name / inner
            # A run without a model is one that goes on, or failed; it has none to manage.
            if folder.is_dir() and (not is_shipped or (folder / MANIFEST).is_file()):
                hidden = any(other.name == name for other in found)
                found.append(stored_model(name, folder, is_shipped, hidden))
    return found


def names_in(parent: Path) -> list[str]:
    # A dot begins the name of what is being saved or imported.
    return [name for name in everything_in(parent) if not name.startswith(".")]


def everything_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def stored_model(name: str, folder: Path, is_shipped: bool, is_hidden: bool = False) -> StoredModel:
    info, problem = None, ""
    try:
        info = read_info(folder, name)
    except LwapError as error:
        problem = str(error)
    except OSError as error:  # it was removed while it was read
        problem = f"'{folder}' cannot be read ({error.strerror or error})."
    if is_hidden and not problem:
        problem = (
            f"A shipped checkpoint has the name '{name}' too and is loaded in its place. Rename "
            "this one."
        )
    return StoredModel(name, folder, is_shipped, folder_size(folder), info, problem)


def read_card(folder: Path, most: int = 200_000) -> str:
    """Return a checkpoint's card without its YAML header, "" without one; bytes beyond `most`
    are left out."""
    try:
        with (folder / CARD).open("rb") as file:
            text = file.read(most).decode("utf-8", errors="replace")
    except OSError:
        return ""
    text = text.replace("\r\n", "\n")
    if text.startswith("---\n") and (end := text.find("\n---\n", 3)) > 0:
        text = text[end + 5 :]
    return text.strip()


def own_model(name: str, what: str = "changed") -> StoredModel:
    """Return a checkpoint of the person's own; `what` is to be done to it, for the message.

    Raises:
        ModelError: If there is none of that name, or it is shipped.
    """
    found = list_models()
    own = next((model for model in found if model.name == name and not model.is_shipped), None)
    if own is not None:
        return own
    if is_bundled_name(name):
        raise ModelError(f"'{name}' is the bundled encoder and cannot be {what}.")
    if any(model.name == name for model in found):
        raise ModelError(
            f"'{name}' is shipped with LWAP Explorer and cannot be {what}. Only checkpoints in the "
            "runs folder can."
        )
    raise missing_model(name)


def missing_model(name: str) -> ModelError:
    names = ", ".join(model.name for model in list_models() if not model.is_shipped) or "none"
    return ModelError(
        f"There is no checkpoint '{brief(name)}'; it may have been renamed or deleted meanwhile. "
        f"Of your own there are: {names}."
    )


def brief(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
