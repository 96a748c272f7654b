"""Math-Shepherd and OpenRLHF: question and steps in one text, a mark after each step; + or - in its place in a second
text (`label`), or a list of verdicts (`value`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
    *parts, rest = row.text("input").split(mark)
    if not parts:
        row.fail(f"holds no step mark {mark!r}; data.options.mark sets another", "input")
    if rest.strip():
        row.fail(f"text after the last step mark: {rest.strip()[:60]!r}", "input")
    labels = _from_list(row, len(parts)) if "value" in row.value else _from_text(row, parts)
    # The last one: a question may speak of its own "Step 1:".
    begin = next(iter(deque(_FIRST.finditer(parts[0]), maxlen=1)), None)
    if begin is None:
        row.fail("no 'Step 1:' tells the question from the first step", "input")
    question, first = parts[0][: begin.start()], parts[0][begin.start() :]
    yield context.record(
        row,
        question=question.strip(),
        steps=(first.strip(), *(part.strip() for part in parts[1:])),
        labels=labels,
        domain=row.text("task", None),
        group=group_of(question),
        answer=extract_answer(parts[-1]),
        # With these, and the mark as the prompt's separator, the model reads the very text of the file.
        extra={"breaks": [part[: len(part) - len(part.lstrip())] for part in parts[1:]]},
    )


def _from_text(row: Row, parts: Sequence[str]) -> tuple[float, ...]:
    """The label text repeats the steps word for word, and gives each verdict where the mark stood."""
    marked = row.text("label")
    labels: list[float] = []
    position = 0
    for index, part in enumerate(parts):
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
    return tuple(labels)


def _from_list(row: Row, num_steps: int) -> tuple[float | None, ...]:
    """OpenRLHF's list: "+" or "-", a probability, or null for each step."""
    verdicts = row.list("value")
    if len(verdicts) != num_steps:
        row.fail(f"{len(verdicts)} verdicts for {num_steps} marked steps", "value")
    labels: list[float | None] = []
    for index, verdict in enumerate(verdicts):
        if verdict in ("+", "-"):
            labels.append(float(verdict == "+"))
        elif verdict is None or isinstance(verdict, bool):
            labels.append(None if verdict is None else float(verdict))
        else:
            labels.append(row.check_number(verdict, f"value[{index}]", 0.0, 1.0))
    return tuple(labels)


def _also(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("label"), str) or isinstance(row.get("value"), list)


FORMAT = Format(
    name="math_shepherd",
    about="Math-Shepherd and OpenRLHF (a mark after each step; + and - in the label text, or a list)",
    fields="input, label (text) or value (list), task",
    known_by=("input",),
    also=_also,
    parse=_parse,
    options={"mark": "ки"},
)
