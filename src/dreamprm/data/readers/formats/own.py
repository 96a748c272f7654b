"""Our own rows, for users' data: `question` and `steps` (or `response`, which is split), all else optional.

{"question": "…", "steps": ["…", "…"], "labels": [1, 0.5, null], "images": ["a.png"], "correct": false,
 "domain": "charts", "group": "question 17", "answer": "B", "reference": "C", "policy": "my model"}
"""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record
from dreamprm.data.splitter import clean_steps

__all__ = ["FORMAT"]

_TEXTS = ("question", "response", "domain", "group", "answer", "reference", "policy", "id")
_FIELDS = frozenset({*_TEXTS, "steps", "labels", "images", "image", "correct", "extra"})


def _parse(row: Row, context: Context) -> Iterator[Record]:
    unknown = sorted(set(row.value) - _FIELDS)
    if unknown:
        row.fail(
            f"is no field of this format; allowed: {', '.join(sorted(_FIELDS))}; put others into extra",
            str(unknown[0])[:60],
        )
    question = clean_question(row.text("question", blank=True))
    given = row.has("steps")
    if not given and not row.has("response"):
        row.fail('is missing; give steps or a response, and "steps": [] for a question alone', "steps")
    steps = row.texts("steps", empty=True) if given else clean_steps(row.text("response", "", blank=True))
    labels: tuple[float | None, ...] = ()
    if row.has("labels"):
        if not given:
            row.fail("need steps: how a response is split is no place for labels to hang on", "labels")
        items = row.list("labels", empty=True)
        labels = tuple(
            None if x is None else float(x) if isinstance(x, bool) else row.check_number(x, f"labels[{i}]", 0.0, 1.0)
            for i, x in enumerate(items)
        )
    field = "images" if row.has("images") else "image"
    images = context.images(row, row.get(field), field)
    text = row.text("response", "", blank=True) or (steps[-1] if steps else "")
    extra = dict(row.at(row.get("extra", {}), "extra").value)
    extra |= {name: row.label_text(name) for name in ("id", "policy") if row.has(name)}
    yield context.record(
        row,
        question=question,
        steps=steps,
        labels=labels,
        images=images,
        correct=row.flag("correct") if row.has("correct") else None,
        domain=row.text("domain", None),
        group=row.label_text("group") or group_of(question, images),
        answer=row.label_text("answer") or (extract_answer(text) if text else None),
        reference=row.label_text("reference"),
        extra=extra,
    )


FORMAT = Format(
    name="records",
    about="our own rows (question, steps or response, labels, images, correct, domain, group …)",
    fields="question, steps or response; labels, images, correct, domain, group, answer, reference, policy",
    known_by=("question",),
    also=lambda row: set(row) <= _FIELDS and isinstance(row["question"], str) and ("steps" in row or "response" in row),
    parse=_parse,
)
