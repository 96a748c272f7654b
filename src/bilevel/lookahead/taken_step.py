"""The step that the optimizer has taken, and the map v -> u = Cᵀ D v through it.

θ' = T(θ, clip(g); state),  D = -∂T/∂g̃,  C = ∂clip/∂g. Everything that u needs is held here at the time of the step, so
that schedulers, `zero_grad` and new groups may do as they like afterwards; what cannot be held is watched, and a change
is an error that names it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from .._shards import local
from .constraint import Constraint
from .shards import Shards
from .together import Groups, Together
from .typed import floats

__all__ = ["Clipping", "TakenStep", "fingerprint", "named", "refuse_moved", "wide"]


@dataclass(frozen=True)
class Clipping:
    """How `step` clips: by the global norm, by value, or not at all."""

    norm: float | None = None
    value: float | None = None

    def clip(self, parameters: Sequence[Tensor], shards: Shards) -> Tensor | None:
        """Clip `.grad` in place, by the norm over all shards; the norm before, where it was taken."""
        if shards.any:
            return self._clip_shards({p: local(p.grad) for p in parameters if p.grad is not None}, shards)
        if self.norm is not None:
            return torch.nn.utils.clip_grad_norm_(parameters, self.norm)
        if self.value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.value)
        return None

    def _clip_shards(self, grads: Mapping[Tensor, Tensor], shards: Shards) -> Tensor | None:
        if self.value is not None:
            for g in grads.values():
                g.clamp_(-self.value, self.value)
        if self.norm is None:
            return None
        size = shards.norm(grads)
        if size + 1e-6 > self.norm:
            for g in grads.values():
                g.mul_(self.norm / (size + 1e-6))
        return torch.tensor(size, dtype=torch.float64)


def fingerprint(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's memory is and how often torch has written to it."""
    own = local(tensor)
    return own.data_ptr(), own._version


def named(parameters: Sequence[Tensor], names: Mapping[Tensor, str], limit: int = 5) -> str:
    """The names of the first few parameters."""
    known = [names.get(p, f"a parameter of shape {tuple(p.shape)}") for p in parameters]
    return ", ".join(known[:limit]) + (" …" if len(known) > limit else "")


def refuse_moved(others: Mapping[Tensor, str], written: Mapping[Tensor, tuple[int, int]]) -> None:
    """Raise where another optimizer has moved a parameter whose gradient depends on the weights too."""
    moved = [p for p in others if fingerprint(p) != written[p]]
    if moved:
        raise RuntimeError(
            f"{named(moved, others)}: moved by something other than this optimizer before backward_outer, though its "
            "gradient depends on the weights too; give all parameters that the inner losses train to one optimizer "
            "(groups may differ in their settings), or let the other one step after backward_outer"
        )


