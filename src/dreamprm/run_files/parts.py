"""The split tensors of a checkpoint: every process writes and reads its own rows (torch.distributed.checkpoint).

The files are safetensors with the rows' places in their headers, so nothing is unpickled, and any number of processes
reads what any other number has written. They are checked by their hashes before they are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamprm.distributed import everyone, from_first, is_first, num_processes, rank
from dreamprm.files import hash_file

__all__ = ["Empty", "read_parts", "whole", "write_parts"]

Empty = Callable[..., Tensor]
"""(place in the tree, shape, dtype=…) -> a tensor to be filled."""


def whole(place: str, shape: torch.Size, *, dtype: torch.dtype) -> Tensor:
    """The `Empty` of a process that reads all rows."""
    return torch.empty(shape, dtype=dtype)


def write_parts(part: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write DTensors into the folder `parts` of the first process's `part`; the hash of each of its files.

    All processes take part.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = from_first(part) / "parts"
    if is_first():
        folder.mkdir()
    from_first(None)  # it is there before the others write
    writer: Any = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(dict(tensors), storage_writer=writer)
    return _hashes(folder, sorted(path.name for path in folder.iterdir()))


def read_parts(folder: Path, hashes: Mapping[str, str], wanted: Mapping[str, Any], empty: Empty) -> dict[str, Tensor]:
    """The split tensors by their place, each filled into what `empty` makes: a whole one, or a process's rows.

    wanted: what the checkpoint's tree says of each, its shape and dtype. All processes take part.
    Raises ValueError where a file is missing, or not what was written.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    missing = [name for name in hashes if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"parts/{missing[0]} is missing")
    found = _hashes(folder, sorted(hashes))
    for name, hashed in hashes.items():
        if found[name] != hashed:
            raise ValueError(f"parts/{name} is not what was written: its hash differs")
    tensors = {
        place: empty(place, torch.Size(node["shape"]), dtype=getattr(torch, node["dtype"]))
        for place, node in wanted.items()
    }
    reader: Any = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is, on purpose: each reads for itself
        load(dict(tensors), storage_reader=reader, no_dist=True)
    return tensors


def _hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """The hash of each file; every process reads every N-th."""
    own = {name: hash_file(folder / name) for name in names[rank() :: num_processes()]}
    return {name: found for one in everyone(own) for name, found in one.items()}
