"""`step_vjp`: v -> u = D v for the step θ' = T(θ, g) that a live optimizer has just taken, D = -∂T/∂g.

D is diagonal for every optimizer here, so one multiplication per coordinate is all it takes. It is read from
the optimizer's own state after its step; the optimizer is never rebuilt and never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from . import adagrad, adam, rmsprop, sgd

__all__ = [
    "StepRule",
    "UnsupportedOptimizerError",
    "check_optimizer",
    "register_step",
    "step_vjp",
    "undo_step",
    "undoable",
    "unwrap",
]


class UnsupportedOptimizerError(ValueError):
    """The optimizer, or one of its settings, has no derivative rule; the text names the way out."""


class StepRule(Protocol):
    """`rule(parameter, gradient, state, group, first_step=…, frozen=…) -> D`, shaped like the parameter.

    Also `rule.check(group) -> str | None`, where given, names what the rule does not support.
    """

    def __call__(
        self,
        parameter: Tensor,
        gradient: Tensor,
        state: Mapping[str, Any],
        group: Mapping[str, Any],
        *,
        first_step: bool | None,
        frozen: bool,
    ) -> Tensor | float: ...


_RULES: dict[str, tuple[StepRule, Callable[[Mapping[str, Any]], str | None]]] = {}


def register_step(
    optimizer: type | str, rule: StepRule, check: Callable[[Mapping[str, Any]], str | None] | None = None
) -> None:
    """Teach `step_vjp` an optimizer: its class (or "module.Class") and the rule that gives its D."""
    name = optimizer if isinstance(optimizer, str) else f"{optimizer.__module__}.{optimizer.__qualname__}"
    _RULES[name] = (rule, check or (lambda group: None))


register_step(torch.optim.SGD, sgd.diagonal, sgd.check)
register_step(torch.optim.Adam, adam.diagonal, adam.check)
register_step(torch.optim.AdamW, adam.diagonal, adam.check)
register_step(torch.optim.RMSprop, rmsprop.diagonal, rmsprop.check)
register_step(torch.optim.Adagrad, adagrad.diagonal, adagrad.check)
# By name: bitsandbytes is not imported here, only recognized. Both of its classes decouple the weight decay.
for _file, _name in (("adam", "Adam"), ("adamw", "AdamW")):
    for _suffix in ("", "8bit", "32bit"):
        register_step(
            f"bitsandbytes.optim.{_file}.{_name}{_suffix}", adam.diagonal_bitsandbytes, adam.check_bitsandbytes
        )


def unwrap(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside a wrapper that keeps it as `.optimizer` (accelerate's, for one)."""
    while type(optimizer).__name__ not in {"Optimizer"} and isinstance(
        getattr(optimizer, "optimizer", None), torch.optim.Optimizer
    ):
        optimizer = optimizer.optimizer
    return optimizer


def _rule(optimizer: torch.optim.Optimizer) -> tuple[StepRule, Callable[[Mapping[str, Any]], str | None]]:
    kind = type(optimizer)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in _RULES:
        return _RULES[name]
    if "lion" in kind.__name__.lower() or "sign" in kind.__name__.lower():
        raise UnsupportedOptimizerError(
            f"{name}: a sign method's step does not change with the size of the gradient, so its derivative is 0 "
            "almost everywhere and every hypergradient through it would be 0; use SGD, Adam or AdamW for the inner "
            "problem"
        )
    raise UnsupportedOptimizerError(
        f"{name}: no derivative rule; known are {', '.join(sorted(_RULES))}; "
        "add yours with bilevel.register_step(optimizer_class, rule)"
    )


def check_optimizer(optimizer: Any) -> None:
    """Raise `UnsupportedOptimizerError` where the optimizer or a setting of one of its groups has no rule."""
    optimizer = unwrap(optimizer)
    _, check = _rule(optimizer)
    for index, group in enumerate(optimizer.param_groups):
        reason = check(group)
        if reason:
            raise UnsupportedOptimizerError(f"{type(optimizer).__name__}, parameter group {index}: {reason}")


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
                    before[parameter] = adam.undo(theta, optimizer.state[parameter], group) if moved else theta
    return before


def step_vjp(
    optimizer: torch.optim.Optimizer,
    cotangent: Mapping[Any, Tensor] | Sequence[Tensor | None],
    *,
    groups: Sequence[Mapping[str, Any]] | None = None,
    first_step: bool | Mapping[Tensor, bool] | None = None,
    adam: str = "exact",
    inplace: bool = False,
) -> Any:
    """u = D v, D = -∂T/∂g of the step that `optimizer` has just taken (`.grad` as the step saw it).

    cotangent: v, a list aligned with the optimizer's parameters over all groups (None: no cotangent), or a dict
        keyed by the parameters themselves; the result has the same form.
    groups: the groups' settings at the time of the step, where a schedule has changed them since.
    first_step: needed for SGD with momentum and dampening only, whose very first step skips the dampening;
        one answer, or one per parameter.
    adam: "exact", or "frozen" for moments held constant (drops the second term of Adam's D).
    inplace: multiply into v and return it.
    Raises UnsupportedOptimizerError, ValueError. Source: HYPERGRADIENT notes in README, section "one-step lookahead".
    """
    if adam not in ("exact", "frozen"):
        raise ValueError(f"adam must be 'exact' or 'frozen', is {adam!r}")
    optimizer = unwrap(optimizer)
    rule, check = _rule(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    as_list = not isinstance(cotangent, Mapping)
    if as_list and len(cotangent) != len(parameters):
        raise ValueError(f"{len(cotangent)} cotangents for {len(parameters)} parameters of the optimizer")
    result: dict[Tensor, Tensor | None] = {}
    position = 0
    for number, live in enumerate(optimizer.param_groups):
        group = live if groups is None else groups[number]
        reason = check(group)
        if reason:
            raise UnsupportedOptimizerError(f"{type(optimizer).__name__}, parameter group {number}: {reason}")
        for parameter in live["params"]:
            vector = cotangent[position] if as_list else cotangent.get(parameter)  # type: ignore[union-attr, index]
            position += 1
            if vector is None:
                result[parameter] = None
                continue
            if parameter.grad is None:  # the optimizer skipped it: its step does not depend on any gradient
                result[parameter] = vector.zero_() if inplace else torch.zeros_like(vector)
                continue
            if parameter.grad.is_sparse or parameter.is_complex():
                raise UnsupportedOptimizerError(
                    "sparse gradients and complex parameters have no rule; make them dense and real"
                )
            with torch.no_grad():
                factor = rule(
                    parameter.detach(),
                    parameter.grad,
                    optimizer.state.get(parameter, {}),
                    group,
                    first_step=first_step[parameter] if isinstance(first_step, Mapping) else first_step,
                    frozen=adam == "frozen",
                )
                result[parameter] = vector.mul_(factor) if inplace else vector * factor
    if as_list:
        return [result[parameter] for parameter in parameters]
    return {parameter: vector for parameter, vector in result.items() if vector is not None}
