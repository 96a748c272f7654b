"""The dated report: all cells as JSON, and the tables as Markdown."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from .names import NAMES, PEERS

__all__ = ["machine", "ratio", "versions", "write"]

Cell = dict[str, Any]
MEGABYTE = 1e6


def write(
    cells: list[Cell], command: str, commit: str, threads: int, interpreter: str, folder: Path, seconds: float
) -> Path:
    """Write DATE-hypergradients.json and .md; a second run of the same day takes the place of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "date": date.today().isoformat(),
        "command": command,
        "commit": commit,
        "threads": threads,
        "machine": machine(),
        "versions": versions(interpreter),
        "seconds": round(seconds),
    }
    path = folder / f"{facts['date']}-hypergradients.md"
    path.with_suffix(".json").write_text(json.dumps({**facts, "cells": cells}, indent=1) + "\n")
    path.write_text(_markdown(facts, cells))
    return path


def machine() -> str:
    """Processor and cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {max(len(models), 1)} cores"


def versions(interpreter: str) -> dict[str, str]:
    """Of what the cells imported."""
    code = (
        "import importlib.metadata as m, json, platform\n"
        "found = {'python': platform.python_version()}\n"
        "for name in ('torch', 'transformers', 'betty-ml', 'torchopt', 'higher'):\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: found[name] = 'not installed'\n"
        "print(json.dumps(found))"
    )
    return json.loads(subprocess.check_output([interpreter, "-c", code], text=True))


def ratio(result: Cell, clock: int = 0) -> tuple[float, float, float]:
    """Median, least and largest of contestant / floor over the pairs; clock 0 is the wall, 1 the processor."""
    ratios = [pair[2 + clock] / pair[clock] for pair in result["pairs"]]
    return median(ratios), min(ratios), max(ratios)


def _time(result: Cell) -> str:
    middle, low, high = ratio(result, clock=1)
    return f"{middle:.2f} ({low:.2f} to {high:.2f}; {len(result['pairs'])})"


def _table(
    cells: list[Cell], kind: str, entry: Callable[[Cell], str], first: tuple[str, Callable[[str], str]] | None = None
) -> list[str]:
    chosen = [cell for cell in cells if cell["spec"]["kind"] == kind]
    columns = list(dict.fromkeys(cell["spec"]["column"] for cell in chosen))
    found = {(cell["spec"]["name"], cell["spec"]["column"]): cell["result"] for cell in chosen}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    if first is not None:
        lines.append(f"| *{first[0]}* | " + " | ".join(first[1](column) for column in columns) + " |")
    for name in [name for name in NAMES if any(key[0] == name for key in found)]:
        shown: list[str] = []
        for column in columns:
            result = found.get((name, column))
            shown.append("" if result is None else "cannot run" if "error" in result else entry(result))
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return lines


def _accuracy(cells: list[Cell]) -> list[str]:
    chosen = [cell for cell in cells if cell["spec"]["kind"] == "accuracy"]
    names = [name for name in NAMES if any(name in cell["spec"]["names"] for cell in chosen)]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for cell in chosen:
        if "error" in cell["result"]:
            lines.append(f"| {cell['spec']['row']} | {cell['result']['error']} |")
            continue
        values = [cell["result"]["values"].get(name) for name in names]
        lines.append(f"| {cell['spec']['row']} | " + " | ".join(_pair(value) for value in values) + " |")
    return lines


def _pair(value: Cell | None) -> str:
    if value is None:
        return ""
    if "error" in value:
        return "cannot run"
    cosine = value["cosine"]
    # 1 - cosine where the cosine itself would only show nines.
    shown = f"1 - {1 - cosine:.0e}" if cosine > 0.9995 else f"{cosine:.3f}"
    return f"{shown}; {value['relative']:.1e}"


def _errors(cells: list[Cell]) -> list[str]:
    lines: list[str] = []
    for cell in cells:
        spec, result = cell["spec"], cell["result"]
        if spec["kind"] == "probe":
            lines += [f"* {spec['name']}, as it is: `{error}`" for error in result.get("errors", [result.get("error")])]
        elif "error" in result:
            place = spec.get("column") or spec.get("row")
            lines.append(f"* {spec.get('name', 'all')}, {spec['kind']}, {place}: `{result['error']}`")
        elif spec["kind"] == "accuracy":
            lines += [
                f"* {name}, {spec['row']}: `{value['error']}`"
                for name, value in result["values"].items()
                if "error" in value
            ]
    return lines or ["None."]


def _markdown(facts: dict[str, Any], cells: list[Cell]) -> str:
    memory = {
        (cell["spec"]["name"], cell["spec"]["column"]): cell["result"].get("peak")
        for cell in cells
        if cell["spec"]["kind"] == "memory"
    }
    floors = {cell["spec"]["column"]: cell["result"] for cell in cells if cell["spec"]["kind"] == "time"}
    names = {(id(cell["result"])): cell["spec"]["column"] for cell in cells if cell["spec"]["kind"] == "memory"}

    def floor_time(column: str) -> str:
        seconds = [
            pair[1]
            for cell in cells
            if cell["spec"]["kind"] == "time" and cell["spec"]["column"] == column
            for pair in cell["result"].get("pairs", [])
        ]
        return f"{median(seconds):.3f} s" if seconds else ""

    def floor_memory(column: str) -> str:
        peak = memory.get(("floor", column))
        return f"{peak / MEGABYTE:.0f} MB" if peak else ""

    def of_floor(result: Cell) -> str:
        peak = memory.get(("floor", names[id(result)]))
        return f"{result['peak'] / peak:.2f}" if peak else f"{result['peak'] / MEGABYTE:.0f} MB"

    lines = [
        f"# Hypergradients, {facts['date']}",
        "",
        f"    {facts['command']}",
        "",
        f"Commit {facts['commit']}; {facts['machine']}, {facts['threads']} threads in the time cells; "
        + ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        + f"; {facts['seconds']} s in all.",
        "What the cells are and how they are measured: [benchmarks/engine/README.md](../engine/README.md).",
    ]
    if floors:
        lines += ["", "## Time of one meta-update, as a ratio to the floor", ""]
        lines += [
            "By processor time, which other work changes least; median of the pairs (least to largest; their number).",
            "",
        ]
        lines += _table(cells, "time", _time, ("floor", floor_time))
    if memory:
        lines += ["", "## Peak memory above the idle process, as a ratio to the floor", ""]
        lines += _table(cells, "memory", of_floor, ("floor", floor_memory))
    if any(cell["spec"]["kind"] == "accuracy" for cell in cells):
        lines += ["", "## Accuracy: cosine to float64 autograd; relative error", ""]
        lines += _accuracy(cells)
    lines += ["", "## What could not run", ""]
    lines += _errors(cells)
    if any(cell["spec"].get("name") in PEERS for cell in cells):
        lines += ["", "Peers run above with the workarounds that `benchmarks/engine/contestants/` describes."]
    return "\n".join(lines) + "\n"