@dataclass(frozen=True, eq=False)
class TakenStep:
    """One step of a live optimizer, as it was. Made by `take`, used for one hypergradient.

    parameters: those that the optimizer moved, in its order. gradients: g̃ of each, and its version after the step.
    factor: a where g̃ = a g, 1 where nothing was clipped by norm. before: copies of θ, where it cannot be computed back.
    """

    optimizers: Together
    clipping: Clipping
    adam: str
    names: Mapping[Tensor, str]
    settings: Groups
    first: Mapping[Tensor, bool]
    norm: Tensor | None
    skipped: bool
    gradients: Mapping[Tensor, tuple[Tensor, int]]
    before: Mapping[Tensor, Tensor]
    others: Mapping[Tensor, str]
    written: Mapping[Tensor, tuple[int, int]]
    mark: int
    scale: float
    shards: Shards
    constraint: Constraint | None
    lengths: Tensor | None
    cache: dict[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    def take(
        optimizers: Together,
        scaler: Any,
        clipping: Clipping,
        adam: str,
        names: Mapping[Tensor, str],
        others: Mapping[Tensor, str],
        keep: bool,
        shards: Shards,
        probe: Any = None,
        constraint: Constraint | None = None,
    ) -> TakenStep:
        """Unscale, clip, step, project. Raises RuntimeError where something interferes.

        others: parameters of the model that got a gradient and are not this optimizer's; keep: whether θ itself will be
        needed.
        """
        scale = float(scaler.get_scale()) if scaler else 1.0
        if scaler:
            for live in optimizers.lives:
                scaler.unscale_(live)
        parameters = [p for group in optimizers.param_groups for p in group["params"] if p.grad is not None]
        sparse = [p for p in parameters if p.grad is not None and p.grad.is_sparse]
        if sparse:
            raise RuntimeError(
                f"{named(sparse, names)}: sparse gradients have no rule; make the layer with sparse=False"
            )
        size = clipping.clip(parameters, shards)
        before = {p: p.detach().clone() for p in parameters if keep and (constraint or not optimizers.undoable(p))}
        settings = optimizers.groups()
        first = {p: optimizers.state(p).get("momentum_buffer") is None for p in parameters}
        grads = [(p, p.grad, local(p.grad)._version) for p in parameters if p.grad is not None]
        if probe is not None:
            probe.look(optimizers, parameters)
        skipped = optimizers.step(scaler)
        changed = [p for p, g, version in grads if p.grad is not g or local(g)._version != version]
        if changed:
            raise RuntimeError(
                f"{named(changed, names)}: .grad was changed while the optimizer stepped (a step_pre_hook?), which the "
                "hypergradient would not know of; clip by Lookahead(clip_norm=…) or clip_value, and remove the hook"
            )
        if constraint is not None:
            constraint.apply()
        return TakenStep(
            optimizers, clipping, adam, names, settings, first, size, skipped,
            {p: (g, version) for p, g, version in grads}, before,
            others, {p: fingerprint(p) for p in (*names, *others)}, sequence_number(), scale, shards,
            constraint, lengths([*names, *others]),
        )  # fmt: skip

    @property
    def groups(self) -> list[Mapping[str, Any]]:
        """The settings of every group at the time of the step, in the order of the optimizers' groups then."""
        return [group for own in self.settings for group in own]

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that the step moved."""
        return list(self.gradients)

    @property
    def factor(self) -> float:
        """a = clip_norm / (‖g‖ + 1e-6) where that is below 1."""
        if self.clipping.norm is None or self.size is None:
            return 1.0
        return min(1.0, self.clipping.norm / (self.size + 1e-6))

    @property
    def size(self) -> float | None:
        """‖g‖ before it was clipped by norm; on a GPU it is waited for once."""
        if self.norm is not None and "size" not in self.cache:
            self.cache["size"] = float(self.norm)
        return self.cache.get("size")

    def stepped(self, parameter: Tensor) -> Tensor:
        """Where the optimizer alone has put the parameter, before any projection."""
        return parameter if self.constraint is None else self.constraint.before.get(parameter, parameter)

    def through_projection(self, vector: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """Pᵀ v, P the derivative of the projection; v itself where there is none."""
        return vector if self.constraint is None else self.constraint.pull(vector)

    def verify_untouched(self) -> None:
        """Raise where .grad or the parameters were written to since the step."""
        written = [p for p, (g, version) in self.gradients.items() if local(g)._version != version]
        if written:
            raise RuntimeError(
                f"{named(written, self.names)}: .grad was written to between lookahead.step() and backward_outer, "
                "which reads it; call zero_grad(set_to_none=False) and other backward passes after backward_outer "
                "(optimizer.zero_grad() with set_to_none=True does no harm)"
            )
        refuse_moved(self.others, self.written)
        now = list(self.written)
        moved = [p for p, kept in self.written.items() if fingerprint(p) != kept]
        if not moved and self.lengths is not None:  # by .data or numpy, which torch does not count
            found = lengths(now)
            assert found is not None, "there were some"
            if not bool(torch.isclose(found, self.lengths, rtol=0.0, atol=0.0, equal_nan=True).all()):
                moved = [p for p, one, two in zip(now, found, self.lengths, strict=True) if float(one) != float(two)]
        if moved:
            raise RuntimeError(
                f"{named(moved, self.names)}: changed between lookahead.step() and backward_outer (another optimizer, "
                "a constraint, weights renormed in forward), which the hypergradient would not know of; change "
                "parameters after backward_outer only"
            )

    @contextmanager
    def gradients_in_place(self) -> Generator[None]:
        """`.grad` as the step saw it, whatever zero_grad has made of it since."""
        now = [(p, p.grad) for p in self.gradients]
        try:
            for p, (g, _) in self.gradients.items():
                p.grad = g
            yield
        finally:
            for p, g in now:
                p.grad = g

    def through_step(self, vector: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """x = D v, written into v. A parameter that the step did not move is left out."""
        moved = {p: v for p, v in vector.items() if p in self.gradients}
        with self.gradients_in_place():
            return self.optimizers.step_vjp(moved, self.settings, self.first, self.adam)

    def against_gradient(self, x: Mapping[Tensor, Tensor]) -> float:
        """<x, g̃> over all parameters, in float64."""
        return self._inner(x, {p: self.gradient(p) for p in x}, torch.float64)

    def _inner(
        self, x: Mapping[Tensor, Tensor], grads: Mapping[Tensor, Tensor], dtype: torch.dtype | None = None
    ) -> float:
        """Σ <x, g> over all parameters and shards."""
        dots: list[Tensor] = []
        for p, u in x.items():
            kind = dtype or wide(u, grads[p])
            dots.append(torch.dot(u.flatten().to(kind), grads[p].flatten().to(kind)))
        return self.shards.sum(dict(zip(x, floats(dots), strict=True)))

    def gradient(self, parameter: Tensor) -> Tensor:
        """g̃ of a parameter; of a sharded one, this process's part."""
        return local(self.gradients[parameter][0])

    def through_clip(self, x: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """u = Cᵀ x, written into x; by norm also for parameters that x lacks: the term in g is there wherever g is."""
        grads = {p: local(g) for p, (g, _) in self.gradients.items()}
        if self.clipping.value is not None:
            for p, u in x.items():
                u.mul_(grads[p].abs() < self.clipping.value)
        elif self.clipping.norm is not None and self.size is not None and self.size + 1e-6 > self.clipping.norm:
            # Cᵀx = a x - a <x, g> g / (n (n + 1e-6)), written with g̃ = a g, which is what .grad holds now.
            n, a = self.size, self.clipping.norm / (self.size + 1e-6)
            alpha = -self._inner(x, grads) / (a * n * (n + 1e-6))
            for p, u in x.items():
                u.mul_(a).add_(grads[p].to(u.dtype), alpha=alpha)
            for p, g in grads.items():
                if p not in x and alpha != 0.0:
                    x[p] = g.to(wide(g)) * alpha
        return x

    def theta(self) -> dict[Tensor, Tensor]:
        """θ, before the step, of every named parameter."""
        if "theta" not in self.cache:
            undone = [p for p in self.gradients if p not in self.before]
            theta = {p: p.detach() for p in self.names}
            theta |= self.before
            with self.gradients_in_place():
                theta |= self.optimizers.undo(undone, self.settings)
            self.cache["theta"] = theta
        return self.cache["theta"]


def lengths(parameters: Sequence[Tensor]) -> Tensor | None:
    """‖θ‖ of each, on one device: one read of the memory, no wait. None where there are none."""
    own = [local(p).detach() for p in parameters]
    if not own:
        return None
    each: Any = cast(Any, torch)._foreach_norm(own)
    return torch.stack([size.to(own[0].device, torch.float64) for size in each])


def wide(*tensors: Tensor) -> torch.dtype:
    """The dtype for a sum over all entries."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def sequence_number() -> int:
    """How many functions autograd has recorded so far: what is recorded later has a larger number."""
    with torch.enable_grad():
        made: Any = torch.zeros((), requires_grad=True) * 1.0
    return made.grad_fn._sequence_nr()
