"""A chain as the row that another trainer reads: its columns, its images, and the weight where it reads one.

Two shapes carry step labels. *Turns*: every step is a user turn and its verdict, + or -, the assistant turn after it;
any trainer of chats reads that. *Steps*: the steps as a list beside their labels, for trainers of PRMs.
A step without a label stands before the next step's text; what follows the last label is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dreamprm.data.record import IMAGE_PLACE, Record, RecordError

__all__ = ["HOSTS", "PLACEHOLDER", "WEIGHT", "Host", "judged_steps"]

WEIGHT = "dreamprm_weight"
"""The column of weights, where the host has no name for one."""

PLACEHOLDER = "ки"
"""What stands for a verdict in Math-Shepherd's texts, whose format OpenRLHF reads."""

Row = Callable[[Record, float | None, Sequence[str]], dict[str, Any]]
"""(record, weight or None where the file is cut, paths of its images) -> row."""


@dataclass(frozen=True)
class Host:
    """row: see above.  reads_weights: whether the host's readers let a weight through to the loss, or to your own.
    read_by: what to write in the host's own settings."""

    row: Row
    reads_weights: bool
    read_by: str


def judged_steps(record: Record) -> list[tuple[str, bool]]:
    """(text, right) of every labelled step; a soft label is right above .5. Raises RecordError where there is none."""
    found: list[tuple[str, bool]] = []
    waiting: list[str] = []
    for step, label in zip(record.steps, record.labels, strict=False):
        waiting.append(step)
        if label is not None:
            found.append(("\n\n".join(waiting), label > 0.5))
            waiting = []
    if not found:
        raise _refused(record, "has no step labels", "labels")
    return found


def _turns(record: Record, question: str, weight: float | None = None) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for number, (step, right) in enumerate(judged_steps(record)):
        asked = step if number else f"{question}\n\n{step}" if question else step
        verdict: dict[str, Any] = {"role": "assistant", "content": "+" if right else "-"}
        if weight is not None:
            verdict["loss_scale"] = weight
        messages += [{"role": "user", "content": asked}, verdict]
    return messages


def _with_images(row: dict[str, Any], images: Sequence[str]) -> dict[str, Any]:
    return row | {"images": list(images)} if images else row


def _weighted(row: dict[str, Any], weight: float | None) -> dict[str, Any]:
    return row if weight is None else row | {WEIGHT: weight}


def _numbered(record: Record) -> str:
    """The question for a host that shows all images first: `(image 2)` where the second stood between the words."""
    question = record.question
    if not record.images or question.count(IMAGE_PLACE) != len(record.images):
        return question
    for number in range(len(record.images)):
        question = question.replace(IMAGE_PLACE, f"(image {number + 1})", 1)
    return question


def _tagged(record: Record, host: str) -> str:
    """The question with one `<image>` per image. Raises RecordError where a text holds a tag that stands for none."""
    question, count = record.question, len(record.images)
    if count and question.count(IMAGE_PLACE) != count:
        question = IMAGE_PLACE * count + question
    for name, text, allowed in (("question", question, count), ("steps", "\n".join(record.steps), 0)):
        for tag in (IMAGE_PLACE, "<video>", "<audio>"):
            if text.count(tag) != (allowed if tag == IMAGE_PLACE else 0):
                raise _refused(record, f"holds {tag}, which {host} would take for a file that is not there", name)
    return question


def _trl(record: Record, weight: float | None, images: Sequence[str]) -> dict[str, Any]:
    return _weighted(_with_images({"messages": _turns(record, _numbered(record))}, images), weight)


def _trl_stepwise(record: Record, weight: float | None, images: Sequence[str]) -> dict[str, Any]:
    steps, labels = zip(*judged_steps(record), strict=True)
    row = {"prompt": _numbered(record), "completions": list(steps), "labels": list(labels)}
    return _weighted(_with_images(row, images), weight)


def _llamafactory(record: Record, weight: float | None, images: Sequence[str]) -> dict[str, Any]:
    return _with_images({"messages": _turns(record, _tagged(record, "LLaMA-Factory"))}, images)


def _swift(record: Record, weight: float | None, images: Sequence[str]) -> dict[str, Any]:
    return _with_images({"messages": _turns(record, _tagged(record, "ms-swift"), weight)}, images)


def _openrlhf(record: Record, weight: float | None, images: Sequence[str]) -> dict[str, Any]:
    if images:
        raise _refused(record, "OpenRLHF's PRM trainer sees no images; to=swift and to=llamafactory do", "images")
    if PLACEHOLDER in record.question or any(PLACEHOLDER in step for step in record.steps):
        raise _refused(record, f"holds {PLACEHOLDER}, which stands for a verdict", "steps")
    steps = judged_steps(record)
    text = "\n".join(f"{step} {PLACEHOLDER}" for step, _ in steps)
    return {"input": f"{record.question} {text}".strip(), "value": ["+" if right else "-" for _, right in steps]}


def _refused(record: Record, reason: str, field: str) -> RecordError:
    return RecordError(reason, source=record.key, field=field)


HOSTS: dict[str, Host] = {
    "trl": Host(_trl, True, "SFTConfig(assistant_only_loss=True); images: cast_column('images', List(Image()))"),
    "trl_stepwise": Host(_trl_stepwise, True, "PRMTrainer (TRL up to 1.13)"),
    "llamafactory": Host(_llamafactory, False, "dataset: {name}, dataset_dir: {folder}"),
    "swift": Host(_swift, True, "--dataset {out} --is_binary_loss_scale false"),
    "openrlhf": Host(
        _openrlhf, False, f"--input_key input --label_key value --placeholder_token {PLACEHOLDER} --reward_tokens + -"
    ),
}
"""By the word of `dreamprm clean to=`."""
