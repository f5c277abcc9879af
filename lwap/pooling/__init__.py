"""Layer summaries to sentence vectors: formulas, trained poolings, strategies, whitening.

May import `encoding` and below. Saved models name trained poolings as classes of this package.
"""

from typing import Any

from lwap.registry import STRATEGIES


def __getattr__(name: str) -> Any:
    for entry in STRATEGIES.values():
        if f"{__name__}.{name}" in entry.stored_as:
            return entry.head_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
