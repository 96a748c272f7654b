"""What the loop asks of a phase, and what the phases do alike.

Shapes: B examples of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dreamprm.distributed import local_part, sum_everywhere
from dreamprm.errors import UserError
from dreamprm.loss import example_losses
from dreamprm.metrics import PhaseName
from dreamprm.phases.way_back import way_back

if TYPE_CHECKING:
    from dreamprm.phases.state import Run
    from dreamprm.prm.collate import Batch

__all__ = ["Made", "Phase", "clip", "inner_losses", "pieces"]


class Made(NamedTuple):
    """What one call of `Phase.update` did. numbers: to log.  num_updates: inner updates that it made."""

    numbers: dict[str, float]
    num_updates: int = 1


class Phase(Protocol):
    """A part of the run with optimizers of its own, made when its first update is due and dropped after its last.

    optimizers: by the name that a checkpoint has for them, `inner` and `outer`.
    """

    name: PhaseName
    optimizers: dict[str, torch.optim.Optimizer]

    def update(self) -> Made:
        """The next update, or several that belong together. The run's counter is the loop's to move."""
        ...


def inner_losses(run: Run, batch: Batch, logits: Tensor) -> Tensor:
    """The loss of every example, (B,). Raises UserError naming the examples whose loss is not finite."""
    losses = example_losses(logits, batch, run.settings.inner.loss)
    bad = (~losses.detach().isfinite()).nonzero().flatten().tolist()
    if bad:
        keys = ", ".join(batch.keys[place] for place in bad[:5]) + (" …" if len(bad) > 5 else "")
        raise UserError(
            f"update {run.update}: the loss of {len(bad)} of {len(losses)} examples is not finite ({keys}). "
            f"{way_back(run)}"
        )
    return losses


def pieces(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """The rows of each micro-batch."""
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def clip(parameters: Sequence[nn.Parameter], norm: float | None, *, split: bool = False) -> float:
    """Clip by the global norm in place, sparse gradients too; return the norm before.

    split: whether each process holds its part of every gradient.
    """
    parts: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                parts.append(parameter.grad._values())
            else:
                parts.append(local_part(parameter.grad))
    if not parts:
        return 0.0
    total = torch.stack([part.norm(dtype=torch.float32) for part in parts]).norm()
    if split:
        total = sum_everywhere(total.square()).sqrt()
    if norm is not None and total > norm:
        factor = norm / (total + 1e-6)
        for part in parts:
            part.mul_(factor.to(part.dtype))
    return total.item()
