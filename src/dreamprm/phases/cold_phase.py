"""The cold start: plain training on the step labels, every example alike, before any weight is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.spans import span
from dreamprm.config.optimizers import build_optimizer
from dreamprm.config.schedule import set_lr
from dreamprm.distributed import average_gradients, everywhere, num_processes, own_part
from dreamprm.metrics import PhaseName
from dreamprm.phases.phase import Made, clip, inner_losses
from dreamprm.phases.state import Run

__all__ = ["ColdPhase"]


class ColdPhase:
    """loss = (1/B) sum_i l_i(theta) + dense_weight * the source's dense loss, where it has one."""

    name = PhaseName.COLD

    def __init__(self, run: Run) -> None:
        self.run = run
        self.optimizer = build_optimizer(run.settings.cold.optimizer, run.trainable().values())
        self.optimizers = {"inner": self.optimizer}

    def update(self) -> Made:
        run, settings = self.run, self.run.settings.cold
        lr = set_lr(self.optimizer, settings.optimizer.lr, settings.schedule, run.update, settings.updates)
        total = settings.batch_size * settings.accumulate
        self.optimizer.zero_grad()
        losses: list[Tensor] = []
        for micro in run.draw("cold", run.cold, settings.batch_size, settings.accumulate):
            batch = run.batch(run.cold, own_part(micro))
            with span("inner forward"), run.autocast():
                each = inner_losses(run, batch, run.prm(batch))
                loss = each.sum() * num_processes() / total
            with span("inner backward"):
                loss.backward()
            losses.append(each.detach())
        with span("logging"):
            numbers = {"loss": everywhere(torch.cat(losses)).mean().item(), "lr": lr}
        if run.dense_loss is not None and settings.dense_weight > 0:
            # Another seed for every update: nothing about the stream of captions has to be saved.
            with span("dense loss"):
                with run.autocast():
                    seed = run.settings.seed * 1_000_003 + run.update
                    dense = run.dense_loss(run.prm, seed, settings.dense_batch_size)
                (settings.dense_weight * dense).backward()
                numbers["dense_loss"] = dense.item()
        with span("step"):
            parameters = list(run.trainable().values())
            if not run.is_split:  # else the backward passes have averaged them
                average_gradients(parameters)
            clip(parameters, settings.clip_norm, split=run.is_split)
            self.optimizer.step()
        return Made(numbers)
