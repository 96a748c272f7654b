"""What learning weights costs in each host: pairs of its own run and a reweighting one, in turns, in one process.

    python -m benchmarks.training.host_overhead

The floor is 2: the meta batch is as large as the training batch, so an update has twice the passes. The processor's
time is compared, which other work on the machine changes little. Lines: how many the plug-in adds to the host's run.
DataFlex, which needs an environment of its own, has `dataflex_overhead.py`.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import statistics
import warnings
from collections.abc import Callable

import datasets
import torch

from benchmarks.training.host_pairs import PAIRS, Sizes


def added_lines(plain: Callable[..., float], weighted: Callable[..., float]) -> int:
    """How many lines the weighted run is longer, blank ones left out."""
    before, after = (sum(map(bool, map(str.strip, inspect.getsource(run).splitlines()))) for run in (plain, weighted))
    return after - before


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--updates", type=int, default=13)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    settings = parser.parse_args(argv)
    sizes = Sizes.of(settings)
    parameters = sum(p.numel() for p in sizes.model().parameters())
    print(f"{parameters:,} parameters, {sizes.rows} rows of {sizes.tokens} tokens, torch {torch.__version__}")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    found = {}
    for host in settings.hosts:
        plain, weighted = PAIRS[host]
        pairs = [(plain(sizes), weighted(sizes)) for _ in range(settings.pairs)]
        found[host] = statistics.median(ours / own for own, ours in pairs)
        own, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{host:<22} own {own * 1e3:6.0f} ms   with weights {ours * 1e3:6.0f} ms an update   "
            f"median ratio {found[host]:.2f}   {added_lines(plain, weighted)} lines more",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main()
