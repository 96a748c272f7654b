"""RMSprop."""

from dataclasses import dataclass

from torch import Tensor

from .._types import Tensors
from .optimizer import Number, PerParameter, Setting, check_setting, is_zero, root


@dataclass(frozen=True)
class RMSprop(PerParameter):
    """torch.optim.RMSprop as pure functions.

    g' = g + weight_decay θ;  v' = alpha v + (1-alpha) g'²;  a = sqrt(v') + eps, centered sqrt(v' - ḡ'²) + eps with
    ḡ' = alpha ḡ + (1-alpha) g';  b' = momentum b + g'/a;  θ' = θ - lr b'.

    Args:
        lr, alpha, eps, weight_decay, momentum: `Setting`s, otherwise as in torch.optim.RMSprop.
        centered, maximize: as in torch.optim.RMSprop.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Hinton's lecture 6e, 2012; centered: Graves, arXiv 1308.0850.
    """

    lr: Setting = 1e-2
    alpha: Setting = 0.99
    eps: Setting = 1e-8
    weight_decay: Setting = 0.0
    momentum: Setting = 0.0
    centered: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "momentum"):
            check_setting("RMSprop", name, getattr(self, name))
        check_setting("RMSprop", "alpha", self.alpha, below=1.0)
        check_setting("RMSprop", "eps", self.eps, above=0.0)

    def settings(self) -> dict[str, Setting]:
        """Those that may come from hyper."""
        return {name: getattr(self, name) for name in ("lr", "alpha", "eps", "weight_decay", "momentum")}

    def moment_names(self) -> tuple[str, ...]:
        """The mean square, and what the options need."""
        buffer = [] if is_zero(self.momentum) else ["momentum_buffer"]
        return ("square_avg", *["grad_avg"] * self.centered, *buffer)

    def move(self, param: Tensor, grad: Tensor, old: Tensors, at: dict[str, Number], t: int) -> tuple[Tensor, Tensors]:
        """One update of one tensor."""
        alpha = at["alpha"]
        square = alpha * old["square_avg"] + (1 - alpha) * grad * grad
        moments, spread = {"square_avg": square}, square
        if self.centered:
            moments["grad_avg"] = mean = alpha * old["grad_avg"] + (1 - alpha) * grad
            spread = square - mean * mean
        direction = grad / (root(spread) + at["eps"])
        if "momentum_buffer" in old:
            moments["momentum_buffer"] = direction = at["momentum"] * old["momentum_buffer"] + direction
        return param - at["lr"] * direction, moments
