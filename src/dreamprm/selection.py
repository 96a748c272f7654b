"""Choosing one of several chains: by a PRM, by majority, by a majority weighted by a PRM.

A choice may be a tie. `winners` and `vote_winners` name all that are tied, whatever the order of the candidates; the
functions that must return one index take the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray
from torch.nn.utils.rnn import pad_sequence

from dreamprm.choices import Judge
from dreamprm.policy.answers import equivalence_classes
from dreamprm.prm.aggregation import aggregate as aggregate_steps
from dreamprm.prm.aggregation import as_probability

if TYPE_CHECKING:
    from dreamprm.data.readers.images import Images
    from dreamprm.prm.model import PRM

__all__ = [
    "TIE",
    "Selection",
    "answer_classes",
    "as_votes",
    "best_of_n",
    "chain_scores",
    "highest",
    "majority",
    "vote_winners",
    "weighted_vote",
    "winners",
]

TIE = 1e-12
"""Scores this close (relative to 1 or the larger) are equal: sums of the same numbers in another order may differ in
the last digit, and that must not decide."""


@dataclass(frozen=True, slots=True)
class Selection:
    """index: the chosen candidate.  chain_scores: one per candidate.  step_scores: one list per candidate."""

    index: int
    chain_scores: tuple[float, ...]
    step_scores: tuple[tuple[float, ...], ...]


def best_of_n(
    prm: PRM,
    question: str,
    images: Images,
    candidates: Sequence[str | Sequence[str]],
    aggregate: str | None = None,
    batch_size: int = 8,
) -> Selection:
    """The candidate whose steps the PRM scores highest, the first of those that are tied. A candidate is its steps, or
    a text that is split into steps.

    aggregate: None takes the PRM's own (see `dreamprm.aggregate`).
    """
    if not candidates:
        raise ValueError("there is no candidate to choose from")
    chains = [_steps(candidate) for candidate in candidates]
    steps = prm.score_chains(question, images, chains, batch_size)
    scores = chain_scores(steps, aggregate or prm.aggregation).tolist()
    return Selection(highest(scores), tuple(scores), tuple(map(tuple, steps)))


def _steps(candidate: str | Sequence[str]) -> Sequence[str]:
    if not isinstance(candidate, str):
        return candidate
    from dreamprm.data.splitter import split_steps

    return split_steps(candidate)


def chain_scores(step_scores: Sequence[Sequence[float]], how: str) -> Float[ndarray, " B"]:
    """One score per chain in float64; as `dreamprm.aggregate` on each, all at once.

    Raises ValueError for a chain without steps or a step score outside [0, 1].
    """
    if not step_scores:
        return np.empty(0)
    for row, values in enumerate(step_scores):
        if not values or not all(0.0 <= value <= 1.0 for value in values):
            what = f"step scores must lie in [0, 1], are {list(values)}" if values else "has no step to score"
            raise ValueError(f"chain {row}: {what}")
    rows = [torch.tensor(list(values), dtype=torch.float64) for values in step_scores]
    lengths = torch.tensor([len(row) for row in rows])
    padded = pad_sequence(rows, batch_first=True)
    mask = torch.arange(padded.shape[1]) < rearrange(lengths, "b -> b 1")
    return aggregate_steps(padded, how, mask).numpy()


def as_votes(scores: Float[ndarray, " B"], how: str) -> Float[ndarray, " B"]:
    """Chain scores on [0, 1], so that they can be added up as votes."""
    return as_probability(torch.from_numpy(np.asarray(scores, dtype=float)), how).numpy()


def answer_classes(
    answers: Sequence[str | None], question: str = "", judge: Judge | str = Judge.math
) -> list[str | None]:
    """The answers of one question, those that the judge of `dreamprm.policy.answers` calls the same in one spelling,
    the first one's: equal texts are one answer. A candidate without an answer keeps None, and does not vote.
    """
    classes = equivalence_classes(answers, question=question, judge=judge)
    spelling: dict[int, str | None] = {}
    return [None if found is None else spelling.setdefault(found, answer) for found, answer in zip(classes, answers)]


def winners(scores: Sequence[float]) -> list[int]:
    """All candidates that score highest. Raises ValueError where there is none, or one is NaN."""
    if not len(scores):
        raise ValueError("there is no candidate to choose from")
    missing = [index for index, score in enumerate(scores) if math.isnan(score)]
    if missing:
        raise ValueError(f"candidates {missing} have no score (NaN)")
    best = max(scores)
    return [index for index, score in enumerate(scores) if _equal(score, best)]


def vote_winners(answers: Sequence[str | None], votes: Sequence[float]) -> list[list[int]]:
    """The candidates of the answer with the largest sum of votes: one list per answer that is tied for it.

    Equal texts are one answer; a candidate without an answer does not vote. Where none has one, the candidates with the
    highest vote, each by itself. Raises ValueError for numbers of answers and votes that differ, or a negative vote,
    which would count against its answer.
    """
    if len(answers) != len(votes):
        raise ValueError(f"{len(answers)} answers and {len(votes)} scores; give one of each per candidate")
    best = winners(votes)
    if min(votes) < 0:
        raise ValueError("votes must not be negative; aggregate to a probability (e.g. 'mean') before voting")
    members: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            members.setdefault(answer, []).append(index)
    if not members:
        return [[index] for index in best]
    sums = {answer: math.fsum(votes[index] for index in rows) for answer, rows in members.items()}
    most = max(sums.values())
    return [rows for answer, rows in members.items() if _equal(sums[answer], most)]


def highest(scores: Sequence[float]) -> int:
    """The first of the highest scores, whatever their sign. Raises ValueError where there is none, or one is NaN."""
    return winners(scores)[0]


def majority(answers: Sequence[str | None]) -> int:
    """Self-consistency: the first candidate with the most frequent answer; of answers as frequent, the earlier one."""
    return vote_winners(answers, [1.0] * len(answers))[0][0]


def weighted_vote(answers: Sequence[str | None], scores: Sequence[float]) -> int:
    """The candidate that scores highest of those whose answer has the largest sum of scores; see `vote_winners`."""
    rows = vote_winners(answers, scores)[0]
    return rows[highest([scores[index] for index in rows])]


def _equal(one: float, other: float) -> bool:
    return one == other or abs(one - other) <= TIE * max(1.0, abs(one), abs(other))
