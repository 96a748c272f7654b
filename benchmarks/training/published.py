"""The published loop of DreamPRM-1.5, made again: one chain at a time, a softmax over the whole vocabulary at every
token, betty-ml 0.2.1 with `type="darts"` between the levels (`benchmarks.engine.peers` makes an environment with it).

Facts from the paper and its released code: AdamW on both levels, clipping at 1, weight = the published 41-parameter net
on the two-way softmax, not cut from the PRM; inner loss: cross-entropy of + and - at the steps; outer loss:
(mean P(label of the chain) - 1)². Not taken over: its loader, logger and image pipeline; the chains come encoded.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.phases.state import Run
from dreamprm.prm.collate import Batch

__all__ = ["Published"]


class Net(nn.Module):
    """Weight of a chain from the two-way softmax of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 10), nn.LeakyReLU(), nn.Linear(10, 1))

    def forward(self, two: Tensor) -> Tensor:
        return self.layers(two).mean().sigmoid()


class Published:
    """`update()` is one inner update of one chain and one outer update of another one, by betty's own loop."""

    chains = 1

    def __init__(self, run: Run) -> None:
        from betty.configs import Config, EngineConfig  # type: ignore[import-not-found]
        from betty.engine import Engine  # type: ignore[import-not-found]
        from betty.problems import ImplicitProblem  # type: ignore[import-not-found]

        logging.disable(logging.INFO)
        model: Any = run.prm.transformer
        plus, minus = run.prm.labels or (0, 0)
        places = {"inner": 0, "outer": 0}

        def draw(level: str) -> Batch:
            records = run.train if level == "inner" else run.meta
            places[level] = (places[level] + 1) % len(records)
            return run.batch(records, [places[level]])

        def two_way(module: Any, batch: Batch) -> Tensor:
            """P(+) and P(-) of every step, (S, 2), by way of the whole vocabulary at every token."""
            whole = module(**batch.inputs, use_cache=False).logits.float().softmax(-1)  # (1, T, V)
            steps = whole[0, batch.step_positions[0]][:, [plus, minus]]
            return steps / steps.sum(-1, keepdim=True)

        class Outer(ImplicitProblem):
            def training_step(self, _: Any) -> Tensor:
                batch = draw("outer")
                right = 0 if bool(batch.correct[0] > 0.5) else 1
                return (two_way(self.inner.module, batch)[:, right].mean() - 1).square()

        class Inner(ImplicitProblem):
            def training_step(self, _: Any) -> Tensor:
                batch = draw("inner")
                two = two_way(self.module, batch)
                target = torch.stack([batch.labels[0], 1 - batch.labels[0]], -1)
                loss = -(target * two.clamp_min(1e-12).log()).sum(-1).mean()
                return self.outer(two) * loss

        net = Net()
        outer = Outer(
            name="outer",
            config=Config(type="darts", retain_graph=True, gradient_clipping=1.0),
            module=net,
            optimizer=_AdamW(net.parameters(), lr=5e-4),
            train_data_loader=[(torch.zeros(1),)],
        )
        inner = Inner(
            name="inner",
            config=Config(type="darts", unroll_steps=1, gradient_clipping=1.0),
            module=model,
            optimizer=_AdamW(model.parameters(), lr=5e-5, weight_decay=1e-2),
            train_data_loader=[(torch.zeros(1),)],
        )
        self.engine = Engine(
            problems=[outer, inner],
            config=EngineConfig(train_iters=1, strategy="cpu"),
            dependencies={"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
        )

    def update(self) -> None:
        self.engine.global_step += 1
        self.engine.train_step()


class _AdamW(torch.optim.AdamW):
    """torch's, that takes its own defaults back: betty builds the optimizer anew from them."""

    def __init__(self, params: Any, *, decoupled_weight_decay: bool = True, **defaults: Any) -> None:
        super().__init__(params, **defaults)
