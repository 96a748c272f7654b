"""A small net from every step's features to a weight of its own: labels go wrong step by step.

Shapes: B examples, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamprm.distributed import count_everywhere, mean_everywhere
from dreamprm.weigher.features import Features
from dreamprm.weigher.instance_net import InstanceNet, InstanceNetSettings

__all__ = ["StepNet", "StepNetSettings"]


@dataclass
class StepNetSettings(InstanceNetSettings):
    """The instance net without its mean over the steps: a weight for every step."""

    kind: str = "step_net"


class StepNet(InstanceNet):
    """weight_s = low + (high - low) σ(z_s - z̄),  z_s = W₂ a(W₁ x_s + b₁) + b₂, z̄ the mean of z over steps.

    A chain's loss is then the mean of weight_s times the loss of step s. Places without a step have weight 0. Settings
    and inputs are the instance net's; the losses are (B, S), so the hypergradient is by `product=jvp`.
    """

    per_step = True

    def forward(self, features: Features) -> Float[Tensor, "B S"]:
        logits, mask = self.net(self._inputs(features))[..., 0], features.mask
        # While training the batch is its own measure; a single step has its predecessors', see `observe`.
        alone = not self.centred or not self.training or count_everywhere(int(mask.sum())) < 2
        centre = self.centre if alone else mean_everywhere(logits[mask])
        weights = self.low + (self.high - self.low) * (logits - centre).sigmoid()
        return torch.where(mask, weights, torch.zeros_like(weights))

    @torch.no_grad()
    def observe(self, features: Features) -> None:
        """Move z̄ a tenth of the way to the mean over this batch's steps."""
        if self.centred:
            self.centre.lerp_(mean_everywhere(self._of_steps(features)), 0.1)

    @torch.no_grad()
    def settle(self, batches: Sequence[Features]) -> None:
        """Set z̄ to the mean over all steps of a data set."""
        if self.centred:
            self.centre.copy_(torch.cat([self._of_steps(features) for features in batches]).mean())

    def _of_steps(self, features: Features) -> Tensor:
        return self.net(self._inputs(features))[..., 0][features.mask]
