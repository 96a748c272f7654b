"""Forward mode over the inner steps, for few hyperparameters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from .. import _checks as checks
from .. import _tree as tree
from .._functional import jvp, split, vmap
from .._products import gradients, used_gradient
from .._randomness import restore, states
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_optimizer
from ..problem import Bilevel
from ..result import Result
from .method import InnerStep, starting_state

_Moments = dict[str, Tensors]
_Tangents = tuple[Tensors, _Moments, Tensors]


@dataclass(frozen=True)
class ForwardMode:
    """Derivative of the outer loss after K inner steps, exact, carried along with them.

    For each of the P scalar hyperparameters:  (θ, s)' = J_k (θ, s, φ)'  from step to step;
    then  dF/dφ_i = ∂F/∂φ_i + <∇F(θ_K), θ'_i>.

    Cost: each step P products of second derivatives. Memory: P copies of parameters and moments, for any number of
    steps. Choose it for a learning rate or a few weight decays over very many steps; with more hyperparameters
    `Unrolled` is cheaper.

    Args:
        optimizer: a functional optimizer.
        clip_norm: clip each inner gradient to this global norm.
        chunk_size: hyperparameters carried at once by vmap; None: all of them.

    Raises:
        ValueError: a setting out of range, when built.

    Source: Franceschi et al., arXiv 1703.01785, algorithm 2.
    """

    optimizer: Optimizer
    clip_norm: float | None = None
    chunk_size: int | None = None

    differentiates_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_optimizer("ForwardMode", self.optimizer)
        checks.clip_norm("ForwardMode", self.clip_norm)
        checks.count("ForwardMode", "chunk_size", self.chunk_size, optional=True)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: State | None,
    ) -> Result:
        """Take the steps with their tangents."""
        step = InnerStep(self.optimizer, self.clip_norm)
        state = starting_state("ForwardMode", self.optimizer, params, state)
        chunks = [_start(problem, params, hyper, state, basis) for basis in _basis(hyper, self.chunk_size)]
        for batch in inner_batches:
            params, state, chunks = _step(problem, step, params, state, hyper, chunks, batch)
        value, by_params, by_hyper = gradients(problem.outer_at(outer_batch), params, hyper)
        along = torch.cat([vmap(tree.dot, in_dims=(None, 0))(by_params, tangents) for tangents, _, _ in chunks])  # (P,)
        total = tree.add(by_hyper, tree.unflattener(hyper)(along))
        passes = len(inner_batches) * (1 + sum(t.numel() for t in hyper.values())) + 1
        return Result(total, value, params, state, stats={"passes": passes})


def _basis(hyper: Tensors, chunk_size: int | None) -> list[Tensors]:
    """The unit vectors of hyper, stacked: tensors of shape (chunk, *shape)."""
    vector = tree.flatten(hyper)
    eye = torch.eye(vector.numel(), dtype=vector.dtype, device=vector.device)
    return [vmap(tree.unflattener(hyper))(rows) for rows in split(eye, chunk_size or vector.numel())]


def _start(problem: Bilevel, params: Tensors, hyper: Tensors, state: State, basis: Tensors) -> _Tangents:
    num = next(iter(basis.values())).shape[0]

    def zeros(tensors: Tensors) -> Tensors:
        return {name: tensor.new_zeros((num, *tensor.shape)) for name, tensor in tensors.items()}

    tangents = zeros(params)
    start = problem.start
    if start is not None:

        def along(direction: Tensors) -> Tensors:
            return jvp(start, (hyper,), (direction,))[1]

        tangents = tree.like(vmap(along)(basis), params)
    return tangents, {name: zeros(moment) for name, moment in state.moments.items()}, basis


def _step(
    problem: Bilevel,
    step: InnerStep,
    params: Tensors,
    state: State,
    hyper: Tensors,
    chunks: list[_Tangents],
    batch: Any,
) -> tuple[Tensors, State, list[_Tangents]]:
    loss, skipped = problem.inner_at(batch), state.skipped

    def forward(params: Tensors, moments: _Moments, hyper: Tensors) -> tuple[Tensors, _Moments]:
        nonlocal skipped
        new, after = step.forward(params, used_gradient(loss, params, hyper), replace(state, moments=moments), hyper)
        skipped = after.skipped
        return new, after.moments

    def push(tangents: _Tangents) -> tuple[tuple[Tensors, _Moments], tuple[Tensors, _Moments]]:
        return jvp(forward, (params, state.moments, hyper), tangents)

    # The point itself comes out of the same pass as its tangents, so that dropout is one mask for all of them; vmap
    # gives it as an expanded view of one copy. (out_dims=None would say so, but fails under an outer vmap.)
    after: tuple[Tensors, _Moments] | None = None
    moved: list[_Tangents] = []
    random = states()
    for tangents in chunks:
        restore(random)
        after, (by_params, by_moments) = vmap(push)(tangents)
        by_params = tree.like(by_params, params)
        by_moments = {name: tree.like(moment, params) for name, moment in by_moments.items()}
        moved.append((by_params, by_moments, tangents[2]))
    assert after is not None
    first = {name: tensor[0] for name, tensor in after[0].items()}
    moments = {name: {key: tensor[0] for key, tensor in moment.items()} for name, moment in after[1].items()}
    return first, State(state.step + 1, moments, skipped), moved
