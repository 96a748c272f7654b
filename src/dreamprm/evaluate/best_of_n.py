"""Best-of-N: how often the chain that a method picks out of N candidates is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamprm.data.record import Record
from dreamprm.evaluate.intervals import mean_interval
from dreamprm.prm.aggregation import aggregate, as_probability
from dreamprm.selection import majority, weighted_vote

__all__ = ["METHODS", "Candidates", "best_of_n_table", "question_accuracies"]

METHODS = ("policy", "self_consistency", "prm", "weighted_vote", "oracle")
_MOST_SUBSETS = 256


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of one question. votes: scores on [0, 1], for the weighted vote. cluster: questions that are not
    independent of one another share it (`extra["cluster"]`); the question itself where there is none."""

    question: str
    correct: tuple[bool, ...]
    answers: tuple[str | None, ...]
    scores: tuple[float, ...]
    votes: tuple[float, ...]
    cluster: str

    @classmethod
    def of_records(
        cls, records: Sequence[Record], step_scores: Sequence[Sequence[float]], how: str = "mean"
    ) -> list[Candidates]:
        """Records grouped by question, in the order of first appearance.

        Raises ValueError for a record of which it is not known whether its answer is right.
        """
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(records):
            if record.correct is None:
                raise ValueError(f"record {record.key!r}: best-of-N needs to know whether its answer is right")
            rows.setdefault(record.group, []).append(row)
        scores = [aggregate(values, how) for values in step_scores]
        votes = [float(as_probability(torch.tensor(score, dtype=torch.float64), how)) for score in scores]
        return [
            cls(
                question=group,
                correct=tuple(bool(records[row].correct) for row in members),
                answers=tuple(records[row].answer for row in members),
                scores=tuple(scores[row] for row in members),
                votes=tuple(votes[row] for row in members),
                cluster=str(records[members[0]].extra.get("cluster", group)),
            )
            for group, members in rows.items()
        ]


def question_accuracies(
    questions: Sequence[Candidates], num_candidates: Sequence[int] = (1, 2, 4, 8), seed: int = 0
) -> dict[str, dict[int, NDArray[np.float64]]]:
    """method -> N -> per question, the expected accuracy over the subsets of N of its candidates.

    Every subset counts: all of them for `prm` and `oracle` in closed form, for the votes all of up to 256 subsets,
    beyond that 256 drawn by the seed. A question with fewer candidates than N is judged on all it has.
    """
    if not questions:
        raise ValueError("best-of-N needs at least one question")
    if min(num_candidates) < 1:
        raise ValueError(f"the numbers of candidates must be at least 1, are {list(num_candidates)}")
    table: dict[str, dict[int, NDArray[np.float64]]] = {method: {} for method in METHODS}
    for count in num_candidates:
        columns = np.array([_accuracies(question, count, seed + place) for place, question in enumerate(questions)])
        for place, method in enumerate(METHODS):
            table[method][count] = columns[:, place]
    return table


def best_of_n_table(
    questions: Sequence[Candidates],
    num_candidates: Sequence[int] = (1, 2, 4, 8),
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """method -> "N" -> {"value", "low", "high", "n"}, as in results.json; intervals over clusters of questions."""
    accuracies = question_accuracies(questions, num_candidates, seed)
    clusters = [question.cluster for question in questions]
    return {
        method: {
            str(count): mean_interval(values, clusters, num_resamples=num_resamples, seed=seed).as_dict()
            for count, values in by_count.items()
        }
        for method, by_count in accuracies.items()
    }


def _accuracies(question: Candidates, count: int, seed: int) -> tuple[float, ...]:
    total = len(question.correct)
    count = min(count, total)
    subsets = _subsets(total, count, seed)
    voted, weighted = [], []
    for rows in subsets:
        answers = [question.answers[row] for row in rows]
        votes = [question.votes[row] for row in rows]
        voted.append(question.correct[rows[majority(answers)]])
        weighted.append(question.correct[rows[weighted_vote(answers, votes)]])
    wrong = total - sum(question.correct)
    oracle = 1 - math.comb(wrong, count) / math.comb(total, count)
    policy, vote, weighted_by_prm = (float(np.mean(values)) for values in (question.correct, voted, weighted))
    return policy, vote, _picked(question, count), weighted_by_prm, oracle


def _picked(question: Candidates, count: int) -> float:
    """Sum over ranks r of P(the best of a random subset of N has rank r) = C(K - 1 - r, N - 1) / C(K, N).

    The order is stable, so among equal scores the first candidate ranks first, as in `selection.highest`.
    """
    if any(math.isnan(score) for score in question.scores):
        raise ValueError(f"question {question.question!r}: a candidate has no score (NaN)")
    total = len(question.scores)
    order = sorted(range(total), key=lambda row: -question.scores[row])
    return sum(
        math.comb(total - 1 - rank, count - 1) / math.comb(total, count)
        for rank, row in enumerate(order)
        if question.correct[row]
    )


def _subsets(total: int, count: int, seed: int) -> list[tuple[int, ...]]:
    if math.comb(total, count) <= _MOST_SUBSETS:
        return list(combinations(range(total), count))
    generator = np.random.default_rng(seed)
    return [tuple(sorted(generator.choice(total, count, replace=False).tolist())) for _ in range(_MOST_SUBSETS)]
