"""Published benchmarks on hand-made files, through their readers; every figure follows by counting."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from dreamprm.data.readers import open_records
from dreamprm.data.record import Record
from dreamprm.evaluate.benchmarks import judge_benchmark
from dreamprm.evaluate.step_benchmarks import PRMBENCH_GROUPS


def _read(path: Path, rows: Sequence[dict[str, Any]], form: str, **options: Any) -> list[Record]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stream = open_records(str(path), form, **options)
    return [stream[row] for row in range(len(stream))]


def _visual(tmp_path: Path, image: bytes, marks: Sequence[tuple[str, list[int]]]) -> list[Record]:
    (tmp_path / "a.png").write_bytes(image)
    rows = [
        {
            "image": ["a.png"],
            "question": f"What is {number}?",
            "answer": "1",
            "response": {"steps": [f"step {place}" for place in range(len(given))], "process_correctness": given},
            "policy_model": "m",
            "data_source": source,
        }
        for number, (source, given) in enumerate(marks)
    ]
    return _read(tmp_path / "visual.jsonl", rows, "visual_process_bench")


def test_visual_process_bench(tmp_path: Path, make_image: Callable[..., bytes]) -> None:
    records = _visual(tmp_path, make_image(), [("MMMU", [1, 0, -1]), ("MMMU", [1, 1]), ("MathVision", [1, -1, -1, 1])])
    scores = [[0.9, 0.1, 0.6], [0.8, 0.3], [0.7, 0.2, 0.6, 0.9]]
    found = judge_benchmark("visualprocessbench", records, {"prm": scores}, num_resamples=20)
    prm = found["judged"]["prm"]
    assert prm["num_steps"] == 8, "the neutral step counts nowhere"
    y = [[1, 0, 1, 1], [1, 0, 0, 1]]
    called = [[1, 1, 1, 0], [1, 0, 1, 1]]
    parts = [f1_score(a, b, average="macro") for a, b in zip(y, called)]
    assert prm["by_source"] == pytest.approx({"MMMU": parts[0], "MathVision": parts[1]})
    assert prm["macro_f1"]["value"] == pytest.approx(
        f1_score(np.concatenate(y), np.concatenate(called), average="macro")
    )
    # Overall in its other definition: four steps of each source.
    assert prm["macro_f1_weighted_by_source"] == pytest.approx(np.mean(parts))
    # By hand: at .7 all is right but one right step of score .3.
    assert prm["swept"]["threshold"] == 0.7
    assert prm["swept"]["macro_f1"]["value"] == pytest.approx((2 * 4 / 9 + 2 * 3 / 7) / 2)


def _process(tmp_path: Path, labels: Sequence[tuple[str, int, int]]) -> list[Record]:
    rows = [
        {
            "id": f"{source}-{number}",
            "generator": "m",
            "problem": f"What is {number}?",
            "steps": [f"step {place}" for place in range(steps)],
            "final_answer_correct": label == -1,
            "label": label,
        }
        for number, (source, steps, label) in enumerate(labels)
    ]
    return _read(tmp_path / "process.jsonl", rows, "process_bench")


def test_process_bench(tmp_path: Path) -> None:
    records = _process(tmp_path, [("gsm8k", 2, -1), ("gsm8k", 3, 1), ("gsm8k", 2, 0), ("math", 1, -1), ("math", 2, 1)])
    scores = [[0.9, 0.8], [0.9, 0.2, 0.9], [0.6, 0.1], [0.4], [0.9, 0.3]]
    prm = judge_benchmark("processbench", records, {"prm": scores}, num_resamples=20)["judged"]["prm"]
    # gsm8k: one of two wrong chains found, its right one passed; math: the wrong one found, the right one not passed.
    assert prm["by_source"]["gsm8k"] == {
        "f1": pytest.approx(2 * 0.5 * 1 / 1.5),
        "accuracy_wrong": 0.5,
        "accuracy_right": 1.0,
        "num_wrong": 2,
        "num_right": 1,
    }
    assert prm["by_source"]["math"]["f1"] == 0.0
    assert prm["f1"] == pytest.approx((2 / 3 + 0) / 2)
    # Together: a = 2/3, b = 1/2.
    assert prm["pooled"]["f1"]["value"] == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    # Between .6 and .8 gsm8k is perfect, which takes math's right chain of score .4 no further.
    assert prm["tuned"]["threshold"] == 0.8
    assert prm["tuned"]["by_source"]["gsm8k"]["f1"] == 1.0
    assert prm["tuned"]["by_source"]["math"]["f1"] == 0.0
    # At .4 (below it is wrong): the two chains with .2 and .3 are found, both right ones pass.
    assert prm["swept"]["threshold"] == 0.4
    assert prm["swept"]["pooled"]["f1"]["value"] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))


def test_a_solution_without_steps_and_without_errors_is_passed(make_record: Callable[..., Record]) -> None:
    def record(key: str, steps: tuple[str, ...], first: int | None, labels: tuple[float | None, ...]) -> Record:
        return make_record(key, steps, group=key, labels=labels, domain="math", extra={"first_error": first})

    records = [record("empty", (), None, ()), record("wrong", ("x",), 0, (0.0,))]
    prm = judge_benchmark("processbench", records, {"prm": [[], [0.1]]}, num_resamples=5)["judged"]["prm"]
    assert (prm["f1"], prm["by_source"]["math"]["num_right"]) == (1.0, 1)


def _prmbench(tmp_path: Path, rows: Sequence[tuple[str, int, list[int]]], **options: Any) -> list[Record]:
    made = [
        {
            "original_question": f"q {number}",
            "modified_question": f"What is {number}?",
            "question": f"q {number}",
            "original_process": ["right"],
            "modified_process": [f"step {place}" for place in range(steps)],
            "error_steps": wrong,
            "classification": kind,
            "idx": str(number),
        }
        for number, (kind, steps, wrong) in enumerate(rows)
    ]
    return _read(tmp_path / "prmbench.jsonl", made, "prmbench", **options)


def test_prmbench(tmp_path: Path) -> None:
    records = _prmbench(
        tmp_path, [("redundency", 3, [2]), ("circular", 2, [1]), ("multi_solutions", 3, []), ("deception", 2, [1, 2])]
    )
    scores = [[0.9, 0.2, 0.4], [0.7, 0.9], [0.9, 0.9, 0.3], [0.1, 0.8]]
    prm = judge_benchmark("prmbench", records, {"prm": scores}, num_resamples=20)["judged"]["prm"]
    y = [[1, 0, 1], [0, 1], [1, 1, 1], [0, 0]]
    called = [[1, 0, 0], [1, 1], [1, 1, 0], [0, 1]]
    assert prm["prm_score"]["value"] == pytest.approx(
        f1_score(np.concatenate(y), np.concatenate(called), average="macro")
    )
    assert prm["by_class"]["redundency"] == pytest.approx(f1_score(y[0], called[0], average="macro"))
    assert prm["by_class"]["circular"] == pytest.approx((2 / 3 + 0) / 2)
    assert prm["by_class"]["multi_solutions"] == pytest.approx(4 / 5), "it has no wrong step: F1 of right steps alone"
    assert prm["by_class"]["deception"] is None, "no right step, so no PRMScore"
    parts = [prm["by_class"][name] for name in PRMBENCH_GROUPS["simplicity"]]
    assert prm["by_group"] == {"simplicity": pytest.approx(np.mean(parts)), "soundness": None, "sensitivity": None}
    assert sum(map(len, PRMBENCH_GROUPS.values())) == 9


def test_the_position_stands_beside(tmp_path: Path) -> None:
    records = _process(tmp_path, [("math", 2, 1)] * 3 + [("math", 2, -1)])
    found = judge_benchmark("processbench", records, {"prm": [[0.9, 0.9]] * 4}, num_resamples=5)
    assert set(found["judged"]) == {"prm", "position"}
    # The right chain sees three wrong second steps (1/5), each wrong one sees two wrong and a right one (2/5).
    assert found["judged"]["position"]["swept"]["threshold"] <= 0.8
    assert found["judged"]["position"]["by_source"]["math"]["accuracy_wrong"] == 1.0
    assert found["judged"]["position"]["by_source"]["math"]["accuracy_right"] == 0.0


def test_what_cannot_be_judged_is_refused(make_record: Callable[..., Record]) -> None:
    record = make_record("a", ("x", "y"))
    with pytest.raises(ValueError, match="'gsm8k' is no benchmark of steps; there are visualprocessbench"):
        judge_benchmark("gsm8k", [record], {})
    with pytest.raises(ValueError, match="mine: there must be one score for every step of every chain"):
        judge_benchmark("prmbench", [record], {"mine": [[0.5]]})
    with pytest.raises(ValueError, match="no chain names its first wrong step"):
        judge_benchmark("processbench", [record], {})
    with pytest.raises(ValueError, match="no step of these chains is marked right or wrong, so PRMScore"):
        judge_benchmark("prmbench", [record], {})
