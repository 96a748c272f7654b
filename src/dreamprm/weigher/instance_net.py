"""A small net from an example's features to its weight (DreamPRM-1.5's Instance Net, arXiv 2509.05542).

Shapes: B examples, S steps, F features, K hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamprm.choices import NetInput, one_of
from dreamprm.distributed import count_everywhere, mean_everywhere
from dreamprm.setting import setting
from dreamprm.weigher.features import Features
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["InstanceNet", "InstanceNetSettings"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}
_DOMAIN_WIDTH = 4
_WIDTHS = {NetInput.label_aware: 6, NetInput.loss: 1, NetInput.paper: 2}


@dataclass
class InstanceNetSettings(WeigherSettings):
    """A small net from each chain's scores, label and loss to its weight."""

    kind: str = "instance_net"
    features: NetInput = setting(NetInput.label_aware, "what it sees of a step")
    hidden: int | None = setting(None, "hidden units; null: 32, for features=paper 10", least=1)
    low: float = setting(0.0, "smallest weight")
    high: float | None = setting(None, "largest weight; null: 2, for features=paper 1")
    activation: str = setting("leaky_relu", "activation of the hidden units", words=_ACTIVATIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.high is not None and not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")


class InstanceNet(Weigher):
    """weight = low + (high - low) σ(z - z̄),  z = mean_s W₂ a(W₁ x_s + b₁) + b₂.

    z̄ is the batch's mean of z, over all processes, while training (a running mean where the batch is one example), the
    training set's in evaluation: only relative trust is learned. Differs from the paper, whose z̄ is 0 (as in
    features='paper'): one update ahead, training less on noisy data is always better, so all weights fall to 0 together
    and the PRM stops learning; so it did on the embedded world.

    features='label_aware': x_s holds P(+), its agreement with the label, log(1 + loss), the label, the step's place,
    the number of steps and an embedding of the domain (where num_domains is given). The last layer starts at zero, so
    every weight starts in the middle of its bounds: 1 of [0, 2].
    features='loss': x_s is log(1 + loss) of the chain alone, as in Meta-Weight-Net (arXiv 1902.07379).
    features='paper': x_s is the two-way softmax (P(+), P(-)), hidden=10, weight in [0, 1], as published: 41 parameters,
    blind to the label. Differs from the paper in nothing but that its input is detached unless the features are not.
    Raises ValueError for unknown settings, and for an example without a domain where domains are in use.
    """

    centre: Tensor

    def __init__(
        self,
        num_domains: int = 0,
        features: str = InstanceNetSettings.features,
        hidden: int | None = InstanceNetSettings.hidden,
        *,
        low: float = InstanceNetSettings.low,
        high: float | None = InstanceNetSettings.high,
        activation: str = InstanceNetSettings.activation,
    ) -> None:
        super().__init__()
        features = one_of(features, NetInput, "kind of features")
        one_of(activation, _ACTIVATIONS, "activation")
        paper = features == NetInput.paper
        hidden = (10 if paper else 32) if hidden is None else hidden
        high = (1.0 if paper else 2.0) if high is None else high
        if hidden < 1 or not low < high:
            raise ValueError(f"hidden={hidden} must be at least 1, and low={low} below high={high}")
        self.settings: dict[str, Any] = {
            "num_domains": num_domains,
            "features": features,
            "hidden": hidden,
            "low": low,
            "high": high,
            "activation": activation,
        }
        self.features, self.low, self.high = features, low, high
        self.centred = not paper
        self.register_buffer("centre", torch.zeros(()))
        aware = features == NetInput.label_aware
        self.domain = nn.Embedding(num_domains, _DOMAIN_WIDTH) if num_domains and aware else None
        width = _WIDTHS[NetInput(features)] + (0 if self.domain is None else _DOMAIN_WIDTH)
        self.net = nn.Sequential(nn.Linear(width, hidden), _ACTIVATIONS[activation](), nn.Linear(hidden, 1))
        if not paper:
            for parameter in self.net[2].parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Features) -> Float[Tensor, " B"]:
        logits = self._logits(features)
        # While training the batch is its own measure; a batch of one has its predecessors', see `observe`.
        batch_counts = self.centred and self.training and count_everywhere(len(logits)) > 1
        centre = mean_everywhere(logits) if batch_counts else self.centre
        return self.low + (self.high - self.low) * (logits - centre).sigmoid()

    @torch.no_grad()
    def observe(self, features: Features) -> None:
        """Move z̄ a tenth of the way to this batch's mean."""
        if self.centred:
            self.centre.lerp_(mean_everywhere(self._logits(features)), 0.1)

    @torch.no_grad()
    def settle(self, batches: Sequence[Features]) -> None:
        """Set z̄ to the mean over all of a data set, from which its weights are then told."""
        if self.centred:
            self.centre.copy_(torch.cat([self._logits(features) for features in batches]).mean())

    def _logits(self, features: Features) -> Float[Tensor, " B"]:
        scores = self.net(self._inputs(features))[..., 0]
        return scores.masked_fill(~features.mask, 0.0).sum(1) / features.mask.sum(1).clamp_min(1)

    def _inputs(self, features: Features) -> Float[Tensor, "B S F"]:
        probability = features.probability
        if self.features == NetInput.paper:
            return torch.stack([probability, 1 - probability], -1)
        if self.features == NetInput.loss:
            return features.log_loss[:, None, None].expand(*probability.shape, 1)
        # Centred, and of order one: raw labels and losses as they were kept the net from learning at all.
        per_example = [features.log_loss, features.num_steps.float().log() / 2 - 0.5]
        columns = [
            2 * probability - 1,
            2 * features.agreement,
            2 * features.monte_carlo - 1,
            2 * features.place - 1,
            *(values[:, None].expand_as(probability) for values in per_example),
        ]
        inputs = torch.stack(columns, -1)
        if self.domain is None:
            return inputs
        if (features.domain < 0).any():
            raise ValueError("this instance net reads domains; give the collator the domains of the training data")
        embedded = self.domain(features.domain)[:, None].expand(-1, inputs.shape[1], -1)
        return torch.cat([inputs, embedded], -1)
