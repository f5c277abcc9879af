"""Checkpoints as zip files: packed, and taken in after every entry was checked."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lwap.checkpoints.manifest import (
    CARD,
    FORMAT,
    MANIFEST,
    Contents,
    read_info,
    read_manifest,
    runs_folder,
)
from lwap.encoding.sources import file_sha256
from lwap.errors import CheckpointError, InputError, LwapError
from lwap.library.edit import as_json, check_name, write_name
from lwap.library.results import checked_score, layer_weights
from lwap.library.stored import MODEL, StoredModel, brief, list_models, missing_model, stored_model

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
            raise missing_model(model)
        model = named
    name = model.name
    if not model.folder.is_dir():
        raise missing_model(name)
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
                f"There is no file or folder '{brief(str(path), 300)}'. Give a zip file or the "
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
    return CheckpointError(f"'{brief(title)}' was not imported: {reason}")


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
            write_name(folder, read_manifest(folder)["name"], name)
            verify(str(folder))
        except LwapError as error:
            reason = str(error).replace(f"{folder.parent}{os.sep}", "")
            raise _refusal(title, reason) from error
        os.rename(folder, folder.with_name(MODEL))
        check_name(name)  # somebody else may have taken it meanwhile
        os.rename(folder.parent, shelf / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return stored_model(name, shelf / name / MODEL, is_shipped=False)


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
            raise _refusal(title, f"it holds '{brief(entry.filename)}' twice.")
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
            f"the entry {brief(path)!r} is {problem}. A checkpoint has plain files in its own "
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
                f"it holds {len(roots)} checkpoints ({', '.join(map(brief, roots[:5]))}). Import "
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
        raise _refusal(title, f"'{brief(file.path)}' {reason}")
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
                f"'{folder.name}' is incomplete: {MANIFEST} lists '{brief(path)}', which is not "
                "in it."
            )
    info = read_info(folder)
    if not 1 <= info.num_states <= MAX_STATES:
        raise CheckpointError(
            f"'{folder.name}': {MANIFEST} has num_states {info.num_states}; a model has 1 to "
            f"{MAX_STATES}."
        )
    scores = info.results.get("dev_spearman", {})
    is_measured = isinstance(scores, dict) and all(
        checked_score(score) for score in scores.values()
    )
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
    from lwap.encoding.bank import layerwise_transformer

    encoder = layerwise_transformer(load(str(folder), device="cpu"))
    paths = [path for path, _ in _walk(folder) if path != CARD]
    manifest = {
        "format": FORMAT,
        "name": name,
        "contains": str(Contents.ENCODER),
        "encoder": {
            "id": name,
            "revision": None,
            "sha256": identify_encoder(str(folder))["encoder_sha256"],
            "num_states": encoder.num_states,
            "embedding_dimension": encoder.get_embedding_dimension(),
        },
        "files": {path: file_sha256(folder / path) for path in paths},
        "training": {},
        "results": {},
    }
    (folder / MANIFEST).write_text(as_json(manifest), encoding="utf-8")
