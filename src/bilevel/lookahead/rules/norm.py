"""Scale and shift of norms: G_i = Σ_t δ_it x̂_it, d_i += <G_i, u>, keeping (B, C) only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tape import Tape
from ..tracked import NoRuleError, plain
from .shared import arguments, note_scale_and_shift, register_rule


def _layer_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    a = arguments(names, args, kwargs, weight=None, bias=None, eps=1e-5)
    x, shape, eps = a["input"], list(a["normalized_shape"]), a["eps"]
    output = F.layer_norm(x, shape, plain(a["weight"]), plain(a["bias"]), eps)
    kept = x.detach()
    note_scale_and_shift(
        tape, output, a["weight"], a["bias"], lambda dtype: F.layer_norm(kept.to(dtype), shape, eps=eps), len(shape)
    )
    return output


def _rms_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    a = arguments(("input", "normalized_shape", "weight", "eps"), args, kwargs, weight=None, eps=None)
    x, shape, eps = a["input"], list(a["normalized_shape"]), a["eps"]
    output = F.rms_norm(x, shape, plain(a["weight"]), eps)
    kept = x.detach()
    note_scale_and_shift(
        tape, output, a["weight"], None, lambda dtype: F.rms_norm(kept.to(dtype), shape, eps=eps), len(shape)
    )
    return output


def _batch_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    a = arguments(names, args, kwargs, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5)
    if a["training"]:
        raise NoRuleError(
            "batch_norm in training mode mixes the examples of a batch, so no example has a gradient of its own; "
            "put it into eval mode or use a norm over features"
        )
    x, mean, variance = a["input"], a["running_mean"], a["running_var"]
    output = F.batch_norm(x, mean, variance, plain(a["weight"]), plain(a["bias"]), False, a["momentum"], a["eps"])
    kept = x.detach()

    def normalized(dtype: torch.dtype) -> Tensor:
        return F.batch_norm(kept.to(dtype), mean, variance, None, None, False, 0.0, a["eps"]).movedim(1, -1)

    turned = output.movedim(1, -1)
    note_scale_and_shift(tape, turned, a["weight"], a["bias"], normalized, 1)
    return turned.movedim(-1, 1)


register_rule(F.layer_norm, _layer_norm)
register_rule(F.rms_norm, _rms_norm)
register_rule(F.batch_norm, _batch_norm)
