"""Loss and weight of an example of tokens, for hosts that show nothing else of it: SFTTrainer, DataFlex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamprm.errors import UserError
from dreamprm.prm.aggregation import at_least_float32

__all__ = ["TokenTable", "token_losses", "tokens_of", "without_padding"]

_IGNORED = -100  # the label of a token that no loss is taken of


def token_losses(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """(B,): each example's cross-entropy per token that has a label, as the host computes it."""
    given = {name: value for name, value in inputs.items() if name != "labels"}
    labels: Tensor = inputs["labels"][:, 1:]
    logits = at_least_float32(model(**given).logits[:, :-1])
    each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none")
    return each.sum(1) / (labels != _IGNORED).sum(1).clamp(min=1)


def tokens_of(inputs: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Each row's tokens without its padding. Raises UserError for packed rows."""
    if "attention_mask" not in inputs:
        raise UserError("the batch has no attention_mask: packing and padding_free must be off, or give a weigher")
    masks = inputs["attention_mask"].bool()
    return [tuple(row[mask].tolist()) for row, mask in zip(inputs["input_ids"], masks, strict=True)]


def without_padding(tokens: Any, mask: Any = None) -> tuple[int, ...]:
    """A row of a data set as `tokens_of` gives it in a batch. tokens, mask: lists, tensors or arrays."""
    ids, kept = (part.tolist() if hasattr(part, "tolist") else part for part in (tokens, mask))
    return tuple(ids) if kept is None or all(kept) else tuple(t for t, keep in zip(ids, kept, strict=True) if keep)


class TokenTable(nn.Module):
    """2 σ(raw) per example; an example is known by its tokens, since such a host's collator keeps no row number."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        super().__init__()
        self.rows = {tuple(tokens): number for number, tokens in enumerate(rows)}
        self.own = [self.rows[tuple(tokens)] for tokens in rows]  # rows of the same tokens share one weight
        self.raw = nn.Parameter(torch.zeros(len(rows)))

    def keys(self, inputs: Mapping[str, Any]) -> list[Any]:
        """What each example of a batch is known by, as in the rows that the table was made of."""
        return tokens_of(inputs)

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """(B,). Raises UserError for an example that is not in the training data."""
        numbers = [self.rows.get(key) for key in self.keys(inputs)]
        if None in numbers:
            raise UserError(
                "an example of the batch is not a row of train_dataset: packing and neat_packing must be off"
            )
        return 2 * torch.sigmoid(self.raw[numbers])

    @torch.no_grad()
    def weights(self) -> list[float]:
        """One per row of the data."""
        return (2 * torch.sigmoid(self.raw[self.own])).tolist()
