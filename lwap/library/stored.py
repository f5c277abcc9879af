"""Checkpoints as a person manages them: list, rename, delete, import, pass on as a zip file.

Shipped checkpoints stay as they are. A person's own lie in the runs folder as RUN/model, beside
what else the run has written. Torch is imported only where a model is verified.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lwap.checkpoints.manifest import (
    CARD,
    FORMAT,
    MANIFEST,
    CheckpointInfo,
    Contents,
    checkpoints_folder,
    folder_size,
    read_info,
    read_manifest,
    runs_folder,
)
from lwap.encoding.sources import BUNDLED, file_sha256, is_bundled_name
from lwap.errors import CheckpointError, InputError, LwapError, ModelError
from lwap.jobs import Run, facts_of, state_of

MODEL = "model"  # the folder of a run that holds its checkpoint

MAX_NAME = 64
MAX_FILES = 1000
MAX_BYTES = 2_000_000_000  # unpacked
MAX_RATIO = 100  # unpacked to packed, above the bytes below
RATIO_FROM = 50_000_000
MAX_ZIP_BYTES = 200_000_000  # of a checkpoint that is passed on
MAX_STATES = 500

KINDS = (".json", ".txt", ".model", ".jinja", ".safetensors", ".md")
BARE_NAMES = ("LICENSE", "NOTICE")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
CODE = (".py", ".pyc", ".so", ".dll", ".sh")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


# --- what there is ------------------------------------------------------------------------------


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
        for name in _names_in(parent):
            folder = parent / name / inner
            # A run without a model is one that goes on, or failed; it has none to manage.
            if folder.is_dir() and (not is_shipped or (folder / MANIFEST).is_file()):
                hidden = any(other.name == name for other in found)
                found.append(_stored(name, folder, is_shipped, hidden))
    return found


def _names_in(parent: Path) -> list[str]:
    # A dot begins the name of what is being saved or imported.
    return [name for name in _everything_in(parent) if not name.startswith(".")]


def _everything_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _stored(name: str, folder: Path, is_shipped: bool, is_hidden: bool = False) -> StoredModel:
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


@dataclass(frozen=True)
class Score:
    """A number with its 95 % interval: Spearman × 100, or a difference of two."""

    value: float
    low: float
    high: float


def dev_score(info: CheckpointInfo) -> Score | None:
    """Return the model's own score on its dev set, None where none is recorded."""
    scores = info.results.get("dev_spearman")
    if not isinstance(scores, Mapping):
        return None
    return _score(scores.get("trained")) or _score(scores.get(info.pooling))


def gain(info: CheckpointInfo) -> Score | None:
    """Return the difference to the untouched encoder's mean on the dev set, None without one."""
    return _score(info.results.get("dev_difference_to_mean"))


def gain_on_start(info: CheckpointInfo) -> Score | None:
    """Return the difference to the checkpoint that it started from on the dev set, or None."""
    return _score(info.results.get("dev_difference_to_start"))


def _score(found: Any) -> Score | None:
    if not isinstance(found, Mapping):
        return None
    numbers = [found.get(key) for key in ("value", "low", "high")]
    return Score(*map(float, numbers)) if all(map(_is_number, numbers)) else None


def layer_weights(info: CheckpointInfo) -> list[float] | None:
    """Return the mean weight of each state on the dev set, (S,); None where none is recorded."""
    found = info.results.get("layer_weights")
    if not isinstance(found, list) or len(found) != info.num_states:
        return None
    return list(map(float, found)) if all(map(_is_number, found)) else None


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) < 1e6  # False of NaN, too


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


