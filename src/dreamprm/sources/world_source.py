"""The embedded world as a source: chains, dense targets of the cold start, and the model folder that comes with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamprm.choices import Judged, Keep, Trouble
from dreamprm.data.file_data import DataSettings
from dreamprm.data.record import Record
from dreamprm.setting import setting
from dreamprm.sources.source import DenseLoss, Source

__all__ = ["MODEL", "READER", "WorldData", "WorldMeta", "WorldMetaSource", "WorldSource"]

MODEL = "world"
"""The word of `model.path` for the shipped tiny InternVL."""
READER = "world_reader"
"""And for the same after image-text matching."""


@dataclass
class WorldData(DataSettings):
    """The embedded world's training chains."""

    kind: str = "world"
    seed: int = setting(0, "which chains are drawn and which labels are wrong", least=0)
    trouble: Trouble = setting(Trouble.flips, "what is wrong with the labels: see dreamprm.world.trouble")
    share: float | None = setting(None, "how much of the trouble, where it has a share; null: its own", least=0, most=1)
    num_chains: int | None = setting(None, "training chains; null: 3,000, or all that a trouble has", least=1)
    keep: Keep = setting(Keep.all, "clean: only the right ones, known to the world alone; for comparison")
    judged: Judged = setting(Judged.test, "validation: other questions, to choose settings on")


class WorldSource(Source):
    """The world's training chains, with the trouble of the settings; the cold start is on these very chains."""

    world = "embedded"

    def train(self) -> Sequence[Record]:
        from dreamprm.world import load

        given: Any = self.settings
        records = load(
            "train",
            seed=given.seed,
            trouble=given.trouble,
            share=given.share,
            num_chains=given.num_chains,
        )
        labelled = [record for record in records if any(label is not None for label in record.labels)]
        if given.keep == "clean":
            return [record for record in labelled if not record.truth["mislabelled"]]
        return labelled

    def test(self) -> Sequence[Record]:
        from dreamprm.world import load

        return load(self.settings.judged, seed=self.settings.seed)

    def dense_loss(self, model_path: str, device: torch.device) -> DenseLoss | None:
        """The loss on captions and solutions; they are written in the tokens of the world's own models."""
        if model_path not in (MODEL, READER):
            return None
        from dreamprm.world.captions import dense_batch, dense_examples, dense_loss

        def loss(prm: Any, seed: int, count: int) -> Tensor:
            examples = list(itertools.islice(dense_examples(seed), count))
            batch = {name: value.to(device) for name, value in dense_batch(prm.processor, examples).items()}
            return dense_loss(prm.transformer, batch)

        return loss

    @staticmethod
    def split(name: str) -> list[Record]:
        from dreamprm.world import load

        return load(name)

    @staticmethod
    def model_folder(name: str) -> Path | None:
        from dreamprm.world import base_folder, reader_folder

        return {MODEL: base_folder, READER: reader_folder}[name]()


@dataclass
class WorldMeta(DataSettings):
    """The embedded world's meta set: questions on the target, several judged chains each."""

    kind: str = "world_meta"
    seed: int = setting(0, "which chains are drawn", least=0)
    num_chains: int | None = setting(None, "meta chains; null: all", least=1)


class WorldMetaSource(Source):
    """The world's meta set: questions on the target, several judged chains each."""

    world = "embedded"

    def meta(self) -> Sequence[Record]:
        from dreamprm.world import load

        records = load("meta", seed=self.settings.seed, num_chains=self.settings.num_chains)
        return [record for record in records if record.correct is not None]
