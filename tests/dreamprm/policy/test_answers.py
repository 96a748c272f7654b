"""Endings of chains, and the verdict that a person gives them: what is stated, and whether it is the reference."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import pytest

from dreamprm.data.answer_text import extract_answer, options_of
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.policy.answers import ends_right, equivalence_classes, judge_version, same_answer
from dreamprm.policy.math_process import MathProcess

SHAPES = "Which shape?\n\nOptions: (A) square (B) circle (C) 12 cm (D) 15 cm"
LINES = "Which is it?\nA. I have 3\nB. north-west\nC. 1/2\nD. 3\\sqrt{2}"

# (ending, reference); options only where the question says so.
RIGHT = [
    ("The answer is x = 7", "7"),
    ("The answer is x = 7.", "x = 7"),
    ("So x = 5.\nThe answer is 5", "x=5"),
    ("The answer is n = 12", "12"),
    ("The answer is a + b = 4", "4"),
    ("Final answer: I have 3 apples", "I have 3 apples"),
    ("Answer: a circle", "circle"),
    ("Answer: The circle.", "a circle"),
    ("The answer is 12. I hope it is correct.", "12"),
    ("The final answer is $12$. I hope it is correct.", "12"),
    ("The answer is **12**.", "12"),
    ("**Answer:** 12", "12"),
    ("**Answer**: 12", "12"),
    ("Answer:\n12", "12"),
    ("**Final Answer**\n\n12", "12"),
    ("## Final Answer\n\n$12$", "12"),
    ("### Answer: 12", "12"),
    ("# answer\n\n\n12", "12"),
    ("so 3 + 4 = 7\n#### 7", "7"),
    ("The answer is \\(12\\)", "12"),
    ("The answer is \\(12\\).", "12"),
    ("The answer is $12$", "12"),
    ("The answer is:\n$$\n12\n$$", "12"),
    ("The answer is\n\\[\n12\n\\]", "12"),
    ("The answer is \\[ x = 12 \\]", "12"),
    ("Final answer:\n\\[\\boxed{12}\\]", "12"),
    ("So \\boxed{5}", "5"),
    ("So $\\boxed{5}$.", "5"),
    ("\\boxed{\\frac{1}{2}}", "1/2"),
    ("\\boxed{3} comes first. The final answer is 4", "4"),
    ("The answer is 3. Wait: \\boxed{4}", "4"),
    ("The answer is 3.\nNo.\nThe answer is 4.", "4"),
    ("\\boxed{5}. This answer is correct.", "5"),
    ("\\boxed{x = 5}", "5"),
    ("\\fbox{5}", "5"),
    ("\\boxed{\\text{yes}}", "Yes"),
    ("\\boxed{1} and \\boxed{2}", "1, 2"),
    ("The answer is 1/2", "\\frac{1}{2}"),
    ("The answer is \\frac12", "1/2"),
    ("The answer is $\\dfrac{1}{2}$", "\\tfrac12"),
    ("The answer is 0.5", "1/2"),
    ("The answer is ½", "0.5"),
    ("The answer is 2½", "5/2"),
    ("The answer is 3 1/2", "3.5"),
    ("The answer is $3\\frac{1}{2}$", "7/2"),
    ("The answer is -\\frac{3}{4}", "-0.75"),
    ("The answer is −3", "-3"),
    ("The answer is +3", "3"),
    ("The answer is 2/4", "1/2"),
    ("The answer is 5.0", "5"),
    ("The answer is 05", "5"),
    ("The answer is .5", "0.5"),
    ("The answer is 3.50", "3.5"),
    ("The answer is 0.3333", "1/3"),
    ("The answer is 1,000", "1000"),
    ("The answer is 1,234,567.", "1234567"),
    ("The answer is $1{,}000$", "1000"),
    ("The answer is 1\\,000", "1000"),
    ("The answer is 12 345", "12345"),
    ("The answer is 1.2 \\times 10^3", "1200"),
    ("The answer is 1.2e3", "1200"),
    ("The answer is $10^{6}$", "1,000,000"),
    ("The answer is 10 million", "10000000"),
    ("The answer is two dozen", "24"),
    ("The answer is seven", "7"),
    ("The answer is twenty-one", "21"),
    ("The answer is 50%", "50"),
    ("The answer is 50\\%", "0.5"),
    ("The answer is 12.5 percent", "12.5%"),
    ("The answer is 12 cm", "12"),
    ("The answer is 12cm", "12 cm"),
    ("The answer is 12 cm.", "12 centimeters"),
    ("The answer is 120 mm", "12 cm"),
    ("The answer is $12\\text{ cm}$", "12"),
    ("The answer is $12$ cm", "12 cm"),
    ("The answer is $12\\,\\mathrm{cm}^2$", "12 cm²"),
    ("The answer is 12 square meters", "12 m^2"),
    ("The answer is 60 km/h", "60"),
    ("The answer is 90 minutes", "1.5 hours"),
    ("The answer is $30^\\circ$", "30 degrees"),
    ("The answer is 30°", "30"),
    ("The answer is $5", "5 dollars"),
    ("The answer is \\$1,250.50", "1250.5"),
    ("The answer is 12 apples", "12"),
    ("The answer is approximately 3.14", "3.14"),
    ("The answer is x ≈ 3.14", "3.14"),
    ("The answer is 12, because 3 * 4 = 12.", "12"),
    ("The answer to the question is 12, since 3*4 = 12.", "12"),
    ("The correct answer must be 12", "12"),
    ("My answer would be 12.", "12"),
    ("Therefore, the area is 12 cm.", "12 cm"),
    ("Thus there are 12.", "12"),
    ("red 7\nanswer 12", "12"),
    ("12", "12"),
    ("$\\frac{1}{2}$", "0.5"),
    ("The answer is $2\\sqrt{3}$", "\\sqrt{12}"),
    ("The answer is 2√3", "2\\sqrt{3}"),
    ("The answer is sqrt(3)/2", "\\frac{\\sqrt{3}}{2}"),
    ("The answer is 3π", "3\\pi"),
    ("The answer is 3pi", "\\pi \\cdot 3"),
    ("The answer is 2x + 1", "1 + 2x"),
    ("The answer is y = 2x+1", "2x + 1"),
    ("The answer is (x-1)(x+1)", "x^2 - 1"),
    ("The answer is x^10", "x^{10}"),
    ("The answer is 2**10", "1024"),
    ("The answer is $2^{10}$", "1024"),
    ("The answer is 5!", "120"),
    ("The answer is $\\binom{5}{2}$", "10"),
    ("The answer is \\ln(2)", "\\ln 2"),
    ("The answer is (1, 2)", "(1,2)"),
    ("The answer is $\\left(1, \\frac{1}{2}\\right)$", "(1, 0.5)"),
    ("The answer is {1, 2}", "2, 1"),
    ("The answer is 1 and 2", "1, 2"),
    ("The answer is x = 1 or x = 2", "2, 1"),
    ("The answer is $x = \\pm 2$", "-2, 2"),
    ("The answer is ±2", "2 and -2"),
    ("The answer is $3 \\pm \\sqrt{2}$", "3 + \\sqrt{2}, 3 - \\sqrt{2}"),
    ("The answer is $x \\in [0, 1)$", "[0,1)"),
    ("The answer is $(-\\infty, 2) \\cup (3, \\infty)$", "(-\\infty,2)\\cup(3,\\infty)"),
    ("The answer is x > 3", "(3, \\infty)"),
    ("The answer is 7 = x", "x = 7"),
    ("The answer is 05/01/2021", "5/1/2021"),
    ("The answer is 1:2", "1 : 2"),
    ("The answer is Yes, it is.", "yes"),
    ("The answer is True.", "true"),
    ("The answer is no solution", "No solution."),
    ("The answer is north-west", "Northwest"),
    ("The answer is the red square", "Red square"),
    ("The answer is *green*.", "green"),
    ("The answer is “green”.", "green"),
    ("The answer is C. elegans.", "C. elegans"),
    ("\\boxed{\\text{B}}", "B"),
    ("\\boxed{(B)}", "B"),
    ("The answer is B", "B"),
    ("The answer is b.", "B"),
    ("The answer is (B).", "(B)"),
    ("The answer is B. 12 cm", "B"),
    ("The answer is **B**. Option A is too small", "B"),
    ("The answer is **(B)**", "B"),
    ("**B**. Option A is too small", "B"),
    ("The correct option is (b).", "B"),
    ("The correct choice is B: it is largest", "B"),
    ("Therefore, option B is correct.", "B"),
    ("(B) is the correct answer.", "B"),
    ("Hence the answer is B because 3 < 4", "B"),
    ("Answer: C) 12", "C"),
    ("Answer: A, C and D", "ACD"),
    ("Answer: A, C", "C, A"),
    ("Solution: B", "B"),
    ("答案选B", "B"),
    ("故选：B", "B"),
    ("故选：B。", "B"),
    ("所以选(B)", "B"),
    ("因此选项B正确，答案选B。", "B"),
    ("答案：B", "B"),
    ("答案是B", "B"),
    ("最终答案是 12。", "12"),
    ("答案为：12厘米", "12 厘米"),
    ("答案是 1/2。", "0.5"),
    ("故选：ACD", "A, C, D"),
]
WRONG = [
    ("The answer is x = 7", "X"),
    ("The answer is x = 4", "X"),
    ("The answer is a + b = 4", "A"),
    ("The answer is n = 12", "N"),
    ("Answer: a circle", "A"),
    ("Final answer: I have 3 apples", "I"),
    ("Final answer: I have 3 apples", "3"),
    ("The answer is x = 7", "9"),
    ("The answer is x = 7", "y = 7"),
    ("The answer is 12 cm", "12 m"),
    ("The answer is 12 cm", "12 cm^2"),
    ("The answer is 5 minutes", "5 hours"),
    ("The answer is $5", "€5"),
    ("The answer is 50%", "5"),
    ("The answer is 10 million", "10"),
    ("The answer is -3", "3"),
    ("The answer is 1/2", "1/3"),
    ("The answer is 3.14", "3.15"),
    ("The answer is 1,000", "1"),
    ("The answer is 1,2", "1.2"),
    ("The answer is (1,2)", "(2,1)"),
    ("The answer is 1 and 2", "1"),
    ("The answer is [0, 1)", "(0, 1)"),
    ("The answer is 2x", "2y"),
    ("The answer is 3x", "3"),
    ("The answer is 2^10", "210"),
    ("The answer is 1:2", "2:1"),
    ("The answer is no solution", "no"),
    ("The answer is red", "blue"),
    ("The answer is B", "A"),
    ("\\boxed{\\text{B}}", "C"),
    ("The answer is A, C", "A"),
    ("The answer is 05/01/2021", "01/05/2021"),
    ("The answer is not 5.", "5"),
    ("We add 5 and 7", "7"),
    ("The sum is computed next", "next"),
    ("故选：B", "C"),
    ("\\boxed{3} comes first. The final answer is 4", "3"),
    ("The answer is -\\frac{3}{4}", "3/4"),
    ("The answer is $3 \\pm \\sqrt{2}$", "3 + \\sqrt{2}"),
]
OPTIONS = [
    (SHAPES, "Answer: a circle", "A", False),
    (SHAPES, "Answer: a circle", "B", True),
    (SHAPES, "The answer is circle.", "(B)", True),
    (SHAPES, "The answer is b", "B", True),
    (SHAPES, "The answer is 12 cm", "C", True),
    (SHAPES, "The answer is 12", "C", True),
    (SHAPES, "The answer is x = 12", "C", True),
    (SHAPES, "The answer is 15", "C", False),
    (SHAPES, "The answer is B. circle", "circle", True),
    (SHAPES, "The answer is (A) square", "circle", False),
    (SHAPES, "The answer is BD", "B, D", True),
    (SHAPES, "The answer is a triangle", "A", False),
    (LINES, "The answer is I have 3", "A", True),
    (LINES, "The answer is Northwest", "B", True),
    (LINES, "The answer is 0.5", "C", True),
    (LINES, "The answer is \\sqrt{18}", "D", True),
    (LINES, "The answer is \\sqrt{17}", "D", False),
]


def record(reference: str | None, question: str = "How much?") -> Record:
    return Record(key="k", source="s", domain="d", group="g", question=question, steps=("step",), reference=reference)


def test_endings_are_judged_as_a_person_does() -> None:
    assert len(RIGHT) + len(WRONG) + len(OPTIONS) >= 200
    missed = [(end, ref, extract_answer(end)) for end, ref in RIGHT if not ends_right(record(ref), end)]
    missed += [(end, ref, extract_answer(end)) for end, ref in WRONG if ends_right(record(ref), end)]
    missed += [(end, ref, extract_answer(end)) for q, end, ref, v in OPTIONS if ends_right(record(ref, q), end) != v]
    assert missed == []


def test_sameness_is_symmetric_and_classes_do_not_depend_on_the_order() -> None:
    pairs = [(extract_answer(end), ref) for end, ref in RIGHT + WRONG]
    for one, other in pairs:
        if one is not None:
            assert same_answer(one, other) == same_answer(other, one), (one, other)
    answers = ["1/2", "\\frac{1}{2}", "3", "0.5"]
    for order in permutations(range(4)):
        classes = equivalence_classes([answers[place] for place in order])
        assert {order[place] for place, name in enumerate(classes) if name == classes[order.index(0)]} == {0, 1, 3}


def test_votes_are_for_answers_not_for_spellings() -> None:
    assert equivalence_classes(["x = 7", "x = 9", "x = 11", "5", "5.0"]) == [0, 1, 2, 3, 3]
    assert equivalence_classes(["1/2", "3", None, "\\frac12", "3", "\\frac{1}{2}", " "]) == [0, 1, None, 0, 1, 0, None]
    assert equivalence_classes(["circle", "B", "A"], question=SHAPES) == [0, 0, 1]
    assert equivalence_classes(["1/2", "0.5", "1/2"], judge="exact") == [0, 1, 0]


def test_the_judge_is_a_setting_and_names_its_versions() -> None:
    assert not same_answer("0.5", "1/2", judge="exact")
    assert judge_version("exact") == "exact"
    assert "math-verify" in judge_version()
    with pytest.raises(ValueError, match="allowed"):
        same_answer("1", "1", judge="best")
    with pytest.raises(UserError, match="no reference"):
        ends_right(record(None), "The answer is 5")


def test_options_are_those_that_the_question_lists() -> None:
    assert options_of(SHAPES) == {"A": "square", "B": "circle", "C": "12 cm", "D": "15 cm"}
    assert options_of("A. Smith has 3 apples. How many has B?") == {}
    assert list(options_of(LINES)) == ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    "hostile", ["9^{9^{9^9}}", "9**9**9", "\\frac{1}{" * 200, "(" * 900, "10^{999999999}x", "2^{2^{40}}!"]
)
def test_nothing_hangs(hostile: str) -> None:
    process = MathProcess(seconds=1.0)
    try:
        process.ask("1", "1")  # the start is not counted
        begin = time.monotonic()
        assert not process.ask(hostile, "3x")
        assert time.monotonic() - begin < 10.0  # 1 s, and starting anew on a busy machine
        assert process.ask("2\\sqrt{3}", "\\sqrt{12}")
    finally:
        process.close()


def test_threads_share_the_judge() -> None:
    def judged(place: int) -> bool:
        return same_answer(f"{place} + x", f"x + {place}") and not same_answer(f"{place} + x", f"x + {place + 1}")

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(judged, range(8)))


def test_longer_texts_are_compared_as_they_stand() -> None:
    assert same_answer("1+" * 5000, "1+" * 5000)
    assert not same_answer("1+" * 5000 + "1", "1+" * 5000 + "2")
