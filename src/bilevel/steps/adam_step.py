"""Adam and AdamW: m = β1 m + (1-β1) g, v = β2 v + (1-β2) g², θ' = θ - lr (m/c1) / (s + ε), s = sqrt(v/c2), c = 1 - β^t.

    D = lr/c1 [ (1-β1)/(s+ε) - m (1-β2) g / (c2 s (s+ε)²) ]

with the second term 0 where s = 0. Decoupled weight decay does not enter; with L2, g + wd θ stands for g.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .update import Update, is_zero, without_spikes

__all__ = ["adam_factor", "factor", "undo"]


def factor(update: Update) -> Tensor:
    """D, the derivative by each coordinate."""
    group, g, m, v = update.group, update.g, update.moment("exp_avg"), update.moment("exp_avg_sq")
    live = None
    if group["amsgrad"]:
        # The running maximum moves with g only where this update set it.
        largest = update.moment("max_exp_avg_sq")
        live, v = largest == v, largest
    if not update.frozen and not is_zero(update.l2):
        g = g + update.l2 * (update.theta + _moved(m, v, update.t, group))
    d = adam_factor(g, m, v, update.t, group, update.frozen, live)
    d = without_spikes(d, update, v)
    return d.neg_() if group["maximize"] else d


def adam_factor(
    g: Tensor,
    m: Tensor,
    v: Tensor,
    t: float | Tensor,
    group: Mapping[str, Any],
    frozen: bool,
    live: Tensor | None = None,
) -> Tensor:
    """D from the moments; `live`: where v moves with g (amsgrad)."""
    # Few passes over memory: at 50 M parameters this is elementwise work on hundreds of megabytes, and pieces that fit
    # into the cache were slower. With r = sqrt(v) and a = r + ε sqrt(c2),
    # D = lr sqrt(c2) / (c1 a) [ (1-β1) - (1-β2) m g / (r a) ].
    beta1, beta2 = group["betas"][0], group["betas"][1]
    c1, c2 = 1.0 - beta1**t, 1.0 - beta2**t
    scale = group["lr"] * c2**0.5 / c1
    if frozen:
        return v.sqrt().add_(group["eps"] * c2**0.5).reciprocal_().mul_((1.0 - beta1) * scale)
    # Where r = 0, g = 0, so that m g / r is 0 by any r > 0: cheaper than a mask, and than a CPU's square root of 0.
    r = v.clamp_min(torch.finfo(v.dtype).tiny).sqrt_()
    second = (m * g).div_(r)
    if live is not None:
        second.masked_fill_(~live, 0.0)
    r.add_(group["eps"] * c2**0.5)
    return second.div_(r).mul_((beta2 - 1.0) * scale).add_((1.0 - beta1) * scale).div_(r)


def _moved(m: Tensor, v: Tensor, t: float | Tensor, group: Mapping[str, Any]) -> Tensor:
    """lr (m/c1) / (s + ε): θ before the step is θ' plus this, so that no copy has to be kept."""
    beta1, beta2 = group["betas"]
    s = (v / (1.0 - beta2**t)).sqrt_().add_(group["eps"])
    return (m / (1.0 - beta1**t)).mul_(group["lr"]).div_(s)


def undo(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """θ from θ', up to rounding: (θ' + update) / (1 - lr wd), the divisor where the decay is decoupled."""
    m, v = state["exp_avg"], state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    t = state["step"]
    if isinstance(t, Tensor):
        t = t.to(parameter.device, parameter.dtype) if t.is_cuda else t.item()
    before = _moved(m, v, t, group).add_(parameter)
    decoupled = group.get("decoupled_weight_decay") and not is_zero(group["weight_decay"])
    return before.div_(1.0 - group["lr"] * group["weight_decay"]) if decoupled else before
