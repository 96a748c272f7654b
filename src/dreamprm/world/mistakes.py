"""Careless solutions: what the policy learns from, so that its own samples hold mistakes of the kind people make.

Some numbers are hard to read in a style (a nine among dots passes for an eight): a careless solver misreads them, the
same way each time it does, more often than not. It drops a carry now and then, and slips by one rarely. What follows
from a slip follows correctly. Majority votes repeat a misreading that most samples share; a verifier that looks at the
image does not, which is what gives a process reward model something to do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from dreamprm.world.questions import DOMAINS, Question
from dreamprm.world.scene import LARGEST
from dreamprm.world.tasks import TASKS, Solution, Step

__all__ = ["MISREAD", "Carelessness", "careless_solution"]

# Style -> number -> the number it passes for.
MISREAD: dict[str, dict[int, int]] = {
    "digits": {6: 5, 8: 9, 3: 2},
    "dots": {9: 8, 7: 8, 5: 4},
    "bars": {8: 7, 6: 5, 3: 4},
}


@dataclass(frozen=True, slots=True)
class Carelessness:
    """Rates of mistakes per occasion: a hard number misread, any other number off by one, a carry dropped, a result
    off by one, a comparison turned round."""

    misread: float = 0.6
    slip: float = 0.06
    carry: float = 0.3
    result: float = 0.05
    turn: float = 0.25

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability in [0, 1], not {getattr(self, name)}")


def careless_solution(question: Question, rates: Carelessness, rng: random.Random) -> Solution:
    """A solution of the right form in which each occasion for a mistake is taken with its rate."""
    style, task = DOMAINS[question.domain]
    if task in ("seen", "next"):
        return question.solution
    values = {
        colour: _read(MISREAD[style], value, rates, rng) for colour, value in sorted(question.scene.values.items())
    }
    steps: list[Step] = []
    last: str | None = None  # the careless result so far, with which the next step goes on
    for step in TASKS[task].solve(question.operands, values):
        words = step.words
        if last is not None:
            words = (last, *words[1:])
        if step.kind in ("add", "take", "more"):
            words = _conclude(step.kind, words, rates, rng, question.operands)
            last = words[-1]
        steps.append(Step(step.kind, words))
    return tuple(steps)


def _read(confusions: dict[int, int], value: int, rates: Carelessness, rng: random.Random) -> int:
    if value in confusions:
        return confusions[value] if rng.random() < rates.misread else value
    if rng.random() < rates.slip:
        return min(LARGEST, max(1, value + rng.choice((-1, 1))))
    return value


def _conclude(
    kind: str, words: tuple[str, ...], rates: Carelessness, rng: random.Random, operands: tuple[str, ...]
) -> tuple[str, ...]:
    first, second = words[:2]
    if kind == "more":
        result = words[2]
        if rng.random() < rates.turn:
            result = rng.choice([word for word in (*operands, "same") if word != result])
        return first, second, result
    total = int(first) + int(second) if kind == "add" else int(first) - int(second)
    if kind == "add" and int(first) % 10 + int(second) % 10 >= 10 and rng.random() < rates.carry:
        total -= 10
    elif rng.random() < rates.result:
        total = abs(total + rng.choice((-1, 1)))
    return first, second, str(total)
