"""The rules of benchmarks of answers on hand-made rows: what the published definition calls right, and wrong."""

from __future__ import annotations

from typing import Any

import pytest

from dreamprm.data.record import Record
from dreamprm.evaluate.answer_benchmarks import joined, judge_answers
from dreamprm.evaluate.answer_rules import mathvision, mathvista, mmmu, mmmu_pro, mmstar, we_math
from dreamprm.evaluate.figures import FigureSettings


def _question(reference: str | None, options: tuple[str, ...] = (), text: str = "Q?", **extra: Any) -> Record:
    listed = " ".join(f"({chr(65 + place)}) {option}" for place, option in enumerate(options))
    text = f"{text}\n\nOptions: {listed}" if options else text
    return Record("k", "s", "d", "g", text, (), reference=reference, extra={"options": options} | extra)


def _says(answer: str) -> str:
    return f"Step 1: I look.\nThe final answer is: {answer}"


CHOICE = {"question_type": "multi_choice", "answer_type": "text"}


@pytest.mark.parametrize(
    ("reference", "options", "facts", "response", "right"),
    [
        # A letter is its option; the file's answer is the option's text, VLMEvalKit's the letter too.
        ("145°", ("135°", "140°", "145°"), CHOICE, _says("(C)"), True),
        ("145°", ("135°", "140°", "145°"), CHOICE, _says("C"), True),
        ("C", ("135°", "140°", "145°"), CHOICE, _says("145°"), True),
        ("145°", ("135°", "140°", "145°"), CHOICE, _says("B"), False),
        # Else the option that is nearest in spelling.
        ("seven cubes", ("two balls", "seven cubes"), CHOICE, _says("seven cube"), True),
        ("4", (), {"question_type": "free_form", "answer_type": "integer"}, _says("4"), True),
        # int(float(x)), as published: 4.9 is 4.
        ("4", (), {"question_type": "free_form", "answer_type": "integer"}, _says("4.9"), True),
        ("4", (), {"question_type": "free_form", "answer_type": "integer"}, _says("5"), False),
        ("1.5", (), {"question_type": "free_form", "answer_type": "float", "precision": 1}, _says("1.46"), True),
        ("1.5", (), {"question_type": "free_form", "answer_type": "float", "precision": 1}, _says("1.44"), False),
        ("1.45", (), {"question_type": "free_form", "answer_type": "float", "precision": 2}, _says("$1.45"), True),
        ("[2007, 2008]", (), {"question_type": "free_form", "answer_type": "list"}, _says("[2007,2008]"), True),
        ("[2007, 2008]", (), {"question_type": "free_form", "answer_type": "list"}, _says("[2008, 2007]"), False),
        ("4", (), {"question_type": "free_form", "answer_type": "integer"}, "I cannot tell.", False),
    ],
)
def test_mathvista(reference: str, options: Any, facts: Any, response: str, right: bool) -> None:
    assert mathvista(_question(reference, options, **facts), response) is right


@pytest.mark.parametrize(
    ("reference", "options", "response", "right"),
    [
        ("B", ("3", "4"), _says("B"), True),
        ("B", ("3", "4"), "So \\boxed{4}", True),
        ("B", ("3", "4"), "So \\boxed{3}", False),
        ("12", (), "The answer is 12.0.", True),
        ("3.1416", (), "The answer is 3.14", True),
        ("3.1416", (), "The answer is 3.15", False),
        ("\\frac{1}{2}", (), "So \\boxed{0.5}", True),
        ("(1,2)", (), "So \\boxed{(1, 2)}", True),
        ("(1,2)", (), "So \\boxed{(2, 1)}", False),
    ],
)
def test_mathvision(reference: str, options: Any, response: str, right: bool) -> None:
    assert mathvision(_question(reference, options), response) is right


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("<Thought process>: area. <Answer>: B", True),
        ("Answer: **B**", True),
        ("Answer: A. No, Answer: B.", True),
        ("Answer: C", False),
        (_says("B"), True),
        (_says("(D)"), False),
        ("I do not know.", False),
    ],
)
def test_we_math(response: str, right: bool) -> None:
    assert we_math(_question("B", ("1", "2", "3", "4")), response) is right


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("A", True),
        ("(A) Dark", True),
        ("The answer is A", True),
        (_says("Option A"), True),
        ("B", False),
        # The published rule looks at the first letter alone, and would take this for an A.
        ("A bright room. The answer is B", False),
    ],
)
def test_mmstar(response: str, right: bool) -> None:
    assert mmstar(_question("A", ("Dark", "Bright", "Empty", "Full")), response) is right


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("B", True),
        ("It might be (A), but it is (B).", True),
        ("It might be (B), but it is (A).", False),
        # Letters between spaces count only where none is in brackets.
        ("(B) and not A .", True),
        ("One sees that the painter was a woman of Rome", True),
        ("woman", False),  # by its text only in more than five words
        ("None of these can be told from it", False),  # published: one of the options is drawn
    ],
)
def test_mmmu_choices(response: str, right: bool) -> None:
    assert mmmu(_question("B", ("man of Greece", "woman of Rome", "child")), response) is right


