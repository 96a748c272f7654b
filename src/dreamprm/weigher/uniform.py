"""Every weight 1: no selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamprm.weigher.features import Features
from dreamprm.weigher.weigher import Weigher, WeigherSettings

__all__ = ["Uniform", "UniformSettings"]


@dataclass
class UniformSettings(WeigherSettings):
    """Every weight is 1."""

    kind: str = "uniform"


class Uniform(Weigher):
    """weight = 1, without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {}

    def forward(self, features: Features) -> Float[Tensor, " B"]:
        return torch.ones(len(features), device=features.index.device)
