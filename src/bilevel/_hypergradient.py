"""The entry point: the derivative of the outer loss with respect to hyper, by the method of your choice."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from ._flat import flat_method, flat_problem, nested_result
from ._nested import Nested, Tree
from ._types import Tensors
from .methods.method import Method
from .problem import Bilevel, check_batches, check_tensors
from .result import Result
from .root import Root


def hypergradient(
    problem: Bilevel | Root,
    params: Nested | None,
    hyper: Nested,
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
        problem: the two losses, or a root and an outer loss.
        params: inner parameters θ to start from; None where `problem.start` gives them. Never changed.
        hyper: hyperparameters φ, shaped as the gradient will be. Never changed. Both are dictionaries of tensors, or
            trees of dictionaries, lists and tuples of any depth; the losses, settings, start and projection are then
            given such trees, and `result.grad` and `result.params` are built like them. `result.state` is flat, by
            names such as "layers.0.weight"; so is what an optimizer of one's own sees.
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
    if isinstance(method, type) or not isinstance(method, Method):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"method={method!r} is no method; give an instance such as bilevel.OneStep(bilevel.SGD(lr=0.1))"
        )
    hyper_tree, hyper = Tree.of("hyper", hyper)
    check_tensors("hyper", hyper)
    params_tree, at = Tree.of("params", _starting_params(problem, params, hyper_tree.build(hyper), method, state))
    check_tensors("params", at)
    check_batches(inner_batches)
    nested = not (hyper_tree.flat and params_tree.flat)
    if nested:
        problem = flat_problem(problem, params_tree, hyper_tree)
        method = flat_method(method, params_tree, hyper_tree)
    _refuse_decayed_offset(at, hyper, method)
    keep = create_graph or _transformed(at) or _transformed(hyper)
    # torch.func.grad works under no_grad; what no_grad drops is the graph of the whole computation, which
    # nn.Parameters among the arguments would otherwise keep alive: one graph per step.
    with nullcontext() if keep else torch.no_grad():
        result = method.run(cast(Any, problem), at, hyper, inner_batches, outer_batch, state)
    return nested_result(result, params_tree, hyper_tree) if nested else result


def _starting_params(problem: Bilevel | Root, params: Any, hyper: Nested, method: Any, state: Any) -> Any:
    if isinstance(problem, Root):
        if not getattr(method, "accepts_roots", False):
            raise ValueError(
                f"{type(method).__name__} takes steps on an inner loss, which a {type(problem).__name__} has not; use "
                "Implicit with a solver for systems that are not symmetric, such as bilevel.GMRES()"
            )
        return params
    if problem.start is None:
        return params
    if not getattr(method, "differentiates_start", False):
        raise ValueError(
            f"{type(method).__name__} takes no derivative by where the inner steps start, but Bilevel(start=…) learns "
            "it; use OneStep, Unrolled, ForwardMode or Reptile"
        )
    if params is not None or state is not None:
        raise ValueError("Bilevel(start=…) says where the inner steps start: pass params=None and state=None")
    return problem.start(hyper)


def _refuse_decayed_offset(params: Tensors, hyper: Tensors, method: Method) -> None:
    """MAML by an offset that starts at 0: weight decay would shrink the offset, where torch shrinks the weights."""
    decay = getattr(getattr(method, "optimizer", None), "weight_decay", 0.0)
    alike = all(name in hyper and hyper[name].shape == tensor.shape for name, tensor in params.items())
    if not alike or (isinstance(decay, int | float) and decay == 0):
        return
    if not any(bool(torch.func.debug_unwrap(tensor).any()) for tensor in params.values()):
        raise ValueError(
            "params are all 0 and named and shaped like hyper, as an offset from initial parameters is: weight_decay "
            "would act on the offset, not on the weights. Learn the initial parameters by Bilevel(start=lambda hyper: "
            "…) and params=None; if hyper holds something else, give it other names"
        )


def _transformed(tensors: Tensors) -> bool:
    return any(_unwrapped(tensor) is not tensor for tensor in tensors.values())


def _unwrapped(tensor: Tensor) -> Tensor:
    return torch.func.debug_unwrap(tensor, recurse=False)