@pytest.mark.parametrize(
    ("reference", "response", "right"),
    [
        ("12", "We add.\nThe total is 12", True),
        ("12", "We add 12.\nThe total is 13", False),
        ("1,200", "so it costs 1200 dollars", True),
        ("0.333", "x = 0.3333", True),
        ("0.333", "x = 0.34", False),
        ("Impressionism", "Therefore the style is impressionism", True),
        ("['7', 'seven']", "The result is seven", True),
        ("x", "the answer is x", True),
        ("x", "the answer is xylene", False),  # a single letter needs a space beside it
    ],
)
def test_mmmu_open_questions(reference: str, response: str, right: bool) -> None:
    assert mmmu(_question(reference), response) is right


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("(A) looks right at first.\nAnswer: B", True),
        ("Answer: A\nNo. Answer: B", True),
        ("Answer: (A) or (B)", True),  # two letters: the last one that is named, as MMMU has it
        ("It is B. The rest is not", True),
        ("It is A. The rest is not", False),
    ],
)
def test_mmmu_pro(response: str, right: bool) -> None:
    assert mmmu_pro(_question("B", ("one", "two", "three")), response) is right


def test_a_hidden_answer_is_told() -> None:
    with pytest.raises(ValueError, match="question 'g' has no answer to judge by"):
        mmmu(_question(None, ("a", "b")), "B")


def _chain(group: str, number: int) -> Record:
    return Record(f"{group}/{number}", "s", "d", group, "Q?", (f"chain {number}",))


def test_chains_are_joined_to_their_questions() -> None:
    asked = [Record("a", "file", "d", "one", "Q?", ()), Record("b", "file", "d", "two", "Q?", ())]
    chains = [_chain("two", 0), _chain("one", 0), _chain("two", 1)]
    assert [question.key for question in joined(chains, asked)] == ["b", "a", "b"]
    with pytest.raises(ValueError, match="1 of 1 chains are of questions that data"):
        joined([_chain("three", 0)], asked)
    with pytest.raises(ValueError, match="file: question 'one' stands twice"):
        joined(chains, [asked[0], *asked])


def test_grades_between_0_and_1_are_averaged_and_the_oracle_takes_the_best() -> None:
    question = Record("q", "s", "math+ocr", "one", "Q?", (), reference="1", extra={"category": ("math", "ocr")})
    chains = [_chain("one", 0), _chain("one", 1), _chain("one", 2)]
    scores = [[0.9], [0.5], [0.1]]
    settings = FigureSettings(num_candidates=(1, 2, 3))
    found = judge_answers("mmvet", chains, [question] * 3, [0.5, 1.0, 0.0], scores, settings)
    table = {name: {n: cell["value"] for n, cell in row.items()} for name, row in found["best_of_n"].items()}
    assert table["policy"] == pytest.approx({"1": 0.5, "2": 0.5, "3": 0.5})
    assert table["oracle"] == pytest.approx({"1": 0.5, "2": (1 + 1 + 0.5) / 3, "3": 1.0})
    # Of two candidates the first wins twice and the second once.
    assert table["prm"] == pytest.approx({"1": 0.5, "2": (0.5 + 0.5 + 1.0) / 3, "3": 0.5})
    assert found["by_category"] == {"math": {"value": 0.5, "n": 1}, "ocr": {"value": 0.5, "n": 1}}


def _problem(number: int, steps: int, verdicts: list[bool]) -> tuple[list[Record], list[Record], list[float]]:
    parts = [*map(str, range(1, steps + 1)), "multi"]
    asked = [
        Record(f"{number}{part}", "s", "d", f"{number} {part}", "Q?", (), reference="A",
               extra={"id": str(number), "key": f"{steps}steps_{part}", "category": f"{steps}steps"})
        for part in parts
    ]  # fmt: skip
    return asked, [_chain(question.group, 0) for question in asked], [float(verdict) for verdict in verdicts]


def test_we_maths_four_way_score() -> None:
    """One problem of every kind: the counts of the published code, by hand."""
    problems = [
        _problem(1, 2, [True, True, True]),  # complete mastery, strict and loose
        _problem(2, 2, [True, True, False]),  # inadequate generalization
        _problem(3, 2, [True, False, False]),  # insufficient knowledge
        _problem(4, 2, [True, False, True]),  # rote (strict), mastery (loose)
        _problem(5, 3, [False, False, False, True]),  # rote in both
    ]
    asked, chains, worth = ([each for part in column for each in part] for column in zip(*problems))
    found = judge_answers("wemath", chains, asked, worth, None, FigureSettings(num_candidates=(1,)))
    assert found["num_problems"] == 5
    assert found["four_way"] == pytest.approx(
        {"IG": 0.2, "IK": 0.2, "CM_strict": 0.2, "CM_loose": 0.4, "RM_strict": 0.4, "RM_loose": 0.2}
    )
    assert found["score_strict"] == pytest.approx((5 - 0.5 - 1 - 2) / 5)
    assert found["score_loose"] == pytest.approx((5 - 0.5 - 1 - 1) / 5)
    assert found["by_steps"] == pytest.approx({"1": 6 / 11, "2": 2 / 4, "3": 1.0})
