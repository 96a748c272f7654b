"""VLMEvalKit's tables: questions with base64 images (or paths), options in columns A, B, C …; no chains.

`vlmevalkit_result` is what it writes after inference: the same columns but the image, and a model's `prediction`.
A table saves room by writing the index of an earlier row where an image repeats; such rows are refused with the reason,
unless `image_path` names the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.formats.mathvista import answer_form
from dreamprm.data.readers.text import clean_question, read_options, with_options
from dreamprm.data.record import Record
from dreamprm.data.splitter import clean_steps

__all__ = ["FORMAT", "RESULT"]

_LETTERS = "ABCDEFGHIJ"


def _image(row: Row) -> tuple[Any, str]:
    value = row.get("image", "")
    if isinstance(value, str) and value.strip().isdecimal():
        if not row.text("image_path", "", blank=True).strip():
            row.fail(
                f"points to row {value.strip()[:20]} for its image; write the image itself, or set image_path", "image"
            )
        value = ""
    if value in ("", None):
        return row.get("image_path"), "image_path"
    return value, "image"


def _cell(row: Row, *names: str) -> str:
    """The first of these columns that holds something, as text; "" for empty cells."""
    for name in names:
        text = (row.label_text(name) or "").strip()
        if text and text.lower() != "nan":
            return text
    return ""


def _asked(row: Row) -> dict[str, Any]:
    """What questions and results share."""
    index = row.label_text("index")
    options = tuple(_cell(row, letter) for letter in _LETTERS)
    last = max((place for place, option in enumerate(options) if option), default=-1)
    options = options[: last + 1]
    if not options and _cell(row, "choices") not in ("", "[]"):  # MathVista's and MathVision's tables
        options = read_options(row, _cell(row, "choices"), "choices")
    kind, form = _cell(row, "question_type"), _cell(row, "answer_type")
    precision = _cell(row, "precision")
    decimals = int(float(precision)) if precision.replace(".", "", 1).isdigit() and float(precision) < 13 else 0
    hint, question = _cell(row, "hint"), clean_question(row.text("question"))
    question = with_options(f"{hint}\n{question}" if hint else question, options)
    if kind and form and "Hint:" not in question:
        question = f"{question}\n\n{answer_form(kind, form, decimals)}".rstrip()
    problem, key = _cell(row, "ID"), _cell(row, "key")
    return {
        "question": question,
        "domain": _cell(row, "category", "l2-category", "l2_category", "task", "catagory", "subject") or None,
        "group": f"index {index}",
        "reference": _cell(row, "answer") or None,
        "extra": {
            "id": problem or index,
            "split": row.label_text("split"),
            "options": options,
            "category": _cell(row, "category", "l2-category", "l2_category", "catagory", "subject") or None,
        }
        | {name: value for name, value in (("question_type", kind), ("answer_type", form), ("key", key)) if value}
        | ({"precision": decimals} if precision else {}),
    }


def _parse(row: Row, context: Context) -> Iterator[Record]:
    value, field = _image(row)
    yield context.record(row, steps=(), images=context.images(row, value, field), **_asked(row))


def _parse_result(row: Row, context: Context) -> Iterator[Record]:
    text = row.label_text("prediction") or ""  # an empty cell: the model wrote nothing
    steps = clean_steps(text) or (text.strip() or "(empty)",)
    asked = _asked(row)
    asked["extra"] |= {"text": text}
    yield context.record(row, steps=steps, answer=extract_answer(text), **asked)


FORMAT = Format(
    name="vlmevalkit",
    about="VLMEvalKit's TSV (base64 images, options in columns)",
    fields="index, question, image or image_path, A, B, C, D, answer, category",
    known_by=("index", "question"),
    also=lambda row: "image" in row or "image_path" in row,
    parse=_parse,
)
RESULT = Format(
    name="vlmevalkit_result",
    about="VLMEvalKit's result files (.xlsx, .tsv, .json)",
    fields="index, question, prediction, A, B, C, D, answer, category",
    known_by=("index", "question", "prediction"),
    parse=_parse_result,
)
