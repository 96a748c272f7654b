"""The hypergradients' signal is measured on the run that `src.train` would make."""

from __future__ import annotations

import pytest
from benchmarks.evidence.outer_signal import main


def test_signal_prints_a_row_for_the_last_update(capsys: pytest.CaptureFixture[str]) -> None:
    main([
        "+experiment=instance_net", "cold.updates=1", "cold.batch_size=2", "cold.dense_batch_size=2", "inner.updates=3",
        "inner.batch_size=8", "outer.batch_size=4", "outer.begin=1", "data.num_chains=40", "threads=1",
    ])  # fmt: skip
    head, row = capsys.readouterr().out.splitlines()[-2:]
    assert head.startswith("update  AUC of weights")
    update, *numbers = row.split()
    assert update == "3"
    assert all(0 <= float(number) <= 1 for number in numbers[:3])
    assert float(numbers[4]) > 0  # the weights have moved
