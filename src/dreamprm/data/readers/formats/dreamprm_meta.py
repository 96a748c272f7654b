"""DreamPRM's meta set: question and chain in one text, right or wrong by the final answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record
from dreamprm.data.splitter import clean_steps, split_question

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    text, correct = row.text("input"), row.flag("true_false")
    question, chain = split_question(text)
    question = clean_question(question)
    images = context.images(row, row.get("image_path"), "image_path")
    given = row.label_text("id")
    yield context.record(
        row,
        question=question,
        steps=clean_steps(chain),
        images=images,
        correct=correct,
        group=f"id {given}" if given not in (None, "", "-1") else group_of(question, images),
        answer=extract_answer(chain) if chain else None,
        extra={"id": given, "text": text},
    )


def _also(row: Mapping[str, Any]) -> bool:
    return "conversations" not in row


FORMAT = Format(
    name="dreamprm_meta",
    about="DreamPRM's meta set (question and chain in one text)",
    fields="id, true_false, input, image_path",
    known_by=("true_false", "input"),
    also=_also,
    parse=_parse,
)
