"""ProcessBench: chains of many models with the index of the first wrong step, counted from 0, -1 for none."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import first_error_labels, group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    steps, label = row.texts("steps"), row.integer(row.get("label"), "label")
    if not -1 <= label < len(steps):
        row.fail(f"must be -1 or the index of one of the {len(steps)} steps, is {label}", "label")
    first_error = None if label == -1 else label
    question, given = row.text("problem"), row.label_text("id")
    yield context.record(
        row,
        question=question,
        steps=steps,
        labels=first_error_labels(len(steps), first_error),
        correct=row.flag("final_answer_correct") if row.has("final_answer_correct") else None,
        domain=given.rpartition("-")[0] if given and "-" in given else None,
        group=group_of(question),
        answer=extract_answer(steps[-1]),
        extra={"id": given, "policy": row.label_text("generator"), "first_error": first_error},
    )


FORMAT = Format(
    name="process_bench",
    about="ProcessBench (label: index of the first wrong step)",
    fields="id, generator, problem, steps, final_answer_correct, label",
    known_by=("problem", "steps", "label"),
    parse=_parse,
)
