"""Named parts of an update: torch.profiler shows them, and whoever times a run may listen.

    with span("products"):
        …

Nobody listens: nothing is done.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

import torch

__all__ = ["Listener", "listening", "span"]


class Listener(Protocol):
    """Is told when a part begins and when the innermost one ends."""

    def begin(self, name: str) -> None:
        """A part begins, inside those that have not ended."""
        ...

    def end(self) -> None:
        """The part that began last ends."""
        ...


_listeners: list[Listener] = []


@contextmanager
def span(name: str) -> Generator[None]:
    """A part of an update; as a decorator, a function that is one."""
    if not _listeners:
        yield
        return
    told = tuple(_listeners)
    with torch.profiler.record_function(name):
        for listener in told:
            listener.begin(name)
        try:
            yield
        finally:
            for listener in told:
                listener.end()


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Tell the listener of every part until the end of the `with` block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
