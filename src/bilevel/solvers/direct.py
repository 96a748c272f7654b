"""The direct solve, for small problems."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _members as members
from .. import _tree as tree
from .._functional import eigh, svd, vmap
from .._types import Tensors
from ..status import Status
from .solver import Ends, Matvec, Solution, damped, rescaled


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
        finite = torch.isfinite(matrix).all()
        eye = torch.eye(b.numel(), dtype=b.dtype, device=b.device)
        matrix = torch.where(finite, matrix, eye)
        symmetric = (matrix + matrix.mT) / 2
        skew, size = (matrix - symmetric).abs().max(), matrix.abs().max()
        alike = skew <= torch.finfo(b.dtype).eps ** 0.5 * size
        ends = Ends(tree.norm(rhs))
        x = torch.zeros_like(b)
        if members.anyone(alike):
            found, negative, singular = _by_eigenvalues(torch.where(alike, symmetric, eye), matrix, b)
            x = torch.where(alike, found, x)
            length = tree.norm({"": b - matrix @ x})
            ends.end(~finite, Status.NOT_FINITE, b.numel(), length * float("nan"))
            ends.end(alike & negative, Status.NEGATIVE_CURVATURE, b.numel(), length)
            ends.end(alike & singular, Status.SINGULAR, b.numel(), length)
            ends.end(alike, Status.CONVERGED, b.numel(), length)
        if members.anyone(~alike):
            found, singular = _by_singular_values(torch.where(alike, eye, matrix), b)
            x = torch.where(alike, x, found)
            length = tree.norm({"": b - matrix @ x})
            ends.end(singular, Status.SINGULAR, b.numel(), length)
            ends.end(ends.going, Status.CONVERGED, b.numel(), length)
        return ends.solution(unflatten(x), columns=b.numel())


def _by_eigenvalues(symmetric: Tensor, matrix: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The solution; whether an eigenvalue is negative, and whether one is 0."""
    eigenvalues, vectors = eigh(symmetric)
    floor = torch.finfo(b.dtype).eps * b.numel() * eigenvalues.abs().max()
    regular = eigenvalues.abs() > floor
    inverse = torch.where(regular, 1 / torch.where(regular, eigenvalues, 1.0), 0.0)
    x = vectors @ (inverse * (vectors.mT @ b))
    # What rounding left unsymmetric, and of the decomposition itself.
    x = x + vectors @ (inverse * (vectors.mT @ (b - matrix @ x)))
    return x, eigenvalues[0] < -floor, ~regular.all()


def _by_singular_values(matrix: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The solution, and whether a singular value is 0."""
    left, values, right = svd(matrix)
    regular = values > torch.finfo(b.dtype).eps * b.numel() * values.max()
    inverse = torch.where(regular, 1 / torch.where(regular, values, 1.0), 0.0)
    return right.mT @ (inverse * (left.mT @ b)), ~regular.all()
