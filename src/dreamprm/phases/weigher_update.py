"""The outer update: the weigher's optimizer with its schedule and clipping; a gradient that is no number is skipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilevel import Status
from dreamprm.config.optimizers import build_optimizer
from dreamprm.config.schedule import set_lr
from dreamprm.distributed import everyone
from dreamprm.errors import UserError
from dreamprm.phases.phase import clip
from dreamprm.phases.state import Run
from dreamprm.weigher import project

__all__ = ["WeigherUpdate"]


class WeigherUpdate:
    """phi' = project(optimizer(phi, clip(dF/dphi))), on the `.grad` that the hypergradient was added to."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.optimizer = build_optimizer(run.settings.outer.optimizer, run.weigher.parameters())

    def due(self, update: int) -> bool:
        """Whether the bilevel phase's `update` (from 0) ends with an outer one."""
        outer = self.run.settings.outer
        return update >= outer.begin and (update + 1) % outer.every == 0

    def step(self, update: int, status: Status) -> dict[str, float]:
        """One update; where the gradient is not finite it is counted and left out.

        Raises UserError where that happens more than `outer.max_not_finite` times in a row.
        """
        run, outer, counters = self.run, self.run.settings.outer, self.run.counters
        set_lr(self.optimizer, outer.optimizer.lr, outer.schedule, update, max(1, run.settings.inner.updates))
        counters.outer_updates += 1
        run.weigher.collect()
        gradients = [value.grad for value in run.weigher.parameters() if value.grad is not None]
        finite = status is not Status.NOT_FINITE and _finite(gradients)
        split = run.weigher.rows is not None
        if not (all(everyone(finite)) if split else finite):
            counters.skipped_outer += 1
            counters.skipped_in_a_row += 1
            if counters.skipped_in_a_row > outer.max_not_finite:
                raise UserError(
                    f"the outer gradient was not finite {counters.skipped_in_a_row} times in a row, up to update "
                    f"{run.update}: lower inner.optimizer.lr, or raise outer.max_not_finite to wait longer"
                )
            return {"outer_skipped": 1.0}
        counters.skipped_in_a_row = 0
        norm = clip(list(run.weigher.parameters()), outer.clip_norm, split=split)
        self.optimizer.step()
        project(run.weigher)
        return {"hypergradient_norm": norm}


def _finite(gradients: Sequence[Tensor]) -> bool:
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    return not values or bool(torch.stack([value.isfinite().all() for value in values]).all())
