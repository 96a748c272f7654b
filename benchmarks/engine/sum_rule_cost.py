"""What the sum rule costs, and `ghost` beside the floor, in one process, in turns.

    python -m benchmarks.engine.sum_rule_cost [--size 11M] [--turns 12]

Each turn runs the floor, `ghost`, and `ghost` without the sum rule, in an order that turns with it; medians of the
ratios within a turn. Beside it the share of an update's time that is spent inside the sum rule, by the clock, which
noise of other processes moves less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from bilevel.lookahead import judge
from bilevel.lookahead.sum_rule import Residual

from .cases import Case, Setting
from .contestants.by_lookahead import Lookahead
from .contestants.floor import Floor

__all__ = ["main"]


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.sum_rule_cost", description=__doc__)
    parser.add_argument("--size", default="11M")
    parser.add_argument("--turns", type=int, default=12)
    arguments = parser.parse_args()
    setting = Setting(arguments.size)
    rule, inside = judge.sum_rule, 0.0

    def timed(*args: Any) -> Residual:
        nonlocal inside
        start = time.perf_counter()
        residual = rule(*args)
        inside += time.perf_counter() - start
        return residual

    def absent(*args: Any) -> Residual:
        return Residual(0.0, ())

    cases = {name: Case(setting) for name in ("floor", "with", "without")}
    runs: dict[str, Any] = {
        name: Floor(case) if name == "floor" else Lookahead(case, "ghost") for name, case in cases.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    shares: list[float] = []
    for turn in range(arguments.turns + 2):  # two to warm up
        names = list(runs)
        for name in names[turn % 3 :] + names[: turn % 3]:
            judge.sum_rule, inside = (absent if name == "without" else timed), 0.0
            start = time.perf_counter()
            runs[name].update()
            taken = time.perf_counter() - start
            if turn > 1:
                seconds[name].append(taken)
                if name == "with":
                    shares.append(inside / taken)
    judge.sum_rule = rule
    pairs = zip(seconds["floor"], seconds["with"], seconds["without"], strict=True)
    ratios = [(b / a, b / c) for a, b, c in pairs]
    print(f"{arguments.size}: {cases['with'].num_parameters:,} parameters, {arguments.turns} turns")
    print("median seconds: " + ", ".join(f"{name} {statistics.median(s):.4f}" for name, s in seconds.items()))
    print(f"ghost / floor {statistics.median(a for a, _ in ratios):.3f}")
    print(f"with / without the sum rule {statistics.median(b for _, b in ratios):.4f}")
    print(f"share of the update inside the sum rule {100 * statistics.median(shares):.2f} %")


if __name__ == "__main__":
    main()
