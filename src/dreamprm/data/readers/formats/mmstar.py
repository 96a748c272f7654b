"""MMStar (arXiv 2403.20330) as Hugging Face has it: the options stand in the question's text; no chains."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import options_of
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    index = row.label_text("index")
    question = clean_question(row.text("question"))
    yield context.record(
        row,
        question=question,
        steps=(),
        images=context.images(row, row.get("image"), "image"),
        domain=row.text("l2_category"),
        group=f"index {index}",
        reference=row.text("answer"),
        extra={
            "id": index,
            "options": tuple(text.rstrip(", ") for text in options_of(question).values()),
            "category": row.text("category"),
        },
    )


FORMAT = Format(
    name="mmstar",
    about="MMStar's questions",
    fields="index, question, image, answer, category, l2_category, meta_info",
    known_by=("index", "question", "answer", "category", "l2_category", "meta_info"),
    parse=_parse,
)
