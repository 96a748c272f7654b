"""The splitter on texts whose steps are plain to see."""

from __future__ import annotations

import pytest

from dreamprm.data.splitter import clean_steps, split_question, split_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: a\nStep 2: b\nFinal answer: c", ("Step 1: a", "Step 2: b", "Final answer: c")),
        ("**Step 1:** a\n\nmore\n\n**Step 2:** b", ("**Step 1:** a\n\nmore", "**Step 2:** b")),
        (
            "### Step 1\na\n### Step 2\nb\n### Final Answer\n5",
            ("### Step 1\na", "### Step 2\nb", "### Final Answer\n5"),
        ),
        ("Let us see.\n\nStep 1: a\nStep 2: b", ("Let us see.\n\nStep 1: a", "Step 2: b")),
        ("1. a\n2. b\n3. c\n\nAnswer: B", ("1. a", "2. b", "3. c", "Answer: B")),
        ("[Reasoning]\n1) a\n2) b\n\nSo it is b.", ("[Reasoning]\n1) a", "2) b", "So it is b.")),
        ("(1) a\n(2) b", ("(1) a", "(2) b")),
        ("a\n\nb\n\n\\boxed{5}", ("a", "b", "\\boxed{5}")),
        ("a\r\n\r\nb\r\n \r\nc", ("a", "b", "c")),
        ("- The first thing\n- The second\n\nAnswer: A", ("- The first thing", "- The second", "Answer: A")),
        ("步骤1：甲\n步骤2：乙\n答案：3", ("步骤1：甲", "步骤2：乙", "答案：3")),
        ("第一步，甲\n第二步，乙\n第十一步不算", ("第一步，甲", "第二步，乙\n第十一步不算")),
        ("1、甲\n2、乙", ("1、甲", "2、乙")),
        ("①甲\n②乙", ("①甲", "②乙")),
        ("We add. Final answer: 7", ("We add.", "Final answer: 7")),
        ("Add them.\n#### 7", ("Add them.", "#### 7")),
        ("Step 1: x\n†Answer: 60", ("Step 1: x", "†Answer: 60")),
        ("D", ("D",)),
        ("", ()),
        (" \n\n ", ()),
    ],
)
def test_styles(text: str, steps: tuple[str, ...]) -> None:
    assert clean_steps(text) == steps
    assert "".join(split_steps(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "It is (100 + 50) / 165 = 0.9 of all.",
        "It is (100 +\n50) / 165 of all.",
        "so (1) and (2) hold, 1. and 2. as well",
        "as in Step 7: we see it",
        "as in\nStep 7 shows this",
        "The sum is 1.5 and 2. 5 of them",
        "x = 10\n- 5\n= 5",
        "$$\na\n\n1. b\n\n2. c\n$$",
        "\\[\n1. x\n\n2. y\n\\]",
        "\\begin{align}\n1) x\n\n2) y\n\\end{align}",
        "```\nStep 1: print\n\nStep 2: print\n```",
        "f(\n1. a,\n2. b\n)",
        "year\n2019. That was it\n2020. And that",
        "2. b\n3. c",
    ],
)
def test_what_is_no_marker_makes_no_step(text: str) -> None:
    assert split_steps(text) == [text]


def test_step_10_is_not_step_1() -> None:
    text = "".join(f"Step {k}: as in Step {max(1, k - 1)}\n" for k in range(1, 13))
    steps = split_steps(text)
    assert len(steps) == 12
    assert steps[9] == "Step 10: as in Step 9\n"


def test_formulas_and_code_stay_with_their_step() -> None:
    text = "We get:\n\n\\[ x = 1 \\]\n\nThen:\n\n```\ny\n\nz\n```\n\nDone."
    assert clean_steps(text) == ("We get:\n\n\\[ x = 1 \\]", "Then:\n\n```\ny\n\nz\n```", "Done.")


def test_money_opens_no_formula() -> None:
    text = "It costs $5.\n\nAnd $6 more."
    assert clean_steps(text) == ("It costs $5.", "And $6 more.")


def test_headings_open_the_next_step() -> None:
    text = "## Solution\n\nFirst.\n\n**Check**\n\nSecond.\n\n### Final Answer:\n\nFinal answer: A"
    assert clean_steps(text) == (
        "## Solution\n\nFirst.",
        "**Check**\n\nSecond.",
        "### Final Answer:\n\nFinal answer: A",
    )


def test_an_answer_first_does_not_swallow_what_follows() -> None:
    assert clean_steps("Answer: B\n\nStep 1: a\nStep 2: b") == ("Answer: B\n\nStep 1: a", "Step 2: b")


def test_question_and_chain() -> None:
    question = "Question: What?\nOptions: (A) 1 (B) 2"
    assert split_question(question) == (question, "")
    text = question + "\n\nLet us see:\n\nStep 1: a\nStep 2: b"
    asked, chain = split_question(text)
    assert asked == question
    assert asked + chain == text
    assert clean_steps(chain) == ("Let us see:\n\nStep 1: a", "Step 2: b")


def test_a_question_that_holds_steps_stays_whole() -> None:
    asked = "Step 1: wash.\nStep 2: dry.\nWhat comes third?"
    assert split_question(f"{asked}\n\nStep 1: The list ends.\nStep 2: So nothing.")[0].strip() == asked
