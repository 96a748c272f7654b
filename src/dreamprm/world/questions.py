"""Questions of a domain: sampling, a stable identity, the split that follows from it, and exact checks of any answer.

The split of a question is a function of its identity (domain's task and style, what the image shows, what is asked)
and of nothing else, so the splits share no question whatever the seeds.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dreamprm.world.scene import Scene, Thing, sample_scene
from dreamprm.world.tasks import TASKS, Solution, readings

__all__ = [
    "DOMAINS",
    "OFF_TARGET",
    "SPLITS",
    "TARGETS",
    "TRIVIAL",
    "Question",
    "answer_of",
    "check_answer",
    "check_disjoint",
    "check_step",
    "sample_question",
    "split_steps",
]

# Domain -> (style of its images, task).
DOMAINS: dict[str, tuple[str, str]] = {
    "count": ("dots", "sum"),
    "chart": ("bars", "gap"),
    "table": ("digits", "sum"),
    "compute": ("digits", "both"),
    "order": ("dots", "range"),
    "compare": ("bars", "larger"),
    "presence": ("digits", "seen"),
    "succession": ("dots", "next"),
}
TARGETS = ("count", "chart", "table", "compute", "compare")
# Every policy's chain is right; the image does not matter; and one that takes a reward model of this size far longer
# to judge than the targets (each extreme asks for all values at once: .44 best-of-8 where the others are at .76).
TRIVIAL = ("presence",)
OFF_TARGET = ("succession", "order")

# Shares of all questions, in percent.
SPLITS: dict[str, int] = {"train": 50, "cold": 20, "meta": 12, "validation": 9, "test": 9}
_LARGEST_START = 16


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image: all that is needed to draw the image, ask, solve and check."""

    domain: str
    scene: Scene
    operands: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words of the question."""
        return TASKS[DOMAINS[self.domain][1]].ask(self.operands)

    @property
    def solution(self) -> Solution:
        """The true steps."""
        return TASKS[DOMAINS[self.domain][1]].solve(self.operands, self.scene.values)

    @property
    def answer(self) -> str:
        """The true final answer."""
        return self.solution[-1].words[0]

    @property
    def identity(self) -> str:
        """Sixteen hex digits that name what is shown and asked; jitter and noise of the image do not enter."""
        things = [(thing.colour, thing.value, thing.slot) for thing in self.scene.things]
        parts = json.dumps([*DOMAINS[self.domain], things, self.operands])
        return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()

    @property
    def split(self) -> str:
        """The split that this question belongs to."""
        place = int(self.identity, 16) % 100
        for name, share in SPLITS.items():
            if place < share:
                return name
            place -= share
        raise AssertionError("the shares of SPLITS sum to 100")

    def to_json(self) -> str:
        """A compact line from which `from_json` makes the same question."""
        things = [[thing.colour, thing.value, thing.slot] for thing in self.scene.things]
        return json.dumps([self.domain, self.scene.seed, things, list(self.operands)], separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Question:
        """The question of a line that `to_json` wrote."""
        domain, seed, things, operands = json.loads(line)
        scene = Scene(DOMAINS[domain][0], tuple(Thing(*thing) for thing in things), seed)
        return cls(domain, scene, tuple(operands))


def sample_question(domain: str, rng: random.Random, splits: Iterable[str] = tuple(SPLITS)) -> Question:
    """A question of a domain that belongs to one of `splits`; raises ValueError for an unknown domain or split."""
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; the world has {', '.join(DOMAINS)}")
    wanted = set(splits)
    if not wanted or not wanted <= set(SPLITS):
        raise ValueError(f"splits must be among {', '.join(SPLITS)}, are {sorted(wanted)}")
    style, name = DOMAINS[domain]
    task = TASKS[name]
    while True:
        scene = sample_scene(style, rng.randint(*task.num_things), rng)
        if name == "next":
            operands: tuple[str, ...] = (str(rng.randint(1, _LARGEST_START)),)
        else:
            operands = tuple(rng.sample([thing.colour for thing in scene.things], task.num_operands))
        question = Question(domain, scene, operands)
        if question.split in wanted:
            return question


def split_steps(response: str) -> tuple[str, ...]:
    """The steps of a policy's response: its lines that hold text."""
    return tuple(line.strip() for line in response.split("\n") if line.strip())


def answer_of(steps: Sequence[str]) -> str | None:
    """What the last step concludes, None where it is not of the form `answer WORD`."""
    words = steps[-1].split() if steps else []
    return words[1] if len(words) == 2 and words[0] == "answer" else None


@functools.lru_cache(maxsize=65536)
def _true_sentences(question: Question) -> frozenset[str]:
    sentences = {step.text for step in question.solution}
    for step in question.solution:
        if step.kind == "add":  # a sum may name its terms in either order
            first, second, total = step.words
            sentences.add(f"{second} and {first} is {total}")
    return frozenset(sentences | readings(question.scene))


def check_step(question: Question, step: str) -> bool:
    """Whether a step, any text, is right: one of the true sentences of this question, word for word.

    A step that reads another value of the image truly is right too; a malformed step is wrong.
    """
    return " ".join(step.split()) in _true_sentences(question)


def check_answer(question: Question, steps: Sequence[str]) -> bool:
    """Whether a chain, any texts, ends in the right answer."""
    return answer_of(steps) == question.answer


def check_disjoint(**splits: Iterable[Question | str]) -> None:
    """Raise ValueError where two of the named splits share a question (given as questions or as identities)."""
    seen: dict[str, str] = {}
    for name, members in splits.items():
        for member in members:
            identity = member if isinstance(member, str) else member.identity
            other = seen.setdefault(identity, name)
            if other != name:
                raise ValueError(f"question {identity} is in split {other!r} and in split {name!r}; splits must differ")
