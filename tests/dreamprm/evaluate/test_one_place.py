"""One place of figures: a finished run's results.json and `dreamprm evaluate` on its scores say the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dreamprm.commands.evaluate import EvaluateStage, evaluate
from dreamprm.commands.files import record_row, write_lines
from dreamprm.data.record import Record
from dreamprm.evaluate.figures import FigureSettings, figures, first_questions, true_steps

SETTINGS = FigureSettings(num_resamples=20)


def _scores(records: Sequence[Record]) -> list[list[float]]:
    """Scores that follow from the text alone, rounded as a scores file holds them."""
    return [[round((len(step) * 37 % 100) / 100, 6) for step in record.steps] for record in records]


@pytest.fixture
def records(make_record: Callable[..., Record]) -> list[Record]:
    """Questions of one and of several chains, outcome labels, neutral steps, clusters: all that the rules speak of."""
    made = []
    for question in range(6):
        for candidate in range(1 + question % 4):
            right = (question + candidate) % 2 == 0
            extra: dict[str, Any] = {"cluster": f"premise {question // 2}"}
            if question == 3:
                extra["outcome_labels"] = True
            made.append(
                make_record(
                    f"{question}-{candidate}",
                    ("a" * (question + 1), "b" * (candidate + 2)),
                    group=f"question {question}",
                    labels=(1.0, None) if question == 4 else (1.0, float(right)),
                    correct=None if question == 5 and candidate == 0 else right,
                    answer=str(candidate % 2),
                    extra=extra,
                )
            )
    return made


@pytest.mark.parametrize("num_questions", [None, 4])
def test_a_run_and_the_command_agree_on_one_file(
    records: list[Record], tmp_path: Path, num_questions: int | None
) -> None:
    stage = EvaluateStage(scores=str(tmp_path / "scores.jsonl"), out=str(tmp_path / "results.json"))
    stage.evaluate.num_questions = num_questions
    kept = [records[row] for row in first_questions(records, num_questions)]
    of_run = figures(kept, _scores(kept), stage.evaluate.figures())  # as trainer/judging.py has it
    out = tmp_path / "scores.jsonl"
    write_lines(
        out, [record_row(out, record, scores) for record, scores in zip(records, _scores(records), strict=True)]
    )
    of_command = json.loads(evaluate(stage).read_text())
    assert set(of_run) == {"best_of_n", "judge", "outcome", "steps", "first_error"}
    for name, figure in of_run.items():
        assert of_command[name] == json.loads(json.dumps(figure))


def test_the_rule_of_step_truths(make_record: Callable[..., Record]) -> None:
    def truth(**fields: Any) -> list[bool | None]:
        return true_steps(make_record("a", ("x", "y", "z"), **fields))

    assert truth() == [None] * 3
    assert truth(labels=(0.9, 0.5, 0.1)) == [True, None, False], "one half tells nothing"
    assert truth(labels=(1.0, None, 0.0)) == [True, None, False]
    assert truth(labels=(1.0, 1.0, 1.0), extra={"outcome_labels": True}) == [None] * 3
    assert truth(labels=(1.0, 1.0, 1.0), truth={"labels": (1.0, 0.0, 0.0)}) == [True, False, False]


def test_intervals_draw_clusters(records: list[Record]) -> None:
    found = figures(records, _scores(records), SETTINGS)
    assert found["best_of_n"]["prm"]["1"]["n"] == 2, "three questions of several judged chains, in two premises"
    assert found["steps"]["auc"]["n"] == 3


def test_nothing_is_made_up(make_record: Callable[..., Record]) -> None:
    assert figures([make_record("a")], [[0.5, 0.5]], SETTINGS) == {}
    with pytest.raises(ValueError, match="1 records and 2 lists of step scores"):
        figures([make_record("a")], [[0.5, 0.5]] * 2, SETTINGS)
