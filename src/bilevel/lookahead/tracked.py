"""A parameter as a rule sees it: the tensor itself, its name, and the functions of it alone that made this value.

Parameters are recognised by identity where a torch function is called with them (`seeing.py`), wherever they come from:
an attribute, a list, the loss code. A rule therefore belongs to a *function*, not to a class of layers: every module
that calls `F.linear` is covered, whatever its name. A function without a rule is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .tape import Tape

__all__ = ["NoRuleError", "Tracked", "plain"]


class NoRuleError(RuntimeError):
    """A trainable parameter is used by a function that has no rule."""


class Tracked:
    """A parameter, or what a chain of functions of that parameter alone has made of it, as a rule's argument.

    value: chain(parameter), in the autograd graph; parameter, path: the parameter and its qualified name.
    """

    __slots__ = ("chain", "parameter", "path", "point", "tape", "value")

    # function -> rule(tape, args, kwargs) -> output; filled by rules/ and by bilevel.register_rule
    rules: ClassVar[dict[Any, Callable[[Tape, tuple[Any, ...], dict[str, Any]], Any]]] = {}

    def __init__(
        self,
        value: Tensor,
        parameter: Tensor,
        path: str,
        tape: Tape,
        chain: tuple[Callable[[Tensor], Tensor], ...] = (),
        point: Tensor | None = None,
    ) -> None:
        self.value, self.parameter, self.path, self.tape, self.chain = value, parameter, path, tape, chain
        self.point = point  # θ, where a function of the chain is not linear and its derivative depends on it

    @property
    def shape(self) -> torch.Size:
        """The value's shape."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """The value's number of dimensions."""
        return self.value.ndim

    def extend(self, function: Callable[[Tensor], Tensor], linear: bool = True) -> Tracked:
        """function(this), where function involves nothing else that is trained.

        linear: whether the function's derivative is the same everywhere (shapes, casts, sums, factors). Where it is
        not, θ is kept: the optimizer will have moved the parameter when the derivative is asked for.
        """
        point = self.point if linear or self.point is not None else self.tape.point(self.parameter)
        return Tracked(function(self.value), self.parameter, self.path, self.tape, (*self.chain, function), point)

    def tangent(self, vector: Tensor) -> Tensor:
        """The chain's derivative at θ in direction `vector` (shaped like the parameter)."""
        if not self.chain:
            return vector

        def run(parameter: Tensor) -> Tensor:
            for function in self.chain:
                parameter = function(parameter)
            return parameter

        at = self.parameter.detach() if self.point is None else self.point
        with torch.enable_grad():
            return torch.func.jvp(run, (at,), (vector.to(at.dtype),))[1]


def plain(value: Any) -> Any:
    """The tensor behind a `Tracked`; anything else as it is."""
    return value.value if isinstance(value, Tracked) else value
