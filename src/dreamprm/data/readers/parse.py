"""One row to its records, every refusal turned into a RecordError that names the place."""

from __future__ import annotations

from typing import Any

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.locate import Part
from dreamprm.data.record import Record, RecordError

__all__ = ["parse_row"]


def parse_row(part: Part, value: dict[str, Any] | RecordError, number: int) -> list[Record]:
    """The records of a row. Raises RecordError."""
    if isinstance(value, RecordError):
        raise value
    return list(part.format.parse(Row(value, str(part.context.path), number), part.context))
