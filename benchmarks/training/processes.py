"""One, two and four processes, replicated and split, are the same run: the largest differences after 20 updates.

    python -m benchmarks.training.processes [--only NAME …]

Batches that no number of processes shares evenly, two micro-batches an update on both levels. `resumed` stops after 14
of its 24 updates with one number of processes and goes on with another. Compared with the run in one process: every row
of the metrics, the weight and the step scores of every training chain, and every parameter of the published PRM.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from benchmarks.faults.small import Small, make_small
from benchmarks.training.together import Together
from dreamprm.commands.command import STOPPED
from dreamprm.metrics import read_metrics
from dreamprm.plan import planner  # noqa: F401 - what a run imports, imported once
from dreamprm.trainer import run as _run  # noqa: F401

WORDS = (
    *("cold.updates=4", "cold.batch_size=7", "inner.updates=20", "inner.batch_size=7", "inner.accumulate=2"),
    *("outer.batch_size=5", "outer.accumulate=2", "checkpoint.every=0"),
)
TABLE = ("weigher=instance_table", "optimizer@outer.optimizer=row_adam")
SPLIT = ("distributed.shard=true",)
SPLIT_TABLE = (*TABLE, "weigher.split_above=1")  # of 24 rows
# name -> (words, of which run in one process it is the same, number of processes, and with how many it goes on)
RUNS: dict[str, tuple[tuple[str, ...], str, int, int | None]] = {
    "net": ((), "net", 1, None),
    "net by 2": ((), "net", 2, None),
    "net by 4": ((), "net", 4, None),
    "net, PRM split over 2": (SPLIT, "net", 2, None),
    "net, PRM split over 4": (SPLIT, "net", 4, None),
    "net, PRM split over 4, resumed by 2": (SPLIT, "net", 4, 2),
    "table": (TABLE, "table", 1, None),
    "table by 2": (TABLE, "table", 2, None),
    "table by 4": (TABLE, "table", 4, None),
    "table split over 4": (SPLIT_TABLE, "table", 4, None),
    "table and PRM split over 4": ((*SPLIT_TABLE, *SPLIT), "table", 4, None),
    "both split over 4, resumed by 1": ((*SPLIT_TABLE, *SPLIT), "table", 4, 1),
    "both split over 2, resumed by 4": ((*SPLIT_TABLE, *SPLIT), "table", 2, 4),
    "by 1, resumed, both split over 2": ((*SPLIT_TABLE, *SPLIT), "table", 1, 2),
}
CLOSE = 1e-5


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(RUNS), metavar="NAME", help=", ".join(RUNS))
    chosen = parser.parse_args(argv).only
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name), make_small(Path(name) / "small")
        for run in dict.fromkeys(same for other in chosen for same in (RUNS[other][1], other)):
            began = time.monotonic()
            failed = _train(small, folder, run)
            if failed:
                print(f"{run}: {failed}")
                bad += 1
                continue
            found = _differences(_folder(folder, RUNS[run][1]), _folder(folder, run))
            bad += not max(found.values()) < CLOSE
            shown = ", ".join(f"{what} {value:.1e}" for what, value in found.items())
            print(f"{run:36} {shown}  ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"torch {torch.__version__}; largest allowed {CLOSE:g}; wrong: {bad}")
    return bad


def _train(small: Small, folder: Path, name: str) -> str:
    """Make the run; what went wrong, in one line."""
    more, _, number, then = RUNS[name]
    run = _folder(folder, name)
    parts = [(number, small.words(*WORDS, *more, f"run_dir={run}", *(["stop_at=14"] if then else [])))]
    parts += [(then, [f"resume={run}", "stop_at=null"])] if then else []
    for place, (size, words) in enumerate(parts):
        together = Together(size, words, folder)
        codes = together.wait()
        if set(codes) != {0 if place == len(parts) - 1 else STOPPED}:
            return "\n".join([str(codes), *together.said()[-20:]])
    return ""


def _folder(folder: Path, name: str) -> Path:
    return folder / name.replace(", ", "_").replace(" ", "_")


def _differences(one: Path, other: Path) -> dict[str, float]:
    """The largest absolute difference of each kind; infinite where something is missing."""
    rows, others = (read_metrics(folder / "metrics.jsonl") for folder in (one, other))
    columns = ("loss", "inner_loss", "outer_loss", "weight_mean", "lr")
    found = {"losses": 0.0 if len(rows) == len(others) == 24 else float("inf")}
    for row, there in zip(rows, others):
        each = [abs(row[column] - there[column]) for column in columns if column in row]
        found["losses"] = max(found["losses"], *each)
    tables = [pq.read_table(folder / "weights.parquet").to_pylist() for folder in (one, other)]
    found["weights"] = max(abs(row["weight"] - there["weight"]) for row, there in zip(*tables, strict=True))
    pairs = [pair for row, there in zip(*tables, strict=True) for pair in zip(row["step_scores"], there["step_scores"])]
    found["scores"] = max(abs(a - b) for a, b in pairs)
    states = [load_file(folder / "prm" / "model.safetensors") for folder in (one, other)]
    same = set(states[0]) == set(states[1])
    each = [float((states[0][k] - states[1][k]).abs().max()) for k in states[0]] if same else [float("inf")]
    found["parameters"] = max(each)
    return found


if __name__ == "__main__":
    sys.exit(main())
