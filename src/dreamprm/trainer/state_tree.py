"""Nested state (dicts, lists, tensors, numbers) as safetensors beside JSON, and back: a checkpoint without pickle.

Tensors go into one flat dict by their place; everything else into a JSON skeleton that names them. Keys of dicts may be
strings or integers (torch's optimizers number their parameters), tuples come back as tuples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["flatten", "unflatten"]

_MARK = "__"


def flatten(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into `(tensors by place, JSON skeleton)`. Tensors that share all their memory are kept once.

    Raises TypeError for a value that JSON cannot hold exactly.
    """
    tensors: dict[str, Tensor] = {}
    seen: dict[tuple[Any, ...], str] = {}

    def visit(node: Any, place: str) -> Any:
        if isinstance(node, Tensor):
            value = node.detach()
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
    if kind == "tensor":
        if skeleton["at"] not in tensors:
            raise ValueError(f"the checkpoint lacks the tensor {skeleton['at']}")
        return tensors[skeleton["at"]]
    if kind == "dict":
        return {key: unflatten(tensors, item) for key, item in skeleton["items"]}
    return tuple(unflatten(tensors, item) for item in skeleton["items"])


def random_state() -> dict[str, Any]:
    """The state of torch's generators, on the CPU and on every GPU."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` took."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
