"""GMRES."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._types import Tensors
from ..status import Status
from .solver import Matvec, Solution, damped, rescaled


@dataclass(frozen=True)
class GMRES:
    """Generalised minimal residual for any square A, symmetric or not: (A + damping) x = b.

    In the space of b, A b, A² b, … the x of the smallest residual: exact after as many products as A has distinct
    eigenvalues, up to rounding. After `restart` products it starts again from where it is, which bounds the memory to
    `restart` vectors and can stagnate. The residual that decides is the true one. Waits for the device twice per
    product.

    Args:
        max_iterations: the most products with A.
        restart: products before a new start; None: none, at a memory of max_iterations vectors.
        tolerance: the relative residual ‖b - A x‖ / ‖b‖ to reach.
        damping: added to A's diagonal.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Saad & Schultz, 1986, algorithm 4, with Givens rotations and a second orthogonalisation.
    """

    max_iterations: int = 100
    restart: int | None = 30
    tolerance: float = 1e-6
    damping: float = 0.0

    def __post_init__(self) -> None:
        checks.count("GMRES", "max_iterations", self.max_iterations)
        checks.count("GMRES", "restart", self.restart, optional=True)
        checks.number("GMRES", "tolerance", self.tolerance, above=0.0)
        checks.number("GMRES", "damping", self.damping, least=0.0)

    @rescaled
    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The solution by cycles of at most `restart` products."""
        unflatten, apply = tree.unflattener(rhs), damped(matvec, self.damping)

        def product(vector: Tensor) -> Tensor:
            return tree.flatten(apply(unflatten(vector)))

        b = tree.flatten(rhs)  # (n,)
        size = _length(b)
        x, residual, done = torch.zeros_like(b), b, 0
        while True:
            length = min(self.restart or self.max_iterations, self.max_iterations - done)
            move, taken, stuck = _cycle(product, residual, length, self.tolerance * size)
            done += taken
            x = x + move
            residual = b - product(x)
            relative = _length(residual) / size
            if not relative < float("inf"):
                return Solution(unflatten(x), Status.NOT_FINITE, done, relative)
            if relative <= self.tolerance:
                return Solution(unflatten(x), Status.CONVERGED, done, relative)
            if stuck or done >= self.max_iterations:
                status = Status.SINGULAR if stuck else Status.ITERATION_LIMIT
                return Solution(unflatten(x), status, done, relative)


def _cycle(product: Callable[[Tensor], Tensor], start: Tensor, length: int, enough: float) -> tuple[Tensor, int, bool]:
    """One cycle from a residual: the step, the products used, and whether the space can grow no further."""
    eps = torch.finfo(start.dtype).eps
    beta = _length(start)
    basis, columns, rotations, rest = [start / beta], list[list[float]](), list[tuple[float, float]](), [beta]
    stuck = False
    for _ in range(length):
        image = product(basis[-1])
        before = _length(image)
        space = torch.stack(basis)  # (j, n)
        along = space @ image
        image = image - along @ space
        again = space @ image  # a second time: once loses orthogonality where the first took nearly everything
        image = image - again @ space
        column, height = [float(value) for value in along + again], _length(image)
        if not before < float("inf"):
            return torch.full_like(start, float("nan")), len(columns) + 1, False
        for i, (c, s) in enumerate(rotations):
            column[i], column[i + 1] = _rotated(c, s, column[i], column[i + 1])
        radius = (column[-1] ** 2 + height**2) ** 0.5
        stuck = height <= 10 * eps * before
        if radius <= 10 * eps * before:  # A maps the space into itself and is singular on it
            return _combine(basis, columns, rest, start), len(columns) + 1, True
        c, s = column[-1] / radius, height / radius
        column[-1] = radius
        columns.append(column)
        rotations.append((c, s))
        rest[-1:] = [c * rest[-1], -s * rest[-1]]
        if abs(rest[-1]) <= enough or stuck:
            break
        basis.append(image / height)
    return _combine(basis, columns, rest, start), len(columns), stuck


def _length(vector: Tensor) -> float:
    return float(tree.norm({"": vector}))


def _rotated(c: float, s: float, first: float, second: float) -> tuple[float, float]:
    return c * first + s * second, c * second - s * first


def _combine(basis: list[Tensor], columns: list[list[float]], rest: list[float], like: Tensor) -> Tensor:
    """Σ y_i v_i with R y = rest, R upper triangular by columns."""
    y = [0.0] * len(columns)
    for i in reversed(range(len(columns))):
        known = sum(columns[j][i] * y[j] for j in range(i + 1, len(columns)))
        y[i] = (rest[i] - known) / columns[i][i]
    if not y:
        return torch.zeros_like(like)
    return like.new_tensor(y) @ torch.stack(basis[: len(y)])
