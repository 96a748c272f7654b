"""RMSprop: v = α v + (1-α) g², a = sqrt(v) + ε (centered: sqrt(v - ḡ²) + ε), θ' = θ - lr g/a, or through a momentum."""

from __future__ import annotations

from torch import Tensor

from .update import Update, is_zero, without_spikes

__all__ = ["factor"]


def factor(update: Update) -> Tensor:
    """D = lr [ 1/a - (1-α) g (g - ḡ) / (sqrt(·) a²) ], ḡ = 0 where not centered, the second term 0 where sqrt(·) = 0.

    The momentum buffer adds g/a with factor 1, so it does not enter.
    """
    group, g, v = update.group, update.g, update.moment("square_avg")
    mean = update.moment("grad_avg") if group["centered"] else 0.0
    root = (v - mean * mean).clamp_min_(0).sqrt_()
    a = root + group["eps"]
    if update.frozen:
        return update.sign * group["lr"] / a
    decay = update.l2
    if not is_zero(decay):
        if group["momentum"] > 0:
            g = g + decay * (update.theta + group["lr"] * update.moment("momentum_buffer"))
        else:  # g_eff = g + wd θ and θ = θ' + lr g_eff / a, solved for g_eff
            g = (g + decay * update.theta) / (1.0 - decay * group["lr"] / a)
    second = (1.0 - group["alpha"]) * g * (g - mean) / (root * a * a)
    second.masked_fill_(root == 0, 0.0)
    return without_spikes(update.sign * group["lr"] * (1.0 / a - second), update, v)
