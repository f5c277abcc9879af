"""Load models. The only place that decides what may be loaded.

No code and no pickle is ever read from a model folder: classes come from an allow-list, weights
from safetensors. A head checkpoint is a folder with

    lwap.json            what it is: format, encoder (id, revision, SHA-256), files' SHA-256,
                         training settings, results
    modules.json         the modules in order, as sentence-transformers writes it
    1_…/                 the head's configuration and weights
    README.md            the model card

and takes its encoder from the bundled package, the hub, or a folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
)
from transformers.utils import logging as transformers_logging

from lwap.checkpoints.manifest import (
    ENCODER_TYPES,
    Contents,
    check_named,
    find_checkpoint,
    head_types,
    pooling_of_type,
    read_manifest,
    read_modules,
    read_object,
)
from lwap.encoding.adapters import ADAPTER, apply_adapter
from lwap.encoding.bank import layerwise_transformer
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.encoding.hardware import resolve_device
from lwap.encoding.sources import (
    BUNDLED,
    file_sha256,
    is_bundled_name,
    resolve_encoder,
    weights_sha256,
)
from lwap.errors import CheckpointError, LwapError
from lwap.pooling.head import LayerHead
from lwap.registry import STRATEGIES

# By class name for sentence-transformers, whose import paths differ between its versions.
_ALLOWED_THEIRS = {
    "Transformer": LayerwiseTransformer,
    "Pooling": Pooling,
    "Normalize": Normalize,
    "Dense": Dense,
    "Dropout": Dropout,
    "LayerNorm": LayerNorm,
}
# Text only, by forward: without this a decoder with a chat template would format its input.
_PLAIN_TEXT = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


# --- load ---------------------------------------------------------------------------------------


def load(
    name_or_path: str | Path = BUNDLED, *, device: str = "auto", revision: str | None = None
) -> SentenceTransformer:
    """Load a model, ready to encode and to look into layer by layer.

    Args:
        name_or_path: A checkpoint (`lwap-minilm`), a run, the bundled encoder
            (`all-MiniLM-L6-v2`), a folder, or a hub id. A plain encoder gets mean pooling.
        device: "auto" (cuda, mps, cpu) or a torch device.
        revision: Of a hub id.

    Returns:
        A SentenceTransformer in eval mode and fp32, its first module a `LayerwiseTransformer`.

    Raises:
        ModelError: If there is no such model, or its architecture cannot be looked into.
        CheckpointError: If files are missing, damaged, changed, or name a class that is not ours.
        ConfigError: If the device is not on this machine.
    """
    name_or_path = os.fspath(name_or_path)
    check_named(name_or_path)
    device = resolve_device(device)
    checkpoint = find_checkpoint(name_or_path)
    if checkpoint is not None:
        manifest = read_manifest(checkpoint)
        check_files(checkpoint, manifest)
        encoder = checkpoint_encoder(checkpoint, manifest)
        name = checkpoint.parent.name if checkpoint.name == "model" else checkpoint.name
        model = _assemble(checkpoint, encoder, device)
        if manifest["contains"] == Contents.ADAPTER:
            with _damage_as_error(checkpoint):
                apply_adapter(layerwise_transformer(model).model, checkpoint / ADAPTER)
    else:
        encoder = resolve_encoder(name_or_path, revision)
        is_bundled = is_bundled_name(name_or_path)
        name = BUNDLED if is_bundled else name_or_path.rstrip("/\\")
        model = _assemble(encoder, encoder, device)
    model.lwap_name = name  # type: ignore[assignment]  # torch expects tensors and modules
    return model.eval()


def checkpoint_encoder(folder: Path, manifest: dict[str, Any]) -> Path:
    wanted = manifest["encoder"]
    if manifest["contains"] == Contents.ENCODER:
        return folder  # its hash is among those of the files
    encoder = resolve_encoder(wanted["id"], wanted.get("revision"))
    found = weights_sha256(encoder / _transformer_path(encoder))
    if found != wanted["sha256"]:
        raise CheckpointError(
            f"'{folder.name}' was trained on {wanted['id']} with weights of SHA-256 "
            f"{wanted['sha256'][:16]}…, but the encoder here has {found[:16]}…. Its head would "
            "give other results; use the encoder that it names."
        )
    return encoder


def identify_encoder(name_or_path: str, revision: str | None = None) -> dict[str, str | None]:
    """Return what `save_checkpoint` records: encoder_id, encoder_revision, encoder_sha256.

    A folder is named by its whole path, a hub model by the commit that was fetched. Of a checkpoint
    that changed its encoder it is the encoder that it was trained from.

    Raises:
        ModelError: If there is no such encoder, or it has no safetensors weights.
        CheckpointError: If it is a checkpoint whose encoder is as published.
    """
    checkpoint = find_checkpoint(name_or_path)
    if checkpoint is not None:
        manifest = read_manifest(checkpoint)
        encoder = manifest["encoder"]
        if manifest["contains"] == Contents.HEAD:
            raise CheckpointError(
                f"'{name_or_path}' is a checkpoint with a head. Train from its encoder instead, "
                f"'{encoder['id']}'."
            )
        return {
            "encoder_id": encoder["id"],
            "encoder_revision": encoder.get("revision"),
            "encoder_sha256": encoder["sha256"],
        }
    folder = resolve_encoder(name_or_path, revision)
    is_path = folder == Path(os.path.expanduser(name_or_path))
    is_snapshot = folder.parent.name == "snapshots" and not is_path
    return {
        "encoder_id": str(folder.resolve()) if is_path else name_or_path,
        "encoder_revision": folder.name if is_snapshot else None,
        "encoder_sha256": weights_sha256(folder / _transformer_path(folder)),
    }


def _transformer_path(encoder: Path) -> str:
    """Return where in an encoder's folder its transformer is: mostly "", sometimes a subfolder."""
    if not (encoder / "modules.json").is_file():
        return ""
    for entry in read_modules(encoder):
        if allowed_class(entry["type"], encoder) is LayerwiseTransformer:
            return entry["path"]
    return ""


