"""VisualProcessBench: chains of five models, each step marked by people: 1 right, 0 neutral, -1 wrong."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]

_LABELS = {1: 1.0, 0: None, -1: 0.0}


def _parse(row: Row, context: Context) -> Iterator[Record]:
    response = row.at(row.get("response"), "response")
    steps, marks = response.texts("steps"), response.list("process_correctness")
    if len(steps) != len(marks):
        response.fail(f"{len(marks)} entries for {len(steps)} steps", "process_correctness")
    for index, mark in enumerate(marks):
        if response.integer(mark, f"process_correctness[{index}]") not in _LABELS:
            response.fail(f"must be 1, 0 or -1, is {mark}", f"process_correctness[{index}]")
    question = clean_question(row.text("question"))
    images = context.images(row, row.get("image"), "image")
    yield context.record(
        row,
        question=question,
        steps=steps,
        labels=tuple(_LABELS[mark] for mark in marks),
        images=images,
        domain=row.text("data_source", None),
        group=group_of(question, images),
        answer=extract_answer(steps[-1]),
        reference=row.label_text("answer"),
        extra={"policy": row.label_text("policy_model")},
    )


FORMAT = Format(
    name="visual_process_bench",
    about="VisualProcessBench (1 right, 0 neutral and without label, -1 wrong)",
    fields="image, question, answer, response{steps, process_correctness}, policy_model, data_source",
    known_by=("question", "response"),
    also=lambda row: isinstance(row["response"], dict) and "process_correctness" in row["response"],
    parse=_parse,
)
