"""Chains as vectors: what the frozen part of a PRM makes of each of their steps, and what is known of them.

Shapes: N chains, S steps, D hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dreamprm.data.record import Record

__all__ = ["Chains", "as_chains", "encode"]


@dataclass
class Chains:
    """states: (N, S, D) at the judged tokens.  mask, labels, truth: (N, S); labels of the meta set are NaN and `truth`
    is for the report alone.  correct: (N,).  question, answer, domain: indices, (N,)."""

    states: Tensor
    mask: Tensor
    labels: Tensor
    truth: Tensor
    correct: Tensor
    question: Tensor
    answer: Tensor
    domain: Tensor

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def wrong(self) -> Tensor:
        """(N, S): steps whose label lies on the wrong side of one half."""
        return ((self.labels > 0.5) != (self.truth > 0.5)) & self.mask

    def take(self, rows: Tensor) -> Chains:
        """These chains."""
        return Chains(**{name: value[rows] for name, value in vars(self).items()})


@torch.no_grad()
def encode(prm: Any, records: Sequence[Record], batch_size: int = 128) -> Tensor:
    """(N, S, D): the residual stream at every judged token after the last layer's attention, 0 where there is none."""
    kept: list[Tensor] = []

    def keep(layer: Any, given: tuple[Any, ...]) -> None:
        kept.append(given[0].detach())

    hook = prm.body.language_model.layers[-1].post_attention_layernorm.register_forward_pre_hook(keep)
    collate, num = prm.collator(), len(records)
    steps = max(len(record.steps) for record in records)
    states = torch.zeros(num, steps, prm.body.config.text_config.hidden_size)
    order = sorted(range(num), key=lambda row: _size(records[row]))
    try:
        for first in range(0, num, batch_size):
            rows = torch.tensor(order[first : first + batch_size])
            batch = collate([records[row] for row in rows.tolist()])
            prm(batch)
            places = batch.step_positions[..., None].expand(-1, -1, states.shape[-1])
            found = kept.pop().gather(1, places) * batch.step_mask[..., None]
            states[rows, : found.shape[1]] = found
    finally:
        hook.remove()
    return states


def _size(record: Record) -> int:
    return len(record.question.split()) + sum(len(step.split()) + 4 for step in record.steps)


def as_chains(records: Sequence[Record], states: Tensor, domains: dict[str, int]) -> Chains:
    """Records with their states."""
    steps = states.shape[1]

    def padded(values: list[tuple[Any, ...]]) -> Tensor:
        return torch.tensor([[*map(float, row), *[0.0] * (steps - len(row))] for row in values])

    questions: dict[str, int] = {}
    answers: dict[Any, int] = {}
    return Chains(
        states=states,
        mask=torch.arange(steps) < torch.tensor([len(record.steps) for record in records])[:, None],
        labels=padded([record.labels or (float("nan"),) * len(record.steps) for record in records]),
        truth=padded([record.truth["labels"] for record in records]),
        correct=torch.tensor([float(bool(record.correct)) for record in records]),
        question=torch.tensor([questions.setdefault(record.group, len(questions)) for record in records]),
        answer=torch.tensor([answers.setdefault(record.answer, len(answers)) for record in records]),
        domain=torch.tensor([domains.get(record.domain, -1) for record in records]),
    )
