"""Time, memory and accuracy of every hypergradient, beside the floor and the peers: `make bench`.

    python -m benchmarks.engine [NAMES …] [--tables time memory accuracy] [--columns 1M 11M 50M 135M 11M-bf16]
                             [--threads N] [--jobs N] [--quick] [--full] [--fresh] [--python PATH] [--folder DIR]

NAMES: ghost jvp fd unroll darts OneStep betty torchopt higher; all of them where none is given.
Every cell runs in a process of its own and is kept in .cache/bench, so that a run that was stopped goes on where it
was; --fresh measures again. `python -m benchmarks.engine.peers` makes the environment in which the peers run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .cells_report import write
from .names import NAMES, PEERS
from .peers import ROOT, python

__all__ = ["main", "measure", "specs"]

COLUMNS: dict[str, dict[str, Any]] = {
    "1M": {"size": "1M"},
    "11M": {"size": "11M"},
    "50M": {"size": "50M"},
    "135M": {"size": "135M", "num_examples": 4},
    "11M-bf16": {"size": "11M", "dtype": "bfloat16", "num_tokens": 16},
}
SLOW = ("ghost", "jvp", *PEERS)
SLOWEST = ("ghost", "jvp")  # all that the column 135M holds, unless names are given
EXACT = {"num_tokens": 32, "weight_decay": 0.0, "clip_norm": None}
ROWS: dict[str, dict[str, Any]] = {
    "fp32, t = 1": {"t": 1, "setting": {"size": "1M", **EXACT}},
    "fp32, t = 10": {"t": 10, "setting": {"size": "1M", **EXACT}},
    "fp32, t = 100": {"t": 100, "setting": {"size": "1M", **EXACT}},
    "fp32, dropout .1": {"t": 10, "setting": {"size": "1M", **EXACT, "dropout": 0.1}},
    "fp32, clipped": {"t": 10, "setting": {"size": "1M", **EXACT, "clip_norm": 0.1}},
    "fp32, clipped, dropout .1": {"t": 10, "setting": {"size": "1M", **EXACT, "clip_norm": 0.1, "dropout": 0.1}},
    "bf16": {"t": 10, "setting": {"size": "1M", **EXACT, "dtype": "bfloat16"}},
    "bf16, 11M": {"t": 10, "setting": {"size": "11M", **EXACT, "dtype": "bfloat16"}},
    "bf16, clipped, dropout .1": {
        "t": 10,
        "setting": {"size": "1M", **EXACT, "dtype": "bfloat16", "clip_norm": 0.1, "dropout": 0.1},
    },
}
# Freed memory stays in the heap, as with a caching allocator: fresh pages cost who keeps more between the passes.
WARM = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36)}
# Freed memory goes back to the system at once, so that what is resident is what is used.
TRUTHFUL = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}


def specs(
    names: list[str], tables: list[str], columns: list[str], quick: bool = False, full: bool = True
) -> list[dict[str, Any]]:
    """All cells to measure. full: every contestant in the slow columns too."""
    cells: list[dict[str, Any]] = []
    if "accuracy" in tables:
        cells += [
            {"kind": "accuracy", "row": row, "names": names, **ROWS[row]}
            for row in (list(ROWS)[1:2] if quick else list(ROWS))
        ]
    peers = [name for name in names if name in PEERS]
    cells += [{"kind": "probe", "name": name, "setting": {"size": "micro"}} for name in peers]
    for column in columns:
        setting = COLUMNS[column]
        few = {"1M": names, "11M": names, "135M": SLOWEST}.get(column, SLOW)
        here = [name for name in names if full or name in few]
        if "time" in tables:
            amount = {"min_pairs": 2, "max_pairs": 2, "seconds": 0} if quick else _amount(column)
            cells += [{"kind": "time", "column": column, "name": name, "setting": setting, **amount} for name in here]
        if "memory" in tables:
            cells += [
                {"kind": "memory", "column": column, "name": name, "setting": setting} for name in ("floor", *here)
            ]
    return cells


def _amount(column: str) -> dict[str, Any]:
    return {"min_pairs": 3, "max_pairs": 25, "seconds": {"1M": 3, "11M": 7}.get(column, 0)}


def measure(spec: dict[str, Any], interpreter: str, threads: int, cache: Path, fresh: bool) -> dict[str, Any]:
    """Run one cell in a fresh process, or read what an earlier run kept."""
    digest = hashlib.sha256(json.dumps([spec, threads, interpreter], sort_keys=True).encode()).hexdigest()[:16]
    kept = cache / f"{digest}.json"
    if kept.exists() and not fresh:
        return json.loads(kept.read_text())
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment |= {"memory": TRUTHFUL, "time": WARM}.get(spec["kind"], {})
    start = time.perf_counter()
    done = subprocess.run(
        [interpreter, "-m", "benchmarks.engine.cell", json.dumps({**spec, "threads": threads})],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result = json.loads(lines[-1]) if lines else {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    cell = {"spec": spec, "result": result, "seconds": round(time.perf_counter() - start, 1)}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(cell))
    return cell


def commit() -> str:
    """HEAD, and "-dirty" where the engine or the benchmarks differ from it."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "src/bilevel", "benchmarks/engine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (head or "unknown") + ("-dirty" if changed else "")


def main(arguments: list[str] | None = None) -> Path:
    """Measure, write reports/DATE-hypergradients.{json,md}, return the Markdown's path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--tables", nargs="+", choices=("time", "memory", "accuracy"))
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells of memory and accuracy at a time")
    parser.add_argument("--quick", action="store_true", help="two pairs per cell, the 1M column, one row of accuracy")
    parser.add_argument("--full", action="store_true", help="all contestants in every column")
    parser.add_argument("--fresh", action="store_true", help="measure every cell again")
    parser.add_argument("--python", default=python(), help="interpreter of the cells, one that knows the peers")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "reports")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no contestant {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    names = options.names or list(NAMES)
    columns = options.columns or (["1M"] if options.quick else list(COLUMNS))
    tables = options.tables or ["time", "memory", "accuracy"]
    version = commit()
    cache = ROOT / ".cache" / "bench" / version
    todo = specs(names, tables, columns, options.quick, options.full or bool(options.names))

    def run(spec: dict[str, Any]) -> dict[str, Any]:
        threads = options.threads if spec["kind"] == "time" else 1
        cell = measure(spec, options.python, threads, cache, options.fresh)
        label = " ".join(str(spec[k]) for k in ("kind", "column", "row", "name") if k in spec)
        sys.stderr.write(f"{label}: {cell['seconds']} s\n")
        return cell

    start = time.perf_counter()
    # Clocks want the machine for themselves; memory and accuracy do not.
    with ThreadPoolExecutor(options.jobs) as pool:
        cells = list(pool.map(run, [spec for spec in todo if spec["kind"] != "time"]))
    cells += [run(spec) for spec in todo if spec["kind"] == "time"]
    seconds = time.perf_counter() - start
    command = "python -m benchmarks.engine " + shlex.join(arguments if arguments is not None else sys.argv[1:])
    return write(cells, command.strip(), version, options.threads, options.python, options.folder, seconds)


if __name__ == "__main__":
    sys.stderr.write(f"{main()}\n")
