"""The comparison with plain autograd on the real batch: does each example get what is its own?

<u, Σ_k r_k ∇ℓ_k> = Σ_k r_k d_k for any numbers r. One ordinary backward pass of Σ r_k ℓ_k gives the left side, on the
very graph of the update (same dropout masks, same casts, same kernels), with no rule, no replay and no formula in it. r
differs from example to example, so an error that moves d between examples, which keeps the sum, is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._shards import local
from ..spans import span
from .recorder import Part, Sites
from .sum_rule import SUM_TOLERANCE, groups_of, lost_below, sums_of
from .typed import backward, norm

__all__ = ["CHECK_TOLERANCE", "Agreement", "HypergradientCheckError", "Reference", "Schedule"]

# Relative errors of sums that partly cancel: a hundred times what single products lose (SUM_TOLERANCE), less in 16
# bits.
CHECK_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 5e-2}


class HypergradientCheckError(RuntimeError):
    """The hypergradient breaks the sum rule or disagrees with plain autograd: it cannot be trusted."""


class Schedule:
    """When the comparison is due: at updates 1, 2, 4, 8, … and whenever something has changed.

    num_updates: recorded updates so far; a resumed run sets it and goes on with the same schedule.
    """

    def __init__(self) -> None:
        self.num_updates = 0
        self.quiet = False  # a resumed run looks at once, and reports what one that was never stopped does
        self._state: object = None
        self._seen: set[Tensor] = set()
        self._asked = False
        self._alike: set[tuple[int, ...]] = set()

    def new_shapes(self, alike: Set[tuple[int, ...]]) -> bool:
        """Whether rows could be taken for positions in a shape that was not compared before."""
        new = alike - self._alike
        self._alike |= new
        return bool(new)

    def due(self, modules: Sequence[nn.Module], parameters: Sequence[Tensor], losses: Tensor) -> bool:
        """Whether the update that begins now is to be compared."""
        state = (tuple(m.training for m in modules), tuple(map(id, parameters)), losses.ndim, losses.dtype)
        changed = state != self._state and self._state is not None
        number, first = self.num_updates + 1, self._state is None
        asked, self._asked, self._state = self._asked, False, state
        due = number & (number - 1) == 0 or changed or asked
        self.quiet = first and not due
        return due or first

    def again(self) -> None:
        """The comparison could not be made (its reference was zero): make it at the next update."""
        self._asked = True

    def note(self, used: Sequence[Tensor]) -> None:
        """A parameter that is used for the first time makes the next update due."""
        new = set(used) - self._seen
        self._asked = self._asked or (bool(new) and bool(self._seen))
        self._seen |= new


@dataclass(frozen=True)
class Agreement:
    """error: relative, NaN where the reference is zero; worst: (relative error, parameters), only what stands out."""

    error: float
    bad: bool
    worst: tuple[tuple[float, tuple[Tensor, ...]], ...]


@dataclass(frozen=True)
class Reference:
    """r, and Σ_k r_k ∇ℓ_k by parameter."""

    numbers: Tensor
    gradients: Mapping[Tensor, Tensor]
    sites: Sites

    @staticmethod
    @span("check")
    def take(
        losses: Tensor,
        sites: Sites,
        autograd: Callable[[Tensor, Tensor, Sequence[Tensor]], Sequence[Tensor | None]],
    ) -> Reference:
        """One backward pass, keeping the graph; autograd(losses, r, parameters) makes it.

        Under fully_shard it is one of all processes, which leaves each one's shards of the mean over them.
        """
        # Multiples of the golden ratio's fraction: no two alike, both signs, and no random number drawn.
        sharded = sites.shards.any
        first = 1 + (sites.processes.rank * losses.numel() if sharded else 0)
        places = torch.arange(first, first + losses.numel(), dtype=torch.float64, device=losses.device)
        numbers = (2.0 * (places * 0.6180339887498949 % 1.0) - 1.0).to(losses.dtype).reshape(losses.shape)
        if sharded:
            return Reference(numbers, _of_shards((numbers * losses).sum(), sites), sites)
        grads = autograd(losses, numbers, sites.parameters)
        found = {p: g.detach() for p, g in zip(sites.parameters, grads, strict=True) if g is not None}
        return Reference(numbers, found, sites)

    @span("check")
    def compare(
        self, parts: Sequence[Part], cotangent: Mapping[Tensor, Tensor], precision: torch.dtype, least: float = 1.0
    ) -> Agreement:
        """Parameter by parameter where the parts allow it: a longer vector to compare, and the culprit's name.

        least: the smallest |c|, by which the parts were divided.
        """
        if self.sites.shards.any:
            return self._compare_shards(sums_of(parts[:1], self.numbers)[1].sum, cotangent, precision)
        theirs = {p: _dot(cotangent[p], g) for p, g in self.gradients.items() if p in cotangent}
        sizes = {p: float(norm(cotangent[p].double()) * norm(self.gradients[p].double())) for p in theirs}
        shares, total = sums_of(parts, self.numbers)
        rows = [
            (share.sum, sum(theirs.get(p, 0.0) for p in share.parameters), share.parameters)
            for share in groups_of(shares, total, list(cotangent))
        ]
        size = sum(value**2 for _, value, _ in rows) ** 0.5
        differences = sorted(((abs(a - b), group) for a, b, group in rows), key=lambda row: row[0], reverse=True)
        error = sum(d**2 for d, _ in differences) ** 0.5
        if size == 0.0 and error == 0.0:
            return Agreement(float("nan"), False, ())
        whole = sum(sizes.values())
        relative = error / size if size > 0 else float("inf")
        # Both: relative to the products, which may cancel, and to the norms, which do not.
        within = SUM_TOLERANCE[precision] * whole + sum(lost_below(cotangent, precision, least or 1.0).values())
        bad = not relative <= CHECK_TOLERANCE[precision] and not error <= within
        return Agreement(
            relative, bad, tuple((d / size, group) for d, group in differences[:3] if size and d > 0.1 * error)
        )

    def _compare_shards(self, own: float, cotangent: Mapping[Tensor, Tensor], precision: torch.dtype) -> Agreement:
        """All parameters together, over all processes and shards."""
        shards, processes = self.sites.shards, self.sites.processes
        ours = processes.sums([own])[0] / processes.size
        u = {p: cotangent[p] for p in self.gradients if p in cotangent}
        theirs = shards.sum({p: _dot(each, self.gradients[p]) for p, each in u.items()})
        whole = shards.norm(u) * shards.norm({p: self.gradients[p] for p in u})
        error = abs(ours - theirs)
        if theirs == 0.0 and error == 0.0:
            return Agreement(float("nan"), False, ())
        relative = error / abs(theirs) if theirs else float("inf")
        bad = not relative <= CHECK_TOLERANCE[precision] and not error <= SUM_TOLERANCE[precision] * whole
        return Agreement(relative, bad, ())


def _of_shards(total: Tensor, sites: Sites) -> dict[Tensor, Tensor]:
    """This process's shards of the gradient, by a backward pass that keeps the graph and leaves `.grad` as it was."""
    kept = [(p, p.grad) for p in (*sites.parameters, *sites.others)]
    try:
        for p, _ in kept:
            p.grad = None
        backward(total, retain_graph=True)
        return {p: local(p.grad) for p in sites.parameters if p.grad is not None}
    finally:
        for p, gradient in kept:
            p.grad = gradient


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.reshape(-1).double(), b.reshape(-1).double()))
