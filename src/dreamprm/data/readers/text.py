"""What readers share about texts: options in their spellings, image placeholders, names of groups."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamprm.data.readers.fields import Row
from dreamprm.data.record import Image

__all__ = [
    "clean_question",
    "fingerprint",
    "first_error_labels",
    "group_of",
    "literal_list",
    "read_options",
    "with_options",
]

_LEADING = re.compile(r"(?:\s{0,16}<image>){1,64}[ \t]{0,16}\n?")
_NUMBERED = re.compile(r"\n?[ \t]{0,16}<image ?\d{1,3}>[ \t]{0,16}$")
_LETTERED = re.compile(r"(?:^|[;\n])\s{0,16}\(?([A-Z])[.):]\s{0,16}")
_NO_QUESTION = re.compile(r"<image ?\d{0,9}>|^#{0,9}[ \t]{0,16}question:")
_NO_WORD = re.compile(r"[\W_]+")


def literal_list(row: Row, text: str, field: str) -> list[Any]:
    """A list written as text (`"['a', 'b']"`), read as data and never evaluated."""
    if len(text) > 20_000_000:
        row.fail(f"a list as text of {len(text):,} characters", field)
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        row.fail(f"starts as a list and is none: {text[:60]!r}", field)
    if not isinstance(value, list):
        row.fail(f"must be a list, is {type(value).__name__}", field)
    return value


def read_options(row: Row, value: Any, field: str = "options") -> tuple[str, ...]:
    """Options from a list, a string of a list, or "A. …; B. …"."""
    if value is None or value in ("", "[]") or (isinstance(value, list) and not value):
        return ()
    if isinstance(value, str):
        if value.strip().startswith("["):
            value = literal_list(row, value, field)
        else:
            marks = list(_LETTERED.finditer(value))
            if [m[1] for m in marks] != [chr(65 + i) for i in range(len(marks))] or not marks:
                row.fail(f'must be a list, a list as text, or "A. …; B. …", is {value[:60]!r}', field)
            ends = [m.start() for m in marks[1:]] + [len(value)]
            value = [value[m.end() : end].strip() for m, end in zip(marks, ends)]
    if not isinstance(value, list):
        row.fail(f"must be a list of texts, is {type(value).__name__}", field)
    options = [str(item) if isinstance(item, (int, float)) else item for item in value]
    return tuple(row.check_text(item, f"{field}[{i}]", blank=True) for i, item in enumerate(options))


def with_options(question: str, options: Sequence[str]) -> str:
    """The question followed by `Options: (A) … (B) …`, the layout of the published meta sets."""
    if not options:
        return question
    listed = " ".join(f"({chr(65 + i)}) {option}" for i, option in enumerate(options))
    return f"{question.rstrip()}\n\nOptions: {listed}"


def clean_question(question: str) -> str:
    """The question without placeholders that only say that images come first (`<image>` before all text, `<image1>` at
    the end), and without the spaces around it.

    Where `<image>` stands between words, every one stays, and its image is shown to the model at its place.
    """
    text = question.strip()
    if "<image" not in text:
        return text
    leading = _LEADING.match(text)
    if leading is not None and "<image>" not in text[leading.end() :]:
        text = text[leading.end() :]
    numbered = _NUMBERED.search(text, max(0, len(text) - 64))
    return (text[: numbered.start()] if numbered else text).strip()


def fingerprint(question: str) -> str:
    """A name of the question's words alone (no case, spacing, markup, placeholders), so that files can be compared."""
    words = _NO_WORD.sub(" ", _NO_QUESTION.sub(" ", question.lower().lstrip())).strip()
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def group_of(question: str, images: Sequence[Image] = ()) -> str:
    """The name of a question for files that give none: its words and its images' file names or bytes."""
    digest = hashlib.blake2b(fingerprint(question).encode(), digest_size=8)
    for image in images:
        digest.update(image.name.encode("utf-8", "surrogateescape") if isinstance(image, Path) else image)
    return digest.hexdigest()


def first_error_labels(num_steps: int, first_error: int | None) -> tuple[float | None, ...]:
    """Labels from the index of the first wrong step (from 0; None: all right): right before it, unknown after it."""
    if first_error is None:
        return (1.0,) * num_steps
    return (1.0,) * first_error + (0.0,) + (None,) * (num_steps - first_error - 1)
