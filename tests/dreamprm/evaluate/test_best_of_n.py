"""Best-of-N against enumeration by hand."""

import json
from itertools import combinations

import numpy as np
import pytest

from dreamprm.evaluate import METHODS, Candidates, best_of_n_table, question_accuracies
from dreamprm.selection import highest, majority, weighted_vote


@pytest.fixture
def questions():
    generator = np.random.default_rng(0)
    made = []
    for number in range(12):
        correct = generator.random(6) < 0.5
        answers = ["right" if value else str(generator.integers(3)) for value in correct]
        scores = np.round(generator.random(6) + 0.3 * correct, 1)  # rounded, so that there are ties
        made.append(Candidates(str(number), tuple(correct), tuple(answers), tuple(scores), tuple(scores), str(number)))
    return made


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_every_subset_counts(questions, count):
    found = question_accuracies(questions, [count])
    for place, question in enumerate(questions):
        rows = {method: [] for method in METHODS}
        for subset in combinations(range(6), count):
            right = [question.correct[i] for i in subset]
            scores, answers = [question.scores[i] for i in subset], [question.answers[i] for i in subset]
            rows["policy"].append(np.mean(right))
            rows["prm"].append(right[highest(scores)])
            rows["self_consistency"].append(right[majority(answers)])
            rows["weighted_vote"].append(right[weighted_vote(answers, scores)])
            rows["oracle"].append(any(right))
        for method in METHODS:
            assert found[method][count][place] == pytest.approx(np.mean(rows[method]), abs=1e-12)


def test_the_table(questions):
    table = best_of_n_table(questions, [1, 4], num_resamples=200)
    assert set(table) == set(METHODS)
    json.dumps(table)
    for row in table.values():
        for cell in row.values():
            assert set(cell) == {"value", "low", "high", "n"}
            assert cell["low"] <= cell["value"] <= cell["high"]
            assert cell["n"] == 12
    # With one candidate there is nothing to choose.
    assert len({round(row["1"]["value"], 12) for row in table.values()}) == 1
    assert table["oracle"]["4"]["value"] >= table["prm"]["4"]["value"]


def test_fewer_candidates_than_asked_for(questions):
    table = question_accuracies(questions, [6, 8])
    assert all((table[method][6] == table[method][8]).all() for method in METHODS)


def test_many_candidates_are_sampled_by_the_seed():
    correct = tuple(i % 3 == 0 for i in range(16))
    question = Candidates(
        "q", correct, tuple("r" if c else str(i) for i, c in enumerate(correct)), (0.5,) * 16, (0.5,) * 16, "q"
    )
    one, two = (question_accuracies([question], [8], seed=3)["self_consistency"][8] for _ in range(2))
    assert one == two


def test_records_are_grouped(make_record):
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


def test_clear_errors(questions):
    with pytest.raises(ValueError, match="at least one question"):
        question_accuracies([])
    with pytest.raises(ValueError, match="at least 1, are"):
        question_accuracies(questions, [0, 1])
    nan = Candidates("q", (True,), ("a",), (float("nan"),), (0.5,), "q")
    with pytest.raises(ValueError, match=r"question 'q': a candidate has no score"):
        question_accuracies([nan], [1])
