"""The direct solve, for small problems."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._functional import eigh, svd, vmap
from .._types import Tensors
from ..status import Status
from .solver import Matvec, Solution, damped, rescaled


@dataclass(frozen=True)
class Direct:
    """Write A out, n products at once, and solve (A + damping) x = b by its eigenvalues, or singular values.

    Memory n², time n³: for up to some thousand parameters, and as the truth to measure other solvers by. A negative
    eigenvalue is a status, its solution (at a saddle) given all the same; a singular A gives the least-squares
    solution of least norm and the status "singular". An A that is not symmetric (by more than the square root of
    rounding; a Hessian is, up to that) is solved as it is, by singular values, and has no curvature to be negative.
    The residual is that of A as given, in every case.

    Args:
        damping: added to A's diagonal.
        chunk_size: columns of A at once; None: all.

    Raises:
        ValueError: a setting out of range, when built.
    """

    damping: float = 0.0
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        checks.number("Direct", "damping", self.damping, least=0.0)
        checks.count("Direct", "chunk_size", self.chunk_size, optional=True)

    @rescaled
    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The solution by an eigendecomposition."""
        unflatten = tree.unflattener(rhs)
        b = tree.flatten(rhs)  # (n,)
        apply = damped(matvec, self.damping)

        def row(vector: Tensor) -> Tensor:
            return tree.flatten(apply(unflatten(vector)))

        rows = vmap(row, chunk_size=self.chunk_size)(torch.eye(b.numel(), dtype=b.dtype, device=b.device))
        matrix = rows.mT  # (n, n): the i-th product is A's i-th column
        if not bool(torch.isfinite(matrix).all()):
            return Solution(rhs, Status.NOT_FINITE, b.numel(), float("nan"))
        symmetric = (matrix + matrix.mT) / 2
        skew, size = float((matrix - symmetric).abs().max()), float(matrix.abs().max())
        if skew <= torch.finfo(b.dtype).eps ** 0.5 * size:
            x, status = _by_eigenvalues(symmetric, matrix, b)
        else:
            x, status = _by_singular_values(matrix, b)
        relative = float(tree.norm({"": b - matrix @ x}) / tree.norm(rhs))
        return Solution(unflatten(x), status, b.numel(), relative, columns=b.numel())


def _by_eigenvalues(symmetric: Tensor, matrix: Tensor, b: Tensor) -> tuple[Tensor, Status]:
    eigenvalues, vectors = eigh(symmetric)
    floor = torch.finfo(b.dtype).eps * b.numel() * eigenvalues.abs().max()
    regular = eigenvalues.abs() > floor
    inverse = torch.where(regular, 1 / torch.where(regular, eigenvalues, 1.0), 0.0)
    x = vectors @ (inverse * (vectors.mT @ b))
    # What rounding left unsymmetric, and of the decomposition itself.
    x = x + vectors @ (inverse * (vectors.mT @ (b - matrix @ x)))
    if float(eigenvalues[0]) < -float(floor):
        return x, Status.NEGATIVE_CURVATURE
    return x, Status.CONVERGED if bool(regular.all()) else Status.SINGULAR


def _by_singular_values(matrix: Tensor, b: Tensor) -> tuple[Tensor, Status]:
    left, values, right = svd(matrix)
    regular = values > torch.finfo(b.dtype).eps * b.numel() * values.max()
    inverse = torch.where(regular, 1 / torch.where(regular, values, 1.0), 0.0)
    x = right.mT @ (inverse * (left.mT @ b))
    return x, Status.CONVERGED if bool(regular.all()) else Status.SINGULAR
