"""The functional core: `bilevel.hypergradient` with `OneStep`, parameters in a dictionary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import bilevel
from bilevel.optimizers.optimizer import State

from ..cases import Batch, Case
from .contestant import seed_inner, seed_outer

__all__ = ["OneStep"]


class OneStep:
    """A loop that carries params and state along; attention by the kernel that has a forward-mode rule."""

    def __init__(self, case: Case) -> None:
        setting = case.setting
        self.case = case
        self.params = {name: p.detach().clone() for name, p in case.model.named_parameters()}
        self.method = bilevel.OneStep(
            bilevel.AdamW(lr=setting.lr, weight_decay=setting.weight_decay), clip_norm=setting.clip_norm
        )
        self.state: Any = None
        live = case.optimizer.state
        if live:
            named = dict(case.model.named_parameters())
            moments = {
                moment: {name: live[p][moment].detach().clone() for name, p in named.items()}
                for moment in ("exp_avg", "exp_avg_sq")
            }
            self.state = State(int(next(iter(live.values()))["step"]), moments)

        def losses(params: dict[str, Tensor], batch: Batch) -> Tensor:
            return case.losses(batch, lambda tokens: torch.func.functional_call(case.model, params, (tokens,)))

        def inner(params: dict[str, Tensor], hyper: dict[str, Tensor], batch: Batch) -> Tensor:
            return (F.softplus(hyper["raw"]) / len(hyper["raw"]) * losses(params, batch)).sum()

        def outer(params: dict[str, Tensor], hyper: dict[str, Tensor], batch: Batch) -> Tensor:
            seed_outer()
            return losses(params, batch).mean()

        self.problem = bilevel.Bilevel(inner, outer)

    def update(self) -> Tensor:
        """dF/draw."""
        case = self.case
        seed_inner()
        with sdpa_kernel(SDPBackend.MATH):
            result = bilevel.hypergradient(
                self.problem,
                self.params,
                {"raw": case.raw.detach()},
                [case.inner],
                case.outer,
                method=self.method,
                state=self.state,
            )
        self.params, self.state = result.params, result.state
        return result.grad["raw"]
