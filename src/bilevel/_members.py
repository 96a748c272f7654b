"""Numbers that may be many: under vmap each member of the batch has one of its own, which nobody can read.

A loop that must decide asks `anyone`, which looks at all members at once; what is decided is written by masks. Outside
vmap there is one member, and a mask is a yes or a no.
"""

import torch
from torch import Tensor

from ._types import Tensors


def batched(tensor: Tensor) -> bool:
    """Whether the tensor stands for many, one per member of a vmap."""
    return torch.func.debug_unwrap(tensor).ndim > tensor.ndim


def anyone(mask: Tensor) -> bool:
    """Whether the mask holds for any member. Waits for the device."""
    return bool(torch.func.debug_unwrap(mask).any())


def choose(mask: Tensor, new: Tensors, old: Tensors) -> Tensors:
    """`new` for the members for which the mask holds, `old` for all others."""
    return {name: torch.where(mask, new[name], tensor) for name, tensor in old.items()}


def ratio(above: Tensor, below: Tensor, where: Tensor) -> Tensor:
    """above / below where the mask holds, 0 elsewhere; no NaN in the derivative of what is not taken."""
    return torch.where(where, above / torch.where(where, below, 1.0), 0.0)


def peak(tensors: Tensors) -> Tensor:
    """The largest magnitude of all entries."""
    return torch.stack([tensor.abs().max() for tensor in tensors.values() if tensor.numel()]).max()


def power_of_two(size: Tensor) -> Tensor:
    """About `size`, so that dividing by it loses nothing; 1 where size is 0."""
    positive = size > 0
    return torch.where(positive, torch.exp2(torch.where(positive, size, 1.0).log2().floor()), 1.0)
