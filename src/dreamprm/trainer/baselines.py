"""The evaluation of a run on a pool: its PRM on the held-out questions, beside baselines that read no text."""

from __future__ import annotations

from typing import Any

from dreamprm.evaluate import compare, position_scores, stronger_model_scores
from dreamprm.phases.state import Judged, Run
from dreamprm.trainer.judging import test_records

__all__ = ["compare_with_baselines"]


def compare_with_baselines(run: Run, after: Judged) -> dict[str, Any]:
    """Figures of the PRM, by collection too, and of `position` and `stronger_model`; see `evaluate.compare`."""
    test = test_records(run)
    baselines = {"position": (position_scores(run.train, run.meta), position_scores(run.train, test))}
    on_meta, on_test = (stronger_model_scores(run.train, records) for records in (run.meta, test))
    if on_meta is not None and on_test is not None:
        baselines["stronger_model"] = on_meta, on_test
    given = run.settings.evaluate.figures()
    return compare(run.meta, test, after.meta_steps, after.test_steps, baselines, given)
