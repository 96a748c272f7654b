"""What a derivative rule is, and what it reads: one parameter's part of the update that a live optimizer has taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Rule", "Update", "diagonal"]

_PIECE = 2**18  # of 2^15 to 2^20 the fastest, by a tenth at 2 million entries and by 40 % at 17 million


@dataclass(frozen=True)
class Update:
    """θ' = T(θ, g) of one parameter, seen after it."""

    parameter: Tensor
    """θ', detached."""
    gradient: Tensor
    """g as the update saw it, after clipping."""
    state: Mapping[str, Any]
    """The optimizer's state of this parameter, after the update."""
    group: Mapping[str, Any]
    """The settings at the time of the update."""
    first: bool | None = None
    """Whether it was this parameter's first update; None: not known."""
    frozen: bool = False
    """Hold the second moments constant: their dependence on g is left out of D."""

    @property
    def wide(self) -> torch.dtype:
        """The precision to compute in: the parameter's own, at least float32."""
        return torch.promote_types(self.parameter.dtype, torch.float32)

    @property
    def theta(self) -> Tensor:
        """θ' in the wide precision."""
        return self.parameter.to(self.wide)

    @property
    def sign(self) -> float:
        """-1 where the optimizer maximizes: it works on -g, and D = -∂T/∂g changes its sign with it."""
        return -1.0 if self.group.get("maximize") else 1.0

    @property
    def g(self) -> Tensor:
        """The gradient of what is minimized, wide, without weight decay."""
        gradient = self.gradient.to(self.wide)
        return -gradient if self.group.get("maximize") else gradient

    def moment(self, name: str) -> Tensor:
        """A tensor of the state in the wide precision."""
        return self.state[name].to(self.wide)

    @property
    def t(self) -> float | Tensor:
        """The number of updates taken, this one included; a tensor where reading it would wait for the device."""
        step = self.state["step"]
        if not isinstance(step, Tensor):
            return step
        return step.to(self.parameter.device, self.wide) if step.is_cuda else step.item()

    @property
    def l2(self) -> float | Tensor:
        """The weight decay that is added to the gradient, 0 where it is decoupled."""
        return 0.0 if self.group.get("decoupled_weight_decay") else self.group["weight_decay"]


Rule: TypeAlias = Callable[[Update, Tensor], Tensor]
"""(update, v) -> u = D v with D = -(∂T/∂g)ᵀ, shaped like v; may write into v and return it."""


def diagonal(factor: Callable[[Update], Tensor | float]) -> Rule:
    """The rule of an optimizer whose update acts on each coordinate alone: u = D v, D = factor(update)."""

    def rule(update: Update, vector: Tensor) -> Tensor:
        for part, own in _pieces(update, vector):
            own.mul_(factor(part))
        return vector

    return rule


def _pieces(update: Update, vector: Tensor) -> Iterator[tuple[Update, Tensor]]:
    """Parts of a large parameter that stay in a CPU's cache while D is computed, instead of passing memory ten times.

    All of it at once where it is small, on a GPU, or where its tensors cannot be cut alike (8-bit states).
    """
    own = {name: value for name, value in update.state.items() if isinstance(value, Tensor) and value.numel() > 1}
    cut = [update.parameter, update.gradient, vector, *own.values()]
    alike = all(value.shape == vector.shape and value.is_contiguous() for value in cut)
    if vector.device.type != "cpu" or vector.numel() <= _PIECE or not alike:
        yield update, vector
        return
    flat: list[Any] = [value.view(-1) for value in cut]
    for parts in zip(*(value.split(_PIECE) for value in flat), strict=True):
        state = {**update.state, **dict(zip(own, parts[3:], strict=True))}
        yield replace(update, parameter=parts[0], gradient=parts[1], state=state), parts[2]


def without_spikes(d: Tensor, update: Update, size: Tensor, most: float | Tensor = 0.0) -> Tensor:
    """D, in place 0 for 16-bit gradients where size <= most: no gradient has ever reached the coordinate.

    In 16 bits the gradients of two examples often cancel to exactly 0. There the formulas give lr / ε: a spike as wide
    as ε, ten thousand times its neighbours. One such coordinate outweighed all others together.
    """
    if update.gradient.dtype in (torch.bfloat16, torch.float16):
        d.masked_fill_(size <= most, 0.0)
    return d


def is_zero(setting: float | Tensor) -> bool:
    """Whether a setting is the plain number 0; a tensor never is, so that nothing waits for the device."""
    return not isinstance(setting, Tensor) and setting == 0
