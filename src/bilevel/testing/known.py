"""A bilevel problem whose hypergradient is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._types import Tensors
from ..optimizers import SGD
from ..problem import Bilevel


@dataclass(frozen=True)
class KnownProblem:
    """A problem, a point, and the exact answers there.

    A method is checked against the answer that it computes: `unrolled_grad` after K steps, or `implicit_grad` at the
    minimiser. A problem has one or both; None says that the question makes no sense for it, or has no closed form.
    """

    name: str
    problem: Bilevel
    params: Tensors
    """Where inner steps start: not the minimiser."""
    hyper: Tensors
    inner_batch: Any
    outer_batch: Any
    optimizer: SGD
    """Plain gradient descent with a stable learning rate; what `unrolled_grad` stands for."""
    unrolled_grad: Callable[[int], Tensors] | None = None
    """K -> dF/dφ after K steps of `optimizer` from `params`."""
    solution: Callable[[Tensors], Tensors] | None = None
    """φ -> the minimiser of the inner loss."""
    implicit_grad: Callable[[Tensors], Tensors] | None = None
    """φ -> dF/dφ along the minimiser."""
    curvature: tuple[float, float] | None = None
    """Smallest and largest eigenvalue of the inner Hessian at the minimiser."""
