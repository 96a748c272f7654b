"""Implicit differentiation under vmap: each member is what it is alone, and ends for itself."""

from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel import Status, testing

Tensors = dict[str, Tensor]
BATCHED = {
    "cg": bilevel.CG(max_iterations=60, tolerance=1e-13),
    "neumann": bilevel.Neumann(terms=300, scale=0.45, tolerance=1e-13),
    "nystrom": bilevel.Nystrom(rank=9, damping=1e-3),
    "direct": bilevel.Direct(),
    "normal_cg": bilevel.NormalCG(max_iterations=60, tolerance=1e-13),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ridge(x: Tensor, y: Tensor) -> bilevel.Bilevel:
    def inner(params: Tensors, hyper: Tensors, batch: Any) -> Tensor:
        gaps = x @ params["w"] + params["b"] - y
        return (gaps**2).mean() / 2 + hyper["decay"].exp() * (params["w"] ** 2).sum() / 2 + params["b"] ** 2 / 4

    def outer(params: Tensors, hyper: Tensors, batch: Any) -> Tensor:
        return ((params["w"] - 1) ** 2).sum() + params["b"] ** 3 + hyper["decay"] ** 2

    return bilevel.Bilevel(inner, outer)


def of_one(solver: bilevel.Solver, x: Tensor, y: Tensor, decay: Tensor) -> bilevel.Result:
    """At the minimiser, from the normal equations."""
    wide = torch.cat([x, x.new_ones(len(x), 1)], 1)
    shrink = torch.cat([decay.exp().expand(x.shape[1]), decay.new_tensor([0.5])]).diag()
    z = torch.linalg.solve(wide.mT @ wide / len(x) + shrink, wide.mT @ y / len(x))
    method = bilevel.Implicit(solver)
    return bilevel.hypergradient(ridge(x, y), {"w": z[:-1], "b": z[-1]}, {"decay": decay}, [None], None, method=method)


@pytest.mark.parametrize("name", BATCHED)
def test_each_member_is_what_it_is_alone(name: str) -> None:
    x, y = draw(4, 9, 3), draw(4, 9, seed=1)
    decays = torch.tensor([-3.0, 0.0, 1.0, 8.0], dtype=torch.float64)  # from badly to well conditioned

    def one(x: Tensor, y: Tensor, decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result = of_one(BATCHED[name], x, y, decay)
        return result.grad["decay"], result.stats["converged"], result.stats["residual"]

    grads, converged, residuals = torch.func.vmap(one)(x, y, decays)
    alone = [of_one(BATCHED[name], *member) for member in zip(x, y, decays, strict=True)]
    expected = torch.stack([result.grad["decay"] for result in alone])
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-13)
    assert converged.tolist() == [result.status.ok for result in alone]
    # Residuals themselves are rounding where a member has converged.
    torch.testing.assert_close(
        residuals, torch.tensor([r.stats["residual"] for r in alone], dtype=torch.float64), rtol=1e-6, atol=1e-12
    )
    if name in ("cg", "direct", "normal_cg"):  # the series diverges for some members, and says so
        assert all(converged)


def test_batched_data_with_one_hyper_and_twice_nested() -> None:
    x, y = draw(2, 3, 9, 3), draw(2, 3, 9, seed=1)
    decay = torch.tensor(-1.0, dtype=torch.float64)

    def one(x: Tensor, y: Tensor) -> Tensor:
        return of_one(BATCHED["cg"], x, y, decay).grad["decay"]

    found = torch.func.vmap(torch.func.vmap(one))(x, y)
    apart = torch.stack(
        [torch.stack([one(a, b) for a, b in zip(r, s, strict=True)]) for r, s in zip(x, y, strict=True)]
    )
    torch.testing.assert_close(found, apart, rtol=1e-10, atol=1e-13)


def test_a_jacobian_of_batched_gradients_is_the_difference() -> None:
    x, y = draw(9, 3), draw(9, seed=1)

    def one(decay: Tensor) -> Tensor:
        return of_one(bilevel.Direct(), x, y, decay).grad["decay"]

    decays = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    second = torch.func.vmap(torch.func.jacrev(one))(decays)
    step = 1e-4
    numeric = (torch.func.vmap(one)(decays + step) - torch.func.vmap(one)(decays - step)) / (2 * step)
    torch.testing.assert_close(second, numeric, rtol=1e-6, atol=1e-8)  # the difference's own error, step²


def quadratic(matrix: Tensor) -> bilevel.Bilevel:
    return bilevel.Bilevel(
        lambda params, hyper, batch: params["z"] @ matrix @ params["z"] / 2 - hyper["x"] @ params["z"],
        lambda params, hyper, batch: params["z"].sum(),
    )


@pytest.mark.parametrize("name", ["cg", "direct", "normal_cg", "neumann"])
def test_members_that_fail_do_not_touch_the_others(name: str) -> None:
    """One well, one with negative curvature, one singular, one not finite, one with an outer gradient of 0."""
    good = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    matrices = torch.stack(
        [good, good - 3 * torch.eye(3).double(), good * torch.tensor([1.0, 1.0, 0.0]), good * torch.nan, good]
    )
    factors = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)

    def one(matrix: Tensor, factor: Tensor) -> tuple[Any, ...]:
        problem = bilevel.Bilevel(quadratic(matrix).inner, lambda p, h, b: factor * p["z"].sum())
        params = {"z": torch.zeros(3, dtype=torch.float64)}
        hyper = {"x": torch.ones(3, dtype=torch.float64)}
        method = bilevel.Implicit(BATCHED[name])
        result = bilevel.hypergradient(problem, params, hyper, [None], None, method=method)
        return result.grad["x"], result.stats["converged"], result.outcome

    grads, converged, codes = torch.func.vmap(one)(matrices, factors)
    expected = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)  # ∂/∂x of Σ A⁻¹ x
    torch.testing.assert_close(grads[0], expected, rtol=1e-10, atol=1e-12)
    assert not grads[4].any()
    statuses = [list(Status)[code] for code in codes.tolist()]
    assert converged.tolist() == [status.ok for status in statuses]
    assert statuses[0] is Status.CONVERGED
    assert statuses[3] is Status.NOT_FINITE
    assert statuses[4] is Status.CONVERGED
    for place in (1, 2, 3):  # each as it ends alone
        method = bilevel.Implicit(BATCHED[name])
        alone = bilevel.hypergradient(
            quadratic(matrices[place]),
            {"z": torch.zeros(3, dtype=torch.float64)},
            {"x": torch.ones(3, dtype=torch.float64)},
            [None],
            None,
            method=method,
        )
        assert alone.outcome is statuses[place]


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e150])
def test_members_of_very_different_sizes(scale: float) -> None:
    matrix = draw(4, 4) @ draw(4, 4).T + torch.eye(4).double()

    def solve(rhs: Tensor) -> tuple[Tensor, Any]:
        found = bilevel.CG(tolerance=1e-12).solve(lambda x: {"z": matrix @ x["z"]}, {"z": rhs})
        return found.x["z"], found.status

    rhs = torch.stack([draw(4, seed=1), scale * draw(4, seed=1), torch.zeros(4).double(), draw(4, seed=2) / 0])
    x, codes = torch.func.vmap(solve)(rhs)
    expected = torch.linalg.solve(matrix, rhs[0])
    torch.testing.assert_close(x[0], expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(x[1] / scale, expected, rtol=1e-10, atol=0)
    assert not x[2].any()
    assert [list(Status)[code] for code in codes.tolist()] == [Status.CONVERGED] * 3 + [Status.NOT_FINITE]


@pytest.mark.parametrize("solver", [bilevel.Direct(), bilevel.NormalCG(tolerance=1e-13)])
def test_roots_under_vmap(solver: bilevel.Solver) -> None:
    a = draw(3, 4, 4) + 5 * torch.eye(4).double()

    def one(a: Tensor, x: Tensor) -> Tensor:
        root = bilevel.Root(lambda p, h, b: {"z": a @ p["z"] - h["x"]}, lambda p, h, b: p["z"].sin().sum())
        params = {"z": torch.linalg.solve(a, x)}
        return bilevel.hypergradient(root, params, {"x": x}, [None], None, method=bilevel.Implicit(solver)).grad["x"]

    x = draw(3, 4, seed=1)
    z = torch.linalg.solve(a, x)
    expected = torch.linalg.solve(a.mT, z.cos())  # A⁻ᵀ cos(z)
    torch.testing.assert_close(torch.func.vmap(one)(a, x), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("solver", [bilevel.GMRES(), bilevel.BiCGSTAB()])
def test_recurrences_that_look_at_numbers_are_refused_with_the_way_out(solver: bilevel.Solver) -> None:
    known = testing.quadratic()

    def grad(x: Tensor) -> Tensor:
        arguments = (known.problem, known.params, {"x": x}, [known.inner_batch], known.outer_batch)
        return bilevel.hypergradient(*arguments, method=bilevel.Implicit(solver)).grad["x"]

    with pytest.raises(ValueError, match=r"under vmap.*use CG, NormalCG, Neumann, Nystrom or Direct"):
        torch.func.vmap(grad)(torch.ones(3, 4, dtype=torch.float64))


def test_a_status_is_refused_under_vmap() -> None:
    known = testing.quadratic()

    def grad(x: Tensor) -> Tensor:
        arguments = (known.problem, known.params, {"x": x}, [known.inner_batch], known.outer_batch)
        result = bilevel.hypergradient(*arguments, method=bilevel.Implicit())
        assert result.status.ok
        return result.grad["x"]

    with pytest.raises(ValueError, match=r"return result.outcome and result.stats\['converged'\]"):
        torch.func.vmap(grad)(torch.ones(3, 4, dtype=torch.float64))
