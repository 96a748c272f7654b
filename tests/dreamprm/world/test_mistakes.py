import random

import pytest

from dreamprm.world.mistakes import MISREAD, Carelessness, careless_solution
from dreamprm.world.questions import DOMAINS, Question, check_step, sample_question
from dreamprm.world.scene import Scene, Thing

NEVER = Carelessness(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_careful_solver_is_right(domain):
    rng = random.Random(domain)
    for _ in range(50):
        question = sample_question(domain, rng)
        assert careless_solution(question, NEVER, rng) == question.solution


def test_a_misreading_is_carried_on_rightly():
    things = (Thing("red", 9, 0), Thing("blue", 2, 1))
    question = Question("count", Scene("dots", things, 0), ("red", "blue"))
    always = Carelessness(1.0, 0.0, 0.0, 0.0, 0.0)
    steps = [step.text for step in careless_solution(question, always, random.Random(0))]
    assert MISREAD["dots"][9] == 8
    assert steps == ["red 8", "blue 2", "8 and 2 is 10", "answer 10"]
    assert [check_step(question, step) for step in steps] == [False, True, False, False]


def test_a_dropped_carry_enters_the_next_sum():
    things = tuple(Thing(colour, 9, slot) for slot, colour in enumerate(("red", "blue", "green")))
    question = Question("compute", Scene("digits", things, 0), ("red", "blue", "green"))
    steps = careless_solution(question, Carelessness(0.0, 0.0, 1.0, 0.0, 0.0), random.Random(0))
    assert [step.text for step in steps[3:]] == ["9 and 9 is 8", "8 and 9 is 7", "answer 7"]


def test_mistakes_come_at_their_rates():
    things = (Thing("red", 6, 0), Thing("blue", 1, 1))
    question = Question("table", Scene("digits", things, 0), ("red", "blue"))
    rng = random.Random(0)
    rates = Carelessness()
    read = [careless_solution(question, rates, rng)[0].text for _ in range(2000)]
    assert abs(read.count("red 5") / 2000 - rates.misread) < 0.045  # four standard deviations


def test_a_rate_is_a_probability():
    with pytest.raises(ValueError, match="carry is a probability"):
        Carelessness(carry=1.5)
