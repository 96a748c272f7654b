"""profile.md of a run: where an update's time went, by part, beside the floor; the same tables for a terminal."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dreamprm.files import write_atomically
from dreamprm.metrics import PhaseName
from dreamprm.profiling.clock import REST
from dreamprm.profiling.profile_run import NOT_PASSES, Profile
from dreamprm.progress import say

__all__ = ["profile_lines", "write_profile"]

_ORDER = (
    "data", "inner forward", "inner backward", "step", "outer forward", "outer backward", "u = D v", "products",
    "sum rule", "weigher", "dense loss", "check", "logging", "checkpoint", REST,
)  # fmt: skip
_MEANING = {
    "data": "waiting for batches, and moving them to the device",
    "inner forward": "the PRM on training chains, with what the hypergradient records of it",
    "step": "clipping and the inner optimizer",
    "u = D v": "the outer gradient through the optimizer's step",
    "products": "one number per chain from u",
    "sum rule": "the check of every update",
    "check": "the comparison with autograd, at updates 1, 2, 4, 8, …",
    "logging": "numbers read from the device, metrics.jsonl, tracker, display",
}


def write_profile(folder: Path, name: str, profile: Profile) -> Path:
    """Write profile.md into a run's folder and show the tables; the file. name: of the run."""
    lines = profile_lines(profile.tallies)
    for line in lines:
        if line and not line.startswith("#"):
            say(line.replace("**", ""))
    page = [
        f"# Where an update's time goes: {name}",
        "",
        f"torch {torch.__version__} on {_name(profile.device)}, {torch.get_num_threads()} threads; at most "
        f"{_memory(profile.device)}. Seconds by the clock, of a part alone, without parts inside it; the mean over the "
        "updates.",
        *lines,
        *_operators(profile.operators),
        "",
        "## The parts",
        "",
        *(f"* {part}: {meaning}" for part, meaning in _MEANING.items()),
    ]
    path = folder / "profile.md"
    write_atomically(path, ("\n".join(page) + "\n").encode())
    return path


def profile_lines(phases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tables, one for each phase, as lines of markdown whose columns stand under each other."""
    lines: list[str] = []
    for phase in PhaseName:
        tally = phases.get(phase.value)
        if tally:
            lines += ["", f"## {phase.value}: {tally['updates']} updates", "", *_table(tally)]
            lines += ["", *_remarks(tally)]
    return lines


def _table(tally: Mapping[str, Any]) -> list[str]:
    number, parts = tally["updates"], tally["parts"]
    whole = sum(parts.values())
    names = [name for name in _ORDER if name in parts] + sorted(set(parts) - set(_ORDER))
    rows = [["part", "seconds of an update", "share"], ["---"] * 3]
    rows += [[name, f"{parts[name] / number:.4f}", f"{parts[name] / whole:.1%}"] for name in names]
    rows.append(["all", f"{whole / number:.4f}", ""])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def cell(text: str, column: int) -> str:
        if text == "---":
            return "-" * (widths[column] - (column > 0)) + (":" if column else "")
        return text.rjust(widths[column]) if column else text.ljust(widths[column])

    return ["| " + " | ".join(cell(text, column) for column, text in enumerate(row)) + " |" for row in rows]


def _remarks(tally: Mapping[str, Any]) -> list[str]:
    parts = tally["parts"]
    whole = sum(parts.values())
    remarks = [f"data is waited for {parts.get('data', 0.0) / whole:.1%} of the time"]
    if tally.get("chains"):
        remarks.append(f"{tally['chains'] / whole:.1f} chains a second, of both levels")
        remarks.append(f"{1 - tally['tokens'] / tally['places']:.0%} of the positions are padding")
    if tally.get("floor"):
        ratio = tally["beside_floor"] / tally["floor"]
        left_out = ", ".join(NOT_PASSES)
        remarks.append(
            f"**{ratio:.2f} times the floor**: the passes of both levels and the step without any hypergradient, "
            f"measured beside the same updates (without {left_out})"
        )
    return [f"* {remark}" for remark in remarks]


def _operators(phases: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    lines: list[str] = []
    for phase, operators in phases.items():
        rows = [["operator", "calls of an update", "ms of an update"], ["---"] * 3]
        rows += [[f"`{row['operator']}`", f"{row['calls']:.0f}", f"{1e3 * row['seconds']:.2f}"] for row in operators]
        lines += ["", f"## {phase}: the operators that take most, by torch.profiler", "", *_aligned(rows)]
    return lines


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB on the device"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{most / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
