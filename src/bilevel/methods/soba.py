"""SOBA: inner parameters, linear system and hyperparameters move together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import _checks as checks
from .. import _tree as tree
from .._products import check_product, gradient, gradients, hessian, mixed, used_gradient
from .._randomness import Replayed
from .._types import Tensors
from ..optimizers.optimizer import Optimizer, State, check_fixed, check_optimizer
from ..problem import Bilevel
from ..result import Result


@dataclass(frozen=True)
class SOBAState:
    """What SOBA carries from call to call."""

    optimizer: State
    v: Tensors
    """The estimate of H⁻¹ ∇F, shaped like the parameters."""


@dataclass(frozen=True)
class SOBA:
    """Single loop: each inner batch moves θ one step on L and v one step towards H⁻¹ ∇F(θ).

    Per batch:  v ← v - step (H v - ∇F(θ));  θ ← T(θ, ∇L(θ, φ));   at the end  dF/dφ ≈ ∂F/∂φ - ∂/∂φ <∇L(θ, φ), v>.

    Not exact in one call; with φ held, calls converge to the implicit hypergradient. Pass `result.params` and
    `result.state` to the next call. Differs from the paper in that the gradient is taken after the moves, not beside
    them, which is the same iteration shifted by one.

    Args:
        optimizer: a functional optimizer for θ.
        step: step size of v, below 2 / (largest eigenvalue of H).
        product: "jvp" or "vjp", see `bilevel._products`.

    Raises:
        ValueError: a setting out of range, when built; an optimizer whose settings come from hyper.

    Source: Dagréou et al., arXiv 2201.13409, algorithm 1.
    """

    optimizer: Optimizer
    step: float = 0.1
    product: str = "jvp"

    def __post_init__(self) -> None:
        check_optimizer("SOBA", self.optimizer)
        check_fixed("SOBA", self.optimizer)
        checks.number("SOBA", "step", self.step, above=0.0)
        check_product("SOBA", self.product)

    def run(
        self,
        problem: Bilevel,
        params: Tensors,
        hyper: Tensors,
        inner_batches: Sequence[Any],
        outer_batch: Any,
        state: SOBAState | None,
    ) -> Result:
        """Move θ and v once per batch, then take the gradient."""
        if state is not None and not isinstance(state, SOBAState):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"SOBA: state is a {type(state).__name__}; allowed is None or the state of SOBA's last result"
            )
        state = SOBAState(self.optimizer.init(params), tree.zeros_like(params)) if state is None else state
        moments, v = state.optimizer, state.v
        outer = Replayed(problem.outer_at(outer_batch))
        loss = None
        for batch in inner_batches:
            loss = Replayed(problem.inner_at(batch))
            grads = used_gradient(loss, params, hyper)
            error = tree.add(hessian(loss, params, hyper, v, self.product), gradient(outer, params, hyper), -1.0)
            v = tree.add(v, error, -self.step)
            params, moments = self.optimizer.update(params, grads, moments, hyper)
        assert loss is not None
        value, _, total = gradients(outer, params, hyper)
        total = tree.add(total, mixed(loss, params, hyper, v, self.product), -1.0)
        passes = 3 * len(inner_batches) + 2
        return Result(total, value, params, SOBAState(moments, v), stats={"passes": passes})
