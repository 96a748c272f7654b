"""Weights learned online, one outer update an inner one, as the papers and the older rivals do.

Shapes: B chains, S steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.evidence.chains import Chains
from benchmarks.evidence.fitting import Fit, LossOf, meta_losses
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.start import Start
from bilevel import Lookahead
from dreamprm.weigher import Features, InstanceNet, Weigher, project

__all__ = ["LossNet", "features_of", "learn_to_reweight", "online", "published"]

META_BATCH = 256


def features_of(z: Tensor, chains: Chains, index: Tensor) -> Features:
    """What a weigher may see of these chains under log-odds z (B, S); see `dreamprm.weigher.features`."""
    p, count = z.detach().sigmoid(), chains.mask.sum(1)
    losses = F.binary_cross_entropy_with_logits(z.detach(), chains.labels, reduction="none") * chains.mask
    return Features(
        probability=p,
        agreement=(p - 0.5) * (2 * chains.labels - 1),
        monte_carlo=chains.labels,
        place=(torch.arange(z.shape[1]) / (count - 1).clamp_min(1)[:, None]).clamp_max(1.0),
        mask=chains.mask,
        log_loss=(losses.sum(1) / count).log1p(),
        num_steps=count,
        domain=chains.domain,
        index=index,
    )


class LossNet(Weigher):
    """Meta-Weight-Net (arXiv 1902.07379): weight = 2 σ(net(loss)), one hidden layer of 100."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1))
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def forward(self, features: Features) -> Tensor:
        return 2 * self.net(features.log_loss.expm1()[:, None])[:, 0].sigmoid()


def online(
    start: Start, weigher: Weigher, lr: float, loss: LossOf, *, updates: int, clip: float = 1e-4
) -> tuple[Judge, Tensor]:
    """The judge after `updates` weighted updates, each with one of the weigher's by the exact hypergradient on a batch
    of the meta set, and the weights of all steps at the end, (N, S)."""
    chains, meta = start.train, start.meta
    run, outer = Fit(Judge(start.cold), chains, updates, start.seed), Fit(Judge(start.cold), meta, updates, start.seed)
    outer.batch = META_BATCH
    optimizer = torch.optim.Adam(weigher.parameters(), lr=lr)
    for update in range(updates):
        rows = run.draw()
        some = chains.take(rows)
        features = features_of(run.judge(some.states), some, rows)
        given = weigher(features)
        weigher.observe(features)
        weights = given if weigher.per_step else given[:, None].expand_as(some.labels)
        run.weighted(rows, _spread(weights.detach(), rows, chains))
        if update < 4:  # Adam's first steps are signs
            continue
        asked = meta.take(outer.draw())
        gradient, _ = run.meta_gradient(asked, loss(run.judge, asked))
        d = run.hypergradient(some, gradient) / len(rows)
        optimizer.zero_grad()
        weights.backward(-d)
        nn.utils.clip_grad_norm_(weigher.parameters(), clip)
        optimizer.step()
        project(weigher)
    weigher.eval()
    with torch.no_grad():
        features = features_of(run.judge(chains.states), chains, torch.arange(len(chains)))
        weigher.settle([features])
        final = weigher(features)
    return run.judge, final if weigher.per_step else final[:, None].expand_as(chains.labels)


def _spread(weights: Tensor, rows: Tensor, chains: Chains) -> Tensor:
    found = torch.zeros_like(chains.labels)
    found[rows] = weights
    return found


def learn_to_reweight(start: Start, loss: LossOf, *, updates: int) -> tuple[Judge, Tensor]:
    """L2RW (arXiv 1803.09050): every batch's weights are relu(<∇F, ∇l_i>), scaled to their mean; nothing is kept."""
    chains, meta = start.train, start.meta
    run, outer = Fit(Judge(start.cold), chains, updates, start.seed), Fit(Judge(start.cold), meta, updates, start.seed)
    outer.batch = META_BATCH
    seen = torch.zeros(len(chains))
    for _ in range(updates):
        rows = run.draw()
        some = chains.take(rows)
        asked = meta.take(outer.draw())
        gradient, _ = run.meta_gradient(asked, loss(run.judge, asked))
        run.before = {name: value.detach().clone() for name, value in run.parameters.items()}
        weight = run.hypergradient(some, gradient, of_adam=False).sum(1).clamp_min(0)
        weight = weight / weight.mean().clamp_min(1e-12)
        seen[rows] = weight
        run.weighted(rows, _spread(weight[:, None].expand_as(some.labels), rows, chains))
    return run.judge, seen[:, None].expand_as(chains.labels)


def published(start: Start, *, updates: int = 1500) -> tuple[Judge, Tensor]:
    """DreamPRM-1.5's recipe as published (arXiv 2509.05542): batch 1 on both levels, the net of 41 parameters, the
    finite difference at the updated parameters, all in bf16, squared error of the mean score, its script's rates."""
    chains, meta = start.train, start.meta
    judge, weigher = Judge(start.cold).bfloat16(), InstanceNet(features="paper")
    optimizer = torch.optim.AdamW(judge.parameters(), lr=5e-5, weight_decay=0.01)
    outer = torch.optim.AdamW(weigher.parameters(), lr=5e-4, weight_decay=1e-3)
    lookahead = Lookahead(judge, optimizer, product="darts", check="off", clip_norm=1.0)
    loss, draw = meta_losses("mse", "mean"), torch.Generator().manual_seed(start.seed)
    for update in range(updates):
        row = torch.randint(len(chains), (1,), generator=draw)
        some, other = chains.take(row), meta.take(torch.randint(len(meta), (1,), generator=draw))
        for one, rate in ((optimizer, 5e-5), (outer, 5e-4)):
            one.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * update / updates))
        optimizer.zero_grad()
        with lookahead.inner(record=update >= 10):
            z = judge(some.states.bfloat16()).float()
            losses = F.binary_cross_entropy_with_logits(z, some.labels, reduction="none") * some.mask
            each = losses.sum(1) / some.mask.sum(1)
            lookahead.backward(each, weigher(features_of(z, some, row)))
        lookahead.step()
        if update >= 10:
            outer.zero_grad()
            z = judge(other.states.bfloat16()).float()
            lookahead.backward_outer(loss(z, other.mask, other.correct).mean())
            nn.utils.clip_grad_norm_(weigher.parameters(), 1.0)
            outer.step()
    judge.float()
    with torch.no_grad():
        weights = weigher(features_of(judge(chains.states), chains, torch.arange(len(chains))))
    return judge, weights[:, None].expand_as(chains.labels)
