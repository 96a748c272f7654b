"""Data weights on a least-squares problem."""

import torch
from torch import Tensor

from .._functional import eigh, solve
from .._types import Tensors
from ..optimizers import SGD
from ..problem import Bilevel
from .known import KnownProblem


def reweighted(
    num_examples: int = 12, num_params: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
) -> KnownProblem:
    """Inner Σ_i c_i r_i²/2n + ρ‖θ‖²/2 with r = Xθ - y, outer ‖X'θ - y'‖²/2n; φ = c, one weight per example.

    H = Xᵀ diag(c) X/n + ρI;  dθ*/dc_i = -H⁻¹ x_i r_i/n.  Of K steps, from J₀ = 0:
    J_{k+1} = (I - ηH) J_k - η [x_i r_i(θ_k)/n]_i;  at K = 1 this is -η <∇F, ∇ℓ_i>/n, the reweighting formula.
    """
    draw = torch.Generator().manual_seed(seed)
    n, decay = num_examples, 0.2

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    truth = normal(num_params)
    x, x_outer = normal(n, num_params), normal(n, num_params)
    y, y_outer = x @ truth + normal(n), x_outer @ truth
    start, weights = normal(num_params), 0.5 + torch.rand(n, generator=draw, dtype=torch.float64)

    def hessian(weights: Tensor) -> Tensor:
        return (x.mT * weights) @ x / n + decay * torch.eye(num_params, dtype=torch.float64)

    eigenvalues = eigh(hessian(weights))[0]
    rate = 1.0 / float(eigenvalues[-1])

    def gradient(theta: Tensor, response: Tensor) -> Tensors:
        return {"weights": (response.mT @ x_outer.mT @ (x_outer @ theta - y_outer) / n).to(dtype)}

    def columns(theta: Tensor) -> Tensor:
        return x.mT * (x @ theta - y) / n  # (num_params, n)

    def unrolled_grad(num_steps: int) -> Tensors:
        theta, response = start, torch.zeros(num_params, n, dtype=torch.float64)
        for _ in range(num_steps):
            response = response - rate * (hessian(weights) @ response + columns(theta))
            theta = theta - rate * (hessian(weights) @ theta - (x.mT * weights) @ y / n)
        return gradient(theta, response)

    def fitted(weights: Tensor) -> Tensor:
        return solve(hessian(weights), (x.mT * weights) @ y / n)

    def implicit_grad(hyper: Tensors) -> Tensors:
        at = hyper["weights"].double()
        return gradient(fitted(at), -solve(hessian(at), columns(fitted(at))))

    def residual(params: Tensors, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[0] @ params["theta"] - batch[1]

    def inner(params: Tensors, hyper: Tensors, batch: tuple[Tensor, Tensor]) -> Tensor:
        fit = (hyper["weights"] * residual(params, batch) ** 2).mean() / 2
        return fit + decay * (params["theta"] ** 2).sum() / 2

    def outer(params: Tensors, hyper: Tensors, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (residual(params, batch) ** 2).mean() / 2

    return KnownProblem(
        name="reweighted",
        problem=Bilevel(inner, outer),
        params={"theta": start.to(dtype)},
        hyper={"weights": weights.to(dtype)},
        inner_batch=(x.to(dtype), y.to(dtype)),
        outer_batch=(x_outer.to(dtype), y_outer.to(dtype)),
        optimizer=SGD(lr=rate),
        unrolled_grad=unrolled_grad,
        solution=lambda hyper: {"theta": fitted(hyper["weights"].double()).to(dtype)},
        implicit_grad=implicit_grad,
        curvature=(float(eigenvalues[0]), float(eigenvalues[-1])),
    )
