"""The records of a run: inner, outer, test and cold-start data, from the embedded world or from files.

Files of more than 20,000 chains stay on disk: which of them are labelled, judged, of which domain, the readers' index
knows, and a chain is read when it is drawn. Smaller ones are read into memory, since a row of a parquet file costs its
whole row group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamprm.config.kinds import DataSettings, FileData, HeldOut, Keep, OnBadRow, PoolData, WorldData, WorldMeta
from dreamprm.config.schema import TrainConfig
from dreamprm.data.pool import Split
from dreamprm.data.readers.stream import RecordStream
from dreamprm.data.record import Record
from dreamprm.errors import UserError

__all__ = ["RunData", "check_needs", "known_good", "load_data"]

_IN_MEMORY = 20_000


@dataclass(frozen=True)
class RunData:
    """train: weighted.  meta: judged chains of the outer problem.  test: candidates by question.  cold: cold start."""

    train: Sequence[Record]
    meta: Sequence[Record]
    test: Sequence[Record]
    cold: Sequence[Record]
    domains: list[str]
    is_world: bool


def check_needs(settings: TrainConfig) -> None:
    """Raises UserError that says in one line all that the run lacks before it can start."""
    lacking = [part.needs for part in (settings.data, settings.meta) if isinstance(part, FileData) and not part.path]
    if lacking:
        model = [settings.model.needs] if settings.model.needs and not Path(settings.model.path).exists() else []
        raise UserError(f"experiment {settings.name} needs: {'; '.join([*lacking, *model])}")


def load_data(settings: TrainConfig) -> RunData:
    """Read what the run trains on. Raises UserError for keys that repeat, and where nothing is left to train on."""
    held_out: Split | None = None
    if isinstance(settings.data, PoolData):
        from dreamprm.sources.from_pool import load_pool

        held_out = load_pool(settings.data)
        train = held_out.train
    else:
        train = _training(settings.data)
    if isinstance(settings.meta, HeldOut):
        if held_out is None:
            raise UserError("meta=held_out takes the meta set from a pool: set data=... to one, or meta=files")
        meta = held_out.meta
    else:
        meta = _judged(settings.meta)
    if held_out is not None:
        cold, test = train, held_out.test
    elif isinstance(settings.data, WorldData):
        from dreamprm.world import load

        cold = load("cold", seed=settings.data.seed) if settings.cold.updates else []
        test = load(settings.data.judged.name, seed=settings.data.seed)
    else:
        cold, test = train, []
    if settings.cold.num_examples is not None:
        cold = cold[: settings.cold.num_examples]
    if not train:
        raise UserError("no training chain with a step label: look at the data with dreamprm doctor")
    if not meta and settings.weigher.kind != "uniform":
        raise UserError("no meta chain of which it is known whether its answer is right: set meta.path")
    if isinstance(train, RecordStream):  # whose keys are unique
        domains = sorted(train.domains[place] for place in np.unique(train.domain))
    else:
        _check_keys(train)
        domains = sorted({record.domain for record in train})
    return RunData(train, meta, test, cold, domains, isinstance(settings.data, WorldData))


def known_good(record: Record) -> bool | None:
    """Whether a training chain is labelled right, as only the world knows; for evaluation, never for training."""
    value = record.truth.get("mislabelled")
    return None if value is None else not value


def _training(settings: DataSettings) -> Sequence[Record]:
    """Chains with a labelled step."""
    if not isinstance(settings, WorldData):
        return _from_files(settings, "data")
    from dreamprm.world import load

    records = load(
        "train",
        seed=settings.seed,
        noise=settings.noise.name,
        flipped=settings.flipped,
        num_chains=settings.num_chains,
        labels=settings.labels.name,
    )
    labelled = [record for record in records if any(label is not None for label in record.labels)]
    return [record for record in labelled if known_good(record)] if settings.keep is Keep.clean else labelled


def _judged(settings: DataSettings) -> Sequence[Record]:
    """Chains of which it is known whether their answer is right."""
    if not isinstance(settings, WorldMeta):
        return _from_files(settings, "meta")
    from dreamprm.world import load

    records = load("meta", seed=settings.seed, num_chains=settings.num_chains)
    return [record for record in records if record.correct is not None]


def _from_files(settings: DataSettings, place: str) -> Sequence[Record]:
    """Of the first `max_per_domain` chains of each domain the first `limit`, and of these all that serve `place`."""
    from dreamprm.data.readers import open_records

    assert isinstance(settings, FileData), "every other kind is one of the world's"
    if settings.path is None:
        raise UserError(f"{place}.path is not set: {settings.needs}")
    side_file = settings.quarantine or f"{settings.path}.bad_rows.jsonl"
    stream = open_records(
        settings.path,
        settings.format,
        images=settings.images,
        on_bad_row=settings.on_bad_row.name,
        quarantine=side_file if settings.on_bad_row is OnBadRow.quarantine else None,
        split=settings.split,
    )
    places = np.arange(len(stream))
    if settings.max_per_domain is not None:
        firsts = [np.flatnonzero(stream.domain == name)[: settings.max_per_domain] for name in np.unique(stream.domain)]
        places = np.sort(np.concatenate([places[:0], *firsts]))
    places = places[: settings.limit]
    serving = stream.labelled if place == "data" else stream.judged
    kept = stream.take(places[serving[places]])
    return kept if len(kept) > _IN_MEMORY else list(kept)


def _check_keys(records: Sequence[Record]) -> None:
    seen: dict[str, int] = {}
    for row, record in enumerate(records):
        if record.key in seen:
            raise UserError(
                f"training examples {seen[record.key]} and {row} share the key {record.key!r} and would share one "
                "weight: give every row a key of its own (file, row, content)"
            )
        seen[record.key] = row
