"""The sum rule: Σ_k c_k d_k = <u, g>, at every update, for every product.

g is what the recorded backward passes have put into `.grad` (before clipping; g̃ = a g), so the rule holds for any u,
and fails for every use of a parameter that a product did not see, or saw at the wrong point. One dot product per
parameter; parameter by parameter where the product tells its contributions apart. What it cannot see: errors that
move d between examples, and errors in u itself; for these see check.py and step_probe.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._shards import local
from .processes import Processes
from .recorder import Part
from .taken_step import TakenStep, wide
from .typed import norm

__all__ = ["SUM_TOLERANCE", "Residual", "groups_of", "sum_rule", "sums_of"]

SUM_TOLERANCE = {
    torch.float64: 1e-9,  # sums of up to 1e6 terms of relative rounding 1e-16 each, and a margin
    torch.float32: 1e-4,  # measured 9e-7 between products on models of 11 M parameters; a margin of a hundred
    torch.bfloat16: 1e-2,  # measured .75 %: δ, U x and .grad are each rounded to 8 bits
    torch.float16: 1e-2,
}
# Parameters whose gradient is rounding noise (a key's bias under softmax) are held to this share of the whole.
SHARE = 0.01


@dataclass(frozen=True)
class Residual:
    """The largest relative residual, and the parameters whose residual is too large, the worst first."""

    largest: float
    failing: tuple[Tensor, ...]


def sum_rule(
    sums: Sequence[tuple[tuple[Tensor, ...], float]],
    total: float,
    cotangent: Mapping[Tensor, Tensor],
    step: TakenStep,
    unweighted: Mapping[Tensor, Tensor],
    precision: torch.dtype,
    processes: Processes,
) -> Residual:
    """|Σ c d - <u, g>| / (|u| |g|) by groups of parameters; sums: (parameters, Σ c d of them); total: Σ c d of all."""
    tolerance = SUM_TOLERANCE[precision]
    right = {p: _dot(u, step.gradient(p)) / step.factor for p, u in cotangent.items() if p in step.gradients}
    for p, gradient in unweighted.items():
        if p in right:
            right[p] -= _dot(cotangent[p], local(gradient))
    if processes.size > 1:  # every process has its examples; .grad is their mean
        return _over_processes(total, right, cotangent, step, tolerance, processes)
    groups = groups_of(sums, total, list(right))
    differences = [(abs(left - sum(right[p] for p in group)), group) for group, left in groups]
    # |<u, g>| is at most |u| |g|: the norms, two more passes over the memory, are taken only where that does not do.
    quick = max((sum(abs(right[p]) for p in group) for _, group in differences), default=0.0)
    ratio = max(
        (d / (sum(abs(right[p]) for p in group) + SHARE * quick + 1e-300) for d, group in differences), default=0.0
    )
    if ratio <= tolerance:
        return Residual(ratio, ())
    sizes = {p: float(norm(cotangent[p], wide(cotangent[p]))) * _size(step, p) for p in right}
    whole = sum(sizes.values())
    relative = [(d / (sum(sizes[p] for p in group) + SHARE * whole + 1e-300), group) for d, group in differences]
    worst = sorted((r for r in relative if not r[0] <= tolerance), key=lambda r: r[0], reverse=True)
    return Residual(max((r for r, _ in relative), default=0.0), tuple(p for _, group in worst for p in group))


def groups_of(
    sums: Sequence[tuple[tuple[Tensor, ...], float]], total: float, parameters: Sequence[Tensor]
) -> list[tuple[list[Tensor], float]]:
    """Parameters that share a contribution are judged together."""
    if not sums:
        return [(list(parameters), total)]
    leader: dict[Tensor, Tensor] = {}

    def root(p: Tensor) -> Tensor:
        while leader.setdefault(p, p) is not p:
            p = leader[p]
        return p

    for group, _ in sums:
        for p in group[1:]:
            leader[root(p)] = root(group[0])
    left: dict[Tensor, float] = {}
    for group, value in sums:
        left[root(group[0])] = left.get(root(group[0]), 0.0) + value
    members: dict[Tensor, list[Tensor]] = {}
    for p in parameters:
        members.setdefault(root(p), []).append(p)
    return [(members.get(p, []), value) for p, value in left.items()] + [
        (group, 0.0) for p, group in members.items() if p not in left
    ]


def _dot(u: Tensor, g: Tensor) -> float:
    dtype = wide(u, g)
    return float(torch.dot(u.reshape(-1).to(dtype), g.reshape(-1).to(dtype)))


def _size(step: TakenStep, parameter: Tensor) -> float:
    g = step.gradient(parameter)
    return float(norm(g, wide(g))) / step.factor


def _over_processes(
    total: float,
    right: Mapping[Tensor, float],
    cotangent: Mapping[Tensor, Tensor],
    step: TakenStep,
    tolerance: float,
    processes: Processes,
) -> Residual:
    """All parameters together: Σ c d is the mean of the processes' own, <u, g> goes over all shards."""
    left = processes.sums([total])[0] / processes.size
    difference = abs(left - step.shards.sum(right))
    grads = {p: step.gradient(p) for p in right}
    size = step.shards.norm({p: cotangent[p] for p in right}) * step.shards.norm(grads) / step.factor
    relative = difference / (size + 1e-300)
    return Residual(relative, () if relative <= tolerance else tuple(right))


def sums_of(parts: Sequence[Part], coefficients: Tensor) -> tuple[list[tuple[tuple[Tensor, ...], float]], float]:
    """Σ c d of each part that names its parameters, and of all together; parts[0] is all."""
    c = coefficients.double()
    stacked: Any = (torch.stack([part.values for part in parts]).double() * c).flatten(1).sum(1)
    rows: list[float] = stacked.tolist()
    return [(part.parameters, value) for part, value in zip(parts[1:], rows[1:], strict=True)], rows[0]
