"""What `hypergradient` returns."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import _tree as tree
from ._members import batched
from ._types import Tensors
from .status import Status


@dataclass(frozen=True)
class Result:
    """A hypergradient and what came with it."""

    grad: Tensors
    """The total derivative of the outer loss, built and shaped like hyper."""
    outer_loss: Tensor
    """F(θ, φ), a scalar."""
    params: Tensors
    """The inner parameters at which the outer loss was evaluated."""
    state: Any = None
    """What the method needs to go on from there: the inner optimizer's state, or the method's own."""
    outcome: Status | Tensor = Status.DONE
    """How the method ended, before the numbers were looked at; a tensor of `Status.code` under vmap."""
    stats: dict[str, Any] = field(default_factory=dict[str, Any])
    """`passes` (forward and backward passes over one batch, products with second derivatives included), and for
    solvers `iterations`, the relative `residual` and whether they `converged`."""

    @property
    def status(self) -> Status:
        """How the method ended; NOT_FINITE where the loss or the gradient is not.

        Reading it looks at the numbers, which waits for the device; not reading it does not, so that `hypergradient`
        itself can stand under vmap and jacrev.

        Raises:
            ValueError: under vmap, where each member has a status of its own.
        """
        if isinstance(self.outcome, Tensor) or batched(self.outer_loss):
            raise ValueError(
                "result.status under vmap: each member has one of its own, and no text can be batched; return "
                "result.outcome and result.stats['converged'] from the vmapped function"
            )
        finite = tree.all_finite({"outer_loss": self.outer_loss, **tree.leaves(self.grad)})
        return self.outcome if bool(finite) else Status.NOT_FINITE
