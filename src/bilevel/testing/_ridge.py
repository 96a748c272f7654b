"""Ridge regression, differentiated by its penalty."""

import torch
from torch import Tensor

from .._functional import eigh
from .._types import Tensors
from ..optimizers import SGD
from ..problem import Bilevel
from .known import KnownProblem


def ridge(
    num_examples: int = 20, num_params: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64
) -> KnownProblem:
    """Inner ‖Xw - y‖²/2n + λ‖w‖²/2, outer ‖X'w - y'‖²/2n; φ = λ, a scalar.

    dw*/dλ = -(XᵀX/n + λI)⁻¹ w*. In the eigenbasis of XᵀX/n, with h = eigenvalue + λ, c = (Xᵀy/n) and q = 1 - ηh:
    w_K = c/h + q^K (w₀ - c/h),  dw_K/dλ = -c/h² + q^K c/h² - ηK q^(K-1) (w₀ - c/h).
    """
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    truth = normal(num_params)
    x, x_outer = normal(num_examples, num_params), normal(num_examples, num_params)
    y, y_outer = x @ truth + normal(num_examples), x_outer @ truth
    start, penalty = normal(num_params), torch.tensor(0.3, dtype=torch.float64)
    eigenvalues, basis = eigh(x.mT @ x / num_examples)
    c, w0 = basis.mT @ (x.mT @ y) / num_examples, basis.mT @ start
    rate = 1.0 / float(eigenvalues[-1] + penalty)

    def gradient(w: Tensor, response: Tensor) -> Tensors:
        by_w = x_outer.mT @ (x_outer @ (basis @ w) - y_outer) / num_examples
        return {"penalty": (by_w @ (basis @ response)).to(dtype)}

    def unrolled_grad(num_steps: int) -> Tensors:
        h = eigenvalues + penalty
        q, gap = 1 - rate * h, w0 - c / h
        response = (q**num_steps - 1) * c / h**2 - rate * num_steps * q ** (num_steps - 1) * gap
        return gradient(c / h + q**num_steps * gap, response)

    def implicit_grad(hyper: Tensors) -> Tensors:
        h = eigenvalues + hyper["penalty"].double()
        return gradient(c / h, -c / h**2)

    def solution(hyper: Tensors) -> Tensors:
        return {"w": (basis @ (c / (eigenvalues + hyper["penalty"].double()))).to(dtype)}

    def loss(params: Tensors, batch: tuple[Tensor, Tensor]) -> Tensor:
        return ((batch[0] @ params["w"] - batch[1]) ** 2).mean() / 2

    def inner(params: Tensors, hyper: Tensors, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss(params, batch) + hyper["penalty"] * (params["w"] ** 2).sum() / 2

    def outer(params: Tensors, hyper: Tensors, batch: tuple[Tensor, Tensor]) -> Tensor:
        return loss(params, batch)

    return KnownProblem(
        name="ridge",
        problem=Bilevel(inner, outer),
        params={"w": start.to(dtype)},
        hyper={"penalty": penalty.to(dtype)},
        inner_batch=(x.to(dtype), y.to(dtype)),
        outer_batch=(x_outer.to(dtype), y_outer.to(dtype)),
        optimizer=SGD(lr=rate),
        unrolled_grad=unrolled_grad,
        solution=solution,
        implicit_grad=implicit_grad,
        curvature=(float(eigenvalues[0] + penalty), float(eigenvalues[-1] + penalty)),
    )
