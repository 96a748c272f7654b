"""Random access to the bytes of plain and compressed files; compressed ones are unpacked once into a cache folder."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import os
import tempfile
import weakref
import zlib
from pathlib import Path
from typing import IO, cast

import zstandard

from dreamprm.data.readers.fields import DataError
from dreamprm.files import hash_file

__all__ = ["MAX_UNPACKED", "BytesFile", "bare_name", "cache_folder", "open_stream"]

MAX_UNPACKED = 64 * 2**30
"""Bytes that a compressed file may unpack to; a bomb of zeros is stopped here. The largest annotation has 2.7 GB."""
_PACKED = (".gz", ".zst")
_LOG = logging.getLogger("dreamprm.data")


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


def _open_unpacked(path: Path) -> int:
    """A handle on the unpacked copy of a compressed file in the cache, made if it is not there or not what was written.

    The copy's size and hash stand in its name, so nothing beside it can get lost. Where the cache cannot be written the
    copy has no name, and goes when the handle does.
    """
    stat = path.stat()
    name = hashlib.blake2b(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode(), digest_size=12).hexdigest()
    folder = cache_folder() / "unpacked"
    for copy in sorted(folder.glob(f"{name}-*")):
        if copy.name == f"{name}-{hash_file(copy)}":
            return os.open(copy, os.O_RDONLY)
        _LOG.warning("the unpacked copy %s of %s is damaged and made anew", copy, path)
        with contextlib.suppress(OSError):
            copy.unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder)
    except OSError as error:
        _LOG.warning("%s is unpacked for this run alone: the cache %s cannot be written (%s)", path, folder, error)
        return _unpack(path, *_nameless(path))[0]
    handle, digest = _unpack(path, handle, Path(temporary))
    os.replace(temporary, folder / f"{name}-{digest}")
    return handle


def _nameless(path: Path) -> tuple[int, None]:
    try:
        with tempfile.TemporaryFile() as stream:
            return os.dup(stream.fileno()), None
    except OSError as error:
        raise DataError(f"cannot be unpacked ({error}); set DREAMPRM_CACHE or TMPDIR", source=str(path)) from None


def _unpack(path: Path, handle: int, temporary: Path | None) -> tuple[int, str]:
    """Write the unpacked bytes to the handle; the handle again, and the hash of what was written."""
    written, digest = 0, hashlib.blake2b(digest_size=16)
    try:
        with open_stream(path) as packed:
            while chunk := packed.read(2**20):
                written += len(chunk)
                if written > MAX_UNPACKED:
                    raise DataError(f"unpacks to more than {MAX_UNPACKED:,} bytes", source=str(path))
                digest.update(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(handle, rest) :]
        return handle, digest.hexdigest()
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, DataError) as error:
        os.close(handle)
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot be unpacked ({error})", source=str(path)) from None


class BytesFile:
    """`read(start, stop)` by pread: no position that threads and forks share, no pages of the file in our memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def read(self, start: int, stop: int) -> bytes:
        if self._handle is None:
            try:
                packed = self.path.suffix in _PACKED
                self._handle = _open_unpacked(self.path) if packed else os.open(self.path, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"cannot be opened ({error.strerror or error})", source=str(self.path)) from None
            weakref.finalize(self, os.close, self._handle)
        return os.pread(self._handle, stop - start, start)
