"""The records of a run: the answers of its sources, put together and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamprm.data.file_data import DataSettings
from dreamprm.data.readers.stream import RecordStream
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.sources.file_source import FileSource, SplitFileData
from dreamprm.sources.labellers_source import LabellersData, LabellersSource
from dreamprm.sources.pool_source import PoolData, PoolSource
from dreamprm.sources.source import DenseLoss, HeldOut, NoSource, Source
from dreamprm.sources.world_source import MODEL, READER, WorldData, WorldMeta, WorldMetaSource, WorldSource

__all__ = ["SOURCES", "RunData", "check_needs", "known_good", "load_data", "model_folder", "named_split"]

SOURCES: dict[str, tuple[type[DataSettings], type[Source]]] = {
    "files": (SplitFileData, FileSource),
    "pool": (PoolData, PoolSource),
    "labellers": (LabellersData, LabellersSource),
    "world": (WorldData, WorldSource),
    "world_meta": (WorldMeta, WorldMetaSource),
    "held_out": (HeldOut, Source),
}
"""The word of `data.kind` and `meta.kind` -> (settings, what answers for it): the line that a new source adds."""

_BRINGING: dict[str, type[Source]] = {MODEL: WorldSource, READER: WorldSource}
"""Sources that bring a model folder and chains of their own, by the word that names both."""


@dataclass(frozen=True)
class RunData:
    """train: weighted.  meta: judged chains of the outer problem.  test: candidates by question.  cold: cold start.

    dense_loss: (model path, device) -> the source's further loss in the cold start, None where it has none.
    by_collection: whether figures are told by collection too, beside baselines that read no text.
    """

    train: Sequence[Record]
    meta: Sequence[Record]
    test: Sequence[Record]
    cold: Sequence[Record]
    domains: list[str]
    dense_loss: Callable[[str, torch.device], DenseLoss | None]
    by_collection: bool


def check_needs(settings: Any) -> None:
    """Raises UserError that says in one line all that the run lacks before it can start."""
    sources = {name: source for name, source in _sources(settings).items() if source is not None}
    lacking = [needs for source in sources.values() if (needs := source.lacking())]
    if lacking:
        model = [settings.model.needs] if settings.model.needs and not Path(settings.model.path).exists() else []
        raise UserError(f"experiment {settings.name} needs: {'; '.join([*lacking, *model])}")


def load_data(settings: Any) -> RunData:
    """Read what the groups `data`, `meta`, `test` and `cold` of a run's settings ask for.

    Raises UserError for sources that do not go together, for keys that repeat, and where nothing is left to train on.
    """
    sources = _sources(settings)
    source, judged, candidates = sources["data"], sources["meta"], sources["test"]
    assert source is not None, "data is always set"
    train = source.train()
    meta = source.held_out() if judged is None else judged.meta()
    test = source.test() if candidates is None else candidates.test()
    cold = source.cold(train) if settings.cold.updates else []
    if settings.cold.num_examples is not None:
        cold = cold[: settings.cold.num_examples]
    if not train:
        raise UserError("no training chain with a step label: look at the data with dreamprm doctor")
    if not meta and settings.reads_meta:
        raise UserError("no meta chain of which it is known whether its answer is right: set meta.path")
    if isinstance(train, RecordStream):  # whose keys are unique
        domains = sorted(train.domains[place] for place in np.unique(train.domain))
    else:
        _check_keys(train)
        domains = sorted({record.domain for record in train})
    return RunData(train, meta, test, cold, domains, source.dense_loss, source.by_collection)


def model_folder(path: str) -> Path | None:
    """The folder of the model that a source brings under this name; None where no source has one of that name."""
    return _BRINGING[path].model_folder(path) if path in _BRINGING else None


def named_split(path: str) -> list[Record] | None:
    """The chains of `NAME/SPLIT`, NAME a source that brings its own (`world/test`); None for any other path.

    Raises ValueError for a split that the source does not have.
    """
    name, _, split = path.partition("/")
    return _BRINGING[name].split(split) if split and name in _BRINGING else None


def known_good(record: Record) -> bool | None:
    """Whether a training chain is labelled right, as only the world knows; for evaluation, never for training."""
    value = record.truth.get("mislabelled")
    return None if value is None else not value


def _sources(settings: Any) -> dict[str, Source | None]:
    """By group; None where `meta` is what `data` holds out, and where no test set of its own is set.

    Where no weights are learned no meta set is needed: one of another task, or without a path, is left alone.
    """
    data = _source(settings.data, "data")
    weighs = settings.reads_meta
    meta = None
    if not isinstance(settings.meta, HeldOut):
        meta = _source(settings.meta, "meta")
        if not weighs and (meta.world != data.world or meta.lacking()):
            meta = NoSource(settings.meta, "meta")
        elif meta.world != data.world:
            raise UserError(
                f"data={settings.data.kind} and meta={settings.meta.kind} do not go together: the meta set says which "
                "training chains to trust, so it must be of the same task. "
                + ("set meta=files meta.path=FILE" if data.world == "own" else "set meta=world, or data=files")
            )
    test = FileSource(settings.test, "test") if settings.test.path else None
    return {"data": data, "meta": meta, "test": test}


def _source(settings: DataSettings, place: str) -> Source:
    return SOURCES[settings.kind][1](settings, place)


def _check_keys(records: Sequence[Record]) -> None:
    seen: dict[str, int] = {}
    for row, record in enumerate(records):
        if record.key in seen:
            raise UserError(
                f"training examples {seen[record.key]} and {row} share the key {record.key!r} and would share one "
                "weight: give every row a key of its own (file, row, content)"
            )
        seen[record.key] = row
