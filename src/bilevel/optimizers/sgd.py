"""Stochastic gradient descent."""

from dataclasses import dataclass

from torch import Tensor

from .._types import Tensors
from .optimizer import Number, PerParameter, Setting, check_setting, is_zero


@dataclass(frozen=True)
class SGD(PerParameter):
    """torch.optim.SGD as pure functions.

    g' = g + weight_decay θ;  b' = momentum b + (1 - dampening) g', at the first update b' = g';
    θ' = θ - lr b', with Nesterov θ - lr (g' + momentum b'), without momentum θ - lr g'.

    Args:
        lr: learning rate; a `Setting`, so it can be taken from hyper.
        momentum, dampening: `Setting`s, otherwise as in torch.optim.SGD.
        nesterov, maximize: as in torch.optim.SGD.
        weight_decay: L2 penalty; a `Setting`.

    Raises:
        ValueError: a setting out of range, when built.
    """

    lr: Setting
    momentum: Setting = 0.0
    dampening: Setting = 0.0
    nesterov: bool = False
    weight_decay: Setting = 0.0
    maximize: bool = False

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            check_setting("SGD", name, getattr(self, name))
        check_setting("SGD", "dampening", self.dampening, least=None)
        if self.nesterov and (is_zero(self.momentum) or not is_zero(self.dampening)):
            raise ValueError(
                f"SGD(nesterov=True, momentum={self.momentum}, dampening={self.dampening}): "
                "Nesterov needs a momentum above 0 and no dampening"
            )

    def settings(self) -> dict[str, Setting]:
        """Those that may come from hyper."""
        return {name: getattr(self, name) for name in ("lr", "momentum", "dampening", "weight_decay")}

    def moment_names(self) -> tuple[str, ...]:
        """A buffer where there is momentum; of zeros until the first update overwrites it, as torch does."""
        return () if is_zero(self.momentum) else ("momentum_buffer",)

    def move(self, param: Tensor, grad: Tensor, old: Tensors, at: dict[str, Number], t: int) -> tuple[Tensor, Tensors]:
        """One update of one tensor."""
        if not old:
            return param - at["lr"] * grad, {}
        buffer = grad if t == 1 else at["momentum"] * old["momentum_buffer"] + (1 - at["dampening"]) * grad
        direction = grad + at["momentum"] * buffer if self.nesterov else buffer
        return param - at["lr"] * direction, {"momentum_buffer": buffer}
