"""`step_vjp`: v -> u = D v for the update θ' = T(θ, g) that a live optimizer has just taken, D = -(∂T/∂g)ᵀ.

It is read from the optimizer's own state after its update; the optimizer is never rebuilt and never written to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._shards import is_sharded, local
from . import adam_step
from .known_optimizers import UnsupportedOptimizerError, refuse_whole, row, unwrap
from .update import Update

__all__ = ["refuse_sparse", "step_vjp", "undo_step", "undoable"]


def undoable(optimizer: torch.optim.Optimizer, parameter: Tensor) -> bool:
    """Whether `undo_step` can give θ back: Adam or AdamW, and a precision in which the rounding of θ' is nothing."""
    return type(optimizer) in (torch.optim.Adam, torch.optim.AdamW) and parameter.dtype in (
        torch.float32,
        torch.float64,
    )


def undo_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], groups: Sequence[Mapping[str, Any]]
) -> dict[Tensor, Tensor]:
    """θ of each parameter before the step that made the optimizer's state, to the last digits.

    groups: the groups' settings at the time of the step. A parameter without a gradient did not move.
    """
    wanted = set(parameters)
    before: dict[Tensor, Tensor] = {}
    with torch.no_grad():
        for live, group in zip(optimizer.param_groups, groups, strict=True):
            for parameter in live["params"]:
                if parameter in wanted:
                    theta = parameter.detach()
                    moved = parameter.grad is not None
                    before[parameter] = adam_step.undo(theta, optimizer.state[parameter], group) if moved else theta
    return before


def refuse_sparse(parameters: Sequence[Tensor]) -> None:
    """Raise `UnsupportedOptimizerError` where a parameter's gradient is sparse or complex."""
    for parameter in parameters:
        gradient = parameter.grad
        if parameter.is_complex() or (gradient is not None and gradient.is_sparse):
            kind = "complex" if parameter.is_complex() else "sparse"
            raise UnsupportedOptimizerError(
                f"a parameter of shape {tuple(parameter.shape)} has a {kind} gradient: sparse gradients and complex "
                "parameters have no rule; make them dense and real (Embedding(sparse=False), torch.view_as_real)"
            )


def step_vjp(
    optimizer: torch.optim.Optimizer,
    cotangent: Mapping[Any, Tensor] | Sequence[Tensor | None],
    *,
    groups: Sequence[Mapping[str, Any]] | None = None,
    first_step: bool | Mapping[Tensor, bool] | None = None,
    adam: str = "exact",
    inplace: bool = False,
) -> Any:
    """u = D v, D = -(∂T/∂g)ᵀ of the update that `optimizer` has just taken (`.grad` as the update saw it).

    Args:
        optimizer: one of the table's classes, or a wrapper that keeps one as `.optimizer`.
        cotangent: v, a list aligned with the optimizer's parameters over all groups (None: no cotangent), or a dict
            keyed by the parameters themselves; the result has the same form.
        groups: the groups' settings at the time of the update, where a schedule has changed them since.
        first_step: needed for SGD with momentum and dampening only, whose very first step skips the dampening;
            one answer, or one per parameter.
        adam: "exact", or "frozen" for second moments held constant (drops the second term of Adam's D).
        inplace: write u into v where the rule can.

    Raises:
        UnsupportedOptimizerError: no rule for the optimizer or one of its settings, a sparse gradient, a complex
            parameter.
        ValueError: a wrong number of cotangents; an update that the state does not tell enough of.

    Source: each optimizer's file beside this one.
    """
    if adam not in ("exact", "frozen"):
        raise ValueError(f"adam must be 'exact' or 'frozen', is {adam!r}")
    optimizer = unwrap(optimizer)
    line = row(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    as_list = not isinstance(cotangent, Mapping)
    if as_list and len(cotangent) != len(parameters):
        raise ValueError(f"{len(cotangent)} cotangents for {len(parameters)} parameters of the optimizer")
    given: Mapping[Any, Tensor | None] = dict(zip(parameters, cotangent, strict=True)) if as_list else cotangent
    refuse_sparse([parameter for parameter in parameters if given.get(parameter) is not None])
    result: dict[Tensor, Tensor] = {}
    for number, live in enumerate(optimizer.param_groups):
        group = live if groups is None else groups[number]
        line.refuse(optimizer, number, group)
        for parameter in live["params"]:
            vector = given.get(parameter)
            if vector is None:
                continue
            vector = vector if inplace else vector.clone()
            if parameter.grad is None:  # the optimizer skipped it: its step does not depend on any gradient
                result[parameter] = vector.zero_()
                continue
            first = first_step[parameter] if isinstance(first_step, Mapping) else first_step
            state = optimizer.state.get(parameter, {})
            if is_sharded(parameter):  # each process maps its own part
                refuse_whole(optimizer)
                state = {name: local(value) if isinstance(value, Tensor) else value for name, value in state.items()}
            update = Update(local(parameter).detach(), local(parameter.grad), state, group, first, adam == "frozen")
            with torch.no_grad():
                own = line.rule(update, local(vector))
                if is_sharded(vector):
                    local(vector).copy_(own)
                result[parameter] = vector if is_sharded(vector) else own
    return [result.get(parameter) for parameter in parameters] if as_list else result
