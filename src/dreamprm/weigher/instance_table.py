"""One weight per training example (DreamPRM-1.5's Instance Table, arXiv 2509.05542).

Shapes: B examples of a batch, N examples of the data set, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dreamprm.distributed import num_processes
from dreamprm.setting import setting
from dreamprm.weigher.features import Features
from dreamprm.weigher.split_rows import SplitRows
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["InstanceTable", "InstanceTableSettings"]


@dataclass
class InstanceTableSettings(WeigherSettings):
    """One weight per training example."""

    kind: str = "instance_table"
    start: float = setting(1.0, "weight before the first update")
    low: float = setting(-1.0, "smallest weight; below 0 an example pushes the PRM away from its label")
    high: float = setting(3.0, "largest weight")
    sparse: bool = setting(True, "an update costs the batch, not the table; needs optimizer@outer.optimizer=row_adam")
    split_above: int = setting(
        10_000_000, "examples above which each of several processes holds its rows of a sparse table only", least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.start <= self.high:
            raise ValueError(f"start={self.start} must lie between low={self.low} and high={self.high}")


class InstanceTable(Weigher):
    """weight_i = table[i], in [low, high] by projection after each update.

    The forward pass does not clamp, so the gradient of an entry at its bound is whole and it can leave the bound
    again. sparse: the gradient holds the batch's rows alone, so that with `RowAdam` an update costs the batch and not
    the table; sparse=False gives dense gradients for any torch optimizer. split_above: a sparse table of more examples
    is split over the processes, see `SplitRows`; None: never, as where one is read from its file.
    Raises ValueError for a start outside the bounds and for an example that has no row in the table.
    """

    def __init__(
        self,
        num_examples: int,
        start: float = InstanceTableSettings.start,
        low: float = InstanceTableSettings.low,
        high: float = InstanceTableSettings.high,
        sparse: bool = InstanceTableSettings.sparse,
        split_above: int | None = None,
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
        if sparse and split_above is not None and num_examples > split_above and num_processes() > 1:
            self.rows = SplitRows(num_examples)
        num_own = num_examples if self.rows is None else self.rows.num_own
        self.table = nn.Parameter(torch.full((num_own, self._width()), float(start)))

    def _width(self) -> int:
        """Columns of the table."""
        return 1

    def forward(self, features: Features) -> Float[Tensor, " B"]:
        return self._of(features.index)[:, 0]

    def _of(self, index: Int[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """The table's rows of these examples."""
        outside = (index < 0) | (index >= self.settings["num_examples"])
        if outside.any():
            raise ValueError(
                f"rows {index[outside].tolist()[:5]} are not in the table of {self.settings['num_examples']} examples; "
                "give the collator (row, record) pairs of the training data"
            )
        if self.rows is not None:
            return self.rows.read(self.table, index)
        return F.embedding(index, self.table, sparse=self.sparse)

    def whole(self) -> InstanceTable | None:
        """The table with all its rows, for the first process; None in the others. All processes call it."""
        if self.rows is None:
            return self
        rows = self.rows.whole(self.table)
        if rows is None:
            return None
        small: dict[str, Any] = self.settings | {"num_examples": 1}
        made = type(self)(**small)
        made.settings, made.table = dict(self.settings), nn.Parameter(rows)
        return made

    def forget(self) -> None:
        if self.rows is not None:
            self.rows.forget()

    @torch.no_grad()
    def collect(self) -> None:
        if self.rows is not None:
            self.table.grad = self.rows.gradient(self.table)

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
