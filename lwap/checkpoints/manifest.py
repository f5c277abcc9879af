"""What a checkpoint folder says of itself: found by name, read without loading it.

Imports no torch, so that checkpoints are listed at once. What may be loaded is decided in
`checkpoints`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lwap.encoding.sources import (
    BUNDLED,
    HUB_PATTERNS,
    file_sha256,
    remembered_sha256,
    resolve_encoder,
)
from lwap.errors import CheckpointError, LwapError, ModelError
from lwap.registry import STRATEGIES

FORMAT = 2  # 1: a head alone
MANIFEST = "lwap.json"
CARD = "README.md"


class Contents(StrEnum):
    """What of its encoder a checkpoint has in it."""

    HEAD = "head"  # nothing: the encoder is as published
    ADAPTER = "adapter"  # low-rank changes
    ENCODER = "encoder"  # all of it


# What modules.json calls our encoder: what is written, then what is read as well.
ENCODER_TYPES = (
    "lwap.encoding.LayerwiseTransformer",
    "lwap.encoding.encoder.LayerwiseTransformer",
    "lwap.encoder.LayerwiseTransformer",
)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself, read without loading it.

    Attributes:
        name: The name that `lwap.load` takes.
        folder: Where it is.
        encoder: Id of its encoder.
        num_states: S of the encoder.
        embedding_dimension: D.
        pooling: Strategy of its pooling, e.g. "mean".
        options: The head's options, e.g. {"query": "all", "residual": "none", …}.
        training: Settings and data of the training.
        results: Measured scores.
        size_bytes: Size on disk.
        contains: What of its encoder it has in it, see `Contents`.
    """

    name: str
    folder: Path
    encoder: str
    num_states: int
    embedding_dimension: int
    pooling: str
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    contains: str = Contents.HEAD

    @property
    def trained_on(self) -> str:
        """All that it was trained on, in words, by what it started from too; "" if unknown."""
        told = (self.training.get(key) for key in ("start_data", "data"))
        return ", then ".join(data for data in told if isinstance(data, str) and data)


def checkpoints_folder() -> Path:
    """Return the folder of shipped checkpoints: `LWAP_CHECKPOINTS`, else the project's."""
    configured = os.environ.get("LWAP_CHECKPOINTS")
    return Path(configured) if configured else Path(__file__).parents[2] / "checkpoints"


def runs_folder() -> Path:
    """Return the folder of the person's own runs: `LWAP_RUNS`, else runs/ beside the app."""
    configured = os.environ.get("LWAP_RUNS")
    return Path(configured) if configured else Path(__file__).parents[2] / "runs"


def list_checkpoints() -> list[CheckpointInfo]:
    """Return shipped checkpoints first, then the models of finished runs, each by name.

    A folder that cannot be read is left out here; `verify` says why.
    """
    found = []
    for name, folder in _named_folders():
        with contextlib.suppress(LwapError):
            found.append(read_info(folder, name))
    return found


def checkpoint_names() -> list[str]:
    """Return the names of all checkpoints, those that cannot be read included."""
    return [name for name, _ in _named_folders()]


def _named_folders() -> Iterator[tuple[str, Path]]:
    for parent, inner in ((checkpoints_folder(), ""), (runs_folder(), "model")):
        if not parent.is_dir():
            continue
        for folder in sorted(parent.iterdir()):
            is_unfinished = folder.name.startswith(".")  # a save that was killed
            if not is_unfinished and (folder / inner / MANIFEST).is_file():
                yield folder.name, folder / inner


def find_checkpoint(name_or_path: str) -> Path | None:
    """Return the folder of a checkpoint by name (shipped, or a run) or path, None without one."""
    if Path(name_or_path).name == name_or_path:
        for folder in (checkpoints_folder() / name_or_path, runs_folder() / name_or_path / "model"):
            if os.path.isfile(folder / MANIFEST):
                return folder
    folder = Path(os.path.expanduser(name_or_path))
    for candidate in (folder, folder / "model"):
        if os.path.isfile(candidate / MANIFEST):
            return candidate
    return None


def check_named(name_or_path: str) -> None:
    """Refuse an empty name.

    Raises:
        ModelError: With what a model can be named by.
    """
    if not name_or_path.strip():
        raise ModelError(
            f"No model was named. Give '{BUNDLED}', a checkpoint, a folder or a hub id."
        )


def starting_checkpoint(encoder: str) -> CheckpointInfo | None:
    """Return the checkpoint whose encoder a run starts from; None where it is a plain encoder.

    Raises:
        CheckpointError: If its files are not readable, or of a newer format.
    """
    folder = find_checkpoint(encoder)
    return None if folder is None else read_info(folder)


def read_info(folder: Path, name: str | None = None) -> CheckpointInfo:
    """Read what a checkpoint says of itself.

    Raises:
        CheckpointError: If its files are not readable, or of a newer format.
    """
    manifest = read_manifest(folder)
    modules = read_modules(folder)
    head = next((entry for entry in modules if _is_pooling(entry["type"])), None)
    if head is None:
        raise CheckpointError(f"'{folder}' has no pooling in its modules.json.")
    options = read_object(folder / head["path"] / "config.json")
    pooling = pooling_of_type(head["type"]) or _pooling_mode(options)
    encoder = manifest["encoder"]
    return CheckpointInfo(
        name=name or manifest["name"],
        folder=folder,
        encoder=encoder["id"],
        num_states=encoder["num_states"],
        embedding_dimension=encoder["embedding_dimension"],
        pooling=pooling,
        options=options,
        training=manifest["training"],
        results=manifest["results"],
        size_bytes=folder_size(folder),
        contains=manifest["contains"],
    )


