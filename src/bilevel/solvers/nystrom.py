"""Low-rank approximation of the inverse."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._functional import eigh, outside_transforms, qr, vmap
from .._types import Tensors
from ..status import Status
from .solver import Ends, Matvec, Solution, damped, rescaled


@dataclass(frozen=True)
class Nystrom:
    """(A_r + damping)⁻¹ b with A_r the Nyström approximation of rank r: no iteration, r products at once.

    A_r = Y (Ωᵀ Y)⁺ Yᵀ,  Y = A Ω,  Ω an orthonormal Gaussian sketch (n, r). With A_r = U Λ Uᵀ, by Woodbury:
    x = U (Λ + damping)⁻¹ Uᵀ b + (b - U Uᵀ b) / damping. Exact where the rank of A is at most r.

    Memory: r vectors of the size of the parameters. The status compares the true relative residual with `tolerance`,
    at the price of one more product.

    Args:
        rank: r.
        damping: above 0; the curvature that is assumed outside the r directions.
        tolerance: the relative residual up to which the status is "converged".
        seed: of the sketch; the same seed gives the same result.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Hataya & Yamada, arXiv 2302.09726. Differs from it in the sketch (Gaussian, not columns of A) and in the
    eigendecomposition of A_r in place of the inverse of Ωᵀ Y, which is stable: Frangella et al., arXiv 2110.02820.
    """

    rank: int = 10
    damping: float = 1e-2
    tolerance: float = 1e-3
    seed: int = 0

    symmetric_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.count("Nystrom", "rank", self.rank)
        checks.number("Nystrom", "damping", self.damping, above=0.0)
        checks.number("Nystrom", "tolerance", self.tolerance, above=0.0)

    @rescaled
    def solve(self, matvec: Matvec, rhs: Tensors) -> Solution:
        """The solution by the approximate inverse."""
        unflatten = tree.unflattener(rhs)
        b = tree.flatten(rhs)  # (n,)
        rank = min(self.rank, b.numel())
        sketch = self._sketch(b, rank)  # (n, r)

        def column(vector: Tensor) -> Tensor:
            return tree.flatten(matvec(unflatten(vector)))

        image = vmap(column, in_dims=1, out_dims=1)(sketch)  # (n, r)
        finite = torch.isfinite(image).all()
        image = torch.where(finite, image, 0.0)
        basis, eigenvalues = _eigen(sketch, image)  # (n, r), (r,)
        inside = basis.mT @ b  # (r,)
        x = basis @ (inside / (eigenvalues + self.damping))
        if rank < b.numel():  # else the rest is rounding, which 1 / damping would only blow up
            x = x + (b - basis @ inside) / self.damping
        solution, size = unflatten(x), tree.norm(rhs)
        length = tree.norm(tree.add(rhs, damped(matvec, self.damping)(solution), -1.0))
        slack = -torch.finfo(b.dtype).eps * b.numel() * eigenvalues.abs().max()
        ends = Ends(size)
        ends.end(~finite, Status.NOT_FINITE, rank, length * float("nan"))
        ends.end(eigenvalues.min() + self.damping < slack, Status.NEGATIVE_CURVATURE, rank, length)
        ends.end(length <= self.tolerance * size, Status.CONVERGED, rank, length)
        ends.end(ends.going, Status.ITERATION_LIMIT, rank, length)
        return ends.solution(solution, columns=rank)

    def _sketch(self, like: Tensor, rank: int) -> Tensor:
        # float64 on the CPU, so that the sketch depends on neither device nor dtype; one for all members of a vmap,
        # which refuses random numbers, even those of a generator with a seed.
        generator = torch.Generator().manual_seed(self.seed)
        with outside_transforms():
            gaussian = torch.randn(like.numel(), rank, generator=generator, dtype=torch.float64)
        return qr(gaussian)[0].to(like)


def _eigen(sketch: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (n, r) and eigenvalues (r,) of Y (Ωᵀ Y)⁺ Yᵀ."""
    orthonormal, triangle = qr(image)  # (n, r), (r, r)
    core = sketch.mT @ image
    core = (core + core.mT) / 2
    small = triangle @ _pinv(core) @ triangle.mT
    eigenvalues, vectors = eigh((small + small.mT) / 2)
    return orthonormal @ vectors, eigenvalues


def _pinv(symmetric: Tensor) -> Tensor:
    """Pseudo-inverse of (r, r), with the cut-off at rounding."""
    eigenvalues, vectors = eigh(symmetric)
    floor = torch.finfo(symmetric.dtype).eps * len(symmetric) * eigenvalues.abs().max()
    regular = eigenvalues.abs() > floor
    inverse = torch.where(regular, 1 / torch.where(regular, eigenvalues, 1.0), 0.0)
    return (vectors * inverse) @ vectors.mT
