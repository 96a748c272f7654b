"""Products of second derivatives with a vector.

With L(θ, φ) the inner loss and u a direction in θ:  H u = ∂²L/∂θ² u  and  M u = ∂/∂φ <∂L/∂θ, u>.

`product="jvp"` is forward over reverse: the cheapest, and M alone costs about one forward pass, because the reverse
pass then goes through φ only. It needs a forward-mode rule for every operation (fused attention has none: run it
under sdpa_kernel(SDPBackend.MATH)). `product="vjp"` is reverse over reverse: any operation that can be differentiated
twice, about twice the memory of a gradient.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from . import _checks as checks
from . import _tree as tree
from ._functional import grad, jvp
from ._types import Tensors

T = TypeVar("T")
Scalar = Callable[[Tensors, Tensors], Tensor]
PRODUCTS = ("jvp", "vjp")
_CUT = ": its hypergradient would be 0 (was something detached, or an argmax taken?)"


def check_product(owner: str, value: object) -> None:
    """Raise ValueError unless `value` names a product."""
    checks.choice(owner, "product", value, PRODUCTS)


def gradient(loss: Scalar, params: Tensors, hyper: Tensors) -> Tensors:
    """∂L/∂θ."""
    return grad(loss, 0)(params, hyper)


def used_gradient(loss: Scalar, params: Tensors, hyper: Tensors, *, may_use_none: bool = False) -> Tensors:
    """∂L/∂θ, without the parameters that L does not use: there torch's `.grad` is None, which is not a zero.

    Raises ValueError for a loss that uses none of them, which has no minimiser to speak of; not with `may_use_none`.
    """

    def of_used(params: Tensors) -> tuple[Tensor, Tensors]:
        value = loss(params, hyper)
        found: tuple[Tensor | None, ...] = (None,) * len(params)
        if not may_use_none:
            _refuse_cut(value)
        if value.requires_grad:
            found = torch.autograd.grad(value, list(params.values()), create_graph=True, allow_unused=True)
        # The gradients leave as the auxiliary output; the 0 in place of the loss costs no second pass.
        return torch.zeros_like(value), {key: g for key, g in zip(params, found, strict=True) if g is not None}

    return tree.like(grad(of_used, 0, has_aux=True)(params)[1], params)


def gradients(loss: Scalar, params: Tensors, hyper: Tensors) -> tuple[Tensor, Tensors, Tensors]:
    """L, ∂L/∂θ and ∂L/∂φ by one pass. Raises ValueError for an outer loss that depends on neither."""

    def with_value(params: Tensors, hyper: Tensors) -> tuple[Tensor, Tensor]:
        value = loss(params, hyper)
        if not value.requires_grad:
            raise ValueError(f"the outer loss depends on neither params nor hyper{_CUT}")
        return value, value

    (by_params, by_hyper), value = grad(with_value, (0, 1), has_aux=True)(params, hyper)
    return value, by_params, by_hyper


def hyper_gradient(loss: Scalar, params: Tensors, hyper: Tensors) -> Tensors:
    """∂L/∂φ alone."""
    return grad(loss, 1)(params, hyper)


def hessian(loss: Scalar, params: Tensors, hyper: Tensors, direction: Tensors, product: str) -> Tensors:
    """H u. Raises ValueError for an inner loss that depends on none of params."""
    if product == "jvp":
        _, out = jvp(_with(hyper, _inner(loss), gradient), (params,), (direction,))
    else:
        out = grad(_inner_product(loss, direction), 0)(params, hyper)
    return tree.like(out, params)


def mixed(loss: Scalar, params: Tensors, hyper: Tensors, direction: Tensors, product: str) -> Tensors:
    """M u."""
    if product == "jvp":
        _, out = jvp(_with(hyper, loss, hyper_gradient), (params,), (direction,))
    else:
        out = grad(_inner_product(loss, direction), 1)(params, hyper)
    return tree.like(out, hyper)


def hessian_and_mixed(
    loss: Scalar, params: Tensors, hyper: Tensors, direction: Tensors, product: str
) -> tuple[Tensors, Tensors]:
    """H u and M u by one pass."""
    if product == "jvp":
        _, (by_params, by_hyper) = jvp(_with(hyper, _inner(loss), _both), (params,), (direction,))
    else:
        by_params, by_hyper = grad(_inner_product(loss, direction), (0, 1))(params, hyper)
    return tree.like(by_params, params), tree.like(by_hyper, hyper)


def _both(loss: Scalar, params: Tensors, hyper: Tensors) -> tuple[Tensors, Tensors]:
    return grad(loss, (0, 1))(params, hyper)


def _with(hyper: Tensors, loss: Scalar, function: Callable[[Scalar, Tensors, Tensors], T]) -> Callable[[Tensors], T]:
    def of_params(params: Tensors) -> T:
        return function(loss, params, hyper)

    return of_params


def _inner_product(loss: Scalar, direction: Tensors) -> Scalar:
    return lambda params, hyper: tree.dot(gradient(_inner(loss), params, hyper), direction)


def _inner(loss: Scalar) -> Scalar:
    """The inner loss, checked to depend on what it is differentiated by."""

    def checked(params: Tensors, hyper: Tensors) -> Tensor:
        value = loss(params, hyper)
        _refuse_cut(value)
        return value

    return checked


def _refuse_cut(value: Tensor) -> None:
    if not value.requires_grad:
        raise ValueError(f"the inner loss depends on none of params{_CUT}")
