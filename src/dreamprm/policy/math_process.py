"""Asks the process that compares expressions (math_worker.py), from any thread, and ends it where it takes too long."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

__all__ = ["MathProcess", "same_expression"]

_LOG = logging.getLogger(__name__)
SECONDS = 10.0
"""For one comparison. The worker gives up after 2 s of each part by itself; within a huge power it cannot."""
START_SECONDS = 120.0


class MathProcess:
    """One worker, started at the first question and again after one that had to be ended. Answers are kept."""

    KEPT = 65_536

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.num_ended = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._kept: OrderedDict[tuple[str, str], bool] = OrderedDict()

    def ask(self, one: str, other: str) -> bool:
        """Whether two expressions are equal; False, with one warning, for a pair that takes longer than `seconds`."""
        pair = (one, other) if one <= other else (other, one)
        with self._lock:
            if pair not in self._kept:
                self._kept[pair] = self._ask(pair)
                if len(self._kept) > self.KEPT:
                    self._kept.popitem(last=False)
            return self._kept[pair]

    def _ask(self, pair: tuple[str, str]) -> bool:
        for text in pair:
            if not text.isprintable():
                return False
        for _ in range(2):
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(pair) + "\n")
                process.stdin.flush()
                ready, _, _ = select.select([process.stdout], [], [], self.seconds)
                if not ready:
                    break
                if line := process.stdout.readline():
                    return bool(json.loads(line))
            except (OSError, ValueError):
                pass
            self.close()  # it died, of memory say: once more, by a fresh one
        self.close()
        if not self.num_ended:
            _LOG.warning("comparing %.80r with %.80r took over %.0f s: taken as different", *pair, self.seconds)
        self.num_ended += 1
        return False

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        if self._owner == os.getpid():
            self.close()
        # -P keeps the worker's folder off its path. Its own threads would only take cores from the run.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("math_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self._owner = os.getpid()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write('["1", "1"]\n')
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        if not ready or self._process.stdout.readline().strip() != "true":
            self.close()
            raise RuntimeError("the process that compares answers does not start: is math-verify installed?")
        return self._process

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()


_SHARED = MathProcess()
atexit.register(_SHARED.close)


def same_expression(one: str, other: str) -> bool:
    """Whether two expressions in LaTeX are equal as mathematics, by math-verify; threads share one worker."""
    return _SHARED.ask(one, other)
