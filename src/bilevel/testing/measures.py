"""How far two hypergradients are apart, and the slow, plain way to the truth."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .. import _tree as tree
from .._clip import clip_by_global_norm
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State
from ..problem import Bilevel


def relative_error(found: Tensors, expected: Tensors) -> float:
    """‖found - expected‖ / ‖expected‖ over all tensors together; ‖found‖ where expected is 0."""
    expected = {name: tensor.double() for name, tensor in expected.items()}
    difference = tree.norm(tree.add(expected, {name: found[name].double() for name in expected}, -1.0))
    size = float(tree.norm(expected))
    return float(difference) / size if size else float(difference)


def cosine(found: Tensors, expected: Tensors) -> float:
    """<found, expected> / (‖found‖ ‖expected‖)."""
    left = {name: tensor.double() for name, tensor in found.items()}
    right = {name: tensor.double() for name, tensor in expected.items()}
    return float(tree.dot(left, right) / (tree.norm(left) * tree.norm(right)))


def through_the_loop(
    problem: Bilevel,
    params: Tensors,
    hyper: Tensors,
    inner_batches: Sequence[Any],
    outer_batch: Any,
    *,
    optimizer: Optimizer,
    clip_norm: float | None = None,
    state: State | None = None,
) -> Tensors:
    """dF/dφ after the inner steps, by one torch.autograd graph through all of them: slow, large, and exact."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in hyper.items()}
    params = {name: tensor.detach().clone().requires_grad_() for name, tensor in params.items()}
    state = optimizer.init(params) if state is None else state
    for batch in inner_batches:
        loss = problem.inner(params, leaves, batch)
        at = list(params.values())
        grads = cast(tuple[Tensor | None, ...], torch.autograd.grad(loss, at, create_graph=True, allow_unused=True))
        used = {name: grad for name, grad in zip(params, grads, strict=True) if grad is not None}
        clipped = clip_by_global_norm(used, clip_norm)
        params, state = optimizer.update(params, clipped, state, leaves)
    value = problem.outer(params, leaves, outer_batch)
    total = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, total, strict=True))
