"""history.jsonl: of a sample of the training examples, the weight and the pull at every update that used them.

The pull of example i is d_i = <u, ∇ℓ_i>, what the update's hypergradient says of it: dF/dw_i = -d_i / B. Above zero
the example's own step lowers the outer loss, and its weight is pushed up; below zero it is pushed down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.files import write_atomically

__all__ = ["HISTORY", "Moment", "WeightHistory", "read_history"]

HISTORY = "history.jsonl"
Moment = tuple[int, float, float]
"""(update, as metrics.jsonl counts, weight, pull)."""

_EXAMPLES = 4000  # of a larger training set every k-th example is followed
_MOMENTS = 200_000  # about 6 MB; of a longer run every k-th update is kept


@dataclass(frozen=True)
class WeightHistory:
    """Appends lines; which examples and updates they are of is settled by the sizes of the run.

    writes: whether this process does; of several only the first.
    """

    path: Path
    stride: int
    every: int
    writes: bool

    @classmethod
    def of_run(cls, folder: Path, num_examples: int, per_update: int, updates: int, writes: bool) -> WeightHistory:
        stride = math.ceil(num_examples / _EXAMPLES)
        return cls(folder / HISTORY, stride, math.ceil(updates * per_update / stride / _MOMENTS), writes)

    def due(self, update: int) -> bool:
        return update % self.every == 0

    def begin(self, resume_at: int | None) -> None:
        """An empty file, or that of a run that goes on, cut back to the checkpoint's update."""
        if self.writes:
            lines = [line for line in _lines(self.path) if resume_at is not None and line["update"] < resume_at]
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, update: int, rows: Sequence[int], weights: Sequence[float], pulls: Sequence[float]) -> None:
        """rows: numbers of the examples in the training set."""
        kept = [place for place, row in enumerate(rows) if row % self.stride == 0]
        if not kept or not self.writes:
            return
        columns = {"weights": weights, "pulls": pulls}
        line = {"update": update, "rows": [rows[place] for place in kept]}
        line |= {name: [_short(values[place]) for place in kept] for name, values in columns.items()}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def read_history(folder: Path) -> dict[int, list[Moment]]:
    """Row -> its moments in order; empty where the run kept none."""
    found: dict[int, list[Moment]] = {}
    for line in _lines(folder / HISTORY):
        for row, weight, pull in zip(line["rows"], line["weights"], line["pulls"], strict=True):
            if weight is not None and pull is not None:
                found.setdefault(row, []).append((line["update"], weight, pull))
    return found


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines; one that a crash cut is left out."""
    found: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
            columns = [line[name] for name in ("rows", "weights", "pulls")]
            numbers = all(value is None or isinstance(value, (int, float)) for column in columns for value in column)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if numbers and isinstance(line["update"], int) and len({len(column) for column in columns}) == 1:
            found.append(line)
    return found
