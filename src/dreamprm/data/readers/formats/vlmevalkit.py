"""VLMEvalKit's tables: questions with base64 images (or paths), options in columns A, B, C …; no chains.

A table saves room by writing the index of an earlier row where an image repeats; such rows are refused with the reason,
unless `image_path` names the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, with_options
from dreamprm.data.record import Record

__all__ = ["FORMAT"]

_LETTERS = "ABCDEFGHIJ"


def _image(row: Row) -> tuple[Any, str]:
    value = row.get("image", "")
    if isinstance(value, str) and value.strip().isdecimal():
        if not row.text("image_path", "", blank=True).strip():
            row.fail(
                f"points to row {value.strip()[:20]} for its image; write the image itself, or set image_path", "image"
            )
        value = ""
    if value in ("", None):
        return row.get("image_path"), "image_path"
    return value, "image"


def _parse(row: Row, context: Context) -> Iterator[Record]:
    index = row.label_text("index")
    value, field = _image(row)
    options = [row.text(letter, "", blank=True).strip() for letter in _LETTERS]
    last = max((i for i, option in enumerate(options) if option), default=-1)
    hint = row.text("hint", "", blank=True).strip()
    question = clean_question(row.text("question"))
    yield context.record(
        row,
        question=with_options(f"{hint}\n{question}" if hint else question, options[: last + 1]),
        steps=(),
        images=context.images(row, value, field),
        domain=row.text("category", "", blank=True) or row.text("l2-category", "", blank=True) or None,
        group=f"index {index}",
        reference=row.label_text("answer"),
        extra={"id": index, "split": row.label_text("split")},
    )


FORMAT = Format(
    name="vlmevalkit",
    about="VLMEvalKit's TSV (base64 images, options in columns)",
    fields="index, question, image or image_path, A, B, C, D, answer, category",
    known_by=("index", "question"),
    also=lambda row: "image" in row or "image_path" in row,
    parse=_parse,
)