# --- rename and delete --------------------------------------------------------------------------


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
        raise InputError(f"{_brief(name)!r} cannot be a name. {accepted}")
    if name.lower() in (BUNDLED.lower(), "bundled"):
        raise InputError(f"'{name}' is the bundled encoder's name. Choose another.")
    for parent, whose in ((checkpoints_folder(), "a shipped checkpoint"), (runs_folder(), "a run")):
        for other in _names_in(parent):
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
        raise _missing(name) from error
    except OSError as error:
        raise CheckpointError(
            f"'{name}' cannot be renamed: {error.strerror or error}. It is as it was."
        ) from error
    # The folder's name is what counts; a manifest that cannot be written still says the old one.
    with contextlib.suppress(OSError):
        _write_name(target / MODEL, name, new)
    return _stored(new, target / MODEL, is_shipped=False)


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
        raise _missing(name) from error
    except OSError as error:
        raise CheckpointError(
            f"'{name}' cannot be deleted: {error.strerror or error}. It is as it was; remove "
            f"'{folder}' by hand."
        ) from error
    with contextlib.suppress(OSError):
        run.rmdir()
    return _everything_in(run)


def what_stays(model: StoredModel) -> list[str]:
    """Return the names beside a checkpoint in its run, which deleting it leaves there."""
    return [name for name in _everything_in(model.folder.parent) if name != MODEL]


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
    raise _missing(name)


def _missing(name: str) -> ModelError:
    names = ", ".join(model.name for model in list_models() if not model.is_shipped) or "none"
    return ModelError(
        f"There is no checkpoint '{_brief(name)}'; it may have been renamed or deleted meanwhile. "
        f"Of your own there are: {names}."
    )


def _refuse_busy(run: Path, what: str) -> None:
    state = state_of(facts_of(Run(run)))
    if state.is_active:
        raise ModelError(
            f"'{run.name}' is {state}, so it cannot be {what} now. Stop the run, or wait until it "
            "has ended."
        )


def _write_name(folder: Path, old: str, new: str) -> None:
    """Put a new name into lwap.json and card, each written beside and renamed."""
    with contextlib.suppress(ValueError, RecursionError, FileNotFoundError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if isinstance(manifest, dict):
            _replace_text(folder / MANIFEST, _as_json(manifest | {"name": new}))
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


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=True) + "\n"


def _brief(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


# --- pass on ------------------------------------------------------------------------------------


def zip_checkpoint(model: StoredModel | str) -> bytes:
    """Return a checkpoint as a zip file with one folder; the same files give the same bytes.

    By name, a shipped one comes before a run of the same name, as `load` has it.

    Raises:
        ModelError: If there is no such checkpoint.
        CheckpointError: If it is above the limit, or cannot be read.
    """
    if isinstance(model, str):
        named = next((other for other in list_models() if other.name == model), None)
        if named is None:
            raise _missing(model)
        model = named
    name = model.name
    if not model.folder.is_dir():
        raise _missing(name)
    if model.size_bytes > MAX_ZIP_BYTES:
        raise CheckpointError(
            f"'{name}' has {_megabytes(model.size_bytes)}; a zip file is made of up to "
            f"{_megabytes(MAX_ZIP_BYTES)}. Copy the folder '{model.folder}' instead."
        )
    stream = io.BytesIO()
    try:
        # Stored, not deflated: weights do not get smaller, and zlib's bytes differ by version.
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for path, file in sorted(_walk(model.folder)):
                if not stat.S_ISREG(file.lstat().st_mode):
                    continue
                entry = zipfile.ZipInfo(f"{name}/{path}")  # of 1980, whatever the clock says
                entry.create_system = 3
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"'{name}' cannot be read: {error.strerror or error}.") from error
    return stream.getvalue()


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 10_000_000 else f"{count / 1e6:,.0f} MB"


# --- import -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    path: str  # below the checkpoint, with slashes
    size: int
    open: Callable[[], IO[bytes]]


