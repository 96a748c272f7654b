"""One inner step ahead, its mixed derivative by a central difference (DARTS)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._products import gradients, hyper_gradient, used_gradient
from .._randomness import Replayed
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_optimizer
from ..problem import Bilevel
from ..result import Result
from .method import InnerStep, one_batch, starting_state


@dataclass(frozen=True)
class FiniteDifference:
    """`OneStep` with two more gradients in place of the second derivative.

    ∂/∂φ <∇L(θ, φ), u> ≈ ‖u‖ [∂L/∂φ (θ + ε d) - ∂L/∂φ (θ - ε d)] / (2ε),   d = u / ‖u‖.

    The error falls as ε², until rounding: choose ε near the cube root of the precision times the size of θ. In bf16
    there is no good choice, and the perturbed parameters must not be rounded: keep them in float32.

    Args:
        optimizer: a functional optimizer; its update and the clipping enter u exactly, so for SGD d is the direction
            of DARTS. Differs from DARTS there for every other optimizer, which DARTS treats as SGD.
        epsilon: ε, the length of the perturbation of all parameters together; 0.01 is DARTS's.
        clip_norm: clip the inner gradient to this global norm.

    Raises:
        ValueError: a setting out of range, when built; several inner batches.

    Source: Liu et al., arXiv 1806.09055, equation 8.
    """

    optimizer: Optimizer
    epsilon: float = 0.01
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check_optimizer("FiniteDifference", self.optimizer)
        checks.number("FiniteDifference", "epsilon", self.epsilon, above=0.0)
        checks.clip_norm("FiniteDifference", self.clip_norm)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: State | None,
    ) -> Result:
        """Take the step, then look left and right of where it began."""
        step = InnerStep(self.optimizer, self.clip_norm)
        state = starting_state("FiniteDifference", self.optimizer, params, state)
        loss = Replayed(problem.inner_at(one_batch("FiniteDifference", inner_batches)))
        grads = used_gradient(loss, params, hyper)
        new_params, new_state = step.forward(params, grads, state, hyper)
        value, by_params, total = gradients(problem.outer_at(outer_batch), new_params, hyper)
        adjoint = step.adjoint(params, grads, state, hyper, (by_params, None))
        total = tree.add(total, adjoint.hyper)
        total = tree.add(total, central_difference(loss, params, hyper, adjoint.grads, self.epsilon))
        return Result(total, value, new_params, new_state, stats={"passes": 4})


def central_difference(
    loss: Callable[[Tensors, Tensors], Tensor], params: Tensors, hyper: Tensors, direction: Tensors, epsilon: float
) -> Tensors:
    """∂/∂φ <∇L(θ, φ), u> for the direction u by two gradients, `epsilon` to either side along u / ‖u‖."""
    length = tree.norm(direction)
    unit = tree.scale(direction, epsilon / torch.where(length == 0, 1.0, length))
    right = hyper_gradient(loss, tree.add(params, unit), hyper)
    left = hyper_gradient(loss, tree.add(params, unit, -1.0), hyper)
    return tree.scale(tree.add(right, left, -1.0), length / (2 * epsilon))
