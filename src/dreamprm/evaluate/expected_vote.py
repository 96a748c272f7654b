"""Self-consistency over all subsets of N of K candidates, exactly.

A vote chooses an answer, and the answer is as right as the share of its candidates that are right (all or none of them
where a judge looked at the answer alone). Answers with equally many votes share the win. A candidate without an answer
does not vote; a subset in which nobody votes chooses any of its candidates.

Shapes: K candidates, m answers; a curve is (K,), its place N - 1 for subsets of N; polynomials are (…, K + 1), the
coefficient of z^N counting subsets of N.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dreamprm.evaluate.expected_choice import expected_choice, subset_shares

__all__ = ["MOST_CANDIDATES", "Ballot", "binomials", "expected_majority", "share_nodes", "times"]

MOST_CANDIDATES = 1000
"""C(1000, 500) is 2.7e299: with more candidates the counts leave float64."""


class Ballot:
    """The candidates of one question by their answers. members: rows of each answer; silent: rows without an answer."""

    def __init__(self, answers: tuple[str | None, ...], right: Float[ndarray, " K"]) -> None:
        if len(answers) > MOST_CANDIDATES:
            raise ValueError(f"votes are counted over at most {MOST_CANDIDATES} candidates, are {len(answers)}")
        rows: dict[str, list[int]] = {}
        for row, answer in enumerate(answers):
            if answer is not None:
                rows.setdefault(answer, []).append(row)
        self.total = len(answers)
        self.members = [np.asarray(rows[answer]) for answer in sorted(rows)]  # the order of rows must not matter
        self.silent = np.asarray([row for row, answer in enumerate(answers) if answer is None], dtype=np.intp)
        self.right = np.asarray([right[member].mean() for member in self.members])
        self._right = right

    def unvoted(self, values: Float[ndarray, " K"]) -> Float[ndarray, " K"]:
        """P(nobody in the subset votes) times the expected right of the highest value in it."""
        curve = np.zeros(self.total)
        if len(self.silent):
            chosen = expected_choice(values[self.silent], self._right[self.silent])
            curve[: len(self.silent)] = chosen * self.no_vote()[: len(self.silent)]
        return curve

    def no_vote(self) -> Float[ndarray, " K"]:
        """P(nobody in the subset votes)."""
        return subset_shares(self.total)[len(self.silent)]


def expected_majority(ballot: Ballot) -> Float[ndarray, " K"]:
    """E[right of the most frequent answer] over the subsets of every size."""
    curve = ballot.unvoted(np.zeros(ballot.total))
    sizes = [len(member) for member in ballot.members]
    wins = _wins(tuple(sorted(sizes)), len(ballot.silent))
    for size, right in zip(sizes, ballot.right):
        curve = curve + right * wins[size]
    return curve


@lru_cache(maxsize=4096)
def _wins(sizes: tuple[int, ...], silent: int) -> dict[int, Float[ndarray, " K"]]:
    """size -> P(an answer of that many candidates wins), its ties shared.

    An answer wins with k votes where every other answer i has fewer, or as many and shares the win. With t others tied
    its share is 1 / (1 + t) = ∫ y^t dy over [0, 1], so with C the binomial coefficients,
        Σ_k C(c_j, k) z^k ∫ Π_{i≠j} (Σ_{x<k} C(c_i, x) z^x + y C(c_i, k) z^k) dy (1 + z)^silent
    counts the subsets of N that j wins as its coefficient of z^N. The integrand is a polynomial in y, for which
    Gauss's quadrature is exact.
    """
    total = sum(sizes) + silent
    all_subsets = binomials(total)
    found: dict[int, ndarray] = {}
    for size in set(sizes):
        others = list(sizes)
        others.remove(size)
        counted = np.zeros(total + 1)
        for votes in range(1, size + 1):
            rivals = [other for other in others if other >= votes]
            free = silent + sum(others) - sum(rivals)  # answers that cannot reach so many votes, and the silent
            y, weight = share_nodes(len(rivals))
            product = np.zeros((len(y), total + 1))
            product[:, votes : votes + free + 1] = binomials(size)[votes] * binomials(free)
            for rival in rivals:
                factor = np.repeat(binomials(rival)[None, : votes + 1], len(y), axis=0)
                factor[:, votes] *= y
                product = times(product, factor)
            counted += weight @ product
        found[size] = counted[1:] / all_subsets[1:]
    return found


def share_nodes(degree: int) -> tuple[ndarray, ndarray]:
    """Nodes and weights that integrate polynomials of at most this degree over [0, 1] exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (nodes + 1) / 2, weights / 2


def times(product: Float[ndarray, "Y K+1"], factor: Float[ndarray, "Y D"]) -> Float[ndarray, "Y K+1"]:
    """Row by row the product of two polynomials, cut at the first one's length (higher powers have no subsets)."""
    out = np.zeros_like(product)
    for power in range(factor.shape[1]):
        out[:, power:] += factor[:, power : power + 1] * product[:, : product.shape[1] - power]
    return out


@lru_cache(maxsize=1024)
def binomials(n: int) -> Float[ndarray, " n+1"]:
    """C(n, 0 … n)."""
    from math import comb

    row = np.asarray([float(comb(n, k)) for k in range(n + 1)])
    row.flags.writeable = False
    return row
