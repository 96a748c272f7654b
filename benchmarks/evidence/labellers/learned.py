"""Weights learned by exact hypergradients on the whole meta set, by the weighers of `dreamprm` and by averaged looks.

`online` is the method as published: every update of the judge is followed by one of the weigher. `looks` keeps no
optimizer on the outer level: trust τ is the mean over rounds and looks of d of the unit, centred and scaled to one, and
w = 2 σ(κ τ); the judge starts again from its cold start after every round.

Shapes: N chains, S steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.evidence.labellers.chains import Chains, Split
from benchmarks.evidence.labellers.fitting import Fit, Judge, outer, step_losses
from dreamprm.weigher import DomainTable, Features, InstanceNet, InstanceTable, Weigher, project

__all__ = ["Start", "looks", "make_start", "online"]

COLD, UPDATES = 50, 150
BEGIN = 5  # inner updates before the first outer one: Adam's first steps are signs


@dataclass
class Start:
    """A seed's chains, and the judge after a short training on the labels of all of them."""

    split: Split
    cold: Judge
    seed: int
    quality: dict[str, float] = field(default_factory=dict)

    def judge(self) -> Judge:
        return copy.deepcopy(self.cold)

    @property
    def train(self) -> Chains:
        return self.split.train


def make_start(split: Split, seed: int, quality: dict[str, float]) -> Start:
    cold = Judge(split.train.hidden.shape[-1])
    run = Fit(cold, split.train, COLD)
    for _ in range(COLD):
        run.weighted()
    return Start(split, cold, seed, quality)


def weigher_of(start: Start, unit: str) -> tuple[Weigher, float]:
    """The weigher, and the learning rate of its Adam."""
    num_domains = len(start.split.labellers)
    if unit == "domain":
        return DomainTable(num_domains), 0.05
    if unit in ("chain", "positive chain"):
        return InstanceTable(len(start.train), low=-1.0 if unit == "chain" else 0.0, sparse=False), 0.05
    return InstanceNet(num_domains), 0.03


def features(chains: Chains, z: Tensor) -> Features:
    """What the weigher sees of the training chains."""
    num_steps = chains.mask.sum(1)
    probability = z.sigmoid()
    place = torch.arange(chains.mask.shape[1]) / (num_steps - 1).clamp_min(1)[:, None]
    return Features(
        probability=probability,
        agreement=(probability - 0.5) * (2 * chains.labels - 1),
        monte_carlo=chains.labels,
        place=place.clamp_max(1.0),
        mask=chains.mask,
        log_loss=step_losses(z, chains).sum(1).log1p(),
        num_steps=num_steps,
        domain=chains.domain,
        index=torch.arange(len(chains)),
    )


def online(
    start: Start, unit: str, kind: str, how: str, *, updates: int = UPDATES, lr: float | None = None, again: bool = True
) -> tuple[Judge, Tensor]:
    """The judge and the weights, (N, 1).

    again: trained anew from the cold start on the weights that were learned; else the judge they were learned beside.
    """
    torch.manual_seed(start.seed)
    weigher, own = weigher_of(start, unit)
    optimizer = torch.optim.Adam(weigher.parameters(), lr=own if lr is None else lr)
    run = Fit(start.judge(), start.train, updates, floor=0.1)
    weights = torch.ones(len(start.train))
    for update in range(updates):
        with torch.no_grad():
            z = run.judge(start.train)
        weights = weigher(seen := features(start.train, z))
        weigher.observe(seen)
        run.weighted(weights.detach()[:, None])
        if update < BEGIN:
            continue
        meta = start.split.meta
        d = run.hypergradient(outer(run.judge(meta), meta, kind, how)).sum(1)
        optimizer.zero_grad()
        # dF/dφ = -Σ_i ∂w_i/∂φ d_i / N; only its direction counts for Adam, so it is scaled to one.
        (-(weights * d).sum() / d.norm().clamp_min(1e-30)).backward()
        optimizer.step()
        project(weigher)
    final = weights.detach()[:, None]
    if not again:
        return run.judge, final
    return retrained(start, final), final


def retrained(start: Start, weights: Tensor | None, chains: Chains | None = None, updates: int = UPDATES) -> Judge:
    """The cold-started judge, trained on weighted chains."""
    run = Fit(start.judge(), chains or start.train, updates)
    for _ in range(updates):
        run.weighted(weights)
    return run.judge


def looks(
    start: Start,
    unit: str,
    kind: str,
    how: str,
    *,
    rounds: int = 5,
    updates: int = 50,
    count: int = 4,
    sharpness: tuple[float, float] = (1.0, 2.0),
) -> tuple[Judge, Tensor]:
    """The judge and the weights, (N, S). sharpness: κ between the rounds, and for the last training."""
    trust, weights = torch.zeros_like(start.train.labels), None
    for place in range(rounds):
        run = Fit(start.judge(), start.train, updates, floor=0.1)
        found = torch.zeros_like(trust)
        for update in range(updates):
            run.weighted(weights)
            if (left := updates - 1 - update) % 4 == 2 and left // 4 < count:
                meta = start.split.meta
                d = run.hypergradient(outer(run.judge(meta), meta, kind, how))
                found += of_unit(d, start.train, unit) / count
        trust = (place * trust + found) / (place + 1)
        weights = 2 * (sharpness[0] * trust).sigmoid()
    final = 2 * (sharpness[1] * trust).sigmoid()
    return retrained(start, final), final


def of_unit(d: Tensor, chains: Chains, unit: str) -> Tensor:
    """d of the unit that each step belongs to, centred over the steps and scaled to one."""
    if unit == "domain":
        count = chains.domain.bincount(minlength=int(chains.domain.max()) + 1).clamp_min(1)
        sums = torch.zeros(len(count)).index_add_(0, chains.domain, d.sum(1))
        d = (sums / count)[chains.domain][:, None].expand_as(d)
    elif unit == "chain":
        d = d.sum(1, keepdim=True).expand_as(d)
    values = d[chains.mask]
    return (d - values.mean()) / values.std().clamp_min(1e-12) * chains.mask
