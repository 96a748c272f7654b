"""The policy of a stage, and what it takes to judge its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamprm.commands.settings import PolicyConfig
from dreamprm.config.build import build_device
from dreamprm.config.schema import Device
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.progress import only_our_bars

__all__ = ["load_policy", "same_answer", "steps_of"]


def load_policy(settings: PolicyConfig, device: Device) -> Any:
    """A `dreamprm.policy.Policy`. Raises UserError, one line, where the model is not there."""
    from transformers import AutoModelForImageTextToText

    from dreamprm.policy import Policy
    from dreamprm.prm import load_processor
    from dreamprm.world import base_folder

    only_our_bars()
    path = str(base_folder()) if settings.path == "world" else settings.path
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(path, trust_remote_code=False)
        processor = load_processor(path)
        return Policy(
            model.eval().to(build_device(device)),
            processor,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            system=settings.system,
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        hint = "" if Path(path).exists() else "; without network, set policy.path to a local folder"
        raise UserError(f"policy.path={settings.path} cannot be loaded: {reason}{hint}") from error


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
