"""What it takes to judge a policy's answers."""

from __future__ import annotations

from dreamprm.data.record import Record
from dreamprm.errors import UserError

__all__ = ["answer_of", "same_answer", "steps_of"]


def steps_of(response: str) -> tuple[str, ...]:
    """A response as steps: its lines where it has several, else as the splitter of published chains cuts it."""
    from dreamprm.data.splitter import clean_steps

    lines = tuple(line.strip() for line in response.splitlines() if line.strip())
    return lines if len(lines) > 1 else clean_steps(response) or (response.strip() or "(empty)",)


def same_answer(record: Record, response: str) -> bool:
    """Whether a response ends with the record's reference answer, both freed of case and punctuation.

    Raises UserError where the record has no reference.
    """
    if record.reference is None:
        raise UserError(f"record {record.key!r} has no reference answer to judge completions by")
    return _plain(answer_of(response)) == _plain(record.reference)


def answer_of(response: str) -> str | None:
    """The final answer of a response."""
    from dreamprm.data.readers.text import extract_answer

    found = extract_answer(response)
    if found is not None:
        return found
    words = response.split()
    return words[-1] if words else None


def _plain(text: str | None) -> str:
    return "" if text is None else text.strip().strip(".$()").casefold()
