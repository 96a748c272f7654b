"""The known answers are right, each checked in a way that shares nothing with how it was derived."""

from collections.abc import Callable

import pytest
import torch

from bilevel import testing
from bilevel.testing import PROBLEMS, KnownProblem

IMPLICIT = [build for build in PROBLEMS.values() if build().implicit_grad is not None]
UNROLLED = [build for build in PROBLEMS.values() if build().unrolled_grad is not None]


@pytest.mark.parametrize("build", IMPLICIT)
def test_the_solution_is_stationary_and_a_minimum(build: Callable[..., KnownProblem]) -> None:
    known = build()
    assert known.solution is not None
    assert known.curvature is not None
    params = known.solution(known.hyper)
    grads = torch.func.grad(known.problem.inner)(params, known.hyper, known.inner_batch)
    assert all(grad.abs().max() < 1e-12 for grad in grads.values())
    (name,) = params
    hessian = torch.func.hessian(lambda p: known.problem.inner({name: p}, known.hyper, known.inner_batch))(params[name])
    eigenvalues = torch.linalg.eigvalsh(hessian.reshape(params[name].numel(), -1))
    assert eigenvalues[0].item() == pytest.approx(known.curvature[0], rel=1e-10)
    assert eigenvalues[-1].item() == pytest.approx(known.curvature[1], rel=1e-10)


@pytest.mark.parametrize("build", IMPLICIT)
def test_the_implicit_answer_is_the_slope_along_the_solution(build: Callable[..., KnownProblem]) -> None:
    known, width = build(), 1e-5
    assert known.solution is not None
    assert known.implicit_grad is not None
    (name,) = known.hyper

    def outer(value: torch.Tensor) -> torch.Tensor:
        assert known.solution is not None
        return known.problem.outer(known.solution({name: value}), {name: value}, known.outer_batch)

    at, answer = known.hyper[name], known.implicit_grad(known.hyper)[name].reshape(-1)
    for i, direction in enumerate(torch.eye(at.numel(), dtype=torch.float64)):
        move = width * direction.reshape(at.shape)
        # A central difference: width² times third derivatives, and rounding / width.
        assert ((outer(at + move) - outer(at - move)) / (2 * width)).item() == pytest.approx(answer[i].item(), abs=1e-7)


@pytest.mark.parametrize("num_steps", [1, 7])
@pytest.mark.parametrize("build", UNROLLED)
def test_the_unrolled_answer_is_autograds(build: Callable[..., KnownProblem], num_steps: int) -> None:
    known = build()
    assert known.unrolled_grad is not None
    expected = testing.through_the_loop(
        known.problem,
        known.params,
        known.hyper,
        [known.inner_batch] * num_steps,
        known.outer_batch,
        optimizer=known.optimizer,
    )
    assert testing.relative_error(known.unrolled_grad(num_steps), expected) < 1e-12


def test_measures() -> None:
    here, there = {"a": torch.tensor([3.0]), "b": torch.tensor(4.0)}, {"a": torch.tensor([3.0]), "b": torch.tensor(0.0)}
    assert testing.relative_error(there, here) == pytest.approx(0.8)
    assert testing.cosine(there, here) == pytest.approx(0.6)
