"""The index of a file: where each row begins and ends, how many records it gives, their groups and domains.

It is made by one pass that reads and checks every row, and kept as a plain `.npz` for large files. A stale index (the
file's size or time, the format or its options changed) is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dreamprm.data.readers.bytes_file import cache_folder
from dreamprm.data.readers.locate import Part
from dreamprm.data.readers.parse import parse_row
from dreamprm.data.record import RecordError

__all__ = ["Index", "build_index", "load_index"]

_LOG = logging.getLogger("dreamprm.data")
_VERSION = 2
_ARRAYS = ("number", "start", "stop", "first", "group", "domain", "labelled", "judged")
_KEEP_ABOVE = 32 * 2**20  # bytes; a smaller file is indexed in a second or two


@dataclass(frozen=True)
class Index:
    """Per row: number, start, stop, first record (one more at the end). Per record: group (64-bit hash), domain,
    whether a step of it is labelled, and whether its final answer is judged.

    bad: (row, field, reason) of the rows that give no record because they are broken.
    """

    number: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    group: npt.NDArray[np.uint64]
    domain: npt.NDArray[np.int32]
    labelled: npt.NDArray[np.bool_]
    judged: npt.NDArray[np.bool_]
    domains: tuple[str, ...]
    bad: tuple[tuple[int, str, str], ...]

    def __len__(self) -> int:
        return int(self.first[-1])


def hash_group(group: str) -> int:
    return int.from_bytes(hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def build_index(part: Part) -> Index:
    """One pass over all rows. Raises DataError where the file cannot be read on; bad rows are listed, not raised."""
    number, start, stop, first = array("q"), array("q"), array("q"), array("q", [0])
    group, domain, labelled, judged = array("Q"), array("i"), array("b"), array("b")
    names: dict[str, int] = {}
    bad: list[tuple[int, str, str]] = []
    for row in part.container.rows():
        try:
            records = parse_row(part, row.value, row.number)
        except RecordError as error:
            bad.append((row.number, error.field, error.reason))
            continue
        if not records:
            continue
        if len({record.key for record in records}) < len(records):
            bad.append((row.number, "", "gives several records of one key, which would share one weight"))
            continue
        number.append(row.number)
        start.append(row.start)
        stop.append(row.stop)
        first.append(first[-1] + len(records))
        for record in records:
            group.append(hash_group(record.group))
            domain.append(names.setdefault(record.domain, len(names)))
            labelled.append(any(label is not None for label in record.labels))
            judged.append(record.correct is not None)
    return Index(
        number=np.array(number, np.int64),
        start=np.array(start, np.int64),
        stop=np.array(stop, np.int64),
        first=np.array(first, np.int64),
        group=np.array(group, np.uint64),
        domain=np.array(domain, np.int32),
        labelled=np.array(labelled, np.bool_),
        judged=np.array(judged, np.bool_),
        domains=tuple(names),
        bad=tuple(bad),
    )


def _identity(part: Part) -> str:
    stat = part.context.path.stat()
    facts = [
        _VERSION,
        str(part.context.path.resolve()),
        stat.st_size,
        stat.st_mtime_ns,
        part.format.name,
        part.context.source,
    ]
    facts += [str(part.context.root), part.context.follow_links, sorted(map(str, part.context.options.items()))]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _save(index: Index, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    words = json.dumps({"domains": index.domains, "bad": index.bad}).encode("utf-8", "surrogatepass")
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as out:
            np.savez(out, allow_pickle=False, words=np.frombuffer(words, np.uint8), **arrays)
        os.replace(temporary, file)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _load(file: Path) -> Index:
    # Opened here: numpy leaves a file open that it finds to be no archive.
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
        words = json.loads(saved["words"].tobytes().decode("utf-8", "surrogatepass"))
        arrays = {name: saved[name] for name in _ARRAYS}
    bad = tuple((int(row), str(field), str(reason)) for row, field, reason in words["bad"])
    rows, records = len(arrays["number"]), int(arrays["first"][-1])
    sizes = {name: len(arrays[name]) for name in _ARRAYS}
    wanted = {name: rows + 1 if name == "first" else rows for name in ("number", "start", "stop", "first")}
    if sizes != wanted | dict.fromkeys(("group", "domain", "labelled", "judged"), records):
        raise ValueError("its arrays do not fit together")
    return Index(**arrays, domains=tuple(words["domains"]), bad=bad)


def load_index(part: Part, folder: Path | None = None) -> Index:
    """The index of a part: from the folder (by default the cache, for files above 32 MB) if fresh, else built."""
    if folder is None and part.context.path.stat().st_size < _KEEP_ABOVE:
        return build_index(part)
    file = (folder or cache_folder() / "index") / f"{_identity(part)}.npz"
    if file.exists():
        try:
            return _load(file)
        except Exception as error:  # damaged in whatever way: zipfile, zlib, numpy and json have errors of their own
            _LOG.warning("the index %s of %s is damaged (%s) and made anew", file, part.context.path, error)
    index = build_index(part)
    try:
        _save(index, file)
    except OSError as error:
        _LOG.warning("the index of %s is not kept, %s cannot be written: %s", part.context.path, file.parent, error)
    return index
