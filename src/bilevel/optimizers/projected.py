"""A constraint after every step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._types import Tensors
from .optimizer import Optimizer, State, check_optimizer


@dataclass(frozen=True)
class Projected:
    """θ' = P(T(θ, g), φ): an optimizer's step, then a projection, which is part of the derivative.

    A projection onto a set is differentiated by autograd like any other function: where a bound is active it holds the
    coordinate, and no gradient passes; where the set's edge depends on φ, that is differentiated too. On the edge
    itself it is torch's choice of the two derivatives.

    Args:
        optimizer: a functional optimizer, the T.
        projection: P, (params, hyper) -> params, pure: all of them, or those that are constrained (others stay).

    Raises:
        ValueError: a setting that cannot be right, when built; a projection that gives other names or shapes.

    At the inner minimum the steps are gone: use `Implicit` on a `FixedPoint` of `proximal_map` there.
    """

    optimizer: Optimizer
    projection: Callable[[Tensors, Tensors], Tensors]

    def __post_init__(self) -> None:
        check_optimizer("Projected", self.optimizer)
        if not callable(self.projection):
            raise ValueError("Projected(projection=…): allowed is a function (params, hyper) -> params")

    @property
    def weight_decay(self) -> Any:
        """That of the optimizer."""
        return getattr(self.optimizer, "weight_decay", 0.0)

    def init(self, params: Tensors) -> State:
        """The optimizer's."""
        return self.optimizer.init(params)

    def update(
        self, params: Tensors, grads: Tensors, state: State, hyper: Tensors | None = None
    ) -> tuple[Tensors, State]:
        """One update, then the projection."""
        moved, state = self.optimizer.update(params, grads, state, hyper)
        return projected(self.projection(dict(moved), {} if hyper is None else hyper), moved), state


def projected(found: dict[str, Tensor], moved: Tensors) -> Tensors:
    """`moved`, with what a projection has found in its place.

    Raises:
        ValueError: other names, or other shapes.
    """
    for name, tensor in found.items():
        if name not in moved or tensor.shape != moved[name].shape:
            allowed = ", ".join(f"{key} {tuple(value.shape)}" for key, value in moved.items())
            raise ValueError(
                f"the projection gives {name} {tuple(tensor.shape)}; allowed are the parameters' names and shapes: "
                f"{allowed}"
            )
    return {name: found.get(name, tensor).to(tensor.dtype) for name, tensor in moved.items()}
