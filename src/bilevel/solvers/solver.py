"""What a linear solver is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from .. import _members as members
from .. import _tree as tree
from .._types import Tensors
from ..status import Status

Matvec: TypeAlias = Callable[[Tensors], Tensors]
"""x -> A x."""


@dataclass(frozen=True)
class Solution:
    """An approximate solution of (A + damping) x = b.

    Under vmap status (by `Status.code`), iterations and residual are tensors, one number per member.
    """

    x: Tensors
    status: Status | Tensor
    iterations: int | Tensor
    residual: float | Tensor
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


class Ends:
    """How the members of a solve ended, and which are still on their way."""

    _places: ClassVar[list[Status]] = list(Status)

    def __init__(self, size: Tensor) -> None:
        """size: ‖b‖; where it is 0, x = 0 is the solution."""
        self._size = torch.where(size > 0, size, 1.0)
        self.going = size > 0
        zero = torch.zeros_like(size)
        self._code = torch.where(self.going, Status.ITERATION_LIMIT.code, Status.CONVERGED.code)
        self._iterations, self._residual = zero.long(), zero

    def end(self, where: Tensor, status: Status, iterations: int, residual: Tensor) -> None:
        """Those of the mask that are still going end so. residual: ‖b - A x‖."""
        now = self.going & where
        self._code = torch.where(now, status.code, self._code)
        self._iterations = torch.where(now, iterations, self._iterations)
        self._residual = torch.where(now, residual.detach() / self._size, self._residual)
        self.going = self.going & ~now

    def solution(self, x: Tensors, **counts: int) -> Solution:
        """What to return, once none is going."""
        if any(members.batched(number) for number in (self._code, self._residual, self._iterations)):
            return Solution(x, self._code, self._iterations, self._residual, **counts)
        code, iterations = (int(torch.func.debug_unwrap(number)) for number in (self._code, self._iterations))
        return Solution(x, self._places[code], iterations, float(torch.func.debug_unwrap(self._residual)), **counts)


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
        arguments = () if like is None else (like,)
        if any(members.batched(tensor) for tensor in rhs.values()):
            return _by_members(solve, solver, matvec, rhs, *arguments)
        peak = max((float(tensor.abs().max()) for tensor in rhs.values() if tensor.numel()), default=0.0)
        if not bool(tree.all_finite(rhs)):
            return Solution(tree.scale(pattern, float("nan")), Status.NOT_FINITE, 0, float("nan"))
        if peak == 0.0:
            return Solution(tree.zeros_like(pattern), Status.CONVERGED, 0, 0.0)
        unit = 2.0 ** (math.frexp(peak)[1] - 1)
        found = solve(solver, matvec, {name: tensor / unit for name, tensor in rhs.items()}, *arguments)
        return replace(found, x=tree.scale(found.x, unit))

    return cast(Solve, scaled)


def _by_members(solve: Callable[..., Solution], solver: Any, matvec: Matvec, rhs: Tensors, *like: Tensors) -> Solution:
    """The same under vmap, where each member of the batch has a scale of its own."""
    fine = tree.all_finite(rhs)
    usable = {name: torch.where(fine, tensor, 0.0) for name, tensor in rhs.items()}
    unit = members.power_of_two(members.peak(usable))
    found = solve(solver, matvec, {name: tensor / unit for name, tensor in usable.items()}, *like)
    x = {name: torch.where(fine, unit * tensor, float("nan")) for name, tensor in found.x.items()}
    status = found.status.code if isinstance(found.status, Status) else found.status
    return replace(
        found,
        x=x,
        status=torch.where(fine, status, Status.NOT_FINITE.code),
        residual=torch.where(fine, found.residual, float("nan")),
    )
