"""One weight per domain (DreamPRM, arXiv 2505.20241, section 4).

Shapes: B examples, D domains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dreamprm.choices import one_of
from dreamprm.setting import setting
from dreamprm.weigher.features import Features
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["DomainTable", "DomainTableSettings"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": F.softplus,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
}


@dataclass
class DomainTableSettings(WeigherSettings):
    """One weight per domain: a(raw) / mean(a(raw))."""

    kind: str = "domain_table"
    activation: str = setting("softplus", "a, which makes raw values positive", words=_ACTIVATIONS)
    normalize: bool = setting(True, "whether the mean weight over the domains is kept at 1")


class DomainTable(Weigher):
    """weight = a(raw_d) / mean_d' a(raw_d'), a = softplus; raw starts at 0, so every weight starts at 1.

    normalize: whether to divide by the mean over all domains, which keeps the mean weight at 1; without it raw starts
    where a(raw) = 1 for exp, and at a(0) otherwise.
    Raises ValueError for fewer than one domain, an unknown activation, and an example without a domain of the table.
    """

    def __init__(
        self,
        num_domains: int,
        activation: str = DomainTableSettings.activation,
        normalize: bool = DomainTableSettings.normalize,
    ) -> None:
        super().__init__()
        if num_domains < 1:
            raise ValueError(f"a domain table needs at least one domain, got {num_domains}")
        one_of(activation, _ACTIVATIONS, "activation")
        self.settings: dict[str, Any] = {
            "num_domains": num_domains,
            "activation": activation,
            "normalize": normalize,
        }
        self.activation, self.normalize = _ACTIVATIONS[activation], normalize
        self.raw = nn.Parameter(torch.zeros(num_domains))

    def weights(self) -> Float[Tensor, " D"]:
        """The weight of every domain."""
        positive = self.activation(self.raw)
        return positive / positive.mean() if self.normalize else positive

    def forward(self, features: Features) -> Float[Tensor, " B"]:
        outside = (features.domain < 0) | (features.domain >= len(self.raw))
        if outside.any():
            raise ValueError(
                f"examples of domains {sorted(set(features.domain[outside].tolist()))} in a table of {len(self.raw)}; "
                "give the collator the domains of the training data (-1 means it was given none)"
            )
        return self.weights()[features.domain]
