"""Learning rates over the updates, as functions of the update alone: nothing to save, nothing to drift on resume."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dreamprm.setting import Settings, setting

__all__ = ["SCHEDULES", "Constant", "Cosine", "Schedule", "StepDecay", "lr_factor", "set_lr"]


@dataclass
class Schedule(Settings):
    """The learning rate's factor over the updates: `warmup` first, then what the kind says."""

    kind: str = "constant"
    warmup: float = setting(0.0, "share of all updates over which the rate rises from 0", least=0, most=1)

    def after_warmup(self, update: int, num_warmup: int, num_updates: int) -> float:
        """The factor at `update` (from 0), which is past the warm-up."""
        raise NotImplementedError


@dataclass
class Constant(Schedule):
    """1 throughout."""

    kind: str = "constant"

    def after_warmup(self, update: int, num_warmup: int, num_updates: int) -> float:
        return 1.0


@dataclass
class Cosine(Schedule):
    """Half a cosine from 1 to `final` at the last update."""

    kind: str = "cosine"
    warmup: float = setting(0.05, "share of all updates over which the rate rises from 0", least=0, most=1)
    final: float = setting(0.0, "factor at the end", least=0)

    def after_warmup(self, update: int, num_warmup: int, num_updates: int) -> float:
        share = (update - num_warmup) / max(1, num_updates - num_warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


@dataclass
class StepDecay(Schedule):
    """gamma^floor(update / size)."""

    kind: str = "step"
    size: int = setting(5000, "updates between two steps down", least=1)
    gamma: float = setting(0.5, "factor of each step", above=0, most=1)

    def after_warmup(self, update: int, num_warmup: int, num_updates: int) -> float:
        return self.gamma ** (update // self.size)


SCHEDULES: dict[str, type[Schedule]] = {"constant": Constant, "cosine": Cosine, "step": StepDecay}
"""Kind -> its settings, which are the schedule."""


def lr_factor(schedule: Schedule, update: int, num_updates: int) -> float:
    """The factor on the learning rate at `update` (from 0) of `num_updates`.

    Warm-up: (update + 1) / W over the first W = warmup · num_updates. Then as the kind says.
    """
    num_warmup = round(schedule.warmup * num_updates)
    if update < num_warmup:
        return (update + 1) / num_warmup
    return schedule.after_warmup(update, num_warmup, num_updates)


def set_lr(optimizer: torch.optim.Optimizer, lr: float, schedule: Schedule, update: int, total: int) -> float:
    """Set every group's learning rate for this update, and return it."""
    value = lr * lr_factor(schedule, update, total)
    for group in optimizer.param_groups:
        group["lr"] = value
    return value
