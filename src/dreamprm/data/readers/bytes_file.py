"""Random access to the bytes of plain and compressed files; compressed ones are unpacked once into a cache folder."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import weakref
from pathlib import Path
from typing import IO, cast

import zstandard

from dreamprm.data.readers.fields import DataError

__all__ = ["MAX_UNPACKED", "BytesFile", "bare_name", "cache_folder", "open_stream"]

MAX_UNPACKED = 64 * 2**30
"""Bytes that a compressed file may unpack to; a bomb of zeros is stopped here. The largest annotation has 2.7 GB."""
_PACKED = (".gz", ".zst")


def cache_folder() -> Path:
    """Where indexes and unpacked files are: DREAMPRM_CACHE, else XDG_CACHE_HOME/dreamprm, else ~/.cache/dreamprm."""
    if folder := os.environ.get("DREAMPRM_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreamprm"


def bare_name(path: Path) -> str:
    """The file's name without `.gz` or `.zst`."""
    return path.name.removesuffix(path.suffix) if path.suffix in _PACKED else path.name


def open_stream(path: Path) -> IO[bytes]:
    """The file's bytes from the beginning, unpacked on the way."""
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if path.suffix == ".zst":
            return cast(IO[bytes], zstandard.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", source=str(path)) from None


def _unpacked(path: Path) -> Path:
    """The unpacked copy of a compressed file in the cache, made if it is not there."""
    stat = path.stat()
    name = hashlib.blake2b(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode(), digest_size=12).hexdigest()
    folder = cache_folder() / "unpacked"
    target = folder / name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder)
    written = 0
    try:
        with os.fdopen(handle, "wb") as out, open_stream(path) as packed:
            while chunk := packed.read(2**20):
                written += len(chunk)
                if written > MAX_UNPACKED:
                    raise DataError(f"unpacks to more than {MAX_UNPACKED:,} bytes", source=str(path))
                out.write(chunk)
        os.replace(temporary, target)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        Path(temporary).unlink(missing_ok=True)
        raise DataError(f"cannot be unpacked ({error})", source=str(path)) from None
    except DataError:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


class BytesFile:
    """`read(start, stop)` by pread: no position that threads and forks share, no pages of the file in our memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def read(self, start: int, stop: int) -> bytes:
        if self._handle is None:
            path = _unpacked(self.path) if self.path.suffix in _PACKED else self.path
            try:
                self._handle = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"cannot be opened ({error.strerror or error})", source=str(path)) from None
            weakref.finalize(self, os.close, self._handle)
        return os.pread(self._handle, stop - start, start)
