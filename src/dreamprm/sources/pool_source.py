"""Several files or folders as one pool of chains, thinned out and split by question into training, meta and test."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamprm.data.file_data import DataSettings
from dreamprm.data.pool import Split, from_outcome, split_pool, thin_out
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.progress import say
from dreamprm.setting import Settings, setting
from dreamprm.sources.present_images import require_images
from dreamprm.sources.source import Source

__all__ = ["DATA_VARIABLE", "PoolCollection", "PoolData", "PoolSource", "pool_folder"]

DATA_VARIABLE = "DREAMPRM_DATA"


@dataclass
class PoolCollection(Settings):
    """A file or folder of a pool."""

    path: str = setting("", "below the pool's folder")
    format: str | None = setting(None, "name of the format; null: recognised")
    outcome: bool = setting(False, "a chain's outcome becomes the label of its steps, where there are no step labels")
    domain: str | None = setting(None, "the name for all of its chains")
    max_per_domain: int | None = setting(None, "only about that many chains of each domain", least=1)


@dataclass
class PoolData(DataSettings):
    """Several files split by question into training, meta and test sets (`meta=held_out`).

    Rows that cannot be read are passed over, with their number said.
    """

    kind: str = "pool"
    folder: str | None = setting(None, "where the collections lie; null takes the environment's DREAMPRM_DATA")
    sources: list[PoolCollection] = setting([], "collections, as [{path: FILE}, …]")
    seed: int = setting(0, "which questions are held out", least=0)
    meta_share: float = setting(0.2, "share of the questions that are the meta set", above=0, below=1)
    test_share: float = setting(0.3, "share of the questions that are the test set", above=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.meta_share + self.test_share >= 1:
            raise ValueError(
                "meta_share and test_share must leave something to train on, are "
                f"{self.meta_share} and {self.test_share}"
            )


class PoolSource(Source):
    """Its meta set is the one that it holds out (`meta=held_out`)."""

    by_collection = True

    def lacking(self) -> str:
        try:
            pool_folder(self.settings)
        except UserError as error:
            return str(error)
        return ""

    def train(self) -> Sequence[Record]:
        return self._split.train

    def held_out(self) -> Sequence[Record]:
        return self._split.meta

    def test(self) -> Sequence[Record]:
        return self._split.test

    @functools.cached_property
    def _split(self) -> Split:
        """Every source read, and the pool split. Raises UserError for what is not there or cannot be read."""
        folder = pool_folder(self.settings)
        sources = [_read(folder, source) for source in self.settings.sources]
        shares: dict[str, Any] = {"meta": self.settings.meta_share, "test": self.settings.test_share}
        return split_pool(sources, **shares, seed=self.settings.seed)


def pool_folder(settings: Any) -> Path:
    """`data.folder`, else the environment's DREAMPRM_DATA.

    Raises UserError, one line, where neither is set, and where a source does not lie there.
    """
    if not settings.sources:
        raise UserError("data.sources is empty: name files or folders below data.folder")
    names = ", ".join(source.path for source in settings.sources)
    given = settings.folder or os.environ.get(DATA_VARIABLE)
    if not given:
        raise UserError(f"set data.folder, or {DATA_VARIABLE}, to the folder that holds {names}")
    folder = Path(given)
    lacking = [source.path for source in settings.sources if not (folder / source.path).exists()]
    if lacking:
        raise UserError(f"{', '.join(lacking)} not found in {folder}: set data.folder, or {DATA_VARIABLE}, to theirs")
    return folder


def _read(folder: Path, source: Any) -> list[Record]:
    from dreamprm.data.readers import BadRows, read

    bad = BadRows("skip")
    records: list[Record] = []
    empty = 0
    for record in read(folder / source.path, source.format, on_bad_row=bad):
        if record.steps:
            collection = {"collection": Path(source.path).parts[0]}
            records.append(replace(record, extra={**record.extra, **collection}))
        else:
            empty += 1
    if source.outcome:
        records = [from_outcome(record, source.domain) for record in records if record.correct is not None]
    whole = len(records)
    records = thin_out(records, source.max_per_domain)
    require_images(records, source.path, f"fetch them into {folder}, or take {source.path} out of data.sources")
    notes = {"without steps": empty, "above max_per_domain": whole - len(records)}
    left_out = ", ".join(f"{count} {reason}" for reason, count in notes.items() if count)
    say(f"{source.path}: {len(records)} chains{f'; left out: {left_out}' if left_out else ''}")
    return records
