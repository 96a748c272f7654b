"""A JSON list of objects, plain or compressed, read as a stream: a place is the element's first and last byte.

The list is never held whole. A window of bytes is decoded as Latin-1, in which every byte is one character, and the
standard decoder finds where the next element ends (JSON's own signs are ASCII, so the end is the same); only then the
element's bytes are decoded as UTF-8.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from dreamprm.data.readers.bytes_file import BytesFile, open_stream
from dreamprm.data.readers.container import Container, Found, HeldWhole
from dreamprm.data.readers.fields import MAX_ROW, DataError, decode_row
from dreamprm.data.record import RecordError

__all__ = ["JsonArray", "JsonTree"]

_CHUNK = 2**20
_SPACE = " \t\r\n"
_MAX_TREE = 512 * 2**20


def _loose_float(text: str) -> float:
    return 0.0  # only the end of an element is sought here; its values are decoded, and refused, afterwards


_SCANNER = json.JSONDecoder(parse_float=_loose_float, parse_int=_loose_float, parse_constant=_loose_float)


class _Window:
    """A sliding window over a stream of bytes, as Latin-1 text; `base` is the place of its first character."""

    def __init__(self, stream: IO[bytes], source: str) -> None:
        self._stream, self._source = stream, source
        self.text, self.base, self.at, self.ended = "", 0, 0, False

    def more(self) -> bool:
        try:
            chunk = self._stream.read(max(_CHUNK, len(self.text) - self.at))
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise DataError(
                f"breaks off after {self.base + len(self.text):,} bytes ({error})", source=self._source
            ) from None
        self.ended = not chunk
        self.text, self.base, self.at = self.text[self.at :] + chunk.decode("latin-1"), self.base + self.at, 0
        return not self.ended

    def sign(self) -> str:
        """The next character that is not space, not yet passed; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""


class JsonArray(Container):
    """`[{…}, {…}, …]`. Rows are elements, from 1. A broken element ends the file: no place to go on is certain."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._bytes = BytesFile(path)

    def rows(self) -> Iterator[Found]:
        with open_stream(self.path) as stream:
            window = _Window(stream, self.source)
            window.sign()
            if window.text.startswith("\xef\xbb\xbf"):
                window.at = 3
            if window.sign() != "[":
                raise DataError("must begin with [ to be a list of rows", source=self.source)
            window.at += 1
            number = 0
            while (sign := window.sign()) != "]":
                if number:
                    if sign != ",":
                        raise DataError(
                            f"after row {number}: expected , or ], found {sign!r}; is it cut?", source=self.source
                        )
                    window.at += 1
                    window.sign()
                number += 1
                yield self._element(window, number)
            window.at += 1
            if window.sign():
                raise DataError(f"holds more after its list of {number} rows", source=self.source)

    def _element(self, window: _Window, number: int) -> Found:
        while True:
            try:
                _, end = _SCANNER.raw_decode(window.text, window.at)
                if end < len(window.text) or window.ended:
                    break
                window.more()  # a number may go on in the next chunk
            except RecursionError:
                raise DataError(f"row {number} is nested too deeply to find its end", source=self.source) from None
            except ValueError as error:
                if len(window.text) - window.at > MAX_ROW or not window.more():
                    reason = f"row {number} (byte {window.base + window.at:,}) is broken or above {MAX_ROW:,} bytes"
                    raise DataError(f"{reason}: {error}; what follows cannot be read", source=self.source) from None
        raw = window.text[window.at : end].encode("latin-1")
        start = window.base + window.at
        window.at = end
        value: dict[str, Any] | RecordError
        try:
            value = decode_row(raw, self.source, number)
        except RecordError as error:
            value = error
        return Found(number, start, start + len(raw), value)

    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        return decode_row(self._bytes.read(start, stop), self.source, number)


class JsonTree(HeldWhole):
    """One object on top whose values are rows or lists of rows (Mr-Ben).

    A row is given the key it stood under as its field `_key`.
    """

    def _read(self) -> list[Any]:
        with open_stream(self.path) as stream:
            data = stream.read(_MAX_TREE + 1)
        if len(data) > _MAX_TREE:
            raise DataError(f"an object above {_MAX_TREE:,} bytes; write it as JSON Lines", source=self.source)
        try:
            tree = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"not valid JSON ({str(error)[:200]})", source=self.source) from None
        if not isinstance(tree, dict):
            raise DataError("must be an object on top", source=self.source)
        return [
            {**row, "_key": key} if isinstance(row, dict) else row
            for key, value in tree.items()
            for row in (value if isinstance(value, list) else [value])
        ]
