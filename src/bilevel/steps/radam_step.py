"""RAdam: θ' = θ - lr m/c1 · R sqrt(c2) / (sqrt(v) + ε) once the variance can be trusted (ρ_t > 5), before it lr m/c1.

    ρ_∞ = 2/(1-β2) - 1,  ρ_t = ρ_∞ - 2 t β2^t / c2,  R² = (ρ_t-4)(ρ_t-2) ρ_∞ / ((ρ_∞-4)(ρ_∞-2) ρ_t).

Source: Liu et al., arXiv 1908.03265, algorithm 2; ε as torch.optim.RAdam adds it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .update import Update, is_zero, without_spikes

__all__ = ["factor"]


def factor(update: Update) -> Tensor:
    """D = lr/c1 · R sqrt(c2) [ (1-β1)/a - m (1-β2) g / (sqrt(v) a²) ], a = sqrt(v) + ε; early on lr (1-β1)/c1."""
    group, g, m, v = update.group, update.g, update.moment("exp_avg"), update.moment("exp_avg_sq")
    beta1, beta2 = group["betas"]
    # Whether the variance is used is decided on the host, as torch.optim does it (and capturable on the device).
    t = float(update.state["step"])
    c1, c2 = 1.0 - beta1**t, 1.0 - beta2**t
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * t * beta2**t / c2
    rate = update.sign * group["lr"] / c1
    if not length > 5.0:
        return torch.ones_like(g) * ((1.0 - beta1) * rate)
    rectified = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
    rate = rate * rectified * c2**0.5
    root = v.sqrt()
    a = root + group["eps"]
    if update.frozen:
        return rate * (1.0 - beta1) / a
    if not is_zero(update.l2):
        g = g + update.l2 * (update.theta + update.sign * rate * m / a)
    second = m * (1.0 - beta2) * g / (root * a * a)
    return without_spikes(rate * ((1.0 - beta1) / a - second.masked_fill_(root == 0, 0.0)), update, v)
