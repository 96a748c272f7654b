"""metrics.jsonl: one line of numbers per logged update; on resume it is cut back to the checkpoint's update."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Any

from dreamprm.files import write_atomically
from dreamprm.progress import say

__all__ = ["MetricsFile", "PhaseName", "read_metrics"]


class PhaseName(StrEnum):
    """The column `phase`: what kind of update a line is of."""

    COLD = "cold"
    TRUST = "trust"
    BILEVEL = "bilevel"


class MetricsFile:
    """Appends JSON lines, each flushed, so that a run can be watched and loses nothing when it dies.

    num_rows: rows in the file, those of before a resume included.
    """

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        self.path = path
        kept: list[dict[str, Any]] = []
        if resume_at is not None and path.exists():
            kept = [row for row in read_metrics(path) if row["update"] < resume_at]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self.num_rows = len(kept)
        self._stream = path.open("a", encoding="utf-8")

    def write(self, update: int, phase: str, numbers: dict[str, float]) -> None:
        """Append one line. A value that is not finite becomes null, which every JSON reader takes."""
        row: dict[str, Any] = {"update": update, "phase": phase}
        row |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()
        self.num_rows += 1

    def close(self) -> None:
        self._stream.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl. A last line that a crash cut is left out; so are lines that no run wrote, with a
    warning that counts them."""
    rows: list[dict[str, Any]] = []
    bad = 0
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            bad += number < len(lines) - 1  # only the last line has no end
            continue
        if _is_row(row):
            rows.append(row)
        else:
            bad += 1
    if bad:
        say(f"warning: {path}: {bad} lines are not what a run writes and are left out")
    return rows


def _is_row(row: Any) -> bool:
    def is_number(value: Any) -> bool:
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))

    if not isinstance(row, dict) or not isinstance(row.get("phase"), str) or not isinstance(row.get("update"), int):
        return False
    return all(is_number(value) for name, value in row.items() if name != "phase")
