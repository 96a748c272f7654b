"""TRL's stepwise supervision: a prompt, its completions one step each, and true or false (or 1, 0, null) for each."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _label(row: Row, value: object, field: str) -> float | None:
    if value is not None and value not in (0, 1):
        row.fail(f"must be true, false, 1, 0 or null, is {value!r:.40}", field)
    return None if value is None else float(value == 1)


def _parse(row: Row, context: Context) -> Iterator[Record]:
    question, steps, labels = clean_question(row.text("prompt")), row.texts("completions"), row.list("labels")
    if len(steps) != len(labels):
        row.fail(f"{len(labels)} labels for {len(steps)} completions", "labels")
    images = context.images(row, row.get("images", row.get("image")), "images")
    yield context.record(
        row,
        question=question,
        steps=steps,
        labels=tuple(_label(row, label, f"labels[{i}]") for i, label in enumerate(labels)),
        images=images,
        domain=row.text("domain", None),
        group=group_of(question, images),
        answer=extract_answer(steps[-1]),
    )


FORMAT = Format(
    name="trl_stepwise",
    about="TRL's stepwise supervision (prompt, completions, labels)",
    fields="prompt, completions, labels",
    known_by=("prompt", "completions", "labels"),
    parse=_parse,
)
