"""Looking at an autograd graph: what a tensor depends on, and what in it would go wrong without a sound."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["leaves", "lowest", "lowest_precision", "refuse_early", "refuse_reentrant", "without_hooks"]


def _nodes(roots: Iterable[Tensor]) -> Generator[Any]:
    """Every node of the graph once."""
    stack: list[Any] = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)


def leaves(*roots: Tensor) -> list[Tensor]:
    """The leaf tensors that the roots depend on, in the order in which they are met."""
    found: dict[Tensor, None] = {root: None for root in roots if root.requires_grad and root.grad_fn is None}
    for node in _nodes(roots):
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            found[variable] = None
    return list(found)


def lowest_precision(roots: Sequence[Tensor]) -> torch.dtype:
    """The least precise floating-point type that the graph computes in: a layer may cast inside (Llama's norms do)."""
    found = roots[0].dtype
    for node in _nodes(roots):
        dtypes: list[torch.dtype] = [metadata.dtype for metadata in getattr(node, "_input_metadata", ())]
        for dtype in dtypes:
            found = lowest(found, dtype)
    return found


def refuse_reentrant(root: Tensor) -> None:
    """Raise where a part of the graph is checkpointed the old way: torch.autograd.grad does not see through it."""
    if any(type(node).__name__ == "CheckpointFunctionBackward" for node in _nodes([root])):
        raise RuntimeError(
            "reentrant gradient checkpointing: torch.autograd.grad does not see the parameters behind it, so the "
            "hypergradient would miss them; checkpoint with use_reentrant=False"
        )


def refuse_early(root: Tensor, parameters: Mapping[Tensor, str], mark: int) -> None:
    """Raise where a use of a parameter was recorded before `mark`, that is, before the step."""
    early: set[str] = set()
    for node in _nodes([root]):
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if isinstance(variable, Tensor) and variable in parameters and node._sequence_nr() < mark:
                early.add(parameters[variable])
    if early:
        raise RuntimeError(
            f"the outer loss was computed before lookahead.step() (its use of {', '.join(sorted(early)[:3])}), at "
            "parameters that are no more; call lookahead.step() first, then compute the outer loss"
        )


def lowest(one: torch.dtype | None, other: torch.dtype) -> torch.dtype:
    """The less precise of two floating-point types."""
    if one is None or not other.is_floating_point:
        return other if one is None else one
    return one if torch.finfo(one).eps >= torch.finfo(other).eps else other


@contextmanager
def without_hooks(parameters: Sequence[Tensor]) -> Generator[None]:
    """Gradients as they are, not as hooks on the parameters would make them."""
    hooked: list[tuple[Any, dict[Any, Any]]] = []
    for parameter in parameters:
        hooks: Any = parameter._backward_hooks
        if hooks:
            hooked.append((hooks, dict(hooks)))
            hooks.clear()
    try:
        yield
    finally:
        for hooks, kept in hooked:
            hooks.update(kept)
