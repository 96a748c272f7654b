"""Convolutions: d_i += Σ <δ_i, conv(x_i, U) + u_b>, keeping x and δ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tape import Tape
from ..tracked import plain
from .shared import arguments, note_layer, register_rule


def _convolution(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    a = arguments(names, args, kwargs, bias=None)
    x, weight, bias = a.pop("input"), a.pop("weight"), a.pop("bias")
    output = function(x, plain(weight), plain(bias), **a)
    kept = x.detach()

    def apply(u: Tensor | None, u_b: Tensor | None, delta: Tensor) -> Tensor:
        if u is None:
            u = torch.zeros_like(plain(weight), dtype=delta.dtype)
        return function(kept.to(delta.dtype), u, u_b, **a)

    note_layer(tape, output, weight, bias, apply)
    return output


for _function in (F.conv1d, F.conv2d, F.conv3d):
    register_rule(_function, partial(_convolution, _function))
