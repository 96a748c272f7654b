"""Reverse mode through K inner steps, written by hand: K copies, never K graphs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._products import check_product, gradients, hessian_and_mixed, mixed, used_gradient
from .._randomness import Replayed
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_optimizer
from ..problem import Bilevel
from ..result import Result
from .method import InnerStep, starting_state


@dataclass(frozen=True)
class _Taken:
    """One inner step, as far as its adjoint needs it."""

    params: Tensors
    state: State
    grads: Tensors
    loss: Replayed[[Tensors, Tensors], Tensor]


@dataclass(frozen=True)
class Unrolled:
    """Derivative of the outer loss after K inner steps, exact, in reverse.

    λ_K = ∇F(θ_K). For k = K-1 … 0, with T the optimizer's update and clipping of the gradient g_k:
    u_k = (∂T/∂g)ᵀ λ_{k+1};  dF/dφ += ∂/∂φ <∇L_k(θ_k, φ), u_k> + (∂T/∂φ)ᵀ λ_{k+1};  λ_k = (∂T/∂θ)ᵀ λ_{k+1} + H_k u_k;
    and the adjoints of the optimizer's moments by the same map.

    Cost: K gradients forward, K products of second derivatives back. Memory: parameters, moments and gradient of each
    differentiated step, and the graph of one.

    Args:
        optimizer: a functional optimizer.
        truncate: differentiate only through the last so many steps; None: all.
        clip_norm: clip each inner gradient to this global norm, as torch.nn.utils.clip_grad_norm_.
        product: "jvp" or "vjp", see `bilevel._products`.
        checkpoint_every: keep only every n-th step and take the steps between again on the way back: about K/n + n
            copies (n near sqrt(K) is best) for one more gradient per step. The result is the same, bit for bit.
        first_order: leave out every second derivative: λ_k = (∂T/∂θ)ᵀ λ_{k+1}, and of φ's part what the optimizer's
            settings, the start and F itself hold. With `Bilevel(start=…)` and SGD that is FOMAML. Not exact.

    Raises:
        ValueError: a setting out of range, when built; `truncate` together with a start, whose derivative it cuts off.

    Source: Maclaurin et al., arXiv 1502.03492, and Franceschi et al., arXiv 1703.01785, with the adjoint of any
    optimizer; truncation: Shaban et al., arXiv 1810.10667; first order: Finn et al., arXiv 1703.03400, section 5.2.
    """

    optimizer: Optimizer
    truncate: int | None = None
    clip_norm: float | None = None
    product: str = "jvp"
    checkpoint_every: int | None = None
    first_order: bool = False

    differentiates_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_optimizer("Unrolled", self.optimizer)
        checks.count("Unrolled", "truncate", self.truncate, optional=True)
        checks.clip_norm("Unrolled", self.clip_norm)
        check_product("Unrolled", self.product)
        checks.count("Unrolled", "checkpoint_every", self.checkpoint_every, optional=True)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: State | None,
    ) -> Result:
        """Take the steps, then go back over them."""
        step = InnerStep(self.optimizer, self.clip_norm)
        state = starting_state("Unrolled", self.optimizer, params, state)
        losses = [Replayed(problem.inner_at(batch)) for batch in inner_batches]
        num_skipped = len(losses) - min(self.truncate or len(losses), len(losses))
        if num_skipped and problem.start is not None:
            raise ValueError(
                f"Unrolled(truncate={self.truncate}) cuts off the derivative by the start of {len(losses)} steps, "
                "which Bilevel(start=…) asks for; set truncate=None, or first_order=True"
            )
        for loss in losses[:num_skipped]:
            params, state = step.forward(params, used_gradient(loss, params, hyper), state, hyper)
        segments, params, state = _forward(step, losses[num_skipped:], params, state, hyper, self.checkpoint_every)
        value, by_params, total = gradients(problem.outer_at(outer_batch), params, hyper)
        by_moments: dict[str, Tensors] | None = None
        passes = len(losses) + 1
        while segments:
            steps, extra = segments.pop()(hyper)
            passes += extra + (0 if self.first_order else len(steps))
            while steps:
                taken = steps.pop()
                last = problem.start is None and not steps and not segments  # nothing asks for λ_0
                adjoint = step.adjoint(taken.params, taken.grads, taken.state, hyper, (by_params, by_moments))
                total = tree.add(total, adjoint.hyper)
                if self.first_order:
                    by_params, by_moments = adjoint.params, adjoint.moments
                    continue
                if last:
                    total = tree.add(total, mixed(taken.loss, taken.params, hyper, adjoint.grads, self.product))
                    break
                hessian, cross = hessian_and_mixed(taken.loss, taken.params, hyper, adjoint.grads, self.product)
                total = tree.add(total, cross)
                by_params, by_moments = tree.add(adjoint.params, hessian), adjoint.moments
        if problem.start is not None:
            total = tree.add(total, problem.start_vjp(hyper, by_params))
        return Result(total, value, params, state, stats={"passes": passes})


_Segment = Callable[[Tensors], tuple[list[_Taken], int]]


def _forward(
    step: InnerStep,
    losses: list[Replayed[[Tensors, Tensors], Tensor]],
    params: Tensors,
    state: State,
    hyper: Tensors,
    checkpoint_every: int | None,
) -> tuple[list[_Segment], Tensors, State]:
    """Take all steps. Each segment yields its steps when asked: kept ones, or taken again from its first."""
    if checkpoint_every is None:
        steps, params, state = _take(step, losses, params, state, hyper)
        return [lambda _: (steps, 0)], params, state
    segments: list[_Segment] = []
    for start in range(0, len(losses), checkpoint_every):
        part = losses[start : start + checkpoint_every]
        segments.append(_again(step, part, params, state))
        for loss in part:
            params, state = step.forward(params, used_gradient(loss, params, hyper), state, hyper)
    return segments, params, state


def _again(
    step: InnerStep, losses: list[Replayed[[Tensors, Tensors], Tensor]], params: Tensors, state: State
) -> _Segment:
    return lambda hyper: (_take(step, losses, params, state, hyper)[0], len(losses))


def _take(
    step: InnerStep,
    losses: list[Replayed[[Tensors, Tensors], Tensor]],
    params: Tensors,
    state: State,
    hyper: Tensors,
) -> tuple[list[_Taken], Tensors, State]:
    steps: list[_Taken] = []
    for loss in losses:
        grads = used_gradient(loss, params, hyper)
        steps.append(_Taken(params, state, grads, loss))
        params, state = step.forward(params, grads, state, hyper)
    return steps, params, state
