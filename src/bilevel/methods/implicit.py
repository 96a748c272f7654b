"""Implicit differentiation at an inner minimum."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _tree as tree
from .._products import check_product, gradients, hessian, mixed
from .._randomness import Replayed
from .._types import Tensors
from ..problem import Bilevel
from ..result import Result
from ..solvers.cg import CG
from ..solvers.solver import Solver, check_solver


@dataclass(frozen=True)
class Implicit:
    """Derivative of the outer loss along the inner minimiser, by the implicit function theorem.

    At θ with ∇L(θ, φ) = 0:   dF/dφ = ∂F/∂φ - ∂/∂φ <∇L(θ, φ), v>,   (H + damping) v = ∇F(θ),   H = ∂²L/∂θ².

    `params` are taken to be the minimiser: train them first; far from it the formula means nothing, which no status
    can tell. L is the mean over the inner batches. The solver waits for the device once per iteration.

    Args:
        solver: CG, Neumann, Nystrom or Direct.
        product: "jvp" or "vjp", see `bilevel._products`.

    Raises:
        ValueError: a setting out of range, when built; a state (there is none).

    Source: Pedregosa, arXiv 1602.02355; Rajeswaran et al., arXiv 1909.04630; Lorraine et al., arXiv 1911.02590.
    """

    solver: Solver = field(default_factory=CG)
    product: str = "jvp"

    def __post_init__(self) -> None:
        check_solver("Implicit", self.solver)
        check_product("Implicit", self.product)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: None,
    ) -> Result:
        """Solve for v, then one mixed product."""
        if state is not None:
            raise ValueError("Implicit keeps no state: pass state=None")
        losses = [Replayed(problem.inner_at(batch)) for batch in inner_batches]
        value, by_params, total = gradients(problem.outer_at(outer_batch), params, hyper)
        passes = 1

        def matvec(direction: Tensors) -> Tensors:
            nonlocal passes
            passes += len(losses)
            return mean([hessian(loss, params, hyper, direction, self.product) for loss in losses])

        try:
            solution = self.solver.solve(matvec, by_params)
        except RuntimeError as error:
            if "vmap" not in str(error) or "item()" not in str(error):
                raise
            raise ValueError(
                f"Implicit({type(self.solver).__name__}) under vmap: the solver looks at numbers to decide when to "
                "stop, which a batch has no single answer for; loop over the batch and stack the results, or use "
                "Unrolled, which stands under vmap"
            ) from error
        cross = mean([mixed(loss, params, hyper, solution.x, self.product) for loss in losses])
        stats = {
            "passes": passes + len(losses) * solution.columns,
            "iterations": solution.iterations,
            "residual": solution.residual,
        }
        return Result(tree.add(total, cross, -1.0), value, params, None, solution.status, stats)


def mean(parts: list[Tensors]) -> Tensors:
    """The mean of dictionaries of the same names."""
    total = parts[0]
    for part in parts[1:]:
        total = tree.add(total, part)
    return tree.scale(total, 1 / len(parts)) if len(parts) > 1 else total
