"""Threads that are held at a place the test knows, so that no test waits for a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

SECONDS = 120  # before a thread counts as hung


class Gate:
    """Holds whoever passes through until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self.opened.wait(SECONDS)


class Watched:
    """Stands for an object, and calls a function whenever one attribute of it is read."""

    def __init__(self, what: Any, attribute: str, call: Callable[[], Any]) -> None:
        self._what, self._attribute, self._call = what, attribute, call

    def __len__(self) -> int:
        return len(self._what)

    def __getattr__(self, name: str) -> Any:
        if name == self._attribute:
            self._call()
        return getattr(self._what, name)
