"""The entry point: the derivative of the outer loss with respect to hyper, by the method of your choice."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ._types import Tensors
from .methods.method import Method
from .problem import Bilevel, check_arguments
from .result import Result


def hypergradient(
    problem: Bilevel,
    params: Tensors,
    hyper: Tensors,
    inner_batches: Sequence[Any],
    outer_batch: Any,
    *,
    method: Method,
    state: Any = None,
    create_graph: bool = False,
) -> Result:
    """The total derivative dF/dφ of the outer loss F(θ(φ), φ).

    What θ(φ) is, the method says: the parameters after K inner steps (OneStep, Unrolled, ForwardMode …), or the
    minimiser of the inner loss, which `params` are then taken to be (Implicit).

    Args:
        problem: the two losses.
        params: inner parameters θ to start from. Never changed.
        hyper: hyperparameters φ, shaped as the gradient will be. Never changed.
        inner_batches: a sequence; K batches for K inner steps. Implicit methods average over it.
        outer_batch: what the outer loss is evaluated on.
        method: a method, its fields the settings.
        state: the `state` of the last result, to go on from there; None to start.
        create_graph: keep the graph, so that the result can itself be differentiated by torch.autograd. Under
            torch.func transforms (vmap, jacrev, …) of params or hyper this is always so. Otherwise the result is
            detached and nothing of the computation stays in memory.

    Returns:
        A `Result`. Read `result.status` before you use it: a value that is not finite is a status, not an exception.

    Raises:
        ValueError: an argument that cannot be right, or a combination that the method does not support.
    """
    check_arguments(params, hyper, inner_batches)
    if isinstance(method, type) or not isinstance(method, Method):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"method={method!r} is no method; give an instance such as bilevel.OneStep(bilevel.SGD(lr=0.1))"
        )
    keep = create_graph or _transformed(params) or _transformed(hyper)
    # torch.func.grad works under no_grad; what no_grad drops is the graph of the whole computation, which
    # nn.Parameters among the arguments would otherwise keep alive: one graph per step.
    with nullcontext() if keep else torch.no_grad():
        return method.run(problem, params, hyper, inner_batches, outer_batch, state)


def _transformed(tensors: Tensors) -> bool:
    return any(_unwrapped(tensor) is not tensor for tensor in tensors.values())


def _unwrapped(tensor: Tensor) -> Tensor:
    return torch.func.debug_unwrap(tensor, recurse=False)
