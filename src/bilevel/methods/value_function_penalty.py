"""First-order methods on the value function: BOME and F2SA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _checks as checks
from .. import _tree as tree
from .._products import gradient, gradients, hyper_gradient, used_gradient
from .._randomness import Replayed
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_fixed, check_optimizer
from ..problem import Bilevel
from ..result import Result
from .implicit import mean

_Inner = Callable[[Tensors, Tensors], Tensor]


@dataclass(frozen=True)
class PenaltyState:
    """What a penalty method carries from call to call."""

    optimizer: State
    """Of the parameters that the caller sees."""
    other: Tensors
    """F2SA: the second copy z of the parameters. BOME: the direction in which the next call moves them."""
    other_optimizer: State | None = None
    """Of z."""


@dataclass(frozen=True)
class ValueFunctionPenalty:
    """No second derivatives: the inner problem becomes the constraint  q(θ, φ) = L(θ, φ) - min_z L(z, φ) <= 0.

    variant="f2sa": per inner batch  z ← T(z, ∇L(z)),  θ ← T(θ, ∇(L + F/λ)(θ)); then
    dF/dφ ≈ ∂F/∂φ(θ) + λ (∂L/∂φ(θ) - ∂L/∂φ(z)).  With φ held it converges to the implicit hypergradient up to O(1/λ).

    variant="bome": z is K steps on L from θ; q's gradient takes z as constant; joint over (θ, φ)
    λ = max(0, η - <∇F, ∇q> / ‖∇q‖²) and both move along ∇F + λ ∇q. `grad` is φ's part of that; the next call moves
    θ by θ's part, so that both move at once, as in the paper: pass `result.params` and `result.state` on, always.
    A direction for a joint descent, not an estimate of dF/dφ in one call.

    Args:
        optimizer: a functional optimizer for θ and z.
        variant: "f2sa" or "bome".
        multiplier: λ of F2SA. Differs from the paper in that it is the caller who raises it over the run.
        barrier: η of BOME.

    Raises:
        ValueError: a setting out of range, when built; an optimizer whose settings come from hyper.

    Source: F2SA: Kwon et al., arXiv 2301.10945, algorithm 1. BOME: Liu et al., arXiv 2209.08709, algorithm 1.
    """

    optimizer: Optimizer
    variant: str = "f2sa"
    multiplier: float = 100.0
    barrier: float = 0.5

    def __post_init__(self) -> None:
        check_optimizer("ValueFunctionPenalty", self.optimizer)
        check_fixed("ValueFunctionPenalty", self.optimizer)
        checks.choice("ValueFunctionPenalty", "variant", self.variant, ("f2sa", "bome"))
        checks.number("ValueFunctionPenalty", "multiplier", self.multiplier, above=0.0)
        checks.number("ValueFunctionPenalty", "barrier", self.barrier, above=0.0)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: PenaltyState | None,
    ) -> Result:
        """One call of the variant."""
        if state is not None and not isinstance(state, PenaltyState):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"ValueFunctionPenalty: state is a {type(state).__name__}; allowed is None or the last result's state"
            )
        losses: list[_Inner] = [Replayed(problem.inner_at(batch)) for batch in inner_batches]
        outer: _Inner = Replayed(problem.outer_at(outer_batch))
        run = self._f2sa if self.variant == "f2sa" else self._bome
        return run(losses, outer, params, hyper, state)

    def _f2sa(
        self, losses: list[_Inner], outer: _Inner, params: Tensors, hyper: Tensors, state: PenaltyState | None
    ) -> Result:
        own = self.optimizer.init(params) if state is None else state.optimizer
        z = params if state is None else state.other
        z_state = self.optimizer.init(params) if state is None else state.other_optimizer
        assert z_state is not None
        for loss in losses:
            z, z_state = self.optimizer.update(z, used_gradient(loss, z, hyper), z_state, hyper)
            both = _sum(
                used_gradient(loss, params, hyper),
                used_gradient(outer, params, hyper, may_use_none=True),
                1 / self.multiplier,
            )
            params, own = self.optimizer.update(params, both, own, hyper)
        value, _, total = gradients(outer, params, hyper)
        total = tree.add(total, _difference(losses, params, z, hyper), self.multiplier)
        return Result(total, value, params, PenaltyState(own, z, z_state), stats={"passes": 5 * len(losses) + 1})

    def _bome(
        self, losses: list[_Inner], outer: _Inner, params: Tensors, hyper: Tensors, state: PenaltyState | None
    ) -> Result:
        own = self.optimizer.init(params) if state is None else state.optimizer
        if state is not None:
            params, own = self.optimizer.update(params, state.other, own, hyper)
        z, z_state = params, self.optimizer.init(params)
        for loss in losses:
            z, z_state = self.optimizer.update(z, used_gradient(loss, z, hyper), z_state, hyper)
        value, by_params, by_hyper = gradients(outer, params, hyper)
        q_params = mean([gradient(loss, params, hyper) for loss in losses])
        q_hyper = _difference(losses, params, z, hyper)
        square = tree.dot(q_params, q_params) + tree.dot(q_hyper, q_hyper)
        along = tree.dot(by_params, q_params) + tree.dot(by_hyper, q_hyper)
        ratio = torch.where(square == 0, self.barrier, along / torch.where(square == 0, 1.0, square))
        multiplier = (self.barrier - ratio).clamp(min=0.0)
        move = tree.add(by_params, q_params, multiplier)
        total = tree.add(by_hyper, q_hyper, multiplier)
        stats = {"passes": 4 * len(losses) + 1, "multiplier": multiplier}
        return Result(total, value, params, PenaltyState(own, move), stats=stats)


def _sum(left: Tensors, right: Tensors, scale: float) -> Tensors:
    """left + scale right, over the names of either."""
    parts = {name: scale * tensor for name, tensor in right.items()}
    return {**parts, **{name: tensor + parts[name] if name in parts else tensor for name, tensor in left.items()}}


def _difference(losses: list[_Inner], params: Tensors, z: Tensors, hyper: Tensors) -> Tensors:
    """∂L/∂φ(θ) - ∂L/∂φ(z), averaged over the batches."""
    here = mean([hyper_gradient(loss, params, hyper) for loss in losses])
    return tree.add(here, mean([hyper_gradient(loss, z, hyper) for loss in losses]), -1.0)
