"""A table of which every process holds a range of rows: how a batch's rows are read, and how their gradient comes back.

Shapes: N rows of the table, A examples of all processes' batches together, B of this one's, W columns.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamprm.distributed import everywhere_in_parts, local_part, num_processes, rank, send_to_first, sum_everywhere

__all__ = ["SplitRows"]


class SplitRows:
    """Which rows this process holds, first … first + num_own - 1, and what is exchanged: the batch's rows alone.

    `read` gathers the row numbers of all processes; each fills in the rows that it holds, and their sum is everybody's.
    That sum is a leaf of the graph, alike in all processes, so its gradient is averaged as that of any replicated
    parameter is; `gradient` then gives each process that of its own rows.
    """

    def __init__(self, num_rows: int) -> None:
        size = -(-num_rows // num_processes())
        self.num_rows, self.first = num_rows, min(rank() * size, num_rows)
        self.num_own = min(size, num_rows - self.first)
        self._read: list[tuple[Tensor, Tensor]] = []
        self._mesh: Any = None

    def read(self, table: Float[Tensor, "own W"], index: Int[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """The rows of this process's batch. All processes call it."""
        parts = everywhere_in_parts(index)
        every, before = torch.cat(parts), sum(map(len, parts[: rank()]))  # (A,)
        here = self._held(every)
        values = table.new_zeros(len(every), table.shape[1])  # (A, W)
        values[here] = table.detach()[every[here] - self.first]
        values = sum_everywhere(values)
        if torch.is_grad_enabled() and table.requires_grad:
            values.requires_grad_()
            self._read.append((every, values))
        return values[before : before + len(index)]

    def forget(self) -> None:
        """Drop what was read and got no gradient: an update without a hypergradient asks for none."""
        self._read.clear()

    def gradient(self, table: Float[Tensor, "own W"]) -> Tensor:
        """The sparse gradient, (own, W), of the rows that were read since the last call."""
        rows = [torch.empty(0, dtype=torch.long, device=table.device)]
        values = [table.new_empty(0, table.shape[1])]
        for every, leaf in self._read:
            if leaf.grad is not None:
                here = self._held(every)
                rows.append(every[here] - self.first)
                values.append(leaf.grad[here])
        self._read.clear()
        made: Any = torch.sparse_coo_tensor(
            torch.cat(rows)[None], torch.cat(values), table.shape, check_invariants=False
        )
        return made.coalesce()

    def _held(self, every: Int[Tensor, " A"]) -> Tensor:
        return (every >= self.first) & (every < self.first + self.num_own)

    def spread(self, own: Tensor) -> Tensor:
        """This process's rows of some tensor as a DTensor of all, which a checkpoint takes; the memory is the same."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor, Shard

        self._mesh = self._mesh or init_device_mesh(own.device.type, (num_processes(),))
        shape = torch.Size((self.num_rows, *own.shape[1:]))
        return DTensor.from_local(
            own.detach(), self._mesh, [Shard(0)], run_check=False, shape=shape, stride=own.stride()
        )

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """What `spread` makes of rows that are still to be filled, (N, …) in all."""
        return self.spread(torch.empty((self.num_own, *shape[1:]), dtype=dtype))

    def own(self, value: Tensor) -> Tensor:
        """This process's rows of a whole tensor, or of one that `spread` has made."""
        part = local_part(value)
        return part if part is not value else value[self.first : self.first + self.num_own]

    def whole(self, own: Tensor) -> Tensor | None:
        """All rows on the CPU, for the first process; None in the others. All processes call it."""
        return send_to_first(own.detach().cpu(), self.num_rows)
