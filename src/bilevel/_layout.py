"""Nested dictionaries, lists and tuples of tensors, laid out flat and built again.

A leaf's flat name is its way in, joined by points: {"layer": {"w": …}, "gains": [a, b]} lies as layer.w, gains.0,
gains.1.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor

from ._types import Tensors


def is_nested(tensors: object) -> bool:
    """Whether a dictionary holds others, or lists or tuples."""
    return isinstance(tensors, dict) and any(_inner(value) for value in cast(dict[Any, Any], tensors).values())


def flatten(tensors: Any) -> Tensors:
    """The leaves by their flat names.

    Raises:
        ValueError: two leaves with one name, such as {"a.b": …, "a": {"b": …}}.
    """
    found: dict[str, Any] = {}
    for name, leaf in _leaves(tensors, ""):
        if name in found:
            raise ValueError(f"two tensors would be called {name!r}; give keys without points")
        found[name] = leaf
    return found


def like(pattern: Any) -> Callable[[Tensors], Any]:
    """flat -> nested as `pattern` is."""

    def build(flat: Tensors, node: Any, prefix: str) -> Any:
        if isinstance(node, Mapping):
            items = cast(Mapping[str, Any], node).items()
            return {key: build(flat, value, f"{prefix}{key}.") for key, value in items}
        if isinstance(node, list | tuple):
            parts = [build(flat, value, f"{prefix}{k}.") for k, value in enumerate(cast(list[Any], node))]
            kind = cast(Callable[..., Any], type(cast(Any, node)))
            return kind(*parts) if hasattr(cast(Any, node), "_fields") else kind(parts)
        return flat[prefix[:-1]]

    return lambda flat: build(flat, pattern, "")


def _inner(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple) and not isinstance(value, Tensor)


def _leaves(node: Any, prefix: str) -> list[tuple[str, Any]]:
    if isinstance(node, Mapping):
        items = list(cast(Mapping[str, Any], node).items())
    elif isinstance(node, list | tuple):
        items = [(str(k), value) for k, value in enumerate(cast(list[Any], node))]
    else:
        return [(prefix[:-1], node)]
    return [leaf for key, value in items for leaf in _leaves(value, f"{prefix}{key}.")]
