"""Conjugate gradients on the normal equations."""

from dataclasses import dataclass

import torch

from .. import _checks as checks
from .. import _members as members
from .. import _tree as tree
from .._functional import vjp
from .._types import Tensors
from ..status import Status
from .solver import Ends, Matvec, Solution, rescaled


@dataclass(frozen=True)
class NormalCG:
    """min_x ‖A x - b‖² + damping ‖x‖² for any A, rectangular too, by conjugate gradients on AᵀA.

    Aᵀ is the reverse pass of x -> A x. Never breaks down; but the condition number is squared: of a matrix with 1e4
    it is slow, and in float32 beyond it inexact. The iterates stay in the range of Aᵀ, so of several solutions the
    shortest is found.

    Args:
        max_iterations: the most iterations, each one product with A and one with Aᵀ.
        tolerance: of ‖b - A x‖ / ‖b‖; with least_squares or damping of ‖Aᵀ(b - A x) - damping x‖ / ‖Aᵀ b‖ instead.
        least_squares: b need not be in the range of A: the residual that is left is no failure.
        damping: added to AᵀA's diagonal; differs from the other solvers, which add it to A's.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Hestenes & Stiefel, 1952, section 10 (CGNR).
    """

    max_iterations: int = 200
    tolerance: float = 1e-6
    least_squares: bool = False
    damping: float = 0.0

    def __post_init__(self) -> None:
        checks.count("NormalCG", "max_iterations", self.max_iterations)
        checks.number("NormalCG", "tolerance", self.tolerance, above=0.0)
        checks.number("NormalCG", "damping", self.damping, least=0.0)

    @rescaled
    def solve(self, matvec: Matvec, rhs: Tensors, like: Tensors | None = None) -> Solution:
        """The solution, shaped as `like` (as rhs where None)."""
        pull = vjp(matvec, tree.zeros_like(rhs if like is None else like))
        size, normal = tree.norm(rhs), pull(rhs)[0]
        ends = Ends(size)
        x, residual = tree.zeros_like(normal), rhs
        first = tree.norm(normal)
        transposed, direction, square = 1, normal, tree.dot(normal, normal)
        by_normal = self.least_squares or self.damping > 0
        # b is orthogonal to the range of A: 0 is the least-squares solution.
        ends.end(first == 0.0, Status.CONVERGED if by_normal else Status.SINGULAR, 0, size)
        for iteration in range(1, self.max_iterations + 1):
            if not members.anyone(ends.going):
                break
            image = matvec(direction)
            curvature = tree.dot(image, image) + self.damping * tree.dot(direction, direction)
            ends.end(curvature == 0.0, Status.SINGULAR, iteration, tree.norm(residual))
            ends.end(~torch.isfinite(curvature), Status.NOT_FINITE, iteration, tree.norm(residual))
            step = members.ratio(square, curvature, ends.going)
            x = members.choose(ends.going, tree.add(x, direction, step), x)
            residual = members.choose(ends.going, tree.add(residual, image, -step), residual)
            normal = tree.add(pull(residual)[0], x, -self.damping)
            transposed += 1
            new = tree.dot(normal, normal)
            along, length = new.sqrt(), tree.norm(residual)
            claimed = ends.going & (along <= self.tolerance * first if by_normal else length <= self.tolerance * size)
            if members.anyone(claimed):
                true = tree.norm(tree.add(rhs, matvec(x), -1.0))
                enough = claimed if by_normal else claimed & (true <= self.tolerance * size)
                ends.end(enough, Status.CONVERGED, iteration, true)
            if not by_normal:  # stationary, and yet a residual
                ends.end(along <= 100 * tree.eps(rhs) * first, Status.SINGULAR, iteration, length)
            direction = tree.add(normal, direction, members.ratio(new, square, ends.going))
            square = new
        true = tree.norm(tree.add(rhs, matvec(x), -1.0))
        ends.end(torch.isfinite(true), Status.ITERATION_LIMIT, self.max_iterations, true)
        ends.end(ends.going, Status.NOT_FINITE, self.max_iterations, true)
        return ends.solution(x, transposed=transposed)
