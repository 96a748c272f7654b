"""Joined steps are the text, on any text; expressions are never cut; on the published sets nothing is lost."""

from __future__ import annotations

import json
import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dreamprm.data.splitter import clean_steps, protected_spans, split_question, split_steps

EXPRESSIONS = [
    "(100 + 50) / 165",
    "(100 +\n50) / 165",
    "(3 + 1) * (2 - 1)",
    "$\\frac{(1) + 2}{3) }$",
    "\\[\nx = 1. 5\n\n2. y\n\\]",
    "$$ (a\n\n1) $$",
    "f(1, 2) = 1. 5",
    "`x[1. ]`",
    "[1, 2,\n3. ]",
    "{(1)\n(2)}",
    "```\nStep 1: a\n\n1. b\n```\n",
]
WORDS = [
    "so",
    "we see",
    "as in Step 7",
    "the 3. place",
    "因此",
    "it is 5.",
    "Step 10 says",
    "2) both",
    "(i)",
    "- 5 = 3",
]
STYLES = ["Step {}: ", "**Step {}:** ", "### Step {}\n", "步骤{}：", "第{}步，", "{}. ", "{}) ", "({}) ", "{}、"]


def _body(rng: random.Random) -> tuple[str, list[str]]:
    used = [rng.choice(EXPRESSIONS) for _ in range(rng.randrange(0, 3))]
    words = [rng.choice(WORDS) for _ in range(rng.randrange(1, 4))]
    mixed = [*(f"we get {expression}" for expression in used), *(f"and {word}" for word in words)]
    rng.shuffle(mixed)
    return " ".join(mixed), used


def test_ten_thousand_generated_chains() -> None:
    rng = random.Random(7)
    for _ in range(10_000):
        style, num_steps = rng.choice(STYLES), rng.randrange(2, 13)
        bodies = [_body(rng) for _ in range(num_steps)]
        gap = rng.choice(["\n", "\n\n", "\r\n", " \n\n\n"])
        preamble = rng.choice(["", "", "Let us see.\n\n", "[Reasoning]\n"])
        closing = rng.choice(["", f"{gap}Answer: {rng.randrange(99)}", f"{gap}**Final answer:** B\n"])
        text = preamble + gap.join(style.format(k) + body for k, (body, _) in enumerate(bodies, 1)) + closing
        steps = split_steps(text)
        assert "".join(steps) == text
        assert len(steps) == num_steps + bool(closing), text
        for step, (body, _) in zip(steps, bodies):
            assert body in step, "no step ends inside its own text, so no expression is cut"


def test_paragraphs_with_expressions() -> None:
    rng = random.Random(8)
    for _ in range(2_000):
        bodies = ["It holds: " + _body(rng)[0] for _ in range(rng.randrange(1, 8))]
        text = "\n\n".join(bodies)
        steps = split_steps(text)
        assert "".join(steps) == text
        assert [step.strip() for step in steps] == [body.strip() for body in bodies], text


MARKS = ["Step 1:", "Step 2.", "1. ", "2) ", "(1) ", "- The", "Answer: 5", "答案", "①", "第一步", "#", "**"]
SIGNS = ["\n", "\n\n", "\r\n", " ", "(", ")", "[", "]", "$", "$$", "\\[", "\\]", "```", "`", "\\begin{a}", "\\end{a}"]
_PIECES = st.sampled_from([*EXPRESSIONS, *WORDS, *MARKS, *SIGNS, "\x00", "\u2028"])


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(_PIECES, max_size=30).map("".join)))
def test_no_text_loses_a_character_or_is_cut_inside_an_expression(text: str) -> None:
    steps = split_steps(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or len(steps) == 1
    spans = protected_spans(text)
    position = 0
    for step in steps[:-1]:
        position += len(step)
        assert not any(start < position < stop for start, stop in spans)
    question, chain = split_question(text)
    assert question + chain == text


def test_long_and_hostile_texts_take_no_time() -> None:
    # Patterns that backtrack would take minutes on these; each took under 0.1 s when measured.
    for unit in (
        "(",
        "$",
        "\\(",
        "```\n",
        "\n \n",
        "Step 1:",
        "1. a\n",
        "**",
        "\\begin{a}",
        "第",
        " ",
        "# ",
        "- A b\n",
    ):
        text = unit * (20_000 // len(unit))
        assert "".join(split_steps(text)) == text


def test_published_meta_sets_lose_nothing(meta_sets: Path) -> None:
    rows = json.loads((meta_sets / "meta_MMMU_Pro.json").read_text("utf-8"))
    rows += json.loads((meta_sets / "DreamPRM_meta.json").read_text("utf-8"))
    assert len(rows) == 1656 + 500
    for row in rows:
        text = row.get("response") or row["input"]
        steps = split_steps(text)
        assert "".join(steps) == text
        spans = protected_spans(text)
        cuts = [sum(map(len, steps[:k])) for k in range(1, len(steps))]
        assert not any(start < cut < stop for cut in cuts for start, stop in spans)
        digits = [c for c in "".join(clean_steps(text)) if c.isdigit()]
        assert digits == [c for c in text if c.isdigit()]


def test_the_published_answers_are_steps_of_their_own(meta_sets: Path) -> None:
    rows = json.loads((meta_sets / "meta_MMMU_Pro.json").read_text("utf-8"))
    closing = [row["response"] for row in rows if "\nAnswer:" in row["response"]]
    assert len(closing) > 700
    assert all(clean_steps(text)[-1].startswith("Answer:") for text in closing)
