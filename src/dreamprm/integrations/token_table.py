"""Loss and weight of an example of tokens, for hosts that show nothing else of it: SFTTrainer, DataFlex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamprm.errors import UserError
from dreamprm.prm.aggregation import at_least_float32

__all__ = ["TokenTable", "token_losses"]

_IGNORED = -100  # the label of a token that no loss is taken of


def token_losses(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """(B,): each example's cross-entropy per token that has a label, as the host computes it."""
    given = {name: value for name, value in inputs.items() if name != "labels"}
    labels: Tensor = inputs["labels"][:, 1:]
    logits = at_least_float32(model(**given).logits[:, :-1])
    each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none")
    return each.sum(1) / (labels != _IGNORED).sum(1).clamp(min=1)


class TokenTable(nn.Module):
    """2 σ(raw) per example; an example is known by its tokens, since such a host's collator keeps no row number."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.rows = {tuple(tokens): number for number, tokens in enumerate(rows)}
        self.own = [self.rows[tuple(tokens)] for tokens in rows]  # rows of the same tokens share one weight
        self.raw = nn.Parameter(torch.zeros(len(rows)))

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """(B,). Raises UserError for an example that is not in the training data."""
        if "attention_mask" not in inputs:
            raise UserError("the batch has no attention_mask: packing and padding_free must be off, or give a weigher")
        masks = inputs["attention_mask"].bool()
        tokens = [tuple(row[mask].tolist()) for row, mask in zip(inputs["input_ids"], masks, strict=True)]
        numbers = [self.rows.get(row) for row in tokens]
        if None in numbers:
            raise UserError(
                "an example of the batch is not a row of train_dataset: packing and neat_packing must be off"
            )
        return 2 * torch.sigmoid(self.raw[numbers])

    @torch.no_grad()
    def weights(self) -> list[float]:
        """One per row of the data."""
        return (2 * torch.sigmoid(self.raw[self.own])).tolist()
