"""Inner problems that are no minimisation: roots and fixed points, proximal and projected ones among them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from . import _tree as tree
from ._functional import grad, vjp
from ._nested import Tree
from ._types import Loss, Tensors
from .problem import scalar

Map: TypeAlias = Callable[[Tensors, Tensors, Any], Tensors]
"""(params, hyper, batch) -> tensors named and shaped like params."""


@dataclass(frozen=True)
class Root:
    """An outer loss at a root: F(θ(φ), φ) with f(θ(φ), φ) = 0, for `bilevel.Implicit`.

    Args:
        function: f, as many values as parameters; its Jacobian need not be symmetric.
        outer: F.
    """

    function: Map
    outer: Loss

    def __post_init__(self) -> None:
        for field in ("function", "outer"):
            if not callable(getattr(self, field)):
                raise ValueError(f"{type(self).__name__}({field}=…): allowed is a function (params, hyper, batch)")

    def outer_at(self, batch: Any) -> Callable[[Tensors, Tensors], Tensor]:
        """(params, hyper) -> outer loss on `batch`, checked to be a scalar."""
        return lambda params, hyper: scalar("outer", self.outer, params, hyper, batch)

    def residual_at(self, batch: Any) -> Callable[[Tensors, Tensors], Tensors]:
        """(params, hyper) -> what is 0 at the solution, checked to be shaped like params."""

        def residual(params: Tensors, hyper: Tensors) -> Tensors:
            value = self.function(params, hyper, batch)
            if {name: t.shape for name, t in value.items()} != {name: t.shape for name, t in params.items()}:
                raise ValueError(
                    f"{type(self).__name__}.function gives {_shapes(value)}; it must give one value per parameter: "
                    f"{_shapes(params)}"
                )
            return {name: value[name] for name in params}

        return residual


@dataclass(frozen=True)
class FixedPoint(Root):
    """An outer loss at a fixed point: θ(φ) = T(θ(φ), φ), T given as `function`."""

    def residual_at(self, batch: Any) -> Callable[[Tensors, Tensors], Tensors]:
        """θ - T(θ, φ)."""
        mapped = super().residual_at(batch)
        return lambda params, hyper: tree.add(params, mapped(params, hyper), -1.0)


def proximal_map(inner: Loss, proximal: Callable[[Tensors, Tensors, float], Tensors], rate: float) -> Map:
    """T(θ, φ) = prox(θ - rate ∇L(θ, φ), φ, rate): its fixed points minimise L plus what the proximal map stands for.

    Args:
        inner: L, the smooth part of the inner loss.
        proximal: (params, hyper, rate) -> params: soft thresholding for an L1 penalty; for a constraint the
            projection onto the set, which has no use for the rate. Where it has a kink, so has the solution.
        rate: any positive number; the fixed points do not depend on it.

    Returns:
        The `function` of a `FixedPoint`.

    Source: Bertrand et al., arXiv 2002.08943; Blondel et al., arXiv 2105.15183, section 2.2.
    """

    def step(params: Tensors, hyper: Tensors, batch: Any) -> Tensors:
        structure, flat = Tree.of("params", params)

        def loss(at: Tensors) -> Tensor:
            return scalar("inner", inner, structure.build(at), hyper, batch)

        return proximal(structure.build(tree.add(flat, grad(loss, 0)(flat), -rate)), hyper, rate)

    return step


def pull_at(
    residuals: list[Callable[[Tensors, Tensors], Tensors]], params: Tensors, hyper: Tensors
) -> Callable[[Tensors], tuple[Any, ...]]:
    """v -> ((∂f/∂θ)ᵀ v, (∂f/∂φ)ᵀ v), f the mean of the residuals."""

    def mean(params: Tensors, hyper: Tensors) -> Tensors:
        total = residuals[0](params, hyper)
        for residual in residuals[1:]:
            total = tree.add(total, residual(params, hyper))
        return tree.scale(total, 1 / len(residuals))

    return vjp(mean, params, hyper)


def _shapes(tensors: Tensors) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
