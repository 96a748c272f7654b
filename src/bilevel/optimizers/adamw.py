"""Adam with decoupled weight decay."""

from dataclasses import dataclass
from typing import ClassVar

from .adam import Adam
from .optimizer import Setting


@dataclass(frozen=True)
class AdamW(Adam):
    """torch.optim.AdamW as pure functions: θ is multiplied by 1 - lr weight_decay before Adam's update.

    Args and errors: those of `Adam`.

    Source: Loshchilov & Hutter, arXiv 1711.05101, algorithm 2.
    """

    weight_decay: Setting = 1e-2

    decoupled: ClassVar[bool] = True
