"""What a linear solver is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from .. import _tree as tree
from .._types import Tensors
from ..status import Status

Matvec: TypeAlias = Callable[[Tensors], Tensors]
"""x -> A x with A symmetric."""


@dataclass(frozen=True)
class Solution:
    """An approximate solution of (A + damping) x = b."""

    x: Tensors
    status: Status
    iterations: int
    residual: float
    """‖b - (A + damping) x‖ / ‖b‖; 0 where b is 0."""
    columns: int = 1
    """Products that one call of matvec made at once, under vmap."""


@runtime_checkable
class Solver(Protocol):
    """A way to solve (A + damping) x = b, given products with A only."""

    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The solution and how it came out; never raises for what the numbers are."""
        ...


def check_solver(owner: str, value: object) -> None:
    """Raise ValueError unless `value` is a solver."""
    if isinstance(value, type) or not isinstance(value, Solver):
        raise ValueError(f"{owner}(solver={value!r}): allowed is a solver such as bilevel.CG()")


def damped(matvec: Matvec, damping: float) -> Matvec:
    """x -> A x + damping x."""
    return (lambda x: tree.add(matvec(x), x, damping)) if damping else matvec


def trivial(rhs: Tensors) -> Solution | None:
    """The solution for a right-hand side that is zero or not finite; None for all others."""
    size = float(tree.norm(rhs))
    if size == 0.0:
        return Solution(tree.zeros_like(rhs), Status.CONVERGED, 0, 0.0)
    if size != size or size == float("inf"):
        return Solution(rhs, Status.NOT_FINITE, 0, float("nan"))
    return None
