"""Stabilised biconjugate gradients."""

from dataclasses import dataclass

from .. import _checks as checks
from .. import _tree as tree
from .._types import Tensors
from ..status import Status
from .solver import Matvec, Solution, damped, rescaled


@dataclass(frozen=True)
class BiCGSTAB:
    """Stabilised biconjugate gradients for any square A, symmetric or not: (A + damping) x = b.

    Two products and seven vectors, whatever the number of iterations; the residual does not fall steadily. Where the
    recurrence breaks down it starts again from where it is; where that does not help, the status says so. The
    residual that decides is the true one.

    Args:
        max_iterations: the most iterations, each of two products with A.
        tolerance: the relative residual ‖b - A x‖ / ‖b‖ to reach.
        damping: added to A's diagonal.

    Raises:
        ValueError: a setting out of range, when built.

    Source: van der Vorst, 1992.
    """

    max_iterations: int = 100
    tolerance: float = 1e-6
    damping: float = 0.0

    def __post_init__(self) -> None:
        checks.count("BiCGSTAB", "max_iterations", self.max_iterations)
        checks.number("BiCGSTAB", "tolerance", self.tolerance, above=0.0)
        checks.number("BiCGSTAB", "damping", self.damping, least=0.0)

    @rescaled
    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The solution, or how far it came."""
        apply, size, eps = damped(matvec, self.damping), float(tree.norm(rhs)), tree.eps(rhs)
        x, residual = tree.zeros_like(rhs), rhs
        shadow, direction, rho = residual, residual, float(tree.dot(residual, residual))
        best = (x, 1.0)  # the last x whose true residual is known, and that
        fresh = True  # since the last start nothing has moved
        for iteration in range(1, self.max_iterations + 1):
            image = apply(direction)
            if not bool(tree.all_finite(image)):
                status = Status.NOT_FINITE if iteration == 1 else Status.BREAKDOWN
                return Solution(best[0], status, iteration, best[1])
            along = float(tree.dot(shadow, image))
            step = rho / along if along else float("inf")
            half = tree.add(residual, image, -step)
            turned = apply(half)
            square = float(tree.dot(turned, turned))
            omega = float(tree.dot(turned, half)) / square if square else 0.0
            if not abs(step) < float("inf"):
                if fresh:
                    return Solution(x, Status.BREAKDOWN, iteration, float(tree.norm(residual)) / size)
                residual, fresh = tree.add(rhs, apply(x), -1.0), True
                shadow, direction, rho = residual, residual, float(tree.dot(residual, residual))
                continue
            moved = tree.add(half, turned, -omega)
            length = float(tree.norm(moved))
            if not length * eps < size:  # a singular A drives x without bound
                return Solution(best[0], Status.BREAKDOWN, iteration, best[1])
            x, residual = tree.add(tree.add(x, direction, step), half, omega), moved
            new = float(tree.dot(shadow, residual))
            small = length <= self.tolerance * size
            lost = omega == 0.0 or abs(new) <= eps * float(tree.norm(shadow)) * length
            if small or lost:
                residual = tree.add(rhs, apply(x), -1.0)
                relative = float(tree.norm(residual)) / size
                if relative <= self.tolerance:
                    return Solution(x, Status.CONVERGED, iteration, relative)
                best = min(best, (x, relative), key=lambda known: known[1])
                if fresh and lost and omega == 0.0:
                    return Solution(x, Status.BREAKDOWN, iteration, relative)
                fresh = True
                shadow, direction, rho = residual, residual, float(tree.dot(residual, residual))
                continue
            fresh = False
            direction = tree.add(residual, tree.add(direction, image, -omega), new / rho * step / omega)
            rho = new
        residual = tree.add(rhs, apply(x), -1.0)
        relative = float(tree.norm(residual)) / size
        status = Status.CONVERGED if relative <= self.tolerance else Status.ITERATION_LIMIT
        x, relative = min(best, (x, relative), key=lambda known: known[1] if known[1] == known[1] else float("inf"))
        return Solution(x, status, self.max_iterations, relative)
