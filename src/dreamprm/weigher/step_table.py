"""One weight per step of every training example: labels go wrong step by step.

Shapes: B examples of a batch, S steps, N examples of the data set, W most steps of a chain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dreamprm.setting import setting
from dreamprm.weigher.features import Features
from dreamprm.weigher.instance_table import InstanceTable, InstanceTableSettings

__all__ = ["StepTable", "StepTableSettings"]


@dataclass
class StepTableSettings(InstanceTableSettings):
    """One weight per step of every training example."""

    kind: str = "step_table"
    num_steps: int = setting(32, "most steps of a chain: the table's width", least=1)


class StepTable(InstanceTable):
    """weight_is = table[i, s], in [low, high] by projection after each update; 0 where a chain has no such step.

    A chain's loss is then the mean of weight_is times the loss of step s; the losses are (B, S), so the hypergradient
    is by `product=jvp`. Raises ValueError for a chain of more steps than the table is wide.
    """

    per_step = True

    def __init__(
        self,
        num_examples: int,
        start: float = StepTableSettings.start,
        low: float = StepTableSettings.low,
        high: float = StepTableSettings.high,
        sparse: bool = StepTableSettings.sparse,
        num_steps: int = StepTableSettings.num_steps,
        split_above: int | None = None,
    ) -> None:
        self.num_steps = num_steps
        super().__init__(num_examples, start, low, high, sparse, split_above)
        self.settings["num_steps"] = num_steps

    def _width(self) -> int:
        return self.num_steps

    def forward(self, features: Features) -> Float[Tensor, "B S"]:
        mask = features.mask
        width = self.table.shape[1]
        if mask.shape[1] > width and bool(mask[:, width:].any()):
            raise ValueError(
                f"a chain of {int(mask.sum(1).max())} steps has no place in the table of {width} steps a chain: "
                "raise weigher.num_steps"
            )
        rows = self._of(features.index)[:, : mask.shape[1]]
        rows = F.pad(rows, (0, mask.shape[1] - rows.shape[1]))
        return torch.where(mask, rows, torch.zeros_like(rows))
