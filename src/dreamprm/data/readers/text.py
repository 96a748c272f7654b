"""What readers share about texts: options in their spellings, final answers, image placeholders, names of groups."""

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
    "extract_answer",
    "fingerprint",
    "first_error_labels",
    "group_of",
    "is_bare_answer",
    "literal_list",
    "read_options",
    "with_options",
]

_IMAGE_TOKEN = re.compile(r"[ \t]*<image>[ \t]*\n?|\n?[ \t]*<image ?\d+>[ \t]*$")
_LETTERED = re.compile(r"(?:^|[;\n])\s*\(?([A-Z])[.):]\s*")
_ANSWER = re.compile(
    r"(?:\bfinal answer|\banswer|\bsolution|最终答案|答案)[*_\s]*(?:\bis\b|\bis:|[:：=]|是|为)[\s:：*_]*([^\n]+)",
    re.IGNORECASE,
)
_HEADED = re.compile(
    r"(?:^|\n)#{1,6}\s*(?:final\s+)?answer[:.]?\s*\n+\s*([^\n]+)|(?:^|\n)####\s*([^\n]+)", re.IGNORECASE
)
_NO_QUESTION = re.compile(r"<image ?\d*>|^\s*#*\s*question:")
_NO_WORD = re.compile(r"[\W_]+")
_BARE = re.compile(r"\(?[A-Za-z]\)?[.):]?|[-+]?[\d.,/]+%?|\$?\\boxed\{[^{}]*\}\$?\.?")
_CHOICE = re.compile(r"(?:choice|option)[ _]?\(?([A-Z])\b\)?|^\(?([A-Z])\)?(?=$|[.):,\s])", re.IGNORECASE)


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
    """The question without placeholders that only say where an image goes (`<image>`, a closing `<image1>`).

    A record carries its images beside the text, and some processors count `<image>` in the text as an image.
    `<image 1>` inside a sentence stays: the sentence speaks of it.
    """
    return _IMAGE_TOKEN.sub("", question).strip() if "<image" in question else question.strip()


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return None


def extract_answer(text: str) -> str | None:
    """The chain's own final answer: the last `\\boxed{}`, else the last "answer: …", else a bare answer, or None."""
    boxed = _last_boxed(text)
    if boxed:
        return boxed
    found: list[tuple[int, str]] = []
    lowered = text.lower()
    if "#" in text:
        found += [(m.start(), m[1] or (m[2] if m.lastindex == 2 else "")) for m in _HEADED.finditer(text)]
    if "answer" in lowered or "solution" in lowered or "答案" in text:
        found += [(m.start(), m[1]) for m in _ANSWER.finditer(text)]
    if found:
        answer = max(found)[1].strip().strip("*_$ ").rstrip(".。").strip()
        choice = _CHOICE.match(answer)
        return (choice[1] or choice[2]).upper() if choice and len(answer) < 200 else answer or None
    stripped = text.strip()
    if is_bare_answer(stripped):
        return stripped.strip("().:$ ") or None
    return None


def is_bare_answer(text: str) -> bool:
    """Whether the text is an option letter, a number or a boxed value and nothing else: an answer without reasoning."""
    return len(text) < 80 and _BARE.fullmatch(text.strip()) is not None


def fingerprint(question: str) -> str:
    """A name of the question's words alone (no case, spacing, markup, placeholders), so that files can be compared."""
    words = _NO_WORD.sub(" ", _NO_QUESTION.sub(" ", question.lower())).strip()
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
