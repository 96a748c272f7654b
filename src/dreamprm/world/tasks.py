"""The questions of the world and their true solutions, step by step.

A task turns the numbers of a scene into a question and a solution. Its steps are short sentences over a closed
vocabulary: `red 3` reads a value, `3 and 5 is 8` computes, `answer 8` ends. What makes a step right is a property of
the image and the question alone, never of the steps before it: a sum of misread numbers is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dreamprm.world.scene import Scene

__all__ = ["TASKS", "Solution", "Step", "Task"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a solution before it becomes words.

    kind: read, add, take, pick or say.  words: its arguments, the last of which is what the step concludes.
    """

    kind: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The step as a sentence."""
        return _SENTENCES[self.kind].format(*self.words)


Solution = tuple[Step, ...]
_SENTENCES = {
    "read": "{} {}",
    "add": "{} and {} is {}",
    "take": "{} less {} is {}",
    "more": "{} over {} so {}",
    "most": "most {}",
    "least": "least {}",
    "next": "{} then {}",
    "see": "{} is here",
    "say": "answer {}",
}


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of question: how many operands it names, how many things its scenes show, its words and its solution."""

    num_operands: int
    num_things: tuple[int, int]
    ask: Callable[[tuple[str, ...]], str]
    solve: Callable[[tuple[str, ...], dict[str, int]], Solution]


def _step(kind: str, *words: str | int) -> Step:
    return Step(kind, tuple(str(word) for word in words))


def _solve_sum(operands: tuple[str, ...], values: dict[str, int]) -> Solution:
    first, second = operands
    a, b = values[first], values[second]
    return _step("read", first, a), _step("read", second, b), _step("add", a, b, a + b), _step("say", a + b)


def _solve_gap(operands: tuple[str, ...], values: dict[str, int]) -> Solution:
    first, second = operands
    a, b = values[first], values[second]
    high, low = max(a, b), min(a, b)
    reads = _step("read", first, a), _step("read", second, b)
    return *reads, _step("take", high, low, high - low), _step("say", high - low)


def _solve_both(operands: tuple[str, ...], values: dict[str, int]) -> Solution:
    a, b, c = (values[name] for name in operands)
    reads = tuple(_step("read", name, values[name]) for name in operands)
    return *reads, _step("add", a, b, a + b), _step("add", a + b, c, a + b + c), _step("say", a + b + c)


def _solve_range(operands: tuple[str, ...], values: dict[str, int]) -> Solution:
    high, low = max(values.values()), min(values.values())
    return (
        _step("most", high),
        _step("least", low),
        _step("take", high, low, high - low),
        _step("say", high - low),
    )


def _solve_larger(operands: tuple[str, ...], values: dict[str, int]) -> Solution:
    first, second = operands
    a, b = values[first], values[second]
    winner = "same" if a == b else first if a > b else second
    return (
        _step("read", first, a),
        _step("read", second, b),
        _step("more", max(a, b), min(a, b), winner),
        _step("say", winner),
    )


def _solve_seen(operands: tuple[str, ...], values: dict[str, int]) -> Solution:
    return _step("see", operands[0]), _step("say", operands[0])


def _solve_next(operands: tuple[str, ...], values: dict[str, int]) -> Solution:
    # Off the target on purpose: the question itself holds the number, the image does not matter.
    start = int(operands[0])
    return _step("next", start, start + 1), _step("next", start + 1, start + 2), _step("say", start + 2)


TASKS: dict[str, Task] = {
    "sum": Task(2, (2, 4), lambda o: f"{o[0]} and {o[1]} ?", _solve_sum),
    "gap": Task(2, (2, 4), lambda o: f"{o[0]} less {o[1]} ?", _solve_gap),
    "both": Task(3, (3, 4), lambda o: f"{o[0]} and {o[1]} and {o[2]} ?", _solve_both),
    "range": Task(0, (2, 4), lambda o: "most less least ?", _solve_range),
    "larger": Task(2, (2, 4), lambda o: f"{o[0]} or {o[1]} ?", _solve_larger),
    "seen": Task(1, (1, 4), lambda o: f"is {o[0]} here ?", _solve_seen),
    "next": Task(1, (1, 4), lambda o: f"after {o[0]} ?", _solve_next),
}


def readings(scene: Scene) -> frozenset[str]:
    """Every true sentence that reads one value of the scene."""
    return frozenset(_step("read", colour, value).text for colour, value in scene.values.items())
