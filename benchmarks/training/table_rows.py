"""What an instance table of 10^3 to 10^8 rows costs an update: drawing, weights, hypergradient, RowAdam, bounds.

    python -m benchmarks.training.table_rows

One small model (0.3 M parameters, 64 examples, an update of milliseconds, where a PRM's takes a second: the share of
the table is larger here than in any run). Of each size there is a whole loop of its own, with the run's sampler; the
sizes take turns, and medians are compared with the smallest table's. Memory: the growth of the resident set by table,
moments and sampler when all updates are made.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

import bilevel
from dreamprm.sources.sampler import EpochSampler
from dreamprm.weigher import Features, InstanceTable
from dreamprm.weigher.row_adam import RowAdam

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8)
NUM_ROUNDS, BATCH, WIDTH = 60, 64, 384


class Loop:
    """One run's loop with a table of so many rows."""

    def __init__(self, num_rows: int) -> None:
        torch.manual_seed(0)
        before = _resident()
        self.model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2))
        self.sampler = EpochSampler(num_rows, seed=0)
        self.weigher = InstanceTable(num_rows)
        self.inner = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.outer = RowAdam(self.weigher.parameters(), lr=1e-2)
        self.lookahead = bilevel.Lookahead(self.model, self.inner, product="ghost", clip_norm=1.0)
        self.inputs = torch.randn(2, BATCH, WIDTH)
        self.labels = torch.randint(0, 2, (2, BATCH))
        self.built = _resident() - before

    def update(self) -> float:
        """CPU seconds of one update of both levels: what else the machine does is not counted."""
        began = time.process_time()
        rows = torch.tensor(self.sampler.draw(BATCH))
        self.inner.zero_grad()
        with self.lookahead.inner():
            losses = F.cross_entropy(self.model(self.inputs[0]), self.labels[0], reduction="none")
            self.lookahead.backward(losses, self.weigher(_features(rows)) / BATCH)
        self.lookahead.step()
        self.outer.zero_grad()
        self.lookahead.backward_outer(F.cross_entropy(self.model(self.inputs[1]), self.labels[1]))
        self.outer.step()
        self.weigher.project()
        return time.process_time() - began


def _features(rows: torch.Tensor) -> Features:
    """A table looks at the rows alone."""
    steps, each = torch.zeros(BATCH, 1), torch.zeros(BATCH)
    whole = torch.ones(BATCH, dtype=torch.long)
    return Features(steps, steps, steps, steps, steps > -1, each, whole, whole, rows)


def _resident() -> float:
    """MB of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> int:
    loops = {size: Loop(size) for size in SIZES}
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for number in range(NUM_ROUNDS + 5):
        for size, loop in loops.items():
            spent = loop.update()
            if number >= 5:
                seconds[size].append(spent)
    least = statistics.median(seconds[SIZES[0]])
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread; medians of {NUM_ROUNDS} updates in turn")
    print("rows           an update   to 10^3   built with")
    worst = 0.0
    for size in SIZES:
        median = statistics.median(seconds[size])
        worst = max(worst, median / least)
        print(f"{size:<13,}  {median * 1e3:6.2f} ms    {median / least:6.3f}   {loops[size].built:7.0f} MB")
    print(
        f"peak resident set {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB; bar 1.10: {worst:.3f}"
    )
    return int(worst > 1.10)


if __name__ == "__main__":
    sys.exit(main())
