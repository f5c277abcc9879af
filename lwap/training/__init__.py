"""Contrastive training of a pooling, on sentence-transformers' trainer and losses."""

from lwap.training.config import TrainConfig
from lwap.training.run import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]
