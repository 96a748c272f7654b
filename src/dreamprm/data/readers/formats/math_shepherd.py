"""Math-Shepherd: question and steps in one text, a mark after each step; the label text has + or - in its place."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]

_FIRST = re.compile(r"(?:^|(?<=\s))Step 1\s{0,8}:")
_VERDICT = re.compile(r"\s{0,64}([+-])[ \t\r]{0,64}(?:\n|$)")


def _parse(row: Row, context: Context) -> Iterator[Record]:
    mark = str(context.options["mark"])
    text, marked = row.text("input"), row.text("label")
    *parts, rest = text.split(mark)
    if not parts:
        row.fail(f"holds no step mark {mark!r}", "input")
    if rest.strip():
        row.fail(f"text after the last step mark: {rest.strip()[:60]!r}", "input")
    labels: list[float] = []
    position = 0
    for index, part in enumerate(parts):
        # The label text repeats the step word for word, then gives its verdict where the mark stood.
        body = part.strip()
        found = marked.find(body, position)
        verdict = (
            _VERDICT.match(marked, found + len(body)) if found >= 0 and not marked[position:found].strip() else None
        )
        if verdict is None:
            row.fail(f"step {index + 1} of input does not stand in the label followed by + or -", "label")
        labels.append(1.0 if verdict[1] == "+" else 0.0)
        position = verdict.end()
    if marked[position:].strip():
        row.fail(f"text after the last verdict: {marked[position:].strip()[:60]!r}", "label")
    # The last one: a question may speak of its own "Step 1:".
    begin = next(iter(deque(_FIRST.finditer(parts[0]), maxlen=1)), None)
    if begin is None:
        row.fail("no 'Step 1:' tells the question from the first step", "input")
    question, first = parts[0][: begin.start()], parts[0][begin.start() :]
    yield context.record(
        row,
        question=question.strip(),
        steps=(first.strip(), *(part.strip() for part in parts[1:])),
        labels=tuple(labels),
        domain=row.text("task", None),
        group=group_of(question),
        answer=extract_answer(parts[-1]),
        # With these, and the mark as the prompt's separator, the model reads the text of the file.
        extra={"breaks": [part[: len(part) - len(part.lstrip())] for part in parts[1:]]},
    )


FORMAT = Format(
    name="math_shepherd",
    about="Math-Shepherd (a mark after each step, + and - in the label text)",
    fields="input, label, task",
    known_by=("input", "label"),
    also=lambda row: isinstance(row["label"], str),
    parse=_parse,
    options={"mark": "ки"},
)
