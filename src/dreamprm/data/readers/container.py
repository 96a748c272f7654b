"""What every kind of file offers: its rows one after another, and any row again by the place it was found at."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dreamprm.data.readers.fields import decode_row
from dreamprm.data.record import RecordError

__all__ = ["Container", "Found", "HeldWhole"]


class Found(NamedTuple):
    """A row in a file: its number from 1, the place to find it at again, its fields or why they cannot be read."""

    number: int
    start: int
    stop: int
    value: dict[str, Any] | RecordError


class Container(ABC):
    """A file of rows. Opened files are kept out of copies, so that data loaders' workers open their own.

    source: the path as it was given, which every error names.  lock: held by whoever fetches, since files are opened
    once and read from one place at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.source, self.lock = path, str(path), threading.Lock()

    @abstractmethod
    def rows(self) -> Iterator[Found]:
        """All rows in order, reading ahead a bounded amount.

        A row that cannot be decoded is a Found with its error. Raises DataError where the file itself breaks off.
        """

    @abstractmethod
    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        """One row by its place. Raises RecordError."""

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])


class HeldWhole(Container):
    """Small files whose rows are held while open: a place is the row's number."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kept: list[Any] | None = None

    @abstractmethod
    def _read(self) -> list[Any]:
        """Every row. Raises DataError where the file is of another shape."""

    def rows(self) -> Iterator[Found]:
        for number, _ in enumerate(self._load(), start=1):
            value: dict[str, Any] | RecordError
            try:
                value = self.fetch(number, number - 1, number)
            except RecordError as error:
                value = error
            yield Found(number, number - 1, number, value)

    def fetch(self, number: int, start: int, stop: int) -> dict[str, Any]:
        # Decoded again from its own text, so that each row passes the same limits as in any other file.
        return decode_row(json.dumps(self._load()[start]).encode(), self.source, number)

    def _load(self) -> list[Any]:
        if self._kept is None:
            self._kept = self._read()
        return self._kept
