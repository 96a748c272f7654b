"""RMSprop: v = α v + (1-α) g², a = sqrt(v) + ε (centered: sqrt(v - ḡ²) + ε), θ' = θ - lr g/a, or through a momentum.

D = lr [ 1/a - (1-α) g (g - ḡ) / (sqrt(·) a²) ], ḡ = 0 where not centered; the momentum buffer adds g/a with factor 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["check", "diagonal"]


def check(group: Mapping[str, Any]) -> str | None:
    """Everything torch.optim.RMSprop offers is supported."""
    return None


def diagonal(
    parameter: Tensor,
    gradient: Tensor,
    state: Mapping[str, Any],
    group: Mapping[str, Any],
    *,
    first_step: bool | None,
    frozen: bool,
) -> Tensor:
    """D of the step that made `state`; `parameter` is θ', after the step."""
    wide = torch.promote_types(parameter.dtype, torch.float32)
    g, v = gradient.to(wide), state["square_avg"].to(wide)
    sign = -1.0 if group["maximize"] else 1.0
    g = sign * g
    mean = state["grad_avg"].to(wide) if group["centered"] else torch.zeros_like(g)
    root = (v - mean * mean).clamp_min_(0).sqrt_()
    a = root + group["eps"]
    decay = group["weight_decay"]
    if isinstance(decay, Tensor) or decay != 0:
        if group["momentum"] > 0:
            g = g + decay * (parameter.to(wide) + group["lr"] * state["momentum_buffer"].to(wide))
        else:  # g_eff = g + wd θ and θ = θ' + lr g_eff / a, solved for g_eff
            g = (g + decay * parameter.to(wide)) / (1.0 - decay * group["lr"] / a)
    second = (1.0 - group["alpha"]) * g * (g - mean) / (root * a * a)
    second.masked_fill_(root == 0, 0.0)
    return sign * group["lr"] * (1.0 / a - (0.0 if frozen else second))
