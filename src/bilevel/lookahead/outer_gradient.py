"""The outer gradient: v = ∇F(θ') over all outer micro-batches and processes, and the direct term ∂F/∂φ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._shards import local
from ..spans import span
from .graph import leaves as leaves_of
from .graph import without_hooks
from .recorder import Sites
from .taken_step import named
from .typed import backward, gradients

__all__ = ["OuterGradient"]


class OuterGradient:
    """Sums over outer micro-batches; `mean` divides and averages over the processes.

    leaves: the weigher's. wrapped: whether the model's wrapper wants whole backward passes (`loss.backward()`), as
    DistributedDataParallel does, and fully_shard, which reduces gradients in them.
    """

    def __init__(self, sites: Sites, leaves: Sequence[Tensor], wrapped: bool) -> None:
        self.sites, self.parameters, self.leaves, self.names = sites, sites.parameters, tuple(leaves), sites.names
        self.wrapped = wrapped or sites.shards.any
        self.vector: dict[Tensor, Tensor] = {}
        self.direct: dict[Tensor, Tensor] = {}
        self.loss, self.num_batches = 0.0, 0

    @span("outer backward")
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
            grads = _by_backward(outer_loss, inputs) if self.wrapped else gradients(outer_loss, inputs)
        self.num_batches += 1
        self.loss += float(outer_loss.detach())
        cut = len(self.parameters)
        _add(self.vector, self.parameters, grads[:cut])
        _add(self.direct, self.leaves, grads[cut:])

    def mean(self) -> float:
        """Divide by the number of micro-batches, average v over the processes; the mean outer loss of them all."""
        for sums in (self.vector, self.direct):
            for value in sums.values():
                if self.num_batches > 1:
                    value.div_(self.num_batches)
        processes, loss = self.sites.processes, self.loss / self.num_batches
        if processes.size == 1:
            return loss
        # Every process takes part for every parameter. Shards are averaged already, by the backward pass.
        whole = [p for p in self.parameters if p not in self.sites.shards.parameters]
        processes.average([self.vector.setdefault(p, torch.zeros_like(p)) for p in whole])
        return processes.sums([loss])[0] / processes.size

    def size(self) -> float:
        """‖v‖, over all shards."""
        return self.sites.shards.norm(self.vector)


def _add(sums: dict[Tensor, Tensor], inputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
    owned: set[int] = set()
    for parameter, gradient in zip(inputs, grads, strict=True):
        if gradient is None:
            continue
        gradient = local(gradient)
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


def _by_backward(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """What `loss.backward()` adds to `.grad` of the inputs; every `.grad` is as before afterwards."""
    kept = [(leaf, leaf.grad) for leaf in dict.fromkeys([*leaves_of(loss), *inputs])]
    try:
        for leaf, _ in kept:
            leaf.grad = None
        backward(loss)
        return [leaf.grad for leaf in inputs]
    finally:
        for leaf, gradient in kept:
            leaf.grad = gradient
