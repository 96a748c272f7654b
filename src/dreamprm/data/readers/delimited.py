"""Tables as text, comma or tab between the fields, quoted as spreadsheets and pandas write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamprm.data.readers.bytes_file import BytesFile, bare_name
from dreamprm.data.readers.container import Container, Found
from dreamprm.data.readers.fields import MAX_ROW, DataError
from dreamprm.data.readers.json_lines import bounded_lines
from dreamprm.data.record import RecordError

__all__ = ["Delimited"]


class Delimited(Container):
    """A header and rows, row 1 the first below it. A row ends where a line ends and the quotes so far are even."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._bytes = BytesFile(path)
        self._delimiter = "\t" if bare_name(path).endswith(".tsv") else ","
        self._header: list[str] | None = None
        # The module's limit of 131,072 characters is below one base64 image; ours is checked on the row's bytes.
        csv.field_size_limit(MAX_ROW)

    def _records(self) -> Iterator[tuple[int, int, bytes | None]]:
        kept: list[bytes] = []
        begin, quotes, size = 0, 0, 0
        stop = 0
        for start, stop, line in bounded_lines(self.path, self.source):
            begin = begin if kept else start
            if line is None or size + len(line) > MAX_ROW:
                raise DataError(
                    f"row at byte {begin:,} is above {MAX_ROW:,} bytes; a quote left open?", source=self.source
                )
            kept.append(line)
            quotes, size = quotes + line.count(b'"'), size + len(line)
            if quotes % 2 == 0:
                yield begin, stop, b"".join(kept)
                kept, quotes, size = [], 0, 0
        if kept:
            yield begin, stop, None

    def _fields(self, data: bytes, number: int) -> list[str]:
        try:
            text = data.decode("utf-8-sig" if number == 0 else "utf-8")
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError as error:
            raise RecordError(f"not UTF-8 (byte {error.start})", source=self.source, row=number) from None
        except csv.Error as error:
            raise RecordError(f"not a row of a table ({error})", source=self.source, row=number) from None
        return rows[0] if len(rows) == 1 else []

    def _value(self, header: list[str], data: bytes, number: int) -> dict[str, Any]:
        fields = self._fields(data, number)
        if len(fields) != len(header):
            reason = f"{len(fields)} fields where the header names {len(header)}"
            raise RecordError(reason, source=self.source, row=number)
        return dict(zip(header, fields))

    def rows(self) -> Iterator[Found]:
        number = -1
        for start, stop, data in self._records():
            if data is not None and not data.strip():
                continue
            number += 1
            if number == 0:
                header = self._fields(data or b"", 0)
                if len(header) < 2 or len(set(header)) != len(header):
                    raise DataError("needs a header of at least two different names", source=self.source)
                self._header = header
                continue
            value: dict[str, Any] | RecordError
            try:
                if data is None:
                    raise RecordError("a quote is left open until the end of the file", source=self.source, row=number)
                value = self._value(self._header or [], data, number)
            except RecordError as error:
                value = error
            yield Found(number, start, stop, value)

    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        if self._header is None:
            next(self.rows(), None)
        return self._value(self._header or [], self._bytes.read(start, stop), number)
