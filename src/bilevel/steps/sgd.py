"""SGD: b = μ b + (1-τ) g (first step: b = g), θ' = θ - lr b; Nesterov: θ' = θ - lr (g + μ b)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["check", "diagonal"]


def check(group: Mapping[str, Any]) -> str | None:
    """Everything torch.optim.SGD offers is supported."""
    return None


def diagonal(
    parameter: Tensor,
    gradient: Tensor,
    state: Mapping[str, Any],
    group: Mapping[str, Any],
    *,
    first_step: bool | None,
    frozen: bool,
) -> Tensor | float:
    """D = lr; with momentum lr (1-τ), at the first step lr; Nesterov lr (1 + μ (1-τ)), at the first step lr (1+μ)."""
    momentum, dampening = group["momentum"], group["dampening"]
    fresh = 1.0
    if momentum and dampening:
        if first_step is None:
            raise ValueError(
                "SGD with momentum and dampening: its first step skips the dampening and the state does not tell "
                "which step this was; say first_step=True or False"
            )
        fresh = 1.0 if first_step else 1.0 - dampening
    scale = group["lr"] * ((1.0 + momentum * fresh) if group["nesterov"] else fresh)
    return -scale if group["maximize"] else scale
