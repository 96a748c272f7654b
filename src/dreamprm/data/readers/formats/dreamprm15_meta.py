"""DreamPRM-1.5's meta set: four chains per MMMU-Pro question, right or wrong by the final answer.

Every model turn in the published file is the placeholder `+`, also in chains that are wrong: it holds no step labels,
so none are made. Its turns were cut by a splitter that lost digits; the steps are therefore cut anew from `response`
(`steps=turns` takes the published turns).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.formats.visualprm import read_conversation
from dreamprm.data.readers.text import group_of
from dreamprm.data.record import Record
from dreamprm.data.splitter import clean_steps

__all__ = ["FORMAT"]

_SUBJECT = re.compile(r"(?:test|validation|dev)_(.+)_\d+")


def _parse(row: Row, context: Context) -> Iterator[Record]:
    question, turns, verdicts = read_conversation(row)
    response, given = row.text("response"), row.label_text("id")
    subject = _SUBJECT.fullmatch(given or "")
    # The authors' paths begin at their own working folder (`../data/…`); what follows is relative to the image root.
    image = row.get("image")
    if isinstance(image, str) and image.startswith("../"):
        image = str(PurePosixPath(*[part for part in PurePosixPath(image).parts if part != ".."]))
    images = context.images(row, image, "image")
    yield context.record(
        row,
        question=question,
        steps=turns if context.options["steps"] == "turns" else clean_steps(response),
        images=images,
        correct=row.flag("true_false"),
        domain=subject[1] if subject else None,
        group=f"id {given}" if given not in (None, "", "-1") else group_of(question, images),
        answer=extract_answer(response),
        extra={"id": given, "text": response, "turns": turns, "verdicts": verdicts},
    )


FORMAT = Format(
    name="dreamprm15_meta",
    about="DreamPRM-1.5's meta set (four chains per question, placeholder verdicts)",
    fields="id, response, true_false, image, conversations",
    known_by=("response", "true_false", "conversations"),
    parse=_parse,
    options={"steps": "response"},
)
