"""betty-ml 0.2.1 with `type="darts"`, the setting of the published DreamPRM code; clipping by betty's own option.

betty builds the optimizer anew from its class and defaults, which this torch's AdamW refuses; the class below does not.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ..cases import Batch, Case
from .contestant import seed_inner, seed_outer

__all__ = ["Betty"]


class Weigher(nn.Module):
    """One raw weight per example."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.raw = nn.Parameter(case.raw.detach().clone())

    def forward(self) -> Tensor:
        return torch.nn.functional.softplus(self.raw) / len(self.raw)


class AdamW(torch.optim.AdamW):
    """torch's, that takes its own defaults back."""

    def __init__(self, params: Any, *, decoupled_weight_decay: bool = True, **defaults: Any) -> None:
        super().__init__(params, **defaults)


class Betty:
    """Two problems and an engine; betty's own loop decides what is computed when."""

    def __init__(self, case: Case) -> None:
        from betty.configs import Config, EngineConfig  # type: ignore[import-not-found]
        from betty.engine import Engine  # type: ignore[import-not-found]
        from betty.problems import ImplicitProblem  # type: ignore[import-not-found]

        logging.disable(logging.INFO)
        kept: list[Tensor] = []

        class Outer(ImplicitProblem):
            def training_step(self, batch: Any) -> Tensor:
                seed_outer()
                return case.losses(Batch(*batch), self.inner)

            def get_loss(self, batch: Any) -> Any:
                return self.training_step(batch).mean(), {}

            def grad_callback(self) -> None:
                kept[:] = [self.module.raw.grad.detach().clone()]

        class Inner(ImplicitProblem):
            fresh = True

            def training_step(self, batch: Any) -> Tensor:
                if self.fresh:  # the first of the three inner passes; betty does not replay dropout in the others
                    seed_inner()
                    self.fresh = False
                return (self.outer() * case.losses(Batch(*batch), self.module)).sum()

        weigher = Weigher(case)
        outer = Outer(
            name="outer",
            config=Config(type="darts", retain_graph=True),
            module=weigher,
            optimizer=torch.optim.SGD(weigher.parameters(), lr=0.0),
            train_data_loader=[(case.outer.tokens, case.outer.labels)],
        )
        optimizer = case.optimizer
        if case.setting.workarounds:
            optimizer = AdamW(case.parameters, lr=case.setting.lr, weight_decay=case.setting.weight_decay)
        inner = Inner(
            name="inner",
            config=Config(type="darts", unroll_steps=1, gradient_clipping=case.setting.clip_norm or 0.0),
            module=case.model,
            optimizer=optimizer,
            train_data_loader=[(case.inner.tokens, case.inner.labels)],
        )
        self.engine = Engine(
            problems=[outer, inner],
            config=EngineConfig(train_iters=1, strategy="cpu"),
            dependencies={"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
        )
        inner.optimizer.load_state_dict(case.optimizer.state_dict())
        case.optimizer.state.clear()
        self.inner, self.kept = inner, kept

    def update(self) -> Tensor:
        """dF/draw, as betty leaves it in `.grad`."""
        self.inner.fresh = True
        self.engine.global_step += 1
        self.engine.train_step()
        return self.kept[0]