def import_checkpoint(
    source: str | os.PathLike | bytes, name: str | None = None, *, title: str = ""
) -> StoredModel:
    """Take a checkpoint from a zip file or a folder into the runs folder, as NAME/model.

    Only files of known kinds are read, none is ever run; it is unpacked beside its place, verified
    by hashes, classes and by loading it, and then renamed. A failure leaves nothing. A folder that
    sentence-transformers saved gets an lwap.json.

    Args:
        source: A zip file or a folder by its path, or a zip file's bytes.
        name: What it will be called; None: as it calls itself, else as the file or folder.
        title: What bytes are called in messages.

    Raises:
        InputError: If there is no such file, the name is none, or it is taken.
        CheckpointError: If the content is not safe, not complete, not as recorded, of a newer
            format, or cannot be written.
    """
    if isinstance(source, bytes):
        title = title or "The zip file"
    else:
        path = Path(os.path.expanduser(os.fspath(source)))
        title = path.name or str(path)
        if not os.path.exists(path):
            raise InputError(
                f"There is no file or folder '{_brief(str(path), 300)}'. Give a zip file or the "
                "folder of a checkpoint."
            )
        source = path.absolute()
    try:
        return _import(source, name, title)
    except OSError as error:
        reason = error.strerror or str(error)
        way_out = " Free some space and try again." if error.errno == errno.ENOSPC else ""
        raise _refusal(title, f"{reason}.{way_out}") from error


def _refusal(title: str, reason: str) -> CheckpointError:
    return CheckpointError(f"'{_brief(title)}' was not imported: {reason}")


def _import(source: Path | bytes, name: str | None, title: str) -> StoredModel:
    with contextlib.ExitStack() as stack:
        if isinstance(source, Path) and source.is_dir():
            folder = _checkpoint_in(source, title)
            files = _folder_files(folder, title)
        else:
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            with _unpacking(title):
                archive = stack.enter_context(zipfile.ZipFile(stream))
            files = _zip_files(archive, title)
        _check_kinds(files, title)
        name = name or _name_within(files, title) or title.removesuffix(".zip")
        check_name(name)
        return _take(files, name, title)


def _take(files: Sequence[_File], name: str, title: str) -> StoredModel:
    from lwap.checkpoints.verify import verify

    shelf = runs_folder()
    shelf.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=shelf))
    try:
        folder = scratch / "run" / name  # the checkpoint's own name, which messages show
        _unpack(files, folder, title)
        try:
            if not (folder / MANIFEST).is_file():
                _describe(folder, name)
            _check_content(folder)
            _write_name(folder, read_manifest(folder)["name"], name)
            verify(str(folder))
        except LwapError as error:
            reason = str(error).replace(f"{folder.parent}{os.sep}", "")
            raise _refusal(title, reason) from error
        os.rename(folder, folder.with_name(MODEL))
        check_name(name)  # somebody else may have taken it meanwhile
        os.rename(folder.parent, shelf / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _stored(name, shelf / name / MODEL, is_shipped=False)


def _unpack(files: Sequence[_File], folder: Path, title: str) -> None:
    for file in files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with _unpacking(title), file.open() as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)


@contextlib.contextmanager
def _unpacking(title: str) -> Iterator[None]:
    try:
        yield
    except LwapError:
        raise
    # What a damaged file gives: the first is zipfile's own, the others come from below it.
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        EOFError,
        zlib.error,
        struct.error,
    ) as error:
        raise _refusal(
            title, f"it is no whole zip file that can be unpacked ({error}). Copy it again."
        ) from error


# What is in a zip file or a folder, each file checked before any is read.


def _zip_files(archive: zipfile.ZipFile, title: str) -> list[_File]:
    """Return the files of the one checkpoint in a zip file; what stands beside it is left out.

    Raises:
        CheckpointError: If an entry is no plain file inside the archive, there are too many or too
            large ones, or no checkpoint, or several.
    """
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise _refusal(title, f"it has {len(entries):,} entries; up to {MAX_FILES:,} are read.")
    seen: set[str] = set()
    for entry in entries:
        _check_entry(entry, title)
        if (lower := entry.filename.lower()) in seen:
            raise _refusal(title, f"it holds '{_brief(entry.filename)}' twice.")
        seen.add(lower)
    size = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    _check_size(size, title)
    if size > RATIO_FROM and size > MAX_RATIO * packed:
        raise _refusal(
            title,
            f"{_megabytes(packed)} would unpack to {_megabytes(size)}, more than {MAX_RATIO} times "
            "as much. Weights do not shrink like that.",
        )
    plain = {
        entry.filename: entry
        for entry in entries
        if not entry.is_dir() and not _is_junk(entry.filename)
    }
    root = _root(list(plain), title)
    return [
        _File(path.removeprefix(root), entry.file_size, _opener(archive, entry))
        for path, entry in plain.items()
        if path.startswith(root)
    ]


