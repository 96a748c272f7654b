"""The embedded world's dense targets as a loss of the cold start."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from dreamprm.trainer.state import DenseLoss

__all__ = ["world_dense_loss"]


def world_dense_loss(device: torch.device) -> DenseLoss:
    """`(prm, seed, count) -> loss` on `count` captions and solutions, the same for the same seed."""
    from dreamprm.world.captions import dense_batch, dense_examples, dense_loss

    def loss(prm: Any, seed: int, count: int) -> Tensor:
        examples = list(itertools.islice(dense_examples(seed), count))
        batch = {name: value.to(device) for name, value in dense_batch(prm.processor, examples).items()}
        return dense_loss(prm.transformer, batch)

    return loss
