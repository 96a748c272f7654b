"""The evaluation of a run on a pool: its PRM on the held-out questions, beside baselines that read no text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dreamprm.data.record import Record
from dreamprm.evaluate import compare, position_scores, stronger_model_scores
from dreamprm.progress import Reporter
from dreamprm.trainer.state import Run

__all__ = ["compare_with_baselines", "score_all"]


def score_all(prm: Any, records: Sequence[Record], batch_size: int, phase: str) -> list[list[float]]:
    """The step scores of every record."""
    scores: list[list[float]] = []
    with Reporter(phase, len(records)) as report:
        for start in range(0, len(records), batch_size * 8):
            scores += prm.score_records(records[start : start + batch_size * 8], batch_size)
            report.update(len(scores), {})
    return scores


def compare_with_baselines(run: Run) -> dict[str, Any]:
    """Figures of the PRM, by collection too, and of `position` and `stronger_model`; see `evaluate.compare`."""
    given = run.settings.evaluate
    baselines = {"position": (position_scores(run.train, run.meta), position_scores(run.train, run.test))}
    on_meta, on_test = (stronger_model_scores(run.train, records) for records in (run.meta, run.test))
    if on_meta is not None and on_test is not None:
        baselines["stronger_model"] = on_meta, on_test
    meta_scores = score_all(run.prm, run.meta, given.batch_size, "evaluate meta")
    test_scores = score_all(run.prm, run.test, given.batch_size, "evaluate test")
    return compare(run.meta, run.test, meta_scores, test_scores, baselines, given.figures())
