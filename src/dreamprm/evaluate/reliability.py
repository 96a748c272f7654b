"""Whether chain scores are probabilities: the share of right chains among those that score alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dreamprm.evaluate.candidates import Candidates

__all__ = ["reliability"]


def reliability(questions: Sequence[Candidates], num_bins: int = 10) -> dict[str, Any]:
    """{"bins": [{"score", "right", "n"}], "ece"}: votes in equal bins of [0, 1], empty ones left out.

    ece = Σ_bins n / N · |mean vote - share right|, the expected calibration error (arXiv 1706.04599).
    """
    votes = np.asarray([vote for question in questions for vote in question.votes])
    right = np.asarray([value for question in questions for value in question.correct], dtype=float)
    place = np.minimum((votes * num_bins).astype(int), num_bins - 1)
    bins = [
        {
            "score": float(votes[place == b].mean()),
            "right": float(right[place == b].mean()),
            "n": int((place == b).sum()),
        }
        for b in np.unique(place)
    ]
    ece = sum(row["n"] * abs(row["score"] - row["right"]) for row in bins) / len(votes)
    return {"bins": bins, "ece": ece}
