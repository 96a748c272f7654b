"""What each outer loss asks for is measured on the run that `src.train` would make."""

from __future__ import annotations

import pytest
from benchmarks.evidence.outer_losses import CANDIDATES, main


def test_a_row_for_every_loss_and_aggregate(capsys: pytest.CaptureFixture[str]) -> None:
    main([
        "model.path=world", "after=1,2", "meta=8", "inner.updates=4", "inner.batch_size=8", "data.num_chains=40",
        "meta.num_chains=40", "threads=1",
    ])  # fmt: skip
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("after", "outer loss"))]
    rows = [line.split() for line in lines]
    assert [tuple(row[:2]) for row in rows] == 2 * CANDIDATES
    assert all(0 <= float(row[place]) <= 1 for row in rows for place in (2, 4))
    assert len({row[4] for row in rows}) > 2
