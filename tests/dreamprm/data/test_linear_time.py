"""No text makes a splitter, a reader or an extractor take more than time linear in its length."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from dreamprm.data.answer_text import extract_answer, is_bare_answer, options_of
from dreamprm.data.readers.text import clean_question, fingerprint
from dreamprm.data.splitter import split_question, split_steps
from dreamprm.policy.answers import same_answer

LENGTH = 250_000
SECONDS = 3.0
"""A linear function takes up to .2 s of processor time for this length on an idle core, several times that on a crowded
one; a quadratic one takes minutes."""
UNITS = [
    *(
        " ",
        "\n",
        "\t",
        "$",
        "\\[",
        "{",
        "(",
        "`",
        "```",
        "~",
        "*",
        "#",
        "-",
        ".",
        "a",
        "A",
        "1",
        "=",
        "。",
        "选",
        "答案",
    ),
    *("answer", "answer\n", "the answer is ", "answer to ", "\\boxed{", "\\begin{a}", "\\end{a}", "<image", "<image> "),
    *("Step 1: ", "1. ", "(A) ", "A. ", "solution: ", "\n\n", " \n", "Options:\n", "?\n", "\\text{", "Therefore "),
]
FUNCTIONS: list[Callable[[str], Any]] = [
    extract_answer,
    options_of,
    is_bare_answer,
    clean_question,
    fingerprint,
    split_steps,
    split_question,
    lambda text: same_answer(text, "1"),
]
DRAWN = random.Random(0).sample([a + b for a, b in product(UNITS, UNITS)], 12)
BEGUN = ["# answer\n", "<image 1 ", "\\begin{a}", "answer is ", "``` ", "Step 1: \n"]


@pytest.mark.parametrize("text", [*random.Random(1).sample(UNITS, 12), *DRAWN, *BEGUN])
def test_repeats_take_linear_time(text: str) -> None:
    head = text if text in BEGUN else ""
    unit = text[-1] if text in BEGUN else text
    whole = head + unit * (LENGTH // len(unit)) + "x"
    for function in FUNCTIONS:
        begin = time.process_time()
        function(whole)
        assert time.process_time() - begin < SECONDS, (function, text)
