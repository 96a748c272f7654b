"""SAMA: first order, adapted to the inner optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _checks as checks
from .. import _tree as tree
from .._products import gradients, used_gradient
from .._randomness import Replayed
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_optimizer
from ..problem import Bilevel
from ..result import Result
from .finite_difference import central_difference
from .method import InnerStep, starting_state


@dataclass(frozen=True)
class SAMA:
    """Implicit differentiation with the identity for the inverse Hessian, preconditioned by the inner optimizer.

    After K inner steps:  dF/dφ ≈ ∂F/∂φ + ∂/∂φ <∇L_K(θ_K, φ), u>,  u = (∂T/∂g)ᵀ ∇F(θ_K),
    the product by a central difference at θ_K, where L_K and T are those of the last step.

    Not exact for any K: it leaves out the curvature, so its length means little; its direction is good where the
    Hessian is near a multiple of the optimizer's preconditioner. Differs from the paper in that ∂T/∂g is the exact
    derivative of the last step, clipping included, where the paper writes out an approximation for Adam.

    Args:
        optimizer: a functional optimizer.
        epsilon: length of the perturbation; see `FiniteDifference`.
        clip_norm: clip each inner gradient to this global norm.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Choe et al., arXiv 2310.05674, equations 4 to 6.
    """

    optimizer: Optimizer
    epsilon: float = 0.01
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check_optimizer("SAMA", self.optimizer)
        checks.number("SAMA", "epsilon", self.epsilon, above=0.0)
        checks.clip_norm("SAMA", self.clip_norm)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: State | None,
    ) -> Result:
        """Take the steps, then one product at their end."""
        step = InnerStep(self.optimizer, self.clip_norm)
        state = starting_state("SAMA", self.optimizer, params, state)
        losses = [Replayed(problem.inner_at(batch)) for batch in inner_batches]
        for loss in losses[:-1]:
            params, state = step.forward(params, used_gradient(loss, params, hyper), state, hyper)
        grads = used_gradient(losses[-1], params, hyper)
        new_params, new_state = step.forward(params, grads, state, hyper)
        value, by_params, total = gradients(problem.outer_at(outer_batch), new_params, hyper)
        adjoint = step.adjoint(params, grads, state, hyper, (by_params, None))
        total = tree.add(total, adjoint.hyper)
        total = tree.add(total, central_difference(losses[-1], new_params, hyper, adjoint.grads, self.epsilon))
        return Result(total, value, new_params, new_state, stats={"passes": len(losses) + 3})
