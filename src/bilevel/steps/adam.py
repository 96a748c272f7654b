"""Adam and AdamW, torch's and bitsandbytes' (whose 8-bit moments are dequantized first).

m = β1 m + (1-β1) g, v = β2 v + (1-β2) g², θ' = θ - lr (m/c1) / (s + ε), s = sqrt(v/c2), c = 1 - β^t. Then

    D = lr/c1 [ (1-β1)/(s+ε) - m (1-β2) g / (c2 s (s+ε)²) ]

with the second term 0 where s = 0. Decoupled weight decay does not enter; with L2, g + wd θ stands for g.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["check", "check_bitsandbytes", "diagonal", "diagonal_bitsandbytes", "undo"]


def check(group: Mapping[str, Any]) -> str | None:
    """Everything torch.optim.Adam and AdamW offer is supported."""
    return None


def check_bitsandbytes(group: Mapping[str, Any]) -> str | None:
    """AdEMAMix's α belongs to another rule."""
    return "alpha > 0 (AdEMAMix) has no rule; use AdamW8bit or Adam8bit" if group.get("alpha") else None


def _diagonal(
    g: Tensor,
    m: Tensor,
    v: Tensor,
    t: float | Tensor,
    group: Mapping[str, Any],
    frozen: bool,
    live: Tensor | None = None,
) -> Tensor:
    # Few passes over memory: at 50 M parameters this is elementwise work on hundreds of megabytes, and pieces that fit
    # into the cache were slower. With r = sqrt(v) and a = r + ε sqrt(c2),
    # D = lr sqrt(c2) / (c1 a) [ (1-β1) - (1-β2) m g / (r a) ].
    beta1, beta2 = group["betas"][0], group["betas"][1]
    c1, c2 = 1.0 - beta1**t, 1.0 - beta2**t
    scale = group["lr"] * c2**0.5 / c1
    r = v.sqrt()
    if frozen:
        return r.add_(group["eps"] * c2**0.5).reciprocal_().mul_((1.0 - beta1) * scale)
    # Where r = 0, g = 0, so that m g / r is 0 by any r > 0: cheaper than a mask.
    r.clamp_min_(torch.finfo(r.dtype).tiny ** 0.5)
    second = (m * g).div_(r)
    if live is not None:
        second.masked_fill_(~live, 0.0)
    r.add_(group["eps"] * c2**0.5)
    return second.div_(r).mul_((beta2 - 1.0) * scale).add_((1.0 - beta1) * scale).div_(r)


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
    wide = torch.promote_types(parameter.dtype, torch.float32)  # bf16 moments: the algebra in fp32
    g, m, v = gradient.to(wide), state["exp_avg"].to(wide), state["exp_avg_sq"].to(wide)
    live = None
    if group["amsgrad"]:
        # The running maximum moves with g only where this step set it.
        largest = state["max_exp_avg_sq"].to(wide)
        live, v = largest == v, largest
    t = state["step"]
    if isinstance(t, Tensor):
        t = t.to(parameter.device, wide) if t.is_cuda else t.item()
    if group["maximize"]:
        g = -g
    decay = group["weight_decay"]
    if not frozen and not group.get("decoupled_weight_decay") and _is_l2(decay):
        g = g + decay * (parameter.to(wide) + _update(m, v, t, group))
    d = _diagonal(g, m, v, t, group, frozen, live)
    if gradient.dtype in (torch.bfloat16, torch.float16):
        # In 16 bits the gradients of two examples often cancel to exactly 0. There the formula gives
        # lr (1-β1) / (c1 ε): a spike as wide as ε, ten thousand times its neighbours. One such coordinate outweighed
        # all others together.
        d.masked_fill_(v == 0, 0.0)
    return d.neg_() if group["maximize"] else d


def _update(m: Tensor, v: Tensor, t: float | Tensor, group: Mapping[str, Any]) -> Tensor:
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
    before = _update(m, v, t, group).add_(parameter)
    decoupled = group.get("decoupled_weight_decay") and _is_l2(group["weight_decay"])
    return before.div_(1.0 - group["lr"] * group["weight_decay"]) if decoupled else before


def _is_l2(decay: Any) -> bool:
    return isinstance(decay, Tensor) or decay != 0


def dequantize(state: Mapping[str, Any], which: int, shape: torch.Size) -> Tensor:
    """A moment of bitsandbytes: qmap[code] · absmax of the code's block; 32-bit moments pass through."""
    code = state[f"state{which}"]
    if code.dtype != torch.uint8:
        return code.float().reshape(shape)
    scales = state[f"absmax{which}"]
    values = state[f"qmap{which}"][code.flatten().long()]
    block = 1 << (-(-values.numel() // scales.numel()) - 1).bit_length()  # blocks are powers of two, the last one short
    if values.numel() > block * scales.numel():
        raise ValueError(
            f"an 8-bit moment of {values.numel()} values has {scales.numel()} scales; which layout is this?"
        )
    return (values * scales.repeat_interleave(block)[: values.numel()]).reshape(shape)


def diagonal_bitsandbytes(
    parameter: Tensor,
    gradient: Tensor,
    state: Mapping[str, Any],
    group: Mapping[str, Any],
    *,
    first_step: bool | None,
    frozen: bool,
) -> Tensor:
    """D by the formula on the dequantized moments, with v held above (1-β2) g².

    The bound is true of the moment that the step used, v = β2 v_old + (1-β2) g². Without it a coordinate whose
    v was quantized to 0 gets D = lr (1-β1) / (c1 ε), ten thousand times its neighbours', and drowns them all.
    """
    g = gradient.float()
    m, v = dequantize(state, 1, parameter.shape), dequantize(state, 2, parameter.shape)
    v = torch.maximum(v, (1.0 - group["betas"][1]) * g * g)
    return _diagonal(g, m, v, state["step"], group, frozen)
