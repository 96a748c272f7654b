"""What a method is, and the one inner step that several of them share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from .. import _tree as tree
from .._clip import clip_by_global_norm
from .._functional import vjp
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State
from ..problem import Bilevel
from ..result import Result


@runtime_checkable
class Method(Protocol):
    """A way to a hypergradient. Methods are frozen dataclasses, their fields the settings, checked when built."""

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: Any,
    ) -> Result:
        """The result for arguments that `hypergradient` has checked."""
        ...


@dataclass(frozen=True)
class StepAdjoint:
    """What a cotangent of a step's outputs means for its inputs."""

    params: Tensors
    """(∂T/∂θ)ᵀ λ."""
    grads: Tensors
    """u = (∂T/∂g)ᵀ λ, clipping included; for plain SGD -lr λ; 0 for a parameter that the loss does not use."""
    moments: dict[str, Tensors]
    """(∂T/∂m)ᵀ λ, the adjoints of the optimizer's moments."""
    hyper: Tensors
    """(∂T/∂φ)ᵀ λ, where the optimizer's settings come from hyper."""


@dataclass(frozen=True)
class InnerStep:
    """The map T(θ, g, s, φ) -> (θ', s') of one inner step, clipping first.

    g leaves out the parameters that the loss does not use: the optimizer passes them by, as torch.optim does.
    """

    optimizer: Optimizer
    clip_norm: float | None

    def forward(self, params: Tensors, grads: Tensors, state: State, hyper: Tensors) -> tuple[Tensors, State]:
        """The step itself."""
        clipped = clip_by_global_norm(grads, self.clip_norm)
        try:
            return self.optimizer.update(params, clipped, state, hyper)
        except KeyError as error:
            unused = ", ".join(sorted(set(params) - set(grads)))
            if not unused:
                raise
            raise ValueError(
                f"the inner loss does not use {unused}, and {type(self.optimizer).__name__}.update cannot leave out a "
                "parameter without a gradient; let it return such parameters as they are, or take them out of params"
            ) from error

    def adjoint(
        self,
        params: Tensors,
        grads: Tensors,
        state: State,
        hyper: Tensors,
        cotangent: tuple[Tensors, dict[str, Tensors] | None],
    ) -> StepAdjoint:
        """The step's transposed Jacobian on a cotangent of (θ', moments'); None stands for moments' of zeros."""
        by_params, by_moments = cotangent

        def moments_too(
            params: Tensors, grads: Tensors, moments: dict[str, Tensors], hyper: Tensors
        ) -> tuple[Tensors, dict[str, Tensors]]:
            new_params, new_state = self.forward(params, grads, replace(state, moments=moments), hyper)
            return new_params, new_state.moments

        def params_only(params: Tensors, grads: Tensors, moments: dict[str, Tensors], hyper: Tensors) -> Tensors:
            return moments_too(params, grads, moments, hyper)[0]

        if by_moments is None:
            found = vjp(params_only, params, grads, state.moments, hyper)(by_params)
        else:
            found = vjp(moments_too, params, grads, state.moments, hyper)((by_params, by_moments))
        by_start, by_grads, by_old, by_hyper = found
        return StepAdjoint(by_start, tree.filled(by_grads, params), by_old, by_hyper)


def one_batch(owner: str, inner_batches: Sequence[Any]) -> Any:
    """The only inner batch.

    Raises:
        ValueError: there are several.
    """
    if len(inner_batches) != 1:
        raise ValueError(
            f"{owner} looks one inner step ahead, but inner_batches holds {len(inner_batches)}: "
            "give one batch, or use Unrolled for several steps"
        )
    return inner_batches[0]


def starting_state(owner: str, optimizer: Optimizer, params: Tensors, state: object) -> State:
    """The optimizer's state to start from: the one given, or a fresh one.

    Raises:
        ValueError: a state of another kind, of another optimizer or of other parameters.
    """
    fresh = optimizer.init(params)
    if state is None:
        return fresh
    if not isinstance(state, State):
        raise ValueError(
            f"{owner}: state is a {type(state).__name__}; allowed is None or the state of an earlier result, "
            "a bilevel.State(step, moments)"
        )
    for name, moment in fresh.moments.items():
        missing = sorted(set(moment) - set(state.moments.get(name, {})))
        if missing:
            raise ValueError(
                f"{owner}: state has no {name} of {', '.join(missing)}; pass the state of the same optimizer "
                "over the same params, or None to start afresh"
            )
    return state
