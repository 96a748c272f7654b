"""Adam."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._types import Tensors
from .optimizer import Setting, State, check_setting, is_zero, resolve


@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam as pure functions.

    g' = g + weight_decay θ;  m' = β1 m + (1-β1) g';  v' = β2 v + (1-β2) g'²;
    θ' = θ - lr (m' / (1-β1^t)) / (sqrt(v' / (1-β2^t)) + eps); with amsgrad the largest v' so far in place of v'.

    The derivative of the square root is taken as 0 where v' is 0: a coordinate whose gradient is exactly 0 gives
    finite derivatives, not NaN. At t = 1 the update is the sign of the gradient, so its derivative is about 0.

    Args:
        lr: learning rate; a `Setting`, so it can be taken from hyper.
        betas, eps, amsgrad, maximize: as in torch.optim.Adam.
        weight_decay: L2 penalty; a `Setting`. For the decoupled kind use `AdamW`.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Kingma & Ba, arXiv 1412.6980, algorithm 1; amsgrad: Reddi et al., arXiv 1904.09237.
    """

    lr: Setting = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: Setting = 0.0
    amsgrad: bool = False
    maximize: bool = False

    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_setting(owner, "lr", self.lr)
        check_setting(owner, "weight_decay", self.weight_decay)
        checks.number(owner, "eps", self.eps, above=0.0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"{owner}(betas={self.betas!r}): allowed is two numbers, each at least 0 and below 1")

    def init(self, params: Tensors) -> State:
        """Moments of zeros."""
        names = ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.amsgrad]
        return State(0, {name: tree.zeros_like(params) for name in names})

    def update(
        self, params: Tensors, grads: Tensors, state: State, hyper: Tensors | None = None
    ) -> tuple[Tensors, State]:
        """One update: new parameters and state."""
        owner = type(self).__name__
        lr = resolve(owner, "lr", self.lr, params, hyper)
        if self.maximize:
            grads = tree.scale(grads, -1.0)
        if not is_zero(self.weight_decay):
            decay = resolve(owner, "weight_decay", self.weight_decay, params, hyper)
            if self.decoupled:
                params = {name: param * (1 - lr[name] * decay[name]) for name, param in params.items()}
            else:
                grads = {name: grad + decay[name] * params[name] for name, grad in grads.items()}
        (beta1, beta2), step, old = self.betas, state.step + 1, state.moments
        first = {name: beta1 * old["exp_avg"][name] + (1 - beta1) * grad for name, grad in grads.items()}
        second = {name: beta2 * old["exp_avg_sq"][name] + (1 - beta2) * grad * grad for name, grad in grads.items()}
        moments = {"exp_avg": first, "exp_avg_sq": second}
        scale_by = second
        if self.amsgrad:
            scale_by = {name: torch.maximum(old["max_exp_avg_sq"][name], value) for name, value in second.items()}
            moments["max_exp_avg_sq"] = scale_by
        # Python floats, as torch.optim has them: 1 - β2^t in float32 would lose four digits at t = 1.
        correction1, correction2 = 1 - beta1**step, math.sqrt(1 - beta2**step)
        new = {
            name: param - lr[name] / correction1 * first[name] / (_sqrt(scale_by[name]) / correction2 + self.eps)
            for name, param in params.items()
        }
        return new, State(step, moments)


def _sqrt(value: Tensor) -> Tensor:
    # where twice: the inner one keeps the infinite derivative at 0 out of the product inf * 0 = NaN.
    zero = value == 0  # not "> 0", which would turn NaN into 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, value).sqrt())
