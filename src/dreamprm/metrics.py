"""metrics.jsonl: one line of numbers per logged update; on resume it is cut back to the checkpoint's update."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Any

from dreamprm.files import write_atomically

__all__ = ["MetricsFile", "PhaseName", "read_metrics"]


class PhaseName(StrEnum):
    """The column `phase`: what kind of update a line is of."""

    COLD = "cold"
    BILEVEL = "bilevel"


class MetricsFile:
    """Appends JSON lines, each flushed, so that a run can be watched and loses nothing when it dies."""

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        self.path = path
        if resume_at is not None and path.exists():
            kept = [row for row in read_metrics(path) if row["update"] < resume_at]
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        elif resume_at is None:
            path.write_text("")
        self._stream = path.open("a", encoding="utf-8")

    def write(self, update: int, phase: str, numbers: dict[str, float]) -> None:
        """Append one line. A value that is not finite becomes null, which every JSON reader takes."""
        row: dict[str, Any] = {"update": update, "phase": phase}
        row |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that was cut by a crash is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
