"""One reasoning step at a time from a local policy, with the tokens that it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from dreamprm.data.record import Record
from dreamprm.policy.sampling import Policy, Prefix

__all__ = ["StepWriter", "Written"]


class Written(NamedTuple):
    """A step, the tokens written for it (line break or end token included), and why it ended: step, stop, length."""

    text: str
    tokens: int
    finish: str


class StepWriter:
    """Samples the next step, a line, of each of several chains of one question. All of them share a batch."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        tokenizer = policy.processor.tokenizer
        # Only behind one of these can a line have ended; to decode every row at every token takes longer than a small
        # model does.
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        self._breaks = frozenset(token for token, text in enumerate(texts) if "\n" in text)

    @torch.no_grad()
    def __call__(self, record: Record, chains: Sequence[Sequence[str]], limit: int, seed: int) -> list[Written]:
        """The next step of each chain, of at most `limit` tokens; the same for the same chains, limit and seed."""
        from transformers import StoppingCriteriaList

        policy, tokenizer = self.policy, self.policy.processor.tokenizer
        prefixes = [Prefix(record.question, record.images, "".join(f"{step}\n" for step in steps)) for steps in chains]
        inputs = policy.encode(prefixes)
        start = inputs["input_ids"].shape[1]
        line = _LineEnd(tokenizer, start, len(chains), self._breaks)
        devices = [policy.model.device] if policy.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            output = policy.generate(inputs, limit, stopping_criteria=StoppingCriteriaList([line]))
        ends = policy.model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id} | set(ends if isinstance(ends, list) else [ends])
        return [self._read(row.tolist(), stop, ends) for row, stop in zip(output[:, start:], line.stopped, strict=True)]

    def _read(self, tokens: list[int], stop: int | None, ends: set[int | None]) -> Written:
        finish = "length"
        end = next((place + 1 for place, token in enumerate(tokens) if token in ends), None)
        if end is not None and (stop is None or end <= stop):
            tokens, finish = tokens[:end], "stop"
        elif stop is not None:
            tokens, finish = tokens[:stop], "step"
        text = self.policy.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return Written(text.strip(), len(tokens), finish)


class _LineEnd:
    """Ends a row at the first line break behind a word; remembers after how many tokens."""

    def __init__(self, tokenizer: Any, start: int, rows: int, breaks: frozenset[int]) -> None:
        self.tokenizer, self.start, self.breaks = tokenizer, start, breaks
        self.stopped: list[int | None] = [None] * rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, tokens in enumerate(input_ids[:, self.start :]):
            if self.stopped[row] is None and int(tokens[-1]) in self.breaks:
                text = self.tokenizer.decode(tokens, skip_special_tokens=True)
                if "\n" in text.lstrip():
                    self.stopped[row] = len(tokens)
        return torch.tensor([stop is not None for stop in self.stopped], device=input_ids.device)
