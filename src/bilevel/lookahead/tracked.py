"""A parameter as a rule sees it: the tensor itself, its name, and the functions of parameters alone that made it.

Parameters are recognised by identity where a torch function is called with them (`seeing.py`), wherever they come from:
an attribute, a list, the loss code. A rule therefore belongs to a *function*, not to a class of layers: every module
that calls `F.linear` is covered, whatever its name. A function without a rule is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .tape import Tape

__all__ = ["NoRuleError", "Tracked", "plain"]

Dual = tuple[Tensor, Tensor]
"""A value and its derivative."""


class NoRuleError(RuntimeError):
    """A trainable parameter is used by a function that has no rule."""


class Tracked:
    """A parameter, or what functions of parameters alone have made of some, as a rule's argument.

    value: in the autograd graph; path: the qualified name of the first parameter; parents, function: what made the
    value, none for a parameter itself. linear: whether the function's derivative is the same everywhere (shapes, casts,
    sums, factors). Where it is not, θ is kept: the optimizer will have moved it when the derivative is asked for.
    """

    __slots__ = ("function", "parameters", "parents", "path", "tape", "value")

    # function -> rule(tape, args, kwargs) -> output; filled by rules/ and by bilevel.register_rule
    rules: ClassVar[dict[Any, Callable[[Tape, tuple[Any, ...], dict[str, Any]], Any]]] = {}

    def __init__(
        self,
        value: Tensor,
        parameters: tuple[Tensor, ...],
        path: str,
        tape: Tape,
        parents: tuple[Tracked, ...] = (),
        function: Callable[..., Tensor] | None = None,
    ) -> None:
        self.value, self.parameters, self.path, self.tape = value, parameters, path, tape
        self.parents, self.function = parents, function

    @property
    def parameter(self) -> Tensor:
        """The parameter, or the first of several."""
        return self.parameters[0]

    @property
    def shape(self) -> torch.Size:
        """The value's shape."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """The value's number of dimensions."""
        return self.value.ndim

    def extend(self, function: Callable[[Tensor], Tensor], linear: bool = True) -> Tracked:
        """function(this), where function involves nothing else that is trained."""
        return self.derived((self,), function, function(self.value), linear)

    @staticmethod
    def derived(
        parents: tuple[Tracked, ...], function: Callable[..., Tensor], value: Tensor, linear: bool = False
    ) -> Tracked:
        """value = function(*parents' values)."""
        parameters = tuple(dict.fromkeys(p for parent in parents for p in parent.parameters))
        first = parents[0]
        if not linear:
            for parameter in parameters:
                first.tape.point(parameter)
        path = ", ".join(dict.fromkeys(parent.path for parent in parents))
        return Tracked(value, parameters, path, first.tape, parents, function)

    def tangent(self, cotangent: Mapping[Tensor, Tensor], known: dict[Tracked, Dual]) -> Tensor | None:
        """The derivative at θ in direction u; None where no parameter has a u. known: what was asked for before."""
        if not self.parents:
            return cotangent.get(self.parameter)
        if not any(p in cotangent for p in self.parameters):
            return None
        return self._dual(cotangent, known)[1]

    def _dual(self, cotangent: Mapping[Tensor, Tensor], known: dict[Tracked, Dual]) -> Dual:
        """Value and derivative, by forward mode through the functions that made it."""
        if self not in known:
            if self.function is None:
                at = self.tape.kept_point(self.parameter)
                u = cotangent.get(self.parameter)
                known[self] = at, torch.zeros_like(at) if u is None else u.to(at.dtype)
            else:
                duals = [parent._dual(cotangent, known) for parent in self.parents]
                at, u = tuple(a for a, _ in duals), tuple(b for _, b in duals)
                with torch.enable_grad():
                    value, change, *_ = torch.func.jvp(self.function, at, u)
                    known[self] = value, change
        return known[self]


def plain(value: Any) -> Any:
    """The tensor behind a `Tracked`; anything else as it is."""
    return value.value if isinstance(value, Tracked) else value
