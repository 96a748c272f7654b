"""Features of a few examples, without a model."""

from collections.abc import Callable

import pytest
import torch

from dreamprm.prm.collate import Batch
from dreamprm.weigher import Features, from_batch


@pytest.fixture
def build_batch() -> Callable[..., Batch]:
    def build(labels: torch.Tensor, mask: torch.Tensor | None = None, domain: int = 0) -> Batch:
        mask = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
        rows = len(labels)
        return Batch(
            inputs={},
            step_positions=torch.zeros_like(labels, dtype=torch.long),
            step_mask=mask,
            labels=labels,
            label_mask=mask,
            correct=torch.ones(rows),
            index=torch.arange(rows),
            domain=torch.full((rows,), domain),
            keys=[str(row) for row in range(rows)],
        )

    return build


@pytest.fixture
def features(build_batch: Callable[..., Batch]) -> Features:
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.25, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    logits = torch.tensor([[2.0, -1.0, 0.5], [3.0, 0.0, 0.0]])
    return from_batch(build_batch(labels, mask), logits, torch.tensor([0.5, 2.0]))
