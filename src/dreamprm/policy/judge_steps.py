"""A model as the labeller of steps: it reads question and chain and names the first wrong step."""

from __future__ import annotations

import re

from dreamprm.data.record import Record
from dreamprm.policy.sampling import Prefix

__all__ = ["judge_prompt", "read_verdict"]

_VERDICT = re.compile(r"first wrong step\W{0,20}(\d{1,4}|none)", re.IGNORECASE)


def judge_prompt(record: Record) -> Prefix:
    """The question, the numbered steps, and what to answer; the reference answer where the record has one."""
    steps = "\n".join(f"[{place}] {' '.join(step.split())}" for place, step in enumerate(record.steps, 1))
    reference = f"\n\nThe right answer is: {record.reference}" if record.reference is not None else ""
    text = (
        f"A problem and a solution whose steps are numbered follow. Find the first step that is wrong: a false reading "
        f"of the image, a false calculation, a conclusion that does not follow.\n\nProblem:\n{record.question}"
        f"{reference}\n\nSolution:\n{steps}\n\nThink, then end with one line: 'First wrong step: N', or "
        "'First wrong step: none' where every step is right."
    )
    return Prefix(text, record.images)


def read_verdict(response: str, num_steps: int) -> tuple[float, ...] | None:
    """1 for the steps before the first wrong one, 0 from it on; None where the response names no step of the chain."""
    found = _VERDICT.findall(response)
    if not found:
        return None
    if found[-1].lower() == "none":
        return (1.0,) * num_steps
    first = int(found[-1])
    return tuple(float(place < first) for place in range(1, num_steps + 1)) if 1 <= first <= num_steps else None
