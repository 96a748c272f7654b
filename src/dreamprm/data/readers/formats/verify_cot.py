"""verify_cot: chains that number every statement; ten sampled per date question, or 100 per task judged by people.

`verify_cot_samples` (date_np.json): ten chains per row, each right or wrong; no step labels.
`verify_cot_human` (human_annotation/*.json): people say whether the whole chain is valid. Read as "right up to here", a
valid chain is right at every step and an invalid one is wrong at its last; which earlier step is to blame nobody said,
so the steps before stay without label (`labels=none` makes no labels at all).
Date questions share premises and differ only in what is asked: the group is the premise, or splits leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import group_of, with_options
from dreamprm.data.record import Record
from dreamprm.data.splitter import clean_steps

__all__ = ["HUMAN", "SAMPLES"]

_ASKED = re.compile(r"\bWhat is (?:the )?date\b.*", re.DOTALL)


def _premise(question: str) -> str:
    """The question without what it asks of a date; a whole question elsewhere."""
    return group_of(_ASKED.sub("", question).strip() or question)


def _task(context: Context) -> str:
    return context.domain.removesuffix("_100").removesuffix("_np")


def _parse_samples(row: Row, context: Context) -> Iterator[Record]:
    question, chains = row.text("question"), row.texts("model_outputs")
    answers, correct = row.list("pred_answers"), row.list("per_sample_correct")
    if not len(chains) == len(answers) == len(correct):
        row.fail(f"{len(answers)} answers and {len(correct)} verdicts for {len(chains)} chains", "model_outputs")
    for index, chain in enumerate(chains):
        answer = answers[index]
        yield context.record(
            row,
            question=question,
            steps=clean_steps(chain),
            correct=row.check_flag(correct[index], f"per_sample_correct[{index}]"),
            domain=_task(context),
            group=_premise(question),
            answer=None if answer is None else row.check_text(str(answer), f"pred_answers[{index}]", blank=True),
            reference=row.label_text("final_answer"),
            part=str(index),
            extra={"id": row.label_text("example_idx"), "candidate": index, "question_group": group_of(question)},
        )


def _parse_human(row: Row, context: Context) -> Iterator[Record]:
    options = row.value.get("choices")
    question = with_options(row.text("question"), row.texts("choices") if options else ())
    steps = clean_steps(row.text("answer"))
    valid = row.get("flag")
    if isinstance(valid, bool) or valid not in (0, 1):
        row.fail(f"must be 1 (the chain is valid) or 0, is {valid!r:.40}", "flag")
    labels: tuple[float | None, ...] = ()
    if context.options["labels"] != "none":
        labels = (1.0,) * len(steps) if valid else (None,) * (len(steps) - 1) + (0.0,)
    yield context.record(
        row,
        question=question,
        steps=steps,
        labels=labels,
        correct=row.flag("correct"),
        domain=_task(context),
        group=_premise(question),
        answer=row.label_text("final_answer"),
        extra={"valid": bool(valid), "solution": row.label_text("gt_answer")},
    )


SAMPLES = Format(
    name="verify_cot_samples",
    about="verify_cot, ten sampled chains per date question",
    fields="question, final_answer, model_outputs, pred_answers, per_sample_correct",
    known_by=("question", "model_outputs", "per_sample_correct"),
    parse=_parse_samples,
)
HUMAN = Format(
    name="verify_cot_human",
    about="verify_cot, chains whose validity people judged",
    fields="question, answer, final_answer, correct, flag",
    known_by=("question", "answer", "final_answer", "correct", "flag"),
    parse=_parse_human,
    options={"labels": "chain"},
)
