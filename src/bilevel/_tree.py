"""Vector algebra on dictionaries of tensors."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from ._functional import split
from ._types import Tensors


def zeros_like(tensors: Tensors) -> Tensors:
    """0, in the shape of each tensor."""
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def add(left: Tensors, right: Tensors, scale: float | Tensor = 1.0) -> Tensors:
    """left + scale * right."""
    return {name: tensor + scale * right[name] for name, tensor in left.items()}


def filled(tensors: Tensors, pattern: Tensors) -> Tensors:
    """`tensors`, with 0 for every name that only `pattern` has, in its order."""
    return {name: tensors[name] if name in tensors else torch.zeros_like(like) for name, like in pattern.items()}


def scale(tensors: Tensors, factor: float | Tensor) -> Tensors:
    """factor * tensors."""
    return {name: factor * tensor for name, tensor in tensors.items()}


def dot(left: Tensors, right: Tensors) -> Tensor:
    """<left, right>, a scalar."""
    return torch.stack([(tensor * right[name]).sum() for name, tensor in left.items()]).sum()


def norm(tensors: Tensors) -> Tensor:
    """Euclidean norm over all tensors together; its derivative at 0 is 0, where that of a plain square root is NaN."""
    square = dot(tensors, tensors)
    zero = square == 0  # not "> 0", which would turn NaN into 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def eps(tensors: Tensors) -> float:
    """The rounding of the coarsest of the tensors' precisions."""
    return max(torch.finfo(tensor.dtype).eps for tensor in tensors.values())


def all_finite(tensors: Tensors) -> Tensor:
    """Whether every entry is finite: a boolean scalar on the tensors' device."""
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).all()


def like(tensors: Tensors, pattern: Tensors) -> Tensors:
    """The same values in the dtypes of `pattern`.

    Why: under forward mode torch makes a 0-dim float32 tensor times a Python float a float64 one.
    """
    return {name: tensor.to(pattern[name].dtype) for name, tensor in tensors.items()}


def leaves(tree: Any, name: str = "") -> Tensors:
    """The tensors of a tree of dictionaries, lists and tuples, by their places."""
    if isinstance(tree, Tensor):
        return {name: tree}
    parts = cast(Any, tree).items() if isinstance(tree, dict) else enumerate(tree)
    return {place: leaf for key, part in parts for place, leaf in leaves(part, f"{name}.{key}").items()}


def flatten(tensors: Tensors) -> Tensor:
    """All entries in one vector, in the order of the dictionary."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])  # (n,)


def unflattener(pattern: Tensors) -> Callable[[Tensor], Tensors]:
    """The inverse of `flatten` for tensors shaped like `pattern`."""
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in pattern.items()}
    sizes = [math.prod(shape) for shape, _ in shapes.values()]

    def unflatten(vector: Tensor) -> Tensors:  # (n,)
        pieces = split(vector, sizes)
        return {
            name: piece.reshape(shape).to(dtype)
            for (name, (shape, dtype)), piece in zip(shapes.items(), pieces, strict=True)
        }

    return unflatten
