"""Functions of parameters alone whose derivative is the same everywhere (view, to, chunk, …): nothing is kept.

All other functions of parameters alone need no rule: `derive.py` keeps θ for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..derive import derive
from ..tape import Tape
from ..tracked import Tracked, plain
from .embedding import lookup_rows
from .shared import register_rule


def _chain(function: Callable[..., Any], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return derive(function, args, kwargs, linear=True)


def _cast(function: Callable[..., Any], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """parameter.to(…), or activation.to(parameter), of which only the dtype and device are used."""
    if isinstance(args[0], Tracked):
        return derive(function, args, kwargs, linear=True)
    return function(args[0], *map(plain, args[1:]), **{name: plain(value) for name, value in kwargs.items()})


def _getitem(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """parameter[ids], ids (B, …), is an embedding; any other indexing is a view."""
    table, index = args
    whole = isinstance(index, Tensor) and not index.is_floating_point() and index.dtype != torch.bool and index.ndim > 1
    if whole and isinstance(table, Tracked) and index.shape[0] == tape.expected_rows():
        return lookup_rows(tape, table, index)
    return derive(Tensor.__getitem__, args, kwargs, linear=True)


_LINEAR = (  # the same derivative everywhere  # noqa: SIM905 - forty lines of quotes would say less
    "float double half bfloat16 view reshape flatten unflatten transpose t permute unsqueeze squeeze contiguous clone "
    "neg movedim swapaxes narrow select tile repeat_interleave index_select chunk split unbind unsafe_chunk sum mean "
    "flip roll tril triu diag diagonal"
).split()
for _names, _rule in ((_LINEAR, _chain), (("to", "type", "type_as"), _cast)):
    for _owner in (Tensor, torch, F):
        for _name in _names:
            _function = getattr(_owner, _name, None)
            if callable(_function) and not inspect.isclass(_function):
                register_rule(_function, partial(_rule, _function))
register_rule(Tensor.__getitem__, _getitem)
register_rule(F.interpolate, partial(_chain, F.interpolate))
for _name in ("mT", "T"):
    _function = getattr(Tensor, _name).__get__
    register_rule(_function, partial(_chain, _function))
