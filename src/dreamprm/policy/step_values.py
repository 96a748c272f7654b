"""Labels of a chain's steps from completions: of every prefix, or by a search for the first error.

A labeller is a generator: it yields the prefixes it wants completed and how often, is sent how many completions of each
came out right, and returns its `StepLabels`. `run_labellers` advances many chains together, so that their completions
share batches whatever each of them asks for next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from dreamprm.data.record import Record
from dreamprm.policy.sampling import Prefix

__all__ = ["Labeller", "StepLabels", "binary_search", "every_prefix", "run_labellers"]


@dataclass(frozen=True, slots=True)
class StepLabels:
    """values: of each step, the share of right completions.  used: completions that it took.  full: completions that
    every prefix would have taken."""

    values: tuple[float, ...]
    used: int
    full: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Complete `prefix` `num` times; `name` tells these completions from others of the same prefix."""

    prefix: Prefix
    num: int
    name: str


Labeller = Generator[list[Ask], list[int], StepLabels]


def every_prefix(
    record: Record, whole_is_right: bool, num: int, *, most: int | None = None, early_stop: bool = False
) -> Labeller:
    """p_i = right completions of (question, steps 1..i) / completions, in [0, 1]; of the whole chain 0 or 1.

    most: a prefix whose completions are all right, or all wrong, is completed `num` times more, until they differ or
    there are `most`.  early_stop: after the first step with p_i = 0 every later one is 0 too, and nothing is spent on
    it. Sources: Math-Shepherd (arXiv 2312.08935, eq. 4), VisualPRM (arXiv 2503.10291).
    """
    stops = range(1, len(record.steps))
    values: list[float] = []
    used = 0
    for group in [[stop] for stop in stops] if early_stop else [list(stops)]:
        right = dict.fromkeys(group, 0)
        total = dict.fromkeys(group, 0)
        open_ones = list(group)
        while open_ones:
            asks = [Ask(_prefix(record, stop), num, f"{stop}.{total[stop]}") for stop in open_ones]
            for stop, count in zip(open_ones, (yield asks), strict=True):
                right[stop] += count
                total[stop] += num
                used += num
            open_ones = [s for s in open_ones if right[s] in (0, total[s]) and total[s] + num <= (most or 0)]
        values += [right[stop] / total[stop] for stop in group]
        if early_stop and values[-1] == 0.0:
            break
    last = float(whole_is_right)
    values += [0.0] * (len(record.steps) - 1 - len(values))
    return StepLabels((*values, last), used, len(stops) * num)


def binary_search(record: Record, whole_is_right: bool, num: int) -> Labeller:
    """The first step from which no completion comes out right, found by halving: log2(steps) prefixes, not all.

    Steps before it that were looked at have their share of right completions, others 1; it and all later ones 0.
    A chain whose answer is right has no error to look for: all its steps are 1. Source: OmegaPRM (arXiv 2406.06592).
    """
    length = len(record.steps)
    if whole_is_right:
        return StepLabels((1.0,) * length, 0, (length - 1) * num)
    seen: dict[int, float] = {}
    good, bad = 0, length  # steps 1..good can still come out right; steps 1..bad cannot
    while bad - good > 1:
        middle = (good + bad) // 2
        (count,) = yield [Ask(_prefix(record, middle), num, f"{middle}.0")]
        seen[middle] = count / num
        good, bad = (middle, bad) if count else (good, middle)
    values = tuple(seen.get(stop, 1.0) if stop < bad else 0.0 for stop in range(1, length + 1))
    return StepLabels(values, len(seen) * num, (length - 1) * num)


def run_labellers(
    labellers: Sequence[Labeller],
    records: Sequence[Record],
    complete: Callable[[list[Ask], list[Record]], list[list[str]]],
    is_right: Callable[[Record, str], bool],
) -> list[StepLabels]:
    """Advance all labellers until each has returned. complete: whole responses for every ask, as many as it wants."""
    results: list[StepLabels | None] = [None] * len(labellers)
    wanted: dict[int, list[Ask]] = {}

    def advance(place: int, counts: list[int] | None) -> None:
        try:
            # A generator that has not begun is sent nothing.
            wanted[place] = next(labellers[place]) if counts is None else labellers[place].send(counts)
        except StopIteration as end:
            results[place] = end.value

    for place in range(len(labellers)):
        advance(place, None)
    while wanted:
        asked, wanted = wanted, {}
        flat = [(place, ask) for place, asks in asked.items() for ask in asks]
        responses = complete([ask for _, ask in flat], [records[place] for place, _ in flat])
        counts: dict[int, list[int]] = {place: [] for place in asked}
        for (place, _), texts in zip(flat, responses, strict=True):
            counts[place].append(sum(is_right(records[place], text) for text in texts))
        for place, found in counts.items():
            advance(place, found)
    return [result for result in results if result is not None]


def _prefix(record: Record, stop: int) -> Prefix:
    return Prefix(record.question, record.images, "\n".join(record.steps[:stop]) + "\n")
