"""R-Bench-V (arXiv 2505.16770): open questions that want a drawing to be thought of; no chains. Its files spell the
column "catagory", and name no rows: a question is named by its words and image."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    category = row.text("catagory").strip().lower()
    question = clean_question(row.text("question"))
    images = context.images(row, row.get("image"), "image")
    yield context.record(
        row,
        question=question,
        steps=(),
        images=images,
        domain=category,
        group=group_of(question, images),
        reference=row.label_text("answer"),
        extra={"id": str(row.number), "category": category},
    )


FORMAT = Format(
    name="r_bench_v",
    about="R-Bench-V's questions",
    fields="question, answer, image, catagory",
    known_by=("question", "answer", "catagory"),
    also=lambda row: "index" not in row,
    parse=_parse,
)
