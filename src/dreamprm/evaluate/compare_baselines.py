"""A PRM on held-out real chains: best-of-N, step AUC and first-error F1, whole and by collection, beside baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamprm.data.record import Record
from dreamprm.evaluate.best_of_n import Candidates, best_of_n_table
from dreamprm.evaluate.first_error import first_error_f1
from dreamprm.evaluate.steps import step_metrics

__all__ = ["Settings", "best_threshold", "compare", "first_wrong", "judge"]

Scores = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Settings:
    """aggregate: how a chain is scored.  threshold: below it a step is called wrong."""

    aggregate: str = "mean"
    num_candidates: tuple[int, ...] = (1, 2, 4, 8)
    num_resamples: int = 1000
    threshold: float = 0.5
    seed: int = 0


def first_wrong(record: Record) -> int | None:
    """The index of the first wrong step, -1 where no step is wrong; None where the labels do not tell."""
    for index, label in enumerate(record.labels):
        if label is None:
            return None
        if label < 0.5:
            return index
    return -1 if record.labels else None


def best_threshold(scores: Scores, truths: Sequence[int]) -> float:
    """The threshold with the highest first-error F1, among the quantiles of all step scores.

    ProcessBench (arXiv 2412.06559, section 4.1) tunes a scalar PRM's threshold on one of its subsets; here it is
    tuned on chains that are not the test's.
    """
    pooled = np.concatenate([np.asarray(row) for row in scores])
    candidates = np.unique(np.quantile(pooled, np.linspace(0.01, 0.99, 50)))
    values = [first_error_f1(scores, truths, float(candidate))["f1"] or 0.0 for candidate in candidates]
    return float(candidates[int(np.argmax(values))])


def judge(
    records: Sequence[Record], scores: Scores, settings: Settings, *, tuned: float | None = None
) -> dict[str, Any]:
    """{"best_of_n", "steps", "first_error"}; a figure is left out where the records do not allow it.

    best_of_n: questions with several chains of known outcome.  first_error: at `settings.threshold`, and at `tuned`.
    """
    found: dict[str, Any] = {}
    several = _several(records)
    if several:
        found["best_of_n"] = best_of_n_table(
            Candidates.of_records(
                [records[row] for row in several], [scores[row] for row in several], settings.aggregate, "cluster"
            ),
            settings.num_candidates,
            num_resamples=settings.num_resamples,
            seed=settings.seed,
        )
    truths = [[None if label is None else label > 0.5 for label in _labels(record)] for record in records]
    if any(label is not None for truth in truths for label in truth):
        found["steps"] = step_metrics(
            scores,
            truths,
            questions=[str(record.extra.get("cluster", record.group)) for record in records],
            threshold=settings.threshold,
            num_resamples=min(200, settings.num_resamples),
            seed=settings.seed,
        )
    rows, wrong = _told(records)
    if -1 in wrong and max(wrong) >= 0:  # F1 needs right and wrong chains
        chosen = [scores[row] for row in rows]
        found["first_error"] = first_error_f1(chosen, wrong, settings.threshold) | {"num_chains": len(rows)}
        if tuned is not None:
            found["first_error"]["tuned"] = first_error_f1(chosen, wrong, tuned)
    return found


def compare(
    meta: Sequence[Record],
    test: Sequence[Record],
    meta_scores: Scores,
    test_scores: Scores,
    baselines: Mapping[str, tuple[Scores, Scores]],
    settings: Settings,
) -> dict[str, Any]:
    """The PRM's figures, {"by_source": …} for every collection, and {"baselines": {name: figures}}.

    baselines: name -> (scores of the meta chains, scores of the test chains). Thresholds are tuned on the meta chains.
    """
    rows, wrong = _told(meta)

    def figures(on_meta: Scores, on_test: Scores) -> dict[str, Any]:
        tuned = best_threshold([on_meta[row] for row in rows], wrong) if rows else None
        sources = sorted({_collection(record) for record in test})
        result = judge(test, on_test, settings, tuned=tuned)
        result["by_source"] = {}
        for source in sources:
            members = [row for row, record in enumerate(test) if _collection(record) == source]
            chosen = [test[row] for row in members], [on_test[row] for row in members]
            if len({value for row in chosen[1] for value in row}) < 2:
                continue  # a baseline that has nothing to say of this collection
            result["by_source"][source] = judge(*chosen, settings, tuned=tuned)
        return result

    return figures(meta_scores, test_scores) | {
        "baselines": {name: figures(on_meta, on_test) for name, (on_meta, on_test) in baselines.items()}
    }


def _collection(record: Record) -> str:
    return str(record.extra.get("collection") or record.source)


def _labels(record: Record) -> Sequence[float | None]:
    # Labels that are the chain's outcome say nothing of its steps.
    if not record.labels or record.extra.get("outcome_labels"):
        return [None] * len(record.steps)
    return record.labels


def _told(records: Sequence[Record]) -> tuple[list[int], list[int]]:
    rows, wrong = [], []
    for row, record in enumerate(records):
        first = None if record.extra.get("outcome_labels") else first_wrong(record)
        if first is not None:
            rows.append(row)
            wrong.append(first)
    return rows, wrong


def _several(records: Sequence[Record]) -> list[int]:
    judged = [row for row, record in enumerate(records) if record.correct is not None]
    counts = Counter(records[row].group for row in judged)
    return [row for row in judged if counts[records[row].group] > 1]
