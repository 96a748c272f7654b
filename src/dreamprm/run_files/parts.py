"""The split tensors of a checkpoint: every process writes and reads its own rows (torch.distributed.checkpoint).

The files are safetensors with the rows' places in their headers, so nothing is unpickled, and any number of processes
reads what any other number has written.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["read_parts", "write_parts"]


def write_parts(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write DTensors into the folder. All processes take part."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer: Any = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(dict(tensors), storage_writer=writer)


def read_parts(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill the tensors, whole ones or a process's rows, from the folder. Every process reads for itself."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader: Any = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is, on purpose
        load(dict(tensors), storage_reader=reader, no_dist=True)
