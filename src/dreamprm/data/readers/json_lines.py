"""JSON Lines, plain, gzip or zstd: one object per line, a place is the line's first and last byte."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from dreamprm.data.readers.bytes_file import BytesFile, open_stream
from dreamprm.data.readers.container import Container, Found
from dreamprm.data.readers.fields import MAX_ROW, DataError, decode_row
from dreamprm.data.record import RecordError

__all__ = ["JsonLines", "bounded_lines"]


def bounded_lines(path: Path, source: str) -> Iterator[tuple[int, int, bytes | None]]:
    """(first byte, byte after the last, the line) of every line; None for a line above `MAX_ROW`, which is read past.

    Raises DataError where a compressed file breaks off or the encoding is UTF-16 or UTF-32.
    """
    position = 0
    try:
        with open_stream(path) as stream:
            while line := stream.readline(MAX_ROW + 1):
                if position == 0 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError("is UTF-16 or UTF-32; convert it, e.g. by iconv -t utf-8", source=source)
                start, position, whole = position, position + len(line), len(line) <= MAX_ROW
                while not line.endswith(b"\n") and len(line) > MAX_ROW:
                    line = stream.readline(MAX_ROW + 1)
                    position += len(line)
                yield start, position, line if whole else None
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"breaks off after {position:,} bytes ({error}); is it cut?", source=source) from None


class JsonLines(Container):
    """One object per line. Row numbers are line numbers, blank lines counted and passed over."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._bytes = BytesFile(path)

    def rows(self) -> Iterator[Found]:
        for number, (start, stop, line) in enumerate(bounded_lines(self.path, self.source), start=1):
            if line is None:
                error = RecordError(f"row above {MAX_ROW:,} bytes", source=self.source, row=number)
                yield Found(number, start, stop, error)
            elif line.strip():
                value: dict[str, Any] | RecordError
                try:
                    value = decode_row(line, self.source, number)
                except RecordError as error:
                    value = error
                yield Found(number, start, stop, value)

    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        return decode_row(self._bytes.read(start, stop), self.source, number)
