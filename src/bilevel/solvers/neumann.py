"""The Neumann series."""

from dataclasses import dataclass

import torch

from .. import _checks as checks
from .. import _members as members
from .. import _tree as tree
from .._types import Tensors
from ..status import Status
from .solver import Ends, Matvec, Solution, damped, rescaled


@dataclass(frozen=True)
class Neumann:
    """The truncated series  x = scale Σ_{i<terms} (I - scale (A + damping))^i b.

    Converges for 0 < scale < 2 / (largest eigenvalue); the error after n terms is at most ρ^n times the solution,
    ρ = max |1 - scale eigenvalue|, and the residual is exactly the n-th term over ‖b‖. The ratio of one term's norm
    to the one before never falls when A is symmetric: once a term is longer than the last, the series diverges, and
    the sum up to there is returned with that status.

    Args:
        terms: the most terms.
        scale: the step; the inner learning rate is a natural choice.
        tolerance: stop early once the relative residual is this small.
        damping: added to A's diagonal.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Lorraine et al., arXiv 1911.02590, algorithm 3.
    """

    terms: int = 100
    scale: float = 0.1
    tolerance: float = 1e-6
    damping: float = 0.0

    def __post_init__(self) -> None:
        checks.count("Neumann", "terms", self.terms)
        checks.number("Neumann", "scale", self.scale, above=0.0)
        checks.number("Neumann", "tolerance", self.tolerance, above=0.0)
        checks.number("Neumann", "damping", self.damping, least=0.0)

    @rescaled
    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The sum of the series and its residual."""
        apply = damped(matvec, self.damping)
        size = last = tree.norm(rhs)
        ends = Ends(size)
        term, total = rhs, tree.zeros_like(rhs)
        for count in range(1, self.terms + 1):
            total = members.choose(ends.going, tree.add(total, term), total)
            term = members.choose(ends.going, tree.add(term, apply(term), -self.scale), term)
            length = tree.norm(term)
            ends.end(length <= self.tolerance * size, Status.CONVERGED, count, length)
            ends.end(~torch.isfinite(length), Status.NOT_FINITE, count, length)
            # The slack is the rounding of one term in float32: a singular A keeps its length exactly.
            ends.end(length > last * (1 + 1e-5), Status.DIVERGED, count, length)
            if not members.anyone(ends.going):
                break
            last = length
        ends.end(ends.going, Status.ITERATION_LIMIT, self.terms, last)
        return ends.solution(tree.scale(total, self.scale))
