"""Functions of parameters alone (view, exp, a sum of two, weight norm): how u goes through them.

What such a function gives is as good as a parameter: rules take it, and its u is the function's derivative at θ in the
parameters' direction, by forward mode, when u is known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from .tracked import NoRuleError, Tracked, plain
from .ways_out import forward_mode_works

__all__ = ["can_be_derived", "derive"]

_RANDOM = ("dropout", "bernoulli", "rand", "normal_", "multinomial", "gumbel", "rrelu", "exponential")
_tried: dict[Any, bool] = {}


def can_be_derived(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the function can be run again in forward mode: no random numbers in it, a rule of torch for it."""
    if any(word in getattr(function, "__name__", "") for word in _RANDOM):
        return False
    if function not in _tried:
        _tried[function] = forward_mode_works(function, args, kwargs)
    return _tried[function]


def derive(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    out: Any = None,
    linear: bool = False,
) -> Any:
    """function(*args, **kwargs), in which some leaves are `Tracked` and all else is constant.

    out: its value, where it is known. A tuple of tensors (chunk, split, unbind) becomes a tuple of `Tracked`.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracked)]
    parents = tuple(leaves[i] for i in places)
    name = getattr(function, "__name__", "function")
    if name in ("to", "type_as"):  # another tensor lends its dtype and device only
        leaves = [leaf.new_empty(0) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
        raise NoRuleError(
            f"{parents[0].path}: {name} with another tensor has no ghost rule; choose product='jvp' or 'unroll'"
        )

    def again(*values: Tensor) -> Any:
        moved = list(leaves)
        for place, value in zip(places, values, strict=True):
            moved[place] = value
        positional, named = pytree.tree_unflatten(moved, spec)
        return function(*positional, **named)

    if out is None:
        out = again(*map(plain, parents))
    if isinstance(out, Tensor):
        return Tracked.derived(parents, again, out, linear) if out.requires_grad else out
    parts: tuple[Any, ...] = tuple(out) if type(out) in (tuple, list) else ()
    if parts and all(isinstance(part, Tensor) for part in parts):

        def one(*values: Tensor, k: int) -> Tensor:
            return again(*values)[k]

        return tuple(Tracked.derived(parents, partial(one, k=k), part, linear) for k, part in enumerate(parts))
    if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(out)):
        raise NoRuleError(f"{parents[0].path}: {name} has no ghost rule; choose product='jvp' or 'unroll'")
    return out
