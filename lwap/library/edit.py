"""Rename and delete the models of one person; refused while their run is at work."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lwap.checkpoints.manifest import (
    CARD,
    MANIFEST,
    checkpoints_folder,
    runs_folder,
)
from lwap.encoding.sources import BUNDLED
from lwap.errors import CheckpointError, InputError, ModelError
from lwap.jobs import Run, facts_of, state_of
from lwap.library.stored import (
    MODEL,
    StoredModel,
    brief,
    everything_in,
    missing_model,
    names_in,
    own_model,
    stored_model,
)

MAX_NAME = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(name: str, but: str | None = None) -> None:
    """Refuse what cannot be the name of a checkpoint; `but` is the one that is to be renamed.

    Raises:
        InputError: If it has other characters, is too long, or is taken.
    """
    accepted = (
        f"A name has 1 to {MAX_NAME} letters (a-z), digits, '-', '_' and '.', begins with a letter "
        "or digit, and does not end in '.'."
    )
    if not _NAME.fullmatch(name) or name.endswith(".") or len(name) > MAX_NAME:
        raise InputError(f"{brief(name)!r} cannot be a name. {accepted}")
    if name.lower() in (BUNDLED.lower(), "bundled"):
        raise InputError(f"'{name}' is the bundled encoder's name. Choose another.")
    for parent, whose in ((checkpoints_folder(), "a shipped checkpoint"), (runs_folder(), "a run")):
        for other in names_in(parent):
            # Some file systems do not tell upper case from lower case.
            if other.lower() == name.lower() and not (other == but and parent == runs_folder()):
                raise InputError(
                    f"'{name}' is taken: {whose} is called '{other}'. Choose another name."
                )


def rename(name: str, new: str) -> StoredModel:
    """Rename a checkpoint of the person's own, and the run that it is in.

    The folder gets its new name in one step; name in lwap.json and card follow.

    Raises:
        InputError: If the new name is none, or taken.
        ModelError: If there is no such checkpoint, it is shipped, or its run goes on.
        CheckpointError: If the folder cannot be renamed.
    """
    run = own_model(name, "renamed").folder.parent
    if new == name:
        raise InputError(f"'{name}' has this name already. Give another one.")
    check_name(new, but=name)
    _refuse_busy(run, "renamed")
    target = run.with_name(new)
    try:
        os.rename(run, target)
    except FileNotFoundError as error:
        raise missing_model(name) from error
    except OSError as error:
        raise CheckpointError(
            f"'{name}' cannot be renamed: {error.strerror or error}. It is as it was."
        ) from error
    # The folder's name is what counts; a manifest that cannot be written still says the old one.
    with contextlib.suppress(OSError):
        write_name(target / MODEL, name, new)
    return stored_model(new, target / MODEL, is_shipped=False)


def delete(name: str) -> list[str]:
    """Delete a checkpoint of the person's own; return what stays of its run, [] where nothing does.

    Only RUN/model goes, and the run's folder if it has nothing else in it.

    Raises:
        ModelError: If there is no such checkpoint, it is shipped, or its run goes on.
        CheckpointError: If it cannot be removed.
    """
    folder = own_model(name, "deleted").folder
    run = folder.parent
    _refuse_busy(run, "deleted")
    try:
        if run.is_symlink():  # what it leads to is not in the runs folder
            run.unlink()
            return []
        if folder.is_symlink():
            folder.unlink()
        else:
            # Out of sight in one step: half of a checkpoint is never found.
            scratch = Path(tempfile.mkdtemp(prefix=f".{name[:MAX_NAME]}-", dir=run.parent))
            try:
                os.rename(folder, scratch / MODEL)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except FileNotFoundError as error:
        raise missing_model(name) from error
    except OSError as error:
        raise CheckpointError(
            f"'{name}' cannot be deleted: {error.strerror or error}. It is as it was; remove "
            f"'{folder}' by hand."
        ) from error
    with contextlib.suppress(OSError):
        run.rmdir()
    return everything_in(run)


def what_stays(model: StoredModel) -> list[str]:
    """Return the names beside a checkpoint in its run, which deleting it leaves there."""
    return [name for name in everything_in(model.folder.parent) if name != MODEL]


def _refuse_busy(run: Path, what: str) -> None:
    state = state_of(facts_of(Run(run)))
    if state.is_active:
        raise ModelError(
            f"'{run.name}' is {state}, so it cannot be {what} now. Stop the run, or wait until it "
            "has ended."
        )


def write_name(folder: Path, old: str, new: str) -> None:
    """Put a new name into lwap.json and card, each written beside and renamed."""
    with contextlib.suppress(ValueError, RecursionError, FileNotFoundError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if isinstance(manifest, dict):
            _replace_text(folder / MANIFEST, as_json(manifest | {"name": new}))
    with contextlib.suppress(ValueError, FileNotFoundError):
        card = (folder / CARD).read_text(encoding="utf-8")
        named = re.sub(rf"^# {re.escape(old)}$", f"# {new}", card, count=1, flags=re.MULTILINE)
        named = named.replace(f'lwap.load("{old}")', f'lwap.load("{new}")')
        if named != card:
            _replace_text(folder / CARD, named)


def _replace_text(file: Path, text: str) -> None:
    scratch = file.with_name(f".{file.name}.new")
    try:
        scratch.write_text(text, encoding="utf-8", newline="\n")
        os.replace(scratch, file)
    finally:
        scratch.unlink(missing_ok=True)


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=True) + "\n"
