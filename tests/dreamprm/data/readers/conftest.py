"""Rows of every format as its publishers list the fields, a writer of files, and the folder of real data."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

SYSTEM = {"from": "system", "value": "You judge steps."}


@dataclass(frozen=True)
class Sample:
    """A row of a format; `fields` are the paths of values that a reader needs; `image` where an image may be named."""

    row: dict[str, Any]
    fields: tuple[tuple[str | int, ...], ...]
    image: tuple[str | int, ...] | None = None


def png(width: int = 8, height: int = 8, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (width, height), colour).save(stream, "PNG")
    return stream.getvalue()


def _human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def _gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def _samples() -> dict[str, Sample]:
    first = "### Question:\n<image>\nHow many red dots?\n\n### Solution Process:\nThe left has 3 dots."
    return {
        "visualprm": Sample(
            {
                "id": -1,
                "image": "a/b.png",
                "conversations": [SYSTEM, _human(first), _gpt("+"), _human("Final answer: 4"), _gpt("-")],
            },
            (("conversations",), ("conversations", 1, "value"), ("conversations", 2, "value"), ("conversations", 3)),
            ("image",),
        ),
        "visualprm_raw": Sample(
            {
                "image": "a/b.png",
                "question": "Answer step by step. How many?",
                "question_orig": "How many?",
                "answer": "7",
                "response": "3 + 4\n\nFinal answer: 7",
                "steps_with_score": [
                    {"step": "3 + 4", "score": 0.875, "num_mc_correct": 14, "num_mc_total": 16},
                    {"step": "Final answer: 7", "score": 0.0, "num_mc_correct": 0, "num_mc_total": 16},
                ],
                "num_mc_sequences": 16,
            },
            (
                ("steps_with_score",),
                ("question_orig",),
                ("steps_with_score", 0, "score"),
                ("steps_with_score", 1, "step"),
            ),
            ("image",),
        ),
        "dreamprm_train": Sample(
            {
                "id": 3,
                "sid": 1,
                "input": "Question: What is the area?\nOptions: (A) 2 (B) 3",
                "add": "Step 1: Restate the question.\nStep 2: It is (1 + 2) * 1.",
                "ground_truth": "B",
                "image_path": "geo/1.png",
                "dataset": "geo170k",
                "score": 3,
                "times": 4,
                "accuracy": 0.75,
            },
            (("input",), ("accuracy",), ("dataset",)),
            ("image_path",),
        ),
        "dreamprm_meta": Sample(
            {
                "id": 2,
                "true_false": True,
                "input": "Question: Is it?\nOptions: (A) True (B) False\n\n"
                "Step 1: Look.\n\nStep 2: See.\n\nFinal answer: B",
                "image_path": "x/2.png",
            },
            (("input",), ("true_false",)),
            ("image_path",),
        ),
        "dreamprm15_meta": Sample(
            {
                "id": "test_Art_113",
                "response": "[Reasoning]\n1. It is 1 / 0.2 = 5.\n2. So five.\n\nAnswer: D",
                "true_false": False,
                "image": "../data/meta_images/test_Art_113.png",
                "conversations": [
                    SYSTEM,
                    _human("### Question:\nQuestion: Who?\n\nOptions: (A) a (B) b"),
                    _human("It is 1 / 0.2 ="),
                    _gpt("+"),
                    _human("Answer: D"),
                    _gpt("+"),
                ],
            },
            (("response",), ("true_false",), ("conversations",), ("conversations", 1, "value")),
            ("image",),
        ),
        "dreamprm15_test": Sample(
            {
                "question": "Who?",
                "image_path": "t/1.png",
                "candidates": ["It was a.\n\nAnswer: A", "It was b.\n\nAnswer: B"],
                "true_false": [True, False],
            },
            (("question",), ("candidates",), ("candidates", 1), ("true_false",), ("true_false", 0)),
            ("image_path",),
        ),
        "visual_process_bench": Sample(
            {
                "image": ["a.png", "b.png"],
                "question": "Which?",
                "answer": "2",
                "response": {"steps": ["One.", "Two.", "Answer: 2"], "process_correctness": [1, 0, -1]},
                "policy_model": "QvQ",
                "data_source": "MathVista",
            },
            (("question",), ("response",), ("response", "steps"), ("response", "process_correctness", 1)),
            ("image", 1),
        ),
        "process_bench": Sample(
            {
                "id": "gsm8k-0",
                "generator": "Qwen2-7B",
                "problem": "How many?",
                "steps": ["a = 1", "b = 3", "c = 4"],
                "final_answer_correct": False,
                "label": 1,
            },
            (("problem",), ("steps",), ("steps", 2), ("label",), ("final_answer_correct",)),
        ),
        "prm800k": Sample(
            {
                "labeler": "x",
                "question": {"problem": "1 + 1?", "ground_truth_answer": "2"},
                "label": {
                    "steps": [
                        {
                            "completions": [{"text": "no", "rating": -1}, {"text": "Add them.", "rating": 1}],
                            "human_completion": None,
                            "chosen_completion": 1,
                        },
                        {
                            "completions": [{"text": "It is 3.", "rating": -1}],
                            "human_completion": None,
                            "chosen_completion": None,
                        },
                    ],
                    "finish_reason": "found_error",
                },
            },
            (("question", "problem"), ("label", "steps"), ("label", "steps", 0, "completions", 1, "text")),
        ),
        "math_shepherd": Sample(
            {
                "input": "Ann has 3. Bob has 4. How many? "
                "Step 1: Ann has 3 = 3. ки\nStep 2: Together 8. The answer is: 8 ки",
                "label": "Ann has 3. Bob has 4. How many? "
                "Step 1: Ann has 3 = 3. +\nStep 2: Together 8. The answer is: 8 -",
                "task": "GSM8K",
            },
            (("input",), ("label",)),
        ),
        "trl_stepwise": Sample(
            {"prompt": "Which is larger?", "completions": ["Compare.", "The second."], "labels": [True, False]},
            (("prompt",), ("completions",), ("completions", 0), ("labels",), ("labels", 1)),
        ),
        "prmbench": Sample(
            {
                "original_question": "Solve.",
                "modified_question": "Solve it.",
                "original_process": ["a", "b"],
                "modified_process": ["a", "wrong", "", "b"],
                "modified_steps": [2],
                "error_steps": [2],
                "reason": "r",
                "idx": "prm_1",
                "question": "Solve.",
                "classification": "circular",
            },
            (("modified_question",), ("modified_process",), ("error_steps",), ("error_steps", 0), ("classification",)),
        ),
        "mr_ben": Sample(
            {
                "Question_UUID": "u-1",
                "Subject": "college_biology",
                "Question": "Which?",
                "Options": "A: x \nB: y ",
                "Ground_Truth_Analysis": "",
                "Ground_Truth_Answer": "A",
                "Ground_Truth_Answer_Modified": "B",
                "Sampled_Model": "GPT3.5",
                "Model_Solution_Steps": ["Step 1: a", "- more", "Step 2: b", "", "Solution: Choice_A"],
                "Model_Solution_Correctness": "incorrect",
                "Model_Solution_First_Error_Step": "2",
                "Model_Solution_Error_Reason": ["r"],
                "Model_Solution_Rectified_First_Error_Step": ["s"],
            },
            (("Question",), ("Model_Solution_Steps",), ("Model_Solution_Correctness",), ("Sampled_Model",)),
        ),
        "verify_cot_samples": Sample(
            {
                "question": "Today is 3/2. What is the date tomorrow?",
                "final_answer": "03/03/2002",
                "example_idx": 4,
                "model_outputs": ["#1. Today.\n\n#2. Tomorrow.", "#1. Today."],
                "pred_answers": ["03/03/2002", None],
                "per_sample_correct": [True, False],
            },
            (("question",), ("model_outputs",), ("per_sample_correct",), ("model_outputs", 1)),
        ),
        "verify_cot_human": Sample(
            {
                "question": "How much?",
                "answer": "#1. 30 cycles.\n\n#2. (by #1) 30 * 7 = 210.",
                "final_answer": 210,
                "correct": True,
                "flag": 0,
                "choices": ["1", "2"],
            },
            (("question",), ("answer",), ("correct",), ("flag",)),
        ),
        "mathvision": Sample(
            {
                "id": "1",
                "question": "Which number?\n<image1>",
                "options": [],
                "answer": "60",
                "solution": None,
                "level": 2,
                "subject": "arithmetic",
                "image": "images/1.jpg",
            },
            (("question",), ("subject",), ("id",)),
            ("image",),
        ),
        "mmmu": Sample(
            {
                "id": "validation_Art_1",
                "question": "Who painted <image 1> in 1500?",
                "options": "['A man', \"B's man\"]",
                "answer": "B",
                "image_1": {"bytes": None, "path": "a.png"},
                "image_2": None,
                "subfield": "Painting",
            },
            (("id",), ("question",), ("options",)),
            ("image_1",),
        ),
        "vlmevalkit": Sample(
            {
                "index": 5,
                "image": base64.b64encode(png()).decode(),
                "question": "Which?",
                "A": "x",
                "B": "y",
                "C": "",
                "answer": "B",
                "category": "logic",
            },
            (("question",), ("A",)),
            ("image",),
        ),
        "vlmevalkit_result": Sample(
            {
                "index": 5,
                "question": "Which?",
                "A": "x",
                "B": "y",
                "answer": "B",
                "category": "logic",
                "prediction": "It is y.\n\nThe answer is: B",
            },
            (("question",), ("prediction",)),
        ),
        "mathvista": Sample(
            {
                "pid": "7",
                "question": "How many cubes are left?",
                "image": "images/7.jpg",
                "decoded_image": {"bytes": None, "path": "a.png"},
                "choices": None,
                "unit": None,
                "precision": None,
                "answer": "4",
                "question_type": "free_form",
                "answer_type": "integer",
                "metadata": {"category": "math-targeted-vqa", "task": "geometry problem solving"},
                "query": "Hint: …",
            },
            (("question",), ("question_type",), ("answer_type",)),
            ("decoded_image",),
        ),
        "we_math": Sample(
            {
                "ID": "165",
                "split": "testmini",
                "knowledge concept": "Area of Circles",
                "question": "What is the area?",
                "option": "A. 200.96;B. 3215.36;C. 6280;D. 32; E. No correct answer",
                "answer": "B",
                "image_path": "a.png",
                "key": "3steps_3",
                "question number": 1575,
                "knowledge concept description": "…",
            },
            (("question",), ("option",), ("key",), ("answer",)),
            ("image_path",),
        ),
        "mm_vet": Sample(
            {
                "question_id": "v1_0",
                "image": "a.png",
                "question": "What is x in the equation?",
                "answer": "-1<AND>-5",
                "image_source": "…",
                "capability": "ocr,math",
            },
            (("question",), ("capability",), ("answer",)),
            ("image",),
        ),
        "mmstar": Sample(
            {
                "index": 3,
                "question": "Which option describes the room?\nOptions: A: Dark, B: Bright, C: Empty, D: Full",
                "image": {"bytes": None, "path": "a.png"},
                "answer": "A",
                "category": "coarse perception",
                "l2_category": "image scene and topic",
                "meta_info": {"source": "MMBench", "split": "val", "image_path": "images/0.jpg"},
            },
            (("question",), ("category",), ("answer",)),
            ("image",),
        ),
        "r_bench_v": Sample(
            {"question": "How many triangles?", "answer": "7", "image": "a.png", "catagory": "Math"},
            (("question",), ("catagory",)),
            ("image",),
        ),
        "records": Sample(
            {
                "question": "What is 3 + 4?",
                "steps": ["3 + 4 = 7", "so 7"],
                "labels": [1, 0.5],
                "images": ["a.png"],
                "correct": True,
                "domain": "sum",
                "group": "q1",
                "answer": "7",
                "policy": "mine",
            },
            (("question",), ("steps",), ("steps", 1), ("labels",), ("labels", 0), ("correct",), ("domain",)),
            ("images", 0),
        ),
    }


@pytest.fixture(scope="session")
def samples() -> dict[str, Sample]:
    return _samples()


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    return png


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows (objects, or bytes as they are) as JSON Lines."""

    def write(*rows: dict[str, Any] | bytes, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
        )
        return path

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: DREAMPRM_DATA, else shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("DREAMPRM_DATA") or beside)
    if not (folder / "mathvision").is_dir():
        pytest.skip(f"no real data in {folder}; set DREAMPRM_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))
