"""The sum rule: Σ_k c_k d_k = <u, g>, at every update, for every product.

g is what the recorded backward passes have put into `.grad` (before clipping; g̃ = a g), so the rule holds for any u,
and fails for every use of a parameter that a product did not see, or saw at the wrong point. One dot product per
parameter; parameter by parameter where the product tells its contributions apart. What it cannot see: errors that
move d between examples, and errors in u itself; for these see check.py and step_probe.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._shards import local
from .processes import Processes
from .recorder import Part
from .taken_step import TakenStep, wide
from .typed import floats, norm

__all__ = ["SUM_TOLERANCE", "Residual", "Share", "groups_of", "lost_below", "sum_rule", "sums_of"]

SUM_TOLERANCE = {
    torch.float64: 1e-9,  # sums of up to 1e6 terms of relative rounding 1e-16 each, and a margin
    torch.float32: 1e-4,  # measured 9e-7 between products on models of 11 M parameters; a margin of a hundred
    torch.bfloat16: 1e-2,  # measured .75 %: δ, U x and .grad are each rounded to 8 bits
    torch.float16: 1e-2,
}
# Parameters whose gradient is rounding noise (a key's bias under softmax) are held to this share of the whole.
SHARE = 0.01
# Below the smallest normal number precision is not relative any more: a product of δ and x, or an entry of .grad, is
# off by up to the smallest number there is, and a sum of 1e5 of them by 1e5 times that. A loss of 1e-35 gets there.
SMALLEST = {
    torch.float64: 1e5 * 4.9e-324,
    torch.float32: 1e5 * 1.4e-45,
    torch.bfloat16: 9.2e-41,  # summed in fp32, rounded once
    torch.float16: 6.0e-8,
}


class Share(NamedTuple):
    """What some parameters contribute: Σ c d, and Σ |c d|, by which it is rounded."""

    parameters: tuple[Tensor, ...]
    sum: float
    size: float


@dataclass(frozen=True)
class Residual:
    """The largest relative residual, and the parameters whose residual is too large, the worst first."""

    largest: float
    failing: tuple[Tensor, ...]


def sum_rule(
    shares: Sequence[Share],
    total: Share,
    cotangent: Mapping[Tensor, Tensor],
    step: TakenStep,
    unweighted: Mapping[Tensor, Tensor],
    precision: torch.dtype,
    processes: Processes,
) -> Residual:
    """|Σ c d - <u, g>| / (|u| |g| + Σ |c d|) by groups of parameters. shares: of some parameters each; total: of all.

    Σ |c d|: examples whose gradients cancel (one chain labelled both ways) leave a g far smaller than what it was
    rounded as. To this is added what precision loses below the smallest normal number.
    """
    tolerance = SUM_TOLERANCE[precision]
    factor = step.factor
    weighted = [p for p in cotangent if p in step.gradients]
    others = [p for p in unweighted if p in step.gradients and p in cotangent]
    dots = [_dot(cotangent[p], step.gradient(p)) for p in weighted]
    dots += [_dot(cotangent[p], local(unweighted[p])) for p in others]
    read = floats(dots)
    right = {p: value / factor for p, value in zip(weighted, read, strict=False)}
    for p, value in zip(others, read[len(weighted) :], strict=True):
        right[p] -= value
    if processes.size > 1:  # every process has its examples; .grad is their mean
        return _over_processes(total, right, cotangent, step, tolerance, processes)
    groups = groups_of(shares, total, list(right))
    differences = [(abs(share.sum - sum(right[p] for p in share.parameters)), share) for share in groups]
    # |<u, g>| is at most |u| |g|: the norms, two more passes over the memory, are taken only where that does not do.
    quick = [sum(abs(right[p]) for p in share.parameters) + share.size for share in groups]
    part = SHARE * max(quick, default=0.0)
    ratio = max((d / (q + part + 1e-300) for (d, _), q in zip(differences, quick, strict=True)), default=0.0)
    if ratio <= tolerance:
        return Residual(ratio, ())
    of_u = {p: float(norm(cotangent[p], torch.float64)) for p in right}
    of_g = {p: float(norm(step.gradient(p), torch.float64)) / factor for p in right}
    lost = lost_below(cotangent, precision, step.scale)
    sizes = [sum(of_u[p] * of_g[p] for p in share.parameters) + share.size for share in groups]
    sizes = [size + SHARE * sum(sizes) for size in sizes]
    floors = [sum(lost[p] for p in share.parameters) / tolerance + 1e-300 for share in groups]
    relative = [(d / (n + f), share) for (d, share), n, f in zip(differences, sizes, floors, strict=True)]
    worst = sorted((r for r in relative if not r[0] <= tolerance), key=lambda r: r[0], reverse=True)
    return Residual(max((r for r, _ in relative), default=0.0), tuple(p for _, s in worst for p in s.parameters))


def lost_below(cotangent: Mapping[Tensor, Tensor], precision: torch.dtype, scale: float = 1.0) -> dict[Tensor, float]:
    """What Σ c d and <u, g> of each parameter can be off by below the smallest normal number, scale being the loss's.

    Each entry of g by SMALLEST, so <u, g> by |u|_1 times that, at most √n |u|; Σ c d by SMALLEST itself.
    """
    each = SMALLEST[precision] / scale
    return {p: each * (1.0 + u.numel() ** 0.5 * float(norm(u, torch.float64))) for p, u in cotangent.items()}


def groups_of(shares: Sequence[Share], total: Share, parameters: Sequence[Tensor]) -> list[Share]:
    """Parameters that have a share together are judged together; one without a share has that of nothing."""
    if not shares:
        return [Share(tuple(parameters), total.sum, total.size)]
    leader: dict[Tensor, Tensor] = {}

    def root(p: Tensor) -> Tensor:
        while leader.setdefault(p, p) is not p:
            p = leader[p]
        return p

    for share in shares:
        for p in share.parameters[1:]:
            leader[root(p)] = root(share.parameters[0])
    found: dict[Tensor, tuple[float, float]] = {}
    for share in shares:
        p = root(share.parameters[0])
        before = found.get(p, (0.0, 0.0))
        found[p] = before[0] + share.sum, before[1] + share.size
    members: dict[Tensor, list[Tensor]] = {}
    for p in parameters:
        members.setdefault(root(p), []).append(p)
    return [Share(tuple(members.get(p, ())), *found.get(p, (0.0, 0.0))) for p in {**found, **members}]


def _dot(u: Tensor, g: Tensor) -> Tensor:
    dtype = wide(u, g)
    return torch.dot(u.reshape(-1).to(dtype), g.reshape(-1).to(dtype))


def _over_processes(
    total: Share,
    right: Mapping[Tensor, float],
    cotangent: Mapping[Tensor, Tensor],
    step: TakenStep,
    tolerance: float,
    processes: Processes,
) -> Residual:
    """All parameters together: Σ c d is the mean of the processes' own, <u, g> goes over all shards."""
    left, summands = (value / processes.size for value in processes.sums([total.sum, total.size]))
    difference = abs(left - step.shards.sum(right))
    grads = {p: step.gradient(p) for p in right}
    size = step.shards.norm({p: cotangent[p] for p in right}) * step.shards.norm(grads) / step.factor + summands
    relative = difference / (size + 1e-300)
    return Residual(relative, () if relative <= tolerance else tuple(right))


def sums_of(parts: Sequence[Part], coefficients: Tensor) -> tuple[list[Share], Share]:
    """The share of each part that names its parameters, and that of all together; parts[0] is all."""
    weighted = (torch.stack([part.values for part in parts]).double() * coefficients.double()).flatten(1)
    both: Any = torch.stack([weighted.sum(1), weighted.abs().sum(1)], 1)
    rows: list[tuple[float, float]] = both.tolist()
    total, *shares = [Share(part.parameters, *row) for part, row in zip(parts, rows, strict=True)]
    return shares, total
