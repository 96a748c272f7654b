"""MathVista (arXiv 2310.02255): questions with an image, choices or a number as the answer; no chains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, read_options, with_options
from dreamprm.data.record import Record

__all__ = ["FORMAT", "answer_form"]


def answer_form(question_type: str, answer_type: str, precision: int) -> str:
    """What kind of answer is wanted, in one sentence; the published prompt says it too."""
    if question_type == "multi_choice":
        return "Answer with the letter of the right option."
    if answer_type == "integer":
        return "Answer with a whole number."
    if answer_type == "float":
        return f"Answer with a number of {precision} decimal place{'s' if precision != 1 else ''}."
    return "Answer with a list, such as [1, 2, 3]." if answer_type == "list" else ""


def _parse(row: Row, context: Context) -> Iterator[Record]:
    given = row.label_text("pid") or row.label_text("_key") or row.fail("is missing", "pid")
    kind, form = row.text("question_type"), row.text("answer_type")
    options = read_options(row, row.get("choices"), "choices")
    if kind == "multi_choice" and not options:
        row.fail("a question of question_type multi_choice needs them", "choices")
    precision = int(row.number_in("precision", 0, 12)) if row.has("precision") else 0
    unit = row.text("unit", "", blank=True).strip()
    question = clean_question(row.text("question"))
    question = f"{question} (Unit: {unit})" if unit and unit not in question else question
    # Hugging Face's copy holds the image itself beside its path.
    image = "decoded_image" if row.has("decoded_image") else "image"
    facts: Any = row.get("metadata", {})
    facts = facts if isinstance(facts, Mapping) else {}
    yield context.record(
        row,
        question=f"{with_options(question, options)}\n\n{answer_form(kind, form, precision)}".rstrip(),
        steps=(),
        images=context.images(row, row.get(image), image),
        domain=facts.get("task") if isinstance(facts.get("task"), str) else None,
        group=f"mathvista {given}",
        reference=row.label_text("answer"),
        extra={
            "id": given,
            "question_type": kind,
            "answer_type": form,
            "precision": precision,
            "options": options,
            "category": facts.get("category"),
        },
    )


FORMAT = Format(
    name="mathvista",
    about="MathVista's questions",
    fields="pid, question, image or decoded_image, choices, unit, precision, answer, question_type, answer_type",
    known_by=("question", "question_type", "answer_type", "choices"),
    also=lambda row: "index" not in row and ("pid" in row or "_key" in row),
    parse=_parse,
)
