"""The product `ghost`: notes of one inner micro-batch, what each use of a parameter needs to answer <u, ∇ℓ_i>.

In the weighted backward pass every use leaves its δ; afterwards one matmul-sized product per use gives d_i, no second
backward pass. Exact; the cost is about one forward's matmuls. Which functions are understood: rules/.

One file because seeing, noting and answering are one pass over one list of entries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .derive import can_be_derived, derive
from .recorder import Part, Sites, away_from_zero, lowest, plain_autograd
from .row_maps import Around, RowMap, RowMaps, longest_prefix
from .seeing import Using, composite, uncompiled
from .taken_step import TakenStep
from .tracked import NoRuleError, Tracked
from .typed import backward, hook, own_parameters
from .ways_out import ways_out

__all__ = ["Entry", "Tape"]

Lookup = Callable[[Tracked], Tensor | None]
"""u for a use of a parameter (through the use's chain), None where the parameter has no cotangent."""


@dataclass(frozen=True)
class Entry:
    """One use: the parameters it touches, and their contribution to c_i d_i, (B,), given u."""

    parameters: tuple[Tensor, ...]
    contribution: Callable[[Lookup], Tensor | None]


class Tape:
    """Notes of one micro-batch; `recording` while its weighted backward pass runs."""

    exact: ClassVar[bool] = True
    needs_before: ClassVar[bool] = False
    through_step: ClassVar[bool] = True

    def __init__(self, sites: Sites, rows: Mapping[str, Tensor] | None, epsilon: float) -> None:
        self.model, self.sites, self.rows = sites.model, sites, rows
        self.maps: RowMaps | None = None
        self.recording = False
        self.entries: list[Entry] = []
        self.uses: list[Tensor] = []  # parameters used outside any rows, in order of use
        self.precision: torch.dtype | None = None
        self._divide: Tensor | None = None
        self._calls: list[torch.Size | None] = []
        self._points: dict[Tensor, Tensor] = {}
        self._known: dict[int, Tracked] = {}
        self._whole: dict[Tensor, Tensor] = {}  # a shard -> what its module holds while it is whole
        self._buffers = {id(b) for b in sites.model.buffers()}
        self.second_rows: int | None = None
        self.alike: set[tuple[int, ...]] = set()  # shapes whose first two dimensions could be taken for each other
        self._mode = Using(self._known, self._use)

    @staticmethod
    def refuse(sites: Sites) -> None:
        """Everything is refused by the function that uses it."""

    def find(self, name: str) -> Tensor | None:
        """The user's map for a parameter, before the number of examples is known."""
        return longest_prefix(self.rows or {}, name)

    def point(self, parameter: Tensor) -> Tensor:
        """A copy of θ, for a function of it whose derivative is asked for when the optimizer has moved it."""
        if parameter not in self._points:
            self._points[parameter] = self._whole.get(parameter, parameter).detach().clone()
        return self._points[parameter]

    def kept_point(self, parameter: Tensor) -> Tensor:
        """That copy, or the parameter as it is where nobody asked for one: then its values do not matter."""
        if parameter in self.sites.shards.parameters and parameter not in self._points:
            return torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
        return self._points.get(parameter, parameter.detach())

    @contextmanager
    def open(self) -> Generator[None]:
        """Track every trainable parameter, and the shapes that the modules around their uses are called with."""
        handles: list[Any] = []
        for module in self.sites.ancestors:
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        for parameter, name in self.sites.names.items():
            if parameter not in self.sites.shards.parameters:
                self._known[id(parameter)] = Tracked(parameter, (parameter,), name, self)
        try:
            with uncompiled(self.model), self._mode:
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._calls.clear()
            self._known.clear()
            self._whole.clear()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module in self.sites.shards.places:
            self._meet(self.sites.shards.places[module])
        # Most calls give their activation first; taking all arguments apart is as slow as a small layer.
        quick = bool(args) and isinstance(args[0], Tensor) and args[0].ndim > 0
        leaves = args[:1] if quick else pytree.tree_leaves((args, kwargs))
        first = next((a for a in leaves if isinstance(a, Tensor) and a.ndim), None)
        self._calls.append(None if first is None else first.shape)
        if first is not None and first.ndim > 1 and first.shape[0] == first.shape[1]:
            self.alike.add(tuple(first.shape[:2]))

    def _meet(self, places: Sequence[tuple[nn.Module, str, Tensor]]) -> None:
        """fully_shard has put whole parameters in the shards' places; its hook runs before ours."""
        for module, attribute, shard in places:
            whole = own_parameters(module)[attribute]
            if whole is not None and whole is not shard and id(whole) not in self._known:
                name = self.sites.names[shard]
                self._known[id(whole)] = Tracked(whole, (shard,), name, self)
                self._whole[shard] = whole
                self.sites.stand_ins[whole] = name

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._calls:
            self._calls.pop()

    def _use(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One function of a tracked tensor: by its rule, or by the functions that it is made of."""
        rule = Tracked.rules.get(function)
        if rule is not None:
            found = self._tracked
            return self._adopt(rule(self, tuple(map(found, args)), {k: found(v) for k, v in kwargs.items()}))
        if composite(function) is not None and not self.of_parameters_alone(args, kwargs):
            return self.enter(function, args, kwargs)
        out = function(*args, **kwargs)
        if not isinstance(out, Tensor | tuple | list | None):  # a shape, a dtype
            return out
        name = getattr(function, "__name__", "")
        written = out is None and name == "__setitem__"
        if written or any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(out)):
            leaves = pytree.tree_leaves((args, kwargs))
            in_place = written or any(out is leaf for leaf in leaves) or kwargs.get("out") is not None
            if not in_place and self.of_parameters_alone(args, kwargs) and can_be_derived(function, args, kwargs):
                tracked = pytree.tree_map(self._tracked, (args, kwargs))
                return self._adopt(derive(function, tracked[0], tracked[1], out=out))
            uses = sorted({self._known[id(leaf)].path for leaf in leaves if id(leaf) in self._known})
            raise NoRuleError(
                f"{', '.join(uses)}: used by {getattr(function, '__qualname__', function)}, which has no ghost rule. "
                f"Give it one with bilevel.register_rule(function, rule), or {ways_out(function, args, kwargs)}"
            )
        return out  # pyright: ignore[reportUnknownVariableType]

    def enter(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of torch that is written in Python, seeing the functions that it is made of."""
        inside = composite(function)
        assert inside is not None, "asked before"
        with self._mode:
            return inside(*args, **kwargs)

    def of_parameters_alone(self, args: Any, kwargs: Any = None, indices: bool = True) -> bool:
        """Whether every tensor among the arguments is tracked, a buffer of the model or one number.

        indices: or of integers or booleans, which may say where, or be activations.
        """
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and id(leaf) not in self._known:
                if leaf.requires_grad:
                    return False
                if leaf.ndim and id(leaf) not in self._buffers and not (indices and not leaf.is_floating_point()):
                    return False
        return True

    @contextmanager
    def second(self, num_rows: int | None) -> Generator[None]:
        """While open, rows stand in the second dimension, as inside multi-head attention."""
        before, self.second_rows = self.second_rows, num_rows
        try:
            yield
        finally:
            self.second_rows = before

    def _tracked(self, leaf: Any) -> Any:
        known = self._known.get(id(leaf))
        if known is None and type(leaf) in (list, tuple):
            return type(leaf)(map(self._tracked, leaf))
        return leaf if known is None else known

    def _adopt(self, out: Any) -> Any:
        """What a chain has made of a parameter is known from now on too; the entry keeps it alive, so its id stays."""
        if isinstance(out, Tracked):
            self._known[id(out.value)] = out
            return out.value
        if type(out) in (tuple, list):
            return type(out)(map(self._adopt, out))  # pyright: ignore
        return out

    @property
    def context(self) -> Around:
        """The shape of the first tensor that the innermost module was called with, and where its rows stand."""
        shape = next((shape for shape in reversed(self._calls) if shape is not None), None)
        return Around(shape, self.second_rows)

    def expected_rows(self) -> int:
        """The leading dimension around a use whose own leading dimension is 1 and broadcasts (position tables)."""
        return next((shape[0] for shape in reversed(self._calls) if shape is not None and shape[0] != 1), 1)

    def map(self, tracked: Tracked, shape: torch.Size, context: Around) -> RowMap:
        """The rows of an activation of shape `shape`, made with `tracked`."""
        if self.maps is None:
            raise NoRuleError("the backward pass ran outside lookahead.backward(losses, coefficients)")
        return self.maps.resolve(tracked.path, shape, context)

    def watch(self, output: Tensor, note: Callable[[Tensor], Entry | None]) -> None:
        """When the weighted backward pass reaches `output`, note(its gradient) becomes an entry."""
        if not output.requires_grad:
            return
        self.precision = lowest(self.precision, output.dtype)

        def write(gradient: Tensor) -> None:
            if self.recording:
                with torch.no_grad():
                    entry = note(gradient)
                if entry is not None:
                    self.entries.append(entry)

        hook(output, write)

    def roots(self, losses: Tensor) -> Sequence[Tensor]:
        """The losses."""
        return [losses]

    def autograd(self, losses: Tensor, weights: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Σ w ∇ℓ by ordinary autograd, keeping the graph."""
        return plain_autograd(losses, weights, parameters)

    def backward(self, losses: Tensor, coefficients: Tensor, scale: float) -> Tensor:
        """Add Σ c_i ∇ℓ_i to `.grad` and keep the notes. Returns the coefficients used, held away from zero."""
        if losses.ndim != 1:
            raise ValueError(
                f"product='ghost' takes one loss per example, (B,), not {tuple(losses.shape)}: what it keeps is "
                "already summed over the losses of an example; choose product='jvp' or 'unroll' for losses of any shape"
            )
        used = away_from_zero(coefficients)
        self._divide = used if scale == 1.0 else used * scale
        self.maps = RowMaps(self.rows, len(losses))
        self.recording = some = len(losses) > 0  # one of several processes may have no example: nothing to note
        total = (used * losses).sum()
        try:
            backward(total if scale == 1.0 else total * scale)
        finally:
            self.recording = False
        if some and not self.entries:
            raise RuntimeError(
                "no use of a trainable parameter was seen in lookahead.inner(): compute the losses inside the block; "
                "where they are (inside torch.func.vmap, or looked up by parameter[ids]), choose product='jvp' or "
                "'unroll'"
            )
        return used

    def products(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> list[Part]:
        """d_i of each use, (B,), the last one first; consumes the notes."""
        assert self._divide is not None, "backward has run"
        device = next(iter(cotangent.values())).device if cotangent else torch.device("cpu")
        dtype = torch.float64 if any(u.dtype == torch.float64 for u in cotangent.values()) else torch.float32

        parts: list[Part] = []
        with torch.no_grad():
            for entries, whole in self._by_unit(cotangent):
                known: dict[Tracked, tuple[Tensor, Tensor]] = {}

                def lookup(
                    tracked: Tracked, u: Mapping[Tensor, Tensor] = whole, known: dict[Tracked, Any] = known
                ) -> Tensor | None:
                    return tracked.tangent(u, known)

                while entries:
                    entry = entries.pop()  # the last layers' notes are freed first
                    values = entry.contribution(lookup)
                    if values is not None:
                        parts.append(Part(entry.parameters, values.to(device, dtype)))
        total = torch.zeros(len(self._divide), dtype=dtype, device=device)
        return Part.divided(parts, total, self._divide)

    def _by_unit(self, cotangent: Mapping[Tensor, Tensor]) -> Generator[tuple[list[Entry], Mapping[Tensor, Tensor]]]:
        """All entries with all of u; of a sharded model those of each unit with its u, gathered for as long as needed.

        Every process goes through all units in one order, whatever its batch has used, since gathering takes them all.
        """
        shards = self.sites.shards
        if not shards.any:
            yield self.entries, cotangent
            return
        unit_of = {p: number for number, unit in enumerate(shards.units) for p in unit}
        sorted_out: list[list[Entry]] = [[] for _ in shards.units]
        for entry in self.entries:
            numbers = {unit_of[p] for p in entry.parameters}
            if len(numbers) > 1:
                names = ", ".join(self.sites.names[p] for p in entry.parameters)
                raise NoRuleError(
                    f"{names}: used together, but of several units of fully_shard, whose u is never whole at one time; "
                    "call fully_shard on a module that holds them all"
                )
            sorted_out[numbers.pop()].append(entry)
        self.entries = []
        for number in reversed(range(len(shards.units))):
            yield sorted_out[number], shards.whole(shards.units[number], cotangent)
