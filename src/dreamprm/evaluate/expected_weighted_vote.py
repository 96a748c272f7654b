"""The vote weighted by a PRM over all subsets of N of K candidates, exactly.

Every candidate adds its score to its answer; the answer with the largest sum wins (see `expected_vote` for what an
answer's right is, for ties and for candidates without an answer). An answer j wins with a subset S of its candidates,
of sum s, where every other answer's subset has a smaller sum, or the same and shares the win:
    Σ_S z^|S| ∫ Π_{i≠j} (L_i(s; z) + y E_i(s; z)) dy (1 + z)^silent,
L_i and E_i counting by size the subsets of i with a sum below s and equal to s. Only the subsets of the smaller answers
are walked through: the largest answer wins where no other does and somebody votes. So 32 candidates never cost more
than 2^16 thresholds, and those of real questions a few dozen.

Shapes: K candidates; T thresholds; polynomials are (…, K + 1), see `expected_vote`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray

from dreamprm.evaluate.expected_vote import Ballot, binomials, share_nodes, times
from dreamprm.selection import TIE

__all__ = ["MOST_WORK", "expected_weighted_vote", "work"]

MOST_WORK = 2.0e8
"""Comparisons of sums per question, about ten seconds; two answers of 16 candidates take 1e6, of 8 and 24 1e7."""


def work(ballot: Ballot) -> float:
    """About how many comparisons of sums the exact expectation takes."""
    sizes = sorted(len(member) for member in ballot.members)
    if len(sizes) < 2:
        return 0.0
    thresholds = sum(2.0**size for size in sizes[:-1])
    return thresholds + min(_whole(sizes[-1]), _halved(sizes[-1], thresholds))


def _whole(size: int) -> float:
    return 8.0 * 2.0**size  # they must be sorted


def _halved(size: int, thresholds: float) -> float:
    return thresholds * 2.0 ** ((size + 1) // 2) * (size // 2 + 1)


def expected_weighted_vote(ballot: Ballot, votes: Float[ndarray, " K"]) -> Float[ndarray, " K"]:
    """E[right of the answer with the largest sum of votes] over the subsets of every size.

    votes: not negative. Raises ValueError for a negative one or NaN, and where it would take more than MOST_WORK.
    """
    if not (votes >= 0).all():
        raise ValueError("votes must not be negative or NaN; aggregate to a probability (e.g. 'mean') before voting")
    if work(ballot) > MOST_WORK:
        raise ValueError(f"{ballot.total} candidates are too many for an exact weighted vote")
    curve = ballot.unvoted(votes)
    if not ballot.members:
        return curve
    order = sorted(range(len(ballot.members)), key=lambda answer: len(ballot.members[answer]))
    classes = [_Answer(votes[ballot.members[answer]]) for answer in order]
    left = 1.0 - ballot.no_vote()
    for place, answer in enumerate(order[:-1]):
        rivals = classes[:place] + classes[place + 1 :]
        wins = _wins(classes[place], rivals, len(ballot.silent), ballot.total)
        curve = curve + ballot.right[answer] * wins
        left = left - wins
    return curve + ballot.right[order[-1]] * left


class _Answer:
    """The votes of one answer's candidates: how many of its subsets have a sum below a threshold."""

    def __init__(self, votes: Float[ndarray, " c"]) -> None:
        self.size = len(votes)
        self._votes = np.sort(votes)

    @cached_property
    def whole(self) -> list[ndarray]:
        """The sums of all subsets by size."""
        return _by_size(self._votes)

    @cached_property
    def halves(self) -> tuple[list[ndarray], list[ndarray]]:
        """Those of two halves, of every second candidate each, so that both have sums of the same scale."""
        return _by_size(self._votes[::2]), _by_size(self._votes[1::2])

    def subsets(self) -> tuple[Float[ndarray, " T"], ndarray, Float[ndarray, " T"]]:
        """(sum, size, how many) of its different subsets, the empty one left out."""
        found = [np.unique(np.round(values, 13), return_counts=True) for values in self.whole[1:]]
        sizes = np.repeat(np.arange(1, self.size + 1), [len(sums) for sums, _ in found])
        return np.concatenate([sums for sums, _ in found]), sizes, np.concatenate([n for _, n in found]).astype(float)

    def below(self, bounds: Float[ndarray, " T"]) -> Float[ndarray, "T c+1"]:
        """Per threshold and size the number of subsets whose sum is below it; the empty one is below any.

        Counted in the sorted sums of all subsets, or where there are few thresholds for many subsets met in the middle:
        for each subset of one half, those of the other half that leave the sum below.
        """
        if _whole(self.size) <= _halved(self.size, len(bounds)):
            out = np.stack([np.searchsorted(values, bounds) for values in self.whole], axis=1).astype(float)
        else:
            out = np.zeros((len(bounds), self.size + 1))
            one, two = self.halves
            for chunk in np.array_split(np.arange(len(bounds)), max(1, len(bounds) // 64)):
                for first, left in enumerate(one):
                    rest = rearrange(bounds[chunk, None] - left[None], "t left -> (t left)")
                    for second, right in enumerate(two):
                        below = np.searchsorted(right, rest)
                        out[chunk, first + second] += rearrange(below, "(t left) -> t left", left=len(left)).sum(1)
        out[:, 0] = 1.0
        return out


def _by_size(votes: Float[ndarray, " c"]) -> list[ndarray]:
    """The sums of all subsets, sorted, one array per size."""
    sums: list[ndarray] = [np.zeros(1)]
    for vote in votes:
        longer = [*sums, np.empty(0)]
        sums = [
            np.concatenate([longer[size], sums[size - 1] + vote]) if size else longer[0] for size in range(len(longer))
        ]
    return [np.sort(values) for values in sums]


def _wins(answer: _Answer, rivals: list[_Answer], silent: int, total: int) -> Float[ndarray, " K"]:
    """P(the answer wins), its ties shared."""
    sums, sizes, counts = answer.subsets()
    slack = TIE * np.maximum(1.0, sums)
    bounds = np.concatenate([sums - slack, sums + slack])
    both = [np.split(rival.below(bounds), 2) for rival in rivals]
    below = [low for low, _ in both]
    equal = [high - low for low, high in both]  # the empty subset is below any, never equal
    tied = np.any([np.any(part > 0, axis=1) for part in equal], axis=0)
    counted = _counted(below, equal, (sums, sizes, counts), ~tied, 0, silent, total)
    counted += _counted(below, equal, (sums, sizes, counts), tied, len(rivals), silent, total)
    return counted[1:] / binomials(total)[1:]


def _counted(
    below: list[ndarray],
    equal: list[ndarray],
    subsets: tuple[ndarray, ndarray, ndarray],
    rows: ndarray,
    degree: int,
    silent: int,
    total: int,
) -> Float[ndarray, " K+1"]:
    """The number of subsets of every size that are won with one of the thresholds in `rows`."""
    counted = np.zeros(total + 1)
    _, sizes, counts = (part[rows] for part in subsets)
    if not len(sizes):
        return counted
    for y, weight in zip(*share_nodes(degree)):
        product = np.zeros((len(sizes), total + 1))
        product[:, 0] = counts * weight
        for low, same in zip(below, equal):
            product = times(product, low[rows] + y * same[rows])
        for size in np.unique(sizes):
            counted[size:] += product[sizes == size].sum(0)[: total + 1 - size]
    return times(counted[None], binomials(silent)[None])[0]
