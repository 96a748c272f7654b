"""What the rules have in common.

Shapes: x (*rows, in), δ = ∂(Σ_i c_i ℓ_i)/∂output, u the cotangent of the parameter; d_i = <u, ∇ℓ_i>, (B,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..row_maps import Around, RowMap, wide
from ..tape import Entry, Lookup, Tape
from ..tracked import NoRuleError, Tracked
from ..typed import vecdot

__all__ = [
    "activation", "arguments", "inner_product", "note_layer", "note_rows", "note_scale_and_shift",
    "parameters_of", "register_rule", "small",
]  # fmt: skip

Rule = Callable[[Tape, tuple[Any, ...], dict[str, Any]], Any]


def register_rule(function: Callable[..., Any], rule: Rule) -> None:
    """Teach the tape a function: `rule(tape, args, kwargs)` runs it (stand-ins unwrapped by `plain`), calls
    `tape.watch(output, note)` with a note that returns an `Entry`, and returns the output."""
    Tracked.rules[function] = rule


def arguments(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    return {**defaults, **dict(zip(names, args)), **kwargs}


def parameters_of(*values: Any) -> tuple[Tensor, ...]:
    """The parameters behind the tracked ones among some arguments, each once."""
    return tuple(dict.fromkeys(p for value in values if isinstance(value, Tracked) for p in value.parameters))


def activation(x: Any, name: str) -> Tensor:
    """x, the input of a layer, where it is not itself made of parameters alone beside a parameter with rows."""
    if isinstance(x, Tracked):
        raise NoRuleError(
            f"{x.path}: used as the input of {name}, which has no ghost rule; choose product='jvp' or 'unroll'"
        )
    return x


def inner_product(rows: RowMap, delta: Tensor, output: Tensor, *, spent: bool = False) -> Tensor:
    """Σ over everything but the example of δ · output, (B,). spent: nobody else holds `output`, it is written over."""
    if rows.index is None and rows.lead == 1 and not rows.drop and delta.dtype in (torch.float32, torch.float64):
        if spent and output.dtype == delta.dtype:  # no third tensor of an activation's size: its pages cost a tenth
            return output.mul_(delta).reshape(len(delta), -1).sum(1)
        # Four times faster on CPU than bmm of (1, K) and (K, 1).
        return vecdot(delta.reshape(len(delta), -1), output.reshape(len(delta), -1))
    dtype = wide(delta.dtype)
    return rows.reduce(delta.to(dtype) * output.to(dtype))


def note_layer(
    tape: Tape, output: Tensor, weight: Any, bias: Any, apply: Callable[[Tensor | None, Tensor | None, Tensor], Tensor]
) -> None:
    """A layer that is linear in its parameters: d_i = Σ <δ_i, apply(U, u_b)_i>."""
    tracked = [p for p in (weight, bias) if isinstance(p, Tracked)]
    context = tape.context

    def note(delta: Tensor) -> Entry:
        rows = tape.map(tracked[0], delta.shape[:-1], context)

        def contribution(lookup: Lookup) -> Tensor | None:
            u = lookup(weight) if isinstance(weight, Tracked) else None
            u_b = lookup(bias) if isinstance(bias, Tracked) else None
            if u is None and u_b is None:
                return None
            cast = delta.dtype
            u = None if u is None else u.to(cast)
            u_b = None if u_b is None else u_b.to(cast)
            return inner_product(rows, delta, apply(u, u_b, delta))

        return Entry(parameters_of(*tracked), contribution)

    tape.watch(output, note)


def small(tape: Tape, tracked: Tracked, gradient: Tensor) -> Entry:
    """An entry from per-example gradients of a small parameter (or chain of it), (B, *shape)."""

    def contribution(lookup: Lookup) -> Tensor | None:
        u = lookup(tracked)
        return None if u is None else gradient.reshape(len(gradient), -1) @ u.to(gradient.dtype).flatten()

    return Entry(tracked.parameters, contribution)


def note_scale_and_shift(
    tape: Tape, output: Tensor, weight: Any, bias: Any, normalized: Callable[[torch.dtype], Tensor], keep: int
) -> None:
    context = tape.context

    def scale(delta: Tensor) -> Entry:
        rows = tape.map(weight, delta.shape[:-keep], context)
        return small(tape, weight, rows.reduce(normalized(delta.dtype).mul_(delta), keep))

    def shift(delta: Tensor) -> Entry:
        return small(tape, bias, tape.map(bias, delta.shape[:-keep], context).reduce(delta, keep))

    if isinstance(weight, Tracked):
        tape.watch(output, scale)
    if isinstance(bias, Tracked):
        tape.watch(output, shift)


def note_rows(tape: Tape, by_row: Tensor, tracked: Tracked, own: torch.Size, second: bool = False) -> None:
    """A parameter copied to every row, (rows, …, *own), or (own[0], rows, *own[1:])."""
    context = Around(tape.context.shape) if second else tape.context

    def note(delta: Tensor) -> Entry:
        if second:
            delta = delta.transpose(0, 1)
        rows = tape.map(tracked, delta.shape[:1], context)
        first = delta.ndim - len(own)
        broadcast = [d for d in range(first, delta.ndim) if own[d - first] == 1 != delta.shape[d]]
        if broadcast:
            delta = delta.sum(broadcast, keepdim=True, dtype=wide(delta.dtype))
        return small(tape, tracked, rows.reduce(delta, len(own)))

    tape.watch(by_row, note)
