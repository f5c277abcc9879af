"""Text to layer summaries: encoders and where they come from, one pass, the bank, the store.

May import the root's plain modules only. Saved models name the encoder as a class of this package.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "LayerwiseTransformer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lwap.encoding.encoder import LayerwiseTransformer

    return LayerwiseTransformer
