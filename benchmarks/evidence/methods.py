"""The methods, each a function of a start: what it trains on, with how much trust. All have the same number of updates
of the same size from the same cold-started judge; only what they look at differs.

A method gives the trained judge and, where it has one, the trust that it ends with in every step, (N, S).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.evidence.fitting import Fit, meta_losses, scores
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.learned import learn_weights
from benchmarks.evidence.start import Chains, Start

__all__ = ["METHODS", "Outcome"]

UPDATES = 200
META_UPDATES = 100
KEPT = 0.6


@dataclass
class Outcome:
    """trust: (N, S) or (N, 1), higher means trusted more; None where a method has no opinion."""

    judge: Judge
    trust: Tensor | None = None


def fit(start: Start, weights: Tensor | None = None, targets: Tensor | None = None) -> Judge:
    """The cold-started judge, trained on its pool."""
    run = Fit(Judge(start.layer), start.train, UPDATES, start.seed)
    for _ in range(UPDATES):
        run.weighted(run.draw(), weights, targets)
    return run.judge


def keep_best(start: Start, trust: Tensor, share: float = KEPT) -> Outcome:
    """Trains on the share of the chains that are trusted most. trust: (N,)."""
    kept = torch.zeros(len(trust))
    kept[trust.argsort(descending=True)[: int(share * len(trust))]] = 1.0 / share
    return Outcome(fit(start, kept[:, None].expand_as(start.train.labels)), trust[:, None])


def label_losses(judge: Judge, chains: Chains) -> Tensor:
    """The loss of every step, (N, S), 0 where there is none."""
    z = scores(judge, chains)
    return F.binary_cross_entropy_with_logits(z, chains.labels, reduction="none") * chains.mask


def cold_start(start: Start) -> Outcome:
    """No further training."""
    return Outcome(Judge(start.layer))


def no_selection(start: Start) -> Outcome:
    return Outcome(fit(start))


def known_clean(start: Start) -> Outcome:
    """A bound: the wrong steps are known and left out."""
    return Outcome(fit(start, (~start.train.wrong).float()))


def random_subset(start: Start) -> Outcome:
    return keep_best(start, torch.rand(len(start.train), generator=torch.Generator().manual_seed(start.seed)))


def small_loss(start: Start) -> Outcome:
    """Chains of the smallest mean loss under the cold-started judge."""
    losses = label_losses(Judge(start.layer), start.train)
    return keep_best(start, -losses.sum(1) / start.train.mask.sum(1))


def _halves(start: Start) -> list[tuple[Tensor, Judge]]:
    """Each half of the pool, and a judge trained on the other one."""
    order = torch.randperm(len(start.train), generator=torch.Generator().manual_seed(start.seed))
    halves = order.chunk(2)
    found = []
    for mine, other in ((halves[0], halves[1]), (halves[1], halves[0])):
        run = Fit(Judge(start.layer), start.train.take(other), UPDATES // 2, start.seed)
        for _ in range(UPDATES // 2):
            run.weighted(run.draw(), None)
        found.append((mine, run.judge))
    return found


def confident_learning(start: Start) -> Outcome:
    """Steps whose label the other half's judge finds less likely than that label on the whole are dropped."""
    chains = start.train
    probability = torch.zeros_like(chains.labels)
    for rows, judge in _halves(start):
        z = scores(judge, chains)[rows]
        probability[rows] = torch.where(chains.labels[rows] > 0.5, z.sigmoid(), (-z).sigmoid())
    kept = torch.zeros_like(probability)
    for right in (True, False):
        of_class = ((chains.labels > 0.5) == right) & chains.mask
        if of_class.any():
            kept[of_class] = (probability[of_class] >= probability[of_class].mean()).float()
    return Outcome(fit(start, kept), probability)


def label_correction(start: Start) -> Outcome:
    """Labels halfway between those given and the scores of a judge trained on the other half."""
    chains = start.train
    targets = chains.labels.clone()
    for rows, judge in _halves(start):
        targets[rows] = 0.5 * chains.labels[rows] + 0.5 * scores(judge, chains)[rows].sigmoid()
    return Outcome(fit(start, targets=targets), -(targets - chains.labels).abs())


def strong_weak(start: Start) -> Outcome:
    """Chains on whose steps the cold-started (weak) judge and a trained (strong) one agree most."""
    weak, strong = (scores(judge, start.train).sigmoid() for judge in (Judge(start.layer), fit(start)))
    return keep_best(start, -((weak - strong).abs() * start.train.mask).sum(1) / start.train.mask.sum(1))


def one_look(start: Start) -> Outcome:
    """LESS-like: chains by the product of their gradient with the meta set's, once, at the cold-started judge."""
    run = Fit(Judge(start.layer), start.train, UPDATES, start.seed)
    for _ in range(5):
        run.weighted(run.draw(), None)
    gradient, _ = run.meta_gradient(start.meta, meta_losses("mse", "min"))
    return keep_best(start, run.hypergradient(start.train, gradient).sum(1))


def _on_meta(start: Start, how: str, added: bool = False) -> Judge:
    """Trained on the meta set's outcomes by the aggregate of its steps, with the pool beside it where `added`."""
    judge, loss = Judge(start.layer), meta_losses("cross_entropy", how)
    updates = UPDATES if added else META_UPDATES
    run, pool = Fit(judge, start.meta, updates, start.seed), Fit(judge, start.train, updates, start.seed)
    for _ in range(updates):
        some = start.meta.take(run.draw())
        total = loss(judge(some.hidden, some.positions), some.mask, some.correct).mean()
        if added:
            more = start.train.take(pool.draw())
            z = judge(more.hidden, more.positions)
            losses = F.binary_cross_entropy_with_logits(z, more.labels, reduction="none") * more.mask
            total = total + (losses.sum(1) / more.mask.sum(1)).mean()
        run.step(total)
    return judge


def meta_directly(start: Start) -> Outcome:
    judge = _on_meta(start, "min")
    return Outcome(judge, -label_losses(judge, start.train))


def meta_added(start: Start) -> Outcome:
    judge = _on_meta(start, "min", added=True)
    return Outcome(judge, -label_losses(judge, start.train))


def outcome_model(start: Start) -> Outcome:
    """An outcome reward model: the meta set's outcomes at the last step."""
    return Outcome(_on_meta(start, "last"))


def meta_judge_filters(start: Start) -> Outcome:
    """Chains of the smallest loss under a judge trained on the meta set: no bilevel loop."""
    losses = label_losses(_on_meta(start, "min"), start.train)
    return keep_best(start, -losses.sum(1) / start.train.mask.sum(1))


def _learned(unit: str, **settings: object) -> Callable[[Start], Outcome]:
    def method(start: Start) -> Outcome:
        judge, trust = learn_weights(start, unit, seed=start.seed, **settings)  # type: ignore[arg-type]
        return Outcome(judge, trust)

    return method


METHODS: dict[str, Callable[[Start], Outcome]] = {
    "cold_start": cold_start,
    "no_selection": no_selection,
    "known_clean": known_clean,
    "random_subset": random_subset,
    "small_loss": small_loss,
    "confident_learning": confident_learning,
    "label_correction": label_correction,
    "strong_weak": strong_weak,
    "one_look": one_look,
    "meta_directly": meta_directly,
    "meta_added": meta_added,
    "outcome_model": outcome_model,
    "meta_judge_filters": meta_judge_filters,
    "domain_table": _learned("domain"),
    "instance_table": _learned("chain"),
    "step_table": _learned("both"),
}
