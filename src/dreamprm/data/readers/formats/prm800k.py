"""PRM800K: the path that the labellers took through rated completions.

A step is the chosen completion, the labeller's own text where one was written (right by definition), or, where the
path ends at a step without a choice, that step's first completion. Rating 1 is right, -1 wrong; 0 (neutral) has no
label, or counts as right with `neutral=right`, as the authors train.
"""

from __future__ import annotations

from collections.abc import Iterator

from dreamprm.data.answer_text import extract_answer
from dreamprm.data.readers.fields import Row
from dreamprm.data.readers.format import Context, Format
from dreamprm.data.readers.text import group_of
from dreamprm.data.record import Record

__all__ = ["FORMAT"]


def _step(row: Row, item: object, field: str, neutral: float | None) -> tuple[str, float | None, bool] | None:
    """(text, label, whether the path goes on); None for a step that holds nothing."""
    step = row.at(item, field)
    chosen, human = step.get("chosen_completion"), step.get("human_completion")
    if chosen is None and human is not None:
        text = human if isinstance(human, str) else step.at(human, "human_completion").text("text")
        return step.check_text(text, "human_completion"), 1.0, True
    if step.get("completions") is None and chosen is None:
        return None  # nothing was written for this step: the path ended before it
    completions = step.list("completions")
    index = 0 if chosen is None else step.integer(chosen, "chosen_completion")
    if not 0 <= index < len(completions):
        step.fail(f"must be the index of one of {len(completions)} completions, is {index}", "chosen_completion")
    completion = row.at(completions[index], f"{field}.completions[{index}]")
    rating = completion.get("rating")
    if rating is not None and completion.integer(rating, "rating") not in (-1, 0, 1):
        completion.fail(f"must be -1, 0, 1 or null, is {rating}", "rating")
    label = {1: 1.0, -1: 0.0, 0: neutral, None: None}[rating]
    return completion.text("text"), label, chosen is not None


def _parse(row: Row, context: Context) -> Iterator[Record]:
    asked = row.at(row.get("question"), "question")
    label = row.at(row.get("label"), "label")
    neutral = 1.0 if context.options["neutral"] == "right" else None
    steps: list[str] = []
    labels: list[float | None] = []
    for index, item in enumerate(label.list("steps")):
        found = _step(row, item, f"label.steps[{index}]", neutral)
        if found is None:
            break
        text, verdict, goes_on = found
        steps.append(text)
        labels.append(verdict)
        if not goes_on:
            break
    if not steps:
        label.fail("holds no step with a completion", "steps")
    question = asked.text("problem")
    yield context.record(
        row,
        question=question,
        steps=tuple(steps),
        labels=tuple(labels),
        group=group_of(question),
        answer=extract_answer(steps[-1]),
        reference=asked.label_text("ground_truth_answer"),
        extra={"finish_reason": label.label_text("finish_reason"), "labeller": row.label_text("labeler")},
    )


FORMAT = Format(
    name="prm800k",
    about="PRM800K (the chosen path of rated completions)",
    fields="question{problem, …}, label{steps[{completions[{text, rating}], human_completion, chosen_completion}]}",
    known_by=("question", "label"),
    also=lambda row: isinstance(row["question"], dict) and isinstance(row["label"], dict),
    parse=_parse,
    options={"neutral": "none"},
)
