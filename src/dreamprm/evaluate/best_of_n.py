"""Best-of-N: how often the chain that a method picks out of N candidates is right, for every N and over all subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dreamprm.evaluate.candidates import Candidates
from dreamprm.evaluate.expected_choice import expected_any, expected_choice
from dreamprm.evaluate.expected_vote import Ballot, expected_majority
from dreamprm.evaluate.expected_weighted_vote import MOST_WORK, expected_weighted_vote, work
from dreamprm.evaluate.intervals import mean_intervals
from dreamprm.selection import highest, majority, weighted_vote

__all__ = [
    "METHODS",
    "best_of_n_table",
    "block_accuracies",
    "difference_table",
    "question_accuracies",
    "shown_numbers",
]

METHODS = ("policy", "self_consistency", "prm", "weighted_vote", "oracle")
"""policy: one at random.  prm: the highest chain score.  oracle: right where any candidate is."""


def question_accuracies(
    questions: Sequence[Candidates], num_candidates: Sequence[int] | None = (1, 2, 4, 8)
) -> dict[str, dict[int, Float[ndarray, " Q"]]]:
    """method -> N -> per question the expected accuracy over all subsets of N of its candidates, exactly.

    Ties share (see `expected_choice`, `expected_vote`, `expected_weighted_vote`), so that the order of rows does not
    matter. The methods are METHODS and the questions' rankings. num_candidates: None takes every N; of the others those
    that exist, see `shown_numbers`. A question with fewer candidates than N is judged on all it has.
    `weighted_vote` is left out where a question has too many candidates for it (about 50).
    """
    if not questions:
        raise ValueError("best-of-N needs at least one question")
    numbers = shown_numbers(questions, num_candidates)
    curves: dict[str, list[ndarray]] = {}
    for question in questions:
        for method, curve in _curves(question).items():
            curves.setdefault(method, []).append(curve)
    return {
        method: {number: np.asarray([row[min(number, len(row)) - 1] for row in rows]) for number in numbers}
        for method, rows in curves.items()
        if len(rows) == len(questions)
    }


def best_of_n_table(
    questions: Sequence[Candidates],
    num_candidates: Sequence[int] | None = (1, 2, 4, 8),
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """method -> "N" -> {"value", "low", "high", "n"}, as in results.json; intervals over clusters of questions.

    A cell has "fewer" too where so many questions have fewer than N candidates and are judged on all they have.
    """
    accuracies = question_accuracies(questions, num_candidates)
    table = _table(accuracies, questions, num_resamples, seed)
    for row in table.values():
        for number, cell in row.items():
            fewer = sum(len(question.correct) < int(number) for question in questions)
            if fewer:
                cell["fewer"] = fewer
    return table


def difference_table(
    questions: Sequence[Candidates],
    pairs: Sequence[tuple[str, str]] = (("prm", "policy"), ("prm", "self_consistency"), ("weighted_vote", "prm")),
    num_candidates: Sequence[int] | None = (1, 2, 4, 8),
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """ "first - second" -> "N" -> {"value", "low", "high", "n"}: differences on the same questions, drawn together."""
    accuracies = question_accuracies(questions, num_candidates)
    differences = {
        f"{first} - {second}": {number: accuracies[first][number] - accuracies[second][number] for number in row}
        for first, second in pairs
        if first in accuracies and second in accuracies
        for row in (accuracies[first],)
    }
    return _table(differences, questions, num_resamples, seed, wilson_allowed=False)


def block_accuracies(questions: Sequence[Candidates], size: int = 8) -> dict[str, Float[ndarray, " Q"]]:
    """method -> per question the mean over its consecutive blocks of `size` candidates, in the order of its rows.

    The convention of published tables that cut 32 candidates into four blocks of eight and, where several are equal,
    take the first. It depends on the order of rows twice; use it to compare with such tables, else `best_of_n_table`.
    Raises ValueError where a question's candidates make no whole blocks.
    """
    found: dict[str, list[float]] = {}
    for question in questions:
        total = len(question.correct)
        if total % size:
            raise ValueError(f"question {question.question!r}: {total} candidates make no blocks of {size}")
        hits: dict[str, list[float]] = {}
        for start in range(0, total, size):
            rows = slice(start, start + size)
            right, answers = question.correct[rows], question.answers[rows]
            hits.setdefault("policy", []).append(sum(right) / size)
            hits.setdefault("self_consistency", []).append(right[majority(answers)])
            hits.setdefault("prm", []).append(right[highest(question.scores[rows])])
            hits.setdefault("oracle", []).append(max(right))
            hits.setdefault("weighted_vote", []).append(right[weighted_vote(answers, question.votes[rows])])
            for name, values in question.rankings.items():
                hits.setdefault(name, []).append(right[highest(values[rows])])
        for method, values in hits.items():
            found.setdefault(method, []).append(float(np.mean(values)))
    return {method: np.asarray(values) for method, values in found.items()}


def shown_numbers(questions: Sequence[Candidates], asked: Sequence[int] | None) -> list[int]:
    """The N of the columns: those asked for that exist, and where one does not the largest that does instead."""
    most = max(len(question.correct) for question in questions)
    if asked is None:
        return list(range(1, most + 1))
    if not asked or min(asked) < 1:
        raise ValueError(f"the numbers of candidates must be at least 1, are {list(asked)}")
    return sorted({min(number, most) for number in asked})


def _curves(question: Candidates) -> dict[str, Float[ndarray, " K"]]:
    """method -> expected accuracy for N = 1 … K."""
    right = np.asarray(question.correct, dtype=float)
    votes = np.asarray(question.votes, dtype=float)
    ballot = Ballot(question.answers, right)
    try:
        curves = {
            "policy": np.full(len(right), right.mean()),
            "self_consistency": expected_majority(ballot),
            "prm": expected_choice(np.asarray(question.scores, dtype=float), right),
            "oracle": expected_any(right),
        }
        if work(ballot) <= MOST_WORK:
            curves["weighted_vote"] = expected_weighted_vote(ballot, votes)
        for name, values in question.rankings.items():
            curves[name] = expected_choice(np.asarray(values, dtype=float), right)
    except ValueError as error:
        raise ValueError(f"question {question.question!r}: {error}") from error
    return curves


def _table(
    values: Mapping[str, Mapping[int, ndarray]],
    questions: Sequence[Candidates],
    num_resamples: int,
    seed: int,
    wilson_allowed: bool = True,
) -> dict[str, dict[str, dict[str, Any]]]:
    places = [(method, number) for method, row in values.items() for number in row]
    if not places:
        return {}
    intervals = mean_intervals(
        np.stack([values[method][number] for method, number in places], axis=1),
        [question.cluster for question in questions],
        num_resamples=num_resamples,
        seed=seed,
        wilson_allowed=wilson_allowed,
    )
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for (method, number), interval in zip(places, intervals):
        table.setdefault(method, {})[str(number)] = interval.as_dict()
    return table
