"""Muon."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import _checks as checks
from .._orthogonal import SHAPE_RULES, orthogonal, shape_factor
from .._types import Tensors
from .optimizer import Number, PerParameter, Setting, check_setting


@dataclass(frozen=True)
class Muon(PerParameter):
    """torch.optim.Muon as pure functions, for parameters that are matrices.

    b' = momentum b + (1 - momentum) g, x = b' or with Nesterov (1 - momentum) g + momentum b';
    θ' = (1 - lr weight_decay) θ - lr r O(x), with O and r of `bilevel._orthogonal`.

    Args:
        lr, weight_decay, momentum: `Setting`s, otherwise as in torch.optim.Muon.
        nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn: as in torch.optim.Muon.

    Raises:
        ValueError: a setting out of range, when built; a parameter that is no matrix (give it to another optimizer).

    Source: Jordan et al., kellerjordan.github.io/posts/muon, 2024. Differs from torch in precision: torch rounds O to
    bfloat16 (.4 % of an update), which has no derivative; here it has the parameter's own.
    """

    lr: Setting = 1e-3
    weight_decay: Setting = 0.1
    momentum: Setting = 0.95
    nesterov: bool = True
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315)
    eps: float = 1e-7
    ns_steps: int = 5
    adjust_lr_fn: str | None = None

    decoupled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            check_setting("Muon", name, getattr(self, name))
        check_setting("Muon", "momentum", self.momentum, below=1.0)
        checks.number("Muon", "eps", self.eps, above=0.0)
        checks.count("Muon", "ns_steps", self.ns_steps)
        if self.adjust_lr_fn not in SHAPE_RULES:
            shape_factor(self.adjust_lr_fn, (1, 1))
        if len(self.ns_coefficients) != 3:
            raise ValueError(f"Muon(ns_coefficients={self.ns_coefficients!r}): allowed is three numbers")

    def settings(self) -> dict[str, Setting]:
        """Those that may come from hyper."""
        return {name: getattr(self, name) for name in ("lr", "weight_decay", "momentum")}

    def moment_names(self) -> tuple[str, ...]:
        """The momentum buffer."""
        return ("momentum_buffer",)

    def move(self, param: Tensor, grad: Tensor, old: Tensors, at: dict[str, Number], t: int) -> tuple[Tensor, Tensors]:
        """One update of one matrix."""
        if param.ndim != 2:
            raise ValueError(
                f"Muon moves matrices only, not a parameter of shape {tuple(param.shape)}; give such parameters to "
                "another optimizer, as torch.optim.Muon demands"
            )
        momentum = at["momentum"]
        buffer = momentum * old["momentum_buffer"] + (1 - momentum) * grad
        x = (1 - momentum) * grad + momentum * buffer if self.nesterov else buffer
        rate = at["lr"] * shape_factor(self.adjust_lr_fn, param.shape)
        moved = orthogonal(x, self.ns_coefficients, self.ns_steps, self.eps)
        return param - rate * moved, {"momentum_buffer": buffer}
