"""LWAP Explorer: see, test and take away what every layer of a sentence encoder knows.

    import lwap
    model = lwap.load("lwap-minilm")
    bank = lwap.encode_layers(model, ["A cat sat.", "A dog ran."])
    vectors = lwap.embed(bank, "lwap")

Names are resolved on first use: `import lwap` loads neither torch nor streamlit.
"""

from importlib import import_module

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
    "standard_tasks": "evaluation.benchmark",
    "Task": "evaluation.benchmark",
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


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'lwap' has no attribute {name!r}")
    module, _, own_name = _HOMES[name].partition(":")
    value = getattr(import_module(f"lwap.{module}"), own_name or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
