"""Adam with decoupled weight decay whose update costs the rows that have a gradient, not the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["RowAdam"]


class RowAdam(torch.optim.Optimizer):
    """AdamW in which every row has a clock of its own.

        m_r = β₁ m_r + (1 - β₁) g_r;  v_r = β₂ v_r + (1 - β₂) g_r²
        p_r = p_r (1 - lr wd) - lr (m_r / (1 - β₁^t_r)) / (sqrt(v_r / (1 - β₂^t_r)) + ε)

    with t_r the number of updates in which row r had a gradient. Differs from torch.optim.SparseAdam, which corrects
    every row by the global number of updates: a row first met at update 10,000 would take a first step of 3.2 lr
    instead of lr. Takes dense gradients too, all of whose rows count.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"lr={lr}, eps={eps} and weight_decay={weight_decay} must not be negative")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas} must lie in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of every row that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            # zeros are mapped lazily: rows that no batch has met take no memory.
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["count"] = torch.zeros(len(parameter), dtype=parameter.dtype, device=parameter.device)
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        else:
            rows, values = torch.arange(len(parameter), device=parameter.device), gradient
        beta1, beta2 = group["betas"]
        count = state["count"][rows] + 1
        first = torch.lerp(state["exp_avg"][rows], values, 1 - beta1)
        second = torch.lerp(state["exp_avg_sq"][rows], values.square(), 1 - beta2)
        state["count"][rows], state["exp_avg"][rows], state["exp_avg_sq"][rows] = count, first, second
        clock = count.view(-1, *[1] * (values.ndim - 1))
        step = (first / (1 - beta1**clock)) / ((second / (1 - beta2**clock)).sqrt() + group["eps"])
        parameter[rows] = parameter[rows] * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * step
