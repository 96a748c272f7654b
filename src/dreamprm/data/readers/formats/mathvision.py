"""MATH-Vision: questions with an image, and the chains that several models wrote for them.

`mathvision` (test.jsonl): questions alone.
`mathvision_output` (outputs/*.jsonl): `correct` says whether the answer is right.
`mathvision_ursa` (outputs/URSA-8B.csv): `match` says so, and **0 means right**.
The outputs hold no question; they are joined to test.jsonl beside or above them by the id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import DataError, Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, read_options, with_options
from dreamprm.data.record import Image, Record
from dreamprm.data.splitter import clean_steps

__all__ = ["OUTPUT", "QUESTIONS", "URSA"]

_BLIND = ("Text Only", "Image Caption")


def _questions(path: Path) -> Mapping[str, Mapping[str, Any]]:
    for folder in (path.parent, path.parent.parent):
        file = folder / "test.jsonl"
        if file.is_file():
            try:
                rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
                return {str(row["id"]): row for row in rows}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(f"the questions in {file} cannot be read ({error})", source=str(path)) from None
    raise DataError("needs test.jsonl with the questions beside it or one folder above", source=str(path))


def _asked(row: Row, context: Context) -> dict[str, Any]:
    """The fields that questions and outputs share: question, images, domain, group, reference."""
    given = row.label_text("id")
    if not given:
        row.fail("is missing", "id")
    if context.tables and given not in context.tables:
        row.fail(f"{given[:40]!r} is no question of test.jsonl", "id")
    asked = Row(context.tables[given], "test.jsonl", row.number) if context.tables else row
    options = read_options(asked, asked.get("options"))
    return {
        "question": with_options(clean_question(asked.text("question")), options),
        "images": _images(asked, context),
        "domain": asked.text("subject"),
        "group": f"mathvision {given}",
        "reference": asked.label_text("answer"),
    }


def _images(asked: Row, context: Context) -> tuple[Image, ...]:
    # Hugging Face's copy holds the image itself beside its path.
    if asked.has("decoded_image"):
        return context.images(asked, asked.get("decoded_image"), "decoded_image")
    return context.images(asked, asked.text("image"), "image")


def _chain(row: Row, context: Context, text: str, policy: str, **fields: Any) -> Iterator[Record]:
    blind = any(mark in context.path.name for mark in _BLIND)
    if blind and not context.options["blind"]:
        return
    extra = {"id": row.label_text("id"), "policy": policy, "saw_image": not blind}
    yield context.record(row, steps=clean_steps(text), extra=extra, **fields, **_asked(row, context))


def _parse_questions(row: Row, context: Context) -> Iterator[Record]:
    options = read_options(row, row.get("options"))
    extra = {"id": row.label_text("id"), "level": row.label_text("level"), "options": options}
    yield context.record(row, steps=(), extra=extra, **_asked(row, context))


def _parse_output(row: Row, context: Context) -> Iterator[Record]:
    text, answer = row.text("response"), row.label_text("model_answer") or None
    yield from _chain(row, context, text, row.text("model"), correct=row.flag("correct"), answer=answer)


def _parse_ursa(row: Row, context: Context) -> Iterator[Record]:
    text, match = row.text("model_answer"), row.text("match")
    if match not in ("0", "1"):
        row.fail(f"must be 0 (right) or 1 (wrong), is {match[:20]!r}", "match")
    answer = extract_answer(row.text("extraction", "", blank=True)) or extract_answer(text)
    yield from _chain(row, context, text, "URSA-8B", correct=match == "0", answer=answer)


QUESTIONS = Format(
    name="mathvision",
    about="MATH-Vision's questions",
    fields="id, question, options, answer, level, subject, image",
    known_by=("id", "question", "options", "answer", "level", "subject", "image"),
    also=lambda row: "model_answer" not in row,
    parse=_parse_questions,
)
OUTPUT = Format(
    name="mathvision_output",
    about="a model's chains for MATH-Vision (correct)",
    fields="id, model, response, model_answer, correct",
    known_by=("id", "model", "response", "model_answer", "correct"),
    parse=_parse_output,
    options={"blind": True},
    tables=_questions,
)
URSA = Format(
    name="mathvision_ursa",
    about="URSA's chains for MATH-Vision (match: 0 means right)",
    fields="id, question, model_answer, extraction, match",
    known_by=("id", "question", "model_answer", "extraction", "match"),
    parse=_parse_ursa,
    options={"blind": True},
    tables=_questions,
)
