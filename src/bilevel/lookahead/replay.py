"""Products that run the model again: `jvp` (forward mode, exact), `fd` (central difference), `darts` (as published).

The losses are functions of the model's outputs o, and the weighted backward pass has already left
δ = Σ_i c_i ∂ℓ_i/∂o on them. So <u, c_i ∇ℓ_i(θ)> = <δ_i, J_i u> with J = ∂o/∂θ: only J u is missing, and it comes
from the recorded calls of the model alone. The user's loss code never runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from .row_maps import RowMaps, RowsError
from .tape import Site, substitute
from .typed import attention, fork_random, hook, make_dual, norm, tangent

__all__ = ["Call", "Replay", "ZeroTangentError", "output_leaves"]


class ZeroTangentError(RuntimeError):
    """Forward mode gave no tangent, or zeros only, where u is not zero."""


def output_leaves(value: Any) -> list[Tensor]:
    """The floating-point tensors of a model's output, whatever holds them, in a fixed order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


@dataclass
class Call:
    """One call of the model: its arguments, what was random and how it was cast, and δ on each of its outputs."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random: tuple[Tensor, list[Tensor]]
    autocast: tuple[str, bool, torch.dtype]
    num_outputs: int = 0
    deltas: dict[int, Tensor] = field(default_factory=dict[int, Tensor])


def _random_state(device: torch.device) -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []


class Replay:
    """The calls of one micro-batch, to be run again in direction u."""

    def __init__(
        self, model: nn.Module, sites: list[Site], rows: Mapping[str, Tensor] | None, forward_mode: bool = False
    ) -> None:
        self.model, self.sites, self.rows, self._forward_mode = model, sites, rows, forward_mode
        self.maps: RowMaps | None = None
        self.recording = False
        self.calls: list[Call] = []
        self._device = next(model.parameters()).device

    @contextmanager
    def open(self) -> Generator[None]:
        """Record every call of the model while open."""
        before = self.model.register_forward_pre_hook(self._before, with_kwargs=True)
        after = self.model.register_forward_hook(self._after)
        try:
            # Dropout inside a fused kernel of the GPU draws another mask than the math kernel of the replay does; on
            # the CPU, attention with dropout always goes to the latter.
            with attention(self._forward_mode and self._device.type != "cpu"):
                yield
        finally:
            before.remove()
            after.remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kind = self._device.type
        cast = (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        self.calls.append(Call(args, kwargs, _random_state(self._device), cast))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        call = self.calls[-1]

        def alias(leaf: Any) -> Any:
            if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
                return leaf
            place, call.num_outputs = call.num_outputs, call.num_outputs + 1
            if not leaf.requires_grad:
                return leaf
            # One output may lie upstream of another (image features, of the logits). The alias sees only what the
            # losses ask of this output themselves.
            leaf = leaf.view_as(leaf)
            hook(leaf, self._keep(call, place))
            return leaf

        return pytree.tree_map(alias, output)

    def _keep(self, call: Call, place: int) -> Callable[[Tensor], None]:
        def keep(gradient: Tensor) -> None:
            if self.recording:
                call.deltas[place] = gradient

        return keep

    def verify_covered(self) -> None:
        """Raise where no call of the model was recorded."""
        if not any(call.deltas for call in self.calls):
            raise RuntimeError(
                "no call of the model was recorded in lookahead.inner(): compute the losses inside the block, by "
                "calling the very module that was given to Lookahead"
            )

    def _run(self, call: Call, values: Callable[[Site], Tensor], same_random: bool) -> list[Tensor]:
        kind, enabled, dtype = call.autocast
        devices = [self._device] if kind == "cuda" else []
        with (
            fork_random(devices, same_random),
            substitute(self.sites, values),
            torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False),
            attention(self._forward_mode),
            torch.no_grad(),
        ):
            if same_random:
                torch.set_rng_state(call.random[0])
                for state in call.random[1]:
                    torch.cuda.set_rng_state(state, self._device)
            return output_leaves(self.model(*call.args, **call.kwargs))

    def _reduce(self, call: Call, changes: list[Tensor | None]) -> Tensor:
        if self.maps is None:
            raise RuntimeError("call lookahead.backward(losses, coefficients) inside lookahead.inner()")
        total = torch.zeros(self.maps.num_examples, device=self._device, dtype=torch.float32)
        for place, delta in call.deltas.items():
            change = changes[place]
            if change is None:
                continue
            try:
                rows = self.maps.resolve("output", delta.shape)
            except RowsError as error:
                raise RowsError(f"the model's output {place}: {error}") from None
            part = rows.reduce(delta * change)
            total = total.to(torch.promote_types(total.dtype, part.dtype)) + part
        return total

    def jvp(self, parameters: Mapping[Tensor, Tensor], cotangent: Mapping[Tensor, Tensor]) -> Tensor:
        """c_i <u, ∇ℓ_i(θ)>, (B,), by one forward-mode pass per call at θ = `parameters`."""
        totals: list[Tensor] = []
        alive = any(bool(u.any()) for u in cotangent.values())
        with forward_ad.dual_level():
            duals = {
                (site.module, site.attribute): make_dual(parameters[site.parameter], u)
                for site in self.sites
                if (u := _direction(site, cotangent, parameters[site.parameter].dtype)) is not None
            }
            for call in self.calls:
                outputs = self._run(
                    call,
                    lambda site: duals.get((site.module, site.attribute), parameters[site.parameter]),
                    same_random=True,
                )
                tangents = [tangent(output) for output in outputs]
                asked = [tangents[place] for place in call.deltas]
                moved = [change is not None and bool(change.any()) for change in asked]
                if any(change is None for change in asked) or (alive and not any(moved)):
                    raise ZeroTangentError(
                        "forward mode gave no tangent for the model's output: a layer drops it (a frozen 4-bit layer, "
                        "a custom autograd function, reentrant checkpointing, compiled code); choose product='ghost'"
                    )
                totals.append(self._reduce(call, tangents))
        return _sum(totals)

    def difference(
        self,
        parameters: Mapping[Tensor, Tensor],
        cotangent: Mapping[Tensor, Tensor],
        epsilon: float,
        *,
        same_random: bool = True,
    ) -> Tensor:
        """The same by (o(θ + εu) - o(θ - εu)) / 2ε with ε = epsilon / ‖u‖, rounded to the parameters' dtype."""
        size = norm(torch.stack([norm(u.float()) for u in cotangent.values()]))
        step = torch.where(size > 0, epsilon / size, 0.0)
        totals: list[Tensor] = []
        for call in self.calls:
            ends: list[list[Tensor]] = []
            for sign in (1.0, -1.0):

                def moved(site: Site, shift: Tensor = sign * step) -> Tensor:
                    value = parameters[site.parameter]
                    u = _direction(site, cotangent, None)
                    return value if u is None else value + (shift * u).to(value.dtype)

                ends.append(self._run(call, moved, same_random))
            scale = torch.where(step > 0, 0.5 / step, 0.0)
            changes: list[Tensor | None] = []
            for high, low in zip(*ends, strict=True):
                wide = torch.promote_types(high.dtype, torch.float32)
                changes.append((high.to(wide) - low.to(wide)) * scale.to(wide))
            totals.append(self._reduce(call, changes))
        return _sum(totals)


def _direction(site: Site, cotangent: Mapping[Tensor, Tensor], dtype: torch.dtype | None) -> Tensor | None:
    """u for one use of a parameter. An embedding's backward pass leaves its padding row out; forward mode does not."""
    u = cotangent.get(site.parameter)
    if u is None:
        return None
    padding = getattr(site.module, "padding_idx", None) if isinstance(site.module, nn.Embedding) else None
    if padding is not None:
        u = u.clone()
        u[padding] = 0
    return u if dtype is None else u.to(dtype)


def _sum(totals: list[Tensor]) -> Tensor:
    result = totals[0]
    for total in totals[1:]:
        result = result + total
    return result
