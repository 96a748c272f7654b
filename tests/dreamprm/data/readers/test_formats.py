"""Every format on a row written to its published field list."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamprm.data.readers import FORMATS, BadRows, DataError, read, recognise
from dreamprm.data.record import Record, RecordError

NAMES = sorted(set(FORMATS) - {"mathvision_output", "mathvision_ursa"})  # joined to questions: tested apart


@pytest.fixture
def read_one(samples: dict[str, Any], write_rows: Callable[..., Path]) -> Callable[..., list[Record]]:
    def run(name: str, change: dict[str, Any] | None = None, **options: Any) -> list[Record]:
        row = copy.deepcopy(samples[name].row) | (change or {})
        return list(read(write_rows(row), **options))

    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_each_format_is_recognised(
    name: str, samples: dict[str, Any], write_rows: Callable[..., Path]
) -> None:
    path = write_rows(samples[name].row, samples[name].row)
    assert recognise(path) == name
    records = list(read(path))
    assert records
    assert len({record.key for record in records}) == len(records), "two equal rows have keys of their own"
    assert len({record.group for record in records}) == 1


def test_visualprm(read_one: Callable[..., list[Record]], tmp_path: Path) -> None:
    (record,) = read_one("visualprm")
    assert record.question == "How many red dots?"
    assert record.steps == ("The left has 3 dots.", "Final answer: 4")
    assert record.labels == (1.0, 0.0)
    assert record.answer == "4"
    assert record.images == (tmp_path / "a/b.png",)
    assert record.correct is None
    assert "-1" not in record.group, "the constant id names no question"


@pytest.mark.parametrize(
    ("turn", "value", "reason"),
    [(2, "maybe", "must be [+] or -"), (1, "no header", "### Question:"), (3, " ", "step is empty")],
)
def test_visualprm_refuses_what_is_no_verdict(
    samples: dict[str, Any], write_rows: Callable[..., Path], turn: int, value: str, reason: str
) -> None:
    row = copy.deepcopy(samples["visualprm"].row)
    row["conversations"][turn]["value"] = value
    with pytest.raises(RecordError, match=rf"rows\.jsonl, row 1, conversations\[{turn}\].value: .*{reason}"):
        list(read(write_rows(row), "visualprm"))


def test_visualprm_refuses_a_step_without_a_verdict(samples: dict[str, Any], write_rows: Callable[..., Path]) -> None:
    row = copy.deepcopy(samples["visualprm"].row)
    del row["conversations"][2]
    with pytest.raises(RecordError, match="two steps without a verdict"):
        list(read(write_rows(row)))


def test_visualprm_raw_keeps_soft_labels_and_counts(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("visualprm_raw")
    assert record.question == "How many?"
    assert record.labels == (0.875, 0.0)
    assert record.extra["num_right"] == (14, 0)
    assert record.extra["num_completions"] == (16, 16)
    assert (record.answer, record.reference) == ("7", "7")


def test_visualprm_raw_refuses_a_score_that_its_counts_deny(
    samples: dict[str, Any], write_rows: Callable[..., Path]
) -> None:
    row = copy.deepcopy(samples["visualprm_raw"].row)
    row["steps_with_score"][0]["num_mc_correct"] = 2
    with pytest.raises(RecordError, match=r"0\.875 disagrees with 2 right of 16"):
        list(read(write_rows(row)))


def test_dreamprm_train_labels_the_last_step(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("dreamprm_train")
    assert record.steps == ("Step 1: Restate the question.", "Step 2: It is (1 + 2) * 1.")
    assert record.labels == (None, 0.75)
    assert record.domain == "geo170k"


def test_dreamprm_meta_cuts_question_from_chain(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("dreamprm_meta")
    assert record.question.endswith("(B) False")
    assert record.steps == ("Step 1: Look.", "Step 2: See.", "Final answer: B")
    assert (record.correct, record.answer, record.group) == (True, "B", "id 2")
    (bare,) = read_one("dreamprm_meta", {"input": "Question: Is it?\nOptions: (A) True (B) False"})
    assert bare.steps == ()


def test_dreamprm15_meta_has_no_step_labels_and_loses_no_digit(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("dreamprm15_meta")
    assert record.labels == ()
    assert "1 / 0.2 = 5." in record.steps[0]
    assert record.steps[-1] == "Answer: D"
    assert (record.correct, record.answer, record.domain) == (False, "D", "Art")
    assert record.images[0].as_posix().endswith("/data/meta_images/test_Art_113.png")  # type: ignore[union-attr]
    (turns,) = read_one("dreamprm15_meta", options={"steps": "turns"})
    assert turns.steps == ("It is 1 / 0.2 =", "Answer: D")


def test_dreamprm15_test_gives_a_record_per_candidate(read_one: Callable[..., list[Record]]) -> None:
    one, two = read_one("dreamprm15_test")
    assert (one.correct, two.correct) == (True, False)
    assert (one.answer, two.answer) == ("A", "B")
    assert one.group == two.group
    assert one.key != two.key


def test_visual_process_bench_leaves_neutral_steps_without_label(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("visual_process_bench")
    assert record.labels == (1.0, None, 0.0)
    assert record.domain == "MathVista"
    assert len(record.images) == 2


def test_process_bench_counts_from_zero(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("process_bench")
    assert record.labels == (1.0, 0.0, None)
    assert record.domain == "gsm8k"
    (right,) = read_one("process_bench", {"label": -1, "final_answer_correct": True})
    assert right.labels == (1.0, 1.0, 1.0)
    with pytest.raises(RecordError, match="index of one of the 3 steps, is 3"):
        read_one("process_bench", {"label": 3})


def test_prm800k_follows_the_chosen_path(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("prm800k")
    assert record.steps == ("Add them.", "It is 3.")
    assert record.labels == (1.0, 0.0)


def test_prm800k_neutral_is_a_setting(samples: dict[str, Any], write_rows: Callable[..., Path]) -> None:
    row = copy.deepcopy(samples["prm800k"].row)
    row["label"]["steps"][0]["completions"][1]["rating"] = 0
    path = write_rows(row)
    assert next(read(path)).labels == (None, 0.0)
    assert next(read(path, options={"neutral": "right"})).labels == (1.0, 0.0)


def test_math_shepherd(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("math_shepherd")
    assert record.question == "Ann has 3. Bob has 4. How many?"
    assert record.steps == ("Step 1: Ann has 3 = 3.", "Step 2: Together 8. The answer is: 8")
    assert record.labels == (1.0, 0.0)
    assert record.answer == "8"
    with pytest.raises(RecordError, match="does not stand in the label"):
        read_one("math_shepherd", {"label": "Ann has 3. Bob has 4. How many? Step 1: Ann has 4 = 3. +\n"})


def test_prmbench_counts_from_one_and_drops_blank_steps(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("prmbench")
    assert record.steps == ("a", "wrong", "b")
    assert record.labels == (1.0, 0.0, 1.0)
    assert record.question == "Solve it."
    assert len(read_one("prmbench", options={"originals": True})) == 2
    with pytest.raises(RecordError, match="names step 5 of a chain of 4"):
        read_one("prmbench", {"error_steps": [2, 5]})
    with pytest.raises(RecordError, match="blank and is labelled wrong"):
        read_one("prmbench", {"error_steps": [3]})


def test_mr_ben_joins_lines_and_counts_steps_by_their_own_numbers(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("mr_ben")
    assert record.steps == ("Step 1: a\n- more", "Step 2: b", "Solution: Choice_A")
    assert record.labels == (1.0, 0.0, None)
    assert (record.correct, record.answer, record.reference) == (False, "A", "B")
    with pytest.raises(RecordError, match="names step 5 of a chain of 3"):
        read_one("mr_ben", {"Model_Solution_First_Error_Step": "5"})
    (closing,) = read_one("mr_ben", {"Model_Solution_First_Error_Step": "3"})
    assert closing.labels == (1.0, 1.0, 0.0)
    lines = ["Step 1: a", "Step 2: b", "Step 1: c", "Step 2: d"]
    (twice,) = read_one("mr_ben", {"Model_Solution_Steps": lines})
    assert twice.labels == (1.0, None, None, None), "which of two steps 2 is meant nobody said"


def test_verify_cot(read_one: Callable[..., list[Record]]) -> None:
    one, two = read_one("verify_cot_samples")
    assert (one.answer, two.answer) == ("03/03/2002", None)
    assert one.steps == ("#1. Today.", "#2. Tomorrow.")
    other = read_one("verify_cot_samples", {"question": "Today is 3/2. What is the date a week ago?"})
    assert other[0].group == one.group, "the premise is the group"
    (human,) = read_one("verify_cot_human")
    assert human.labels == (None, 0.0)
    assert read_one("verify_cot_human", {"flag": 1})[0].labels == (1.0, 1.0)
    assert read_one("verify_cot_human", options={"labels": "none"})[0].labels == ()


def test_mathvision_outputs_are_joined_to_their_questions(
    samples: dict[str, Any], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    write_rows(samples["mathvision"].row, name="test.jsonl")
    answer = {"id": "1", "model": "m", "response": "So 6.\n\nAnswer: 60", "model_answer": "60", "correct": True}
    path = write_rows(answer, name="outputs/Some (Text Only).jsonl")
    table = "id,question,model_answer,extraction,match\n1,q,So 6.\u2020Answer: 60,Answer: 60,0\n"
    (tmp_path / "outputs/URSA-8B.csv").write_text(table)
    first, second = read(tmp_path)
    assert first.question == second.question == "Which number?"
    assert first.images == (tmp_path / "images/1.jpg",)
    assert first.correct is True
    assert second.correct is True, "match 0 means right"
    assert first.extra["saw_image"] is False
    assert first.group == second.group
    assert [record.source for record in read(tmp_path, options={"blind": False})] == ["URSA-8B"]
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"needs test\.jsonl"):
        list(read(path))


def test_questions_with_options(read_one: Callable[..., list[Record]]) -> None:
    (mmmu,) = read_one("mmmu")
    assert mmmu.question == "Who painted <image 1> in 1500?\n\nOptions: (A) A man (B) B's man"
    assert (mmmu.steps, mmmu.domain, mmmu.reference) == ((), "Art", "B")
    lettered = read_one("mmmu", {"options": "A. x y; B. z"})[0].question
    assert lettered.endswith("Options: (A) x y (B) z")
    (table,) = read_one("vlmevalkit")
    assert table.question.endswith("Options: (A) x (B) y")
    assert isinstance(table.images[0], bytes)


def test_own_rows(read_one: Callable[..., list[Record]]) -> None:
    (record,) = read_one("records")
    assert record.labels == (1.0, 0.5)
    assert record.extra["policy"] == "mine"
    with pytest.raises(RecordError, match="lables: is no field of this format; allowed: answer"):
        read_one("records", {"lables": [1, 0]}, format="records")
    with pytest.raises(RecordError, match="3 labels for 2 steps"):
        read_one("records", {"labels": [1, 1, 1]})


def test_own_rows_split_a_response(write_rows: Callable[..., Path]) -> None:
    (record,) = read(write_rows({"question": "q", "response": "1. a = (100 + 50) / 165\n2. b\n\nAnswer: 5"}))
    assert record.steps == ("1. a = (100 + 50) / 165", "2. b", "Answer: 5")
    assert record.answer == "5"


def test_unknown_rows_and_names_say_what_is_known(write_rows: Callable[..., Path]) -> None:
    path = write_rows({"foo": 1, "bar": 2})
    with pytest.raises(DataError, match=r"format not recognised \(fields: foo, bar\)[\s\S]*visualprm"):
        list(read(path))
    with pytest.raises(DataError, match="no format is called 'visualprn'"):
        list(read(path, "visualprn"))
    with pytest.raises(DataError, match="is not there"):
        list(read(path.with_name("none.jsonl")))


def test_options_are_checked(samples: dict[str, Any], write_rows: Callable[..., Path]) -> None:
    path = write_rows(samples["prm800k"].row)
    with pytest.raises(DataError, match="no option 'neutrall'; it has: neutral"):
        list(read(path, "prm800k", options={"neutrall": "right"}))
    with pytest.raises(DataError, match="must be a str"):
        list(read(path, options={"neutral": 1}))
    with pytest.raises(DataError, match="no format of these files has an option 'mark'"):
        list(read(path, options={"mark": "x"}))


def test_bad_rows_stop_are_skipped_or_listed(samples: dict[str, Any], write_rows: Callable[..., Path]) -> None:
    good = samples["records"].row
    path = write_rows(good, b'{"question": "cut', good | {"correct": "yes"}, good)
    with pytest.raises(RecordError, match=r"rows\.jsonl, row 2: not valid JSON .*on_bad_row=skip"):
        list(read(path))
    assert len(list(read(path, on_bad_row="skip"))) == 2
    with pytest.raises(DataError, match="needs a side file"):
        read(path, on_bad_row="quarantine")
    with pytest.raises(DataError, match="one of error, skip, quarantine"):
        read(path, on_bad_row="ignore")
    side = path.with_name("bad.jsonl")
    bad = BadRows("quarantine", side)
    assert len(list(read(path, on_bad_row=bad))) == 2
    listed = [json.loads(line) for line in side.read_text().splitlines()]
    assert [(item["row"], item["field"]) for item in listed] == [(2, ""), (3, "correct")]
    assert {item["file"] for item in listed} == {str(path)}
    assert bad.count == 2
