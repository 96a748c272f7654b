"""kill -9 of a run of two processes, at random moments and inside the write of a checkpoint; each time it goes on.

    python -m benchmarks.training.kills --kills 20 [--split]

Killed is process 0, which writes, or process 1, or both. A survivor has to end by itself, with one line. Every
checkpoint that a resumed run leaves is compared, byte for byte, with the one that an undisturbed run of two processes
wrote at the same update, and in the end the whole result is. The processes are forked from one that has imported
everything (`together.py`).

--split: the PRM and an instance table are split over the two processes, which write their checkpoints together.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from benchmarks.faults.small import Small, make_small, same_result
from benchmarks.training.restarts import SPLIT
from benchmarks.training.together import Together
from dreamprm.plan import planner  # noqa: F401 - what a run imports, imported once
from dreamprm.trainer import run as _run  # noqa: F401

NUM_PROCESSES = 2
WORDS = ("cold.updates=6", "inner.updates=50", "inner.batch_size=5", "checkpoint.every=1", "checkpoint.keep=1000")


def _states(run: Path) -> dict[str, bytes]:
    found = sorted((run / "checkpoints").glob("update-*"))
    return {path.name: _content(path) for path in found if path.is_dir()}


def _content(path: Path) -> bytes:
    """state.safetensors byte for byte; of parts/ every tensor's bytes, whose order in the file is not a run's own."""
    parts = [(path / "state.safetensors").read_bytes()]
    for part in sorted((path / "parts").glob("*.safetensors")):
        tensors = load_file(part)
        parts += [f"{part.name} {name}".encode() + tensors[name].numpy().tobytes() for name in sorted(tensors)]
    return b"".join(parts)


def _at(moment: str, together: Together, run: Path, draw: random.Random) -> bool:
    """Wait for the moment; whether it came before the run's end."""
    checkpoints = run / "checkpoints"
    first = len(list(checkpoints.glob("update-*"))) if checkpoints.exists() else 0
    wanted = first + draw.randint(0, 2)
    while together.running():
        if moment == "in a checkpoint":
            if len(list(checkpoints.glob("update-*"))) >= wanted and any(checkpoints.glob(".update-*.part")):
                time.sleep(draw.random() * 0.01)
                return together.running()
            time.sleep(0.0005)
        else:
            if len(list(checkpoints.glob("update-*"))) > first or draw.random() < 0.002:
                time.sleep(draw.random() * 2.0)
                return together.running()
            time.sleep(0.01)
    return False


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--split", action="store_true")
    settings = parser.parse_args(argv)
    more = (*WORDS, *SPLIT) if settings.split else WORDS
    draw = random.Random(settings.seed)
    with tempfile.TemporaryDirectory() as name:
        return _all(settings.kills, draw, Path(name), make_small(Path(name) / "small"), more)


def _all(wanted: int, draw: random.Random, folder: Path, small: Small, settings: tuple[str, ...]) -> int:
    whole = folder / "whole"
    undisturbed = Together(NUM_PROCESSES, small.words(*settings, f"run_dir={whole}"), folder)
    codes = undisturbed.wait()
    assert set(codes) == {0}, undisturbed.said()[-20:]
    expected = _states(whole)
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}; {len(expected)} checkpoints undisturbed"
    )
    bad: list[str] = []
    happened: Counter[str] = Counter()
    number = kills = 0
    while kills < wanted:
        run, number = folder / f"run{number}", number + 1
        words = small.words(*settings, f"run_dir={run}")
        while kills < wanted:
            moment = ("in a checkpoint", "anywhere")[kills % 2]
            victims = draw.choice(([0], [1], [0, 1]))
            together = Together(NUM_PROCESSES, words, folder)
            if not _at(moment, together, run, draw):
                break
            together.kill(victims)
            codes = together.wait()
            kills += 1
            who = " and ".join(map(str, victims))
            bad += _judge(codes, victims, _errors(together), f"kill {kills} of {who} {moment}")
            states = _states(run)
            different = [update for update, state in states.items() if expected.get(update) != state]
            bad += [f"kill {kills}: {update} differs" for update in different]
            happened[f"process {who}, {moment}"] += 1
            print(
                f"kill {kills}: process {who}, {moment}; {len(states)} checkpoints, {len(different)} differ", flush=True
            )
            words = [f"resume={run}"] if (run / "config.yaml").exists() else words
        if words[0].startswith("resume"):
            last = Together(NUM_PROCESSES, words, folder)
            codes = last.wait()
            if set(codes) != {0}:
                bad.append(f"the run did not end: {codes}, {_errors(last)}")
            elif difference := same_result(whole, run):
                bad.append(difference)
    for what, count in sorted(happened.items()):
        print(f"{count:3} {what}")
    print(f"{kills} kills, {number} runs brought to their end; wrong: {len(bad)}")
    for line in bad:
        print(f"  {line}")
    return 1 if bad else 0


def _errors(together: Together) -> list[str]:
    return [line for line in together.said() if line.startswith(("error", "Traceback"))]


def _judge(codes: list[int | None], victims: list[int], errors: list[str], name: str) -> list[str]:
    """What is wrong with how the survivors ended."""
    survivors = {rank: code for rank, code in enumerate(codes) if rank not in victims}
    wrong = [f"{name}: process {rank} ended with {code}" for rank, code in survivors.items() if code != 2]
    if survivors and len(errors) != 1:
        wrong.append(f"{name}: {len(errors)} lines of error: {errors}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
