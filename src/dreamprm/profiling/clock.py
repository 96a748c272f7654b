"""Own seconds of the parts of an update, by the clock or by the events of a GPU's stream."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["REST", "Clock"]

REST = "the rest"


class Clock:
    """Own seconds of each part between `start` and `stop`.

    mark: a moment; between: (moment, later moment) -> seconds, asked for at `stop` only, after `settle`.
    """

    def __init__(
        self,
        mark: Callable[[], Any] = time.perf_counter,
        between: Callable[[Any, Any], float] = lambda before, after: after - before,
        settle: Callable[[], Any] = lambda: None,
    ) -> None:
        self._mark, self._between, self._settle = mark, between, settle
        self._open: list[str] = []
        self._turns: list[tuple[str, Any]] = []  # what was open up to a moment

    @classmethod
    def of(cls, device: torch.device) -> Clock:
        """One that measures what the device does."""
        if device.type != "cuda":
            return cls()
        return cls(_event, lambda before, after: before.elapsed_time(after) / 1e3, torch.cuda.synchronize)

    def begin(self, name: str) -> None:
        self._turn()
        self._open.append(name)

    def end(self) -> None:
        self._turn()
        self._open.pop()

    def _turn(self) -> None:
        if self._turns:  # it runs
            self._turns.append((self._open[-1] if self._open else REST, self._mark()))

    def start(self) -> None:
        self._turns = [("", self._mark())]

    def stop(self) -> dict[str, float]:
        """Seconds of each part since `start`."""
        self._turn()
        self._settle()
        seconds: defaultdict[str, float] = defaultdict(float)
        for (_, before), (name, after) in zip(self._turns, self._turns[1:]):
            seconds[name] += self._between(before, after)
        self._turns = []
        return dict(seconds)


def _event() -> Any:
    event: Any = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
