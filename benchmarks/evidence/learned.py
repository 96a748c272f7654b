"""Weights learned from the meta set: by exact hypergradients, and by the posterior of a label.

d: the cold-started judge goes on training on the pool, and looks are taken at every step's d = -dF/dw
(`Fit.hypergradient`, the full meta set). τ is their mean, of a step, a chain (mean over its steps) or a domain, scaled
to one over the pool's steps; w = 2 σ(κ τ). The outer loss is the cross-entropy of the weakest step's log-odds a(θ),
calibrated:

    F(θ) = min_{α >= 0, β} mean_j CE(α a_j(θ) + β, r_j),       ∇F by the envelope theorem: α, β as constants.

Without the calibration the largest part of ∇F asks for more or for less confidence of every step alike, and turns round
from one look to the next. α is kept from below zero, where a judge worse than chance would be asked for the opposite.

posterior: a judge trained on the pool and on half of the meta set's outcomes says how likely a label y is; α of the
other half says how sure it may be:

    w_is = 2 σ(m_is + mean_t m_it),    m_is = α z_is (2 y_is - 1), the mean over both halves.

These weights have a scale of their own: where the judge and the labels agree, all are near 2, and nothing is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.evidence.chains import Chains
from benchmarks.evidence.fitting import LR, Fit, MetaLoss, aggregate, meta_losses, scores
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.start import Start

__all__ = [
    "by_unit",
    "calibrated",
    "fit_confidence",
    "label_posterior",
    "learn_trust",
    "scaled",
    "train_jointly",
    "weights_of",
]


def calibrated(judge: Judge, meta: Chains, how: str = "min") -> MetaLoss:
    """The cross-entropy of α a + β with α, β fitted to the meta set as the judge scores it now."""
    scale, offset = fit_confidence(aggregate(scores(judge, meta), meta.mask, how), meta.correct)

    def loss(z: Tensor, mask: Tensor, correct: Tensor) -> Tensor:
        moved = scale * aggregate(z, mask, how) + offset
        return F.binary_cross_entropy_with_logits(moved, correct, reduction="none")

    return loss


def fit_confidence(value: Tensor, correct: Tensor) -> Tensor:
    """argmin over (α >= 0, β) of mean CE(α a + β, r)."""
    fitted = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([fitted], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(fitted[0] * value + fitted[1], correct)
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.stack([fitted[0].clamp_min(0.0), fitted[1]]).detach()


def learn_trust(
    start: Start, unit: str, *, updates: int = 48, every: int = 8, seed: int = 0, meta: Chains | None = None
) -> Tensor:
    """The trust in every step of the pool, (N, S), from a look after every `every` equally weighted updates."""
    chains, meta = start.train, start.meta if meta is None else meta
    trust = torch.zeros_like(chains.labels)
    run = Fit(Judge(start.cold), chains, updates, seed)
    for update in range(updates):
        run.weighted(run.draw(), None)
        if (update + 1) % every == 0:
            gradient, _ = run.meta_gradient(meta, calibrated(run.judge, meta))
            trust += by_unit(run.hypergradient(chains, gradient), chains, unit, start.num_domains)
    return scaled(trust, chains)


def label_posterior(start: Start, *, updates: int = 120, seed: int = 0) -> Tensor:
    """m + the mean of m over the chain, m = α z (2y - 1) of every step of the pool, (N, S), by judges of both halves of
    the meta set's questions. Labels may go wrong one by one or chain by chain: both are looked at."""
    chains, meta = start.train, start.meta
    halves = [(meta.question % 2 == half).nonzero()[:, 0] for half in (0, 1)]
    found = torch.zeros_like(chains.labels)
    for half, other in (halves, halves[::-1]):
        judge = train_jointly(Judge(start.upper), chains, meta.take(half), None, updates=updates, seed=seed)
        held_out = meta.take(other)
        sureness = fit_confidence(aggregate(scores(judge, held_out), held_out.mask, "min"), held_out.correct)[0]
        found += sureness.clamp_max(3.0) * scores(judge, chains) * (2 * chains.labels - 1) * chains.mask / 2
    return found + (found.sum(1) / chains.mask.sum(1))[:, None] * chains.mask


def train_jointly(
    judge: Judge,
    chains: Chains,
    meta: Chains,
    weights: Tensor | None,
    *,
    updates: int,
    seed: int,
    how: str = "min",
    lr: float = LR,
    meta_weight: float = 1.0,
) -> Judge:
    """Trained on the weighted labels of the pool and, beside them, on the meta set's outcomes, times `meta_weight`."""
    run, other, loss = (
        Fit(judge, chains, updates, seed, lr=lr),
        Fit(judge, meta, updates, seed),
        meta_losses("cross_entropy", how),
    )
    for _ in range(updates):
        rows, asked = run.draw(), other.draw()
        mask = chains.mask[rows]
        losses = F.binary_cross_entropy_with_logits(judge(chains.states[rows]), chains.labels[rows], reduction="none")
        used = mask.float() if weights is None else mask * weights[rows]
        pool = ((losses * used).sum(1) / mask.sum(1)).mean()
        outcomes = loss(judge(meta.states[asked]), meta.mask[asked], meta.correct[asked]).mean()
        run.step(pool + meta_weight * outcomes)
    return judge


def scaled(values: Tensor, chains: Chains) -> Tensor:
    """Centred over the pool's steps and scaled to one; 0 where there is no step."""
    some = values[chains.mask]
    return (values - some.mean()) / some.std().clamp_min(1e-12) * chains.mask


def weights_of(trust: Tensor, sharpness: float) -> Tensor:
    """2 σ(κ τ)."""
    return 2 * (sharpness * trust).sigmoid()


def by_unit(d: Tensor, chains: Chains, unit: str, num_domains: int) -> Tensor:
    """d of the unit that each step belongs to, centred over the pool's steps and scaled to one."""
    if unit == "chain":
        d = d.sum(1, keepdim=True).expand_as(d)
    elif unit in ("domain", "question"):
        index = getattr(chains, unit)
        sums = torch.zeros(int(index.max()) + 1).index_add_(0, index, d.sum(1))
        d = (sums / index.bincount().clamp_min(1))[index][:, None].expand_as(d)
    elif unit == "both":  # a chain's mean and its steps' own, in equal parts
        own, shared = by_unit(d, chains, "step", num_domains), by_unit(d, chains, "chain", num_domains)
        return by_unit(own + shared, chains, "step", num_domains)
    return scaled(d, chains)
