"""Products with parameters of any form (einsum, bilinear, parameter @ activation, tensordot): linear in each argument.

    d_i += Σ <δ_i, f(x, …, u, …)_i>   for each parameter in turn, the others at θ

keeping δ and the activations; the output's first dimension is the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ..derive import derive
from ..tape import Entry, Lookup, Tape
from ..tracked import NoRuleError, Tracked, plain
from .shared import activation, arguments, inner_product, note_layer, register_rule

__all__ = ["note_multilinear", "product"]


def product(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """function(*args, **kwargs), linear in each of its tensors."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    if tape.of_parameters_alone(args, kwargs):
        return derive(function, args, kwargs)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracked)]
    moved, named = pytree.tree_unflatten(list(map(plain, leaves)), spec)
    output = function(*moved, **named)

    for place in places:
        others = [
            plain(leaf).detach().clone() if isinstance(leaf, Tracked) and i != place else _kept(leaf)
            for i, leaf in enumerate(leaves)
        ]

        def apply(u: Tensor, place: int = place, others: list[Any] = others) -> Tensor:
            filled = [
                leaf.to(u.dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf for leaf in others
            ]
            filled[place] = u
            positional, keywords = pytree.tree_unflatten(filled, spec)
            return function(*positional, **keywords)

        note_multilinear(tape, output, leaves[place], apply)
    return output


def note_multilinear(tape: Tape, output: Tensor, tracked: Tracked, apply: Callable[[Tensor], Tensor]) -> None:
    """d_i += Σ <δ_i, apply(u)_i>."""
    context = tape.context

    def note(delta: Tensor) -> Entry:
        rows = tape.map(tracked, delta.shape[: max(delta.ndim - 1, 1)], context)

        def contribution(lookup: Lookup) -> Tensor | None:
            u = lookup(tracked)
            return None if u is None else inner_product(rows, delta, apply(u.to(delta.dtype)))

        return Entry(tracked.parameters, contribution)

    tape.watch(output, note)


def _kept(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else plain(leaf)


def _bilinear(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a = arguments(("input1", "input2", "weight", "bias"), args, kwargs, bias=None)
    weight, bias = a["weight"], a["bias"]
    left, right = activation(a["input1"], "bilinear"), activation(a["input2"], "bilinear")
    output = F.bilinear(left, right, plain(weight), plain(bias))
    kept = left.detach(), right.detach()

    def apply(u: Tensor | None, u_b: Tensor | None, delta: Tensor) -> Tensor:
        u = torch.zeros_like(plain(weight), dtype=delta.dtype) if u is None else u
        return F.bilinear(kept[0].to(delta.dtype), kept[1].to(delta.dtype), u, u_b)

    note_layer(tape, output, weight, bias, apply)
    return output


def _vectors(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Products with vectors, which have no rows (spectral norm's u and v)."""
    if any(isinstance(a, Tensor) and a.requires_grad for a in (*args, *kwargs.values())):
        paths = ", ".join(a.path for a in (*args, *kwargs.values()) if isinstance(a, Tracked))
        raise NoRuleError(f"{paths}: {function.__name__} has no rows; choose product='jvp' or 'unroll'")
    return derive(function, args, kwargs)


_torch: Any = torch
for _function in (torch.einsum, _torch.tensordot, torch.bmm, Tensor.bmm, Tensor.__rmatmul__):
    register_rule(_function, partial(product, _function))
for _function in (torch.mv, Tensor.mv, torch.dot, Tensor.dot, torch.vdot, Tensor.vdot):
    register_rule(_function, partial(_vectors, _function))
register_rule(F.bilinear, _bilinear)
