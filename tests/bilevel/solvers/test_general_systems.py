"""Systems that are not symmetric, and least squares: GMRES, BiCGSTAB, NormalCG, Direct.

The kinds of system that lineax's and jaxopt's own suites try: well and badly conditioned, tiny and huge right-hand
sides, singular ones, one unknown, and matrices on which a method is known to stall or to break down.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel import Status

Tensors = dict[str, Tensor]


def products(matrix: Tensor) -> Callable[[Tensors], Tensors]:
    """x -> A x over two tensors."""

    def matvec(x: Tensors) -> Tensors:
        return split(matrix @ torch.cat([x["a"].reshape(-1), x["b"].reshape(-1)]))

    return matvec


def split(vector: Tensor) -> Tensors:
    return {"a": vector[:1].reshape(()), "b": vector[1:].reshape(-1, 1)}


def flat(x: Tensors) -> Tensor:
    return torch.cat([x["a"].reshape(-1), x["b"].reshape(-1)])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_singular_values(values: Tensor, seed: int = 0) -> Tensor:
    n = len(values)
    left, right = (torch.linalg.qr(draw(n, n, seed=seed + k))[0] for k in (1, 2))
    return (left * values) @ right.T


GENERAL = {
    "gmres": bilevel.GMRES(max_iterations=400, tolerance=1e-11),
    "gmres_restarted": bilevel.GMRES(max_iterations=400, restart=6, tolerance=1e-11),
    "bicgstab": bilevel.BiCGSTAB(max_iterations=400, tolerance=1e-11),
    "normal_cg": bilevel.NormalCG(max_iterations=400, tolerance=1e-11),
    "direct": bilevel.Direct(),
}
SYSTEMS = {
    "shifted": draw(9, 9) + 6 * torch.eye(9, dtype=torch.float64),
    "triangular": torch.triu(draw(9, 9)) + 4 * torch.eye(9, dtype=torch.float64),
    "convection": torch.diag(torch.full((9,), 4.0))
    + torch.diag(torch.full((8,), -1.8), 1)
    + torch.diag(torch.full((8,), -0.2), -1).double(),
    "positive": with_singular_values(torch.linspace(1, 9, 9, dtype=torch.float64)) @ torch.eye(9).double(),
    "symmetric": torch.eye(9, dtype=torch.float64) * 3 + 0.1 * torch.ones(9, 9, dtype=torch.float64),
    "one_unknown": torch.tensor([[-3.0]], dtype=torch.float64),
}


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e150], ids=["vanishing", "tiny", "plain", "huge"])
@pytest.mark.parametrize("kind", SYSTEMS)
@pytest.mark.parametrize("name", GENERAL)
def test_solves_what_is_not_symmetric(name: str, kind: str, scale: float) -> None:
    matrix, solver = SYSTEMS[kind].double(), GENERAL[name]
    if kind == "positive" and name in ("gmres_restarted", "bicgstab"):
        pytest.skip("its eigenvalues stand around 0, where short recurrences are known to stall")
    rhs = draw(len(matrix), seed=5)
    solution = solver.solve(products(matrix), split(rhs * scale))
    expected = torch.linalg.solve(matrix, rhs)
    # The tolerance times the condition number, at most 30 here.
    torch.testing.assert_close(flat(solution.x) / scale, expected, rtol=0, atol=1e-9)
    negative = name == "direct" and kind == "one_unknown"  # it sees that A is symmetric, and then what it is not
    assert solution.status is (Status.NEGATIVE_CURVATURE if negative else Status.CONVERGED)
    true = float((rhs - matrix @ (flat(solution.x) / scale)).norm() / rhs.norm())
    assert solution.residual == pytest.approx(true, abs=1e-12)


@pytest.mark.parametrize("name", GENERAL)
def test_damping_and_single_precision(name: str) -> None:
    matrix, rhs = SYSTEMS["shifted"], draw(9, seed=5)
    solver = type(GENERAL[name])(damping=0.5)
    solution = solver.solve(products(matrix.float()), split(rhs.float()))
    eye = torch.eye(9, dtype=torch.float64)
    expected = torch.linalg.solve(matrix + 0.5 * eye, rhs)
    if name == "normal_cg":  # whose damping is that of least squares
        expected = torch.linalg.solve(matrix.T @ matrix + 0.5 * eye, matrix.T @ rhs)
    assert solution.x["b"].dtype == torch.float32
    assert solution.status is Status.CONVERGED
    torch.testing.assert_close(flat(solution.x).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", GENERAL)
def test_ill_conditioned(name: str) -> None:
    """Condition 1e6 over twelve unknowns: solved, or said not to be; never a wrong claim."""
    matrix = with_singular_values(torch.logspace(-6, 0, 12, dtype=torch.float64))
    rhs = matrix @ draw(12, seed=9)
    solution = GENERAL[name].solve(products(matrix), split(rhs))
    true = float((rhs - matrix @ flat(solution.x)).norm() / rhs.norm())
    assert solution.residual == pytest.approx(true, rel=1e-3, abs=1e-14)
    if solution.status is Status.CONVERGED:
        assert true <= 1e-9
    else:
        assert solution.status in (Status.ITERATION_LIMIT, Status.BREAKDOWN, Status.SINGULAR)
        assert true > 1e-11


def test_gmres_needs_as_many_products_as_unknowns_and_stalls_on_the_shift() -> None:
    n = 8
    shift = torch.roll(torch.eye(n, dtype=torch.float64), 1, 0)
    rhs = torch.eye(n, dtype=torch.float64)[0]
    whole = bilevel.GMRES(restart=None, tolerance=1e-12).solve(products(shift), split(rhs))
    assert whole.status is Status.CONVERGED
    assert whole.iterations == n
    torch.testing.assert_close(flat(whole.x), shift.T @ rhs, rtol=0, atol=1e-12)
    cut = bilevel.GMRES(restart=n - 1, max_iterations=40).solve(products(shift), split(rhs))
    assert cut.status is Status.ITERATION_LIMIT
    assert cut.residual == pytest.approx(1.0)


def test_bicgstab_says_when_it_breaks_down() -> None:
    skew = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)  # <r, A r> = 0 for every r
    solution = bilevel.BiCGSTAB().solve(products(skew), split(torch.tensor([1.0, 0.0], dtype=torch.float64)))
    assert solution.status is Status.BREAKDOWN
    assert "GMRES" in str(solution.status)
    assert solution.residual == pytest.approx(1.0)


@pytest.mark.parametrize("name", GENERAL)
def test_singular_systems(name: str) -> None:
    """With a right-hand side in the range: solved, or a status that says singular or broken down; outside: a status."""
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.5], dtype=torch.float64))
    matrix[0, 1] = 1.0
    inside = matrix @ draw(5, seed=3)
    solution = GENERAL[name].solve(products(matrix), split(inside))
    assert float((inside - matrix @ flat(solution.x)).norm()) < 1e-9
    outside = inside + torch.eye(5, dtype=torch.float64)[3]
    solution = GENERAL[name].solve(products(matrix), split(outside))
    assert not solution.status.ok
    assert solution.residual > 0.1


@pytest.mark.parametrize("name", GENERAL)
def test_zero_and_not_finite(name: str) -> None:
    matrix, solver = SYSTEMS["shifted"], GENERAL[name]
    zero = solver.solve(products(matrix), split(torch.zeros(9, dtype=torch.float64)))
    assert zero.status is Status.CONVERGED
    assert not flat(zero.x).any()
    assert solver.solve(products(matrix * torch.nan), split(draw(9))).status is Status.NOT_FINITE
    assert solver.solve(products(matrix), split(draw(9) / 0)).status is Status.NOT_FINITE
    assert solver.solve(products(0 * matrix), split(draw(9))).status in (Status.SINGULAR, Status.BREAKDOWN)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)], ids=["tall", "wide"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_normal_cg_on_rectangular_systems(shape: tuple[int, int], damping: float) -> None:
    matrix, rhs = draw(*shape, seed=4), draw(shape[0], seed=5)
    solver = bilevel.NormalCG(tolerance=1e-12, least_squares=True, damping=damping)

    def matvec(x: Tensors) -> Tensors:
        return {"y": matrix @ x["x"]}

    solution = solver.solve(matvec, {"y": rhs}, {"x": torch.zeros(shape[1], dtype=torch.float64)})
    eye = torch.eye(shape[1], dtype=torch.float64)
    expected = torch.linalg.pinv(matrix) @ rhs
    if damping:
        expected = torch.linalg.solve(matrix.T @ matrix + damping * eye, matrix.T @ rhs)
    torch.testing.assert_close(solution.x["x"], expected, rtol=0, atol=1e-9)  # the condition number squared
    assert solution.status is Status.CONVERGED
    true = float((rhs - matrix @ solution.x["x"]).norm() / rhs.norm())
    assert solution.residual == pytest.approx(true, abs=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bilevel.GMRES(restart=0), "at least 1 or None"),
        (lambda: bilevel.GMRES(tolerance=0.0), "greater than 0"),
        (lambda: bilevel.BiCGSTAB(max_iterations=0), "at least 1"),
        (lambda: bilevel.NormalCG(damping=-1.0), "at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
