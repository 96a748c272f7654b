"""Where the time of an update goes, of the default run: data, forward, backward, step, products, weigher, the rest.

    python -m benchmarks.training.where --updates 10

CPU seconds of one thread, each function's own without what it calls of the others. `first visit` is an update whose
chains are encoded for the first time, as in a run's first epoch; afterwards they come from the collator's cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.training.__main__ import default_run, phase_of
from bilevel.lookahead import Lookahead
from bilevel.lookahead.judge import Judge
from bilevel.lookahead.outer_gradient import OuterGradient
from dreamprm.trainer.state import Run

PARTS = ("data", "forward", "inner backward", "step", "outer backward", "u = D v", "products", "weigher", "the rest")


class Clock:
    """Own seconds of each part; a part that another one calls is taken out of the other."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[str] = ["the rest"]
        self._since = time.process_time()

    def _turn(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._open.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self._open.pop()

        return call

    def begin(self) -> None:
        self._turn()
        self.seconds.clear()

    def end(self) -> dict[str, float]:
        self._turn()
        return dict(self.seconds)


def watch(run: Run, clock: Clock) -> None:
    """Time the run's own functions."""
    for owner, name, part in (
        (run, "batch", "data"),
        (run.prm, "forward", "forward"),
        (run.weigher, "forward", "weigher"),
        (run.weigher, "observe", "weigher"),
        (Lookahead, "backward", "inner backward"),
        (Lookahead, "step", "step"),
        (OuterGradient, "add", "outer backward"),
        (Judge, "cotangent", "u = D v"),
        (Judge, "surrogate", "products"),
    ):
        setattr(owner, name, clock.timed(part, getattr(owner, name)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10)
    settings = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run = default_run("hypergradient.check=off")
        clock = Clock()
        watch(run, clock)
        phase = phase_of(run)

        def seconds(number: int) -> dict[str, float]:
            clock.begin()
            for _ in range(number):
                phase.update()
                run.update += 1
            return {part: value / number for part, value in clock.end().items()}

        seconds(1)
        first = seconds(settings.updates)
        for name in ("inner", "outer"):  # the same chains again
            run.samplers[name].epoch, run.samplers[name].position = 0, 0
        again = seconds(settings.updates)
    print(f"torch {torch.__version__}, one thread, batch 64 on both levels, {settings.updates} updates")
    print("| part | first visit, s | share | again, s | share |\n|---|---|---|---|---|")
    whole, total = sum(first.values()), sum(again.values())
    for part in PARTS:
        one, two = first.get(part, 0.0), again.get(part, 0.0)
        print(f"| {part} | {one:.4f} | {one / whole:.1%} | {two:.4f} | {two / total:.1%} |")
    print(f"| all | {whole:.3f} | | {total:.3f} | |")


if __name__ == "__main__":
    main()
