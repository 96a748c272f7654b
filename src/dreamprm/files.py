"""Files that a reader, or a crash, never finds half written, readable by whom the umask allows."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["checksum", "hash_file", "readable_as_umask_says", "replacing", "sync", "write_atomically", "write_new"]

_UMASK = os.umask(0o077)
os.umask(_UMASK)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader (or a crash) finds the old one or the new one, never half of it."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet, whole or not at all. Raises FileExistsError.

    Of two processes that do this at the same time one gets the error: a link, unlike a rename, never replaces.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        sync(part)
        os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """`with replacing(path) as part`: what the body writes at `part`, a file or a folder, becomes `path` at the end.

    Where the body fails, `path` stays as it was and nothing is left beside it.
    """
    part = path.with_name(f".{path.name}.part")
    _remove(part)
    try:
        yield part
        inside = sorted(part.rglob("*")) if part.is_dir() else []
        for entry in [*inside, part]:
            readable_as_umask_says(entry)
            sync(entry)
        if path.is_dir() and not path.is_symlink():
            # A folder cannot replace a full one in a single step.
            shutil.rmtree(path)
        part.replace(path)
        sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(part)
        raise


def readable_as_umask_says(path: Path) -> None:
    """Give a file or folder the mode that `open` or `mkdir` gives: safetensors writes 0600 whatever the umask."""
    with contextlib.suppress(OSError):  # file systems without modes refuse
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_UMASK)


def sync(path: Path) -> None:
    """Have the machine write a file, or a folder's list of names, to the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_file(path: Path) -> str:
    """128 bits of BLAKE2b over a file's bytes, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def checksum(path: Path) -> int:
    """CRC-32 of a file's bytes: ten times as quick as a hash, against damage, not against intent."""
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            value = zlib.crc32(chunk, value)
    return value


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
