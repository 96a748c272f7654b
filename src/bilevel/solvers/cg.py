"""Conjugate gradients."""

from dataclasses import dataclass
from typing import ClassVar

from .. import _checks as checks
from .. import _tree as tree
from .._types import Tensors
from ..status import Status
from .solver import Matvec, Solution, damped, rescaled


@dataclass(frozen=True)
class CG:
    """Conjugate gradients for a symmetric positive definite A: (A + damping) x = b.

    Exact after as many iterations as A has distinct eigenvalues, up to rounding. The residual that is tested is the
    true one: when the recurrence claims convergence it is computed afresh, and if it is not small enough the method
    starts again from where it is. Each iteration waits for the device once, to decide whether to go on.

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
        size = float(tree.norm(rhs))
        x, residual = tree.zeros_like(rhs), rhs
        direction, square = residual, tree.dot(residual, residual)
        for iteration in range(1, self.max_iterations + 1):
            image = apply(direction)
            curvature = tree.dot(direction, image)
            if not float(curvature) > 0.0:
                finite = bool(tree.all_finite(image))
                status = Status.NEGATIVE_CURVATURE if finite else Status.NOT_FINITE
                return Solution(x, status, iteration, float(tree.norm(residual)) / size)
            step = square / curvature
            x = tree.add(x, direction, step)
            residual = tree.add(residual, image, -step)
            new_square = tree.dot(residual, residual)
            if float(new_square) ** 0.5 <= self.tolerance * size:
                residual = tree.add(rhs, apply(x), -1.0)
                relative = float(tree.norm(residual)) / size
                if relative <= self.tolerance:
                    return Solution(x, Status.CONVERGED, iteration, relative)
                direction, square = residual, tree.dot(residual, residual)
                continue
            direction = tree.add(residual, direction, new_square / square)
            square = new_square
        residual = tree.add(rhs, apply(x), -1.0)
        relative = float(tree.norm(residual)) / size
        status = Status.CONVERGED if relative <= self.tolerance else Status.ITERATION_LIMIT
        return Solution(x, status if relative == relative else Status.NOT_FINITE, self.max_iterations, relative)
