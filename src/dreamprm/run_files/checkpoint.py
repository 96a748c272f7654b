"""Checkpoints: of finite state only, whole or not at all, the last few kept, checked by their hashes, without pickle.

A checkpoint is a folder `update-00000123` of two files. `state.safetensors` holds the tensors by their place in the
state. `state.json` is `{"format": 2, "hash": …, "content": {"update", "tensors", "tree", "about"}}`: `tree` is the
state with each tensor replaced by its place, `tensors` the hash of state.safetensors, `hash` that of the content,
`about` what the run wants to find again (its settings, its data). Keys of dicts may be strings or integers (torch's
optimizers number their parameters); tuples come back as tuples. Tensors that are split over the processes (DTensors)
lie in a folder `parts` beside the two, each process's rows in a file of its own, and their hashes in the content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamprm.distributed import everyone, is_first, is_split, local_part
from dreamprm.errors import UserError
from dreamprm.files import hash_file, replacing
from dreamprm.progress import say
from dreamprm.run_files.parts import Empty, read_parts, whole, write_parts

__all__ = [
    "Checkpoint",
    "NotFiniteError",
    "all_checkpoints",
    "flatten",
    "latest_checkpoint",
    "load_checkpoint",
    "load_latest",
    "read_checkpoint",
    "require_finite",
    "save_checkpoint",
    "unflatten",
]

_FORMAT = 2
_NAME = re.compile(r"update-\d{8,}")
_MARK = "__"


class Checkpoint(NamedTuple):
    """What one checkpoint holds; `path` is its folder."""

    path: Path
    update: int
    tree: dict[str, Any]
    about: dict[str, Any]


class NotFiniteError(UserError):
    """A state that must not be written."""


class _Damaged(UserError):
    """A checkpoint that is not what was written."""


def save_checkpoint(
    folder: Path, update: int, tree: dict[str, Any], *, keep: int, about: dict[str, Any] | None = None
) -> Path:
    """Write `folder/update-00000123` and drop all but the last `keep`.

    The first process writes; where the tree holds split tensors, all of them call this, and each writes its rows.
    Raises NotFiniteError, and writes and drops nothing, where a floating-point value of the tree is not finite.
    """
    require_finite(tree, f"after {update} updates the run's state")
    target = folder / f"update-{update:08d}"
    split: dict[str, Tensor] = {}
    tensors, skeleton = flatten(tree, split)
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".update-*.part"):  # of a process that was killed while it wrote
            shutil.rmtree(stale, ignore_errors=True)
        if target.is_file() or target.is_symlink():  # nothing that a run has written: a folder could not take its place
            target.unlink()
    with replacing(target) if is_first() else contextlib.nullcontext(Path()) as part:
        if is_first():
            part.mkdir()
        hashes = write_parts(part, split) if split else {}
        if not is_first():
            return target
        save_file(tensors, part / "state.safetensors")
        hashed = hash_file(part / "state.safetensors")
        content = {"update": update, "tensors": hashed, "tree": skeleton, "about": about or {}}
        if hashes:
            content["parts"] = hashes
        head = {"format": _FORMAT, "hash": _hash(content), "content": content}
        (part / "state.json").write_text(json.dumps(head))
    for old in all_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the most updates, or None. Other files and folders beside checkpoints are passed over."""
    found = all_checkpoints(folder)
    return found[-1] if found else None


