"""Layers that multiply by a matrix: d_i += Σ_t <δ_it, U x_it + u_b>, keeping x and δ.

Source: the ghost-norm identity, Goodfellow (arXiv 1510.01799), Li et al. (arXiv 2110.05679).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..derive import derive
from ..row_maps import RowMap, wide
from ..tape import Entry, Lookup, Tape
from ..tracked import NoRuleError, Tracked, plain
from .product import product
from .shared import activation, arguments, inner_product, parameters_of, register_rule

__all__ = ["linear"]


def linear(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a = arguments(("input", "weight", "bias"), args, kwargs, bias=None)
    x, weight, bias = a["input"], a["weight"], a["bias"]
    if isinstance(x, Tracked) and tape.of_parameters_alone(args, kwargs):
        return derive(F.linear, args, kwargs)
    x = activation(x, "linear")
    output = F.linear(x, plain(weight), plain(bias))
    kept, context = x.detach(), tape.context
    tracked = [p for p in (weight, bias) if isinstance(p, Tracked)]

    def note(delta: Tensor) -> Entry:
        rows = tape.map(tracked[0], delta.shape[:-1], context)
        chosen = _positions_in_use(rows, delta)
        if chosen is None:
            return _linear_entry(weight, bias, rows, kept, delta)
        rows = RowMap(rows.num_examples, index=chosen // delta.shape[1])
        return _linear_entry(weight, bias, rows, kept.flatten(0, 1)[chosen], delta.flatten(0, 1)[chosen])

    tape.watch(output, note)
    return output


def _linear_entry(weight: Any, bias: Any, rows: RowMap, x: Tensor, delta: Tensor) -> Entry:
    """d_i += Σ_t <δ_it, U x_it + u_b>, the product taken on the narrower side: Σ_t <Uᵀ δ_it, x_it> where in < out."""

    def contribution(lookup: Lookup) -> Tensor | None:
        u = lookup(weight) if isinstance(weight, Tracked) else None
        u_b = lookup(bias) if isinstance(bias, Tracked) else None
        if u is not None and (u.shape[1] >= u.shape[0]):
            applied = F.linear(x.to(delta.dtype), u.to(delta.dtype), None if u_b is None else u_b.to(delta.dtype))
            return inner_product(rows, delta, applied, spent=True)
        total = None if u is None else inner_product(rows, x.to(delta.dtype), delta @ u.to(delta.dtype), spent=True)
        if u_b is None:
            return total
        shift = rows.reduce(delta, 1) @ u_b.to(wide(delta.dtype))
        return shift if total is None else total + shift

    return Entry(parameters_of(weight, bias), contribution)


def _positions_in_use(rows: RowMap, delta: Tensor) -> Tensor | None:
    """Which of the B T positions have a gradient at all, where most have none; else None.

    So it is in the last layer of a model whose loss looks at few positions. One position is looked at first: where it
    has a gradient, as in all other layers, nothing more is paid. (On a GPU the look would be a synchronisation.)
    """
    if delta.is_cuda or delta.ndim != 3 or rows.index is not None or rows.lead != 1 or rows.drop:
        return None
    if delta.shape[1] < 2 or bool(delta[0, 0].any()):
        return None
    chosen = delta.flatten(0, 1).abs().amax(-1).nonzero().flatten()
    return chosen if 0 < 2 * len(chosen) <= delta.shape[0] * delta.shape[1] else None


def _matmul(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a = arguments(
        ("input", "other"), args, {("other" if k in ("mat2", "tensor2") else k): v for k, v in kwargs.items()}
    )
    x, weight = a["input"], a["other"]
    if tape.of_parameters_alone(args, kwargs):
        return derive(function, args, kwargs)
    if not isinstance(x, Tracked) and isinstance(weight, Tracked) and weight.ndim == 2 and x.ndim > 1:
        return linear(tape, (x, weight.extend(lambda w: w.mT)), {})
    return product(function, tape, args, kwargs)


def _addmm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a = arguments(("input", "mat1", "mat2"), args, kwargs)
    if tape.of_parameters_alone(args, kwargs):
        return derive(torch.addmm, args, kwargs)
    if isinstance(a["mat1"], Tracked) or set(kwargs) & {"alpha", "beta"} or not isinstance(a["input"], Tracked):
        raise NoRuleError(
            f"{', '.join(v.path for v in a.values() if isinstance(v, Tracked))}: addmm has a ghost rule for bias + "
            "activations @ parameter only; choose product='jvp' or 'unroll'"
        )
    weight = a["mat2"]
    turned = weight.extend(lambda w: w.mT) if isinstance(weight, Tracked) else weight.mT
    return linear(tape, (a["mat1"], turned, a["input"]), {})


register_rule(F.linear, linear)
for _function in (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm):
    register_rule(_function, partial(_matmul, _function))
register_rule(torch.addmm, _addmm)
