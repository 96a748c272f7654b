"""The tape of one inner micro-batch: what each use of a parameter needs to answer <u, ∇ℓ_i> for every example i."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .row_maps import RowMap, RowMaps, longest_prefix
from .tracked import NoRuleError, Tracked
from .typed import hook, named_modules, own_parameters, plain_functions

__all__ = ["Entry", "Tape", "substitute", "trainable_sites"]

Lookup = Callable[[Tracked], Tensor | None]
"""u for a use of a parameter (through the use's chain), None where the parameter has no cotangent."""


@dataclass(frozen=True)
class Entry:
    """One use: the parameters it touches, and their contribution to d, (B,), given u."""

    parameters: tuple[Tensor, ...]
    contribution: Callable[[Lookup], Tensor | None]


@dataclass(frozen=True)
class Site:
    """One place where a parameter hangs; a tied parameter has several."""

    module: nn.Module
    attribute: str
    name: str
    parameter: Tensor


def trainable_sites(model: nn.Module, parameters: set[Tensor]) -> list[Site]:
    """Every module attribute that holds one of the parameters."""
    return [
        Site(module, attribute, f"{prefix}.{attribute}" if prefix else attribute, parameter)
        for prefix, module in named_modules(model)
        for attribute, parameter in own_parameters(module).items()
        if parameter is not None and parameter in parameters
    ]


@contextmanager
def substitute(sites: list[Site], values: Callable[[Site], Tensor]) -> Generator[None]:
    """Let each site's attribute give another tensor; the module's own table of parameters stays as it is."""
    # An entry of the instance's __dict__ is found before nn.Module.__getattr__ looks into _parameters.
    try:
        for site in sites:
            site.module.__dict__[site.attribute] = values(site)
        yield
    finally:
        for site in sites:
            site.module.__dict__.pop(site.attribute, None)


class Tape:
    """Notes of one micro-batch; `recording` while its weighted backward pass runs."""

    def __init__(self, model: nn.Module, sites: list[Site], rows: Mapping[str, Tensor] | None) -> None:
        self.model, self.sites = model, sites
        self.rows = rows
        self.maps: RowMaps | None = None
        self.recording = False
        self.entries: list[Entry] = []
        self.stand_ins: list[Tracked] = []
        self.uses: list[Tensor] = []  # parameters used outside any rows, in order of use
        self._calls: list[torch.Size | None] = []

    def find(self, name: str) -> Tensor | None:
        """The user's map for a parameter, before the number of examples is known."""
        return longest_prefix(self.rows or {}, name)

    @contextmanager
    def open(self) -> Generator[None]:
        """Track every trainable parameter, and the shapes that the modules around their uses are called with."""
        handles: list[Any] = []
        for module in self._ancestors():
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with substitute(self.sites, lambda site: Tracked.wrap(site.parameter, site.parameter, site.name, self)):
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._calls.clear()

    def _ancestors(self) -> list[nn.Module]:
        """Modules that hold a tracked parameter themselves or directly above one that does."""
        holders = {site.module for site in self.sites}
        return [m for m in self.model.modules() if m in holders or any(child in holders for child in m.children())]

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Most calls give their activation first; taking all arguments apart is as slow as a small layer.
        quick = bool(args) and isinstance(args[0], Tensor) and args[0].ndim > 0
        leaves = args[:1] if quick else pytree.tree_leaves((args, kwargs))
        first = next((a for a in leaves if isinstance(a, Tensor) and a.ndim), None)
        self._calls.append(None if first is None else first.shape)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._calls:
            self._calls.pop()

    @property
    def context(self) -> torch.Size | None:
        """The shape of the first tensor that the innermost module was called with."""
        return next((shape for shape in reversed(self._calls) if shape is not None), None)

    def expected_rows(self) -> int:
        """The leading dimension around a use whose own leading dimension is 1 and broadcasts (position tables)."""
        return next((shape[0] for shape in reversed(self._calls) if shape is not None and shape[0] != 1), 1)

    def map(self, tracked: Tracked, shape: torch.Size, context: torch.Size | None) -> RowMap:
        """The rows of an activation of shape `shape`, made with `tracked`."""
        if self.maps is None:
            raise NoRuleError("the backward pass ran outside lookahead.backward(losses, coefficients)")
        return self.maps.resolve(tracked.path, shape, context)

    def watch(self, output: Tensor, note: Callable[[Tensor], Entry | None]) -> None:
        """When the weighted backward pass reaches `output`, note(its gradient) becomes an entry."""
        if not output.requires_grad:
            return

        def write(gradient: Tensor) -> None:
            if self.recording:
                with torch.no_grad():
                    entry = note(gradient)
                if entry is not None:
                    self.entries.append(entry)

        hook(output, write)

    def verify_covered(self) -> None:
        """Raise where a gradient reached a stand-in, that is, a use went past every rule."""
        with plain_functions():  # the stand-in's own .grad, not its parameter's
            missed = sorted({t.path for t in self.stand_ins if t.grad is not None})
        self.stand_ins.clear()
        if missed:
            raise NoRuleError(
                f"{', '.join(missed)}: used by compiled or custom code that no ghost rule sees; choose product='jvp'"
            )

    def products(self, cotangent: Mapping[Tensor, Tensor], keep: bool = False) -> Tensor:
        """c_i <u, ∇ℓ_i> for every example, (B,); consumes the entries unless `keep`."""
        if self.maps is None:
            raise NoRuleError("the tape holds no backward pass; call lookahead.backward inside lookahead.inner()")
        device = next(iter(cotangent.values())).device if cotangent else torch.device("cpu")
        dtype = torch.float64 if any(u.dtype == torch.float64 for u in cotangent.values()) else torch.float32
        total = torch.zeros(self.maps.num_examples, dtype=dtype, device=device)

        def lookup(tracked: Tracked) -> Tensor | None:
            vector = cotangent.get(tracked.parameter)
            return None if vector is None else tracked.tangent(vector)

        entries = self.entries if keep else None
        with torch.no_grad():
            while entries is None and self.entries:
                entry = self.entries.pop()  # the last layers' notes are freed first
                part = entry.contribution(lookup)
                if part is not None:
                    total += part.to(device, dtype)
            for entry in entries or ():
                if any(parameter in cotangent for parameter in entry.parameters):
                    part = entry.contribution(lookup)
                    if part is not None:
                        total += part.to(device, dtype)
        return total
