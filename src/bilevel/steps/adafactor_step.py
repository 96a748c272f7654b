"""Adafactor, torch's: the second moment of a matrix is an outer product of its rows' and columns' means.

    R = lerp(R, mean_j g², w), C = lerp(C, mean_i g², w), V = R C / mean(R); a vector keeps V = lerp(V, g², w); w = t^γ
    U = g / sqrt(max(V, ε1²)),  θ' = (1 - lr wd) θ - α U / max(1, rms(U)/d),  α = max(ε2, rms(θ)) min(lr, 1/sqrt(t))

Every coordinate of U depends on many of g, so D is no diagonal: u is a vector-Jacobian product of the formula.

Source: Shazeer & Stern, arXiv 1804.04235, algorithms 4 and 5, as torch.optim.Adafactor computes them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._functional import vjp
from .._tree import norm
from .update import Update

__all__ = ["product"]


def product(update: Update, vector: Tensor) -> Tensor:
    """u = D v by one reverse pass through U; α depends on θ alone and is made again from θ'."""
    direction = _direction(update)
    (pulled,) = vjp(direction, update.g)(vector.to(update.wide))
    return (update.sign * _rate(update, direction(update.g)) * pulled).to(vector.dtype)


def _direction(update: Update) -> Callable[[Tensor], Tensor]:
    """g -> U / max(1, rms(U)/d), moving the moments that hold this g already as g moves them."""
    group, weight = update.group, float(update.state["step"]) ** update.group["beta2_decay"]
    eps = torch.finfo(update.parameter.dtype).eps if group["eps"][0] is None else group["eps"][0]
    still = update.g
    kept = {name: update.moment(name) for name in ("row_var", "col_var", "variance") if name in update.state}

    def moved(name: str, of: Callable[[Tensor], Tensor], g: Tensor) -> Tensor:
        return kept[name] + weight * (of(g) - of(still))

    def variance(g: Tensor) -> Tensor:
        if g.dim() <= 1:
            return moved("variance", torch.square, g)
        rows = moved("row_var", lambda x: x.square().mean(-1, keepdim=True), g)
        columns = moved("col_var", lambda x: x.square().mean(-2, keepdim=True), g)
        return rows @ columns / rows.mean(-2, keepdim=True).clamp(min=eps)

    def direction(g: Tensor) -> Tensor:
        at = still if update.frozen else g
        scale = variance(at).clamp(min=eps * eps).rsqrt()
        size = norm({"": at * scale}) / g.numel() ** 0.5
        return g * scale / (size / group["d"]).clamp(min=1.0)

    return direction


def _rate(update: Update, moved: Tensor) -> Tensor:
    """α, from κ θ = θ' + α W with κ = 1 - lr wd: rms(θ) solves a quadratic, unless ε2 is the larger.

    Raises:
        ValueError: a learning rate so large that θ cannot be made again.
    """
    group, theta, n = update.group, update.theta, update.parameter.numel()
    share = min(float(group["lr"]), float(update.state["step"]) ** -0.5)
    kappa = 1.0 - group["lr"] * group["weight_decay"]
    leading = kappa**2 * n - share**2 * moved.square().sum()
    if not bool(leading > 0):
        raise ValueError(
            f"Adafactor with lr={group['lr']}, weight_decay={group['weight_decay']} and d={group['d']}: its rate "
            "cannot be made again from the parameters after the update; lower lr or d"
        )
    half = share * (theta * moved).sum()
    size = (half + (half.square() + leading * theta.square().sum()).sqrt()) / leading
    return share * size.clamp(min=group["eps"][1])
