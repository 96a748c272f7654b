"""Muon: b = μ b + (1-μ) g, x = b or with Nesterov (1-μ) g + μ b, θ' = (1 - lr wd) θ - lr r O(x), r from the shape.

O makes a matrix nearly orthogonal by k Newton-Schulz iterations, from X = x / max(‖x‖, ε), wide rather than high:
X <- a X + (b A + c A²) X, A = X Xᵀ. It mixes all coordinates, so u is a vector-Jacobian product of that formula:
u = lr r (1-μ)(1+μ [Nesterov]) (∂O/∂x)ᵀ v.

Differs from torch.optim.Muon in precision alone: torch runs O in bfloat16, whose rounding (.4 %) has no derivative;
here the same formula is differentiated at the same x in the wide precision.

Source: Jordan et al., kellerjordan.github.io/posts/muon, 2024; r: Liu et al., arXiv 2502.16982.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._functional import vjp
from .._orthogonal import orthogonal, shape_factor
from .update import Update

__all__ = ["product"]


def product(update: Update, vector: Tensor) -> Tensor:
    """u = D v by one reverse pass through the iterations."""
    group, momentum, b = update.group, update.group["momentum"], update.moment("momentum_buffer")
    x, share = b, 1.0 - momentum
    if group["nesterov"]:
        x, share = torch.lerp(update.g, b, momentum), share * (1.0 + momentum)
    rate = group["lr"] * shape_factor(group["adjust_lr_fn"], x.shape)
    settings = (group["ns_coefficients"], group["ns_steps"], group["eps"])

    def of(matrix: Tensor) -> Tensor:
        return orthogonal(matrix, *settings)

    (pulled,) = vjp(of, x)(vector.to(update.wide))
    return (rate * share * pulled).to(vector.dtype)
