"""The examples of the smallest loss in each batch: what is trimmed teaches nothing.

Shapes: B examples of a process, A of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamprm.distributed import everyone, num_processes
from dreamprm.setting import setting
from dreamprm.weigher.features import Features
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["SmallLoss", "SmallLossSettings"]


@dataclass
class SmallLossSettings(WeigherSettings):
    """Keeps the share of each batch with the smallest losses; nothing is learned, no meta set is read."""

    kind: str = "small_loss"
    learns = False
    share: float = setting(0.6, "what is kept of a batch", above=0, most=1)


class SmallLoss(Weigher):
    """weight_i = 1 / share where the loss of i is among the batch's ceil(share B) smallest, else 0 (trimmed loss,
    arXiv 1810.11874). In evaluation the bound is that of the whole data set. Equal losses at the bound are all kept.
    """

    bound: Tensor

    def __init__(self, share: float = SmallLossSettings.share) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"share": share}
        self.share = share
        self.register_buffer("bound", torch.tensor(torch.finfo(torch.float32).max))

    def forward(self, features: Features) -> Float[Tensor, " B"]:
        losses = features.log_loss
        bound = self._bound(_of_all(losses)) if self.training else self.bound
        return (losses <= bound).to(losses.dtype) / self.share

    @torch.no_grad()
    def settle(self, batches: Sequence[Features]) -> None:
        """The bound over all of a data set."""
        self.bound.copy_(self._bound(torch.cat([features.log_loss for features in batches])))

    def _bound(self, losses: Tensor) -> Tensor:
        return losses.kthvalue(max(1, -int(-self.share * len(losses) // 1))).values


def _of_all(losses: Float[Tensor, " B"]) -> Float[Tensor, " A"]:
    """Those of every process: a bound of each one's own part would keep other examples than one process keeps."""
    if num_processes() == 1:
        return losses
    return losses.new_tensor([loss for part in everyone(losses.tolist()) for loss in part])
