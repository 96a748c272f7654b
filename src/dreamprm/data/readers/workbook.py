"""The first sheet of a workbook (.xlsx), as pandas and VLMEvalKit write it: a header, then a row each."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamprm.data.readers.container import Container, Found
from dreamprm.data.readers.fields import DataError, decode_row
from dreamprm.data.record import RecordError

__all__ = ["Workbook"]

_MAX_FILE = 512 * 2**20


class Workbook(Container):
    """Held whole while open: such files are tables of answers, without images. A place is the row's number."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kept: list[dict[str, Any]] | None = None

    def _load(self) -> list[dict[str, Any]]:
        if self._kept is None:
            try:
                from openpyxl import load_workbook
            except ImportError:
                raise DataError(
                    "an .xlsx needs the package openpyxl: pip install 'dreamprm[xlsx]', or save it as .tsv",
                    source=self.source,
                ) from None
            if self.path.stat().st_size > _MAX_FILE:
                raise DataError(f"above {_MAX_FILE:,} bytes; save it as .tsv", source=self.source)
            try:
                book = load_workbook(self.path, read_only=True, data_only=True)
                try:
                    head, *rows = [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
                finally:
                    book.close()
            except (zipfile.BadZipFile, KeyError, ValueError, IndexError, OSError, TypeError) as error:
                raise DataError(f"not a workbook with a header ({str(error)[:120]})", source=self.source) from None
            names = ["" if name is None else str(name) for name in head]
            named = [name for name in names if name]
            if len(named) < 2 or len(set(named)) != len(named):
                raise DataError("needs a header of at least two different names", source=self.source)
            self._kept = [
                {name: _plain(value) for name, value in zip(names, row) if name and value is not None}
                for row in rows
                if any(value is not None for value in row)
            ]
        return self._kept

    def rows(self) -> Iterator[Found]:
        for number, _ in enumerate(self._load(), start=1):
            value: dict[str, Any] | RecordError
            try:
                value = self.fetch(number, number - 1, number)
            except RecordError as error:
                value = error
            yield Found(number, number - 1, number, value)

    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        import json

        # Through its own text, so that each row passes the same limits as in any other file.
        return decode_row(json.dumps(self._load()[start]).encode("utf-8", "replace"), self.source, number)


def _plain(value: Any) -> Any:
    """A cell as JSON has it; whole numbers are stored as floats by some writers, dates are texts."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, (str, int, float, bool)) else str(value)
