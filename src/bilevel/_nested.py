"""Trees of tensors: dictionaries, lists and tuples of any depth, as one flat dictionary and back.

Every method works on flat dictionaries. The leaf `tree["layers"][0]["weight"]` is called "layers.0.weight" there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from torch import Tensor

from ._types import Tensors

Nested: TypeAlias = Any
"""A tensor, or a dictionary, list, tuple or named tuple of such, to any depth."""


@dataclass(frozen=True)
class Tree:
    """How a tree of tensors is built."""

    pattern: Nested
    """The tree itself, with the leaves' flat names in place of tensors."""

    @staticmethod
    def of(owner: str, tree: Nested) -> tuple["Tree", Tensors]:
        """The tree of the argument `owner`, and its leaves.

        Raises:
            ValueError: a leaf that is no tensor, two leaves of one flat name, no leaf at all.
        """
        found: Tensors = {}

        def walk(node: Any, name: str) -> Any:
            if isinstance(node, Tensor):
                if name in found:
                    raise ValueError(f"{owner}: two leaves are called {name!r} in a row of names; rename one of them")
                found[name] = node
                return name
            inside = f"{name}." if name else ""
            if isinstance(node, Mapping):
                return {key: walk(value, f"{inside}{key}") for key, value in cast(Mapping[Any, Any], node).items()}
            if isinstance(node, list | tuple):
                return _sequence(node, [walk(value, f"{inside}{k}") for k, value in enumerate(cast(list[Any], node))])
            raise ValueError(
                f"{owner}{_path(name)} is {type(node).__name__}; allowed is a real floating-point tensor, or a dict, "
                "list or tuple of such"
            )

        pattern = walk(tree, "")
        if not found:
            raise ValueError(f"{owner} must be a dict of tensors with at least one entry, or a tree of such")
        return Tree(pattern), found

    @property
    def flat(self) -> bool:
        """Whether it is a plain dictionary of tensors already."""
        pattern: Any = self.pattern
        return type(pattern) is dict and all(key == name for key, name in cast(Any, pattern).items())

    def build(self, leaves: Tensors) -> Nested:
        """The tree with these leaves."""
        return _map(lambda name: leaves[name], self.pattern)

    def flatten(self, owner: str, tree: Nested) -> Tensors:
        """The leaves of a tree that must be built like this one."""
        leaves = Tree.of(owner, tree)[1]
        if set(leaves) != set(names := self.names()):
            raise ValueError(f"{owner} gives {', '.join(leaves)}; it must be built like params: {', '.join(names)}")
        return {name: leaves[name] for name in names}

    def names(self) -> list[str]:
        """The flat names, in order."""
        found: list[str] = []
        _map(found.append, self.pattern)
        return found


def _map(function: Callable[[str], Any], pattern: Any) -> Any:
    if isinstance(pattern, str):
        return function(pattern)
    if isinstance(pattern, dict):
        return {key: _map(function, value) for key, value in cast(dict[Any, Any], pattern).items()}
    return _sequence(pattern, [_map(function, value) for value in pattern])


def _sequence(like: Any, values: list[Any]) -> Any:
    if not isinstance(like, tuple):
        return values
    kind = cast(Any, type(cast(Any, like)))
    return kind(*values) if hasattr(kind, "_fields") else tuple(values)


def _path(name: str) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f"[{part!r}]" for part in name.split(".") if part)
