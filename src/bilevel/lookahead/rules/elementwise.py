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

from ..tape import Entry, Tape
from ..tracked import NoRuleError, Tracked
from ..typed import broadcast_shapes
from .shared import note_rows, register_rule, small


def _elementwise(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """parameter ∘ activation by broadcasting: expand the parameter by row, and autograd gives its gradient by row."""
    operands = list(args)
    places = [i for i, a in enumerate(operands) if isinstance(a, Tracked)]
    if len(places) != 1 or any(isinstance(v, Tracked) for v in kwargs.values()):
        raise NoRuleError(
            f"{', '.join(operands[i].path for i in places)}: {function.__name__} of two parameters has no ghost rule; "
            "choose product='jvp'"
        )
    place = places[0]
    tracked: Tracked = operands[place]
    others = [a for i, a in enumerate(operands) if i != place]

    def alone(p: Tensor) -> Tensor:
        return function(*(p if i == place else a for i, a in enumerate(args)), **kwargs)

    linear = not (place == 1 and "div" in function.__name__)  # constant / parameter
    trained = any(isinstance(a, Tensor) and a.requires_grad for a in others)
    if not trained and all(not isinstance(a, Tensor) or a.ndim == 0 for a in others):
        return tracked.extend(alone, linear)
    shape = broadcast_shapes(tracked.shape, *(a.shape for a in others if isinstance(a, Tensor)))
    if len(shape) == tracked.ndim and (not shape or tracked.shape[0] != 1):
        if not trained:
            return tracked.extend(alone, linear)
        raise NoRuleError(
            f"{tracked.path}: {function.__name__} with an activation of its own shape {tuple(shape)}, which has no "
            "rows; choose product='jvp'"
        )
    size = shape[0]
    if size == 1 and tape.expected_rows() != 1:
        size = tape.expected_rows()
    lead = len(shape) - tracked.ndim
    own = tracked.shape if lead else tracked.shape[1:]
    middle = max(lead - 1, 0)
    by_row = tracked.value.reshape(1, *([1] * middle), *own).expand(size, *([1] * middle), *own)
    note_rows(tape, by_row, tracked, own)
    operands[place] = by_row
    return function(*operands, **kwargs)


def _expand(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """parameter.expand(B, -1, -1) and .repeat(B, 1, 1): one copy by row; without new rows, a chain like any other."""
    tracked = args[0]
    output = function(tracked.value, *args[1:], **kwargs)
    grown = output.ndim > tracked.ndim or (output.shape[0] != tracked.shape[0] and tracked.shape[0] == 1)
    same = output.shape == (output.shape[0], *tracked.shape[-(output.ndim - 1) :]) if output.ndim > 1 else False
    if not grown:

        def alone(p: Tensor) -> Tensor:
            return function(p, *args[1:], **kwargs)

        return tracked.extend(alone)
    if not same:
        raise NoRuleError(
            f"{tracked.path}: {function.__name__} to {tuple(output.shape)} has no ghost rule; choose 'jvp'"
        )
    own = output.shape[1:]
    note_rows(tape, output, tracked, own)
    return output


def _cat(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A parameter laid beside activations without rows (an image's newline): the k-th use is row k of its map."""
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


_NAMES = ("add", "sub", "mul", "div", "true_divide", "multiply")
_DUNDER = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv")
_IN_PLACE = ("add_", "mul_", "sub_", "div_", "__iadd__", "__imul__")
for _owner in (Tensor, torch):
    for _name in _NAMES:
        register_rule(getattr(_owner, _name), partial(_elementwise, getattr(_owner, _name)))
for _name in (*(f"__{name}__" for name in _DUNDER), *_IN_PLACE):
    register_rule(getattr(Tensor, _name), partial(_elementwise, getattr(Tensor, _name)))
for _name in ("expand", "repeat"):
    register_rule(getattr(Tensor, _name), partial(_expand, getattr(Tensor, _name)))
register_rule(torch.cat, _cat)
register_rule(torch.concat, _cat)
