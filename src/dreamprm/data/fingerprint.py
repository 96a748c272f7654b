"""What the data of a run are, in a few digests, so that a resumed run can tell that they are still the same.

Four digests per set (training, meta, test, cold start): `keys` (and their order), `texts` (question, steps, domain,
group), `labels` (and outcomes, references), `images` (bytes, or the size and time of a file). Of a set that stays on
disk the files are hashed, and a thousand of its chains are looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dreamprm.data.readers.stream import RecordStream
from dreamprm.data.record import Image, Record
from dreamprm.files import hash_file

__all__ = ["changed_data", "data_digests"]

_SAMPLED = 1000
Digests = dict[str, dict[str, str]]


def data_digests(sets: Mapping[str, Sequence[Record]]) -> Digests:
    """Name of the set -> aspect -> digest."""
    return {name: _digests(records) for name, records in sets.items()}


def changed_data(before: Digests, now: Digests) -> str:
    """Which sets differ, and in what: "training chains: labels; meta chains: images", or "" where all are the same."""
    found: list[str] = []
    for name in before:
        aspects = [key for key in before[name] if before[name][key] != now.get(name, {}).get(key)]
        # A key holds a hash of the row's text, so a new text is a new key; an other order changes every aspect.
        if aspects:
            found.append(f"{name} chains: {', '.join(aspects)}")
    return "; ".join(found)


def _digests(records: Sequence[Record]) -> dict[str, str]:
    count = {"number": str(len(records))}
    if not isinstance(records, RecordStream):
        return count | _of_each(records)
    files = {f"file {path.name}": hash_file(path) for path in records.paths}
    places = range(0, len(records), max(1, len(records) // _SAMPLED))
    return count | files | _of_each(records[place] for place in places)


def _of_each(records: Iterable[Record]) -> dict[str, str]:
    hashes = {name: hashlib.blake2b(digest_size=16) for name in ("keys", "texts", "labels", "images")}
    for record in records:
        facts = {
            "keys": [record.key],
            "texts": [record.question, record.steps, record.domain, record.group],
            "labels": [record.labels, record.correct, record.reference],
            "images": [_image(image) for image in record.images],
        }
        for name, value in facts.items():
            hashes[name].update(json.dumps(value).encode() + b"\n")
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def _image(image: Image) -> list[object]:
    if isinstance(image, Path):
        try:
            stat = image.stat()
        except OSError:
            return [image.name, "not there"]
        return [image.name, stat.st_size, stat.st_mtime_ns]
    return [hashlib.blake2b(image, digest_size=16).hexdigest()]
