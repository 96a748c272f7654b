"""The floor: what no method can avoid."""

from __future__ import annotations

import torch

from ..cases import Case
from .contestant import seed_inner, seed_outer

__all__ = ["Floor"]


class Floor:
    """Inner forward and backward with clipping and the optimizer's step, then outer forward and backward."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def update(self) -> None:
        """No hypergradient."""
        case = self.case
        case.optimizer.zero_grad()
        seed_inner()
        (case.coefficients().detach() * case.losses(case.inner)).sum().backward()
        case.clip()
        case.optimizer.step()
        case.optimizer.zero_grad()  # only a hypergradient needs it any more: the strictest memory
        seed_outer()
        torch.autograd.grad(case.losses(case.outer).mean(), case.parameters)
