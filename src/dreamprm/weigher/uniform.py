"""Every weight the same: no selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamprm.setting import setting
from dreamprm.weigher.features import Features
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["Uniform", "UniformSettings"]


@dataclass
class UniformSettings(WeigherSettings):
    """Every weight is the same."""

    kind: str = "uniform"
    learns = False
    weight: float = setting(1.0, "the weight of every example; 0 leaves the training data out", least=0)


class Uniform(Weigher):
    """weight = 1, or another number for all; without parameters."""

    def __init__(self, weight: float = UniformSettings.weight) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"weight": weight}
        self.weight = weight

    def forward(self, features: Features) -> Float[Tensor, " B"]:
        return torch.full((len(features),), self.weight, device=features.index.device)
