"""What frozen parts of a model give, kept by name: recently used in memory, the rest in safetensors.

A file of them holds a checksum of each; what does not agree with its checksum is computed anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamprm.files import readable_as_umask_says

__all__ = ["FeatureStore", "content_name"]

_LOG = logging.getLogger("dreamprm.prm")
_CHECKSUMS = "checksums"


class FeatureStore:
    """Tensors by name. A name stands for content (`content_name`), so that what is found can be used.

    folder: kept there between runs too, one more file at each `flush`; None keeps them in memory only.
    limit: bytes held in memory, the most recently used; None holds all. What is dropped is read from the folder, or
        computed again where there is none.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder, self.limit = folder, limit
        self.memory: OrderedDict[str, Tensor] = OrderedDict()
        self.num_bytes = 0
        self._unsaved: dict[str, None] = {}  # in the order in which they came
        self._shards: dict[str, Any] = {}
        self._checksums: dict[str, int] = {}
        if folder is not None and folder.is_dir():
            for path in sorted(folder.glob("*.safetensors")):
                self._open(path)

    def take(self, names: Sequence[str], compute: Callable[[list[int]], Iterable[Tensor]]) -> list[Tensor]:
        """The tensors of these names, on the CPU.

        compute: (places in `names`) -> the tensor of each; called once, and only if some are missing.
        """
        wanted = {name: place for place, name in reversed(list(enumerate(names)))}
        found = {name: value for name in wanted if (value := self._kept(name)) is not None}
        missing = sorted(place for name, place in wanted.items() if name not in found)
        if missing:
            for place, value in zip(missing, compute(missing), strict=True):
                # A copy: a view would keep the whole batch alive.
                found[names[place]] = value.detach().to("cpu", copy=True).contiguous()
            for place in missing:
                self._put(names[place], found[names[place]])
        return [found[name] for name in names]

    def flush(self) -> None:
        """Write what is in memory only; one more file in the folder."""
        if self.folder is None or not self._unsaved:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.glob("*.safetensors")))
        path = self.folder / f"features-{number:04d}-{next(iter(self._unsaved))[:8]}.safetensors"
        part = path.with_suffix(f".{os.getpid()}.part")  # another process may write beside this one
        kept = {name: self.memory[name] for name in self._unsaved}
        save_file(kept, part, {_CHECKSUMS: json.dumps({name: _checksum(value) for name, value in kept.items()})})
        readable_as_umask_says(part)
        part.rename(path)
        self._open(path)
        self._unsaved = {}

    def _open(self, path: Path) -> None:
        try:
            shard = safe_open(str(path), framework="pt")
            self._checksums |= json.loads((shard.metadata() or {}).get(_CHECKSUMS, "{}"))
            self._shards |= dict.fromkeys(shard.keys(), shard)
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            _LOG.warning("the kept features in %s are damaged (%s) and are computed anew", path, error)
            with contextlib.suppress(OSError):
                path.unlink()

    def _kept(self, name: str) -> Tensor | None:
        if name in self.memory:
            self.memory.move_to_end(name)
            return self.memory[name]
        if name not in self._shards:
            return None
        value = self._shards[name].get_tensor(name)
        if _checksum(value) == self._checksums.get(name):
            return value
        _LOG.warning("the kept features %s in %s are damaged and are computed anew", name, self.folder)
        del self._shards[name]
        return None

    def _put(self, name: str, value: Tensor) -> None:
        self.memory[name] = value
        self.num_bytes += value.nbytes
        self._unsaved[name] = None
        while self.limit is not None and self.num_bytes > self.limit:
            oldest = next(iter(self.memory))
            if self.folder is not None and oldest in self._unsaved:
                self.flush()
            self._unsaved.pop(oldest, None)
            self.num_bytes -= self.memory.pop(oldest).nbytes


def _checksum(value: Tensor) -> int:
    return zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def content_name(*tensors: Tensor, note: str = "") -> str:
    """A name for what these tensors hold, to the last bit, and for the note."""
    digest = hashlib.blake2b(note.encode(), digest_size=16)
    for tensor in tensors:
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
