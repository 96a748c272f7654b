"""Read any known file once from beginning to end, and recognise formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamprm.choices import OnBadRow
from dreamprm.data.readers.bad import BadRows
from dreamprm.data.readers.locate import Paths, parts
from dreamprm.data.readers.parse import parse_row
from dreamprm.data.record import Record, RecordError

__all__ = ["read", "recognise"]


def recognise(path: Paths, *, split: str | None = None) -> str:
    """The name of the format of a file or folder; several formats are joined by "+". Raises DataError."""
    return "+".join(dict.fromkeys(part.format.name for part in parts(path, split=split)))


def read(
    path: Paths,
    format: str | None = None,
    *,
    images: str | Path | None = None,
    on_bad_row: str | OnBadRow | BadRows = OnBadRow.error,
    quarantine: str | Path | None = None,
    split: str | None = None,
    follow_links: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Record]:
    """Records of a file, a folder, a meta.json or a list of these, in order, one row in memory at a time.

    format: recognised where absent.  images: root of image paths.  split: of a Hugging Face folder.
    on_bad_row: error, skip or quarantine (which needs `quarantine`, the side file), or a BadRows that counts them.
    options: settings of the format.  Raises RecordError for bad rows and DataError for files that cannot be read on.
    """
    bad = on_bad_row if isinstance(on_bad_row, BadRows) else BadRows(on_bad_row, quarantine)
    found = parts(path, format, images=images, split=split, follow_links=follow_links, options=options)

    def records() -> Iterator[Record]:
        for part in found:
            for row in part.container.rows():
                try:
                    yield from parse_row(part, row.value, row.number)
                except RecordError as error:
                    bad.add(error)
        bad.report()

    return records()
