"""The records of a run: inner, outer, test and cold-start data, from the embedded world or from files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamprm.config.errors import UserError
from dreamprm.config.kinds import DataSettings, FileData, HeldOut, Keep, OnBadRow, PoolData, WorldData, WorldMeta
from dreamprm.config.schema import TrainConfig
from dreamprm.data.pool import Split
from dreamprm.data.record import Record

__all__ = ["RunData", "check_needs", "known_good", "load_data"]


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
        from dreamprm.trainer.pool import load_pool

        held_out = load_pool(settings.data)
        train = held_out.train
    else:
        train = _keep(_records(settings.data, "data"), settings.data)
    if isinstance(settings.meta, HeldOut):
        if held_out is None:
            raise UserError("meta=held_out takes the meta set from a pool: set data=... to one, or meta=files")
        meta = held_out.meta
    else:
        meta = [record for record in _records(settings.meta, "meta") if record.correct is not None]
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
        raise UserError("no training chain with a step label: look at the data with python -m src.doctor")
    if not meta and settings.weigher.kind != "uniform":
        raise UserError("no meta chain of which it is known whether its answer is right: set meta.path")
    _check_keys(train)
    domains = sorted({record.domain for record in train})
    return RunData(train, meta, test, cold, domains, isinstance(settings.data, WorldData))


def known_good(record: Record) -> bool | None:
    """Whether a training chain is labelled right, as only the world knows; for evaluation, never for training."""
    value = record.truth.get("mislabelled")
    return None if value is None else not value


def _records(settings: DataSettings, place: str) -> list[Record]:
    if isinstance(settings, WorldData):
        from dreamprm.world import load

        return load(
            "train",
            seed=settings.seed,
            noise=settings.noise.name,
            flipped=settings.flipped,
            num_chains=settings.num_chains,
            labels=settings.labels.name,
        )
    if isinstance(settings, WorldMeta):
        from dreamprm.world import load

        return load("meta", seed=settings.seed, num_chains=settings.num_chains)
    assert isinstance(settings, FileData), "every other kind is one of the world's"
    return _from_files(settings, place)


def _from_files(settings: FileData, place: str) -> list[Record]:
    from dreamprm.data.readers import open_records

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
    records: list[Record] = []
    per_domain: Counter[str] = Counter()
    for record in stream:
        per_domain[record.domain] += 1
        if settings.max_per_domain is None or per_domain[record.domain] <= settings.max_per_domain:
            records.append(record)
        if settings.limit is not None and len(records) == settings.limit:
            break
    return records


def _keep(records: list[Record], settings: DataSettings) -> list[Record]:
    labelled = [record for record in records if any(label is not None for label in record.labels)]
    if isinstance(settings, WorldData) and settings.keep is Keep.clean:
        return [record for record in labelled if known_good(record)]
    return labelled


def _check_keys(records: Sequence[Record]) -> None:
    seen: dict[str, int] = {}
    for row, record in enumerate(records):
        if record.key in seen:
            raise UserError(
                f"training examples {seen[record.key]} and {row} share the key {record.key!r} and would share one "
                "weight: give every row a key of its own (file, row, content)"
            )
        seen[record.key] = row
