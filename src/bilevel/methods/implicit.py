"""Implicit differentiation at an inner minimum."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import _tree as tree
from .._products import check_product, gradients, hessian, mixed
from .._randomness import Replayed
from .._types import Tensors
from ..problem import Bilevel
from ..result import Result
from ..root import Root, pull_at
from ..solvers.cg import CG
from ..solvers.solver import Matvec, Solution, Solver, check_solver
from ..status import Status


@dataclass(frozen=True)
class Implicit:
    """Derivative of the outer loss along the inner minimiser, by the implicit function theorem.

    At θ with ∇L(θ, φ) = 0:   dF/dφ = ∂F/∂φ - ∂/∂φ <∇L(θ, φ), v>,   (H + damping) v = ∇F(θ),   H = ∂²L/∂θ².
    At a `Root`, f(θ, φ) = 0:   dF/dφ = ∂F/∂φ - (∂f/∂φ)ᵀ v,   ((∂f/∂θ)ᵀ + damping) v = ∇F(θ).

    `params` are taken to be the solution: train them first; far from it the formula means nothing, which no status
    can tell. L and f are means over the inner batches. The solver waits for the device once per iteration.

    Under vmap (of params, hyper, or anything that the losses hold) each member has its own solve, and how it went is in
    `stats`, tensors that the vmapped function can return: "converged", "iterations", "residual".

    Args:
        solver: CG, Neumann, Nystrom, Direct, GMRES, BiCGSTAB or NormalCG; for a `Root` not CG or Nystrom.
        product: "jvp" or "vjp", see `bilevel._products`; a `Root` always takes one reverse pass per product.

    Raises:
        ValueError: a setting out of range, when built; a state (there is none); a solver for symmetric systems and a
            `Root`; GMRES or BiCGSTAB under vmap (their recurrences look at numbers).

    Source: Pedregosa, arXiv 1602.02355; Rajeswaran et al., arXiv 1909.04630; Lorraine et al., arXiv 1911.02590.
    """

    solver: Solver = field(default_factory=CG)
    product: str = "jvp"

    accepts_roots: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_solver("Implicit", self.solver)
        check_product("Implicit", self.product)

    def run(
        self,
        problem: Bilevel | Root,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: None,
    ) -> Result:
        """Solve for v, then one mixed product."""
        if state is not None:
            raise ValueError("Implicit keeps no state: pass state=None")
        value, by_params, total = gradients(problem.outer_at(outer_batch), params, hyper)
        num = len(inner_batches)
        if isinstance(problem, Root):
            self._refuse_symmetric(problem)
            pull = pull_at([problem.residual_at(batch) for batch in inner_batches], params, hyper)
            solution, products = self._solve(lambda direction: pull(direction)[0], by_params)
            solution = replace(solution, status=_without_curvature(solution.status))
            cross = pull(solution.x)[1]
            products += 1  # the values themselves
        else:
            losses = [Replayed(problem.inner_at(batch)) for batch in inner_batches]

            def matvec(direction: Tensors) -> Tensors:
                return mean([hessian(loss, params, hyper, direction, self.product) for loss in losses])

            solution, products = self._solve(matvec, by_params)
            cross = mean([mixed(loss, params, hyper, solution.x, self.product) for loss in losses])
        passes = 1 + num * (products + solution.columns + solution.transposed)
        converged = solution.status
        if isinstance(converged, Status):
            converged = converged.ok
        else:
            converged = (converged == Status.CONVERGED.code) | (converged == Status.DONE.code)
        stats = {
            "passes": passes,
            "iterations": solution.iterations,
            "residual": solution.residual,
            "converged": converged,
        }
        return Result(tree.add(total, cross, -1.0), value, params, None, solution.status, stats)

    def _solve(self, matvec: Matvec, rhs: Tensors) -> tuple[Solution, int]:
        """The solution, and how often matvec was called."""
        calls = 0

        def counted(direction: Tensors) -> Tensors:
            nonlocal calls
            calls += 1
            return matvec(direction)

        try:
            return self.solver.solve(counted, rhs), calls
        except RuntimeError as error:
            if "vmap" not in str(error) or "item()" not in str(error):
                raise
            raise ValueError(
                f"Implicit({type(self.solver).__name__}) under vmap: the solver looks at numbers to decide what to do "
                "next, which a batch has no single answer for; use CG, NormalCG, Neumann, Nystrom or Direct, whose "
                "members end each for itself, or loop over the batch and stack the results"
            ) from error

    def _refuse_symmetric(self, problem: Root) -> None:
        if getattr(self.solver, "symmetric_only", False):
            raise ValueError(
                f"Implicit(solver={type(self.solver).__name__}) solves symmetric systems, and that of a "
                f"{type(problem).__name__} is not; use bilevel.GMRES(), BiCGSTAB(), NormalCG() or Direct()"
            )


def _without_curvature(status: Status | Tensor) -> Status | Tensor:
    """A root need not be a minimum: negative curvature is no failure of its solve."""
    if isinstance(status, Status):
        return Status.CONVERGED if status is Status.NEGATIVE_CURVATURE else status
    return torch.where(status == Status.NEGATIVE_CURVATURE.code, Status.CONVERGED.code, status)


def mean(parts: list[Tensors]) -> Tensors:
    """The mean of dictionaries of the same names."""
    total = parts[0]
    for part in parts[1:]:
        total = tree.add(total, part)
    return tree.scale(total, 1 / len(parts)) if len(parts) > 1 else total