def load_latest(folder: Path, empty: Empty = whole) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where there is none; says which newer ones are damaged.

    empty: makes what a split tensor is read into, whole or this process's rows of it.

    Raises UserError where all are damaged, or the newest is of another format.
    """
    found = all_checkpoints(folder)
    reasons: list[str] = []
    for path in reversed(found):
        try:
            checkpoint = read_checkpoint(path, empty)
        except _Damaged as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            say(f"warning: {reason}; going on from {path.name}, the one before")
        return checkpoint
    if reasons:
        raise UserError(f"{'; '.join(reasons)}; no whole checkpoint is left: start the run anew in another run_dir")
    return None


def load_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """`(update, tree)` of one checkpoint. Raises UserError when it is damaged or of another format."""
    checkpoint = read_checkpoint(path)
    return checkpoint.update, checkpoint.tree


def read_checkpoint(path: Path, empty: Empty = whole) -> Checkpoint:
    """One checkpoint, its hashes compared. Raises UserError when it is damaged or of another format."""
    try:
        head = json.loads((path / "state.json").read_text())
        if not isinstance(head, dict) or not isinstance(head.get("format"), int):
            raise ValueError("state.json holds no format number")
        if head["format"] != _FORMAT:
            raise UserError(
                f"{path}: checkpoint format {head['format']}, this version reads {_FORMAT} only: "
                "finish the run with the version that began it, or start it anew"
            )
        content = head["content"]
        if _hash(content) != head["hash"]:
            raise ValueError("state.json is not what was written: its hash differs")
        if hash_file(path / "state.safetensors") != content["tensors"]:
            raise ValueError("state.safetensors is not what was written: its hash differs")
        tensors = load_file(path / "state.safetensors")
        if "parts" in content:
            tensors |= read_parts(path / "parts", content["parts"], _split_nodes(content["tree"]), empty)
        tree = unflatten(tensors, content["tree"])
        return Checkpoint(path, int(content["update"]), tree, content["about"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        reason = type(error).__name__ if isinstance(error, RecursionError) else error
        raise _Damaged(
            f"{path}: cannot be read as a checkpoint ({reason}); delete this folder to go on from the one before it"
        ) from error


def _split_nodes(node: Any) -> dict[str, dict[str, Any]]:
    """What the skeleton says of each split tensor, by its place."""
    if isinstance(node, list):
        return {place: found for item in node for place, found in _split_nodes(item).items()}
    if not isinstance(node, dict):
        return {}
    return {node["at"]: node} if node[_MARK] == "split" else _split_nodes(node.get("items"))


def flatten(tree: Any, split: dict[str, Tensor] | None = None) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into `(tensors by place, JSON skeleton)`. Tensors that share all their memory are kept once.

    split: gets the tensors of which this process holds some rows only.

    Raises TypeError for a value that JSON cannot hold exactly.
    """
    tensors: dict[str, Tensor] = {}
    seen: dict[tuple[Any, ...], str] = {}

    def visit(node: Any, place: str) -> Any:
        if isinstance(node, Tensor):
            value = node.detach()
            if is_split(value) and split is not None:
                split[place] = value
                return {_MARK: "split", "at": place, "shape": list(value.shape), "dtype": str(value.dtype)[6:]}
            view = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), str(value.device))
            known = seen.get(view) if value.numel() else None
            if known is None:
                # safetensors refuses tensors that overlap; a copy on the CPU never does.
                tensors[place] = value.to("cpu", copy=True).contiguous()
                seen[view] = known = place
            return {_MARK: "tensor", "at": known}
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, (str, int)) or isinstance(key, bool):
                    raise TypeError(f"{place}: a checkpoint holds keys of type str or int, not {key!r}")
            return {_MARK: "dict", "items": [[key, visit(value, f"{place}/{key}")] for key, value in node.items()]}
        if isinstance(node, (list, tuple)):
            items = [visit(value, f"{place}/{index}") for index, value in enumerate(node)]
            return {_MARK: type(node).__name__, "items": items} if isinstance(node, tuple) else items
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        raise TypeError(f"{place}: a checkpoint cannot hold a {type(node).__name__}")

    return tensors, visit(tree, "")


def unflatten(tensors: dict[str, Tensor], skeleton: Any) -> Any:
    """The tree that `flatten` took apart. Raises ValueError where a tensor is missing."""
    if isinstance(skeleton, list):
        return [unflatten(tensors, item) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    kind = skeleton[_MARK]
    if kind in ("tensor", "split"):
        if skeleton["at"] not in tensors:
            raise ValueError(f"the checkpoint lacks the tensor {skeleton['at']}")
        return tensors[skeleton["at"]]
    if kind == "dict":
        return {key: unflatten(tensors, item) for key, item in skeleton["items"]}
    return tuple(unflatten(tensors, item) for item in skeleton["items"])


def require_finite(tree: Any, what: str) -> None:
    """Raises NotFiniteError where a floating-point tensor of the tree holds NaN or an infinity: how many, and where."""
    bad: list[tuple[str, int]] = []
    split = False

    def visit(node: Any, place: str) -> None:
        nonlocal split
        if isinstance(node, Tensor):
            split, node = split or is_split(node), local_part(node)
            # The sum of a tensor without NaN and infinity is nearly always finite, and costs no mask.
            if node.is_floating_point() and node.numel() and not bool(node.detach().sum().isfinite()):
                count = int((~node.detach().isfinite()).sum())
                if count:
                    bad.append((place, count))
        elif isinstance(node, dict):
            for key, value in node.items():
                visit(value, f"{place}/{key}")
        elif isinstance(node, (list, tuple)):
            for index, value in enumerate(node):
                visit(value, f"{place}/{index}")

    visit(tree, "")
    if split:  # what one process finds, all say
        bad = [found for one in everyone(bad) for found in one]
    if bad:
        total, first = sum(count for _, count in bad), bad[0][0].lstrip("/")
        raise NotFiniteError(
            f"{what} is broken: {total:,} values in {len(bad)} tensors are not finite, e.g. in {first}"
        )


def all_checkpoints(folder: Path) -> list[Path]:
    """The folders of the checkpoints, in the order of their updates."""
    found = [path for path in folder.glob("update-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("update-")))


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
