"""A PRM on held-out chains beside baselines: every figure, whole and by collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamprm.data.record import Record
from dreamprm.evaluate.figures import FigureSettings, Scores, figures, told_chains
from dreamprm.evaluate.first_error import first_error_f1

__all__ = ["best_threshold", "compare"]


def best_threshold(scores: Scores, truths: Sequence[int]) -> float:
    """The threshold with the highest first-error F1, among the quantiles of all step scores.

    ProcessBench (arXiv 2412.06559, section 4.1) tunes a scalar PRM's threshold on one of its subsets; here it is
    tuned on chains that are not the test's.
    """
    pooled = np.concatenate([np.asarray(row) for row in scores])
    candidates = np.unique(np.quantile(pooled, np.linspace(0.01, 0.99, 50)))
    values = [first_error_f1(scores, truths, float(candidate))["f1"] or 0.0 for candidate in candidates]
    return float(candidates[int(np.argmax(values))])


def compare(
    meta: Sequence[Record],
    test: Sequence[Record],
    meta_scores: Scores,
    test_scores: Scores,
    baselines: Mapping[str, tuple[Scores, Scores]],
    settings: FigureSettings,
) -> dict[str, Any]:
    """The PRM's figures, {"by_source": …} for every collection, and {"baselines": {name: figures}}.

    baselines: name -> (scores of the meta chains, scores of the test chains). Thresholds are tuned on the meta chains.
    """
    rows, wrong = told_chains(meta)

    def judge(on_meta: Scores, on_test: Scores) -> dict[str, Any]:
        tuned = best_threshold([on_meta[row] for row in rows], wrong) if rows else None
        sources = sorted({_collection(record) for record in test})
        result = figures(test, on_test, settings, tuned=tuned)
        result["by_source"] = {}
        for source in sources:
            members = [row for row, record in enumerate(test) if _collection(record) == source]
            chosen = [test[row] for row in members], [on_test[row] for row in members]
            if len({value for row in chosen[1] for value in row}) < 2:
                continue  # a baseline that has nothing to say of this collection
            result["by_source"][source] = figures(*chosen, settings, tuned=tuned)
        return result

    return judge(meta_scores, test_scores) | {
        "baselines": {name: judge(on_meta, on_test) for name, (on_meta, on_test) in baselines.items()}
    }


def _collection(record: Record) -> str:
    return str(record.extra.get("collection") or record.source)
