"""A model as the judge of answers: it reads question, reference and answer, and says how right the answer is."""

from __future__ import annotations

import re

from dreamprm.data.record import Record
from dreamprm.policy.answers import answer_of
from dreamprm.policy.sampling import Prefix

__all__ = ["answer_prompt", "read_grade"]

_GRADED = """You grade a prediction by the ground truth of a question, from 0.0 (all wrong) to 1.0 (all right), in \
tenths. Where the ground truth joins elements by <AND>, all of them must be in the prediction for 1.0, and a part of \
them gives a part; where it joins them by <OR>, any one of them is enough. Reply with the number alone.

Question | Ground truth | Prediction | Grade
--- | --- | --- | ---
Which colours does the flag have? | red <AND> white | It is green. | 0.0
Which colours does the flag have? | red <AND> white | red and blue | 0.5
Which colours does the flag have? | red <AND> white | It is red and white. | 1.0
Where is the cup? | on the table <OR> beside the lamp | It stands beside the lamp. | 1.0
"""
_BINARY = """You compare a model's answer with the standard answer to a question. They agree only where they say the \
same as a whole: the same option, or the same meaning in another form, such as 0.5 m and 50 cm, or 1/sqrt(2) and \
sqrt(2)/2; calculate where you must. Reply with 1 where they agree and with 0 where they do not, and nothing else.
"""


def answer_prompt(question: Record, response: str, *, graded: bool) -> Prefix:
    """What the judge is asked. graded: a grade from 0 to 1 for the whole response, as MM-Vet has it; else 1 or 0 for
    the answer that the response states, the whole response where it states none."""
    wanted = (question.reference or "").replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    if graded:
        cells = (" ".join(text.split()) for text in (question.question, wanted, response))
        return Prefix(f"{_GRADED}{' | '.join(cells)} | ")
    answer = answer_of(response) or response
    asked = f"Question: {question.question}\nStandard answer: {wanted}\nModel's answer: {answer}"
    return Prefix(f"{_BINARY}\n{asked}\nReply: ")


def read_grade(reply: str, *, graded: bool) -> float | None:
    """The grade of a reply, None where it holds none."""
    found = re.search(r"(?<![\d.])(?:0(?:\.\d{1,3})?|1(?:\.0{1,3})?)(?![\d.]*\d)", reply.strip()[:40])
    if found is None:
        return None
    grade = float(found[0])
    return grade if graded or grade in (0.0, 1.0) else None
