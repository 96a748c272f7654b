"""The direct solve, for small problems."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._functional import eigh, vmap
from .._types import Tensors
from ..status import Status
from .solver import Matvec, Solution, damped, trivial


@dataclass(frozen=True)
class Direct:
    """Write A out, n products at once, and solve (A + damping) x = b by its eigenvalues.

    Memory n², time n³: for up to some thousand parameters, and as the truth to measure other solvers by. A negative
    eigenvalue is a status, its solution (at a saddle) given all the same; a singular A gives the solution of least
    norm and the status "singular".

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

    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The solution by an eigendecomposition."""
        known = trivial(rhs)
        if known is not None:
            return known
        unflatten = tree.unflattener(rhs)
        b = tree.flatten(rhs)  # (n,)
        apply = damped(matvec, self.damping)

        def row(vector: Tensor) -> Tensor:
            return tree.flatten(apply(unflatten(vector)))

        matrix = vmap(row, chunk_size=self.chunk_size)(torch.eye(b.numel(), dtype=b.dtype, device=b.device))  # (n, n)
        if not bool(torch.isfinite(matrix).all()):
            return Solution(rhs, Status.NOT_FINITE, b.numel(), float("nan"))
        matrix = (matrix + matrix.mT) / 2
        eigenvalues, vectors = eigh(matrix)
        floor = torch.finfo(b.dtype).eps * b.numel() * eigenvalues.abs().max()
        regular = eigenvalues.abs() > floor
        inverse = torch.where(regular, 1 / torch.where(regular, eigenvalues, 1.0), 0.0)
        x = vectors @ (inverse * (vectors.mT @ b))
        relative = float(tree.norm({"": b - matrix @ x}) / tree.norm(rhs))
        status = Status.CONVERGED
        if float(eigenvalues[0]) < -float(floor):
            status = Status.NEGATIVE_CURVATURE
        elif not bool(regular.all()):
            status = Status.SINGULAR
        return Solution(unflatten(x), status, b.numel(), relative, columns=b.numel())
