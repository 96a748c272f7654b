"""Both levels quadratic, solved by linear algebra."""

import math

import torch
from torch import Tensor

from .._functional import qr, solve
from .._types import Tensors
from ..optimizers import SGD
from ..problem import Bilevel
from .known import KnownProblem


def quadratic(
    num_params: int = 6, num_hyper: int = 4, condition: float = 4.0, seed: int = 0, dtype: torch.dtype = torch.float64
) -> KnownProblem:
    """Inner ½ zᵀAz + xᵀCz + aᵀz, outer ½‖z - t‖² + ½‖x‖² + xᵀEz; φ = x, θ = z.

    z* = -A⁻¹(a + Cᵀx),  dF/dx = x + Ez* - C A⁻¹ (z* - t + Eᵀx).
    After K steps of rate η from z₀, with P = I - ηA and S = (I - P^K) A⁻¹:
    z_K = P^K z₀ - S (a + Cᵀx),  dF/dx = x + E z_K - C S (z_K - t + Eᵀx).
    """
    n, m = num_params, num_hyper
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    basis = qr(normal(n, n))[0]
    eigenvalues = torch.logspace(0, math.log10(condition), n, dtype=torch.float64)
    a_matrix = (basis * eigenvalues) @ basis.mT
    c, e, a, t, x, z = normal(m, n), 0.3 * normal(m, n), normal(n), normal(n), normal(m), normal(n)
    rate = 1.0 / condition

    def gradient(x: Tensor, z: Tensor, response: Tensor) -> Tensors:
        """Total derivative at z with dz/dx = -responseᵀ Cᵀ; response is symmetric."""
        return {"x": (x + e @ z - c @ response @ (z - t + e.mT @ x)).to(dtype)}

    def fitted(x: Tensor) -> Tensor:
        return -solve(a_matrix, a + c.mT @ x)

    def unrolled_grad(num_steps: int) -> Tensors:
        power = (basis * (1 - rate * eigenvalues) ** num_steps) @ basis.mT
        response = (basis * ((1 - (1 - rate * eigenvalues) ** num_steps) / eigenvalues)) @ basis.mT
        return gradient(x, power @ z - response @ (a + c.mT @ x), response)

    def implicit_grad(hyper: Tensors) -> Tensors:
        at = hyper["x"].double()
        return gradient(at, fitted(at), solve(a_matrix, torch.eye(n, dtype=torch.float64)))

    def inner(params: Tensors, hyper: Tensors, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        quadratic_term, cross, linear = batch
        z, x = params["z"], hyper["x"]
        return z @ quadratic_term @ z / 2 + x @ cross @ z + linear @ z

    def outer(params: Tensors, hyper: Tensors, batch: tuple[Tensor, Tensor]) -> Tensor:
        target, cross = batch
        z, x = params["z"], hyper["x"]
        return ((z - target) ** 2).sum() / 2 + (x**2).sum() / 2 + x @ cross @ z

    return KnownProblem(
        name="quadratic",
        problem=Bilevel(inner, outer),
        params={"z": z.to(dtype)},
        hyper={"x": x.to(dtype)},
        inner_batch=(a_matrix.to(dtype), c.to(dtype), a.to(dtype)),
        outer_batch=(t.to(dtype), e.to(dtype)),
        optimizer=SGD(lr=rate),
        unrolled_grad=unrolled_grad,
        solution=lambda hyper: {"z": fitted(hyper["x"].double()).to(dtype)},
        implicit_grad=implicit_grad,
        curvature=(1.0, condition),
    )
