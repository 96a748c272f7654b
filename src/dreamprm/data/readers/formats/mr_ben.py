"""Mr-Ben: chains of three models in five subjects, the first wrong step named by people, counted from 1.

The list of a solution holds lines: a step may go on over several of them, and blank lines stand between some. People
counted the steps by their own numbers ("Step 3: …"), so lines without a number belong to the step before them; the
closing "Solution: …" is a step. A wrong solution that names a step which it does not have is refused. Where several
steps bear the named number, those before the first of them are right, and nothing is said of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import first_error_labels
from dreamprm.data.record import Record

__all__ = ["FORMAT"]

_NUMBERED = re.compile(r"\s*Step (\d+|n)\b")
_CLOSING = re.compile(r"\s*Solution\b")


def _merge(lines: tuple[str, ...]) -> tuple[list[str], list[int | None]]:
    """Lines to steps, and each step's own number (None for a preamble and for the closing solution)."""
    steps: list[str] = []
    numbers: list[int | None] = []
    for line in lines:
        numbered = _NUMBERED.match(line)
        if numbered or _CLOSING.match(line) or not steps:
            steps.append(line)
            numbers.append(int(numbered[1]) if numbered and numbered[1] != "n" else None)
        else:
            steps[-1] += "\n" + line
    kept = [(step.strip(), number) for step, number in zip(steps, numbers) if step.strip()]
    return [step for step, _ in kept], [number for _, number in kept]


def _first_error(row: Row, numbers: list[int | None]) -> list[int]:
    """Indexes of the steps that bear the number of the first wrong step: none for a right solution, mostly one."""
    field, named = "Model_Solution_First_Error_Step", row.label_text("Model_Solution_First_Error_Step")
    verdict = row.text("Model_Solution_Correctness")
    if verdict not in ("correct", "incorrect"):
        row.fail(f"must be correct or incorrect, is {verdict[:40]!r}", "Model_Solution_Correctness")
    if verdict == "correct":
        if named not in (None, "", "N/A"):
            row.fail(f"a right solution names {named[:20]!r} as its first wrong step", field)
        return []
    if named is None or not named.isdecimal() or len(named) > 4:
        row.fail(f"must be the number of a step, is {(named or '')[:20]!r}", field)
    number = int(named)
    places = [index for index, own in enumerate(numbers) if own == number]
    # A step without a number of its own (the closing solution, a preamble in place of step 1) is named by its place.
    if not places and (not 1 <= number <= len(numbers) or numbers[number - 1] is not None):
        row.fail(f"names step {number} of a chain of {len(numbers)} steps", field)
    return places or [number - 1]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    steps, numbers = _merge(row.texts("Model_Solution_Steps", blank=True))
    if not steps:
        row.fail("holds only blank lines", "Model_Solution_Steps")
    places = _first_error(row, numbers)
    first_error = places[0] if len(places) == 1 else None
    labels = first_error_labels(len(steps), places[0] if places else None)
    if len(places) > 1:
        labels = (*labels[: places[0]], *[None] * (len(steps) - places[0]))
    options = row.text("Options", "", blank=True).strip()
    question = row.text("Question") + (f"\n\nOptions:\n{options}" if options else "")
    policy = row.text("Sampled_Model")
    yield context.record(
        row,
        question=question,
        steps=tuple(steps),
        labels=labels,
        correct=not places,
        # The file's key names the question; seven of its questions bear two identifiers in their rows.
        group=row.text("_key", None) or row.text("Question_UUID"),
        answer=extract_answer(steps[-1]),
        reference=row.label_text("Ground_Truth_Answer_Modified") or row.label_text("Ground_Truth_Answer"),
        extra={
            "policy": policy,
            "subject": row.text("Subject", ""),
            "first_error": first_error,
            "certain": len(places) < 2,
        },
    )


FORMAT = Format(
    name="mr_ben",
    about="Mr-Ben (first wrong step named by people)",
    fields="Question_UUID, Question, Options, Sampled_Model, Model_Solution_Steps, Model_Solution_Correctness, …",
    known_by=("Question_UUID", "Model_Solution_Steps", "Model_Solution_First_Error_Step"),
    parse=_parse,
)
