"""The outer gradient: v = ∇F(θ') over all outer micro-batches and processes, and the direct term ∂F/∂φ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .graph import without_hooks
from .taken_step import named, wide
from .typed import gradients, norm

__all__ = ["OuterGradient", "num_processes"]


class OuterGradient:
    """Sums over outer micro-batches; `mean` divides and averages over the processes."""

    def __init__(self, parameters: Sequence[Tensor], leaves: Sequence[Tensor], names: Mapping[Tensor, str]) -> None:
        self.parameters, self.leaves, self.names = tuple(parameters), tuple(leaves), names
        self.vector: dict[Tensor, Tensor] = {}
        self.direct: dict[Tensor, Tensor] = {}
        self.loss, self.num_batches = 0.0, 0

    def add(self, outer_loss: Tensor) -> None:
        """Add ∇F of one outer micro-batch, a scalar."""
        if outer_loss.numel() != 1:
            raise ValueError(f"the outer loss must be one number, is {tuple(outer_loss.shape)}; take its mean")
        if not outer_loss.requires_grad:
            raise RuntimeError(
                "the outer loss has no gradient: compute it with the model after lookahead.step(), with gradients "
                "enabled (no torch.no_grad, no detach)"
            )
        frozen = [p for p in self.parameters if not p.requires_grad]
        if frozen:
            raise RuntimeError(
                f"{named(frozen, self.names)}: frozen between lookahead.step() and backward_outer; the outer loss "
                "depends on it, so freeze it after backward_outer"
            )
        inputs = [*self.parameters, *self.leaves]
        with without_hooks(inputs):
            grads = gradients(outer_loss, inputs)
        self.num_batches += 1
        self.loss += float(outer_loss.detach())
        cut = len(self.parameters)
        _add(self.vector, self.parameters, grads[:cut])
        _add(self.direct, self.leaves, grads[cut:])

    def mean(self) -> float:
        """Divide by the number of micro-batches, average v over the processes; the mean outer loss of this one."""
        for sums in (self.vector, self.direct):
            for value in sums.values():
                if self.num_batches > 1:
                    value.div_(self.num_batches)
        if num_processes() > 1:
            distributed: Any = torch.distributed
            for parameter in self.parameters:  # every process takes part for every parameter
                value = self.vector.setdefault(parameter, torch.zeros_like(parameter))
                distributed.all_reduce(value)
                value.div_(num_processes())
        return self.loss / self.num_batches

    def size(self) -> Tensor:
        """‖v‖."""
        norms = [norm(t, wide(t)).double() for t in self.vector.values()]
        return norm(torch.stack(norms)) if norms else torch.zeros(())


def _add(sums: dict[Tensor, Tensor], inputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
    owned: set[int] = set()
    for parameter, gradient in zip(inputs, grads, strict=True):
        if gradient is None:
            continue
        if gradient.is_sparse:
            gradient = gradient.to_dense()
        if gradient.dtype == torch.float16:  # lr · v would underflow
            gradient = gradient.float()
        kept = sums.get(parameter)
        if kept is not None:
            sums[parameter] = kept.add_(gradient)
            continue
        # One tensor can be the gradient of two parameters (w + v), or be expanded: what is written to later must be
        # this parameter's own.
        address = gradient.untyped_storage().data_ptr()
        shared = address in owned or gradient.untyped_storage().nbytes() < gradient.numel() * gradient.element_size()
        sums[parameter] = gradient.clone(memory_format=torch.contiguous_format) if shared else gradient
        owned.add(address)


def num_processes() -> int:
    """How many processes train together; 1 without torch.distributed."""
    distributed: Any = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
