"""The live optimizers around which a Lookahead stands: one, or several that step together as one.

A usual pair is Muon for the matrices and AdamW for everything else. Each parameter belongs to one of them, and D is
block by block that of its own optimizer; clipping goes over the gradients of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from ..steps import check_optimizer, step_vjp, undo_step, undoable, unwrap

__all__ = ["Before", "Groups", "Together"]

Groups: TypeAlias = tuple[tuple[Mapping[str, Any], ...], ...]
"""By optimizer, the settings of each of its groups at one time."""


class Together:
    """given: an optimizer, or a list or tuple of them; wrappers that keep one as `.optimizer` are seen through."""

    def __init__(self, given: Any) -> None:
        self.wrappers = cast(tuple[Any, ...], tuple(given) if isinstance(given, list | tuple) else (given,))  # pyright: ignore[reportUnknownArgumentType]
        if not self.wrappers:
            raise ValueError("optimizer is an empty list; give at least one optimizer")
        for wrapper in self.wrappers:
            check_optimizer(wrapper)
        self.lives: tuple[torch.optim.Optimizer, ...] = tuple(unwrap(wrapper) for wrapper in self.wrappers)
        self.refuse_shared()

    def refuse_shared(self) -> None:
        """Raise ValueError where two of them would move one parameter."""
        owner: dict[Tensor, int] = {}
        for number, live in enumerate(self.lives):
            for parameter in (p for group in live.param_groups for p in group["params"]):
                if owner.setdefault(parameter, number) != number:
                    raise ValueError(
                        f"a parameter of shape {tuple(parameter.shape)} belongs to {type(live).__name__} (optimizer "
                        f"{number}) and to {type(self.lives[owner[parameter]]).__name__} (optimizer "
                        f"{owner[parameter]}); give each parameter to one optimizer"
                    )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all."""
        return [group for live in self.lives for group in live.param_groups]

    def state(self, parameter: Tensor) -> Mapping[str, Any]:
        """What its optimizer keeps of a parameter; empty before the first step."""
        for live in self.lives:
            if parameter in live.state:
                return live.state[parameter]
        return {}

    def groups(self) -> Groups:
        """The settings now, held apart from what a schedule makes of them."""
        return tuple(
            tuple(
                {k: v.clone() if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
                for group in live.param_groups
            )
            for live in self.lives
        )

    def undoable(self, parameter: Tensor) -> bool:
        """Whether `undo` can give θ back."""
        live = next(one for one in self.lives if any(parameter is p for g in one.param_groups for p in g["params"]))
        return undoable(live, parameter)

    def undo(self, parameters: Sequence[Tensor], groups: Groups) -> dict[Tensor, Tensor]:
        """θ before the step."""
        found: dict[Tensor, Tensor] = {}
        for live, own in zip(self.lives, groups, strict=True):
            found |= undo_step(live, parameters, _like(live, own))
        return found

    def step_vjp(
        self, vector: Mapping[Tensor, Tensor], groups: Groups, first: Mapping[Tensor, bool], adam: str
    ) -> dict[Tensor, Tensor]:
        """D v, written into v."""
        found: dict[Tensor, Tensor] = {}
        for live, own in zip(self.lives, groups, strict=True):
            order = [p for group in live.param_groups for p in group["params"]]
            known = {p: first.get(p, False) for p in order}
            mine = {p: vector[p] for p in order if p in vector}
            found |= step_vjp(live, mine, groups=_like(live, own), first_step=known, adam=adam, inplace=True)
        return found

    def step(self, scaler: Any) -> bool:
        """One step of each, by the scaler where there is one; whether it was skipped."""
        if scaler is None:
            for wrapper in self.wrappers:
                wrapper.step()
            return False
        scale = scaler.get_scale()
        for live in self.lives:
            scaler.step(live)
        scaler.update()
        return scaler.get_scale() < scale  # it found an infinite gradient


def _like(live: torch.optim.Optimizer, groups: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """One snapshot for each group that there is now; a group added since has not been stepped."""
    return [*groups, *live.param_groups[len(groups) :]]


@dataclass(frozen=True)
class Before:
    """θ and the optimizers' state before a step."""

    theta: Mapping[Tensor, Tensor]
    state: Mapping[Tensor, Mapping[str, Any]]
    kinds: Mapping[Tensor, tuple[type, int]]
    """By parameter, its optimizer's class and the number of its group among all."""

    @staticmethod
    def of(optimizers: Together) -> Before:
        """Copies, of all that has a gradient."""
        kinds: dict[Tensor, tuple[type, int]] = {}
        number = -1
        for live in optimizers.lives:
            for group in live.param_groups:
                number += 1
                kinds |= {p: (type(live), number) for p in group["params"] if p.grad is not None}
        state = {p: {k: _copy(v) for k, v in optimizers.state(p).items()} for p in kinds}
        return Before({p: p.detach().clone() for p in kinds}, state, kinds)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
