"""Which other product would work where a ghost rule is missing: tried on the very function, not guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from .typed import fork_random, gradients, make_dual, without_mkldnn

__all__ = ["forward_mode_works", "ways_out"]


def forward_mode_works(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether torch has a forward-mode rule for this call."""
    return _tried(_forward_mode, function, args, kwargs)


def ways_out(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """ "choose product='jvp'" where the function has a forward-mode rule, 'unroll' where it can be differentiated
    twice.
    """
    found = [
        f"{name!r}"
        for name, works in (("jvp", _forward_mode), ("unroll", _twice))
        if _tried(works, function, args, kwargs)
    ]
    return f"choose product={' or '.join(found)}" if found else "write the layer with other functions of torch"


def _tried(works: Callable[..., bool], function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        with fork_random([], True), torch.enable_grad():
            return works(function, args, kwargs)
    except (RuntimeError, NotImplementedError, TypeError):
        return False


def _real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _dual(leaf: Any) -> Any:
    return make_dual(leaf.detach().clone(), torch.ones_like(leaf)) if _real(leaf) else leaf


def _fresh(leaf: Any) -> Any:
    return leaf.detach().clone().requires_grad_() if _real(leaf) else leaf


def _forward_mode(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    with forward_ad.dual_level(), without_mkldnn():
        dual = pytree.tree_map(_dual, (args, kwargs))
        function(*dual[0], **dual[1])
    return True


def _twice(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    fresh = pytree.tree_map(_fresh, (args, kwargs))
    inputs = [leaf for leaf in pytree.tree_leaves(fresh) if _real(leaf)]
    outputs = [leaf for leaf in pytree.tree_leaves(function(*fresh[0], **fresh[1])) if _real(leaf)]
    weight = torch.ones((), dtype=outputs[0].dtype, device=outputs[0].device, requires_grad=True)
    first = gradients(torch.stack([(weight * output).sum() for output in outputs]).sum(), inputs, create_graph=True)
    second = torch.stack([g.sum() for g in first if g is not None]).sum()
    return gradients(second, [weight])[0] is not None
