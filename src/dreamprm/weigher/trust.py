"""A weight for every step of every training example, from two opinions on its label that a phase of the run collects.

    weight_is = 2 σ(m_is + mean_t m_it + κ τ_is)

m = α z (2y - 1): how likely judges that have been trained on pool and meta set find the label y, z their log-odds; α of
meta questions that they have not seen says how sure they may be. τ: what exact hypergradients say of the step and of
its chain, in equal parts, centred over all steps and scaled to one. Where neither has an opinion the weight is 1, where
both trust a label it is near 2. `dreamprm.phases.trust_phase` says how both are come by.

Shapes: B examples of a batch, S steps, N examples of the data set, W most steps of a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dreamprm.setting import setting
from dreamprm.weigher.features import Features
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["Trust", "TrustSettings", "centred"]


@dataclass
class TrustSettings(WeigherSettings):
    """Trust in every step's label, collected once between the cold start and the last training."""

    kind: str = "trust"
    passes: int = setting(2, "over the training chains, for the hypergradient's opinion; 0: without it", least=0)
    hypergradient: float = setting(1.0, "κ, how much the hypergradient's opinion counts", least=0)
    judge_updates: int = setting(120, "of each of the two judges for the label's posterior; 0: without it", least=0)
    num_steps: int = setting(32, "most steps of a chain: the tables' width", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.passes and not self.judge_updates:
            raise ValueError("passes=0 and judge_updates=0 leave no opinion to weigh by: set one of them, or uniform")


class Trust(Weigher):
    """Tables of both opinions, (N, W), and how many steps each example has; nothing is learned by its own gradient.

    Raises ValueError for a chain of more steps than the tables are wide and for an example that has no row.
    """

    per_step = True
    posterior: Tensor
    pull: Tensor
    visits: Tensor

    def __init__(
        self,
        num_examples: int,
        passes: int = TrustSettings.passes,
        hypergradient: float = TrustSettings.hypergradient,
        judge_updates: int = TrustSettings.judge_updates,
        num_steps: int = TrustSettings.num_steps,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "num_examples": num_examples,
            "passes": passes,
            "hypergradient": hypergradient,
            "judge_updates": judge_updates,
            "num_steps": num_steps,
        }
        self.scale = hypergradient
        self.register_buffer("posterior", torch.zeros(num_examples, num_steps))
        self.register_buffer("pull", torch.zeros(num_examples, num_steps))
        self.register_buffer("visits", torch.zeros(num_examples, 1))

    def forward(self, features: Features) -> Float[Tensor, "B S"]:
        trust = sum(self.opinions(features).values())
        return torch.where(features.mask, 2 * torch.as_tensor(trust).sigmoid(), 0.0)

    def opinions(self, features: Features) -> dict[str, Float[Tensor, "B S"]]:
        """What each part adds to the trust in every step's label, 0 where there is no step."""
        m, tau = (self._rows(table, features) for table in (self.posterior, self.pull))
        mean = m.sum(1, keepdim=True) / features.num_steps.clamp_min(1)[:, None]
        return {"posterior": (m + mean) * features.mask, "hypergradient": self.scale * tau * features.mask}

    def _rows(self, table: Tensor, features: Features) -> Float[Tensor, "B S"]:
        index, length = features.index, features.mask.shape[1]
        outside = (index < 0) | (index >= len(table))
        if outside.any():
            raise ValueError(
                f"rows {index[outside].tolist()[:5]} are not in the tables of {len(table)} examples; give the collator "
                "(row, record) pairs of the training data"
            )
        self.check_width(int(features.num_steps.max()))
        rows = table[index][:, :length]
        return F.pad(rows, (0, length - rows.shape[1]))

    def check_width(self, num_steps: int) -> None:
        """Raises ValueError where a chain of so many steps has no place."""
        width = self.pull.shape[1]
        if num_steps > width:
            raise ValueError(
                f"a chain of {num_steps} steps has no place in the tables of {width} steps a chain: raise "
                "weigher.num_steps"
            )

    @torch.no_grad()
    def look(self, rows: Sequence[int], d: Float[Tensor, "B S"]) -> None:
        """Add one update's pulls on its examples. d: of size one over the batch, 0 where there is no step."""
        self.check_width(d.shape[1])
        for row, values in zip(rows, d.to(self.pull), strict=True):
            self.pull[row, : len(values)] += values
            self.visits[row] += 1

    @torch.no_grad()
    def settle_pulls(self, mask: Bool[Tensor, "N W"]) -> None:
        """The mean over visits, of each step and of its chain in equal parts, centred and scaled to one: τ."""
        mean = self.pull / self.visits.clamp_min(1)
        own, shared = centred(mean, mask), centred(mean.sum(1, keepdim=True).expand_as(mean), mask)
        self.pull.copy_(centred(own + shared, mask))

    @torch.no_grad()
    def believe(self, rows: Sequence[int], m: Float[Tensor, "B S"]) -> None:
        """Add one judge's share of m of these examples."""
        self.check_width(m.shape[1])
        for row, values in zip(rows, m.to(self.posterior), strict=True):
            self.posterior[row, : len(values)] += values


def centred(values: Float[Tensor, "N W"], mask: Bool[Tensor, "N W"]) -> Float[Tensor, "N W"]:
    """Of mean 0 and spread 1 over the steps that there are; 0 elsewhere, and everywhere where all are alike."""
    some = values[mask]
    spread = some.std(correction=0) if len(some) else some.new_zeros(())
    return (values - some.mean()) / spread * mask if spread > 0 else torch.zeros_like(values)
