"""Load, save, list and verify models. The only place that decides what may be loaded.

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
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
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
    CARD,
    FORMAT,
    MANIFEST,
    Contents,
    find_checkpoint,
    list_checkpoints,
    read_manifest,
    read_modules,
    read_object,
)
from lwap.encoding.adapters import ADAPTER, apply_adapter, save_adapter
from lwap.encoding.encoder import LayerwiseTransformer
from lwap.encoding.hardware import resolve_device
from lwap.encoding.sources import (
    BUNDLED,
    BUNDLED_ID,
    file_sha256,
    is_bundled_name,
    resolve_encoder,
    weights_sha256,
)
from lwap.errors import CheckpointError, LwapError, ModelError
from lwap.pooling.head import LayerHead
from lwap.pooling.layer_attention import LayerwiseAttentionPooling
from lwap.pooling.scalar_mix import ScalarMix

# By class name for sentence-transformers, whose import paths differ between its versions.
_ALLOWED_THEIRS = {
    "Transformer": LayerwiseTransformer,
    "Pooling": Pooling,
    "Normalize": Normalize,
    "Dense": Dense,
    "Dropout": Dropout,
    "LayerNorm": LayerNorm,
}
_ALLOWED_OURS = {
    f"{cls.__module__}.{cls.__name__}": cls
    for cls in (LayerwiseTransformer, LayerwiseAttentionPooling, ScalarMix)
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
    if not name_or_path.strip():
        raise ModelError(
            f"No model was named. Give '{BUNDLED}', a checkpoint, a folder or a hub id."
        )
    device = resolve_device(device)
    checkpoint = find_checkpoint(name_or_path)
    if checkpoint is not None:
        manifest = read_manifest(checkpoint)
        _check_files(checkpoint, manifest)
        encoder = _checkpoint_encoder(checkpoint, manifest)
        name = checkpoint.parent.name if checkpoint.name == "model" else checkpoint.name
        model = _assemble(checkpoint, encoder, device)
        if manifest["contains"] == Contents.ADAPTER:
            with _damage_as_error(checkpoint):
                apply_adapter(model[0].model, checkpoint / ADAPTER)
    else:
        encoder = resolve_encoder(name_or_path, revision)
        is_bundled = is_bundled_name(name_or_path)
        name = BUNDLED if is_bundled else name_or_path.rstrip("/\\")
        model = _assemble(encoder, encoder, device)
    model.lwap_name = name
    return model.eval()


def _checkpoint_encoder(folder: Path, manifest: dict[str, Any]) -> Path:
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
        if _allowed_class(entry["type"], encoder) is LayerwiseTransformer:
            return entry["path"]
    return ""


def _assemble(folder: Path, encoder: Path, device: str) -> SentenceTransformer:
    """Build a model from the modules in `folder`; the transformer's weights are in `encoder`."""
    with _quiet_transformers():
        if not (folder / "modules.json").is_file():
            transformer = _load_plain(folder)
            modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean")]
            return SentenceTransformer(modules=modules, device=device)
        modules = []
        for entry in read_modules(folder):
            cls = _allowed_class(entry["type"], folder)
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


def _load_module(cls: type, folder: Path, path: str) -> torch.nn.Module:
    inside = folder / path
    has_pickle = any(inside.glob("*.bin")) or any(inside.glob("*.pt"))
    # Without this very file sentence-transformers would turn to the pickle.
    if has_pickle and not (inside / "model.safetensors").is_file():
        raise CheckpointError(
            f"'{inside}' holds pickled weights (.bin), which are never read. Save the model again "
            "with safe_serialization=True."
        )
    if not inside.is_dir() and cls in (LayerwiseAttentionPooling, ScalarMix, Dense):
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


