"""A non-convex outer problem in one dimension, with three minima."""

import math

import torch
from torch import Tensor

from .._types import Tensors
from ..optimizers import SGD
from ..problem import Bilevel
from .known import KnownProblem


def toy(start: float = 1.5, dtype: torch.dtype = torch.float64) -> KnownProblem:
    """Outer cos(4y+2)/(1+e^(2-4x)) + ½ log((4x-2)²+1), inner (x+y)² + x sin²(x+y), x in [0, 3]; φ = x, θ = y.

    y* = -x. Minima of the outer loss along it: x = .38236 (.442706), 1.21515 (.199911, the global one), 2.82964
    (1.243458). From x = 1.5 descent goes to the global one.

    Source: Liu et al., arXiv 2209.08709, as used for BOME; the minima were recomputed.
    """

    def inner(params: Tensors, hyper: Tensors, batch: None) -> Tensor:
        total = hyper["x"] + params["y"]
        return total**2 + hyper["x"] * torch.sin(total) ** 2

    def outer(params: Tensors, hyper: Tensors, batch: None) -> Tensor:
        x, y = hyper["x"], params["y"]
        return torch.cos(4 * y + 2) * torch.sigmoid(4 * x - 2) + torch.log((4 * x - 2) ** 2 + 1) / 2

    def implicit_grad(hyper: Tensors) -> Tensors:
        x = float(hyper["x"])
        gate, angle = 1 / (1 + math.exp(2 - 4 * x)), 2 - 4 * x
        by_x = 4 * math.cos(angle) * gate * (1 - gate) + 4 * (4 * x - 2) / ((4 * x - 2) ** 2 + 1)
        by_y = -4 * math.sin(angle) * gate
        return {"x": torch.tensor(by_x - by_y, dtype=dtype)}

    curvature = 2 + 2 * start
    return KnownProblem(
        name="toy",
        problem=Bilevel(inner, outer),
        params={"y": torch.tensor(0.0, dtype=dtype)},
        hyper={"x": torch.tensor(start, dtype=dtype)},
        inner_batch=None,
        outer_batch=None,
        optimizer=SGD(lr=1 / curvature),
        solution=lambda hyper: {"y": -hyper["x"]},
        implicit_grad=implicit_grad,
        curvature=(curvature, curvature),
    )
