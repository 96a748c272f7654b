"""What a linear solver is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from .. import _tree as tree
from .._types import Tensors
from ..status import Status

Matvec: TypeAlias = Callable[[Tensors], Tensors]
"""x -> A x."""


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
    transposed: int = 0
    """Products with Aᵀ."""


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


Solve = TypeVar("Solve", bound=Callable[..., Solution])


def rescaled(solve: Solve) -> Solve:
    """`solve` for right-hand sides of any size: b is scaled by a power of two, so that its square is a number.

    A b of 0 is solved by 0, one that is not finite is a status; both before the first product.
    """

    @wraps(solve)
    def scaled(solver: Solver, matvec: Matvec, rhs: Tensors, like: Tensors | None = None) -> Solution:
        pattern = rhs if like is None else like
        peak = max((float(tensor.abs().max()) for tensor in rhs.values() if tensor.numel()), default=0.0)
        if not bool(tree.all_finite(rhs)):
            return Solution(tree.scale(pattern, float("nan")), Status.NOT_FINITE, 0, float("nan"))
        if peak == 0.0:
            return Solution(tree.zeros_like(pattern), Status.CONVERGED, 0, 0.0)
        unit = 2.0 ** (math.frexp(peak)[1] - 1)
        arguments = () if like is None else (like,)
        found = solve(solver, matvec, {name: tensor / unit for name, tensor in rhs.items()}, *arguments)
        return replace(found, x=tree.scale(found.x, unit))

    return cast(Solve, scaled)
