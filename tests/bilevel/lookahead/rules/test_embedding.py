"""Tables that are looked up: whose row a looked-up row is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def test_neighbours_before_rows(compare: Any) -> None:
    """(4 neighbours, rows): positions between those of a table, as many neighbours as there are examples."""

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(7, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(0, 1)  # (B T, C): a row per patch
            index = (torch.arange(len(rows)) * torch.arange(1, 5)[:, None]) % 7
            share = torch.softmax(torch.stack([rows[:, :4].sin()[:, k] for k in range(4)]), 0)
            rows = torch.tanh(self.head(rows) + (self.table(index) * share[:, :, None]).sum(0))
            return rows.unflatten(0, (len(x), -1))

    patches = {"": torch.arange(4).repeat_interleave(5)}
    value, expected = compare.value(Between, "ghost", rows=patches), compare.value(Between, "jvp")
    assert float((value - expected).norm() / expected.norm()) < 1e-12  # float64, two exact ways
