"""Save a trained model as a checkpoint folder: whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from lwap.checkpoints.load import quiet_transformers
from lwap.checkpoints.manifest import CARD, ENCODER_TYPES, FORMAT, MANIFEST, Contents
from lwap.encoding.adapters import ADAPTER, save_adapter
from lwap.encoding.sources import BUNDLED_ID, file_sha256, weights_sha256
from lwap.errors import CheckpointError
from lwap.pooling.head import LayerHead
from lwap.registry import STRATEGIES


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
    transformer, *others = list[Any](model)
    contains = Contents(contains)
    has_head = any(isinstance(module, LayerHead | Dense) for module in others)
    if contains == Contents.HEAD and not has_head:
        raise CheckpointError(f"'{folder}' is not written: the model has no trained head to save.")
    entries = [{"idx": 0, "name": "0", "path": "", "type": ENCODER_TYPES[0]}]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            new, old = scratch / "new", scratch / "old"
            new.mkdir()
            if contains == Contents.ENCODER:
                with quiet_transformers():
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


def _write_json(file: Path, content: Any) -> None:
    _write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_text(file: Path, text: str) -> None:
    # An argument that was no UTF-8 comes as lone surrogates; the escape is valid in JSON too.
    file.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def _type_name(cls: type) -> str:
    entry = STRATEGIES.get(getattr(cls, "strategy", ""))
    return entry.type_names[0] if entry else f"{cls.__module__}.{cls.__name__}"
