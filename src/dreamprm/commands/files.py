"""The files between stages: JSON Lines in the project's own format, images beside them; scores in `extra`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.config.resolve import to_plain
from dreamprm.data.file_data import FileRows
from dreamprm.data.fingerprint import data_digests
from dreamprm.data.record import Image, Record
from dreamprm.errors import ConfigError, UserError
from dreamprm.files import write_atomically

__all__ = [
    "StageData",
    "folder_digest",
    "made_of",
    "needed",
    "read_records",
    "read_rows",
    "read_scores",
    "record_row",
    "require_other_file",
    "stored_image",
    "write_lines",
]


@dataclass
class StageData(FileRows):
    """The chains or questions to work on; `path` may be world/SPLIT for a split of the embedded world too."""


_SCORES = "step_scores"


def needed(value: str | None, name: str, what: str) -> str:
    """A setting that has no default. Raises ConfigError that says what it is."""
    if value is None:
        raise ConfigError(f"{name} is not set: give {what}")
    return value


def read_records(data: StageData) -> list[Record]:
    """The records of a stage's input. Raises UserError where they cannot be read."""
    path = needed(data.path, "data.path", "a file that a reader knows, or world/test for the embedded world")
    try:
        from dreamprm.data.readers import open_records
        from dreamprm.sources import named_split

        own = named_split(str(path))
        if own is not None:
            return own[: data.limit]

        stream = open_records(**data.reading())
        return [stream[row] for row in range(min(len(stream), data.limit or len(stream)))]
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def record_row(out: Path, record: Record, scores: list[float] | None = None, **extra: Any) -> dict[str, Any]:
    """A record as a row of our own format in the file `out`; encoded images go into the folder OUT_images, named by
    their content."""
    row: dict[str, Any] = {
        "question": record.question,
        "steps": list(record.steps),
        "images": [_image_path(image, out) for image in record.images],
        "domain": record.domain,
        "group": record.group,
        "extra": {name: value for name, value in record.extra.items() if _is_plain(value)} | extra,
    }
    if record.labels:
        row["labels"] = list(record.labels)
    for name in ("correct", "answer", "reference"):
        if getattr(record, name) is not None:
            row[name] = getattr(record, name)
    if scores is not None:
        row["extra"] |= {_SCORES: [round(score, 6) for score in scores]}
    return row


def require_other_file(out: Path, data: StageData) -> None:
    """Raises ConfigError where a command would write the file that it reads."""
    paths = data.path if isinstance(data.path, (list, tuple)) else [data.path]
    if any(path is not None and Path(path).resolve() == out.resolve() for path in paths):
        raise ConfigError(f"out={out} is the file that data.path reads: choose another out")


def made_of(command: str, settings: Any, records: Sequence[Record], *without: str) -> dict[str, Any]:
    """What the rows of a stage depend on: its settings but `without` and where things lie, and the input."""
    plain = to_plain(settings)
    for name in ("out", "device", "shard", "overwrite", "table", "data", *without):
        group, _, inner = name.partition(".")
        if inner and isinstance(plain.get(group), dict):
            plain[group].pop(inner, None)
        elif not inner:
            plain.pop(name, None)
    return {"command": command, "settings": plain, "input": data_digests({"input": records})["input"]}


def folder_digest(path: str) -> str:
    """Names, sizes and times of a folder's files in one digest: whether it is still the same model."""
    folder = Path(path)
    facts: list[list[object]] = []
    for file in sorted(folder.rglob("*")) if folder.is_dir() else []:
        stat = file.stat()
        facts.append([str(file.relative_to(folder)), stat.st_size, stat.st_mtime_ns])
    return hashlib.blake2b(json.dumps([path, facts]).encode(), digest_size=16).hexdigest()


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file of ours."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_scores(path: str) -> tuple[list[Record], list[list[float]]]:
    """The records of a scores file and their step scores. Raises UserError where a row has none."""
    if not Path(path).is_file():
        raise UserError(f"scores={path}: there is no such file; give one that dreamprm score wrote")
    records = read_records(StageData(path=path, format="records"))
    if not records:
        raise UserError(f"scores={path}: is empty; give a file that dreamprm score wrote")
    scores: list[list[float]] = []
    for row, record in enumerate(records):
        found = record.extra.get(_SCORES)
        if not isinstance(found, (list, tuple)) or len(found) != len(record.steps):
            raise UserError(f"{path}, row {row + 1}: no score for each step; make the file with dreamprm score")
        scores.append([float(score) for score in found])
    return records, scores


def stored_image(image: Image, out: Path) -> Path:
    """The image as a file: its own, or for encoded bytes one in the folder OUT_images, named by its content."""
    if isinstance(image, Path):
        image.stat()
        return image.resolve()
    folder = out.with_name(f"{out.stem}_images")
    folder.mkdir(parents=True, exist_ok=True)
    kind = "png" if image[:4] == b"\x89PNG" else "jpg"
    file = folder / f"{hashlib.blake2b(image, digest_size=10).hexdigest()}.{kind}"
    if not file.exists():
        write_atomically(file, image)
    return file.resolve()


def _image_path(image: Image, out: Path) -> str:
    """Relative to the folder of `out`; what lies elsewhere is copied into OUT_images."""
    base = out.parent.resolve()
    if isinstance(image, Path) and not image.resolve().is_relative_to(base):
        image = image.read_bytes()
    return str(stored_image(image, out).relative_to(base))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, list, tuple))
