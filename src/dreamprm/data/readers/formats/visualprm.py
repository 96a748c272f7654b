"""VisualPRM-400K, first version: a conversation in which every step is a human turn and every verdict a gpt turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import MAX_TEXT, Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
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
        speaker, value = _turn(row, item, index)
        if speaker == "system":
            continue
        if speaker == "gpt":
            if len(labels) != len(steps) - 1:
                row.fail("a verdict must follow its step", f"conversations[{index}].from")
            if value.strip() not in _LABELS:
                row.fail(f"must be + or -, is {value[:40]!r}", f"conversations[{index}].value")
            labels.append(_LABELS[value.strip()])
        elif speaker != "human":
            row.fail(f"must be system, human or gpt, is {speaker[:40]!r}", f"conversations[{index}].from")
        elif question is None:
            head, _, first = value.partition(_PROCESS)
            if _QUESTION not in head:
                row.fail(f"the first human turn must hold {_QUESTION!r}", f"conversations[{index}].value")
            question = clean_question(head.partition(_QUESTION)[2])
            if first.strip():
                steps.append(first.strip())
        else:
            if len(labels) != len(steps):
                row.fail("two steps without a verdict between them", f"conversations[{index}].from")
            if not value.strip():
                row.fail("step is empty", f"conversations[{index}].value")
            steps.append(value.strip())
    if question is None or not steps:
        row.fail("holds no question or no step", "conversations")
    if len(labels) != len(steps):
        row.fail("the last step has no verdict", "conversations")
    return question, tuple(steps), tuple(labels)


def _turn(row: Row, item: Any, index: int) -> tuple[str, str]:
    """(speaker, text) of a turn; good ones are told in one look, since files hold millions of them."""
    if isinstance(item, dict):
        speaker, value = item.get("from"), item.get("value")
        if isinstance(speaker, str) and isinstance(value, str) and len(value) <= MAX_TEXT and value.isascii():
            return speaker, value
    turn = row.at(item, f"conversations[{index}]")
    return turn.text("from"), turn.text("value", blank=True)


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
