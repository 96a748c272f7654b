"""Learning rates over the updates, as functions of the update alone: nothing to save, nothing to drift on resume."""

from __future__ import annotations

import math

import torch

from dreamprm.config.kinds import Cosine, ScheduleSettings, StepDecay

__all__ = ["lr_factor", "set_lr"]


def lr_factor(settings: ScheduleSettings, update: int, num_updates: int) -> float:
    """The factor on the learning rate at `update` (from 0) of `num_updates`.

    Warm-up: (update + 1) / W over the first W = warmup · num_updates. Then constant; cosine from 1 to `final`;
    or gamma^floor(update / size).
    """
    num_warmup = round(settings.warmup * num_updates)
    if update < num_warmup:
        return (update + 1) / num_warmup
    if isinstance(settings, Cosine):
        share = (update - num_warmup) / max(1, num_updates - num_warmup)
        return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if isinstance(settings, StepDecay):
        return settings.gamma ** (update // settings.size)
    return 1.0


def set_lr(optimizer: torch.optim.Optimizer, lr: float, settings: ScheduleSettings, update: int, total: int) -> float:
    """Set every group's learning rate for this update, and return it."""
    value = lr * lr_factor(settings, update, total)
    for group in optimizer.param_groups:
        group["lr"] = value
    return value
