"""Check a checkpoint from its files to its vectors."""

from __future__ import annotations

from lwap.checkpoints.load import allowed_class, check_files, checkpoint_encoder, load
from lwap.checkpoints.manifest import (
    find_checkpoint,
    list_checkpoints,
    read_manifest,
    read_modules,
)
from lwap.errors import CheckpointError, ModelError


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
    check_files(folder, manifest)
    checked += [f"{file}: SHA-256 as recorded" for file in manifest["files"]]
    checkpoint_encoder(folder, manifest)
    checked.append(f"encoder {manifest['encoder']['id']}: SHA-256 as recorded")
    for entry in read_modules(folder):
        allowed_class(entry["type"], folder)
    checked.append("classes are allowed, no pickled file is read")
    model = load(str(folder), device="cpu")
    vector = model.encode(["A sentence."])
    if not bool((abs(vector) < float("inf")).all()):
        raise CheckpointError(f"'{folder.name}' loads but gives numbers that are not finite.")
    checked.append(f"loads, and encodes into {vector.shape[1]} dimensions")
    return checked
