"""The records of a pool: its files read, thinned out and split by question."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from dreamprm.config.kinds import PoolData, PoolSource
from dreamprm.config.paths import conf_dir
from dreamprm.data.pool import Split, from_outcome, split_pool, thin_out
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.progress import say

__all__ = ["DATA_VARIABLE", "load_pool", "pool_folder"]

DATA_VARIABLE = "DREAMPRM_DATA"


def pool_folder(settings: PoolData) -> Path:
    """`data.folder`, else the environment's DREAMPRM_DATA, else shared/data beside the checkout.

    Raises UserError, one line, where a source does not lie there.
    """
    beside = conf_dir().parents[1] / "shared" / "data"
    folder = Path(settings.folder or os.environ.get(DATA_VARIABLE) or beside)
    if not settings.sources:
        raise UserError("data.sources is empty: name files or folders below data.folder")
    lacking = [source.path for source in settings.sources if not (folder / source.path).exists()]
    if lacking:
        names = ", ".join(lacking)
        raise UserError(f"{names} not found in {folder}: set data.folder, or {DATA_VARIABLE}, to their folder")
    return folder


def load_pool(settings: PoolData) -> Split:
    """Read every source and split the pool. Raises UserError for what is not there or cannot be read."""
    folder = pool_folder(settings)
    sources = [_read(folder, source) for source in settings.sources]
    return split_pool(sources, meta=settings.meta_share, test=settings.test_share, seed=settings.seed)


def _read(folder: Path, source: PoolSource) -> list[Record]:
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
    notes = {"without steps": empty, "above max_per_domain": whole - len(records)}
    left_out = ", ".join(f"{count} {reason}" for reason, count in notes.items() if count)
    say(f"{source.path}: {len(records)} chains{f'; left out: {left_out}' if left_out else ''}")
    return records
