"""Ten thousand updates of one run: is its memory flat, and its speed?

    python -m benchmarks.training.endurance

One `dreamprm train` of the default experiment's parts, made small so that it ends in minutes: one chain on each level,
the shipped model's vision tower cached. Everything that a run keeps while it runs is on: metrics, history, checkpoints
every 100 updates, the sum rule, the comparison with autograd. The run is watched from outside: how many rows
metrics.jsonl has, what the process holds (VmRSS) and how much processor time it has taken.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = ("cold.updates=0", "inner.batch_size=1", "outer.batch_size=1", "model.vision=cached", "data.num_chains=500")
OTHERS = ("evaluate.num_questions=2", "evaluate.num_resamples=10", "threads=1", "device=cpu", "prefetch=true")
EVERY = 500


def watch(folder: Path, words: list[str]) -> list[tuple[int, float, float, float]]:
    """(update, MB resident, seconds by the clock, seconds of processor time) at every 500th update."""
    command = [sys.executable, "-m", "dreamprm", "train", *SMALL, *OTHERS, f"run_dir={folder / 'run'}", *words]
    began, rows = time.monotonic(), []
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        metrics, seen, read = folder / "run" / "metrics.jsonl", 0, 0
        while process.poll() is None:
            time.sleep(0.2)
            if metrics.exists():
                with metrics.open("rb") as stream:
                    stream.seek(read)
                    new = stream.read()
                read, before, seen = read + len(new), seen, seen + new.count(b"\n")
                if seen // EVERY > before // EVERY:
                    rows.append((seen, _resident(process.pid), time.monotonic() - began, _processor(process.pid)))
                    print("| {} | {:.0f} | {:.0f} | {:.0f} |".format(*rows[-1]), flush=True)
    if process.returncode:
        sys.exit((folder / "log").read_text()[-2000:])
    return rows


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("words", nargs="*", help="further settings of the run")
    given = parser.parse_args(argv)
    print("| update | MB resident | seconds | of processor time |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        rows = watch(Path(folder), [f"inner.updates={given.updates}", *given.words])
    if len(rows) < 5:
        sys.exit("too few updates to say anything: --updates 2500 at the least")
    speeds = [(b[0] - a[0]) / (b[3] - a[3]) for a, b in itertools.pairwise(rows)]
    fifth = max(1, len(speeds) // 5)
    early, late = sum(speeds[:fifth]) / fifth, sum(speeds[-fifth:]) / fifth
    grown = rows[-1][1] - rows[len(rows) // 5][1]
    print(
        f"from update {rows[len(rows) // 5][0]} to {rows[-1][0]} memory has grown by {grown:.0f} MB; "
        f"{early:.2f} updates for a second of processor time in the first fifth, {late:.2f} in the last"
    )


if __name__ == "__main__":
    main()
