"""Parameters that are split over processes (DTensor): the part that this process holds."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["is_sharded", "local"]


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is a DTensor. Not by its class, whose module takes long to import and may be absent."""
    return hasattr(tensor, "_local_tensor")


def local(tensor: Tensor) -> Tensor:
    """This process's part of a DTensor, the very memory; any other tensor as it is."""
    part: Any = tensor
    return part._local_tensor if is_sharded(tensor) else tensor
