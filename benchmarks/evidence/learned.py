"""Weights learned by exact hypergradients: few looks at the whole meta set, averaged, and a restart after each round.

A round trains the judge from its cold start on the weights so far, looks from its last updates at every training step
(`Fit.hypergradient`, the full meta set), and the trust τ is the mean over all looks so far, each scaled to one:

    τ_u = mean over looks of (d_u - mean d) / std d,      w_u = 2 σ(κ τ_u)

with u a step, a chain (mean over its steps) or a domain. The outer loss is the cross-entropy of the weakest step's
log-odds a(θ), calibrated:

    F(θ) = min_{α,β} mean_j CE(α a_j(θ) + β, r_j),       ∇F by the envelope theorem: α, β as constants.

Without the calibration the largest part of ∇F asks for more or for less confidence of every step alike, and turns round
from one round to the next; so does d where the looks are summed, or the weights made sharp, before the last round: what
is trusted is learned to excess, and the next look asks for the rest (`weight_signal` measures it).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.evidence.fitting import Fit, MetaLoss, aggregate, scores
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.start import Chains, Start

__all__ = ["by_unit", "calibrated", "learn_weights"]


def calibrated(judge: Judge, meta: Chains, how: str = "min") -> MetaLoss:
    """The cross-entropy of α a + β with α, β fitted to the meta set as the judge scores it now."""
    value = aggregate(scores(judge, meta), meta.mask, how)
    fitted = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([fitted], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(fitted[0] * value + fitted[1], meta.correct)
        loss.backward()
        return loss

    optimizer.step(closure)
    scale, offset = fitted.detach()

    def loss(z: Tensor, mask: Tensor, correct: Tensor) -> Tensor:
        moved = scale * aggregate(z, mask, how) + offset
        return F.binary_cross_entropy_with_logits(moved, correct, reduction="none")

    return loss


def learn_weights(
    start: Start,
    unit: str,
    *,
    seed: int = 0,
    rounds: int = 5,
    updates: int = 50,
    looks: int = 2,
    sharpness: tuple[float, float] = (1.5, 6.0),
    final: int = 200,
) -> tuple[Judge, Tensor]:
    """The judge trained from the cold start on the learned weights, and the trust in every step, (N, S).

    sharpness: κ between the rounds, and for the last training.
    """
    chains = start.train
    trust = torch.zeros_like(chains.labels)
    weights: Tensor | None = None
    for place in range(rounds):
        run = Fit(Judge(start.layer), chains, updates, 1000 * seed + place)
        found = torch.zeros_like(trust)
        for update in range(updates):
            run.weighted(run.draw(), weights)
            if (left := updates - 1 - update) % 4 == 2 and left // 4 < looks:
                gradient, _ = run.meta_gradient(start.meta, calibrated(run.judge, start.meta))
                found += by_unit(run.hypergradient(chains, gradient), chains, unit, start.num_domains) / looks
        trust = (place * trust + found) / (place + 1)
        weights = 2 * (sharpness[0] * trust).sigmoid()
    run = Fit(Judge(start.layer), chains, final, seed)
    for _ in range(final):
        run.weighted(run.draw(), 2 * (sharpness[1] * trust).sigmoid())
    return run.judge, trust


def by_unit(d: Tensor, chains: Chains, unit: str, num_domains: int) -> Tensor:
    """d of the unit that each step belongs to, centred over the pool's steps and scaled to one."""
    mask = chains.mask
    if unit == "chain":
        d = d.sum(1, keepdim=True).expand_as(d)
    elif unit == "domain":
        sums = torch.zeros(num_domains).index_add_(0, chains.domain, d.sum(1))
        d = (sums / chains.domain.bincount(minlength=num_domains).clamp_min(1))[chains.domain][:, None].expand_as(d)
    elif unit == "both":  # a chain's mean and its steps' own, in equal parts
        own, shared = by_unit(d, chains, "step", num_domains), by_unit(d, chains, "chain", num_domains)
        return by_unit(own + shared, chains, "step", num_domains)
    values = d[mask]
    return (d - values.mean()) / values.std().clamp_min(1e-12) * mask
