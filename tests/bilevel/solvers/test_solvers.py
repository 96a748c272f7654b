"""Solvers on systems whose solution is known."""

from collections.abc import Callable

import pytest
import torch

import bilevel
from bilevel import Status


def system(eigenvalues: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A symmetric matrix of these eigenvalues, and a right-hand side over two tensors."""
    draw = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=torch.float64))[0]
    b = torch.randn(n, generator=draw, dtype=torch.float64)
    return (basis * eigenvalues) @ basis.T, {"a": b[:1].reshape(()), "b": b[1:].reshape(1, -1)}


def products(matrix: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    def matvec(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        y = matrix @ flat(x)
        return {"a": y[0], "b": y[1:].reshape(1, -1)}

    return matvec


def flat(x: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([x["a"].reshape(1), x["b"].reshape(-1)])


POSITIVE = torch.linspace(1.0, 20.0, 12, dtype=torch.float64)


@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize(
    "solver",
    [
        lambda damping: bilevel.CG(tolerance=1e-12, damping=damping),
        lambda damping: bilevel.Neumann(terms=1000, scale=0.08, tolerance=1e-12, damping=damping),
        lambda damping: bilevel.Direct(damping=damping),
        lambda damping: bilevel.Direct(damping=damping, chunk_size=5),
    ],
)
def test_solves_a_positive_system(solver: Callable[[float], bilevel.Solver], damping: float) -> None:
    matrix, rhs = system(POSITIVE)
    solution = solver(damping).solve(products(matrix), rhs)
    expected = torch.linalg.solve(matrix + damping * torch.eye(12, dtype=torch.float64), flat(rhs))
    # The residual's tolerance times the condition number of 20.
    torch.testing.assert_close(flat(solution.x), expected, rtol=0, atol=1e-10)
    assert solution.status is Status.CONVERGED
    assert solution.residual <= 1e-11


def test_cg_is_exact_after_as_many_iterations_as_dimensions() -> None:
    matrix, rhs = system(POSITIVE)
    solution = bilevel.CG(max_iterations=12, tolerance=1e-11).solve(products(matrix), rhs)
    torch.testing.assert_close(flat(solution.x), torch.linalg.solve(matrix, flat(rhs)), rtol=0, atol=1e-10)
    assert solution.iterations <= 12
    assert solution.status is Status.CONVERGED


def test_cg_needs_one_iteration_per_distinct_eigenvalue() -> None:
    matrix, rhs = system(torch.tensor([2.0] * 6 + [5.0] * 6, dtype=torch.float64))
    solution = bilevel.CG(tolerance=1e-10).solve(products(matrix), rhs)
    assert solution.iterations == 2
    torch.testing.assert_close(flat(solution.x), torch.linalg.solve(matrix, flat(rhs)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", [bilevel.CG(), bilevel.Neumann(scale=0.25), bilevel.Direct()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalar_system(solver: bilevel.Solver, dtype: torch.dtype) -> None:
    solution = solver.solve(lambda x: {"x": 4.0 * x["x"]}, {"x": torch.tensor(6.0, dtype=dtype)})
    assert solution.x["x"].item() == pytest.approx(1.5, abs=1e-6)
    assert solution.x["x"].dtype == dtype
    assert solution.status is Status.CONVERGED
    assert solution.iterations == 1


SOLVERS = [bilevel.CG(), bilevel.Neumann(), bilevel.Nystrom(), bilevel.Direct()]


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_right_hand_side(solver: bilevel.Solver) -> None:
    matrix, rhs = system(POSITIVE)
    solution = solver.solve(products(matrix), {name: torch.zeros_like(tensor) for name, tensor in rhs.items()})
    assert solution.status is Status.CONVERGED
    assert not flat(solution.x).any()


@pytest.mark.parametrize("solver", SOLVERS)
def test_not_finite_is_a_status(solver: bilevel.Solver) -> None:
    matrix, rhs = system(POSITIVE)
    assert solver.solve(products(matrix * torch.nan), rhs).status is Status.NOT_FINITE
    rhs["a"] = torch.tensor(torch.inf, dtype=torch.float64)
    assert solver.solve(products(matrix), rhs).status is Status.NOT_FINITE


@pytest.mark.parametrize("solver", [bilevel.CG(), bilevel.Nystrom(rank=12), bilevel.Direct()])
def test_negative_curvature_is_a_status(solver: bilevel.Solver) -> None:
    matrix, rhs = system(torch.cat([-POSITIVE[:2], POSITIVE[2:]]))
    assert solver.solve(products(matrix), rhs).status is Status.NEGATIVE_CURVATURE


def test_damping_above_the_negative_curvature_cures_it() -> None:
    matrix, rhs = system(torch.cat([-POSITIVE[:2], POSITIVE[2:]]))
    solution = bilevel.CG(damping=10.0, tolerance=1e-11).solve(products(matrix), rhs)
    assert solution.status is Status.CONVERGED
    expected = torch.linalg.solve(matrix + 10.0 * torch.eye(12, dtype=torch.float64), flat(rhs))
    torch.testing.assert_close(flat(solution.x), expected, rtol=0, atol=1e-10)


def test_cg_says_when_it_has_not_converged() -> None:
    matrix, rhs = system(torch.logspace(0, 5, 12, dtype=torch.float64))
    solution = bilevel.CG(max_iterations=3, tolerance=1e-10).solve(products(matrix), rhs)
    assert solution.status is Status.ITERATION_LIMIT
    assert solution.iterations == 3
    true = torch.linalg.vector_norm(flat(rhs) - matrix @ flat(solution.x)) / torch.linalg.vector_norm(flat(rhs))
    assert solution.residual == pytest.approx(true.item(), rel=1e-9)


def test_neumann_stays_within_its_bound() -> None:
    matrix, rhs = system(POSITIVE)
    expected = torch.linalg.solve(matrix, flat(rhs))
    for terms in (5, 20, 80):
        solution = bilevel.Neumann(terms=terms, scale=0.05, tolerance=1e-14).solve(products(matrix), rhs)
        error = torch.linalg.vector_norm(flat(solution.x) - expected)
        # ρ = 1 - .05 * 1; the slack is rounding.
        assert error <= 0.95**terms * torch.linalg.vector_norm(expected) * (1 + 1e-9)
        assert solution.status is Status.ITERATION_LIMIT
        residual = torch.linalg.vector_norm(flat(rhs) - matrix @ flat(solution.x)) / torch.linalg.vector_norm(flat(rhs))
        assert solution.residual == pytest.approx(residual.item(), rel=1e-9)


@pytest.mark.parametrize("scale", [0.11, 1.0])
def test_neumann_detects_divergence(scale: float) -> None:
    matrix, rhs = system(POSITIVE)
    solution = bilevel.Neumann(terms=2000, scale=scale).solve(products(matrix), rhs)
    assert solution.status is Status.DIVERGED
    assert solution.iterations < 100
    assert torch.isfinite(flat(solution.x)).all()


def test_nystrom_is_exact_on_low_rank_plus_damping() -> None:
    matrix, rhs = system(torch.cat([torch.zeros(9), torch.tensor([1.0, 3.0, 8.0])]).double())
    solution = bilevel.Nystrom(rank=3, damping=0.1).solve(products(matrix), rhs)
    expected = torch.linalg.solve(matrix + 0.1 * torch.eye(12, dtype=torch.float64), flat(rhs))
    torch.testing.assert_close(flat(solution.x), expected, rtol=0, atol=1e-10)
    assert solution.status is Status.CONVERGED


def test_nystrom_improves_with_rank_and_says_how_good_it_is() -> None:
    matrix, rhs = system(torch.logspace(-4, 2, 12, dtype=torch.float64))
    residuals = [bilevel.Nystrom(rank=r, damping=0.1).solve(products(matrix), rhs).residual for r in (2, 6, 12)]
    assert residuals[0] > 2 * residuals[1] > 4 * residuals[2]
    assert bilevel.Nystrom(rank=2, damping=0.1).solve(products(matrix), rhs).status is Status.ITERATION_LIMIT


def test_direct_says_singular_and_gives_the_shortest_solution() -> None:
    matrix, _ = system(torch.cat([torch.zeros(2), POSITIVE[2:]]).double())
    rhs = {"a": (matrix @ torch.ones(12).double())[0], "b": (matrix @ torch.ones(12).double())[1:].reshape(1, -1)}
    solution = bilevel.Direct().solve(products(matrix), rhs)
    assert solution.status is Status.SINGULAR
    torch.testing.assert_close(flat(solution.x), torch.linalg.pinv(matrix) @ flat(rhs), rtol=0, atol=1e-10)


@pytest.mark.parametrize("skew", [1.0, 1e-3, 1e-9, 0.0])
def test_direct_solves_what_is_not_symmetric_as_it_is(skew: float) -> None:
    matrix, rhs = system(POSITIVE)
    draw = torch.Generator().manual_seed(1)
    matrix = matrix + skew * torch.randn(12, 12, generator=draw, dtype=torch.float64)
    solution = bilevel.Direct().solve(products(matrix), rhs)
    expected = torch.linalg.solve(matrix, flat(rhs))
    torch.testing.assert_close(flat(solution.x), expected, rtol=0, atol=1e-11)
    true = torch.linalg.vector_norm(flat(rhs) - matrix @ flat(solution.x)) / torch.linalg.vector_norm(flat(rhs))
    assert solution.residual == pytest.approx(true.item(), abs=1e-15)
    assert solution.status is Status.CONVERGED
    singular = torch.diag(torch.arange(12.0)).double()
    singular[0, 1] = 3.0  # not symmetric, rank 11
    solution = bilevel.Direct().solve(products(singular), rhs)
    assert solution.status is Status.SINGULAR
    torch.testing.assert_close(flat(solution.x), torch.linalg.pinv(singular) @ flat(rhs), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bilevel.CG(max_iterations=0), r"CG\(max_iterations=0\).*at least 1"),
        (lambda: bilevel.CG(tolerance=0.0), "greater than 0"),
        (lambda: bilevel.Neumann(scale=-1.0), "greater than 0"),
        (lambda: bilevel.Nystrom(damping=0.0), "greater than 0"),
        (lambda: bilevel.Direct(damping=-0.1), "at least 0"),
        (lambda: bilevel.Implicit("cg"), "allowed is a solver"),
        (lambda: bilevel.Implicit(bilevel.CG), "allowed is a solver"),
    ],
)
def test_settings_out_of_range_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
