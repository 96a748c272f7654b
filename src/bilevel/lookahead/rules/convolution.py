"""Convolutions and transposed ones: d_i += Σ <δ_i, conv(x_i, U) + u_b>, keeping x and δ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..derive import derive
from ..tape import Tape
from ..tracked import Tracked, plain
from .shared import activation, arguments, note_layer, register_rule


def _convolution(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    if function in _TRANSPOSED:
        names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    a = arguments(names, args, kwargs, bias=None)
    x, weight, bias = a.pop("input"), a.pop("weight"), a.pop("bias")
    if isinstance(x, Tracked) and tape.of_parameters_alone(args, kwargs):
        return derive(function, args, kwargs)
    x = activation(x, "a convolution")
    output = function(x, plain(weight), plain(bias), **a)
    kept = x.detach()

    def apply(u: Tensor | None, u_b: Tensor | None, delta: Tensor) -> Tensor:
        if u is None:
            u = torch.zeros_like(plain(weight), dtype=delta.dtype)
        return function(kept.to(delta.dtype), u, u_b, **a)

    note_layer(tape, output, weight, bias, apply)
    return output


_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
for _function in (F.conv1d, F.conv2d, F.conv3d, *_TRANSPOSED):
    register_rule(_function, partial(_convolution, _function))
