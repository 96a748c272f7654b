"""The files between stages: JSON Lines in the project's own format, images beside them; scores in `extra`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.data.file_data import FileRows
from dreamprm.data.record import Image, Record
from dreamprm.errors import ConfigError, UserError
from dreamprm.files import write_atomically

__all__ = ["StageData", "needed", "read_records", "read_scores", "write_lines", "write_records"]


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


def write_records(path: Path, records: Iterable[Record], scores: list[list[float]] | None = None) -> None:
    """Write records as our own rows; encoded images go into the folder PATH_images, named by their content."""
    folder = path.with_name(f"{path.stem}_images")
    rows: list[dict[str, Any]] = []
    for place, record in enumerate(records):
        row: dict[str, Any] = {
            "question": record.question,
            "steps": list(record.steps),
            "images": [_image_path(image, path.parent, folder) for image in record.images],
            "domain": record.domain,
            "group": record.group,
            "extra": {name: value for name, value in record.extra.items() if _is_plain(value)},
        }
        if record.labels:
            row["labels"] = list(record.labels)
        for name in ("correct", "answer", "reference"):
            if getattr(record, name) is not None:
                row[name] = getattr(record, name)
        if scores is not None:
            row["extra"] |= {_SCORES: [round(score, 6) for score in scores[place]]}
        rows.append(row)
    write_lines(path, rows)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def read_scores(path: str) -> tuple[list[Record], list[list[float]]]:
    """The records of a scores file and their step scores. Raises UserError where a row has none."""
    if not Path(path).is_file():
        raise UserError(f"scores={path}: there is no such file; give one that dreamprm score wrote")
    records = read_records(StageData(path=path, format="records"))
    scores: list[list[float]] = []
    for row, record in enumerate(records):
        found = record.extra.get(_SCORES)
        if not isinstance(found, (list, tuple)) or len(found) != len(record.steps):
            raise UserError(f"{path}, row {row + 1}: no score for each step; make the file with dreamprm score")
        scores.append([float(score) for score in found])
    return records, scores


def _image_path(image: Image, base: Path, folder: Path) -> str:
    if isinstance(image, Path):
        try:
            return str(image.resolve().relative_to(base.resolve()))
        except ValueError:
            image = image.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    kind = "png" if image[:4] == b"\x89PNG" else "jpg"
    file = folder / f"{hashlib.blake2b(image, digest_size=10).hexdigest()}.{kind}"
    if not file.exists():
        write_atomically(file, image)
    return str(file.relative_to(base))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, list, tuple))
