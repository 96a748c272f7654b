"""Optimizers that a configuration may name: settings and class of each, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dreamprm.errors import ConfigError
from dreamprm.setting import Settings, arguments_of, setting
from dreamprm.weigher.row_adam import RowAdam

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "AdamW8bit",
    "OptimizerSettings",
    "RowAdamSettings",
    "build_optimizer",
]

_MOST_LR = 1e9  # fp32 overflows in the update itself somewhat above


@dataclass
class OptimizerSettings(Settings):
    """Every field but `kind` is an argument of the optimizer's class."""

    kind: str = ""
    lr: float = setting(1e-3, "learning rate", above=0, most=_MOST_LR)


@dataclass
class _AdamSettings(OptimizerSettings):
    betas: list[float] = setting([0.9, 0.999], "decay of the first and of the second moment", least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the second moment", least=0)
    weight_decay: float = setting(0.0, "decay of the parameters", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, e.g. [0.9, 0.999], is {self.betas}")


@dataclass
class AdamW(_AdamSettings):
    """Adam with decoupled weight decay."""

    kind: str = "adamw"
    weight_decay: float = setting(0.01, "decoupled decay of the parameters, times lr", least=0)


@dataclass
class Adam(_AdamSettings):
    """Adam; weight decay goes through the moments."""

    kind: str = "adam"


@dataclass
class AdamW8bit(_AdamSettings):
    """AdamW whose moments are held in eight bits (bitsandbytes)."""

    kind: str = "adamw8bit"
    weight_decay: float = setting(0.01, "decoupled decay of the parameters, times lr", least=0)


@dataclass
class RowAdamSettings(_AdamSettings):
    """AdamW with a clock per row, for sparse instance tables: an update costs the batch, not the table."""

    kind: str = "row_adam"


@dataclass
class SGD(OptimizerSettings):
    """Stochastic gradient descent."""

    kind: str = "sgd"
    momentum: float = setting(0.9, "share of the last step that is kept", least=0, below=1)
    dampening: float = setting(0.0, "share of the gradient that momentum leaves out", least=0, most=1)
    nesterov: bool = setting(False, "Nesterov's momentum")
    weight_decay: float = setting(0.0, "decay of the parameters", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov=true needs momentum above 0 and dampening=0")


def _adamw8bit(parameters: Iterable[nn.Parameter], **given: Any) -> torch.optim.Optimizer:
    from bitsandbytes.optim.adamw import AdamW8bit as Optimizer  # seconds to import, and not everywhere installed

    return Optimizer(parameters, **given)


OPTIMIZERS: dict[str, tuple[type[OptimizerSettings], Callable[..., torch.optim.Optimizer]]] = {
    "adamw": (AdamW, torch.optim.AdamW),
    "adam": (Adam, torch.optim.Adam),
    "adamw8bit": (AdamW8bit, _adamw8bit),
    "sgd": (SGD, torch.optim.SGD),
    "row_adam": (RowAdamSettings, RowAdam),
}
"""Kind -> (settings, class)."""


def build_optimizer(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the settings. Raises ConfigError for what its class refuses."""
    given = arguments_of(settings)
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    try:
        return OPTIMIZERS[settings.kind][1](list(parameters), **given)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"optimizer {settings.kind}: {error}") from error
