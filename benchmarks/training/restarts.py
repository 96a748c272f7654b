"""torchrun, two processes, one of them killed in mid-run: started again by torchrun, or by hand with resume=.

    python -m benchmarks.training.restarts [--split]

1. An undisturbed run.
2. `--max-restarts 2`: the process that does not write is killed (-9) when the third checkpoint is there; torchrun
   starts both again, and the run has to end bit-identical to the first.
3. Without `--max-restarts`: the run has to end with another status than 0 and the line that names the way on, and that
   way has to lead to the same end. A second torchrun into its folder has to be refused.

--split: the PRM and an instance table are split over the two processes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.faults.small import make_small, same_result

WORDS = ("cold.updates=2", "inner.updates=30", "inner.batch_size=5", "checkpoint.every=2", "checkpoint.keep=3")
SPLIT = (
    *("distributed.shard=true", "weigher=instance_table", "optimizer@outer.optimizer=row_adam"),
    "weigher.split_above=1",
)
PATIENCE = 280.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", action="store_true")
    more = SPLIT if parser.parse_args(argv).split else ()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs" / "all"
        small = make_small(Path(name) / "small")
        folder.mkdir(parents=True)

        def words(run: str) -> list[str]:
            return small.words(*WORDS, *more, f"run_dir={folder / run}")

        whole = _start(words("whole"), folder / "whole.log")
        bad += _said(whole.wait(PATIENCE) == 0, "the undisturbed run ends")

        again = _start(words("again"), folder / "again.log", "--max-restarts", "2")
        bad += _said(_kill_one(again, folder / "again"), "with --max-restarts 2 a process is killed in mid-run")
        bad += _said(again.wait(PATIENCE) == 0, "torchrun starts it again and it ends")
        bad += _same(folder, "again")

        once = _start(words("once"), folder / "once.log")
        _await(once, folder / "once")
        other = _start(words("once"), folder / "other.log")
        bad += _said(_kill_one(once, folder / "once"), "without --max-restarts a process is killed in mid-run")
        bad += _said(once.wait(PATIENCE) != 0, "the run ends with another status than 0")
        bad += _said(_line(folder / "once.log", "resume="), "it says how to go on")
        bad += _said(other.wait(PATIENCE) != 0 and _line(folder / "other.log", "run_dir="), "a second run is refused")
        on = _start([f"resume={folder / 'once'}"], folder / "on.log")
        bad += _said(on.wait(PATIENCE) == 0, "it goes on with resume=")
        bad += _same(folder, "once")
        if bad:
            for log in sorted(folder.glob("*.log")):
                print(f"== {log.name}\n{log.read_text()[-3000:]}")
    print(f"torch {torch.__version__}; {'split' if more else 'replicated'}; wrong: {len(bad)}")
    return len(bad)


def _start(words: list[str], log: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    with log.open("wb") as out:
        return subprocess.Popen([*command, "-m", "dreamprm", "train", *words], stdout=out, stderr=subprocess.STDOUT)


def _await(run: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait for the checkpoint of update 6; whether it came."""
    end = time.monotonic() + PATIENCE
    while run.poll() is None and time.monotonic() < end:
        if (folder / "checkpoints" / "update-00000006").exists():
            return True
        time.sleep(0.01)
    return False


def _kill_one(run: subprocess.Popen[bytes], folder: Path) -> bool:
    """Kill the process of rank 1 in mid-run; whether there was one to kill."""
    if not _await(run, folder):
        return False
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    ranks = {_rank(child): int(child) for child in children}
    os.kill(ranks["1"], signal.SIGKILL)
    return True


def _rank(pid: str) -> str:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next((pair.removeprefix("RANK=") for pair in pairs if pair.startswith("RANK=")), "")


def _line(log: Path, word: str) -> bool:
    """Whether exactly one line of error was said, with the word."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    return len(lines) == 1 and word in lines[0]


def _same(folder: Path, run: str) -> list[str]:
    difference = same_result(folder / "whole", folder / run)
    return _said(not difference, f"its end is bit-identical to the undisturbed run's {difference}")


def _said(right: bool, what: str) -> list[str]:
    print(f"{'yes' if right else 'NO '}  {what}", flush=True)
    return [] if right else [what]


if __name__ == "__main__":
    sys.exit(main())
