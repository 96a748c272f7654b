"""Conjugate gradients."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import _checks as checks
from .. import _members as members
from .. import _tree as tree
from .._types import Tensors
from ..status import Status
from .solver import Ends, Matvec, Solution, damped, rescaled


@dataclass(frozen=True)
class CG:
    """Conjugate gradients for a symmetric positive definite A: (A + damping) x = b.

    Exact after as many iterations as A has distinct eigenvalues, up to rounding. The residual that is tested is the
    true one: when the recurrence claims convergence it is computed afresh, and if it is not small enough the method
    starts again from where it is. Each iteration waits for the device, to decide whether to go on. Under vmap each
    member of the batch ends for itself, and the loop when all have.

    Args:
        max_iterations: the most products with A, restarts included.
        tolerance: the relative residual ‖b - A x‖ / ‖b‖ to reach.
        damping: added to A's diagonal.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Hestenes & Stiefel, 1952. On negative curvature the iterate before it is returned, as in Steihaug, 1983.
    """

    max_iterations: int = 100
    tolerance: float = 1e-6
    damping: float = 0.0

    symmetric_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.count("CG", "max_iterations", self.max_iterations)
        checks.number("CG", "tolerance", self.tolerance, above=0.0)
        checks.number("CG", "damping", self.damping, least=0.0)

    @rescaled
    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The solution, the iterate that converged included."""
        apply = damped(matvec, self.damping)
        size = tree.norm(rhs)
        ends = Ends(size)
        x, residual = tree.zeros_like(rhs), rhs
        direction, square = residual, tree.dot(residual, residual)
        for iteration in range(1, self.max_iterations + 1):
            image = apply(direction)
            curvature = tree.dot(direction, image)
            finite = tree.all_finite(image)
            wrong = ~(curvature > 0.0)
            ends.end(wrong & finite, Status.NEGATIVE_CURVATURE, iteration, tree.norm(residual))
            ends.end(wrong & ~finite, Status.NOT_FINITE, iteration, tree.norm(residual))
            step = members.ratio(square, curvature, ends.going)
            x = members.choose(ends.going, tree.add(x, direction, step), x)
            residual = members.choose(ends.going, tree.add(residual, image, -step), residual)
            new_square = tree.dot(residual, residual)
            claimed = ends.going & (new_square.sqrt() <= self.tolerance * size)
            if members.anyone(claimed):
                residual = members.choose(claimed, tree.add(rhs, apply(x), -1.0), residual)
                length = tree.norm(residual)
                ends.end(claimed & (length <= self.tolerance * size), Status.CONVERGED, iteration, length)
                new_square = tree.dot(residual, residual)
            if not members.anyone(ends.going):
                return ends.solution(x)
            turn = members.ratio(new_square, square, ends.going & ~claimed)
            direction, square = tree.add(residual, direction, turn), new_square
        length = tree.norm(tree.add(rhs, apply(x), -1.0))
        ends.end(length <= self.tolerance * size, Status.CONVERGED, self.max_iterations, length)
        ends.end(torch.isfinite(length), Status.ITERATION_LIMIT, self.max_iterations, length)
        ends.end(ends.going, Status.NOT_FINITE, self.max_iterations, length)
        return ends.solution(x)
