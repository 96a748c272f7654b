"""A learning rate as the hyperparameter."""

import torch
from torch import Tensor

from .._types import Tensors
from ..optimizers import SGD
from ..problem import Bilevel
from .known import KnownProblem


def step_size(curvature: float = 2.0, rate: float = 0.1, dtype: torch.dtype = torch.float64) -> KnownProblem:
    """Both losses ½aθ²; φ = η, the rate of gradient descent itself, read by the optimizer from hyper.

    θ_K = (1 - ηa)^K θ₀,  dF/dη = -a² K θ₀² (1 - ηa)^(2K-1).  No implicit answer: the minimiser does not depend on η.
    """
    start = 1.5

    def loss(params: Tensors, hyper: Tensors, batch: Tensor) -> Tensor:
        return batch * params["theta"] ** 2 / 2

    def unrolled_grad(num_steps: int) -> Tensors:
        value = -(curvature**2) * num_steps * start**2 * (1 - rate * curvature) ** (2 * num_steps - 1)
        return {"lr": torch.tensor(value, dtype=dtype)}

    return KnownProblem(
        name="step_size",
        problem=Bilevel(loss, loss),
        params={"theta": torch.tensor(start, dtype=dtype)},
        hyper={"lr": torch.tensor(rate, dtype=dtype)},
        inner_batch=torch.tensor(curvature, dtype=dtype),
        outer_batch=torch.tensor(curvature, dtype=dtype),
        optimizer=SGD(lr=lambda hyper: hyper["lr"]),
        unrolled_grad=unrolled_grad,
    )
