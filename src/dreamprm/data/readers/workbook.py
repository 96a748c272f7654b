"""The first sheet of a workbook (.xlsx), as pandas and VLMEvalKit write it: a header, then a row each."""

from __future__ import annotations

import zipfile
from typing import Any

from dreamprm.data.readers.container import HeldWhole
from dreamprm.data.readers.fields import DataError

__all__ = ["Workbook"]

_MAX_FILE = 512 * 2**20


class Workbook(HeldWhole):
    """Such files are tables of answers, without images."""

    def _read(self) -> list[dict[str, Any]]:
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
        return [
            {name: _plain(value) for name, value in zip(names, row) if name and value is not None}
            for row in rows
            if any(value is not None for value in row)
        ]


def _plain(value: Any) -> Any:
    """A cell as JSON has it; whole numbers are stored as floats by some writers, dates are texts."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, (str, int, float, bool)) else str(value)
