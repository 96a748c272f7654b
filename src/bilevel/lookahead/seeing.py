"""Seeing a parameter where it is used: by identity, in every torch function that is called while a block is open.

A `TorchFunctionMode` is asked about each function call. It compares the arguments with the parameters it knows, so it
makes no difference whether the parameter came from a module's attribute, a list, a closure or the loss code; and what
`torch.func.functional_call` puts in a parameter's place is another tensor, which is left alone.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .typed import fused_weight_norm, is_compiled, make_dual, no_tangent, own_buffers, own_parameters, weight_norm

__all__ = ["Replacing", "Using", "composite", "mentions", "uncompiled", "written_out"]


def mentions(known: Mapping[int, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether one of the arguments, or of a list or tuple among them, is known by its identity."""
    for value in args:
        if id(value) in known:
            return True
        if type(value) in (list, tuple) and mentions(known, value, {}):
            return True
    return bool(kwargs) and mentions(known, tuple(kwargs.values()), {})


_OVERRIDES = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def _never(*_: Any) -> bool:
    return False


def composite(function: Any) -> Callable[..., Any] | None:
    """A function of torch that is written in Python, as one that does not ask for overrides; None for any other.

    Called under the mode it runs its own body, so that the functions it is made of are seen one by one (multi-head
    attention is four `linear` and an attention).
    """
    if not isinstance(function, types.FunctionType) or not function.__module__.startswith("torch"):
        return None
    if function.__module__.startswith(("torch.autograd", "torch.utils")):
        return None
    asked = [name for name in _OVERRIDES if name in function.__globals__]
    if not asked:
        return None
    names: dict[str, Any] = {**function.__globals__, **dict.fromkeys(asked, _never)}
    entered = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    entered.__kwdefaults__ = function.__kwdefaults__
    return entered


# Functions of torch without a forward-mode rule, written with functions that have one.
written_out: dict[Any, Callable[..., Any]] = {fused_weight_norm: weight_norm}


class Using(TorchFunctionMode):
    """Calls use(function, args, kwargs) for each function that is given a known tensor while gradients are recorded."""

    def __init__(self, known: Mapping[int, Any], use: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()
        self.known, self.use = known, use

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        known = self.known  # every call of the model passes here: nothing more than needed
        for value in args:
            if id(value) in known or (type(value) in (list, tuple) and mentions(known, value, {})):
                break
        else:
            if not kwargs:
                return func(*args)
            if not mentions(known, (), kwargs):
                return func(*args, **kwargs)
        if torch.is_grad_enabled():
            return self.use(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


class Replacing(TorchFunctionMode):
    """Runs the model on other values of its parameters, and on copies of its buffers, so that a replay changes nothing.

    values: parameter -> the value it is to have; directions: parameter -> its tangent, in forward mode; unmoved: the
    values without their perturbation, in a difference. Where the model itself stops gradients (no_grad), tangents stop
    too, which forward mode alone does not do.
    """

    def __init__(
        self,
        model: nn.Module,
        values: Mapping[Tensor, Tensor],
        directions: Mapping[Tensor, Tensor] | None = None,
        unmoved: Mapping[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.forward_mode = model, directions is not None
        self._padded: dict[tuple[int, int], Tensor] = {}
        self._moves: dict[int, tuple[Tensor, Tensor | None, Tensor | None]] = {}  # value, direction, value unmoved
        self.table: dict[int, Tensor] = {}
        directions, unmoved = directions or {}, unmoved or {}
        for parameter in model.parameters():
            value = values.get(parameter, parameter).detach()
            u = directions.get(parameter)
            stand_in = value if u is None else make_dual(value, u.to(value.dtype))
            self.table[id(parameter)] = stand_in
            for tensor in (parameter, stand_in):
                self._moves[id(tensor)] = (value, u, unmoved.get(parameter))
        self._buffers = {id(b): b for b in model.buffers()}

    @contextmanager
    def replaced(self) -> Generator[None]:
        """The modules' own tables too, for code that is not a torch function (custom autograd functions)."""
        changed: list[tuple[dict[str, Any], dict[str, Any]]] = []
        try:
            for module in self.model.modules():
                changed += [(table, dict(table)) for table in (own_parameters(module), own_buffers(module))]
                parameters: dict[str, Any] = own_parameters(module)  # pyright: ignore[reportAssignmentType]
                for name, parameter in parameters.items():
                    if parameter is not None:
                        parameters[name] = self.table.get(id(parameter), parameter)
            with self:
                yield
        finally:
            for table, before in changed:
                table.clear()
                table.update(before)

    def _one(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        found = self.table.get(id(value))
        if found is not None:
            return found
        buffer = self._buffers.get(id(value))
        if buffer is not None:
            self.table[id(value)] = copy = buffer.detach().clone()
            return copy
        return value

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.embedding:
            args, kwargs = self._without_padding(args, kwargs)
        if any(isinstance(a, Tensor) or type(a) in (list, tuple, dict) for a in (*args, *kwargs.values())):
            args, kwargs = pytree.tree_map(self._one, (args, kwargs))
            if self.forward_mode and not torch.is_grad_enabled():
                args, kwargs = pytree.tree_map(_cut, (args, kwargs))
            if self.forward_mode:
                func = written_out.get(func, func)
        return func(*args, **kwargs)  # pyright: ignore[reportCallIssue]

    def _without_padding(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """An embedding's backward pass leaves its padding row out; forward mode and differences do not."""
        named: dict[str, Any] = {**dict(zip(("input", "weight", "padding_idx"), args, strict=False)), **kwargs}
        padding, known = named.get("padding_idx"), self._moves.get(id(named.get("weight")))
        if padding is None or known is None or (known[1] is None and known[2] is None):
            return args, kwargs
        value, u, still = known
        key = (id(value), int(padding))
        if key not in self._padded:
            if u is not None:
                u = u.to(value.dtype, copy=True)
                u[padding] = 0
                self._padded[key] = make_dual(value, u)
            elif still is not None:
                self._padded[key] = value.clone()
                self._padded[key][padding] = still[padding]
        rest: dict[str, Any] = {k: v for k, v in kwargs.items() if k not in ("input", "weight")}
        return (named["input"], self._padded[key], *args[2:]), rest


def _cut(value: Any) -> Any:
    return no_tangent(value) if isinstance(value, Tensor) else value


def uncompiled(model: nn.Module) -> Any:
    """Compiled parts run as they are written: nobody sees into compiled code, and it drops tangents without a sound."""
    # The second: a compiled function of the user's own, which no module tells of.
    if not any(is_compiled(m) for m in model.modules()) and "torch._dynamo.eval_frame" not in sys.modules:
        return nullcontext()
    compiler: Any = torch.compiler
    return compiler.set_stance("force_eager")