def _opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(entry)


def _check_entry(entry: zipfile.ZipInfo, title: str) -> None:
    path = entry.orig_filename  # zipfile cuts at a null and, on Windows, turns backslashes round
    kind = stat.S_IFMT(entry.external_attr >> 16)
    problem = ""
    if not path or path.startswith("/"):
        problem = "an absolute path"
    elif "\\" in path or ":" in path or any(ord(mark) < 32 for mark in path):
        problem = "a path with a backslash, a colon or a control character"
    elif ".." in (parts := path.rstrip("/").split("/")) or "" in parts or "." in parts:
        problem = "a path with '..', '.' or an empty part"
    elif stat.S_ISLNK(kind):
        problem = "a link"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "no plain file"
    elif entry.flag_bits & 1:
        problem = "encrypted"
    if problem:
        raise _refusal(
            title,
            f"the entry {_brief(path)!r} is {problem}. A checkpoint has plain files in its own "
            "folder; make the zip file again from that folder.",
        )


def _is_junk(path: str) -> bool:
    """Return whether a path is what file managers and git leave behind."""
    parts = path.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1] in (
        "Thumbs.db",
        "desktop.ini",
    )


def _root(paths: Sequence[str], title: str) -> str:
    """Return the folder of the one checkpoint among paths, "" or with a slash at its end."""
    for marker in (MANIFEST, "modules.json"):
        roots = [path.removesuffix(marker) for path in paths if path.split("/")[-1] == marker]
        if not roots:
            continue
        least = min(root.count("/") for root in roots)
        roots = sorted(root for root in roots if root.count("/") == least)
        if len(roots) > 1:
            raise _refusal(
                title,
                f"it holds {len(roots)} checkpoints ({', '.join(map(_brief, roots[:5]))}). Import "
                "one at a time.",
            )
        return roots[0]
    raise _refusal(title, _NO_CHECKPOINT)


_NO_CHECKPOINT = (
    f"it holds neither {MANIFEST} nor modules.json, so it is no checkpoint. A plain encoder needs "
    "no import: type its folder or hub id into the model picker."
)


def _checkpoint_in(folder: Path, title: str) -> Path:
    """Return a folder that is a checkpoint, or the one in a run's folder."""
    for candidate in (folder, folder / MODEL):
        if any((candidate / marker).is_file() for marker in (MANIFEST, "modules.json")):
            return candidate
    raise _refusal(title, _NO_CHECKPOINT)


