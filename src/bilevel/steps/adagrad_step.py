"""Adagrad: S = S + g², θ' = θ - l g / (sqrt(S) + ε), l = lr / (1 + (t-1) decay)."""

from __future__ import annotations

from torch import Tensor

from .update import Update, is_zero, without_spikes

__all__ = ["factor"]


def factor(update: Update) -> Tensor:
    """D = l [ 1/a - g² / (sqrt(S) a²) ], a = sqrt(S) + ε, the second term 0 where S = 0."""
    group, g = update.group, update.g
    rate = group["lr"] / (1.0 + (float(update.state["step"]) - 1.0) * group["lr_decay"])
    root = update.moment("sum").sqrt()
    a = root + group["eps"]
    if update.frozen:
        return update.sign * rate / a
    decay = update.l2
    if not is_zero(decay):  # g_eff = g + wd θ and θ = θ' + l g_eff / a, solved for g_eff
        g = (g + decay * update.theta) / (1.0 - decay * rate / a)
    second = (g * g / (root * a * a)).masked_fill_(root == 0, 0.0)
    return without_spikes(update.sign * rate * (1.0 / a - second), update, root)
