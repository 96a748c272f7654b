"""What `hypergradient` returns."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import _tree as tree
from ._types import Tensors
from .status import Status


@dataclass(frozen=True)
class Result:
    """A hypergradient and what came with it."""

    grad: Tensors
    """The total derivative of the outer loss, shaped like hyper."""
    outer_loss: Tensor
    """F(θ, φ), a scalar."""
    params: Tensors
    """The inner parameters at which the outer loss was evaluated."""
    state: Any = None
    """What the method needs to go on from there: the inner optimizer's state, or the method's own."""
    outcome: Status = Status.DONE
    """How the method ended, before the numbers were looked at."""
    stats: dict[str, Any] = field(default_factory=dict[str, Any])
    """`passes` (forward and backward passes over one batch, products with second derivatives included), and for
    solvers `iterations` and the relative `residual`."""

    @property
    def status(self) -> Status:
        """How the method ended; NOT_FINITE where the loss or the gradient is not.

        Reading it looks at the numbers, which waits for the device; not reading it does not, so that `hypergradient`
        itself can stand under vmap and jacrev.
        """
        finite = tree.all_finite({"outer_loss": self.outer_loss, **self.grad})
        return self.outcome if bool(finite) else Status.NOT_FINITE
