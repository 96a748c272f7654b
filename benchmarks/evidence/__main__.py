"""The matrix method x trouble x seed: `python -m benchmarks.evidence [--troubles …] [--methods …] [--seeds 5]`.

By default every method with five seeds on the headline's troubles, the main ones with three on the others, and the
published recipe with five everywhere; --troubles, --methods and --seeds ask for all combinations of what they name.
Resumable: a cell that is there is kept. Each (trouble, seed) has one cold start that all its methods share; the base
and its states of all chains are made once, before anything else. Writes the cells as one parquet file and
benchmarks/reports/DATE-evidence.md; `--judged validation --first-seed 100` chooses settings on other questions and
other seeds than those that are reported.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.evidence.cells import cell_path, run_start
from benchmarks.evidence.methods import MAIN, METHODS
from benchmarks.evidence.report import command_line, write_report
from benchmarks.evidence.start import Start, load_start, prepare
from dreamprm.world import KINDS

HEADLINE = ("crowd", "flips", "clean")
FEWER_SEEDS = 3


def self_consistency(start: Start) -> dict[str, Any]:
    """The plain vote, the policy alone and the oracle on the judged questions: the same for every start."""
    chains = start.judged
    policy, vote, oracle = [], [], []
    for question in range(int(chains.question.max()) + 1):
        rows = (chains.question == question).nonzero()[:, 0]
        answers = chains.answer[rows].tolist()
        # The first of the answers that most chains give, as in dreamprm.selection.majority.
        winner = max(range(len(rows)), key=lambda row: (answers.count(answers[row]), -row))
        policy.append(chains.correct[rows].mean().item())
        vote.append(chains.correct[rows[winner]].item())
        oracle.append(chains.correct[rows].max().item())
    count = len(policy)
    return {"policy": sum(policy) / count, "self_consistency": sum(vote) / count, "oracle": sum(oracle) / count}


def planned(options: argparse.Namespace) -> list[tuple[str, int, list[str]]]:
    """(trouble, seed, methods) of every start, headline troubles first."""
    whole = options.troubles is None and options.methods is None
    troubles = (*HEADLINE, *KINDS) if options.troubles is None else options.troubles.split(",")
    methods = list(METHODS) if options.methods is None else options.methods.split(",")
    for given, known, what in ((troubles, KINDS, "trouble"), (methods, METHODS, "method")):
        if unknown := [name for name in given if name not in known]:
            raise SystemExit(f"unknown {what} {unknown[0]}; there are {', '.join(known)}")
    found: list[tuple[str, int, list[str]]] = []
    for trouble in dict.fromkeys(troubles):
        for place in range(options.seeds):
            asked = methods
            if whole and trouble not in HEADLINE:
                asked = list(MAIN) if place < FEWER_SEEDS else ["published"]
            found.append((trouble, options.first_seed + place, asked))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--troubles", help=f"of {','.join(KINDS)}")
    parser.add_argument("--methods", help="comma-separated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--judged", choices=("test", "validation"), default="test")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--only-report", action="store_true", help="of the cells that are there, whatever is missing")
    options = parser.parse_args()
    plan = planned(options)
    prepare(options.folder)
    if not options.only_report:
        run_plan(plan, options)
    wanted = {(trouble, seed, method) for trouble, seed, methods in plan for method in methods}
    cells = [json.loads(path.read_text()) for path in sorted((options.folder / "cells").glob("*.json"))]
    cells = [c for c in cells if c["judged"] == options.judged]
    order = list(dict.fromkeys(trouble for trouble, _, _ in plan))
    cells = sorted(
        (c for c in cells if (c["trouble"], c["seed"], c["method"]) in wanted), key=lambda c: order.index(c["trouble"])
    )
    first = load_start(options.folder, *plan[0][:2], options.judged)
    command = command_line("benchmarks.evidence", sys.argv[1:])
    print(write_report(cells, self_consistency(first), command, options.folder))


def run_plan(plan: list[tuple[str, int, list[str]]], options: argparse.Namespace) -> None:
    """All cells that are not there yet, start by start, with what is left at the pace so far."""
    missing = [sum(not cell_path(options.folder, t, s, options.judged, m).is_file() for m in ms) for t, s, ms in plan]
    began, done, total = time.monotonic(), 0, sum(missing)
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        jobs = [pool.submit(run_start, options.folder, t, s, options.judged, ms) for t, s, ms in plan]
        for job in as_completed(jobs):
            if made := len(job.result()):
                done += made
                left = (time.monotonic() - began) * (total - done) / done / 60
                print(f"{done} of {total} cells, about {left:.0f} minutes left", flush=True)


if __name__ == "__main__":
    main()
