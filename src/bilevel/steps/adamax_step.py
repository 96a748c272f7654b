"""Adamax: m = β1 m + (1-β1) g, w = max(β2 w, |g| + ε), θ' = θ - lr/c1 · m/w, c1 = 1 - β1^t.

Source: Kingma & Ba, arXiv 1412.6980, algorithm 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .update import Update, is_zero, without_spikes

__all__ = ["factor"]


def factor(update: Update) -> Tensor:
    """D = lr/c1 [ (1-β1)/w - [w = |g| + ε] m sign(g)/w² ]: w moves with g only where this update set it."""
    group, g, m, largest = update.group, update.g, update.moment("exp_avg"), update.moment("exp_inf")
    beta1 = group["betas"][0]
    rate = group["lr"] / (1.0 - beta1**update.t)
    first = (1.0 - beta1) / largest
    if update.frozen:
        return update.sign * rate * first
    size = largest
    if not is_zero(update.l2):
        theta = update.theta + rate * m / largest
        g = g + update.l2 * theta
        size = largest + (update.l2 * theta).abs()
    # The state's own rounding, and with L2 that of the gradient made again from θ'.
    slack = 4 * torch.finfo(update.state["exp_inf"].dtype).eps * size
    set_now = g.abs() + group["eps"] >= largest - slack
    d = update.sign * rate * (first - torch.where(set_now, m * g.sign() / (largest * largest), 0.0))
    return without_spikes(d, update, largest, 2 * group["eps"])