def _allowed_class(type_name: str, folder: Path) -> type:
    if type_name in _ALLOWED_OURS:
        return _ALLOWED_OURS[type_name]
    package, _, class_name = type_name.rpartition(".")
    if package.split(".")[0] == "sentence_transformers" and class_name in _ALLOWED_THEIRS:
        return _ALLOWED_THEIRS[class_name]
    allowed = sorted(
        [*_ALLOWED_OURS, *(f"sentence_transformers…{name}" for name in _ALLOWED_THEIRS)]
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
def _quiet_transformers() -> Iterator[None]:
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


# --- save ---------------------------------------------------------------------------------------


def save_checkpoint(
    model: SentenceTransformer,
    folder: str | Path,
    *,
    name: str,
    encoder_id: str = BUNDLED_ID,
    encoder_revision: str | None = None,
    encoder_sha256: str,
    training: Mapping[str, Any],
    results: Mapping[str, Any],
    card: str,
    contains: str = Contents.HEAD,
) -> Path:
    """Save a trained model with its card, settings and results.

    Args:
        model: The model; with adapters in its encoder where `contains` is "adapter".
        folder: Where to.
        name: The checkpoint's name.
        encoder_id, encoder_revision, encoder_sha256: The encoder that it was trained from.
        training, results: For the manifest.
        card: The model card.
        contains: What of the encoder is written: "head" (nothing), "adapter" (low-rank changes)
            or "encoder" (all of it). The first two name their encoder by id and hash.

    Written beside and renamed, so that a failure leaves what was there. (A process killed between
    the two renames leaves the old checkpoint in `.NAME-…/old`.)

    Raises:
        CheckpointError: If the folder exists and is no checkpoint, cannot be written, or the model
            has no head.
    """
    folder = Path(folder)
    check_target(folder)
    transformer, *others = list(model)
    contains = Contents(contains)
    has_head = any(isinstance(module, LayerHead | Dense) for module in others)
    if contains == Contents.HEAD and not has_head:
        raise CheckpointError(f"'{folder}' is not written: the model has no trained head to save.")
    entries = [{"idx": 0, "name": "0", "path": "", "type": _type_name(LayerwiseTransformer)}]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            new, old = scratch / "new", scratch / "old"
            new.mkdir()
            if contains == Contents.ENCODER:
                with _quiet_transformers():
                    transformer.save(str(new))
                encoder_sha256 = weights_sha256(new)
            elif contains == Contents.ADAPTER:
                save_adapter(transformer.model, new / ADAPTER)
            for place, module in enumerate(others, start=1):
                path = f"{place}_{type(module).__name__}"
                (new / path).mkdir()
                module.save(str(new / path))
                entries.append(
                    {
                        "idx": place,
                        "name": str(place),
                        "path": path,
                        "type": _type_name(type(module)),
                    }
                )
            _write_json(new / "modules.json", entries)
            if any(model.prompts.values()):
                _write_json(
                    new / "config_sentence_transformers.json",
                    {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name},
                )
            files = sorted(file for file in new.rglob("*") if file.is_file())
            for file in files:  # safetensors writes for its owner alone
                shutil.copymode(new / "modules.json", file)
            manifest = {
                "format": 1 if contains == Contents.HEAD else FORMAT,
                "name": name,
                **({} if contains == Contents.HEAD else {"contains": str(contains)}),
                "encoder": {
                    "id": encoder_id,
                    "revision": encoder_revision,
                    "sha256": encoder_sha256,
                    "num_states": transformer.num_states,
                    "embedding_dimension": transformer.get_embedding_dimension(),
                },
                "files": {file.relative_to(new).as_posix(): file_sha256(file) for file in files},
                "training": dict(training),
                "results": dict(results),
            }
            _write_json(new / MANIFEST, manifest)
            _write_text(new / CARD, card)
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(new, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from error
    return folder


def check_target(folder: Path) -> None:
    """Refuse a folder that a checkpoint cannot be written to; to ask before a long run.

    Raises:
        CheckpointError: If it exists and is no checkpoint, or nothing can be written there.
    """
    try:
        is_taken = folder.is_file() or (folder.exists() and any(folder.iterdir()))
        if is_taken and not (folder / MANIFEST).is_file():
            raise CheckpointError(
                f"'{folder}' exists and is no checkpoint. Choose another folder, or empty it."
            )
        above = next(parent for parent in folder.absolute().parents if parent.exists())
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise CheckpointError(
            f"'{folder}' cannot be written: nothing can be created in '{above}'. Choose another "
            "folder."
        )


def _unwritable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"'{folder}' cannot be written: {getattr(error, 'strerror', None) or error}. Free some "
        "space or choose another folder."
    )


# --- verify -------------------------------------------------------------------------------------


def verify(name_or_path: str) -> list[str]:
    """Check a checkpoint's files, classes and encoder, and load it; return what was checked.

    Raises:
        CheckpointError: At the first thing that is wrong.
        ModelError: If there is no such checkpoint, or its encoder cannot be had.
    """
    folder = find_checkpoint(name_or_path)
    if folder is None:
        raise ModelError(
            f"There is no checkpoint '{name_or_path}'. There are: "
            f"{', '.join(info.name for info in list_checkpoints()) or 'none'}."
        )
    manifest = read_manifest(folder)
    checked = [f"format {manifest['format']}"]
    _check_files(folder, manifest)
    checked += [f"{file}: SHA-256 as recorded" for file in manifest["files"]]
    _checkpoint_encoder(folder, manifest)
    checked.append(f"encoder {manifest['encoder']['id']}: SHA-256 as recorded")
    for entry in read_modules(folder):
        _allowed_class(entry["type"], folder)
    checked.append("classes are allowed, no pickled file is read")
    model = load(str(folder), device="cpu")
    vector = model.encode(["A sentence."])
    if not bool((abs(vector) < float("inf")).all()):
        raise CheckpointError(f"'{folder.name}' loads but gives numbers that are not finite.")
    checked.append(f"loads, and encodes into {vector.shape[1]} dimensions")
    return checked


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
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


def _write_json(file: Path, content: Any) -> None:
    _write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_text(file: Path, text: str) -> None:
    # An argument that was no UTF-8 comes as lone surrogates; the escape is valid in JSON too.
    file.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def _type_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"
