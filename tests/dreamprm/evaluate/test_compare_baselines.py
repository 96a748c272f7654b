"""Comparison with baselines: figures on hand-made chains whose values follow by counting."""

from __future__ import annotations

from typing import Any

import pytest

from dreamprm.evaluate import FigureSettings, compare, position_scores, stronger_model_scores
from dreamprm.evaluate.compare_baselines import best_threshold
from dreamprm.evaluate.figures import figures, first_wrong

SETTINGS = FigureSettings(num_candidates=(1, 2), num_resamples=10)


@pytest.mark.parametrize(
    ("labels", "first"),
    [((1.0, 1.0), -1), ((1.0, 0.0), 1), ((0.0, None), 0), ((None, 0.0), None), ((1.0, None), None), ((), None)],
)
def test_the_first_wrong_step_is_told_by_labels_or_not_at_all(make_record: Any, labels: Any, first: Any) -> None:
    assert first_wrong(make_record("a", ("x", "y"), labels=labels)) == first


def test_position_scores_are_the_shares_of_right_labels(make_record: Any) -> None:
    train = [make_record("a", ("x", "y"), labels=(1.0, 0.0)), make_record("b", ("x", "y"), labels=(1.0, None))]
    (scores,) = position_scores(train, [make_record("c", ("p", "q", "r"))])
    assert scores == pytest.approx([3 / 4, 1 / 3, 1 / 2])


def test_the_stronger_model_is_the_one_that_was_right_more_often(make_record: Any) -> None:
    train = [
        make_record(f"{name}{n}", correct=n < right, extra={"policy": name})
        for name, right in (("strong", 3), ("weak", 1))
        for n in range(4)
    ]
    test = [make_record("t", extra={"policy": name}) for name in ("weak", "strong", "unknown")]
    assert stronger_model_scores(train, test) == [[0.25] * 2, [0.75] * 2, [0.5] * 2]
    assert stronger_model_scores(train, test[:1]) is None


def test_figures_of_a_perfect_and_of_a_constant_scorer(make_record: Any) -> None:
    records = [
        make_record(
            f"{q}{n}",
            ("x", "y"),
            group=q,
            labels=(1.0, float(n)),
            correct=bool(n),
            answer=str(n),
            extra={"collection": "one" if q == "p" else "two"},
        )
        for q in "pqr"
        for n in (0, 1)
    ]
    perfect = [[0.9, 0.8 if record.correct else 0.7] for record in records]
    assert figures(records, perfect, SETTINGS)["first_error"]["f1"] == 0.0, "no step is below one half"
    tuned = best_threshold(perfect, [1, -1] * 3)
    assert 0.7 < tuned <= 0.8
    found = compare(records, records, perfect, perfect, {"constant": ([[0.5] * 2] * 6, [[0.5] * 2] * 6)}, SETTINGS)
    assert found["steps"]["auc"]["value"] == 1.0
    assert found["first_error"]["tuned"]["f1"] == 1.0
    assert found["best_of_n"]["prm"]["2"]["value"] == 1.0
    assert set(found["by_source"]) == {"one", "two"}
    assert found["by_source"]["two"]["first_error"]["num_chains"] == 4
    assert found["baselines"]["constant"]["steps"]["auc"]["value"] == 0.5
    assert found["baselines"]["constant"]["by_source"] == {}


def test_labels_made_of_an_outcome_judge_no_step(make_record: Any) -> None:
    record = make_record("a", ("x", "y"), labels=(1.0, 1.0), correct=True, extra={"outcome_labels": True})
    assert figures([record], [[0.5, 0.5]], SETTINGS) == {}, "one candidate is no choice, and its steps nobody judged"
