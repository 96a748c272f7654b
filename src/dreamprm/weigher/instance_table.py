"""One weight per training example (DreamPRM-1.5's Instance Table, arXiv 2509.05542).

Shapes: B examples of a batch, N examples of the data set.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dreamprm.weigher.features import Features
from dreamprm.weigher.weigher import Weigher

__all__ = ["InstanceTable"]


class InstanceTable(Weigher):
    """weight_i = table[i], in [low, high] by projection after each update.

    The forward pass does not clamp, so the gradient of an entry at its bound is whole and it can leave the bound
    again. sparse: the gradient holds the batch's rows alone, so that with `RowAdam` an update costs the batch and not
    the table; sparse=False gives dense gradients for any torch optimizer.
    Raises ValueError for a start outside the bounds and for an example that has no row in the table.
    """

    def __init__(
        self, num_examples: int, start: float = 1.0, low: float = -1.0, high: float = 3.0, sparse: bool = True
    ) -> None:
        super().__init__()
        if num_examples < 1:
            raise ValueError(f"an instance table needs at least one example, got {num_examples}")
        if not low <= start <= high:
            raise ValueError(f"start={start} must lie between low={low} and high={high}")
        self.settings: dict[str, Any] = {
            "num_examples": num_examples,
            "start": start,
            "low": low,
            "high": high,
            "sparse": sparse,
        }
        self.low, self.high, self.sparse = low, high, sparse
        self.table = nn.Parameter(torch.full((num_examples, 1), float(start)))

    def forward(self, features: Features) -> Float[Tensor, " B"]:
        index = features.index
        outside = (index < 0) | (index >= len(self.table))
        if outside.any():
            raise ValueError(
                f"rows {index[outside].tolist()[:5]} are not in the table of {len(self.table)} examples; give the "
                "collator (row, record) pairs of the training data"
            )
        return F.embedding(index, self.table, sparse=self.sparse)[:, 0]

    @torch.no_grad()
    def project(self) -> None:
        gradient = self.table.grad
        if gradient is None:
            return
        if gradient.is_sparse:
            rows = gradient._indices()[0]  # only these were updated
            self.table[rows] = self.table[rows].clamp(self.low, self.high)
        else:
            self.table.clamp_(self.low, self.high)
