"""One cell of the matrix: a method from a start, judged.

A file beside __main__.py, since a process that is started anew does not know what stands in that one.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.fitting import figures
from benchmarks.evidence.methods import METHODS, Method
from benchmarks.evidence.start import Start, load_start
from dreamprm.evaluate.steps import auc

__all__ = ["cell_path", "judged_cell", "run_cell", "run_start"]


def judged_cell(start: Start, method: Method) -> dict[str, Any]:
    """A method from a start: its figures on the judged questions, and its trust against the truth."""
    torch.manual_seed(start.seed)
    began = time.process_time()
    outcome = method(start)
    found: dict[str, Any] = {"seconds": time.process_time() - began} | figures(outcome.judge, start.judged)
    found["best_of_n"] = found[f"best_of_n_{outcome.how}"]
    wrong, mask = start.train.wrong, start.train.mask
    if outcome.trust is not None and bool(wrong.any()):
        trust = outcome.trust.expand_as(wrong).double()
        found["trust_step_auc"] = float(auc(~wrong[mask].numpy(), trust[mask].numpy()))
        mean = (trust * mask).sum(1) / mask.sum(1)
        found["trust_chain_auc"] = float(auc(~wrong.any(1).numpy(), mean.numpy()))
    return found


def run_cell(start: Start, method: str) -> dict[str, Any]:
    """One of the methods."""
    named = {"trouble": start.trouble, "seed": start.seed, "method": method}
    return named | judged_cell(start, METHODS[method])


def run_start(folder: Path, trouble: str, seed: int, judged: str, methods: list[str]) -> list[str]:
    """All cells of a start that are not there yet; the names of those that were made."""
    torch.set_num_threads(1)
    made: list[str] = []
    start: Start | None = None
    for method in methods:
        path = cell_path(folder, trouble, seed, judged, method)
        if path.is_file():
            continue
        start = start or load_start(folder, trouble, seed, judged)
        found = run_cell(start, method) | {"judged": judged}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(path)
        made.append(f"{trouble} {seed} {method}: best-of-8 {found['best_of_n']:.3f}, {found['seconds']:.0f} s")
        print(made[-1], flush=True)
    return made


def cell_path(folder: Path, trouble: str, seed: int, judged: str, method: str) -> Path:
    return folder / "cells" / f"{trouble}-{seed}-{judged}-{method}.json"
