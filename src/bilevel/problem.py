"""The statement of a bilevel problem."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._functional import vjp
from ._types import Loss, Tensors


@dataclass(frozen=True)
class Bilevel:
    """Two losses that share parameters: minimise the outer one over hyper, at parameters that the inner one fits.

    min_φ F(θ(φ), φ)   where   θ(φ) comes out of minimising L(θ, φ) over θ

    `inner` is L and `outer` is F, both (params, hyper, batch) -> scalar: pure functions that leave their arguments
    as they are. `torch.func.functional_call` makes one out of any module. Dropout and other random numbers are
    allowed: every pass over the same step draws the same ones again.

    Args:
        inner: L.
        outer: F.
        start: φ -> θ_0, where the inner steps start, if that is to be learned (MAML): `params` are then None, and the
            methods that go through the steps add (∂θ_0/∂φ)ᵀ dF/dθ_0. Weight decay acts on the parameters themselves,
            as in torch; with an offset that starts at 0 it would act on the offset.
    """

    inner: Loss
    outer: Loss
    start: Callable[[Tensors], Tensors] | None = None

    def __post_init__(self) -> None:
        for field in ("inner", "outer"):
            if not callable(getattr(self, field)):
                raise ValueError(f"Bilevel({field}=…): allowed is a function (params, hyper, batch) -> scalar tensor")

    def inner_at(self, batch: Any) -> Callable[[Tensors, Tensors], Tensor]:
        """(params, hyper) -> inner loss on `batch`, checked to be a scalar."""
        return lambda params, hyper: scalar("inner", self.inner, params, hyper, batch)

    def outer_at(self, batch: Any) -> Callable[[Tensors, Tensors], Tensor]:
        """(params, hyper) -> outer loss on `batch`, checked to be a scalar."""
        return lambda params, hyper: scalar("outer", self.outer, params, hyper, batch)

    def start_vjp(self, hyper: Tensors, cotangent: Tensors) -> Tensors:
        """(∂θ_0/∂φ)ᵀ λ; only where there is a start."""
        assert self.start is not None
        return vjp(self.start, hyper)(cotangent)[0]


def scalar(which: str, function: Loss, params: Tensors, hyper: Tensors, batch: Any) -> Tensor:
    """The loss `function`, called `which` in errors, checked to be a scalar.

    Raises:
        ValueError: it is none; it changes a tensor in place.
    """
    try:
        loss = function(params, hyper, batch)
    except RuntimeError as error:
        if "in-place operation" not in str(error):
            raise
        raise ValueError(
            f"the {which} loss changes a tensor in place, which a pure function must not. BatchNorm's running "
            "statistics do: put the module into eval(), or call torch.func.replace_all_batch_norm_modules_(model), "
            "which uses the batch's own statistics and keeps none"
        ) from error
    if not isinstance(loss, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"the {which} loss is a {type(loss).__name__}; it must return a scalar tensor")
    if not loss.is_floating_point():
        raise ValueError(f"the {which} loss is of {loss.dtype}; it must be a real floating-point number")
    if loss.ndim != 0:
        raise ValueError(
            f"the {which} loss has shape {tuple(loss.shape)}; it must return a scalar: reduce it with .mean() or .sum()"
        )
    return loss


def check_tensors(name: str, tensors: Tensors) -> None:
    """Raise ValueError unless `tensors`, the argument `name`, is a dictionary of real tensors."""
    if not isinstance(tensors, dict) or not tensors:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be a dict of tensors with at least one entry, not {type(tensors).__name__}")
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"{name}[{key!r}] is {kind}; allowed is a real floating-point tensor")


def check_batches(inner_batches: Sequence[Any]) -> None:
    """Raise ValueError unless `inner_batches` is a sequence with at least one batch."""
    if isinstance(inner_batches, torch.Tensor | str | dict) or not isinstance(inner_batches, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"inner_batches is a {type(inner_batches).__name__}; it must be a list or tuple of batches, "
            "one per inner step: write [batch] for a single one"
        )
    if not inner_batches:
        raise ValueError("inner_batches is empty; give at least one batch")
