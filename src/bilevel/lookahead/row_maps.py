"""Which example each row of an activation belongs to.

A layer sees rows, and rows are not always examples: a vision tower has one row per tile, a packed sequence one
per patch. The map comes from the user (`rows=`), by parameter name prefix; a leading dimension that neither
equals the number of examples nor has a map is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Around", "RowMap", "RowMaps", "RowsError", "longest_prefix", "wide"]


class RowsError(ValueError):
    """Rows of an activation cannot be given to examples."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over positions are taken."""
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class Around:
    """Around a use: the shape that its module was called with; how many rows stand in the second dimension, if there.

    Multi-head attention is computed on (positions, rows, width).
    """

    shape: torch.Size | None = None
    second: int | None = None


@dataclass(frozen=True)
class RowMap:
    """How a tensor's leading dimensions become examples: sum `drop` dimensions, flatten `lead`, scatter by `index`."""

    num_examples: int
    lead: int = 1
    drop: int = 0
    index: Tensor | None = None

    def reduce(self, values: Tensor, keep: int = 0) -> Tensor:
        """Sum everything but the examples and the last `keep` dimensions: (*rows, …, *kept) -> (B, *kept)."""
        dtype = wide(values.dtype)
        if self.drop:
            values = values.sum(tuple(range(self.drop)), dtype=dtype)
        middle = tuple(range(self.lead, values.ndim - keep))
        if middle:
            values = values.sum(middle, dtype=dtype)
        if self.lead > 1:
            values = values.flatten(0, self.lead - 1)
        values = values.to(dtype)
        if self.index is None:
            return values
        out = values.new_zeros((self.num_examples, *values.shape[1:]))
        return out.index_add_(0, self.index, values)


def longest_prefix(maps: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The value under the longest module-name prefix of `name`; the prefix "" matches all."""
    best = [p for p in maps if not p or name == p or name.startswith(p + ".")]
    return maps[max(best, key=len)] if best else None


class RowMaps:
    """The maps of one micro-batch: parameter name prefix -> example of each row, (M,) or (L, T)."""

    def __init__(self, maps: Mapping[str, Tensor] | None, num_examples: int) -> None:
        self.num_examples = num_examples
        self._maps = dict(maps or {})
        for prefix, index in self._maps.items():
            if index.is_floating_point() or index.ndim not in (1, 2):
                raise RowsError(
                    f"rows[{prefix!r}]: give a vector or matrix of integers, not {tuple(index.shape)} {index.dtype}"
                )
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= num_examples):
                raise RowsError(f"rows[{prefix!r}] names examples outside 0 … {num_examples - 1}, the batch's losses")

    def find(self, name: str) -> Tensor | None:
        """The map with the longest prefix of the parameter's name."""
        return longest_prefix(self._maps, name)

    def at_row(self, name: str, row: int, gradient: Tensor) -> Tensor:
        """One use's gradient, laid at the example of row `row`: (*shape) -> (B, *shape)."""
        index = self.find(name)
        if index is None:
            if self.num_examples > 1:
                raise RowsError(
                    f"{name}: used once per image, and no map says whose; give "
                    f"lookahead.inner(rows={{{name!r}: LongTensor}})"
                )
            example = 0
        elif row >= index.shape[0]:
            raise RowsError(f"{name}: used more than the {index.shape[0]} times that its map covers")
        else:
            example = int(index[row])
        out = gradient.new_zeros((self.num_examples, *gradient.shape), dtype=wide(gradient.dtype))
        out[example] = gradient
        return out

    def resolve(self, name: str, shape: torch.Size, around: Around = Around()) -> RowMap:
        """The map for an activation with leading dimensions `shape`."""
        count, context = self.num_examples, around.shape
        index = self.find(name)
        if around.second is not None:
            found = self._in_second(index, shape, around.second)
            if found is not None:
                return found
        elif index is not None:
            found = self._from_map(name, index, shape)
            if found is None and index.ndim == 1:
                found = self._flattened(index, shape, context)
            if found is not None:
                return found
        elif shape and shape[0] == count:
            return RowMap(count)
        else:
            found = self._flattened(torch.arange(count), shape, context)
            if found is not None:
                return found
        have = "no map" if index is None else f"a map of shape {tuple(index.shape)}"
        raise RowsError(
            f"{name}: an activation with leading dimensions {tuple(shape)} for {count} examples, and {have} for it. "
            "Say which example each row belongs to: lookahead.inner(rows={'prefix of the module': LongTensor of rows})"
        )

    def _in_second(self, index: Tensor | None, shape: torch.Size, num: int) -> RowMap | None:
        """(positions, rows, …), or both flattened."""
        rows = torch.arange(num) if index is None else index
        if rows.shape != (num,) or (index is None and num != self.num_examples):
            return None
        if len(shape) > 1 and shape[1] == num:
            return self._from_index(rows, drop=1)
        if len(shape) == 1 and shape[0] % num == 0:
            return self._from_index(rows.repeat(shape[0] // num))
        return None

    def _flattened(self, rows: Tensor, shape: torch.Size, context: torch.Size | None) -> RowMap | None:
        """(B, T, C) flattened to (B T, C) inside the module, as a Conv1D of GPT-2 does."""
        num = rows.shape[0]
        if context is None or len(context) < 3 or context[0] != num or not shape or shape[0] % num:
            return None
        if shape[0] not in [math.prod(context[:dims]) for dims in range(2, len(context))]:
            return None
        return self._from_index(rows.repeat_interleave(shape[0] // num))

    def _from_index(self, index: Tensor, lead: int = 1, drop: int = 0) -> RowMap:
        return RowMap(self.num_examples, lead, drop, index.flatten())

    def _from_map(self, name: str, index: Tensor, shape: torch.Size) -> RowMap | None:
        if index.ndim == 2:
            return self._from_index(index, lead=2) if shape[:2] == index.shape else None
        num = index.shape[0]
        if num in shape[:2]:  # before any merge: (4, num) are the four neighbours of each row, whatever divides num
            return self._from_index(index, drop=shape[:2].index(num))
        for drop, size in enumerate(shape[:2]):
            if size and num % size == 0 and size >= self.num_examples:  # merged rows, as after a 2x2 patch merger
                blocks = index.view(size, -1)
                if bool((blocks == blocks[:, :1]).all()):
                    return self._from_index(blocks[:, 0], drop=drop)
                raise RowsError(f"{name}: {num} rows merged to {size} would join rows of different examples")
        return None
