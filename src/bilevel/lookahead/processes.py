"""The processes that train together: means and sums over them, and one decision for all.

Every process has examples of its own. As under DistributedDataParallel the inner gradient is the mean over processes of
what each one's `backward` has made, g = (1/N) Σ_r Σ_i c_ri ∇ℓ_ri, the outer loss the mean of theirs, and the
hypergradient dF/dφ = (1/N) Σ_r [∂F_r/∂φ - Σ_i (∂c_ri/∂φ) d_ri]. A mean of equal values is that value, so nothing is
lost where somebody has averaged already.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Processes"]

_BUCKET = 2**24  # numbers that are sent together: few calls, and 64 MB of copies at most
_torch: Any = torch
_distributed: Any = torch.distributed


class Processes:
    """A process group, or this process alone where torch.distributed is not initialized.

    group: None stands for all processes.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.device = torch.device("cpu")  # where what is exchanged must be; the model's

    @property
    def size(self) -> int:
        """How many there are."""
        known = _distributed.is_available() and _distributed.is_initialized()
        return _distributed.get_world_size(self.group) if known else 1

    @property
    def rank(self) -> int:
        """Which one this is."""
        return _distributed.get_rank(self.group) if self.size > 1 else 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Σ over the processes of each number, in float64."""
        if self.size == 1:
            return list(values)
        held: Any = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        _distributed.all_reduce(held, group=self.group)
        return held.tolist()

    def any(self, asked: bool) -> bool:
        """Whether any process says so."""
        return self.sums([float(asked)])[0] > 0

    def agree(self, problem: str | None) -> str | None:
        """The problem of the first process that has one, for all of them; None where there is none."""
        if not self.any(problem is not None):
            return None
        if self.size == 1:
            return problem
        found: list[str | None] = [None] * self.size
        _distributed.all_gather_object(found, problem, group=self.group)
        rank, first = next((rank, text) for rank, text in enumerate(found) if text is not None)
        return first if first == problem else f"process {rank}: {first}"

    def average(self, tensors: Sequence[Tensor]) -> None:
        """The mean over the processes, in place. Every process gives tensors of the same shapes in the same order."""
        number = self.size
        if number == 1:
            return
        for bucket in _buckets(tensors):
            flat: Any = torch.cat([t.reshape(-1) for t in bucket])
            _distributed.all_reduce(flat, group=self.group)
            flat.div_(number)
            for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def average_gradients(self, parameters: Sequence[Tensor], declared: dict[Tensor, Tensor] | None = None) -> None:
        """`.grad` of each, and what `declared` holds for it, become means over the processes.

        Where no process has one there is none afterwards.
        """
        if self.size == 1 or not parameters:
            return
        more = {} if declared is None else declared
        marks = [[p.grad is not None, p in more] for p in parameters]
        have: Any = torch.tensor(marks, dtype=torch.uint8, device=self.device)
        _distributed.all_reduce(have, op=_distributed.ReduceOp.MAX, group=self.group)
        with torch.no_grad():
            held: list[Tensor] = []
            for p, (gradient, of_declared) in zip(parameters, have.tolist(), strict=True):
                if gradient and p.grad is None:
                    p.grad = torch.zeros_like(p)
                held += [p.grad] if p.grad is not None else []
                held += [more.setdefault(p, torch.zeros_like(p))] if of_declared else []
            self.average(held)

    def mean_of_new_gradients(self, leaves: Sequence[Tensor], before: Mapping[Tensor, Tensor]) -> None:
        """`.grad` of each leaf, dense or sparse, is averaged, and what it held before is added.

        Raises RuntimeError, in every process, where the processes' leaves are not alike.
        """
        if self.size > 1:
            self._verify_alike(leaves)
            with torch.no_grad():
                dense = [leaf.grad for leaf in leaves if leaf.grad is not None and not leaf.grad.is_sparse]
                self.average(dense)
                for leaf in leaves:
                    if leaf.grad is not None and leaf.grad.is_sparse:
                        leaf.grad = self._mean_sparse(leaf.grad)
        for leaf, kept in before.items():
            leaf.grad = kept if leaf.grad is None else kept + leaf.grad

    def _verify_alike(self, leaves: Sequence[Tensor]) -> None:
        shapes = [(tuple(leaf.shape), leaf.grad is None or leaf.grad.is_sparse) for leaf in leaves]
        found: list[Any] = [None] * self.size
        _distributed.all_gather_object(found, shapes, group=self.group)
        if any(other != found[0] for other in found):
            raise RuntimeError(
                "the coefficients of the processes depend on different parameters of the weigher, so their gradients "
                f"cannot be averaged ({len(found[0])} of one, {[len(other) for other in found]} of all); let every "
                "process use all of them, with a factor of 0 where one is not wanted"
            )

    def _mean_sparse(self, gradient: Tensor) -> Tensor:
        """Rows of all processes; a row that several have met is their sum, over N."""
        gradient = gradient.coalesce()
        rows = _gathered(gradient.indices().T.contiguous(), self)
        values = _gathered(gradient.values().contiguous(), self) / self.size
        return _torch.sparse_coo_tensor(rows.T, values, gradient.shape, check_invariants=False).coalesce()


def _gathered(part: Tensor, processes: Processes) -> Tensor:
    """The parts of all processes, one after another along the first dimension, whatever their lengths."""
    lengths = [0] * processes.size
    _distributed.all_gather_object(lengths, len(part), group=processes.group)
    padded = part.new_zeros((max(lengths), *part.shape[1:]))
    padded[: len(part)] = part
    found = [torch.empty_like(padded) for _ in lengths]
    _distributed.all_gather(found, padded, group=processes.group)
    return torch.cat([one[:length] for one, length in zip(found, lengths, strict=True)])


def _buckets(tensors: Sequence[Tensor]) -> Generator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or bucket[0].dtype != tensor.dtype or bucket[0].device != tensor.device):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
