"""MMMU and MMMU-Pro: questions with up to seven images and their options; no chains."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, read_options, with_options
from dreamprm.data.record import Image, Record

__all__ = ["FORMAT"]

_ID = re.compile(r"(?:test|validation|dev)_(.+)_\d+")


def _parse(row: Row, context: Context) -> Iterator[Record]:
    given = row.text("id")
    images: list[Image] = []
    for name in ("image", *(f"image_{i}" for i in range(1, 8))):
        images.extend(context.images(row, row.get(name), name))
    options = read_options(row, row.get("options"))
    # MMMU-Pro's vision part has the question inside the image.
    text = clean_question(row.text("question", "", blank=True))
    subject = _ID.fullmatch(given)
    yield context.record(
        row,
        question=with_options(text, options),
        steps=(),
        images=tuple(images),
        domain=row.text("subject", None) or (subject[1] if subject else None) or row.text("subfield", None),
        group=f"id {given}",
        reference=row.label_text("answer"),
        extra={
            "id": given,
            "num_options": len(options),
            "options": options,
            "question_type": row.label_text("question_type"),
            "difficulty": row.label_text("topic_difficulty"),
        },
    )


FORMAT = Format(
    name="mmmu",
    about="MMMU and MMMU-Pro (questions with options, image_1 … image_7)",
    fields="id, question, options, answer, image_1 … image_7, subfield or subject",
    known_by=("id", "options", "answer"),
    also=lambda row: "image_1" in row or "subject" in row or "subfield" in row,
    parse=_parse,
)
