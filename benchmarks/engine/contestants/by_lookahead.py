"""`bilevel.Lookahead`, one contestant per product."""

from __future__ import annotations

from torch import Tensor

import bilevel

from ..cases import Case
from .contestant import seed_inner, seed_outer

__all__ = ["Lookahead"]


class Lookahead:
    """The loop of the README. The check of the first update is off: it happens once, not in every update."""

    def __init__(self, case: Case, product: str) -> None:
        self.case = case
        self.lookahead = bilevel.Lookahead(
            case.model, case.optimizer, product, clip_norm=case.setting.clip_norm, check="off"
        )

    def update(self) -> Tensor | None:
        """dF/draw."""
        case, lookahead = self.case, self.lookahead
        case.raw.grad = None
        case.optimizer.zero_grad()
        seed_inner()
        with lookahead.inner():
            lookahead.backward(case.losses(case.inner), case.coefficients())
        lookahead.step()
        seed_outer()
        lookahead.backward_outer(case.losses(case.outer).mean())
        return case.raw.grad
