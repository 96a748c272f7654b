"""First-error F1 (ProcessBench, arXiv 2412.06559): does the PRM find the first wrong step, and pass right chains?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dreamprm.evaluate.intervals import wilson

__all__ = ["first_error", "first_error_f1"]


def first_error(scores: Sequence[float], threshold: float = 0.5) -> int:
    """The index of the first step that scores below the threshold, from 0; -1 where none does."""
    return next((step for step, score in enumerate(scores) if score < threshold), -1)


def first_error_f1(
    step_scores: Sequence[Sequence[float]], first_wrong: Sequence[int], threshold: float = 0.5
) -> dict[str, Any]:
    """F1 = 2ab / (a + b): a the share of wrong chains whose first wrong step is found exactly, b the share of right
    chains in which no step is called wrong. first_wrong: index from 0, -1 for a right chain.

    F1 is 0 where a + b is 0, and None where one of the two kinds of chain is missing.
    """
    if len(step_scores) != len(first_wrong):
        raise ValueError(f"{len(step_scores)} score lists and {len(first_wrong)} labels; give one of each per chain")
    hits: dict[str, list[bool]] = {"wrong": [], "right": []}
    for row, (scores, truth) in enumerate(zip(step_scores, first_wrong)):
        if not -1 <= truth < len(scores):
            raise ValueError(f"chain {row}: its first wrong step is {truth}, but it has {len(scores)} steps")
        hits["right" if truth == -1 else "wrong"].append(first_error(scores, threshold) == truth)
    shares = {name: wilson(sum(values), len(values)).as_dict() if values else None for name, values in hits.items()}
    f1 = None
    if hits["wrong"] and hits["right"]:
        a, b = (sum(hits[name]) / len(hits[name]) for name in ("wrong", "right"))
        f1 = 2 * a * b / (a + b) if a + b else 0.0
    return {"f1": f1, "accuracy_wrong": shares["wrong"], "accuracy_right": shares["right"], "threshold": threshold}
