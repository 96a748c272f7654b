"""What a contestant is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Contestant", "seed_inner", "seed_outer"]


class Contestant(Protocol):
    """One meta-update at a time, the way its users write it."""

    def update(self) -> Tensor | None:
        """Inner forward, backward, clipping and step; outer forward and backward; dF/draw, (B,); the floor: None."""
        ...


def seed_inner() -> None:
    """Before the inner forward pass: every contestant's dropout draws the masks that the truth draws."""
    torch.manual_seed(7)


def seed_outer() -> None:
    """Before the outer forward pass."""
    torch.manual_seed(8)
