"""Parquet and Arrow files, as the hub and Hugging Face `datasets` write them: a place is (block, row in the block)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from dreamprm.data.readers.container import Container, Found
from dreamprm.data.readers.fields import DataError
from dreamprm.data.record import RecordError

__all__ = ["ArrowFile", "ParquetFile"]


class ParquetFile(Container):
    """Row groups of a parquet file; the last few stay in memory, so shuffled reads like groups of 100 to 1,000 rows."""

    _KEPT = 4

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: pyarrow.parquet.ParquetFile | None = None
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()

    def _open(self) -> pyarrow.parquet.ParquetFile:
        if self._file is None:
            try:
                self._file = pyarrow.parquet.ParquetFile(self.path)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"not a parquet file ({str(error)[:160]})", source=self.source) from None
        return self._file

    def _group(self, index: int) -> pa.Table:
        if index not in self._groups:
            try:
                self._groups[index] = self._open().read_row_group(index)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"row group {index} is broken ({str(error)[:160]})", source=self.source) from None
            if len(self._groups) > self._KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(index)
        return self._groups[index]

    def rows(self) -> Iterator[Found]:
        number = 0
        for group in range(self._open().num_row_groups):
            for place in range(self._group(group).num_rows):
                number += 1
                yield _found(self, number, group, place)

    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        return _plain(self._group(start), stop, self.source, number)


class ArrowFile(Container):
    """An Arrow stream or file of Hugging Face `datasets`, mapped into memory and not read until a row is asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._table: pa.Table | None = None

    def _open(self) -> pa.Table:
        if self._table is None:
            try:
                mapped = pa.memory_map(str(self.path))
                try:
                    self._table = pyarrow.ipc.open_stream(mapped).read_all()
                except pa.ArrowInvalid:
                    mapped.seek(0)
                    self._table = pyarrow.ipc.open_file(mapped).read_all()
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"not an Arrow file ({str(error)[:160]})", source=self.source) from None
        return self._table

    def rows(self) -> Iterator[Found]:
        for place in range(self._open().num_rows):
            yield _found(self, place + 1, 0, place)

    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        return _plain(self._open(), stop, self.source, number)


def _found(container: Container, number: int, start: int, stop: int) -> Found:
    try:
        return Found(number, start, stop, container.fetch(number, start, stop))
    except DataError:
        raise
    except RecordError as error:
        return Found(number, start, stop, error)


def _plain(table: pa.Table, row: int, source: str, number: int) -> dict[str, Any]:
    try:
        return table.slice(row, 1).to_pylist()[0]
    except (ValueError, IndexError, pa.ArrowException) as error:  # text that is not UTF-8
        raise RecordError(f"cannot be decoded ({str(error)[:120]})", source=source, row=number) from None
