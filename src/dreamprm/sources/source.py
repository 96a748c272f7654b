"""The contract of a source: what a run trains on answers for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.data.file_data import DataSettings
from dreamprm.data.record import Record
from dreamprm.errors import UserError

__all__ = ["DenseLoss", "HeldOut", "NoSource", "Source"]

DenseLoss = Callable[[nn.Module, int, int], Tensor]
"""(PRM, seed, number of examples) -> the loss on that many of the source's dense targets, fixed by the seed."""


class Source:
    """Where chains come from. A subclass answers what it can; for the rest the answers below stand.

    settings: the group `data`, `meta` or `test` of the configuration, of the subclass's own kind.
    place: the name of that group, for messages.  world: sources whose chains may judge one another share this word.
    by_collection: whether its chains come from several collections whose figures are told apart.
    """

    world = "own"
    by_collection = False

    def __init__(self, settings: Any, place: str) -> None:
        self.settings, self.place = settings, place

    def lacking(self) -> str:
        """In one line what has to be set or fetched before this source can be read; empty where nothing is."""
        return ""

    def train(self) -> Sequence[Record]:
        """Chains with a labelled step: those that are weighed."""
        raise UserError(f"{self.place}={self.settings.kind} has no training chains")

    def meta(self) -> Sequence[Record]:
        """Chains of which it is known whether their answer is right, for the outer problem."""
        raise UserError(f"{self.place}={self.settings.kind} has no meta set")

    def held_out(self) -> Sequence[Record]:
        """The meta set that this source keeps out of its own training chains."""
        raise UserError(f"meta=held_out: {self.place}={self.settings.kind} holds no questions out; set meta=files")

    def test(self) -> Sequence[Record]:
        """Candidates, several per question where best-of-N is wanted, that nothing trains on; none by default."""
        return []

    def cold(self, train: Sequence[Record]) -> Sequence[Record]:
        """What the cold start trains on; by default what is weighed later."""
        return train

    def dense_loss(self, model_path: str, device: torch.device) -> DenseLoss | None:
        """A loss on further targets for the cold start, where this source has some for the model at that path."""
        return None

    @staticmethod
    def split(name: str) -> list[Record]:
        """The chains of one of its splits, for commands that read no settings of a source."""
        raise ValueError(f"there is no split {name}")

    @staticmethod
    def model_folder(name: str) -> Path | None:
        """The folder of a model that comes with the source, by the word that `model.path` has for it."""
        return None


@dataclass
class HeldOut(DataSettings):
    """The meta set that `data` holds out."""

    kind: str = "held_out"


class NoSource(Source):
    """Stands where nothing is needed: no chains."""

    def meta(self) -> Sequence[Record]:
        return []
