"""What autograd saves of the parameters, saved as copies: the optimizer writes into them while a graph is still
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

__all__ = ["SavedCopies"]


class SavedCopies:
    """Hooks for saved tensors. wanted: whether copies are wanted now; elsewhere the tensors themselves are kept."""

    def __init__(self, parameters: Sequence[Tensor], wanted: Callable[[], bool]) -> None:
        self._parameters = {p.untyped_storage().data_ptr(): p for p in parameters}
        self._copies: dict[int, Tensor] = {}
        self._wanted = wanted

    def open(self) -> AbstractContextManager[None]:
        """While open, what is saved goes through here."""
        graph: Any = torch.autograd.graph
        return graph.saved_tensors_hooks(self._pack, _unpack)

    def close(self) -> None:
        """Nothing more will be saved; what was, keeps its copy."""
        self._copies, self._parameters = {}, {}

    def _pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        kept = tensor.detach()
        if tensor.layout != torch.strided:
            return kept, kept._version
        address = tensor.untyped_storage().data_ptr()
        parameter = self._parameters.get(address)
        if parameter is not None and parameter.dtype == tensor.dtype and self._wanted():
            if address not in self._copies:
                size = parameter.untyped_storage().nbytes() // parameter.element_size()
                self._copies[address] = parameter.detach().as_strided((size,), (1,), 0).clone()
            kept = self._copies[address].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        return kept, kept._version


def _unpack(kept: tuple[Tensor, int]) -> Tensor:
    tensor, version = kept
    if tensor._version != version:  # torch's own check does not look behind these hooks
        raise RuntimeError(
            "a tensor that a backward pass needs was changed in place since it was saved in lookahead.inner()"
        )
    return tensor
