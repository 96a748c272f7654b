"""A parameter combined with activations directly: G_i is the gradient of the parameter expanded by row, as autograd
gives it.

Class tokens, position tables, layer scales, a norm written out by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..derive import derive
from ..tape import Entry, Tape
from ..tracked import NoRuleError, Tracked, plain
from ..typed import broadcast_shapes
from .shared import note_rows, register_rule, small


def _elementwise(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """parameter ∘ activation by broadcasting: expand the parameter by row, and autograd gives its gradient by row."""
    if tape.of_parameters_alone(args, kwargs, indices=False):
        return derive(function, args, kwargs, linear=_linear_in_one(function, args))
    operands, named = list(args), dict(kwargs)
    places: list[tuple[Any, Any]] = [(operands, i) for i, a in enumerate(args) if isinstance(a, Tracked)]
    places += [(named, name) for name, value in kwargs.items() if isinstance(value, Tracked)]
    if getattr(function, "__name__", "") in _IN_PLACE and isinstance(args[0], Tracked):
        raise NoRuleError(f"{args[0].path}: written to by {function.__name__}; write the model without it")
    others = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    for holder, key in places:
        holder[key] = _by_row(function, tape, holder[key], args, kwargs, others)
    if any(isinstance(holder[key], Tracked) for holder, key in places):  # beside constants of its own shape
        if all(isinstance(holder[key], Tracked) for holder, key in places):
            return derive(function, args, kwargs, linear=_linear_in_one(function, args))
        raise _no_rows(function, places[0][0][places[0][1]], tuple(others[0].shape))
    return function(*operands, **named)


def _linear_in_one(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Sums, and products with constants: the same derivative everywhere."""
    name, num = getattr(function, "__name__", ""), sum(isinstance(a, Tracked) for a in args)
    if any(word in name for word in ("add", "sub")) and "addc" not in name:
        return True
    if "mul" in name and "addc" not in name:
        return num == 1
    return "div" in name and num == 1 and isinstance(args[0], Tracked) != ("rtruediv" in name)


def _no_rows(function: Callable[..., Any], tracked: Any, shape: tuple[int, ...]) -> NoRuleError:
    path = tracked.path if isinstance(tracked, Tracked) else "a parameter"
    return NoRuleError(
        f"{path}: {function.__name__} with an activation of its own shape {shape}, which has no rows; choose "
        "product='jvp' or 'unroll'"
    )


def _by_row(
    function: Callable[..., Any],
    tape: Tape,
    tracked: Tracked,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    others: list[Tensor],
) -> Any:
    """The parameter expanded by row and watched; the parameter itself where it meets constants of its own shape."""
    trained = any(a.requires_grad for a in others)
    everything = [a.shape for a in (*args, *kwargs.values()) if isinstance(a, Tensor | Tracked)]
    if not trained and all(a.ndim == 0 for a in others):
        return tracked
    shape = broadcast_shapes(*everything)
    if len(shape) == tracked.ndim and (not shape or tracked.shape[0] != 1):
        if not trained:
            return tracked
        raise _no_rows(function, tracked, tuple(shape))
    size = shape[0]
    if size == 1 and tape.expected_rows() != 1:
        size = tape.expected_rows()
    # To the whole shape: the sum over it that makes .grad is then the very one that broadcasting makes.
    by_row = tracked.value.expand(size, *shape[1:])
    note_rows(tape, by_row, tracked, tracked.shape if len(shape) > tracked.ndim else tracked.shape[1:])
    return by_row


def _expand(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """parameter.expand(B, -1, -1) and .repeat(B, 1, 1): one copy by row; without new rows, a chain like any other."""
    tracked = args[0]
    if not isinstance(tracked, Tracked):
        return function(*map(plain, args), **kwargs)
    output = function(tracked.value, *args[1:], **kwargs)
    second = tape.second_rows
    if second is not None and 1 < output.ndim == tracked.ndim and tracked.shape[1] == 1 and output.shape[1] == second:
        # A bias beside keys and values.
        note_rows(tape, output, tracked, torch.Size([output.shape[0], *output.shape[2:]]), second=True)
        return output
    grown = output.ndim > tracked.ndim or (output.shape[0] != tracked.shape[0] and tracked.shape[0] == 1)
    same = output.shape == (output.shape[0], *tracked.shape[-(output.ndim - 1) :]) if output.ndim > 1 else False
    if not grown:
        return derive(function, args, kwargs, linear=True)
    if not same:
        raise NoRuleError(
            f"{tracked.path}: {function.__name__} to {tuple(output.shape)} has no ghost rule; choose product='jvp' or "
            "'unroll'"
        )
    own = output.shape[1:]
    note_rows(tape, output, tracked, own)
    return output


def _cat(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A parameter laid beside activations without rows (an image's newline): the k-th use is row k of its map."""
    if tape.of_parameters_alone(args, kwargs):
        return derive(torch.cat, args, kwargs, linear=True)
    parts = list(args[0] if args else kwargs["tensors"])
    for place, part in enumerate(parts):
        if not isinstance(part, Tracked):
            continue
        row = sum(1 for use in tape.uses if use is part.parameter)
        tape.uses.append(part.parameter)
        alias = part.value.view_as(part.value)
        parts[place] = alias

        def note(delta: Tensor, part: Tracked = part, row: int = row) -> Entry:
            if tape.maps is None:
                raise NoRuleError("the backward pass ran outside lookahead.backward(losses, coefficients)")
            gradient = tape.maps.at_row(part.path, row, delta)
            return small(tape, part, gradient)

        tape.watch(alias, note)
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return torch.cat(parts, dim=dim)


_NAMES = (  # pointwise: each entry of the output is a function of the entries that broadcasting lays beside it
    "add", "sub", "mul", "div", "true_divide", "multiply", "subtract", "divide", "pow", "maximum", "minimum", "where",
    "addcmul", "addcdiv", "lerp", "atan2", "hypot", "logaddexp", "fmax", "fmin", "rsub", "copysign",
)  # fmt: skip
_DUNDER = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow")
_IN_PLACE = ("add_", "mul_", "sub_", "div_", "__iadd__", "__imul__")
for _owner in (Tensor, torch):
    for _name in _NAMES:
        if hasattr(_owner, _name):
            register_rule(getattr(_owner, _name), partial(_elementwise, getattr(_owner, _name)))
for _name in (*(f"__{name}__" for name in _DUNDER), *_IN_PLACE):
    register_rule(getattr(Tensor, _name), partial(_elementwise, getattr(Tensor, _name)))
for _name in ("expand", "repeat"):
    register_rule(getattr(Tensor, _name), partial(_expand, getattr(Tensor, _name)))
register_rule(torch.cat, _cat)
register_rule(torch.concat, _cat)
