"""Reptile: the way that the inner steps went."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import _checks as checks
from .. import _tree as tree
from .._products import gradients, used_gradient
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_optimizer
from ..problem import Bilevel
from ..result import Result
from .method import InnerStep, starting_state


@dataclass(frozen=True)
class Reptile:
    """A direction for learned initial parameters, from K inner steps alone: `grad` = (∂θ_0/∂φ)ᵀ (θ_0 - θ_K).

    Not a derivative of the outer loss, which is evaluated to be reported only; descending along the mean over tasks
    leads to a point near all of their minimisers. Costs K gradients and no more memory than training.

    Args:
        optimizer: a functional optimizer.
        clip_norm: clip each inner gradient to this global norm.

    Raises:
        ValueError: a setting out of range, when built; a problem without a start.

    Source: Nichol et al., arXiv 1803.02999, algorithm 2.
    """

    optimizer: Optimizer
    clip_norm: float | None = None

    differentiates_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_optimizer("Reptile", self.optimizer)
        checks.clip_norm("Reptile", self.clip_norm)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: State | None,
    ) -> Result:
        """Take the steps and look back."""
        if problem.start is None:
            raise ValueError("Reptile moves the initial parameters: say which they are by Bilevel(start=…)")
        step = InnerStep(self.optimizer, self.clip_norm)
        state = starting_state("Reptile", self.optimizer, params, state)
        at = params
        for batch in inner_batches:
            at, state = step.forward(at, used_gradient(problem.inner_at(batch), at, hyper), state, hyper)
        grad = problem.start_vjp(hyper, tree.add(params, at, -1.0))
        value, _, _ = gradients(problem.outer_at(outer_batch), at, hyper)
        return Result(grad, value, at, state, stats={"passes": len(inner_batches) + 1})
