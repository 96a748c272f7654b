"""The embedded world as a source: chains, dense targets of the cold start, and the model folder that comes with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamprm.data.record import Record
from dreamprm.sources.source import DenseLoss, Source

__all__ = ["MODEL", "WorldMetaSource", "WorldSource"]

MODEL = "world"
"""The word of `model.path` for the shipped tiny InternVL."""


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
        """The loss on captions and solutions; they are written in the tokens of the world's own model."""
        if model_path != MODEL:
            return None
        from dreamprm.world.captions import dense_batch, dense_examples, dense_loss

        def loss(prm: Any, seed: int, count: int) -> Tensor:
            examples = list(itertools.islice(dense_examples(seed), count))
            batch = {name: value.to(device) for name, value in dense_batch(prm.processor, examples).items()}
            return dense_loss(prm.transformer, batch)

        return loss

    @staticmethod
    def model_folder() -> Path | None:
        from dreamprm.world import base_folder

        return base_folder()


class WorldMetaSource(Source):
    """The world's meta set: questions on the target, several judged chains each."""

    world = "embedded"

    def meta(self) -> Sequence[Record]:
        from dreamprm.world import load

        records = load("meta", seed=self.settings.seed, num_chains=self.settings.num_chains)
        return [record for record in records if record.correct is not None]
