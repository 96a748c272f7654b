"""The systems of lineax's and jaxopt's own suites, by their published numbers; the answers from numpy.

lineax: tests/test_solve.py, test_singular.py and helpers.py. jaxopt: tests/linear_solve_test.py and
implicit_diff_test.py, whose matrices are those of numpy's RandomState(0).
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import make_regression
from torch import Tensor

import bilevel
from bilevel import Status

Tensors = dict[str, Tensor]
GENERAL = {
    "gmres": bilevel.GMRES(max_iterations=300, restart=None, tolerance=1e-12),
    "bicgstab": bilevel.BiCGSTAB(max_iterations=300, tolerance=1e-12),
    "normal_cg": bilevel.NormalCG(max_iterations=300, tolerance=1e-12),
    "direct": bilevel.Direct(),
}


def product(matrix: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda x: {"x": matrix @ x["x"]}


def solve(solver: bilevel.Solver, matrix: Tensor, rhs: Tensor) -> tuple[Tensor, Status]:
    solution = solver.solve(product(matrix), {"x": rhs})
    assert isinstance(solution.status, Status)
    return solution.x["x"], solution.status


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# -- lineax --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERAL)
def test_lineax_two_unknowns_over_a_tree(name: str) -> None:
    matrix = tensor([[1.0, 5.0], [-2.0, -2.0]])

    def matvec(x: Tensors) -> Tensors:
        y = matrix @ torch.stack([x["a"], x["b"]])
        return {"a": y[0], "b": y[1]}

    found = GENERAL[name].solve(matvec, {"a": tensor(3.0), "b": tensor(4.0)}).x
    assert (found["a"].item(), found["b"].item()) == pytest.approx((-3.25, 1.25), abs=1e-11)


@pytest.mark.parametrize("name", [*GENERAL, "cg"])
def test_lineax_diagonal_over_a_tree(name: str) -> None:
    solver = {**GENERAL, "cg": bilevel.CG(tolerance=1e-12)}[name]
    diagonal = {"a": tensor(8.0), "b": tensor([1.0, 2, 3]), "c": tensor([4.0, 5]), "d": tensor(6.0)}
    rhs = {"a": tensor(4.0), "b": tensor([7.0, 8, 9]), "c": tensor([2.0, 10]), "d": tensor(12.0)}
    found = solver.solve(lambda x: {key: diagonal[key] * x[key] for key in diagonal}, rhs)
    expected = {"a": tensor(0.5), "b": tensor([7.0, 4, 3]), "c": tensor([0.5, 2.0]), "d": tensor(2.0)}
    for key, value in expected.items():
        torch.testing.assert_close(found.x[key], value, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", GENERAL)
def test_lineax_triangular(name: str) -> None:
    found, status = solve(GENERAL[name], tensor([[1.0, 0.0], [-2.0, -2.0]]), tensor([3.0, 4.0]))
    torch.testing.assert_close(found, tensor([3.0, -5.0]), rtol=1e-10, atol=1e-11)
    assert status is Status.CONVERGED


def test_lineax_gmres_on_a_hundred_unknowns_that_nothing_conditions() -> None:
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(100, 100, generator=draw, dtype=torch.float64)
    true = torch.randn(100, generator=draw, dtype=torch.float64)
    found, status = solve(bilevel.GMRES(restart=100, tolerance=1e-13), matrix, matrix @ true)
    assert status is Status.CONVERGED
    torch.testing.assert_close(found, true, rtol=1e-10, atol=1e-10)  # lineax's own tolerance
    _, status = solve(bilevel.GMRES(restart=2, tolerance=1e-10), matrix, matrix @ true)
    assert not status.ok  # restarted after two it stagnates


def test_lineax_gmres_stagnation() -> None:
    matrix = tensor(
        [
            [0.15892892, 0.05884365, -0.60427412, 0.1891916],
            [-1.5484863, 0.93608822, 1.94888868, 1.37069667],
            [0.62687318, -0.13996738, -0.6824359, 0.30975754],
            [-0.67428635, 1.52372255, -0.88277754, 0.69633816],
        ]
    )
    true = tensor([0.51383273, 1.72983427, -0.43251078, -1.11764668])
    _, status = solve(bilevel.GMRES(restart=2, tolerance=1e-10), matrix, matrix @ true)
    assert not status.ok
    for solver in (bilevel.GMRES(restart=4, tolerance=1e-12), GENERAL["normal_cg"], GENERAL["direct"]):
        found, status = solve(solver, matrix, matrix @ true)
        assert status is Status.CONVERGED
        torch.testing.assert_close(found, true, rtol=1e-8, atol=1e-8)  # the condition number is 200, squared by one


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_lineax_least_squares_over_a_tree(shape: str) -> None:
    wide = tensor([[1.0, 5.0, -1.0], [-2.0, -2.0, 3.0]])
    matrix, rhs = (wide, tensor([3.0, 4.0])) if shape == "wide" else (wide.T.contiguous(), tensor([3.0, 4.0, 5.0]))
    solver = bilevel.NormalCG(tolerance=1e-13, least_squares=True)
    found = solver.solve(product(matrix), {"x": rhs}, {"x": torch.zeros(matrix.shape[1], dtype=torch.float64)})
    expected = torch.from_numpy(np.linalg.lstsq(matrix.numpy(), rhs.numpy(), rcond=None)[0])
    torch.testing.assert_close(found.x["x"], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["cg", *GENERAL])
def test_lineax_two_iterations_of_poisson_are_not_enough(name: str) -> None:
    """A solver that has no time says so: -2 on the diagonal, 1 beside it, a hundred unknowns."""
    if name == "direct":
        pytest.skip("it has no iterations")
    side = torch.ones(99, dtype=torch.float64)
    poisson = torch.diag(side, 1) + torch.diag(side, -1) - 2 * torch.eye(100, dtype=torch.float64)
    rhs = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solvers = {
        "cg": bilevel.CG(max_iterations=2),
        "gmres": bilevel.GMRES(max_iterations=2),
        "bicgstab": bilevel.BiCGSTAB(max_iterations=2),
        "normal_cg": bilevel.NormalCG(max_iterations=2),
    }
    _, status = solve(solvers[name], poisson, rhs)
    assert status is (Status.NEGATIVE_CURVATURE if name == "cg" else Status.ITERATION_LIMIT)
    if name == "cg":  # the matrix is negative definite
        found, status = solve(bilevel.CG(max_iterations=200, tolerance=1e-12), -poisson, -rhs)
        assert status is Status.CONVERGED
        torch.testing.assert_close(found, torch.linalg.solve(poisson, rhs), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("name", ["cg", *GENERAL])
def test_lineax_not_finite(name: str) -> None:
    solver = {**GENERAL, "cg": bilevel.CG()}[name]
    for values in ([1.0, torch.inf], [1.0, torch.nan], [torch.nan, torch.inf]):
        assert solve(solver, torch.eye(2, dtype=torch.float64), tensor(values))[1] is Status.NOT_FINITE


@pytest.mark.parametrize("name", ["gmres", "bicgstab"])
def test_lineax_iterative_on_a_singular_matrix_fails(name: str) -> None:
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrix[0] = 0
    rhs = torch.randn(3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert not solve(GENERAL[name], matrix, rhs)[1].ok


# -- jaxopt --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_jaxopt_five_unknowns(name: str, ridge: float) -> None:
    rng = np.random.RandomState(0)
    a, b = rng.randn(5, 5), rng.randn(5)
    solver = GENERAL[name]
    expected = np.linalg.solve(a + ridge * np.eye(5), b)
    if ridge:
        solver = {
            "gmres": bilevel.GMRES(tolerance=1e-12, damping=ridge),
            "bicgstab": bilevel.BiCGSTAB(tolerance=1e-12, damping=ridge),
            "normal_cg": bilevel.NormalCG(tolerance=1e-12, damping=ridge),
            "direct": bilevel.Direct(damping=ridge),
        }[name]
        if name == "normal_cg":
            expected = np.linalg.solve(a.T @ a + ridge * np.eye(5), a.T @ b)
    found, status = solve(solver, torch.from_numpy(a), torch.from_numpy(b))
    assert status is Status.CONVERGED
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-8, atol=1e-9)


def test_jaxopt_positive_with_a_ridge() -> None:
    rng = np.random.RandomState(0)
    a, b = rng.randn(5, 5), rng.randn(5)
    gram = a.T @ a
    found, status = solve(bilevel.CG(tolerance=1e-12, damping=1.0), torch.from_numpy(gram), torch.from_numpy(b))
    assert status is Status.CONVERGED
    expected = np.linalg.solve(gram + np.eye(5), b)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["gmres", "direct", "normal_cg"])
def test_jaxopt_tensors_of_unknowns(name: str) -> None:
    rng = np.random.RandomState(0)
    rng.randn(30)  # what the case before it has drawn
    matrix, rhs = torch.from_numpy(rng.randn(5, 3, 5, 3)).reshape(15, 15), torch.from_numpy(rng.randn(5, 3))
    found = GENERAL[name].solve(lambda x: {"x": (matrix @ x["x"].reshape(-1)).reshape(5, 3)}, {"x": rhs})
    assert found.status is Status.CONVERGED
    expected = torch.linalg.solve(matrix, rhs.reshape(-1)).reshape(5, 3)
    torch.testing.assert_close(found.x["x"], expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", GENERAL)
def test_jaxopt_one_unknown(name: str) -> None:
    rng = np.random.RandomState(0)
    a, b = rng.randn(1, 1), rng.randn(1)
    found, _ = solve(GENERAL[name], torch.from_numpy(a), torch.from_numpy(b))
    torch.testing.assert_close(found, torch.from_numpy(b / a[0, 0]), rtol=1e-12, atol=0)


def test_jaxopt_normal_cg_with_more_unknowns_than_rows() -> None:
    rng = np.random.RandomState(0)
    a, b = torch.from_numpy(rng.randn(2, 3)), torch.from_numpy(rng.randn(2))
    solver = bilevel.NormalCG(tolerance=1e-13)
    found = solver.solve(product(a), {"x": b}, {"x": torch.zeros(3, dtype=torch.float64)})
    torch.testing.assert_close(found.x["x"], torch.linalg.pinv(a) @ b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("solver", [bilevel.CG(tolerance=1e-12), *GENERAL.values()])
def test_jaxopt_ridge_in_its_penalty(solver: bilevel.Solver) -> None:
    """dw/dλ of ridge regression at λ = 5, all three rows of the Jacobian at once."""
    features, targets = (
        torch.from_numpy(value) for value in make_regression(n_samples=10, n_features=3, random_state=0)
    )
    count, penalty = len(targets), tensor(5.0)

    def inner(params: Tensors, hyper: Tensors, batch: object) -> Tensor:
        gaps = features @ params["w"] - targets
        return 0.5 * (gaps**2).mean() + 0.5 * hyper["penalty"] * (params["w"] ** 2).sum()

    gram = features.T @ features + count * penalty * torch.eye(3, dtype=torch.float64)
    w = torch.linalg.solve(gram, features.T @ targets)
    expected = -torch.linalg.solve(gram / count, w)
    rows = []
    for place in range(3):
        problem = bilevel.Bilevel(inner, lambda params, hyper, batch, place=place: params["w"][place])
        result = bilevel.hypergradient(
            problem, {"w": w}, {"penalty": penalty}, [None], None, method=bilevel.Implicit(solver)
        )
        rows.append(result.grad["penalty"])
    torch.testing.assert_close(torch.stack(rows), expected, rtol=1e-10, atol=1e-12)