def _assemble(folder: Path, encoder: Path, device: str) -> SentenceTransformer:
    """Build a model from the modules in `folder`; the transformer's weights are in `encoder`."""
    with quiet_transformers():
        if not (folder / "modules.json").is_file():
            transformer = _load_plain(folder)
            modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean")]
            return SentenceTransformer(modules=modules, device=device)
        modules = []
        for entry in read_modules(folder):
            cls = allowed_class(entry["type"], folder)
            if cls is LayerwiseTransformer:
                modules.append(_load_transformer(encoder))
            else:
                modules.append(_load_module(cls, folder, entry["path"]))
        kinds = [type(module) for module in modules]
        if kinds[:1] != [LayerwiseTransformer] or kinds.count(LayerwiseTransformer) > 1:
            raise CheckpointError(
                f"'{folder}': modules.json must name one Transformer, at its beginning, not "
                f"{[kind.__name__ for kind in kinds]}."
            )
        config = read_object(folder / "config_sentence_transformers.json", missing={})
        try:
            return SentenceTransformer(
                modules=modules,
                device=device,
                prompts=config.get("prompts"),
                default_prompt_name=config.get("default_prompt_name"),
                similarity_fn_name=config.get("similarity_fn_name"),
                truncate_dim=config.get("truncate_dim"),
            )
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"'{folder}' cannot be assembled: {error}") from error


def _load_plain(folder: Path) -> LayerwiseTransformer:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"'{folder}' is no model folder: it has neither modules.json (sentence-transformers) "
            "nor config.json (transformers)."
        )
    weights_sha256(folder)  # refuses a folder with pickled weights only
    with _damage_as_error(folder):
        return LayerwiseTransformer(
            str(folder),
            model_kwargs=_model_kwargs(),
            processor_kwargs=_local(),
            config_kwargs=_local(),
            **_PLAIN_TEXT,
        )


def _load_transformer(encoder: Path) -> LayerwiseTransformer:
    subfolder = _transformer_path(encoder)
    if not (encoder / "modules.json").is_file():
        return _load_plain(encoder)
    weights_sha256(encoder / subfolder)
    with _damage_as_error(encoder):
        return LayerwiseTransformer.load(
            str(encoder),
            subfolder=subfolder,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs=_model_kwargs(),
        )


def _load_module(cls: Any, folder: Path, path: str) -> torch.nn.Module:
    inside = folder / path
    has_pickle = any(inside.glob("*.bin")) or any(inside.glob("*.pt"))
    # Without this very file sentence-transformers would turn to the pickle.
    if has_pickle and not (inside / "model.safetensors").is_file():
        raise CheckpointError(
            f"'{inside}' holds pickled weights (.bin), which are never read. Save the model again "
            "with safe_serialization=True."
        )
    if not inside.is_dir() and issubclass(cls, LayerHead | Dense):
        raise CheckpointError(f"'{folder}' is incomplete: '{path}' is missing.")
    if cls is Dense:
        activation = read_object(inside / "config.json").get("activation_function", "torch.")
        if not str(activation).startswith("torch."):
            raise CheckpointError(
                f"'{folder}': '{path}' names the activation '{activation}', which is not loaded: "
                "it could run code of its own. Allowed are the classes of torch.nn."
            )
    with _damage_as_error(folder):
        return cls.load(str(folder), subfolder=path, local_files_only=True)


def allowed_class(type_name: str, folder: Path) -> type:
    ours = dict.fromkeys(ENCODER_TYPES, LayerwiseTransformer)
    if type_name in ours:
        return ours[type_name]
    if (pooling := pooling_of_type(type_name)) is not None:
        return STRATEGIES[pooling].head_class()
    package, _, class_name = type_name.rpartition(".")
    if package.split(".")[0] == "sentence_transformers" and class_name in _ALLOWED_THEIRS:
        return _ALLOWED_THEIRS[class_name]
    allowed = sorted(
        [*ours, *head_types(), *(f"sentence_transformers…{name}" for name in _ALLOWED_THEIRS)]
    )
    raise CheckpointError(
        f"'{folder}': modules.json names the class '{type_name}', which is not loaded: it could "
        f"run code of its own. Allowed are {', '.join(allowed)}."
    )


def _model_kwargs() -> dict[str, Any]:
    return {"use_safetensors": True, "dtype": torch.float32, **_local()}


def _local() -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": False}


@contextlib.contextmanager
def _damage_as_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except LwapError:
        raise
    except SafetensorError as error:
        raise CheckpointError(
            f"'{folder}' holds a damaged safetensors file ({error}). Copy or download it again."
        ) from error
    except Exception as error:  # what a damaged file gives is up to whoever reads it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"'{folder}' cannot be loaded: {reason}") from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Load without transformers' progress bars and load reports, which would fill a server's log.

    What a report says that matters is an error of `LayerwiseTransformer`.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    recorded = manifest["files"]
    for name, expected in recorded.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"'{folder.name}' is incomplete: '{name}' is missing.")
        found = file_sha256(file)
        if found != expected:
            raise CheckpointError(
                f"'{folder.name}': '{name}' has SHA-256 {found[:16]}…, not {expected[:16]}… as "
                "recorded. The file is damaged or was changed; restore it, or train it again."
            )
    for file in folder.rglob("*.safetensors"):
        if file.relative_to(folder).as_posix() not in recorded:
            raise CheckpointError(
                f"'{folder.name}' holds weights that lwap.json does not list: '{file.name}'."
            )
