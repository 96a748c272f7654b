"""Embeddings: d_i += Σ_t <δ_it, U[token_it]>, keeping δ."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..row_maps import wide
from ..tape import Entry, Lookup, Tape
from ..tracked import NoRuleError, Tracked
from .shared import arguments, register_rule


def _embedding(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    a = arguments(names, args, kwargs, padding_idx=None, max_norm=None, scale_grad_by_freq=False, sparse=False)
    ids, weight, padding = a["input"], a["weight"], a["padding_idx"]
    if a["max_norm"] is not None or a["scale_grad_by_freq"] or a["sparse"]:
        raise NoRuleError(
            f"{weight.path}: embedding with max_norm, scale_grad_by_freq or sparse has no ghost rule; make the layer "
            "without them"
        )
    return lookup_rows(tape, weight, ids, padding)


def lookup_rows(tape: Tape, weight: Tracked, ids: Tensor, padding: int | None = None) -> Tensor:
    """weight[ids], ids one row per example, or positions for all rows."""
    output = F.embedding(ids, weight.value, padding)
    if padding is not None and padding < 0:
        padding += weight.shape[0]
    expected, context = tape.expected_rows(), tape.context
    given = tape.find(weight.path)
    packed = ids.numel() == (expected if given is None and ids.ndim == 1 else -1 if given is None else given.shape[0])
    if expected != 1 and (ids.ndim == 1 or ids.shape[0] == 1) and not packed:
        # A table of positions, looked up once and broadcast over the rows: give every row its own use of it.
        shape = output.shape if ids.ndim == 1 else output.shape[1:]
        output = output.expand(expected, *shape)
        ids = ids.expand(expected, *(ids.shape if ids.ndim == 1 else ids.shape[1:]))

    def note(delta: Tensor) -> Entry:
        rows = tape.map(weight, delta.shape[:-1], context)

        def contribution(lookup: Lookup) -> Tensor | None:
            u = lookup(weight)
            if u is None:
                return None
            taken = F.embedding(ids, u.to(wide(delta.dtype)))
            if padding is not None:
                taken = taken.masked_fill((ids == padding).unsqueeze(-1), 0.0)
            return rows.reduce(taken.mul_(delta) if taken.dtype == delta.dtype else taken * delta)

        return Entry(weight.parameters, contribution)

    tape.watch(output, note)
    return output


register_rule(F.embedding, _embedding)
