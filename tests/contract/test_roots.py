"""Implicit differentiation where the inner problem is no minimum: roots, fixed points, proximal and projected steps.

Each answer is known: by central differences of a solution that is found without the method, or in closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel.testing import relative_error

Tensors = dict[str, Tensor]
SOLVERS = {
    "direct": bilevel.Direct(),
    "gmres": bilevel.GMRES(tolerance=1e-12),
    "bicgstab": bilevel.BiCGSTAB(tolerance=1e-12),
    "normal_cg": bilevel.NormalCG(tolerance=1e-12),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    problem: bilevel.Root
    hyper: Tensors
    solution: Callable[[Tensors], Tensors]
    outer_batch: Any = None


def outer(params: Tensors, hyper: Tensors, batch: Any) -> Tensor:
    return (
        sum((tensor.sin() * (k + 1)).sum() for k, tensor in enumerate(params.values())) + (hyper["x"] ** 2).sum()
    )  # a direct term too


def linear_root() -> Case:
    """A z = B x with A not symmetric, over two tensors."""
    a, b = normal(5, 5) + 5 * torch.eye(5), normal(5, 3, seed=1)

    def function(params: Tensors, hyper: Tensors, batch: Any) -> Tensors:
        gap = a @ torch.cat([params["u"].reshape(-1), params["v"]]) - b @ hyper["x"]
        return {"v": gap[4:], "u": gap[:4].reshape(2, 2)}  # in another order than params

    def solution(hyper: Tensors) -> Tensors:
        z = torch.linalg.solve(a, b @ hyper["x"])
        return {"u": z[:4].reshape(2, 2), "v": z[4:]}

    return Case(bilevel.Root(function, outer), {"x": normal(3, seed=2)}, solution)


def nonlinear_fixed_point() -> Case:
    """z = tanh(W z + x), an equilibrium layer; W is a contraction."""
    w = normal(4, 4)
    w = 0.6 * w / torch.linalg.matrix_norm(w, 2)

    def function(params: Tensors, hyper: Tensors, batch: Any) -> Tensors:
        return {"z": torch.tanh(w @ params["z"] + hyper["x"])}

    def solution(hyper: Tensors) -> Tensors:
        params = {"z": torch.zeros(4, dtype=torch.float64)}
        for _ in range(200):
            params = function(params, hyper, None)
        return params

    return Case(bilevel.FixedPoint(function, outer), {"x": normal(4, seed=3)}, solution)


def design() -> tuple[Tensor, Tensor]:
    x = normal(20, 6, seed=4)
    return x, x @ torch.tensor([2.0, -1.5, 0, 0, 1.0, 0], dtype=torch.float64) + 0.1 * normal(20, seed=5)


def squares(params: Tensors, hyper: Tensors, batch: Any) -> Tensor:
    x, y = design()
    return ((x @ params["w"] - y) ** 2).mean() / 2


def proximal_case(proximal: Callable[[Tensors, Tensors, float], Tensors], hyper: Tensors) -> Case:
    function = bilevel.proximal_map(squares, proximal, 0.3)

    def solution(hyper: Tensors) -> Tensors:
        params = {"w": torch.zeros(6, dtype=torch.float64)}
        for _ in range(2000):
            params = function(params, hyper, None)
        return params

    return Case(bilevel.FixedPoint(function, outer), hyper, solution)


def lasso() -> Case:
    def soft(params: Tensors, hyper: Tensors, rate: float) -> Tensors:
        shrink = rate * hyper["x"].exp()
        return {"w": params["w"].sign() * (params["w"].abs() - shrink).clamp(min=0)}

    return proximal_case(soft, {"x": torch.tensor([-1.5], dtype=torch.float64)})


def box() -> Case:
    """Least squares inside a box whose walls are learned: two of the coordinates end on a wall."""

    def project(params: Tensors, hyper: Tensors, rate: float) -> Tensors:
        return {"w": torch.minimum(torch.maximum(params["w"], hyper["x"][0]), hyper["x"][1])}

    return proximal_case(project, {"x": torch.tensor([-0.7, 0.8], dtype=torch.float64)})


CASES = {"linear": linear_root, "equilibrium": nonlinear_fixed_point, "lasso": lasso, "box": box}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_equals_central_differences_of_the_solution(build: Callable[[], Case], solver: bilevel.Solver) -> None:
    case, width = build(), 1e-5
    result = bilevel.hypergradient(
        case.problem, case.solution(case.hyper), case.hyper, [None], None, method=bilevel.Implicit(solver)
    )
    assert result.status.ok
    x = case.hyper["x"]

    def value(at: Tensor) -> float:
        return float(outer(case.solution({"x": at}), {"x": at}, None))

    moves = [width * move.reshape(x.shape) for move in torch.eye(x.numel(), dtype=torch.float64)]
    slopes = torch.tensor([(value(x + m) - value(x - m)) / (2 * width) for m in moves], dtype=torch.float64)
    # A central difference: width² times third derivatives, and rounding / width.
    assert relative_error(result.grad, {"x": slopes.reshape(x.shape)}) < 1e-7
    if build is box:
        w = case.solution(case.hyper)["w"]
        assert int(((w == x[0]) | (w == x[1])).sum()) == 2
    if build is lasso:
        assert int((case.solution(case.hyper)["w"] == 0).sum()) == 3


def test_a_minimum_written_as_a_root_is_the_same() -> None:
    """Ridge regression in its penalty: the implicit answer in closed form, in both ways of saying it."""
    known = bilevel.testing.ridge()
    assert known.solution is not None
    assert known.implicit_grad is not None
    root = bilevel.Root(torch.func.grad(known.problem.inner), known.problem.outer)
    step = bilevel.FixedPoint(
        bilevel.proximal_map(known.problem.inner, lambda params, hyper, rate: params, 0.1), known.problem.outer
    )
    for problem in (root, step):
        for solver in SOLVERS.values():
            result = bilevel.hypergradient(
                problem,
                known.solution(known.hyper),
                known.hyper,
                [known.inner_batch] * 2,
                known.outer_batch,
                method=bilevel.Implicit(solver),
            )
            assert relative_error(result.grad, known.implicit_grad(known.hyper)) < 1e-8
            assert result.stats["passes"] > 3


def test_neumann_on_a_contraction_is_the_series_of_its_jacobian() -> None:
    case = nonlinear_fixed_point()
    arguments = (case.problem, case.solution(case.hyper), case.hyper, [None], None)
    method = bilevel.Implicit(bilevel.Neumann(terms=200, scale=1.0, tolerance=1e-12))
    exact = bilevel.hypergradient(*arguments, method=bilevel.Implicit(bilevel.Direct()))
    assert relative_error(bilevel.hypergradient(*arguments, method=method).grad, exact.grad) < 1e-9


def test_what_does_not_fit_is_refused() -> None:
    case = nonlinear_fixed_point()
    arguments = (case.problem, case.solution(case.hyper), case.hyper, [None], None)
    for solver in (bilevel.CG(), bilevel.Nystrom()):
        with pytest.raises(ValueError, match=r"FixedPoint is not; use bilevel.GMRES"):
            bilevel.hypergradient(*arguments, method=bilevel.Implicit(solver))
    with pytest.raises(ValueError, match="takes steps on an inner loss"):
        bilevel.hypergradient(*arguments, method=bilevel.Unrolled(bilevel.SGD(lr=0.1)))
    wrong = bilevel.Root(lambda params, hyper, batch: {"z": params["z"][:2]}, outer)
    with pytest.raises(ValueError, match="one value per parameter"):
        bilevel.hypergradient(wrong, *arguments[1:], method=bilevel.Implicit(bilevel.GMRES()))
    with pytest.raises(ValueError, match=r"Root\(function="):
        bilevel.Root(None, outer)
