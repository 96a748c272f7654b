"""Best-of-N against the enumeration of every subset, ties shared."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from dreamprm.data.record import Record
from dreamprm.evaluate import METHODS, Candidates, best_of_n_table, block_accuracies, difference_table
from dreamprm.evaluate.best_of_n import question_accuracies
from dreamprm.evaluate.expected_choice import subset_shares
from dreamprm.evaluate.expected_vote import Ballot
from dreamprm.evaluate.expected_weighted_vote import _Answer, expected_weighted_vote
from dreamprm.selection import vote_winners, winners

# The counts of subsets are exact in float64 and the sums have some dozens of terms.
CLOSE = 1e-12


def _question(generator: np.random.Generator, name: str, size: int = 6) -> Candidates:
    """Answers that decide what is right, some candidates without one, and scores rounded so that there are ties."""
    correct = generator.random(size) < 0.5
    answers = ["right" if value else str(generator.integers(3)) for value in correct]
    given = tuple(None if generator.random() < 0.15 else answer for answer in answers)
    scores = tuple(np.round(generator.random(size) + 0.3 * correct, 1).tolist())
    return Candidates(name, tuple(correct.tolist()), given, scores, scores, name, {"longest": scores[::-1]})


@pytest.fixture
def questions() -> list[Candidates]:
    generator = np.random.default_rng(0)
    return [_question(generator, str(number)) for number in range(40)]


def _enumerated(question: Candidates, count: int) -> dict[str, float]:
    rows: dict[str, list[float]] = {}
    for subset in combinations(range(len(question.correct)), count):
        right = [float(question.correct[row]) for row in subset]
        answers = [question.answers[row] for row in subset]

        def share(chosen: list[int], right: list[float] = right) -> float:
            return float(np.mean([right[row] for row in chosen]))

        scores, votes = ([values[row] for row in subset] for values in (question.scores, question.votes))
        rows.setdefault("policy", []).append(float(np.mean(right)))
        rows.setdefault("prm", []).append(share(winners(scores)))
        rows.setdefault("longest", []).append(share(winners([question.rankings["longest"][row] for row in subset])))
        for name, given in (("self_consistency", [1.0] * count), ("weighted_vote", votes)):
            rows.setdefault(name, []).append(float(np.mean([share(tied) for tied in vote_winners(answers, given)])))
        rows.setdefault("oracle", []).append(max(right))
    return {name: float(np.mean(values)) for name, values in rows.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_every_subset_counts_and_ties_share(questions: list[Candidates], count: int) -> None:
    found = question_accuracies(questions, [count])
    assert set(found) == {*METHODS, "longest"}
    for place, question in enumerate(questions):
        for method, value in _enumerated(question, count).items():
            assert found[method][count][place] == pytest.approx(value, abs=CLOSE), (method, question)


def test_nine_candidates_of_many_answers() -> None:
    question = _question(np.random.default_rng(7), "q", 9)
    found = question_accuracies([question], None)
    assert list(found["prm"]) == list(range(1, 10))
    for count in range(1, 10):
        for method, value in _enumerated(question, count).items():
            assert found[method][count][0] == pytest.approx(value, abs=CLOSE)


def test_the_order_of_rows_does_not_matter(questions: list[Candidates]) -> None:
    turned = [
        replace(
            question,
            correct=question.correct[::-1],
            answers=question.answers[::-1],
            scores=question.scores[::-1],
            votes=question.votes[::-1],
            rankings={"longest": question.rankings["longest"][::-1]},
        )
        for question in questions
    ]
    one, two = question_accuracies(questions, None), question_accuracies(turned, None)
    for method, row in one.items():
        for count, values in row.items():
            assert values == pytest.approx(two[method][count], abs=CLOSE)


def test_two_candidates_that_disagree_are_half_right() -> None:
    question = Candidates("q", (True, False), ("7", "8"), (0.9, 0.1), (0.5, 0.5), "q")
    found = question_accuracies([question], [2])
    assert found["self_consistency"][2] == found["weighted_vote"][2] == [0.5]


def test_a_constant_score_is_random_exactly() -> None:
    generator = np.random.default_rng(1)
    made = []
    for number in range(20):
        correct = tuple((generator.random(32) < 0.4).tolist())
        answers = tuple("r" if value else str(generator.integers(9)) for value in correct)
        # A mean over steps of .1 is not always .1 to the last digit.
        scores = tuple(sum([0.1] * steps) / steps for steps in generator.integers(1, 9, size=32).tolist())
        made.append(Candidates(str(number), correct, answers, scores, scores, str(number)))
    found = question_accuracies(made, None)
    for count in found["prm"]:
        assert (found["prm"][count] == found["policy"][count]).all()
        assert found["weighted_vote"][count] == pytest.approx(found["self_consistency"][count], abs=CLOSE)


def _drawn(question: Candidates, count: int, draws: int) -> float:
    generator = np.random.default_rng(5)
    hits = []
    for _ in range(draws):
        rows = generator.choice(len(question.correct), count, replace=False)
        tied = vote_winners([question.answers[row] for row in rows], [question.votes[row] for row in rows])
        hits.append(np.mean([np.mean([question.correct[rows[row]] for row in group]) for group in tied]))
    return float(np.mean(hits))


@pytest.mark.parametrize("large", [11, 21, 24])
def test_thirty_two_candidates_are_exact_too(large: int) -> None:
    generator = np.random.default_rng(large)
    answers = ("r",) * large + tuple(str(number % 3) for number in range(32 - large))
    correct = tuple(answer == "r" for answer in answers)
    votes = tuple((generator.random(32) * np.where(correct, 0.5 if large < 20 else 0.25, 1.0)).tolist())
    question = Candidates("q", correct, answers, votes, votes, "q")
    found = question_accuracies([question], [16, 29])["weighted_vote"]
    assert 0.02 < found[16][0] < 0.98, "a case that is not decided from the start"
    # Four standard errors of 4,000 draws.
    assert found[16][0] == pytest.approx(_drawn(question, 16, 4000), abs=4 * 0.5 / 4000**0.5)
    # Subsets of 29 leave out three: 4,960, all of them.
    assert found[29][0] == pytest.approx(_enumerated_votes(question, 29), abs=1e-9)


def _enumerated_votes(question: Candidates, count: int) -> float:
    hits = []
    for subset in combinations(range(len(question.correct)), count):
        tied = vote_winners([question.answers[row] for row in subset], [question.votes[row] for row in subset])
        hits.append(np.mean([np.mean([question.correct[subset[row]] for row in group]) for group in tied]))
    return float(np.mean(hits))


def test_subsets_met_in_the_middle_are_the_same_subsets() -> None:
    votes = np.random.default_rng(0).random(17)
    bounds = np.linspace(-0.5, 12.0, 40)
    met, enumerated = _Answer(votes), _Answer(votes)
    many = np.concatenate([bounds, np.repeat(20.0, 4000)])  # so many thresholds pay for all 2^17 sums
    assert np.array_equal(met.below(bounds), enumerated.below(many)[:40])
    assert "whole" in vars(enumerated)
    assert "whole" not in vars(met)
    assert met.below(np.asarray([20.0])).sum() == 2**17


def test_votes_that_cannot_be_counted_are_left_out_or_refused() -> None:
    answers = ("a",) * 30 + ("b",) * 30
    scores = tuple(np.random.default_rng(0).random(60).tolist())
    question = Candidates("q", tuple(answer == "a" for answer in answers), answers, scores, scores, "q")
    assert "weighted_vote" not in question_accuracies([question], [8])
    with pytest.raises(ValueError, match="60 candidates are too many for an exact weighted vote"):
        expected_weighted_vote(Ballot(answers, np.ones(60)), np.asarray(scores))


def test_five_hundred_questions_of_thirty_two_take_seconds() -> None:
    generator = np.random.default_rng(3)
    made = []
    for number in range(60):
        correct = tuple((generator.random(32) < generator.random()).tolist())
        answers = tuple("r" if value else str(generator.integers(12)) for value in correct)
        scores = tuple(generator.random(32).tolist())
        made.append(Candidates(str(number), correct, answers, scores, scores, str(number)))
    start = time.perf_counter()
    table = best_of_n_table(made, None)
    assert list(table["prm"]) == [str(count) for count in range(1, 33)]
    # 500 of them in a minute would be 7 s for 60.
    assert time.perf_counter() - start < 7.0


def test_the_table(questions: list[Candidates]) -> None:
    table = best_of_n_table(questions, [1, 4], num_resamples=200)
    assert set(table) == {*METHODS, "longest"}
    json.dumps(table)
    for row in table.values():
        for cell in row.values():
            assert set(cell) == {"value", "low", "high", "n"}
            assert cell["low"] <= cell["value"] <= cell["high"]
            assert cell["n"] == 40
    # With one candidate there is nothing to choose.
    assert len({round(row["1"]["value"], 12) for row in table.values()}) == 1
    assert table["oracle"]["4"]["value"] >= table["prm"]["4"]["value"]


def test_only_numbers_that_exist_have_a_column(questions: list[Candidates]) -> None:
    table = best_of_n_table(questions, [1, 2, 4, 8, 16], num_resamples=10)
    assert list(table["prm"]) == ["1", "2", "4", "6"], "no question has more than six candidates"
    pair = Candidates("p", (True, False), ("7", "8"), (0.9, 0.1), (0.9, 0.1), "p")
    mixed = best_of_n_table([*questions, pair], [2, 4], num_resamples=10)
    assert "fewer" not in mixed["prm"]["2"]
    assert mixed["prm"]["4"]["fewer"] == 1


def test_differences_are_paired(questions: list[Candidates]) -> None:
    table = best_of_n_table(questions, [4], num_resamples=300)
    found = difference_table(questions, [("prm", "policy")], [4], num_resamples=300)["prm - policy"]["4"]
    assert found["value"] == pytest.approx(table["prm"]["4"]["value"] - table["policy"]["4"]["value"])
    same = difference_table(questions, [("prm", "prm")], [4])["prm - prm"]["4"]
    assert (same["value"], same["low"], same["high"]) == (0.0, 0.0, 0.0)


def test_blocks_take_the_first_of_equals() -> None:
    right = (True, False, False, True)
    question = Candidates("q", right, ("7", "8", "9", "9"), (0.5, 0.5, 0.2, 0.9), (0.5, 0.5, 0.2, 0.9), "q")
    found = block_accuracies([question], 2)
    assert {name: values.tolist() for name, values in found.items()} == {
        "policy": [0.5],
        "self_consistency": [0.5],
        "prm": [1.0],
        "weighted_vote": [1.0],
        "oracle": [1.0],
    }
    with pytest.raises(ValueError, match="question 'q': 4 candidates make no blocks of 3"):
        block_accuracies([question], 3)


def test_records_are_grouped(make_record: Callable[..., Record]) -> None:
    records = [
        make_record("a", group="q1", correct=True, answer="7", extra={"cluster": "p"}),
        make_record("b", group="q2", correct=False, answer="8", extra={"cluster": "p"}),
        make_record("c", group="q1", correct=False, answer=None),
    ]
    first, second = Candidates.of_records(records, [[0.9, 0.9], [0.5, 0.5], [0.2, 0.2]], "log_odds_mean")
    assert (first.question, first.correct, first.answers) == ("q1", (True, False), ("7", None))
    assert first.votes == pytest.approx((0.9, 0.2))
    assert first.scores[0] > 2
    assert first.cluster == second.cluster == "p"
    with pytest.raises(ValueError, match="record 'x': best-of-N needs to know"):
        Candidates.of_records([make_record("x")], [[0.5, 0.5]])


def test_baselines_that_read_no_score(make_record: Callable[..., Record]) -> None:
    def record(question: int, policy: str, correct: bool, steps: tuple[str, ...]) -> Any:
        key = f"{question}{policy}"
        return make_record(key, steps, group=str(question), correct=correct, extra={"policy": policy})

    records = [
        record(0, "strong", True, ("aa", "b")),
        record(0, "weak", False, ("c",)),
        record(1, "strong", True, ("d",)),
        record(1, "weak", False, ("ee", "ff")),
        record(2, "strong", False, ("g",)),
        record(2, "weak", True, ("h",)),
    ]
    made = Candidates.of_records(records, [[0.1, 0.4], [0.3], [0.2], [0.9, 0.1], [0.5], [0.6]], "mean", ["max"], True)
    assert made[0].rankings["longest"] == (3.0, 1.0)
    assert made[0].rankings["shortest"] == (-3.0, -1.0)
    assert made[0].rankings["outcome"] == (0.4, 0.3)
    assert made[0].rankings["prm_max"] == (0.4, 0.3)
    # On the other two questions strong is right once of two, weak once of two; on question 2's others 2 and 0.
    assert made[0].rankings["stronger_model"] == (0.5, 0.5)
    assert made[2].rankings["stronger_model"] == (1.0, 0.0)


def test_clear_errors(questions: list[Candidates]) -> None:
    with pytest.raises(ValueError, match="at least one question"):
        question_accuracies([])
    with pytest.raises(ValueError, match="at least 1, are"):
        question_accuracies(questions, [0, 1])
    nan = Candidates("q", (True,), ("a",), (float("nan"),), (0.5,), "q")
    with pytest.raises(ValueError, match=r"question 'q': candidates \[0\] have no score"):
        question_accuracies([nan], [1])
    negative = Candidates("q", (True, False), ("a", "b"), (1.0, 2.0), (-1.0, 0.5), "q")
    with pytest.raises(ValueError, match="question 'q': votes must not be negative"):
        question_accuracies([negative], [1])


def test_shares_of_subsets_are_binomials() -> None:
    from math import comb

    table = subset_shares(12)
    for inner in range(13):
        for count in range(1, 13):
            assert table[inner, count - 1] == pytest.approx(comb(inner, count) / comb(12, count), abs=1e-15)
