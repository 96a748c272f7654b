"""bitsandbytes' Adam and AdamW with moments of 32 or 8 bits, paged or not: Adam's D on the dequantized moments.

Both classes decouple the weight decay, so it does not enter. The library is recognized by its names, never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .adam_step import adam_factor
from .update import Update

__all__ = ["NAMES", "check", "dequantize", "factor"]

NAMES = tuple(
    f"bitsandbytes.optim.{file}.{paged}{name}{bits}"
    for file, name in (("adam", "Adam"), ("adamw", "AdamW"))
    for paged in ("", "Paged")
    for bits in ("", "8bit", "32bit")
)
"""The classes that share this rule."""


def check(group: Mapping[str, Any]) -> str | None:
    """AdEMAMix's α belongs to another rule."""
    return "alpha > 0 (AdEMAMix) has no rule; use AdamW8bit or Adam8bit" if group.get("alpha") else None


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


def factor(update: Update) -> Tensor:
    """D by the formula on the dequantized moments, 8-bit ones with v held above (1-β2) g².

    The bound is true of the moment that the update used, v = β2 v_old + (1-β2) g². Without it a coordinate whose
    v was quantized to 0 gets D = lr (1-β1) / (c1 ε), ten thousand times its neighbours', and drowns them all.

    Raises:
        ValueError: an update limited by `max_unorm`, whose derivative couples the coordinates.
    """
    state, group, shape = update.state, update.group, update.parameter.shape
    if "unorm_vec" in state:
        raise ValueError("bitsandbytes with max_unorm > 0 has no derivative rule: its limit couples all coordinates")
    g = update.gradient.float()
    m, v = (dequantize(state, which, shape).to(g.device) for which in (1, 2))  # paged moments may live on the host
    v = torch.maximum(v, (1.0 - group["betas"][1]) * g * g)
    return adam_factor(g, m, v, state["step"], group, update.frozen)
