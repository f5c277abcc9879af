"""LWAP Explorer: see, test and take away what every layer of a sentence encoder knows.

    import lwap
    model = lwap.load("lwap-minilm")
    bank = lwap.encode_layers(model, ["A cat sat.", "A dog ran."])
    vectors = lwap.embed(bank, "lwap")

Names are resolved on first use: `import lwap` loads neither torch nor streamlit.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `_HOMES` says, for type checkers and docs/generate.py
    from lwap.analysis.changes import what_changed as what_changed
    from lwap.analysis.comparison import compare as compare
    from lwap.analysis.comparison import compare_pairs as compare_pairs
    from lwap.analysis.explanation import explain as explain
    from lwap.analysis.explanation import layer_similarity as layer_similarity
    from lwap.analysis.searching import search as search
    from lwap.checkpoints.cached import WhitenOn as WhitenOn
    from lwap.checkpoints.load import load as load
    from lwap.checkpoints.manifest import list_checkpoints as list_checkpoints
    from lwap.checkpoints.verify import verify as verify
    from lwap.datasets.readers import read_retrieval as read_retrieval
    from lwap.encoding.bank import LayerBank as LayerBank
    from lwap.encoding.bank import encode_layers as encode_layers
    from lwap.encoding.diskcache import DiskCache as DiskCache
    from lwap.encoding.encoder import LayerwiseTransformer as LayerwiseTransformer
    from lwap.errors import CheckpointError as CheckpointError
    from lwap.errors import ConfigError as ConfigError
    from lwap.errors import InputError as InputError
    from lwap.errors import LwapError as LwapError
    from lwap.errors import ModelError as ModelError
    from lwap.errors import StrategyError as StrategyError
    from lwap.evaluation.benchmark import evaluate_sts as evaluate_sts
    from lwap.evaluation.geometry import measure
    from lwap.evaluation.spaces import evaluate_geometry as evaluate_geometry
    from lwap.evaluation.spaces import evaluate_retrieval as evaluate_retrieval
    from lwap.evaluation.tasks import Task as Task
    from lwap.evaluation.tasks import standard_tasks as standard_tasks
    from lwap.pooling.layer_attention import LayerwiseAttentionPooling as LayerwiseAttentionPooling
    from lwap.pooling.scalar_mix import ScalarMix as ScalarMix
    from lwap.pooling.strategies import embed as embed
    from lwap.pooling.strategies import fit_whitening as fit_whitening
    from lwap.pooling.strategies import strategies as strategies
    from lwap.projection.maps import project as project
    from lwap.projection.quality import quality
    from lwap.training.config import TrainConfig as TrainConfig
    from lwap.training.run import train as train

    geometry = measure
    map_quality = quality

__version__ = "0.1.0"

_HOMES = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "InputError": "errors",
    "LwapError": "errors",
    "ModelError": "errors",
    "StrategyError": "errors",
    "LayerwiseTransformer": "encoding.encoder",
    "LayerwiseAttentionPooling": "pooling.layer_attention",
    "ScalarMix": "pooling.scalar_mix",
    "LayerBank": "encoding.bank",
    "encode_layers": "encoding.bank",
    "strategies": "pooling.strategies",
    "embed": "pooling.strategies",
    "fit_whitening": "pooling.strategies",
    "explain": "analysis.explanation",
    "layer_similarity": "analysis.explanation",
    "compare": "analysis.comparison",
    "compare_pairs": "analysis.comparison",
    "search": "analysis.searching",
    "evaluate_sts": "evaluation.benchmark",
    "standard_tasks": "evaluation.tasks",
    "Task": "evaluation.tasks",
    "evaluate_geometry": "evaluation.spaces",
    "evaluate_retrieval": "evaluation.spaces",
    "read_retrieval": "datasets.readers",
    "WhitenOn": "checkpoints.cached",
    "project": "projection",
    "map_quality": "projection.quality:quality",
    "geometry": "evaluation.geometry:measure",
    "DiskCache": "encoding.diskcache",
    "load": "checkpoints.load",
    "list_checkpoints": "checkpoints.manifest",
    "verify": "checkpoints.verify",
    "what_changed": "analysis.changes",
    "train": "training",
    "TrainConfig": "training",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lwap' has no attribute {name!r}")
    module, _, own_name = _HOMES[name].partition(":")
    value = getattr(import_module(f"lwap.{module}"), own_name or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
