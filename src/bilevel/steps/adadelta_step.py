"""Adadelta: v = ρ v + (1-ρ) g², δ = sqrt(x + ε) / sqrt(v + ε) g, θ' = θ - lr δ, then x' = ρ x + (1-ρ) δ².

x is the average of earlier δ². The state holds x' only; with q = g² / (v + ε) it follows that
x = (x' - (1-ρ) ε q) / (ρ + (1-ρ) q).

Source: Zeiler, arXiv 1212.5701, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .update import Update, is_zero

__all__ = ["check", "factor"]

_ROUNDS = 100


def check(group: Mapping[str, Any]) -> str | None:
    """With ρ = 0 the state forgets what the update used."""
    return "rho = 0 leaves no trace of the average that the update used; choose rho above 0" * (group["rho"] == 0)


def factor(update: Update) -> Tensor:
    """D = lr sqrt(x + ε) [ 1/s - (1-ρ) g² / s³ ], s = sqrt(v + ε).

    Raises:
        ValueError: an L2 decay so large that the gradient of the update cannot be made again from θ'.
    """
    group, v = update.group, update.moment("square_avg")
    s = (v + group["eps"]).sqrt()
    g = update.g if is_zero(update.l2) or update.frozen else _with_decay(update, s)
    numerator = _numerator(update, g, s)
    second = 0.0 if update.frozen else (1.0 - group["rho"]) * g * g / s**3
    return update.sign * group["lr"] * numerator * (1.0 / s - second)


def _numerator(update: Update, g: Tensor, s: Tensor) -> Tensor:
    """sqrt(x + ε)."""
    rho, eps = update.group["rho"], update.group["eps"]
    q = (g / s).square()
    before = (update.moment("acc_delta") - (1.0 - rho) * eps * q) / (rho + (1.0 - rho) * q)
    return (before.clamp_min(0.0) + eps).sqrt()


def _with_decay(update: Update, s: Tensor) -> Tensor:
    """The fixed point of g_eff = g + wd (θ' + lr δ(g_eff)), a contraction by about wd lr δ'."""
    start = update.g + update.l2 * update.theta
    g = start
    for _ in range(_ROUNDS):
        last, g = g, start + update.l2 * update.group["lr"] * _numerator(update, g, s) / s * g
        if bool(((g - last).abs() <= 4 * torch.finfo(g.dtype).eps * (g.abs() + start.abs())).all()):
            return g
    raise ValueError(
        f"Adadelta with weight_decay={update.l2} and lr={update.group['lr']}: the gradient of the update cannot be "
        "made again; lower one of them, or put the decay into the loss"
    )
