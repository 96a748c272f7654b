import random

import pytest

from dreamprm.world.questions import (
    DOMAINS,
    SPLITS,
    Question,
    answer_of,
    check_answer,
    check_disjoint,
    check_step,
    sample_question,
    split_steps,
)
from dreamprm.world.scene import Scene, Thing

TABLE = Question(
    "table", Scene("digits", (Thing("red", 7, 0), Thing("blue", 5, 1), Thing("green", 2, 3)), 1), ("red", "blue")
)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_true_solution_passes_its_own_checks(domain):
    rng = random.Random(domain)
    for _ in range(100):
        question = sample_question(domain, rng)
        steps = [step.text for step in question.solution]
        assert all(check_step(question, step) for step in steps)
        assert check_answer(question, steps)
        assert 2 <= len(steps) <= 6


@pytest.mark.parametrize(
    ("domain", "things", "operands", "answer"),
    [
        ("count", (("red", 7), ("blue", 8)), ("red", "blue"), "15"),
        ("chart", (("red", 2), ("blue", 9)), ("red", "blue"), "7"),
        ("compute", (("red", 9), ("blue", 9), ("green", 9)), ("red", "green", "blue"), "27"),
        ("order", (("red", 4), ("blue", 9), ("green", 1)), (), "8"),
        ("compare", (("red", 4), ("blue", 9)), ("red", "blue"), "blue"),
        ("compare", (("red", 4), ("blue", 4)), ("red", "blue"), "same"),
        ("presence", (("red", 4),), ("red",), "red"),
        ("succession", (("red", 4),), ("12",), "14"),
    ],
)
def test_answers_worked_out_by_hand(domain, things, operands, answer):
    scene = Scene(DOMAINS[domain][0], tuple(Thing(c, v, slot) for slot, (c, v) in enumerate(things)), 0)
    assert Question(domain, scene, operands).answer == answer


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("red 7", True),
        ("green 2", True),  # true of the image, though not asked
        ("red 6", False),
        ("yellow 7", False),
        ("7 and 5 is 12", True),
        ("5 and 7 is 12", True),
        ("7 and 5 is 13", False),
        ("6 and 6 is 12", False),  # right arithmetic of misread numbers
        ("  7 and 5  is 12 ", True),
        ("answer 12", True),
        ("answer 012", False),
        ("12", False),
        ("red 7 blue 5", False),
        ("", False),
        ("\x00 +- ### ∫", False),
    ],
)
def test_steps_are_checked_word_for_word(step, right):
    assert check_step(TABLE, step) is right


def test_an_answer_is_the_last_steps_and_nothing_else():
    assert answer_of(["red 7", "answer 12"]) == "12"
    assert answer_of(["answer 12", "red 7"]) is None
    assert answer_of(["answer 1 2"]) is None
    assert answer_of([]) is None
    assert not check_answer(TABLE, ["12"])


def test_steps_are_the_lines_with_text():
    assert split_steps("red 7\n\n blue 5 \n") == ("red 7", "blue 5")
    assert split_steps(" \n") == ()


def test_a_question_comes_back_from_its_line():
    rng = random.Random(3)
    for domain in DOMAINS:
        question = sample_question(domain, rng)
        assert Question.from_json(question.to_json()) == question


def test_the_split_follows_from_what_is_shown_and_asked_not_from_the_pixels():
    moved = Question("table", Scene("digits", TABLE.scene.things, 99), TABLE.operands)
    asked = Question("table", TABLE.scene, ("blue", "red"))
    assert (moved.identity, moved.split) == (TABLE.identity, TABLE.split)
    assert asked.identity != TABLE.identity


def test_splits_are_dealt_by_their_shares():
    rng = random.Random(0)
    drawn = [sample_question("compute", rng).split for _ in range(3000)]
    for name, share in SPLITS.items():
        assert abs(drawn.count(name) / 3000 - share / 100) < 0.04  # 4 standard deviations at most
    assert {sample_question("count", rng, ["meta"]).split for _ in range(20)} == {"meta"}


def test_shared_questions_are_found():
    rng = random.Random(0)
    train = [sample_question("chart", rng, ["train"]) for _ in range(20)]
    test = [sample_question("chart", rng, ["test"]) for _ in range(20)]
    check_disjoint(train=train, test=test)
    with pytest.raises(ValueError, match="'train' and in split 'test'"):
        check_disjoint(train=train, test=[*test, train[3]])


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="count, chart"):
        sample_question("poetry", random.Random(0))
    with pytest.raises(ValueError, match="among train"):
        sample_question("count", random.Random(0), ["dev"])
