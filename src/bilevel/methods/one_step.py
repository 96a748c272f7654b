"""One inner step ahead, differentiated exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import _checks as checks
from .. import _tree as tree
from .._products import check_product, gradients, hessian_and_mixed, mixed, used_gradient
from .._randomness import Replayed
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_optimizer
from ..problem import Bilevel
from ..result import Result
from .method import InnerStep, one_batch, starting_state


@dataclass(frozen=True)
class OneStep:
    """Derivative of the outer loss after one inner step, exact.

    θ' = T(θ, clip(g), s, φ),  g = ∇L(θ, φ);   dF/dφ = ∂F/∂φ + (∂T/∂φ)ᵀ v + ∂/∂φ <∇L(θ, φ), u>,
    v = ∇F(θ'),  u = (∂clip/∂g)ᵀ (∂T/∂g)ᵀ v.

    Cost: two gradients, the adjoint of an elementwise update, and one product: with "jvp" about one forward pass in
    forward mode, because its reverse pass goes through φ only.

    Args:
        optimizer: a functional optimizer.
        product: "jvp" or "vjp", see `bilevel._products`.
        clip_norm: clip the inner gradient to this global norm, as torch.nn.utils.clip_grad_norm_.

    Raises:
        ValueError: a setting out of range, when built; several inner batches (use `Unrolled`).
    """

    optimizer: Optimizer
    product: str = "jvp"
    clip_norm: float | None = None

    differentiates_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_optimizer("OneStep", self.optimizer)
        check_product("OneStep", self.product)
        checks.clip_norm("OneStep", self.clip_norm)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: State | None,
    ) -> Result:
        """Take the step, pull the outer gradient back through it."""
        step = InnerStep(self.optimizer, self.clip_norm)
        state = starting_state("OneStep", self.optimizer, params, state)
        loss = Replayed(problem.inner_at(one_batch("OneStep", inner_batches)))
        grads = used_gradient(loss, params, hyper)
        new_params, new_state = step.forward(params, grads, state, hyper)
        value, by_params, total = gradients(problem.outer_at(outer_batch), new_params, hyper)
        adjoint = step.adjoint(params, grads, state, hyper, (by_params, None))
        total = tree.add(total, adjoint.hyper)
        if problem.start is None:
            total = tree.add(total, mixed(loss, params, hyper, adjoint.grads, self.product))
        else:
            hessian, cross = hessian_and_mixed(loss, params, hyper, adjoint.grads, self.product)
            total = tree.add(total, cross)
            total = tree.add(total, problem.start_vjp(hyper, tree.add(adjoint.params, hessian)))
        return Result(total, value, new_params, new_state, stats={"passes": 3})
