"""Candidates of one question scored together: what they share is read once.

Question and images, and whatever their first steps have in common, stand at the start of every candidate. A causal
model gives these tokens the same keys and values in each of them, so they are computed once and every candidate's own
tokens attend to them. Same scores as one by one up to the order of additions, gradients too; for eight candidates whose
shared part is four fifths of their tokens about a third of the work.

Shapes: C candidates, P shared tokens, T own tokens, S steps, H hidden width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dreamprm.choices import HeadKind
from dreamprm.data.record import Record, RecordError
from dreamprm.prm.heads import gather_steps
from dreamprm.prm.prompt import tokenizer_of
from dreamprm.prm.tokens import locate

if TYPE_CHECKING:
    from dreamprm.prm.collate import Collator
    from dreamprm.prm.model import PRM

__all__ = ["SharedPrefixError", "SharedPrefixScorer", "same_start", "shares_prefix"]

# Log-odds of one candidate by both ways, per unit of (1 + |log-odds|). Sums in another order move fp32 by about 1e-6,
# 16 bits by about 1e-2; a wrong position or mask moves them by tenths and more.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
_LOW_PRECISION = 0.25


class SharedPrefixError(RuntimeError):
    """The shared start gave other scores than the whole chain does."""


def shares_prefix(prm: PRM) -> bool:
    """Whether the model keeps keys and values: a causal language model, read by a head of ours, none of it cached."""
    config = prm.transformer.config.get_text_config()
    return (
        prm.kind is not HeadKind.token_classification
        and prm.frozen is None
        and prm.kept is None
        and prm.kept is None
        and hasattr(config, "use_cache")
        and bool(getattr(config, "is_causal", True))
    )


def same_start(record: Record) -> tuple[Any, ...]:
    """What candidates must have in common to be scored together."""
    return record.question, record.images


class SharedPrefixScorer:
    """Log-odds of the candidates of one question.

    Compares one candidate with its score from the whole chain in the model's groups 1, 2, 4, 8, … and raises
    SharedPrefixError where they differ, naming the way out.
    """

    def __init__(self, prm: PRM, collate: Collator) -> None:
        self.prm, self.collate = prm, replace(collate, padding_side="right")

    def log_odds(self, records: Sequence[Record]) -> list[Float[Tensor, " S"]]:
        """One vector of log-odds for each record. records: chains of the same question and images.

        Raises RecordError as the collator does, ValueError for chains of different questions.
        """
        if len({same_start(record) for record in records}) != 1:
            raise ValueError("candidates that share a prefix have the same question and images")
        scores = self._shared(records)
        self.prm.num_shared_groups += 1
        if self.prm.num_shared_groups & (self.prm.num_shared_groups - 1) == 0:
            self._compare(records, scores)
        return scores

    def of_batch(self, records: Sequence[Record]) -> Float[Tensor, "B S"]:
        """The log-odds of chains of any questions, 0 where there is no step; those of one question share their start.

        Models that keep no keys and values read every chain whole.
        """
        groups: dict[Any, list[int]] = {}
        for row, record in enumerate(records):
            groups.setdefault(same_start(record) if shares_prefix(self.prm) else row, []).append(row)
        alone = [rows[0] for rows in groups.values() if len(rows) == 1]
        found: dict[int, Tensor] = {}
        for rows in groups.values():
            if len(rows) > 1:
                found |= dict(zip(rows, self.log_odds([records[row] for row in rows]), strict=True))
        if alone:
            values = self.prm(self.collate([records[row] for row in alone]).to(self.prm.device))
            found |= {row: each[: len(records[row].steps)] for row, each in zip(alone, values, strict=True)}
        most = max(len(record.steps) for record in records)
        return torch.stack([F.pad(found[row], (0, most - len(found[row]))) for row in range(len(records))])

    def _shared(self, records: Sequence[Record]) -> list[Tensor]:
        prm, device = self.prm, self.prm.device
        tokenizer = tokenizer_of(self.collate.processor)
        located = [self._locate(tokenizer, record) for record in records]
        whole = self.collate.encode(records[0])
        num_shared = _num_common([each.ids for each in located], [each.positions[0] for each in located])
        grown = len(whole.sequences["input_ids"]) - len(located[0].ids)  # tokens that images have taken
        shared = num_shared + grown
        own = [each.ids[num_shared:] for each in located]
        for record, ids in zip(records, own):
            self.collate.refuse_longer(record, shared + len(ids))

        prefix = {name: row[None, :shared].to(device) for name, row in whole.sequences.items()}
        stacks = {name: value.to(device) for name, value in whole.stacks.items()}
        length = max(map(len, own))
        mask = torch.tensor([[1] * (shared + len(ids)) + [0] * (length - len(ids)) for ids in own], device=device)
        padded = torch.tensor([[*ids, *[0] * (length - len(ids))] for ids in own], device=device)
        positions = [[place - num_shared for place in each.positions] for each in located]
        num_steps = max(map(len, positions))
        judged = torch.tensor([[*row, *[0] * (num_steps - len(row))] for row in positions], device=device)

        with contextlib.ExitStack() as kept:
            if prm.vision is not None:
                kept.enter_context(prm.vision.serve())
            cache = getattr(prm.run_body(prefix | stacks), prm.cache_name)
            cache.batch_repeat_interleave(len(records))
            rest = {"input_ids": padded, "attention_mask": mask, prm.cache_name: cache}
            hidden = prm.continue_body(rest, shared, images=bool(stacks)).last_hidden_state
        values = prm.read(gather_steps(hidden, judged))
        return [row[: len(place)] for row, place in zip(values, positions)]

    def _locate(self, tokenizer: Any, record: Record) -> Any:
        try:
            return locate(tokenizer, self.collate.render(record), self.collate.prompt.layout)
        except RecordError as error:
            raise RecordError(error.reason, source=f"record {record.key!r}", field=error.field) from None

    @torch.no_grad()
    def _compare(self, records: Sequence[Record], scores: Sequence[Tensor]) -> None:
        row = self.prm.num_shared_groups % len(records)
        was_training = self.prm.training
        self.prm.eval()
        try:
            if was_training:  # dropout draws another mask for every pass
                scores = self._shared(records)
            reference = self.prm(self.collate([records[row]]).to(self.prm.device))[0, : len(scores[row])]
        finally:
            self.prm.train(was_training)
        allowed = _TOLERANCE.get(next(self.prm.model.parameters()).dtype, _LOW_PRECISION)
        if torch.is_autocast_enabled(reference.device.type):
            allowed = _LOW_PRECISION
        worst = ((scores[row] - reference).abs() / (1 + reference.abs())).max().item()
        if not worst <= allowed:
            raise SharedPrefixError(
                f"record {records[row].key!r}: scored with a shared prefix its log-odds differ by {worst:.2g} "
                f"(relative, {allowed:g} allowed) from those of the whole chain: this model's cache does not give the "
                "same; set share_prefix=false, or in training outer.by_question=false"
            )


def _num_common(ids: Sequence[Sequence[int]], first_judged: Sequence[int]) -> int:
    """Leading tokens that all have in common; what judges a first step stays each candidate's own."""
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*ids)))
    return min(common, *first_judged)
