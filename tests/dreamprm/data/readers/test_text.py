"""What readers share about texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamprm.data.readers import read
from dreamprm.data.readers.text import clean_question, fingerprint


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("<image> <image>\nWhat is it?", "What is it?"),
        ("<image>What is it?", "What is it?"),
        ("Compare <image> with <image>.", "Compare <image> with <image>."),
        ("<image>\nCompare it with <image>.", "<image>\nCompare it with <image>."),
        ("Look here: <image>", "Look here: <image>"),
        ("What is it?\n<image1>", "What is it?"),
        ("In <image 1> we see", "In <image 1> we see"),
        ("  two  spaces ", "two  spaces"),
    ],
)
def test_placeholders_between_words_stay(given: str, kept: str) -> None:
    assert clean_question(given) == kept


def test_fingerprints_pass_over_placeholders_and_headings() -> None:
    assert len({fingerprint(text) for text in ("## Question: How many?", "how many", " <image 1> How  many")}) == 1


def test_math_shepherd_cuts_at_the_chains_own_first_step(tmp_path: Path) -> None:
    text = "Explain Step 1: of a proof. How many? Step 1: 1 + 1 = 2 {}\nStep 2: The answer is: 2 {}"
    row = {"input": text.format("ки", "ки"), "label": text.format("+", "-"), "task": "GSM8K"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (record,) = read(tmp_path / "a.jsonl")
    assert record.question == "Explain Step 1: of a proof. How many?"
    assert record.steps == ("Step 1: 1 + 1 = 2", "Step 2: The answer is: 2")
    assert record.labels == (1.0, 0.0)
    assert record.extra["breaks"] == ["\n"]