def folder_size(folder: Path) -> int:
    """Return the bytes of a folder's files; what vanishes meanwhile does not count."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(parent, name)).st_size
    return size


def _pooling_mode(options: Mapping[str, Any]) -> str:
    """Return the mode of sentence-transformers' Pooling, e.g. "mean"."""
    if isinstance(mode := options.get("pooling_mode"), str):
        return mode
    older = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
    found = [key.removeprefix("pooling_mode_") for key, is_on in options.items() if is_on is True]
    return "+".join(older.get(key, key) for key in found if f"pooling_mode_{key}" in options)


def _is_pooling(type_name: str) -> bool:
    package, _, class_name = type_name.rpartition(".")
    is_theirs = package.split(".")[0] == "sentence_transformers" and class_name == "Pooling"
    return is_theirs or pooling_of_type(type_name) is not None


def head_types() -> dict[str, str]:
    """Return the strategy of every trained pooling, by what modules.json may call its class."""
    return {name: entry.name for entry in STRATEGIES.values() for name in entry.type_names}


def pooling_of_type(type_name: str) -> str | None:
    """Return the strategy of a trained pooling, by what modules.json calls its class."""
    return head_types().get(type_name)


def model_fingerprint(name_or_path: str, revision: str | None = None) -> str:
    """Return a hash of every file that a model's numbers depend on, without loading it.

    Configuration, tokenizer and weights, of the checkpoint and of its encoder.

    Raises:
        ModelError: If there is no such model.
        CheckpointError: If the checkpoint's lwap.json cannot be read.
    """
    check_named(name_or_path)
    checkpoint = find_checkpoint(name_or_path)
    folders = []
    if checkpoint is not None:
        manifest = read_manifest(checkpoint)
        encoder = manifest["encoder"]
        name_or_path, revision = encoder["id"], encoder.get("revision")
        folders.append(checkpoint)
    if checkpoint is None or manifest["contains"] != Contents.ENCODER:
        folders.append(resolve_encoder(name_or_path, revision))
    digest = hashlib.sha256()
    for folder in folders:
        files = {file for pattern in HUB_PATTERNS for file in folder.rglob(pattern)}
        for file in sorted(filter(Path.is_file, files)):
            is_large = file.suffix == ".safetensors"
            found = remembered_sha256(file) if is_large else file_sha256(file)
            digest.update(f"{file.relative_to(folder).as_posix()}|{found}\n".encode())
        digest.update(b"--\n")
    return digest.hexdigest()[:32]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the checked content of a checkpoint's lwap.json.

    Raises:
        CheckpointError: If it is missing, damaged, or of a newer format.
    """
    manifest = read_object(folder / MANIFEST)
    version = manifest.get("format")
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"'{folder}': {MANIFEST} has format {version!r}, not a number.")
    if version > FORMAT:
        raise CheckpointError(
            f"'{folder}' has format {version}; this version reads up to {FORMAT}. Update LWAP "
            "Explorer."
        )
    manifest = {"training": {}, "results": {}, "contains": str(Contents.HEAD), **manifest}
    if manifest["contains"] not in list(Contents):
        raise CheckpointError(
            f"'{folder}': {MANIFEST} contains {manifest['contains']!r}; this version knows "
            f"{', '.join(Contents)}. Update LWAP Explorer."
        )
    _check_types(folder, manifest, _MANIFEST_TYPES)
    _check_types(folder, manifest["encoder"], _ENCODER_TYPES)
    _check_types(folder, manifest["files"], dict.fromkeys(manifest["files"], str))
    return manifest


_MANIFEST_TYPES = {
    "name": str,
    "contains": str,
    "encoder": dict,
    "files": dict,
    "training": dict,
    "results": dict,
}
_ENCODER_TYPES = {"id": str, "sha256": str, "num_states": int, "embedding_dimension": int}


def _check_types(folder: Path, content: dict[str, Any], types: Mapping[str, type]) -> None:
    for key, kind in types.items():
        if not isinstance(content.get(key), kind):
            raise CheckpointError(
                f"'{folder}': {key!r} in {MANIFEST} is {content.get(key)!r}, not a {kind.__name__}."
            )


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a model folder's modules.json.

    Raises:
        CheckpointError: If it is missing, damaged, or a path in it leaves the folder.
    """
    entries = _read_json(folder / "modules.json")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("type"), str)
        and isinstance(entry.get("path"), str)
        for entry in entries
    ):
        raise CheckpointError(f"'{folder}': modules.json is not a list of modules.")
    for entry in entries:
        if not (folder / entry["path"]).resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(
                f"'{folder}': modules.json names the path {entry['path']!r}, which leaves the "
                "folder."
            )
    return entries


def read_object(file: Path, missing: Any = None) -> dict[str, Any]:
    """Return a JSON file's object, or `missing` where there is no file and it is not None.

    Raises:
        CheckpointError: If it is missing, damaged, or holds something else.
    """
    content = _read_json(file, missing)
    if not isinstance(content, dict):
        raise CheckpointError(f"'{file}' holds no JSON object.")
    return content


def _read_json(file: Path, missing: Any = None) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if missing is not None:
            return missing
        raise CheckpointError(
            f"'{file.parent}' is incomplete: '{file.name}' is missing."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"'{file}' is not readable JSON ({error}).") from error
