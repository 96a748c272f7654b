"""The statement of a bilevel problem."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._types import Loss, Tensors


@dataclass(frozen=True)
class Bilevel:
    """Two losses that share parameters: minimise the outer one over hyper, at parameters that the inner one fits.

    min_φ F(θ(φ), φ)   where   θ(φ) comes out of minimising L(θ, φ) over θ

    `inner` is L and `outer` is F, both (params, hyper, batch) -> scalar: pure functions that leave their arguments
    as they are. `torch.func.functional_call` makes one out of any module. Dropout and other random numbers are
    allowed: every pass over the same step draws the same ones again.
    """

    inner: Loss
    outer: Loss

    def __post_init__(self) -> None:
        for field in ("inner", "outer"):
            if not callable(getattr(self, field)):
                raise ValueError(f"Bilevel({field}=…): allowed is a function (params, hyper, batch) -> scalar tensor")

    def inner_at(self, batch: Any) -> Callable[[Tensors, Tensors], Tensor]:
        """(params, hyper) -> inner loss on `batch`, checked to be a scalar."""
        return lambda params, hyper: _scalar("inner", self.inner(params, hyper, batch))

    def outer_at(self, batch: Any) -> Callable[[Tensors, Tensors], Tensor]:
        """(params, hyper) -> outer loss on `batch`, checked to be a scalar."""
        return lambda params, hyper: _scalar("outer", self.outer(params, hyper, batch))


def _scalar(which: str, loss: object) -> Tensor:
    if not isinstance(loss, Tensor):
        raise ValueError(f"the {which} loss is a {type(loss).__name__}; it must return a scalar tensor")
    if loss.ndim != 0:
        raise ValueError(
            f"the {which} loss has shape {tuple(loss.shape)}; it must return a scalar: reduce it with .mean() or .sum()"
        )
    return loss


def check_arguments(params: Tensors, hyper: Tensors, inner_batches: Sequence[Any]) -> None:
    """Raise ValueError where an argument of `hypergradient` cannot be right."""
    for name, tensors in (("params", params), ("hyper", hyper)):
        if not isinstance(tensors, dict) or not tensors:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"{name} must be a dict of tensors with at least one entry, not {type(tensors).__name__}")
        for key, tensor in tensors.items():
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
                kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"{name}[{key!r}] is {kind}; allowed is a real floating-point tensor")
    if isinstance(inner_batches, torch.Tensor | str | dict) or not isinstance(inner_batches, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"inner_batches is a {type(inner_batches).__name__}; it must be a list or tuple of batches, "
            "one per inner step: write [batch] for a single one"
        )
    if not inner_batches:
        raise ValueError("inner_batches is empty; give at least one batch")
