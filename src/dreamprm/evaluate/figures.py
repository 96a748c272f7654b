"""The one place of figures: what a training run, a pool and `dreamprm evaluate` say of records and their step scores.

One rule for all of them:
* a step's truth is the world's own label, else the record's label: right above one half, wrong below, untold at one
  half or without a label; labels that were made of the chain's outcome (`extra["outcome_labels"]`) judge no step;
* intervals draw clusters of questions (`extra["cluster"]`: the same premise or image) where there are clusters, else
  questions;
* a figure that the records do not allow is left out, never filled with a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamprm.choices import Judge
from dreamprm.data.record import Record
from dreamprm.evaluate.best_of_n import best_of_n_table
from dreamprm.evaluate.candidates import Candidates
from dreamprm.evaluate.first_error import first_error_f1
from dreamprm.evaluate.intervals import bootstrap
from dreamprm.evaluate.steps import auc, step_metrics
from dreamprm.policy.answers import judge_version
from dreamprm.selection import chain_scores

__all__ = [
    "FigureSettings",
    "Scores",
    "cluster_of",
    "figures",
    "first_questions",
    "first_wrong",
    "told_chains",
    "true_steps",
]

Scores = Sequence[Sequence[float]]
"""Step scores: one list per record, one number in [0, 1] per step."""

_MOST_STEP_RESAMPLES = 200  # a resample of steps costs a sort of all of them


@dataclass(frozen=True)
class FigureSettings:
    """aggregate: how a chain is scored.  threshold: below it a step is called wrong.  judge: for the votes, which
    answers are the same."""

    aggregate: str = "mean"
    num_candidates: tuple[int, ...] = (1, 2, 4, 8)
    num_resamples: int = 1000
    threshold: float = 0.5
    judge: Judge = Judge.math
    seed: int = 0


def figures(
    records: Sequence[Record], step_scores: Scores, settings: FigureSettings, *, tuned: float | None = None
) -> dict[str, Any]:
    """{"best_of_n", "judge", "outcome", "steps", "first_error"}, each only where the records allow it.

    best_of_n: questions with several chains of known outcome.  judge: which one decided what answers are the same.
    outcome: the area under the curve of chain scores against outcomes.  steps: that of the steps, and macro-F1.
    first_error: chains whose first wrong step is known, at `settings.threshold`, and at `tuned` where it is given.
    Raises ValueError where there is not one score for each step.
    """
    if len(records) != len(step_scores):
        raise ValueError(f"{len(records)} records and {len(step_scores)} lists of step scores; give one per record")
    found: dict[str, Any] = {}
    several = _several(records)
    if several:
        found["best_of_n"] = best_of_n_table(
            Candidates.of_records(
                [records[row] for row in several],
                [step_scores[row] for row in several],
                settings.aggregate,
                judge=settings.judge,
            ),
            settings.num_candidates,
            num_resamples=settings.num_resamples,
            seed=settings.seed,
        )
        found["judge"] = judge_version(settings.judge)
    outcome = _outcome(records, step_scores, settings)
    if outcome:
        found["outcome"] = outcome
    truths = [true_steps(record) for record in records]
    if any(value is not None for truth in truths for value in truth):
        found["steps"] = step_metrics(
            step_scores,
            truths,
            questions=[cluster_of(record) for record in records],
            threshold=settings.threshold,
            num_resamples=min(_MOST_STEP_RESAMPLES, settings.num_resamples),
            seed=settings.seed,
        )
    rows, wrong = told_chains(records)
    if -1 in wrong and max(wrong) >= 0:  # F1 needs right and wrong chains
        chosen = [step_scores[row] for row in rows]
        found["first_error"] = first_error_f1(chosen, wrong, settings.threshold) | {"num_chains": len(rows)}
        if tuned is not None:
            found["first_error"]["tuned"] = first_error_f1(chosen, wrong, tuned)
    return found


def first_questions(records: Sequence[Record], count: int | None) -> list[int]:
    """The rows of the first `count` questions, all rows where it is None."""
    groups = set(list(dict.fromkeys(record.group for record in records))[:count])
    return [row for row, record in enumerate(records) if record.group in groups]


def true_steps(record: Record) -> list[bool | None]:
    """Per step whether it is right, None where nothing tells. See the rule at the file's top."""
    labels: Sequence[float | None] = record.truth.get("labels") or ()
    if not labels and not record.extra.get("outcome_labels"):
        labels = record.labels
    labels = labels or [None] * len(record.steps)
    return [None if label is None or label == 0.5 else label > 0.5 for label in labels]


def first_wrong(record: Record) -> int | None:
    """The index of the first wrong step, -1 where no step is wrong; None where the labels do not tell."""
    truth = true_steps(record)
    for index, right in enumerate(truth):
        if right is None:
            return None
        if not right:
            return index
    return -1 if truth else None


def told_chains(records: Sequence[Record]) -> tuple[list[int], list[int]]:
    """(rows, first wrong steps) of the records whose labels tell the first wrong step."""
    told = [(row, first) for row, record in enumerate(records) if (first := first_wrong(record)) is not None]
    return [row for row, _ in told], [first for _, first in told]


def cluster_of(record: Record) -> str:
    """What an interval draws: the record's cluster, else its question."""
    return str(record.extra.get("cluster", record.group))


def _outcome(records: Sequence[Record], step_scores: Scores, settings: FigureSettings) -> dict[str, Any] | None:
    """{"auc", "num_chains", "share_right"}: P(a right chain scores above a wrong one); None without both kinds."""
    rows = [row for row, record in enumerate(records) if record.correct is not None]
    right = np.asarray([bool(records[row].correct) for row in rows])
    if not len(rows) or right.all() or not right.any():
        return None
    scores = chain_scores([step_scores[row] for row in rows], settings.aggregate)
    interval = bootstrap(
        lambda drawn: auc(right[drawn], scores[drawn]),
        [cluster_of(records[row]) for row in rows],
        num_resamples=min(_MOST_STEP_RESAMPLES, settings.num_resamples),
        seed=settings.seed,
    )
    return {"auc": interval.as_dict(), "num_chains": len(rows), "share_right": float(right.mean())}


def _several(records: Sequence[Record]) -> list[int]:
    """Rows of known outcome whose question has another such row."""
    judged = [row for row, record in enumerate(records) if record.correct is not None]
    counts = Counter(records[row].group for row in judged)
    return [row for row in judged if counts[records[row].group] > 1]
