"""DreamPRM-1.5's test file: a question with its candidates, each right or wrong."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record
from dreamprm.data.splitter import clean_steps

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    question = clean_question(row.text("question"))
    candidates, correct = row.texts("candidates"), row.list("true_false")
    if len(candidates) != len(correct):
        row.fail(f"{len(correct)} entries for {len(candidates)} candidates", "true_false")
    images = context.images(row, row.get("image_path"), "image_path")
    for index, candidate in enumerate(candidates):
        yield context.record(
            row,
            question=question,
            steps=clean_steps(candidate),
            images=images,
            correct=row.check_flag(correct[index], f"true_false[{index}]"),
            group=group_of(question, images),
            answer=extract_answer(candidate),
            part=str(index),
            extra={"candidate": index, "text": candidate},
        )


FORMAT = Format(
    name="dreamprm15_test",
    about="DreamPRM-1.5's test file (candidates of a question)",
    fields="question, image_path, candidates, true_false",
    known_by=("question", "candidates", "true_false"),
    parse=_parse,
)
