"""Named arrays on disk, each entry one checked file; a cache may vanish, but is never wrong.

An entry is written beside its place and renamed, so that two processes may write the same one;
it carries hashes of all it says, so that a damaged one is noticed, removed and made again. The
oldest entries go when the folder grows beyond its limit. Knows nothing of models or sentences.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lwap.encoding.sources import cache_folder
from lwap.errors import ConfigError, InputError

LIMIT_GB = 5.0
SUFFIX = ".lwap"  # safetensors inside; a name of our own, as prune must never meet a person's model
SCRATCH = ".lwap-new-"
ABANDONED = 3600  # seconds after which the scratch file of a killed process is removed
_HASHES, _SEAL = "xxh3_128", "xxh3_128 of these and the facts"


@dataclass(frozen=True)
class Usage:
    """What a kind of entries takes: their number and bytes."""

    kind: str
    entries: int
    bytes: int


@dataclass
class DiskCache:
    """Entries `kind/…/name` of named arrays in one folder.

    Reading and writing never raise for the state of the disk: a read gives None, a write False,
    and `notes` says in words what happened, once each.

    Attributes:
        folder: Where the entries are; by default `LWAP_CACHE`, else the user's cache folder.
        limit_bytes: The oldest entries go beyond it; `LWAP_CACHE_GB` gigabytes, else 5.
        notes: What a person should know of.
    """

    folder: Path = field(default_factory=cache_folder)
    limit_bytes: int = field(default_factory=lambda: limit_from_environment())
    notes: list[str] = field(default_factory=list)
    is_writable: bool = True

    def begin(self) -> None:
        """Begin a new piece of work: nothing was said yet, and the disk may take entries again."""
        self.notes.clear()
        self.is_writable = True

    def names(self, kind: str) -> list[str]:
        """Return the names of the entries below `kind`, which may be a path, sorted."""
        with contextlib.suppress(OSError):
            return sorted(
                file.name.removesuffix(SUFFIX) for file in (self.folder / kind).glob(f"*{SUFFIX}")
            )
        return []

    def has(self, kind: str, name: str) -> bool:
        """Say whether there is such an entry; it may still turn out to be damaged."""
        # os.path says False where Path raises: no permission, a name that is too long.
        return os.path.isfile(self._file(kind, name))

    def read(
        self, kind: str, name: str, only: Iterable[str] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """Return an entry's arrays and facts; None where it is missing or damaged.

        Args:
            kind, name: Which one.
            only: The arrays to read; by default all of them.
        """
        file = self._file(kind, name)
        if not self.has(kind, name):
            return None
        try:
            with safe_open(file, framework="np") as content:
                facts = dict(content.metadata() or {})
                seal, hashes = facts.pop(_SEAL), json.loads(facts.pop(_HASHES))
                if seal != _seal(hashes, facts) or set(content.keys()) != set(hashes):
                    raise ValueError("its header has changed")
                wanted = set(hashes) if only is None else set(only) & set(hashes)
                arrays = {key: content.get_tensor(key) for key in sorted(wanted)}
            if changed := [key for key in arrays if _hash(arrays[key]) != hashes[key]]:
                raise ValueError(f"the array '{changed[0]}' has changed")
        except FileNotFoundError:  # another process removed it just now
            return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._say(
                f"A damaged entry of the cache was removed and is made again: {kind}/{name} "
                f"({_reason(error)})."
            )
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(file)  # used now: the last to go
        return arrays, facts

    def write(
        self,
        kind: str,
        name: str,
        arrays: Mapping[str, np.ndarray],
        facts: Mapping[str, str] | None = None,
    ) -> bool:
        """Write an entry; return False where the disk does not take it, and try no more after."""
        if not self.is_writable:
            return False
        size = sum(array.nbytes for array in arrays.values())
        if size > self.limit_bytes:
            self._stop(f"it has a limit of {self.limit_bytes / 1e9:g} GB")
            return False
        file = self._file(kind, name)
        arrays = {key: np.asarray(array, order="C") for key, array in arrays.items()}
        facts = dict(facts or {})
        hashes = {key: _hash(array) for key, array in arrays.items()}
        checks = {_HASHES: json.dumps(hashes), _SEAL: _seal(hashes, facts)}
        scratch = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(prefix=SCRATCH, dir=file.parent)
            os.close(descriptor)
            save_file(arrays, scratch, facts | checks)
            os.replace(scratch, file)
        except (OSError, SafetensorError) as error:
            if scratch is not None:
                with contextlib.suppress(OSError):
                    os.unlink(scratch)
            self._stop(_reason(error))
            return False
        self.prune()
        return True

    def usage(self) -> list[Usage]:
        """Return what each kind of entries takes, by its first folder."""
        found: dict[str, list[int]] = {}
        for file, size, _ in self._files():
            found.setdefault(file.relative_to(self.folder).parts[0], []).append(size)
        return [Usage(kind, len(sizes), sum(sizes)) for kind, sizes in sorted(found.items())]

    def prune(self, limit_bytes: int | None = None) -> int:
        """Remove the oldest entries beyond the limit, and what killed processes left; in bytes."""
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        files = self._files()
        excess = sum(size for _, size, _ in files) - limit
        removed = 0
        for file, size, changed in sorted(files, key=lambda entry: entry[2]):
            is_abandoned = file.suffix != SUFFIX and time.time() - changed > ABANDONED
            if is_abandoned or (removed < excess and file.suffix == SUFFIX):
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)  # another process may prune at the same time
                    removed += size
        return removed

    def _files(self) -> list[tuple[Path, int, float]]:
        """Return entries and scratch files with size and time of last use; never other files."""
        found = []
        for pattern in (f"*/**/*{SUFFIX}", f"*/**/{SCRATCH}*"):
            with contextlib.suppress(OSError):  # another process may have removed a folder
                for file in self.folder.glob(pattern):
                    with contextlib.suppress(OSError):  # or the file
                        status = file.stat()
                        found.append((file, status.st_size, status.st_mtime))
        return found

    def _file(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{name}{SUFFIX}"

    def _stop(self, reason: str) -> None:
        self.is_writable = False
        self._say(
            f"The cache in '{self.folder}' cannot be written ({reason}). Results are complete, but "
            "the next evaluation starts from nothing. Free some space, name another folder in "
            "LWAP_CACHE, or a limit in LWAP_CACHE_GB."
        )

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def limit_from_environment() -> int:
    """Return the cache's limit in bytes: `LWAP_CACHE_GB` gigabytes, else 5.

    Raises:
        ConfigError: If the variable is no number, or below 0.
    """
    configured = os.environ.get("LWAP_CACHE_GB", "").strip() or str(LIMIT_GB)
    try:
        gigabytes = float(configured)
        if not 0 <= gigabytes < float("inf"):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"LWAP_CACHE_GB is {configured!r}; it must be a number of gigabytes, 0 or more."
        ) from None
    return int(gigabytes * 1e9)


def checked_gigabytes(value: float) -> int:
    """Return a limit given in gigabytes as bytes.

    Raises:
        InputError: If it is below 0 or no number.
    """
    if not 0 <= value < float("inf"):
        raise InputError(f"The limit is {value:g} GB; it must be 0 or more.")
    return int(value * 1e9)


def _hash(array: np.ndarray) -> str:
    digest = xxhash.xxh3_128(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _seal(hashes: Mapping[str, str], facts: Mapping[str, str]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps([hashes, facts], sort_keys=True).encode())


def _reason(error: Exception) -> str:
    is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if is_full or os.strerror(errno.ENOSPC) in str(error):  # safetensors has it in words only
        return "no space is left on the disk"
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0]
