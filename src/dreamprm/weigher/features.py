"""What a weigher may see of an example.

Shapes: B examples, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from dreamprm.prm.collate import Batch

__all__ = ["Features", "from_batch"]


@dataclass(frozen=True, slots=True)
class Features:
    """Per step:
    probability P(+); agreement (P(+) - 1/2)(2y - 1), so a confident right and a confident wrong label differ in sign;
    monte_carlo y, the label itself; place s/S of the step in its chain, from 0 to 1.
    A step without a label has agreement 0 and monte_carlo 1/2.
    Per example: log_loss log(1 + its loss); num_steps; domain (-1: not in use); index, its row in the data set.
    """

    probability: Float[Tensor, "B S"]
    agreement: Float[Tensor, "B S"]
    monte_carlo: Float[Tensor, "B S"]
    place: Float[Tensor, "B S"]
    mask: Bool[Tensor, "B S"]
    log_loss: Float[Tensor, " B"]
    num_steps: Int[Tensor, " B"]
    domain: Int[Tensor, " B"]
    index: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor) -> Features:
        """The same features of some of the examples."""
        return Features(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def from_batch(
    batch: Batch,
    step_logits: Float[Tensor, "B S"],
    losses: Float[Tensor, " B"],
    *,
    detach: bool = True,
) -> Features:
    """The features of a batch from the PRM's log-odds and the examples' losses, in float32.

    detach: whether the weigher's input is cut from the PRM. Not cut, the PRM can lower its own loss by lowering its
        own weight (as DreamPRM-1.5's released code allows).
    """
    if detach:
        step_logits, losses = step_logits.detach(), losses.detach()
    probability = step_logits.float().sigmoid()
    labels = torch.where(batch.label_mask, batch.labels, torch.full_like(batch.labels, 0.5))
    num_steps = batch.step_mask.sum(1)
    place = torch.arange(batch.step_mask.shape[1], device=num_steps.device) / (num_steps - 1).clamp_min(1)[:, None]
    return Features(
        probability=probability,
        agreement=(probability - 0.5) * (2 * labels - 1),
        monte_carlo=labels,
        place=place.clamp_max(1.0),
        mask=batch.step_mask,
        log_loss=losses.float().log1p(),
        num_steps=num_steps,
        domain=batch.domain,
        index=batch.index,
    )
