"""Choosing a chain: ties go to the first, negative scores count, and nothing is chosen by NaN."""

import pytest

import dreamprm
from dreamprm.prm.model import PRM
from dreamprm.selection import highest, majority, weighted_vote


def test_ties_go_to_the_first():
    assert highest([0.5, 0.7, 0.7, 0.1]) == 1
    assert majority(["a", "b", "b", "a"]) == 0
    assert weighted_vote(["a", "b"], [0.5, 0.5]) == 0


def test_negative_scores_are_compared_like_any_other():
    assert highest([-3.0, -1.0, -2.0]) == 1


def test_votes():
    assert majority(["a", "b", None, "b"]) == 1
    assert weighted_vote(["a", "b", "b"], [0.9, 0.3, 0.4]) == 0
    assert weighted_vote(["a", "b", "b"], [0.6, 0.3, 0.4]) == 2
    # 0.1 + 0.2 and 0.3 are a tie although their floats differ.
    assert weighted_vote(["a", "b", "b"], [0.3, 0.1, 0.2]) == 0


def test_candidates_without_an_answer_do_not_vote():
    assert majority([None, None, "c"]) == 2
    assert weighted_vote([None, None], [0.2, 0.4]) == 1


def test_clear_errors():
    with pytest.raises(ValueError, match="no candidate"):
        highest([])
    with pytest.raises(ValueError, match=r"candidates \[1\] have no score"):
        highest([0.1, float("nan")])
    with pytest.raises(ValueError, match="votes must not be negative"):
        weighted_vote(["a"], [-1.0])
    with pytest.raises(ValueError, match="2 answers and 1 scores"):
        weighted_vote(["a", "b"], [1.0])


def test_best_of_n(build_text_model, tiny_tokenizer):
    prm = PRM(build_text_model(), tiny_tokenizer, aggregation="min")
    candidates = [["3 + 4 = 8", "so 8"], ["3 + 4 = 7", "so 7", "done"], ["guess"]]
    chosen = dreamprm.best_of_n(prm, "What is 3 + 4?", [], candidates)
    assert [len(row) for row in chosen.step_scores] == [2, 3, 1]
    assert chosen.chain_scores == tuple(map(min, chosen.step_scores))
    assert chosen.index == chosen.chain_scores.index(max(chosen.chain_scores))
    other = dreamprm.best_of_n(prm, "What is 3 + 4?", [], candidates, aggregate="log_odds_sum")
    assert other.step_scores == chosen.step_scores
    assert other.chain_scores != chosen.chain_scores


def test_a_text_is_split_into_its_steps(build_text_model, tiny_tokenizer):
    prm = PRM(build_text_model(), tiny_tokenizer)
    chosen = dreamprm.best_of_n(prm, "q", [], ["Step 1: add\n\nStep 2: done"])
    assert len(chosen.step_scores[0]) == 2


def test_no_candidates(build_text_model, tiny_tokenizer):
    with pytest.raises(ValueError, match="no candidate"):
        dreamprm.best_of_n(PRM(build_text_model(), tiny_tokenizer), "q", [], [])
