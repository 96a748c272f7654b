"""`dreamprm select`: ties whatever the order of rows, one judge, figures and report beside the selection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.commands.select import SelectStage, select


def _file(folder: Path, rows: list[dict[str, Any]], name: str = "scores.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _row(answer: str, correct: bool, score: float, step: str = "done") -> dict[str, Any]:
    return {
        "question": "What is <b>1/2</b>?",
        "steps": [step],
        "group": "g",
        "answer": answer,
        "correct": correct,
        "extra": {"step_scores": [score]},
    }


def _line(rows: list[dict[str, Any]], folder: Path, **settings: Any) -> dict[str, Any]:
    out = folder / "selection.jsonl"
    select(SelectStage(scores=_file(folder, rows), out=str(out), num_resamples=20, **settings))
    return json.loads(out.read_text())


@pytest.mark.parametrize("method", ["prm", "self_consistency", "weighted_vote"])
def test_the_order_of_rows_changes_nothing(tmp_path: Path, method: str) -> None:
    rows = [_row("7", True, 0.5, "b"), _row("8", False, 0.5, "a")]
    one, two = (_line(given, tmp_path, method=method) for given in (rows, rows[::-1]))
    assert one["expected_correct"] == two["expected_correct"] == 0.5
    assert one["steps"] == two["steps"] == ["a"]
    results = json.loads((tmp_path / "selection.results.json").read_text())
    assert list(results["best_of_n"]["prm"]) == ["1", "2"]
    assert results["best_of_n"]["self_consistency"]["2"]["value"] == 0.5


def test_spellings_of_one_answer_vote_together(tmp_path: Path) -> None:
    rows = [_row("1/2", True, 0.5), _row("\\frac12", True, 0.5), _row("0.5", True, 0.5), _row("3", False, 0.6)]
    line = _line([*rows, _row("3", False, 0.6)], tmp_path, method="self_consistency")
    assert line["correct"] is True


def test_the_report_is_escaped_and_whole(tmp_path: Path) -> None:
    _line([_row("7", True, 0.9, "<script>x</script>"), _row("8", False, 0.1)], tmp_path, blocks=2)
    page = (tmp_path / "selection.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 2
    assert "<strong>chosen</strong>" in page
    assert "0.900" in page
    assert json.loads((tmp_path / "selection.results.json").read_text())["blocks"]["prm"] == 1.0
