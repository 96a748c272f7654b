"""MM-Vet (arXiv 2308.02490): open questions, graded from 0 to 1 by a judge; no chains. The answer may join several by
<AND> and <OR>."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    given = row.label_text("question_id") or row.label_text("_key") or row.fail("is missing", "question_id")
    image = "image" if row.has("image") else "imagename"
    capability = row.get("capability")
    if isinstance(capability, str):
        capability = [part.strip() for part in capability.split(",")]
    if not isinstance(capability, list) or not capability:
        row.fail("must be a list of capabilities", "capability")
    names = [row.check_text(name, f"capability[{place}]") for place, name in enumerate(capability)]
    yield context.record(
        row,
        question=clean_question(row.text("question")),
        steps=(),
        images=context.images(row, row.get(image), image),
        domain="+".join(sorted(names)),
        group=f"mm-vet {given}",
        reference=row.text("answer"),
        extra={"id": given, "category": tuple(names)},
    )


FORMAT = Format(
    name="mm_vet",
    about="MM-Vet's questions",
    fields="question_id, question, answer, image or imagename, capability",
    known_by=("question", "answer", "capability"),
    also=lambda row: "imagename" in row or "question_id" in row,
    parse=_parse,
)
