"""One reasoning step at a time from a server, by a line break as its stop string, with the tokens that it took."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.policy.answers import answer_of
from dreamprm.policy.endpoint import Endpoint, EndpointConfig
from dreamprm.policy.sampling import Prefix
from dreamprm.policy.step_writer import Written

__all__ = ["EndpointStepWriter"]

_BREAK = "\n"
_ANSWER = re.compile(r"answer|\\boxed|答案", re.IGNORECASE)


class EndpointStepWriter:
    """Asks for the next line of each of several chains of one question, all at once.

    A server that says what ended a reply (vLLM, SGLang) ends a chain in the step that it wrote. Of any other, a chain
    ends with the step that states its answer in words, or when its next step comes back empty.
    """

    def __init__(self, settings: EndpointConfig) -> None:
        self.endpoint = Endpoint(replace(settings, stop=[*dict.fromkeys([_BREAK, *settings.stop])]))

    def __call__(self, record: Record, chains: Sequence[Sequence[str]], limit: int, seed: int) -> list[Written]:
        """The next step of each chain, of at most `limit` tokens.

        Raises UserError where the server does not tell how many tokens it wrote: a budget could not be kept.
        """
        prefixes = [Prefix(record.question, record.images, "".join(f"{step}\n" for step in steps)) for steps in chains]
        names = [f"{record.group}|step {len(steps)}|{place}" for place, steps in enumerate(chains)]
        found: list[Written] = []
        for prefix, reply in zip(prefixes, self.endpoint.replies(prefixes, names, seed, limit), strict=True):
            text = reply.text[len(prefix.response) :].strip()
            if text and not reply.tokens_out:
                raise UserError(
                    f"{self.endpoint.settings.url}: replies tell no usage.completion_tokens, so that the search's "
                    "token_budget could not be kept; use a server that does (vLLM, SGLang, OpenAI)"
                )
            found.append(Written(text, reply.tokens_out, _finish(text, reply.finish, reply.stopped_at)))
        return found


def _finish(text: str, finish: str, stopped_at: str | None) -> str:
    if finish == "length":
        return "length"
    if stopped_at is None:
        stated = _ANSWER.search(text) is not None and answer_of(text) is not None
        return "step" if text and not stated else "stop"
    return "step" if stopped_at == _BREAK else "stop"
