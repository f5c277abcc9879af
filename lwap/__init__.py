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
    "LayerwiseTransformer": "encoder",
    "LayerwiseAttentionPooling": "pooling",
    "ScalarMix": "pooling",
    "LayerBank": "bank",
    "encode_layers": "bank",
    "strategies": "strategy",
    "embed": "strategy",
    "fit_whitening": "strategy",
    "explain": "explanation",
    "layer_similarity": "explanation",
    "compare": "comparison",
    "compare_pairs": "comparison",
    "search": "searching",
    "evaluate_sts": "evaluation.benchmark",
    "standard_tasks": "evaluation.benchmark",
    "Task": "evaluation.benchmark",
    "evaluate_geometry": "evaluation.spaces",
    "evaluate_retrieval": "evaluation.spaces",
    "read_retrieval": "data",
    "WhitenOn": "evaluation.source",
    "project": "projection",
    "map_quality": "projection.quality:quality",
    "geometry": "evaluation.geometry:measure",
    "DiskCache": "diskcache",
    "load": "checkpoints",
    "list_checkpoints": "manifest",
    "verify": "checkpoints",
    "what_changed": "changes",
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
