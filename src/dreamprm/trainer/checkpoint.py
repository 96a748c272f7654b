"""Checkpoints: written whole or not at all, the last few kept, read without pickle."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dreamprm.errors import UserError
from dreamprm.trainer.state_tree import flatten, unflatten

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint"]

_FORMAT = 1


def save_checkpoint(folder: Path, update: int, tree: dict[str, Any], *, keep: int) -> Path:
    """Write `folder/update-00000123` (state.safetensors, state.json) and drop all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"update-{update:08d}"
    part = folder / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    tensors, skeleton = flatten(tree)
    save_file(tensors, part / "state.safetensors")
    (part / "state.json").write_text(json.dumps({"format": _FORMAT, "update": update, "tree": skeleton}))
    for file in part.iterdir():
        _sync(file)
    # A folder cannot replace a full one in a single step; the same update again holds the same state.
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
    _sync(folder)
    for old in sorted(folder.glob("update-*"))[:-keep]:
        shutil.rmtree(old)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the most updates, or None."""
    found = sorted(folder.glob("update-*"))
    return found[-1] if found else None


def load_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """`(update, tree)` of one checkpoint. Raises UserError when it is damaged or of another format."""
    try:
        head = json.loads((path / "state.json").read_text())
        tensors = load_file(path / "state.safetensors")
        if head.get("format") != _FORMAT:
            raise UserError(f"{path}: checkpoint format {head.get('format')}, this version reads {_FORMAT}")
        return int(head["update"]), unflatten(tensors, head["tree"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as a checkpoint ({error}); delete this folder to go on from the one before it"
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
