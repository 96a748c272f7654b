"""A parameter that knows the functions it is used in.

While an inner block is open, `module.weight` gives a `Tracked` stand-in. Its `__torch_function__` sees each
function that is called with it (`F.linear(x, weight, bias)`), runs it on the parameter itself, so that values and
autograd graph are those of the plain model, and lets the function's rule note what the hypergradient will need.
A rule therefore belongs to a *function*, not to a class of layers: every module that calls `F.linear` is covered,
whatever its name. A function without a rule is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .typed import plain_functions

if TYPE_CHECKING:
    from .tape import Tape

__all__ = ["NoRuleError", "Tracked", "plain"]


class NoRuleError(RuntimeError):
    """A trainable parameter is used by a function that has no rule."""


class Tracked(torch.Tensor):
    """A stand-in for a parameter, or for what a chain of functions of that parameter alone has made of it.

    parameter: the parameter; path: its qualified name; value: chain(parameter), in the autograd graph.
    """

    parameter: Tensor
    path: str
    value: Tensor
    chain: tuple[Callable[[Tensor], Tensor], ...]
    tape: Tape

    # function -> rule(tape, args, kwargs) -> output; filled by rules.py and by bilevel.register_rule
    rules: ClassVar[dict[Any, Callable[[Tape, tuple[Any, ...], dict[str, Any]], Any]]] = {}

    @staticmethod
    def wrap(
        value: Tensor, parameter: Tensor, name: str, tape: Tape, chain: tuple[Callable[[Tensor], Tensor], ...] = ()
    ) -> Tracked:
        """Stand in for `value`; a use that no rule sees leaves its gradient on the stand-in, where the tape looks."""
        with plain_functions():
            tracked = value.detach().as_subclass(Tracked)
            tracked.requires_grad_(value.requires_grad)
        tracked.parameter, tracked.path, tracked.value, tracked.tape, tracked.chain = (
            parameter,
            name,
            value,
            tape,
            chain,
        )
        tape.stand_ins.append(tracked)
        return tracked

    def extend(self, function: Callable[[Tensor], Tensor]) -> Tracked:
        """The stand-in of function(this), where function involves nothing else that is trained."""
        return Tracked.wrap(function(self.value), self.parameter, self.path, self.tape, (*self.chain, function))

    def tangent(self, vector: Tensor) -> Tensor:
        """The chain's derivative in direction `vector` (shaped like the parameter)."""
        if not self.chain:
            return vector

        def run(parameter: Tensor) -> Tensor:
            for function in self.chain:
                parameter = function(parameter)
            return parameter

        with torch.enable_grad():
            return torch.func.jvp(run, (self.parameter.detach(),), (vector.to(self.parameter.dtype),))[1]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with plain_functions():
            rule = cls.rules.get(func)
            if rule is not None:
                found = next((a for a in args if isinstance(a, Tracked)), None)  # taking all arguments apart is slow
                if found is None:
                    found = next(a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tracked))
                return rule(found.tape, args, kwargs)
            out = func(*pytree.tree_map(plain, args), **pytree.tree_map(plain, kwargs))
            if torch.is_grad_enabled() and any(
                isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(out)
            ):
                uses = [a.path for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tracked)]
                if getattr(func, "__name__", "") not in ("__get__", "__set__"):
                    raise NoRuleError(
                        f"{', '.join(uses)}: used by {getattr(func, '__qualname__', func)}, which has no ghost rule. "
                        "Give it one with bilevel.register_rule(function, rule), or choose product='jvp'"
                    )
            return out


def plain(value: Any) -> Any:
    """The parameter (or chain of it) behind a stand-in; anything else as it is."""
    return value.value if isinstance(value, Tracked) else value
