"""WeMath (arXiv 2407.01284): problems of two or three steps, each step a question of its own; no chains."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, read_options, with_options
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    given, key = row.label_text("ID"), row.text("key")
    image = "image_path" if row.has("image_path") else "image"
    options = read_options(row, row.get("option"), "option")
    yield context.record(
        row,
        question=with_options(clean_question(row.text("question")), options),
        steps=(),
        images=context.images(row, row.get(image), image),
        domain=row.text("knowledge concept", "", blank=True) or None,
        group=f"wemath {given} {key}",
        reference=row.text("answer"),
        extra={"id": given, "key": key, "options": options, "category": key.partition("_")[0]},
    )


FORMAT = Format(
    name="we_math",
    about="WeMath's questions",
    fields="ID, key, question, option, answer, image_path, knowledge concept",
    known_by=("ID", "key", "question", "option", "answer"),
    also=lambda row: "index" not in row,
    parse=_parse,
)
