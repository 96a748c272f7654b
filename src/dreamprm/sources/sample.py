"""A look at a set of chains that costs little: all of those in memory, a few hundred of those on disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dreamprm.data.readers.stream import RecordStream
from dreamprm.data.record import Record

__all__ = ["sample"]

_ON_DISK = 300  # a row of a parquet file costs its whole row group


def sample(records: Sequence[Record]) -> list[Record]:
    """All records of a list; of a stream at most 300, evenly spread, the first and the last among them."""
    if not isinstance(records, RecordStream) or len(records) <= _ON_DISK:
        return list(records)
    return list(records.take(np.linspace(0, len(records) - 1, _ON_DISK).round().astype(int)))
