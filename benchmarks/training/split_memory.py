"""What one process holds at most where model and table are split: the peak of its resident set in three updates.

    python -m benchmarks.training.split_memory [--processes 1 2 4]

A stack of feed-forward blocks, each a shard group of its own, under AdamW and `ghost` with clipping and the check on;
an instance table under RowAdam. Activations are nothing beside the parameters. A process that held one whole v or u,
or a whole table, would be above its share by the size of the model, or of the table: what it may hold is its share of
everything, two gathered blocks (values and gradients) and what a process needs for itself.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import bilevel
from dreamprm.weigher import InstanceTable
from dreamprm.weigher.row_adam import RowAdam

WIDTH, HIDDEN, NUM_BLOCKS, BATCH = 768, 3072, 16, 8
NUM_ROWS = 40_000_000
MEGABYTE = 2**20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    numbers = parser.parse_args(argv).processes
    # Large pieces go back to the system when they are freed, so that the resident set is what is held.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    model = 2 * WIDTH * HIDDEN * NUM_BLOCKS * 4 / MEGABYTE
    print(f"parameters {model:.0f} MB, one of {NUM_BLOCKS} blocks {model / NUM_BLOCKS:.0f} MB; ", end="")
    print(f"table of {NUM_ROWS:,} rows {NUM_ROWS * 4 / MEGABYTE:.0f} MB")
    print("| processes | way | model, at rest | model, peak of updates | table with its moments |")
    print("|---|---|---|---|---|")
    for number in numbers:
        for way in ("split",) if number == 1 else ("replicated", "split"):
            found = _together(number, way)
            print(f"| {number} | {way} | {' | '.join(f'{max(column):.0f}' for column in zip(*found))} |", flush=True)
    print(f"MB above the process before it makes anything, of the process that has most; torch {torch.__version__}")
    return 0


def _together(number: int, way: str) -> list[list[float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue: Any = context.SimpleQueue()
    multiprocessing.spawn(_measure, (number, way, port, queue), nprocs=number)
    return [queue.get() for _ in range(number)]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(x)))


def _measure(rank: int, number: int, way: str, port: int, queue: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=number)
    empty = _resident()
    model = nn.Sequential(*(Block() for _ in range(NUM_BLOCKS)))
    wrapped: nn.Module = model
    if way == "split":
        mesh = init_device_mesh("cpu", (number,))
        for part in (*model, model):
            fully_shard(part, mesh=mesh)
    else:
        wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, eps=1e-2, foreach=False
    )  # with a small eps d is noise at first
    lookahead = bilevel.Lookahead(wrapped, optimizer, clip_norm=1.0)
    weights = torch.ones(BATCH, requires_grad=True)
    peaks = []
    for _ in range(3):
        optimizer.zero_grad()
        _forget_peak()
        with lookahead.inner():
            losses = wrapped(torch.randn(BATCH, WIDTH)).square().mean(1)
            lookahead.backward(losses, weights / BATCH)
        lookahead.step()
        lookahead.backward_outer(wrapped(torch.randn(BATCH, WIDTH)).square().mean())
        peaks.append(_resident(peak=True))
    rest, peak = _resident() - empty, max(peaks) - empty
    del model, wrapped, optimizer, lookahead
    queue.put([rest, peak, _table(number, way)])
    distributed.destroy_process_group()


def _table(number: int, way: str) -> float:
    """The peak of making a table, of its weights and of an update of theirs."""
    before = _resident()
    _forget_peak()
    table = InstanceTable(NUM_ROWS, split_above=1 if way == "split" and number > 1 else None)
    optimizer = RowAdam(table.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        rows = torch.randint(0, NUM_ROWS, (BATCH,))
        _rows_of(table, rows).square().sum().backward()
        if table.rows is not None:
            table.table.grad = table.rows.gradient(table.table)
        optimizer.step()
    return _resident(peak=True) - before


def _rows_of(table: InstanceTable, rows: Tensor) -> Tensor:
    return F.embedding(rows, table.table, sparse=True) if table.rows is None else table.rows.read(table.table, rows)


def _resident(*, peak: bool = False) -> float:
    """MB now, or the most since `_forget_peak`."""
    name = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


if __name__ == "__main__":
    sys.exit(main())
