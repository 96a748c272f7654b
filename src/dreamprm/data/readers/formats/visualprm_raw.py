"""VisualPRM-400K v1.1 raw: soft labels from Monte-Carlo completions, with their counts."""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import clean_question, group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _parse(row: Row, context: Context) -> Iterator[Record]:
    steps: list[str] = []
    scores: list[float] = []
    right: list[int | None] = []
    total: list[int | None] = []
    for index, item in enumerate(row.list("steps_with_score")):
        step = row.at(item, f"steps_with_score[{index}]")
        steps.append(step.text("step"))
        scores.append(step.number_in("score", 0.0, 1.0))
        counts = [step.get(name) for name in ("num_mc_correct", "num_mc_total")]
        if counts[0] is not None and counts[1] is not None:
            num_right, num_total = (step.integer(c, "num_mc_correct, num_mc_total") for c in counts)
            # Published scores are rounded to no fewer than three digits.
            if num_total <= 0 or not 0 <= num_right <= num_total or abs(num_right / num_total - scores[-1]) > 1e-3:
                step.fail(f"{scores[-1]:g} disagrees with {num_right} right of {num_total}", "score")
        right.append(counts[0])
        total.append(counts[1])
    question = clean_question(row.text("question_orig", None) or row.text("question"))
    images = context.images(row, row.get("image"), "image")
    reference = row.label_text("answer")
    yield context.record(
        row,
        question=question,
        steps=tuple(steps),
        labels=tuple(scores),
        images=images,
        group=group_of(question, images),
        answer=extract_answer(row.text("response", "", blank=True)) or extract_answer(steps[-1]),
        reference=reference,
        extra={"num_right": tuple(right), "num_completions": tuple(total)},
    )


FORMAT = Format(
    name="visualprm_raw",
    about="VisualPRM-400K v1.1 raw (soft labels, Monte-Carlo counts)",
    fields="image, question, answer, response, steps_with_score",
    known_by=("steps_with_score",),
    parse=_parse,
)
