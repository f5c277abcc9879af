"""Contrastive training of a pooling, on sentence-transformers' trainer and losses.

Names are resolved at first use: what only asks for a run's checkpoints need not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lwap.training.config import TrainConfig
    from lwap.training.follower import RunStopped
    from lwap.training.run import TrainResult, train

_HOMES = {"TrainConfig": "config", "RunStopped": "loop", "TrainResult": "run", "train": "run"}

__all__ = ["RunStopped", "TrainConfig", "TrainResult", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lwap.training' has no attribute '{name}'")
    return getattr(import_module(f"lwap.training.{_HOMES[name]}"), name)
