"""Conjugate gradients on the normal equations."""

from dataclasses import dataclass

from .. import _checks as checks
from .. import _tree as tree
from .._functional import vjp
from .._types import Tensors
from ..status import Status
from .solver import Matvec, Solution, rescaled


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
        size, normal = float(tree.norm(rhs)), pull(rhs)[0]
        x, residual = tree.zeros_like(normal), rhs
        first = float(tree.norm(normal))
        transposed, direction, square = 1, normal, tree.dot(normal, normal)
        by_normal = self.least_squares or self.damping > 0
        for iteration in range(1, self.max_iterations + 1):
            if first == 0.0:  # b is orthogonal to the range of A: 0 is the least-squares solution
                status = Status.CONVERGED if by_normal else Status.SINGULAR
                return Solution(x, status, iteration - 1, 1.0, transposed=transposed)
            image = matvec(direction)
            curvature = tree.dot(image, image) + self.damping * tree.dot(direction, direction)
            if not 0.0 < float(curvature) < float("inf"):
                bad = Status.SINGULAR if float(curvature) == 0.0 else Status.NOT_FINITE
                return Solution(x, bad, iteration, float(tree.norm(residual)) / size, transposed=transposed)
            step = square / curvature
            x, residual = tree.add(x, direction, step), tree.add(residual, image, -step)
            normal = tree.add(pull(residual)[0], x, -self.damping)
            transposed += 1
            new = tree.dot(normal, normal)
            left = float(new) ** 0.5 / first if by_normal else float(tree.norm(residual)) / size
            if left <= self.tolerance:
                relative = float(tree.norm(tree.add(rhs, matvec(x), -1.0))) / size
                if by_normal or relative <= self.tolerance:
                    return Solution(x, Status.CONVERGED, iteration, relative, transposed=transposed)
            if not by_normal and float(new) ** 0.5 <= 100 * tree.eps(rhs) * first:  # stationary, and yet a residual
                return Solution(x, Status.SINGULAR, iteration, left, transposed=transposed)
            direction, square = tree.add(normal, direction, new / square), new
        relative = float(tree.norm(tree.add(rhs, matvec(x), -1.0))) / size
        status = Status.ITERATION_LIMIT if relative < float("inf") else Status.NOT_FINITE
        return Solution(x, status, self.max_iterations, relative, transposed=transposed)
