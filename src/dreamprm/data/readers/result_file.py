"""Writes VLMEvalKit's result files: the rows of its table without their images, and a `prediction` each."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamprm.data.readers.fields import DataError
from dreamprm.data.readers.locate import open_container
from dreamprm.data.record import RecordError
from dreamprm.files import write_atomically

__all__ = ["write_results"]

_LEFT_OUT = ("image", "image_path")
_LONGEST_CELL = 32_767
"""Characters of a workbook's cell; programs cut longer ones without a word."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def write_results(path: Path, table: str, predictions: Mapping[str, str]) -> None:
    """Write .xlsx, .tsv or .json. predictions: by the question's group, `index N`; rows without one are left out.

    Raises DataError for another ending, for a table that cannot be read, and for texts that a workbook would cut.
    """
    rows: list[dict[str, Any]] = []
    for found in open_container(Path(table)).rows():
        if isinstance(found.value, RecordError):
            raise found.value
        group = f"index {found.value.get('index')}"
        if group in predictions:
            kept = {name: value for name, value in found.value.items() if name not in _LEFT_OUT}
            rows.append(kept | {"prediction": predictions[group]})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        write_atomically(path, (json.dumps(rows, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace"))
    elif path.suffix == ".tsv":
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, stream.getvalue().encode("utf-8", "replace"))
    elif path.suffix == ".xlsx":
        write_atomically(path, _workbook(columns, rows, path))
    else:
        raise DataError("result_file must end in .xlsx, .tsv or .json", source=str(path))


def _workbook(columns: list[str], rows: list[dict[str, Any]], path: Path) -> bytes:
    try:
        from openpyxl import Workbook
    except ImportError:
        raise DataError(
            "an .xlsx needs the package openpyxl: pip install 'dreamprm[xlsx]', or write .tsv", source=str(path)
        ) from None
    cells = [[_cell(row.get(name), path, number, name) for name in columns] for number, row in enumerate(rows, start=1)]
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    sheet.append(columns)
    for row in cells:
        # A text that begins with = would be read as a formula.
        sheet.append([_text_cell(sheet, v) if isinstance(v, str) and v.startswith("=") else v for v in row])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def _cell(value: Any, path: Path, number: int, name: str) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_CELL:
        reason = f"{len(value):,} characters; a workbook's cell holds {_LONGEST_CELL:,}: write .tsv"
        raise DataError(reason, source=str(path), row=number, field=name)
    return _CONTROL.sub("", value) if isinstance(value, str) else value


def _text_cell(sheet: Any, value: str) -> Any:
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, value=value)
    cell.data_type = "s"
    return cell
