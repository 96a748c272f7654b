"""SGD: b = μ b + (1-τ) g (first update: b = g), θ' = θ - lr b; Nesterov: θ' = θ - lr (g + μ b)."""

from __future__ import annotations

from torch import Tensor

from .update import Update

__all__ = ["factor"]


def factor(update: Update) -> Tensor | float:
    """D = lr; with momentum lr (1-τ), at the first update lr; Nesterov lr (1 + μ (1-τ)), at the first lr (1 + μ).

    Raises:
        ValueError: momentum and dampening, and nobody knows whether this was the first update.
    """
    group = update.group
    momentum, dampening = group["momentum"], group["dampening"]
    fresh = 1.0
    if momentum and dampening:
        if update.first is None:
            raise ValueError(
                "SGD with momentum and dampening: its first step skips the dampening and the state does not tell "
                "which step this was; say first_step=True or False"
            )
        fresh = 1.0 if update.first else 1.0 - dampening
    return update.sign * group["lr"] * ((1.0 + momentum * fresh) if group["nesterov"] else fresh)
