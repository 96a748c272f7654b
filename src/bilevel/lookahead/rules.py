"""The ghost rules: per function, what to keep and how to answer <u, ∇ℓ_i>.

Shapes: x (*rows, in), δ = ∂(Σ_i c_i ℓ_i)/∂output, u the cotangent of the parameter. Notation of the table:

    linear      d_i += Σ_t <δ_it, U x_it + u_b>                  keeps x and δ
    embedding   d_i += Σ_t <δ_it, U[token_it]>                   keeps δ
    convolution d_i += Σ <δ_i, conv(x_i, U) + u_b>               keeps x and δ
    norms       G_i = Σ_t δ_it x̂_it, d_i += <G_i, u>             keeps (B, C) only
    add, mul, … G_i = the gradient of the parameter expanded by row, as autograd gives it
    functions of the parameter alone (view, to, exp, …): the chain's derivative maps u

The ghost-norm identity behind the first rows: Goodfellow 2015 (arXiv 1510.01799), Li et al. 2022 (arXiv 2110.05679).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from .row_maps import RowMap, wide
from .tape import Entry, Lookup, Tape
from .tracked import NoRuleError, Tracked, plain
from .typed import broadcast_shapes, vecdot

__all__ = ["register_rule"]

Rule = Callable[[Tape, tuple[Any, ...], dict[str, Any]], Any]


def register_rule(function: Callable[..., Any], rule: Rule) -> None:
    """Teach the tape a function: `rule(tape, args, kwargs)` runs it (stand-ins unwrapped by `plain`), calls
    `tape.watch(output, note)` with a note that returns an `Entry`, and returns the output."""
    Tracked.rules[function] = rule


def _arguments(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any], **defaults: Any
) -> dict[str, Any]:
    return {**defaults, **dict(zip(names, args)), **kwargs}


def _inner_product(rows: RowMap, delta: Tensor, output: Tensor) -> Tensor:
    """Σ over everything but the example of δ · output, (B,)."""
    if rows.index is None and rows.lead == 1 and not rows.drop and delta.dtype in (torch.float32, torch.float64):
        # Four times faster on CPU than bmm of (1, K) and (K, 1).
        return vecdot(delta.reshape(len(delta), -1), output.reshape(len(delta), -1))
    dtype = wide(delta.dtype)
    return rows.reduce(delta.to(dtype) * output.to(dtype))


def _note_layer(
    tape: Tape, output: Tensor, weight: Any, bias: Any, apply: Callable[[Tensor | None, Tensor | None, Tensor], Tensor]
) -> None:
    """A layer that is linear in its parameters: d_i = Σ <δ_i, apply(U, u_b)_i>."""
    tracked = [p for p in (weight, bias) if isinstance(p, Tracked)]
    context = tape.context

    def note(delta: Tensor) -> Entry:
        rows = tape.map(tracked[0], delta.shape[:-1], context)

        def contribution(lookup: Lookup) -> Tensor | None:
            u = lookup(weight) if isinstance(weight, Tracked) else None
            u_b = lookup(bias) if isinstance(bias, Tracked) else None
            if u is None and u_b is None:
                return None
            cast = delta.dtype
            u = None if u is None else u.to(cast)
            u_b = None if u_b is None else u_b.to(cast)
            return _inner_product(rows, delta, apply(u, u_b, delta))

        return Entry(tuple(t.parameter for t in tracked), contribution)

    tape.watch(output, note)


def _linear(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    a = _arguments(("input", "weight", "bias"), args, kwargs, bias=None)
    x, weight, bias = a["input"], a["weight"], a["bias"]
    if isinstance(x, Tracked):
        raise NoRuleError(f"{x.path}: used as the input of linear, which has no ghost rule; choose product='jvp'")
    output = F.linear(x, plain(weight), plain(bias))
    kept, context = x.detach(), tape.context
    tracked = [p for p in (weight, bias) if isinstance(p, Tracked)]

    def note(delta: Tensor) -> Entry:
        rows = tape.map(tracked[0], delta.shape[:-1], context)
        chosen = _positions_in_use(rows, delta)
        if chosen is None:
            return _linear_entry(weight, bias, rows, kept, delta)
        rows = RowMap(rows.num_examples, index=chosen // delta.shape[1])
        return _linear_entry(weight, bias, rows, kept.flatten(0, 1)[chosen], delta.flatten(0, 1)[chosen])

    tape.watch(output, note)
    return output


def _linear_entry(weight: Any, bias: Any, rows: RowMap, x: Tensor, delta: Tensor) -> Entry:
    """d_i += Σ_t <δ_it, U x_it + u_b>, the product taken on the narrower side: Σ_t <Uᵀ δ_it, x_it> where in < out."""

    def contribution(lookup: Lookup) -> Tensor | None:
        u = lookup(weight) if isinstance(weight, Tracked) else None
        u_b = lookup(bias) if isinstance(bias, Tracked) else None
        if u is not None and (u.shape[1] >= u.shape[0]):
            applied = F.linear(x.to(delta.dtype), u.to(delta.dtype), None if u_b is None else u_b.to(delta.dtype))
            return _inner_product(rows, delta, applied)
        total = None if u is None else _inner_product(rows, x.to(delta.dtype), delta @ u.to(delta.dtype))
        if u_b is None:
            return total
        shift = rows.reduce(delta, 1) @ u_b.to(wide(delta.dtype))
        return shift if total is None else total + shift

    return Entry(tuple(t.parameter for t in (weight, bias) if isinstance(t, Tracked)), contribution)


def _positions_in_use(rows: RowMap, delta: Tensor) -> Tensor | None:
    """Which of the B T positions have a gradient at all, where most have none; else None.

    So it is in the last layer of a model whose loss looks at few positions. One position is looked at first: where it
    has a gradient, as in all other layers, nothing more is paid. (On a GPU the look would be a synchronisation.)
    """
    if delta.is_cuda or delta.ndim != 3 or rows.index is not None or rows.lead != 1 or rows.drop:
        return None
    if delta.shape[1] < 2 or bool(delta[0, 0].any()):
        return None
    chosen = delta.flatten(0, 1).abs().amax(-1).nonzero().flatten()
    return chosen if 0 < 2 * len(chosen) <= delta.shape[0] * delta.shape[1] else None


def _matmul(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    x, weight = args
    if isinstance(x, Tracked) or not isinstance(weight, Tracked) or weight.ndim != 2:
        raise NoRuleError("matmul has a rule for activations @ two-dimensional parameter only; choose product='jvp'")
    return _linear(tape, (x, weight.extend(lambda w: w.mT)), {})


def _addmm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    a = _arguments(("input", "mat1", "mat2"), args, kwargs)
    if isinstance(a["mat1"], Tracked) or set(kwargs) & {"alpha", "beta"}:
        raise NoRuleError("addmm has a rule for bias + activations @ parameter only; choose product='jvp'")
    weight = a["mat2"]
    turned = weight.extend(lambda w: w.mT) if isinstance(weight, Tracked) else weight.mT
    return _linear(tape, (a["mat1"], turned, a["input"]), {})


def _embedding(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    a = _arguments(names, args, kwargs, padding_idx=None, max_norm=None, scale_grad_by_freq=False, sparse=False)
    ids, weight, padding = a["input"], a["weight"], a["padding_idx"]
    if a["max_norm"] is not None or a["scale_grad_by_freq"] or a["sparse"]:
        raise NoRuleError(f"{weight.path}: embedding with max_norm, scale_grad_by_freq or sparse has no ghost rule")
    output = F.embedding(ids, weight.value, padding)
    if padding is not None and padding < 0:
        padding += weight.shape[0]
    expected, context = tape.expected_rows(), tape.context
    given = tape.find(weight.path)
    packed = ids.numel() == (expected if given is None and ids.ndim == 1 else -1 if given is None else given.shape[0])
    if expected != 1 and (ids.ndim == 1 or ids.shape[0] == 1) and not packed:
        # A table of positions, looked up once and broadcast over the rows: give every row its own use of it.
        shape = output.shape if ids.ndim == 1 else output.shape[1:]
        output = output.expand(expected, *shape)
        ids = ids.expand(expected, *(ids.shape if ids.ndim == 1 else ids.shape[1:]))

    def note(delta: Tensor) -> Entry:
        rows = tape.map(weight, delta.shape[:-1], context)

        def contribution(lookup: Lookup) -> Tensor | None:
            u = lookup(weight)
            if u is None:
                return None
            taken = F.embedding(ids, u.to(wide(delta.dtype)))
            if padding is not None:
                taken = taken.masked_fill((ids == padding).unsqueeze(-1), 0.0)
            return rows.reduce(taken.mul_(delta) if taken.dtype == delta.dtype else taken * delta)

        return Entry((weight.parameter,), contribution)

    tape.watch(output, note)
    return output


def _convolution(function: Callable[..., Tensor], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    a = _arguments(names, args, kwargs, bias=None)
    x, weight, bias = a.pop("input"), a.pop("weight"), a.pop("bias")
    output = function(x, plain(weight), plain(bias), **a)
    kept = x.detach()

    def apply(u: Tensor | None, u_b: Tensor | None, delta: Tensor) -> Tensor:
        if u is None:
            u = torch.zeros_like(weight, dtype=delta.dtype)
        return function(kept.to(delta.dtype), u, u_b, **a)

    _note_layer(tape, output, weight, bias, apply)
    return output


def _small(tape: Tape, tracked: Tracked, gradient: Tensor) -> Entry:
    """An entry from per-example gradients of a small parameter (or chain of it), (B, *shape)."""

    def contribution(lookup: Lookup) -> Tensor | None:
        u = lookup(tracked)
        return None if u is None else gradient.flatten(1) @ u.to(gradient.dtype).flatten()

    return Entry((tracked.parameter,), contribution)


def _note_scale_and_shift(
    tape: Tape, output: Tensor, weight: Any, bias: Any, normalized: Callable[[torch.dtype], Tensor], keep: int
) -> None:
    context = tape.context

    def scale(delta: Tensor) -> Entry:
        rows = tape.map(weight, delta.shape[:-keep], context)
        return _small(tape, weight, rows.reduce(delta * normalized(delta.dtype), keep))

    def shift(delta: Tensor) -> Entry:
        return _small(tape, bias, tape.map(bias, delta.shape[:-keep], context).reduce(delta, keep))

    if isinstance(weight, Tracked):
        tape.watch(output, scale)
    if isinstance(bias, Tracked):
        tape.watch(output, shift)


def _layer_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    a = _arguments(names, args, kwargs, weight=None, bias=None, eps=1e-5)
    x, shape, eps = a["input"], list(a["normalized_shape"]), a["eps"]
    output = F.layer_norm(x, shape, plain(a["weight"]), plain(a["bias"]), eps)
    kept = x.detach()
    _note_scale_and_shift(
        tape, output, a["weight"], a["bias"], lambda dtype: F.layer_norm(kept.to(dtype), shape, eps=eps), len(shape)
    )
    return output


def _rms_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    a = _arguments(("input", "normalized_shape", "weight", "eps"), args, kwargs, weight=None, eps=None)
    x, shape, eps = a["input"], list(a["normalized_shape"]), a["eps"]
    output = F.rms_norm(x, shape, plain(a["weight"]), eps)
    kept = x.detach()
    _note_scale_and_shift(
        tape, output, a["weight"], None, lambda dtype: F.rms_norm(kept.to(dtype), shape, eps=eps), len(shape)
    )
    return output


def _batch_norm(tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    a = _arguments(names, args, kwargs, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5)
    if a["training"]:
        raise NoRuleError(
            "batch_norm in training mode mixes the examples of a batch, so no example has a gradient of its own; "
            "put it into eval mode or use a norm over features"
        )
    x, mean, variance = a["input"], a["running_mean"], a["running_var"]
    output = F.batch_norm(x, mean, variance, plain(a["weight"]), plain(a["bias"]), False, a["momentum"], a["eps"])
    kept = x.detach()

    def normalized(dtype: torch.dtype) -> Tensor:
        return F.batch_norm(kept.to(dtype), mean, variance, None, None, False, 0.0, a["eps"]).movedim(1, -1)

    turned = output.movedim(1, -1)
    _note_scale_and_shift(tape, turned, a["weight"], a["bias"], normalized, 1)
    return turned.movedim(-1, 1)


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

    if all(not isinstance(a, Tensor) or a.ndim == 0 for a in others):
        return tracked.extend(alone)
    shape = broadcast_shapes(tracked.shape, *(a.shape for a in others if isinstance(a, Tensor)))
    if len(shape) == tracked.ndim and tracked.shape[0] != 1:
        if not any(isinstance(a, Tensor) and a.requires_grad for a in others):
            return tracked.extend(alone)
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
    _note_rows(tape, by_row, tracked, own)
    operands[place] = by_row
    return function(*operands, **kwargs)


def _note_rows(tape: Tape, by_row: Tensor, tracked: Tracked, own: torch.Size) -> None:
    context = tape.context

    def note(delta: Tensor) -> Entry:
        rows = tape.map(tracked, delta.shape[:1], context)
        gradient = rows.reduce(delta.reshape(delta.shape[0], *own), len(own))
        return _small(tape, tracked, gradient)

    tape.watch(by_row, note)


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
    _note_rows(tape, output, tracked, own)
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
            return _small(tape, part, gradient)

        tape.watch(alias, note)
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return torch.cat(parts, dim=dim)


def _chain(function: Callable[..., Any], tape: Tape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of one parameter and constants."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tracked)]
    tracked = leaves[places[0]]
    if function.__name__ in ("to", "type_as"):  # another tensor lends its dtype and device only
        leaves = [
            leaf.new_empty(0) if isinstance(leaf, Tensor) and not isinstance(leaf, Tracked) else leaf for leaf in leaves
        ]
    if len(places) > 1 or any(
        isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves if leaf is not tracked
    ):
        raise NoRuleError(
            f"{tracked.path}: {function.__name__} with another tensor has no ghost rule; choose product='jvp'"
        )

    def alone(p: Tensor) -> Any:
        moved, named = pytree.tree_unflatten([p if i == places[0] else leaf for i, leaf in enumerate(leaves)], spec)
        return function(*moved, **named)

    with torch.no_grad():
        trial = alone(tracked.value.detach())
    if not isinstance(trial, Tensor):
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(trial)):
            raise NoRuleError(f"{tracked.path}: {function.__name__} has no ghost rule; choose product='jvp'")
        return trial
    return tracked.extend(alone)


_ELEMENTWISE = ("add", "sub", "mul", "div", "true_divide", "multiply")
_DUNDER = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv")
_CHAIN = (  # noqa: SIM905 - forty lines of quotes would say less
    "to type type_as float double half bfloat16 view reshape flatten unflatten transpose t permute unsqueeze squeeze "
    "contiguous clone exp sigmoid softplus tanh neg movedim swapaxes narrow select tile repeat_interleave "
    "index_select cos sin abs square sqrt rsqrt chunk softmax"
).split()


def _register() -> None:
    register_rule(F.linear, _linear)
    for matmul in (torch.matmul, Tensor.matmul, Tensor.__matmul__):
        register_rule(matmul, _matmul)
    register_rule(torch.addmm, _addmm)
    register_rule(F.embedding, _embedding)
    for convolution in (F.conv1d, F.conv2d, F.conv3d):
        register_rule(convolution, partial(_convolution, convolution))
    register_rule(F.layer_norm, _layer_norm)
    register_rule(F.rms_norm, _rms_norm)
    register_rule(F.batch_norm, _batch_norm)
    register_rule(torch.cat, _cat)
    register_rule(torch.concat, _cat)
    for owner in (Tensor, torch):
        for name in _ELEMENTWISE:
            register_rule(getattr(owner, name), partial(_elementwise, getattr(owner, name)))
    for name in _DUNDER:
        function = getattr(Tensor, f"__{name}__")
        register_rule(function, partial(_elementwise, function))
    for name in ("add_", "mul_", "sub_", "div_", "__iadd__", "__imul__"):
        function = getattr(Tensor, name)
        register_rule(function, partial(_elementwise, function))
    for name in ("expand", "repeat"):
        register_rule(getattr(Tensor, name), partial(_expand, getattr(Tensor, name)))
    for owner in (Tensor, torch, F):
        for name in _CHAIN:
            function = getattr(owner, name, None)
            if callable(function) and not inspect.isclass(function):
                register_rule(function, partial(_chain, function))
    register_rule(Tensor.__getitem__, partial(_chain, Tensor.__getitem__))
    register_rule(F.interpolate, partial(_chain, F.interpolate))
    for name in ("mT", "T"):
        getter = getattr(Tensor, name).__get__
        register_rule(getter, partial(_chain, getter))


_register()
