"""DreamPRM's training file: prefixes of chains, each with the Monte-Carlo accuracy of its last step."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record
from dreamprm.data.splitter import clean_steps, split_question

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    prompt, prefix = row.text("input"), row.text("add", "", blank=True)
    if prefix.strip():
        # Where `input` already ends in steps, they belong to the chain and `add` goes on from them.
        question, chain = split_question(prompt)
        prefix = chain + "\n" + prefix if chain else prefix
    else:
        question, prefix = split_question(prompt)
    steps = clean_steps(prefix)
    if not steps:
        row.fail("input and add hold no step whose label accuracy could be", "add")
    images = context.images(row, row.get("image_path"), "image_path")
    question = clean_question(question)
    yield context.record(
        row,
        question=question,
        steps=steps,
        labels=(None,) * (len(steps) - 1) + (row.number_in("accuracy", 0.0, 1.0),),
        images=images,
        domain=row.text("dataset", None),
        group=group_of(question, images),
        reference=row.label_text("ground_truth"),
        extra={name: row.label_text(name) for name in ("id", "sid", "score", "times")},
    )


FORMAT = Format(
    name="dreamprm_train",
    about="DreamPRM's training prefixes (accuracy of the last step)",
    fields="id, sid, input, add, ground_truth, image_path, dataset, score, times, accuracy",
    known_by=("input", "add", "accuracy"),
    parse=_parse,
)
