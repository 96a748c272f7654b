"""Adagrad: S = S + g², θ' = θ - l g / (sqrt(S) + ε), l = lr / (1 + (t-1) decay).

D = l [ 1/a - g² / (sqrt(S) a²) ], a = sqrt(S) + ε, the second term 0 where S = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["check", "diagonal"]


def check(group: Mapping[str, Any]) -> str | None:
    """Everything torch.optim.Adagrad offers is supported."""
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
    sign = -1.0 if group["maximize"] else 1.0
    g, total = sign * gradient.to(wide), state["sum"].to(wide)
    rate = group["lr"] / (1.0 + (float(state["step"]) - 1.0) * group["lr_decay"])
    root = total.sqrt()
    a = root + group["eps"]
    decay = group["weight_decay"]
    if isinstance(decay, Tensor) or decay != 0:  # as in RMSprop: solved for the gradient that the step used
        g = (g + decay * parameter.to(wide)) / (1.0 - decay * rate / a)
    second = (g * g / (root * a * a)).masked_fill_(root == 0, 0.0)
    return sign * rate * (1.0 / a - (0.0 if frozen else second))
