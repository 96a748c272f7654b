"""Adam."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._types import Tensors
from .optimizer import Number, PerParameter, Setting, check_betas, check_setting, correction, root


@dataclass(frozen=True)
class Adam(PerParameter):
    """torch.optim.Adam as pure functions.

    g' = g + weight_decay θ;  m' = β1 m + (1-β1) g';  v' = β2 v + (1-β2) g'²;
    θ' = θ - lr (m' / (1-β1^t)) / (sqrt(v' / (1-β2^t)) + eps); with amsgrad the largest v' so far in place of v'.

    The derivative of the square root is taken as 0 where v' is 0: a coordinate whose gradient is exactly 0 gives
    finite derivatives, not NaN. At t = 1 the update is the sign of the gradient, so its derivative is about 0.

    Args:
        lr: learning rate; a `Setting`, so it can be taken from hyper.
        betas, eps: `Setting`s, otherwise as in torch.optim.Adam.
        amsgrad, maximize: as in torch.optim.Adam.
        weight_decay: L2 penalty; a `Setting`. For the decoupled kind use `AdamW`.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Kingma & Ba, arXiv 1412.6980, algorithm 1; amsgrad: Reddi et al., arXiv 1904.09237.
    """

    lr: Setting = 1e-3
    betas: tuple[Setting, Setting] = (0.9, 0.999)
    eps: Setting = 1e-8
    weight_decay: Setting = 0.0
    amsgrad: bool = False
    maximize: bool = False

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_setting(owner, "lr", self.lr)
        check_setting(owner, "weight_decay", self.weight_decay)
        check_setting(owner, "eps", self.eps, above=0.0)
        check_betas(owner, self.betas)

    def settings(self) -> dict[str, Setting]:
        """Those that may come from hyper."""
        betas = {"beta1": self.betas[0], "beta2": self.betas[1]}
        return {"lr": self.lr, **betas, "eps": self.eps, "weight_decay": self.weight_decay}

    def moment_names(self) -> tuple[str, ...]:
        """First and second moment, and the largest second one for amsgrad."""
        return ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.amsgrad)

    def move(self, param: Tensor, grad: Tensor, old: Tensors, at: dict[str, Number], t: int) -> tuple[Tensor, Tensors]:
        """One update of one tensor."""
        beta1, beta2 = at["beta1"], at["beta2"]
        first = beta1 * old["exp_avg"] + (1 - beta1) * grad
        second = beta2 * old["exp_avg_sq"] + (1 - beta2) * grad * grad
        moments = {"exp_avg": first, "exp_avg_sq": second}
        if self.amsgrad:
            moments["max_exp_avg_sq"] = second = torch.maximum(old["max_exp_avg_sq"], second)
        size = root(second) / correction(beta2, t) ** 0.5 + at["eps"]
        return param - at["lr"] / correction(beta1, t) * first / size, moments
