"""Ctrl-C asks a run to stop after the update in hand; a second Ctrl-C stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType

__all__ = ["StopRequest"]


class StopRequest:
    """Within `with StopRequest() as stop`, SIGINT and SIGTERM set `stop.asked`; the former handlers come back after."""

    def __init__(self) -> None:
        self.asked = False
        self._former: dict[int, object] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not print: the handler may run in the middle of another one.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping after the update in hand, with a checkpoint; again stops at once\n")

    def __enter__(self) -> StopRequest:
        # Python allows handlers in the main thread only; elsewhere (a notebook's worker) the owner of it decides.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
