"""Adam with Nesterov's momentum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks as checks
from .._types import Tensors
from .optimizer import Number, PerParameter, Setting, check_betas, check_setting, correction, root


@dataclass(frozen=True)
class NAdam(PerParameter):
    """torch.optim.NAdam, its L2 kind, as pure functions.

    g' = g + weight_decay θ; m', v' as Adam's; μ_t = β1 (1 - ½ 0.96^(t momentum_decay)), P_t = Π μ;
    θ' = θ - lr [ (1-μ_t)/(1-P_t) g' + μ_{t+1}/(1-P_t μ_{t+1}) m' ] / (sqrt(v'/(1-β2^t)) + eps).

    Args:
        lr, betas, eps, weight_decay: `Setting`s, otherwise as in torch.optim.NAdam.
        momentum_decay, maximize: as in torch.optim.NAdam.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Dozat, 2016. Differs from torch in that P is kept in the parameter's precision, torch's in float32.
    """

    lr: Setting = 2e-3
    betas: tuple[Setting, Setting] = (0.9, 0.999)
    eps: Setting = 1e-8
    weight_decay: Setting = 0.0
    momentum_decay: float = 4e-3
    maximize: bool = False

    def __post_init__(self) -> None:
        check_setting("NAdam", "lr", self.lr)
        check_setting("NAdam", "weight_decay", self.weight_decay)
        check_setting("NAdam", "eps", self.eps, above=0.0)
        check_betas("NAdam", self.betas)
        checks.number("NAdam", "momentum_decay", self.momentum_decay, least=0.0)

    def settings(self) -> dict[str, Setting]:
        """Those that may come from hyper."""
        betas = {"beta1": self.betas[0], "beta2": self.betas[1]}
        return {"lr": self.lr, **betas, "eps": self.eps, "weight_decay": self.weight_decay}

    def moment_names(self) -> tuple[str, ...]:
        """Both moments, and the product P."""
        return ("exp_avg", "exp_avg_sq", "mu_product")

    def first_moment(self, name: str, param: Tensor) -> Tensor:
        """P is 1 before the first update."""
        return param.new_ones(()) if name == "mu_product" else torch.zeros_like(param)

    def move(self, param: Tensor, grad: Tensor, old: Tensors, at: dict[str, Number], t: int) -> tuple[Tensor, Tensors]:
        """One update of one tensor."""
        beta1, beta2 = at["beta1"], at["beta2"]
        now, following = (beta1 * (1 - 0.5 * 0.96 ** (k * self.momentum_decay)) for k in (t, t + 1))
        first = beta1 * old["exp_avg"] + (1 - beta1) * grad
        second = beta2 * old["exp_avg_sq"] + (1 - beta2) * grad * grad
        product = old["mu_product"] * now
        direction = (1 - now) / (1 - product) * grad + following / (1 - product * following) * first
        size = root(second) / correction(beta2, t) ** 0.5 + at["eps"]
        moments = {"exp_avg": first, "exp_avg_sq": second, "mu_product": product}
        return param - at["lr"] * direction / size, moments
