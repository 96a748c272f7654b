"""Choosing one of several chains: by a PRM, by majority, by a majority weighted by a PRM. Ties go to the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dreamprm.prm.aggregation import aggregate as aggregate_steps

if TYPE_CHECKING:
    from dreamprm.data.record import Image
    from dreamprm.prm.model import PRM

__all__ = ["Selection", "best_of_n", "highest", "majority", "weighted_vote"]


@dataclass(frozen=True, slots=True)
class Selection:
    """index: the chosen candidate.  chain_scores: one per candidate.  step_scores: one list per candidate."""

    index: int
    chain_scores: tuple[float, ...]
    step_scores: tuple[tuple[float, ...], ...]


def best_of_n(
    prm: PRM,
    question: str,
    images: Sequence[Image],
    candidates: Sequence[str | Sequence[str]],
    aggregate: str | None = None,
    batch_size: int = 8,
) -> Selection:
    """The candidate whose steps the PRM scores highest. A candidate is its steps, or a text that is split into steps.

    aggregate: None takes the PRM's own (see `dreamprm.aggregate`).
    """
    if not candidates:
        raise ValueError("there is no candidate to choose from")
    chains = [_steps(candidate) for candidate in candidates]
    steps = prm.score_chains(question, images, chains, batch_size)
    scores = [aggregate_steps(row, aggregate or prm.aggregation) for row in steps]
    return Selection(highest(scores), tuple(scores), tuple(map(tuple, steps)))


def _steps(candidate: str | Sequence[str]) -> Sequence[str]:
    if not isinstance(candidate, str):
        return candidate
    from dreamprm.data.splitter import split_steps

    return split_steps(candidate)


def highest(scores: Sequence[float]) -> int:
    """The first of the highest scores, whatever their sign. Raises ValueError where there is none, or one is NaN."""
    if not scores:
        raise ValueError("there is no candidate to choose from")
    missing = [index for index, score in enumerate(scores) if math.isnan(score)]
    if missing:
        raise ValueError(f"candidates {missing} have no score (NaN)")
    return max(range(len(scores)), key=lambda index: scores[index])


def majority(answers: Sequence[str | None]) -> int:
    """Self-consistency: the first candidate with the most frequent answer; of answers as frequent, the earlier one."""
    return weighted_vote(answers, [1.0] * len(answers))


def weighted_vote(answers: Sequence[str | None], scores: Sequence[float]) -> int:
    """The answer with the largest sum of scores; of its candidates the one that scores highest.

    A candidate without an answer does not vote; where none has one, the highest score wins.
    Raises ValueError for numbers of answers and scores that differ, or a negative score, which would vote against.
    """
    if len(answers) != len(scores):
        raise ValueError(f"{len(answers)} answers and {len(scores)} scores; give one of each per candidate")
    best = highest(scores)
    if min(scores) < 0:
        raise ValueError("votes must not be negative; aggregate to a probability (e.g. 'mean') before voting")
    votes: dict[str, float] = {}
    for answer, score in zip(answers, scores):
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + score
    if not votes:
        return best
    # Sums of the same scores in another order may differ in the last digit; that must not decide a tie.
    most = max(votes.values())
    winner = next(answer for answer, vote in votes.items() if math.isclose(vote, most, rel_tol=1e-12))
    return max((i for i, answer in enumerate(answers) if answer == winner), key=lambda index: scores[index])
