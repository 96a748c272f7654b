"""The cells on a micro model: they run, and the exact products are exact."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.engine.__main__ import specs
from benchmarks.engine.cell import run_cell
from benchmarks.engine.cells_report import write
from benchmarks.engine.names import PRODUCTS

SMALL = {"size": "micro", "num_examples": 4, "num_tokens": 8, "weight_decay": 0.0}


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_accuracy(clip_norm: float | None) -> None:
    spec = {"kind": "accuracy", "t": 5, "names": [*PRODUCTS, "OneStep"]}
    result = run_cell({**spec, "setting": {**SMALL, "dropout": 0.1, "clip_norm": clip_norm}})
    assert clip_norm is None or result["gradient_norm"] > clip_norm
    for name in ("ghost", "jvp", "unroll", "OneStep"):
        # fp32 against float64: 1e-7 for each of a few hundred additions
        assert result["values"][name]["relative"] < 1e-4
    assert result["values"]["darts"]["cosine"] < 0.999


def test_time_memory_and_report(tmp_path: Path) -> None:
    cells = []
    for spec in specs(["ghost"], ["time", "memory", "accuracy"], ["1M"], quick=True):
        small = {**spec, "setting": {**spec["setting"], **SMALL}}
        cells.append({"spec": small, "result": run_cell(small), "seconds": 0.0})
    assert not any("error" in cell["result"] for cell in cells)
    by_kind = {cell["spec"]["kind"]: cell["result"] for cell in cells}
    assert all(seconds > 0 for pair in by_kind["time"]["pairs"] for seconds in pair)
    path = write(cells, "a command", "a commit", 1, sys.executable, tmp_path, 0.0)
    text = path.read_text()
    assert "| ghost |" in text
    assert "a commit" in text
    assert path.with_suffix(".json").exists()
