"""Which optimizer has which rule: one table, one line per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch

from . import (
    adadelta_step,
    adafactor_step,
    adagrad_step,
    adam_step,
    adamax_step,
    bitsandbytes_step,
    muon_step,
    nadam_step,
    radam_step,
    rmsprop_step,
    sgd_step,
)
from .update import Rule, diagonal

__all__ = [
    "ELEMENTWISE",
    "Row",
    "UnsupportedOptimizerError",
    "check_optimizer",
    "refuse_whole",
    "register_step",
    "row",
    "unwrap",
]

Check: TypeAlias = Callable[[Mapping[str, Any]], str | None]
"""group -> what of its settings the rule does not support, and the way out; None or "" where all is well."""


class UnsupportedOptimizerError(ValueError):
    """The optimizer, or one of its settings, has no derivative rule; the text names the way out."""


class Row(NamedTuple):
    """What is known of one class of optimizers."""

    rule: Rule
    check: Check | None = None

    def refuse(self, optimizer: torch.optim.Optimizer, number: int, group: Mapping[str, Any]) -> None:
        """Raise UnsupportedOptimizerError where the rule does not cover a group's settings."""
        reason = self.check(group) if self.check else None
        if reason:
            raise UnsupportedOptimizerError(f"{type(optimizer).__name__}, parameter group {number}: {reason}")


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_adam = diagonal(adam_step.factor)
_CLASSES: dict[type, Row] = {
    torch.optim.SGD: Row(diagonal(sgd_step.factor)),
    torch.optim.Adam: Row(_adam),
    torch.optim.AdamW: Row(_adam),
    torch.optim.NAdam: Row(diagonal(nadam_step.factor)),
    torch.optim.RAdam: Row(diagonal(radam_step.factor)),
    torch.optim.Adamax: Row(diagonal(adamax_step.factor)),
    torch.optim.RMSprop: Row(diagonal(rmsprop_step.factor)),
    torch.optim.Adagrad: Row(diagonal(adagrad_step.factor)),
    torch.optim.Adadelta: Row(diagonal(adadelta_step.factor), adadelta_step.check),
    torch.optim.Adafactor: Row(adafactor_step.product),
    torch.optim.Muon: Row(muon_step.product),
}
_TABLE: dict[str, Row] = {
    **{_name(kind): row for kind, row in _CLASSES.items()},
    **{name: Row(diagonal(bitsandbytes_step.factor), bitsandbytes_step.check) for name in bitsandbytes_step.NAMES},
}

# Classes of torch.optim whose step acts on each coordinate alone, so that a part of a parameter has a step of its own.
ELEMENTWISE = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Adadelta")

_REASONS = {
    "lion": "a sign method",
    "sign": "a sign method",
    "rprop": "a sign method",
    "asgd": "its state no longer holds the rate that the update used",
    "lbfgs": "one step evaluates the loss many times",
}
"""Why a class whose name holds the word can have no rule."""


def register_step(optimizer: type | str, rule: Rule, check: Check | None = None) -> None:
    """Teach `step_vjp` an optimizer.

    Args:
        optimizer: its class, or "module.Class".
        rule: (update, v) -> u = D v, with D = -(∂T/∂g)ᵀ of the update θ' = T(θ, g); for an update that acts on each
            coordinate alone `bilevel.steps.diagonal(factor)` makes one from its D. May write into v and return it.
        check: (group) -> what of a group's settings the rule does not support, None where all is well.
    """
    _TABLE[optimizer if isinstance(optimizer, str) else _name(optimizer)] = Row(rule, check)


def unwrap(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside wrappers that keep it as `.optimizer` (accelerate's, for one)."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def row(optimizer: torch.optim.Optimizer) -> Row:
    """The optimizer's line of the table.

    Raises:
        UnsupportedOptimizerError: there is none.
    """
    name = _name(type(optimizer))
    if name in _TABLE:
        return _TABLE[name]
    short = type(optimizer).__name__.lower()
    reason = next((reason for word, reason in _REASONS.items() if word in short), None)
    if reason == "a sign method":
        raise UnsupportedOptimizerError(
            f"{name}: a sign method's step does not change with the size of the gradient, so its derivative is 0 "
            "almost everywhere and every hypergradient through it would be 0; use SGD, Adam or AdamW for the inner "
            "problem"
        )
    if reason is not None:
        raise UnsupportedOptimizerError(f"{name}: no derivative rule: {reason}; use SGD, Adam or AdamW")
    raise UnsupportedOptimizerError(
        f"{name}: no derivative rule; known are {', '.join(sorted(_TABLE))}; "
        "add yours with bilevel.register_step(optimizer_class, rule)"
    )


def refuse_whole(optimizer: torch.optim.Optimizer) -> None:
    """Raise `UnsupportedOptimizerError` where a step may need whole parameters, for parameters that are sharded."""
    kind = type(optimizer)
    if not (kind.__module__.startswith("torch.optim") and kind.__name__ in ELEMENTWISE):
        raise UnsupportedOptimizerError(
            f"{kind.__name__} with sharded parameters: its step is not known to act on each coordinate alone; use "
            "AdamW, or another elementwise optimizer of torch.optim"
        )


def check_optimizer(optimizer: Any) -> None:
    """Raise `UnsupportedOptimizerError` where the optimizer, a setting of a group or a parameter has no rule."""
    optimizer = unwrap(optimizer)
    line = row(optimizer)
    for number, group in enumerate(optimizer.param_groups):
        line.refuse(optimizer, number, group)
        for position, parameter in enumerate(group["params"]):
            if parameter.is_complex():
                raise UnsupportedOptimizerError(
                    f"{type(optimizer).__name__}, parameter group {number}: parameter {position} is complex; its step "
                    "has no derivative rule: keep its real and imaginary parts as two real parameters "
                    "(torch.view_as_real)"
                )