def _folder_files(folder: Path, title: str) -> list[_File]:
    """Return the files of a checkpoint's folder, in order of their paths.

    Raises:
        CheckpointError: If one is a link or no plain file, or they are too many or too large.
    """
    found: list[_File] = []
    for inside, path in _walk(folder):
        kind = path.lstat()
        if not stat.S_ISREG(kind.st_mode):
            what = "a link" if stat.S_ISLNK(kind.st_mode) else "no plain file"
            raise _refusal(
                title,
                f"'{inside}' is {what}. Copy the folder with its links followed (cp -rL), and give "
                "the copy.",
            )
        found.append(_File(inside, kind.st_size, _reader(path)))
        if len(found) > MAX_FILES:
            raise _refusal(title, f"it has more than {MAX_FILES:,} files. Is it the right folder?")
    _check_size(sum(file.size for file in found), title)
    return found


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield what is in a folder but folders, links to folders included, by path in order."""
    for parent, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not _is_junk(name))
        links = [name for name in names if os.path.islink(os.path.join(parent, name))]
        for name in sorted([*files, *links]):
            if not _is_junk(name):
                path = Path(parent, name)
                yield path.relative_to(folder).as_posix(), path


def _reader(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _check_size(size: int, title: str) -> None:
    if size > MAX_BYTES:
        raise _refusal(
            title, f"it has {_megabytes(size)}; up to {_megabytes(MAX_BYTES)} are taken."
        )


def _check_kinds(files: Sequence[_File], title: str) -> None:
    """Refuse what is never read: pickles, code, and kinds of files that no model needs."""
    for file in files:
        path = PurePosixPath(file.path)
        suffix = path.suffix.lower()
        if suffix in PICKLES:
            reason = (
                "is a pickle, which can run code when it is read; pickles are never read here. "
                "Save the model with safe_serialization=True, and leave this file out."
            )
        elif suffix in CODE:
            reason = (
                "is code, and code in a model is never run or read here. Leave this file out; a "
                "model that needs it cannot be imported."
            )
        elif suffix not in KINDS and path.name not in BARE_NAMES:
            reason = f"is of a kind that no model needs. Known are {', '.join(KINDS)}."
        else:
            continue
        raise _refusal(title, f"'{_brief(file.path)}' {reason}")
    if "modules.json" not in {file.path for file in files}:
        raise _refusal(title, "it is incomplete: 'modules.json' is missing.")


def _name_within(files: Sequence[_File], title: str) -> str | None:
    """Return the name that a checkpoint's lwap.json gives it; a bad one is for others to refuse."""
    file = next((file for file in files if file.path == MANIFEST), None)
    if file is None:
        return None
    with _unpacking(title), file.open() as source:
        text = source.read(1 << 20)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = content.get("name") if isinstance(content, dict) else None
    return name if isinstance(name, str) and name else None


def _check_content(folder: Path) -> None:
    """Refuse a manifest that names files elsewhere, or results that are none.

    Raises:
        CheckpointError: If so, or if it cannot be read or is of a newer format.
    """
    manifest = read_manifest(folder)
    inside = {path for path, _ in _walk(folder)}
    for path in manifest["files"]:
        if path not in inside:
            raise CheckpointError(
                f"'{folder.name}' is incomplete: {MANIFEST} lists '{_brief(path)}', which is not "
                "in it."
            )
    info = read_info(folder)
    if not 1 <= info.num_states <= MAX_STATES:
        raise CheckpointError(
            f"'{folder.name}': {MANIFEST} has num_states {info.num_states}; a model has 1 to "
            f"{MAX_STATES}."
        )
    scores = info.results.get("dev_spearman", {})
    is_measured = isinstance(scores, dict) and all(_score(score) for score in scores.values())
    is_named = isinstance(info.results.get("dev_set", ""), str)
    is_told = isinstance(info.training.get("data", ""), str)
    if not (is_measured and is_named and is_told):
        raise CheckpointError(
            f"'{folder.name}': the results or the training in {MANIFEST} are not as LWAP Explorer "
            "writes them: dev_spearman has value, low and high of each strategy; dev_set and data "
            "are texts."
        )
    if "layer_weights" in info.results and layer_weights(info) is None:
        raise CheckpointError(
            f"'{folder.name}': the layer_weights in {MANIFEST} are not {info.num_states} numbers, "
            "one a state."
        )


def _describe(folder: Path, name: str) -> None:
    """Write lwap.json for a model that sentence-transformers saved, if it can be loaded.

    Raises:
        ModelError: If it cannot.
    """
    from lwap.checkpoints.load import identify_encoder, load

    model = load(str(folder), device="cpu")
    paths = [path for path, _ in _walk(folder) if path != CARD]
    manifest = {
        "format": FORMAT,
        "name": name,
        "contains": str(Contents.ENCODER),
        "encoder": {
            "id": name,
            "revision": None,
            "sha256": identify_encoder(str(folder))["encoder_sha256"],
            "num_states": model[0].num_states,
            "embedding_dimension": model[0].get_embedding_dimension(),
        },
        "files": {path: file_sha256(folder / path) for path in paths},
        "training": {},
        "results": {},
    }
    (folder / MANIFEST).write_text(_as_json(manifest), encoding="utf-8")
