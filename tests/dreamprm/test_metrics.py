"""metrics.jsonl is cut back to the checkpoint on resume, and survives a cut last line."""

from __future__ import annotations

import math

from dreamprm.metrics import MetricsFile, read_metrics


def test_resume_cuts_what_the_checkpoint_had_not_seen(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path)
    for update in range(5):
        first.write(update, "cold", {"loss": float(update)})
    first.close()
    with path.open("a") as stream:
        stream.write('{"update": 5, "pha')
    second = MetricsFile(path, resume_at=3)
    second.write(3, "bilevel", {"loss": math.nan})
    second.close()
    assert [(row["update"], row["loss"]) for row in read_metrics(path)] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, None)]
