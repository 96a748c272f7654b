"""Adagrad."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks as checks
from .._types import Tensors
from .optimizer import Number, PerParameter, Setting, check_setting, root


@dataclass(frozen=True)
class Adagrad(PerParameter):
    """torch.optim.Adagrad as pure functions.

    g' = g + weight_decay θ;  S' = S + g'²;  θ' = θ - lr / (1 + (t-1) lr_decay) g' / (sqrt(S') + eps).

    Args:
        lr, eps, weight_decay: `Setting`s, otherwise as in torch.optim.Adagrad.
        lr_decay, initial_accumulator_value, maximize: as in torch.optim.Adagrad.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Duchi et al., JMLR 12, 2011.
    """

    lr: Setting = 1e-2
    lr_decay: float = 0.0
    weight_decay: Setting = 0.0
    initial_accumulator_value: float = 0.0
    eps: Setting = 1e-10
    maximize: bool = False

    def __post_init__(self) -> None:
        check_setting("Adagrad", "lr", self.lr)
        check_setting("Adagrad", "weight_decay", self.weight_decay)
        check_setting("Adagrad", "eps", self.eps, above=0.0)
        for name in ("lr_decay", "initial_accumulator_value"):
            checks.number("Adagrad", name, getattr(self, name), least=0.0)

    def settings(self) -> dict[str, Setting]:
        """Those that may come from hyper."""
        return {name: getattr(self, name) for name in ("lr", "eps", "weight_decay")}

    def moment_names(self) -> tuple[str, ...]:
        """The sum of squares."""
        return ("sum",)

    def first_moment(self, name: str, param: Tensor) -> Tensor:
        """The sum starts at a value of its own."""
        return torch.full_like(param, self.initial_accumulator_value)

    def move(self, param: Tensor, grad: Tensor, old: Tensors, at: dict[str, Number], t: int) -> tuple[Tensor, Tensors]:
        """One update of one tensor."""
        total = old["sum"] + grad * grad
        rate = at["lr"] / (1 + (t - 1) * self.lr_decay)
        return param - rate * grad / (root(total) + at["eps"]), {"sum": total}
