"""What there is to choose from: a registry a kind, an entry an idea.

Pages, commands, cards, presets and checks read the entries; an idea is added by declaring one.
The entries of this project stand in the module that a registry names, which is read on first use:
so a name, a label or a colour can be asked for without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar


class Declared(Protocol):
    """What every entry says of itself."""

    @property
    def name(self) -> str:
        """The name that settings, files and commands use."""


Entry = TypeVar("Entry", bound=Declared)


class Registry(Mapping[str, Entry], Generic[Entry]):
    """The entries of one kind by name, in the order in which they are shown.

    Args:
        kind: What an entry is, for messages.
        module: Where this project's own entries are declared, read on first use.
    """

    def __init__(self, kind: str, module: str) -> None:
        self.kind = kind
        self._module = module
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> Entry:
        """Add an entry, and return it.

        Raises:
            ValueError: If there is one of that name.
        """
        if entry.name in self._entries:
            raise ValueError(f"there is a {self.kind} '{entry.name}' already")
        self._entries[entry.name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Take an entry out again."""
        del self._entries[name]

    def __getitem__(self, name: str) -> Entry:
        self._read()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._read()
        return iter(list(self._entries))

    def __len__(self) -> int:
        self._read()
        return len(self._entries)

    def _read(self) -> None:
        import_module(self._module)  # once a process; later it is a look into sys.modules


@dataclass(frozen=True)
class Look:
    """The colours of an entry on light and dark pages, and its marker symbol."""

    light: str
    dark: str
    symbol: str


def resolve(reference: str | Callable) -> Any:
    """Return what "package.module:name" names, importing it now; anything else as it is.

    >>> resolve("math:sqrt")(9.0)
    3.0
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return attrgetter(name)(import_module(module))


STRATEGIES: Registry = Registry("pooling strategy", "lwap.pooling.declarations")
OBJECTIVES: Registry = Registry("objective", "lwap.training.declarations")
MEASURES: Registry = Registry("measure", "lwap.evaluation.declarations")
SOURCES: Registry = Registry("encoder source", "lwap.encoding.sources")
