"""PRMBench: a right solution and the same solution with errors inserted, with the numbers of the wrong steps (from 1).

Rows that number a step beyond the chain's end are refused: where the label belongs cannot be known.
`originals=true` adds the right solution of each row, a second record of the same question.
"""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format, drop_blank
from dreamprm.data.readers.text import group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    steps = row.texts("modified_process", blank=True)
    wrong = {row.integer(e, f"error_steps[{i}]") for i, e in enumerate(row.list("error_steps", empty=True))}
    beyond = sorted(number for number in wrong if not 1 <= number <= len(steps))
    if beyond:
        row.fail(f"names step {beyond[0]} of a chain of {len(steps)} steps", "error_steps")
    labels: tuple[float | None, ...] = tuple(0.0 if i + 1 in wrong else 1.0 for i in range(len(steps)))
    steps, labels = drop_blank(steps, labels, row, "modified_process")
    domain, original_question = row.text("classification"), row.text("original_question")
    # `original_question` is rewritten from row to row; `question` is the same in all rows of one.
    group = group_of(row.text("question", None) or original_question)
    given, reference = row.label_text("idx"), row.label_text("ground_truth")
    first_error = labels.index(0.0) if 0.0 in labels else None
    yield context.record(
        row,
        question=row.text("modified_question"),
        steps=steps,
        labels=labels,
        domain=domain,
        group=group,
        answer=extract_answer(steps[-1]),
        reference=reference,
        extra={"id": given, "first_error": first_error, "original": False},
    )
    if context.options["originals"]:
        right = row.texts("original_process", blank=True)
        right, all_right = drop_blank(right, (1.0,) * len(right), row, "original_process")
        yield context.record(
            row,
            question=original_question,
            steps=right,
            labels=all_right,
            domain=domain,
            group=group,
            answer=extract_answer(right[-1]),
            reference=reference,
            part="original",
            extra={"id": given, "first_error": None, "original": True},
        )


FORMAT = Format(
    name="prmbench",
    about="PRMBench (errors inserted into right solutions)",
    fields="original_question, modified_question, original_process, modified_process, error_steps, classification",
    known_by=("modified_process", "error_steps", "classification"),
    parse=_parse,
    options={"originals": False},
)
