"""Scale and shift of norms: G_i = Σ_t δ_it x̂_it, d_i += <G_i, u>, keeping (B, C) only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..derive import derive
from ..tape import Tape
from ..tracked import NoRuleError, plain
from .shared import activation, arguments, note_scale_and_shift, register_rule


def _layer_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if tape.of_parameters_alone(args, kwargs):
        return derive(F.layer_norm, args, kwargs)
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    a = arguments(names, args, kwargs, weight=None, bias=None, eps=1e-5)
    x, shape, eps = activation(a["input"], "a norm"), list(a["normalized_shape"]), a["eps"]
    output = F.layer_norm(x, shape, plain(a["weight"]), plain(a["bias"]), eps)
    kept = x.detach()
    note_scale_and_shift(
        tape, output, a["weight"], a["bias"], lambda dtype: F.layer_norm(kept.to(dtype), shape, eps=eps), len(shape)
    )
    return output


def _rms_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if tape.of_parameters_alone(args, kwargs):
        return derive(F.rms_norm, args, kwargs)
    a = arguments(("input", "normalized_shape", "weight", "eps"), args, kwargs, weight=None, eps=None)
    x, shape, eps = activation(a["input"], "a norm"), list(a["normalized_shape"]), a["eps"]
    output = F.rms_norm(x, shape, plain(a["weight"]), eps)
    kept = x.detach()
    note_scale_and_shift(
        tape, output, a["weight"], None, lambda dtype: F.rms_norm(kept.to(dtype), shape, eps=eps), len(shape)
    )
    return output


def _group_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = ("input", "num_groups", "weight", "bias", "eps")
    a = arguments(names, args, kwargs, weight=None, bias=None, eps=1e-5)
    if tape.of_parameters_alone(args, kwargs):
        return derive(F.group_norm, args, kwargs)
    x, groups, eps = activation(a["input"], "group_norm"), a["num_groups"], a["eps"]
    output = F.group_norm(x, groups, plain(a["weight"]), plain(a["bias"]), eps)
    kept = x.detach()

    def normalized(dtype: torch.dtype) -> Tensor:
        return F.group_norm(kept.to(dtype), groups, eps=eps)

    return _channels_second(tape, output, a["weight"], a["bias"], normalized)


def _instance_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    a = arguments(
        names, args, kwargs, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
        momentum=0.1, eps=1e-5,
    )  # fmt: skip
    x, own = activation(a["input"], "instance_norm"), a["use_input_stats"]
    a |= {"input": x, "weight": plain(a["weight"]), "bias": plain(a["bias"])}
    weight, bias = (arguments(names, args, kwargs, weight=None, bias=None)[name] for name in ("weight", "bias"))
    output = F.instance_norm(**a)
    kept = x.detach()
    fixed = {} if own else {k: a[k].detach().clone() for k in ("running_mean", "running_var")}

    def normalized(dtype: torch.dtype) -> Tensor:
        return F.instance_norm(kept.to(dtype), **fixed, use_input_stats=own, eps=a["eps"])

    return _channels_second(tape, output, weight, bias, normalized)


def _channels_second(
    tape: Tape, output: Tensor, weight: Any, bias: Any, normalized: Callable[[torch.dtype], Tensor]
) -> Tensor:
    """(B, C, …), a scale and shift for each channel."""
    turned = output.movedim(1, -1)
    note_scale_and_shift(tape, turned, weight, bias, lambda dtype: normalized(dtype).movedim(1, -1), 1)
    return turned.movedim(-1, 1)


def _batch_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    a = arguments(names, args, kwargs, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5)
    if a["training"]:
        raise NoRuleError(
            "batch_norm in training mode mixes the examples of a batch, so no example has a gradient of its own; "
            "put it into eval mode or use a norm over features"
        )
    x, mean, variance = activation(a["input"], "batch_norm"), a["running_mean"], a["running_var"]
    output = F.batch_norm(x, mean, variance, plain(a["weight"]), plain(a["bias"]), False, a["momentum"], a["eps"])
    kept = x.detach()

    def normalized(dtype: torch.dtype) -> Tensor:
        return F.batch_norm(kept.to(dtype), mean, variance, None, None, False, 0.0, a["eps"])

    return _channels_second(tape, output, a["weight"], a["bias"], normalized)


register_rule(F.layer_norm, _layer_norm)
register_rule(F.rms_norm, _rms_norm)
register_rule(F.batch_norm, _batch_norm)
register_rule(F.group_norm, _group_norm)
register_rule(F.instance_norm, _instance_norm)
