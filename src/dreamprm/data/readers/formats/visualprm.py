"""VisualPRM-400K, first version: a conversation in which every step is a human turn and every verdict a gpt turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.rows import Row
from dreamprm.data.readers.text import clean_question, extract_answer, group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT", "read_conversation"]

_QUESTION, _PROCESS = "### Question:", "### Solution Process:"
_LABELS = {"+": 1.0, "-": 0.0}


def read_conversation(row: Row) -> tuple[str, tuple[str, ...], tuple[float, ...]]:
    """(question, steps, labels) of a conversation; the question shares a turn with the first step or has its own."""
    question: str | None = None
    steps: list[str] = []
    labels: list[float] = []
    for index, item in enumerate(row.list("conversations")):
        turn = row.at(item, f"conversations[{index}]")
        speaker, value = turn.text("from"), turn.text("value", blank=True)
        if speaker == "system":
            continue
        if speaker == "gpt":
            if len(labels) != len(steps) - 1:
                turn.fail("a verdict must follow its step", "from")
            if value.strip() not in _LABELS:
                turn.fail(f"must be + or -, is {value[:40]!r}", "value")
            labels.append(_LABELS[value.strip()])
        elif speaker != "human":
            turn.fail(f"must be system, human or gpt, is {speaker[:40]!r}", "from")
        elif question is None:
            head, _, first = value.partition(_PROCESS)
            if _QUESTION not in head:
                turn.fail(f"the first human turn must hold {_QUESTION!r}", "value")
            question = clean_question(head.partition(_QUESTION)[2])
            if first.strip():
                steps.append(first.strip())
        else:
            if len(labels) != len(steps):
                turn.fail("two steps without a verdict between them", "from")
            if not value.strip():
                turn.fail("step is empty", "value")
            steps.append(value.strip())
    if question is None or not steps:
        row.fail("holds no question or no step", "conversations")
    if len(labels) != len(steps):
        row.fail("the last step has no verdict", "conversations")
    return question, tuple(steps), tuple(labels)


def _parse(row: Row, context: Context) -> Iterator[Record]:
    question, steps, labels = read_conversation(row)
    images = context.images(row, row.get("image"), "image")
    yield context.record(
        row,
        question=question,
        steps=steps,
        labels=labels,
        images=images,
        group=group_of(question, images),
        answer=extract_answer(steps[-1]),
        extra={"id": row.label_text("id")},
    )


def _also(row: Mapping[str, Any]) -> bool:
    return "true_false" not in row


FORMAT = Format(
    name="visualprm",
    about="VisualPRM-400K (conversations with + and -)",
    fields="image, conversations",
    known_by=("conversations",),
    also=_also,
    parse=_parse,
)
