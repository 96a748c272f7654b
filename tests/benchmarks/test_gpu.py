"""The script for the first GPU runs to its end on a CPU, the path with the cached tower too."""

from __future__ import annotations

import pytest
from benchmarks import gpu


def test_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--tiny", "--batches", "2", "--updates", "1", "--only", "cached"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| ghost, tower cached"))
    seconds, ratio = (float(cell) for cell in row.split("|")[3:5])  # "not measured" and "does not fit" are no numbers
    assert seconds > 0
    assert ratio > 0
