"""Counts what a GPU would be waited for: numbers read from tensors, and shapes that depend on their values.

On a CPU they cost nothing, so that nobody notices them; on a GPU each one stops the host until all that was asked for
before is done.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["waits"]

_READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
_PICKS = ("index", "index_put", "index_put_")  # by a mask: the number of rows is read


class _Mode(TorchDispatchMode):
    def __init__(self, found: Counter[str], on_cpu: set[int]) -> None:
        super().__init__()
        self.found, self.on_cpu = found, on_cpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in _PICKS and any(index is not None and index.dtype == torch.bool for index in args[1])
        if by_mask or (name in _READS and args[0].data_ptr() not in self.on_cpu):
            self.found[_place()] += 1
        return func(*args, **(kwargs or {}))


def _place() -> str:
    own = [frame for frame in traceback.extract_stack()[:-2] if "/tests/waits.py" not in frame.filename]
    ours = [frame for frame in own if "/src/bilevel/" in frame.filename or "/src/dreamprm/" in frame.filename]
    frame = (ours or own)[-1]
    return f"{frame.filename.rpartition('/src/')[2]}:{frame.lineno} {frame.line}"


@contextmanager
def waits(*, on_cpu: Sequence[Tensor] = ()) -> Iterator[Counter[str]]:
    """Place in the source -> how often there, of this thread's calls while it is open.

    on_cpu: tensors that lie on the CPU on a GPU machine too, as the counters of torch's optimizers do.
    """
    found: Counter[str] = Counter()
    tolist = Tensor.tolist

    def counted(value: Tensor) -> Any:
        if value.data_ptr() not in held:
            found[_place()] += 1
        return tolist(value)

    held = {value.data_ptr() for value in on_cpu}
    with patch.object(Tensor, "tolist", counted), _Mode(found, held):
        yield found
