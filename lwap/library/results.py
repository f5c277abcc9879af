"""What a checkpoint says of its scores and layer weights, checked before it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lwap.checkpoints.manifest import (
    CheckpointInfo,
)


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
    return checked_score(scores.get("trained")) or checked_score(scores.get(info.pooling))


def gain(info: CheckpointInfo) -> Score | None:
    """Return the difference to the untouched encoder's mean on the dev set, None without one."""
    return checked_score(info.results.get("dev_difference_to_mean"))


def gain_on_start(info: CheckpointInfo) -> Score | None:
    """Return the difference to the checkpoint that it started from on the dev set, or None."""
    return checked_score(info.results.get("dev_difference_to_start"))


def checked_score(found: Any) -> Score | None:
    if not isinstance(found, Mapping):
        return None
    numbers: list[Any] = [found.get(key) for key in ("value", "low", "high")]
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
