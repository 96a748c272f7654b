"""Functions of one parameter and constants (view, to, exp, …): the chain's derivative at θ maps u."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ..tape import Tape
from ..tracked import NoRuleError, Tracked
from .shared import register_rule


def _chain(
    function: Callable[..., Any], linear: bool, tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A function of one parameter and constants."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracked)]
    tracked = leaves[places[0]]
    if function.__name__ in ("to", "type_as"):  # another tensor lends its dtype and device only
        leaves = [
            leaf.new_empty(0) if isinstance(leaf, Tensor) and not isinstance(leaf, Tracked) else leaf for leaf in leaves
        ]
    if len(places) > 1 or any(
        isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves if leaf is not tracked
    ):
        raise NoRuleError(
            f"{tracked.path}: {function.__name__} with another tensor has no ghost rule; choose product='jvp'"
        )

    def alone(p: Tensor) -> Any:
        moved, named = pytree.tree_unflatten([p if i == places[0] else leaf for i, leaf in enumerate(leaves)], spec)
        return function(*moved, **named)

    with torch.no_grad():
        trial = alone(tracked.value.detach())
    parts: tuple[Any, ...] = tuple(trial) if type(trial) in (tuple, list) else ()
    if parts and all(isinstance(part, Tensor) for part in parts):  # chunk, split, unbind

        def one(p: Tensor, k: int) -> Tensor:
            return alone(p)[k]

        return tuple(tracked.extend(partial(one, k=k), linear) for k in range(len(parts)))
    if not isinstance(trial, Tensor):
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(trial)):
            raise NoRuleError(f"{tracked.path}: {function.__name__} has no ghost rule; choose product='jvp'")
        return trial
    return tracked.extend(alone, linear)


_LINEAR = (  # the same derivative everywhere  # noqa: SIM905 - forty lines of quotes would say less
    "to type type_as float double half bfloat16 view reshape flatten unflatten transpose t permute unsqueeze squeeze "
    "contiguous clone neg movedim swapaxes narrow select tile repeat_interleave index_select chunk split unbind "
    "unsafe_chunk"
).split()
_CURVED = "exp sigmoid softplus tanh cos sin abs square sqrt rsqrt softmax".split()  # noqa: SIM905
for _linear, _names in ((True, _LINEAR), (False, _CURVED)):
    for _owner in (Tensor, torch, F):
        for _name in _names:
            _function = getattr(_owner, _name, None)
            if callable(_function) and not inspect.isclass(_function):
                register_rule(_function, partial(_chain, _function, _linear))
register_rule(Tensor.__getitem__, partial(_chain, Tensor.__getitem__, True))
register_rule(F.interpolate, partial(_chain, F.interpolate, True))
for _name in ("mT", "T"):
    _function = getattr(Tensor, _name).__get__
    register_rule(_function, partial(_chain, _function, True))
