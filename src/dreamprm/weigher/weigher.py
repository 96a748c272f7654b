"""The contract of a weigher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from dreamprm.setting import Settings

if TYPE_CHECKING:
    from dreamprm.weigher.features import Features
    from dreamprm.weigher.split_rows import SplitRows

__all__ = ["Weigher", "WeigherSettings", "project"]


@dataclass
class WeigherSettings(Settings):
    """Every field but `kind` is an argument of the weigher's class."""

    kind: str = ""
    learns = True  # no setting: whether the weigher has something to learn, for which it needs a meta set


class Weigher(nn.Module):
    """features -> one weight per example, (B,), differentiable in the weigher's own parameters.

    A subclass keeps its constructor's arguments in `settings`, so that `dreamprm.weigher.load` can build it again.
    """

    settings: dict[str, Any]
    per_step = False
    """Whether there is a weight for every step, (B, S), in place of one for every example."""

    rows: SplitRows | None = None
    """Which rows of its parameters this process holds; None: all of them."""

    def forward(self, features: Features) -> Float[Tensor, "B ..."]:
        raise NotImplementedError

    def opinions(self, features: Features) -> dict[str, Float[Tensor, "B S"]]:
        """What each part of a weigher that is made of several says of every step; nothing by default."""
        return {}

    def forget(self) -> None:
        """Called before each inner update: what was kept of earlier ones for a hypergradient is not needed."""

    def collect(self) -> None:
        """Called after each hypergradient: puts it into the parameters' `.grad` where autograd could not."""

    def project(self) -> None:
        """Called after each update of the weigher: puts parameters back into their bounds."""

    def observe(self, features: Features) -> None:
        """Called once per training batch: what a weigher keeps of the batches it has seen."""

    def settle(self, batches: Sequence[Features]) -> None:
        """Called before the weights of a whole data set are told."""


def project(weigher: nn.Module) -> None:
    """`weigher.project()`; nothing for a module that has no bounds."""
    if isinstance(weigher, Weigher):
        weigher.project()
