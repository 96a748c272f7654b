"""The methods, each a function of a start, with the same updates of the same cold-started judge.

A method gives the trained judge and, where it has weights, those of the training steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.evidence.labellers.chains import relabelled
from benchmarks.evidence.labellers.fitting import Fit, Judge, outer, step_losses
from benchmarks.evidence.labellers.learned import UPDATES, Start, looks, online, retrained
from dreamprm.evaluate.steps import auc
from dreamprm.prm.aggregation import aggregate_log_odds, as_log_odds

__all__ = ["BOUNDS", "CHOSEN_ON_META", "METHODS", "ON_META", "Outcome"]

KEPT = 0.6
OUTER = ("contrast", "last")  # of four, chosen on validation questions


@dataclass
class Outcome:
    """weights: (N, 1) or (N, S), None where a method has none."""

    judge: Judge
    weights: Tensor | None = None


def keep(start: Start, trust: Tensor, share: float = KEPT) -> Outcome:
    """Trains on the share of the chains that are trusted most. trust: (N,)."""
    weights = torch.zeros(len(trust), 1)
    weights[trust.argsort(descending=True)[: int(share * len(trust))]] = 1 / share
    return Outcome(retrained(start, weights), weights)


def by_domain(start: Start, values: Tensor) -> Tensor:
    """A weight for every labeller, mean one over the chains, as (N, 1)."""
    weights = values[start.train.domain][:, None]
    return weights / weights.mean()


def quality(start: Start) -> Tensor:
    return torch.tensor([start.quality[name] for name in start.split.labellers])


def cold_start(start: Start) -> Outcome:
    return Outcome(start.judge())


def no_selection(start: Start) -> Outcome:
    return Outcome(retrained(start, None))


def random_subset(start: Start) -> Outcome:
    return keep(start, torch.rand(len(start.train), generator=torch.Generator().manual_seed(start.seed)))


def small_loss(start: Start) -> Outcome:
    with torch.no_grad():
        losses = step_losses(start.judge()(start.train), start.train).sum(1)
    return keep(start, -losses)


def confident_learning(start: Start) -> Outcome:
    """Chains whose labels a judge of the other half of the questions finds least likely are dropped."""
    chains, losses = start.train, torch.zeros(len(start.train))
    half = chains.question % 2 == 0
    for mine in (half, ~half):
        judge = retrained(start, None, chains.take((~mine).nonzero()[:, 0]), UPDATES // 2)
        with torch.no_grad():
            losses[mine] = step_losses(judge(chains), chains).sum(1)[mine]
    return keep(start, -losses)


def heads(start: Start) -> tuple[list[Judge], Tensor]:
    """A judge of each labeller's chains alone, and its AUC on the meta set above one half, at least 0."""
    meta, judges, worth = start.split.meta, [], []
    right = meta.correct.numpy() > 0.5
    for place in range(len(start.split.labellers)):
        rows = (start.train.domain == place).nonzero()[:, 0]
        judges.append(retrained(start, None, start.train.take(rows)))
        with torch.no_grad():
            value = as_log_odds(aggregate_log_odds(judges[-1](meta), "last", meta.mask), "last")
        worth.append(max(float(auc(right, value.double().numpy())) - 0.5, 0.0))
    return judges, torch.tensor(worth) if any(worth) else torch.ones(len(worth))


def chosen_on_meta(start: Start) -> Outcome:
    """Labellers weighted by what a judge of theirs alone is worth on the meta set: no bilevel loop."""
    weights = by_domain(start, heads(start)[1])
    return Outcome(retrained(start, weights), weights)


def heads_on_meta(start: Start) -> Outcome:
    """The mean of these judges' log-odds, weighted in the same way: of linear judges, that is one more of them."""
    judges, worth = heads(start)
    judge = start.judge()
    with torch.no_grad():
        for name, value in judge.named_parameters():
            parts = torch.stack([one.get_parameter(name) for one in judges])
            value.copy_(torch.tensordot(worth / worth.sum(), parts, 1))
    return Outcome(judge, by_domain(start, worth))


def labellers_on_meta(start: Start) -> Outcome:
    """A bound: all labellers have scored the meta chains too, and are weighted by the AUC of their own last scores. It
    says how well a meta set of this size can order them at all."""
    meta = start.split.meta
    last = (meta.mask.sum(1) - 1)[:, None, None].expand(-1, 1, meta.scores.shape[-1])
    scored, right = meta.scores.gather(1, last)[:, 0].double().numpy(), meta.correct.numpy() > 0.5
    worth = [max(float(auc(right, scored[:, place])) - 0.5, 0.0) for place in range(scored.shape[1])]
    weights = by_domain(start, torch.tensor(worth))
    return Outcome(retrained(start, weights), weights)


def best_alone(start: Start) -> Outcome:
    """A bound: the chains of the labeller of the best known quality."""
    values = torch.zeros(len(start.split.labellers))
    values[quality(start).argmax()] = 1.0
    return Outcome(retrained(start, weights := by_domain(start, values)), weights)


def known_quality(start: Start) -> Outcome:
    """A bound: weights in the proportion of AUC - 1/2."""
    weights = by_domain(start, quality(start) - 0.5)
    return Outcome(retrained(start, weights), weights)


def all_seven(start: Start) -> Outcome:
    """A bound: every step's label is the mean of the seven's ranks, which costs seven labels for each."""
    chains = start.train
    each = [
        relabelled(replace(chains, domain=torch.zeros_like(chains.domain), labels=chains.scores[..., place]), "rank")
        for place in range(chains.scores.shape[-1])
    ]
    return Outcome(retrained(start, None, chains.labelled(torch.stack(each).mean(0))))


def outcome_labels(start: Start) -> Outcome:
    """A bound: every training chain's outcome, unknown to all others, at its last step."""
    chains = start.train
    last = torch.zeros_like(chains.mask)
    last[torch.arange(len(chains)), chains.mask.sum(1) - 1] = True
    labels = chains.correct[:, None].expand_as(chains.labels)
    return Outcome(retrained(start, None, replace(chains, mask=last, labels=labels)))


def _on_meta(start: Start, kind: str, how: str, added: bool = False) -> Judge:
    """Trained on the meta set's outcomes, with the pool beside it where `added`."""
    run, meta = Fit(start.judge(), start.train, UPDATES), start.split.meta
    for _ in range(UPDATES):
        loss = outer(run.judge(meta), meta, kind, how)
        if added:
            loss = loss + step_losses(run.judge(start.train), start.train).sum() / len(start.train)
        run.step(loss)
    return run.judge


def meta_directly(start: Start) -> Outcome:
    return Outcome(_on_meta(start, "cross_entropy", "mean"))


def meta_added(start: Start) -> Outcome:
    return Outcome(_on_meta(start, "cross_entropy", "mean", added=True))


def outcome_model(start: Start) -> Outcome:
    """An outcome reward model: the meta set's outcomes at the last step."""
    return Outcome(_on_meta(start, "cross_entropy", "last"))


def domain_table_paper(start: Start) -> Outcome:
    """As published: squared error of the mean, the judge that the weights were learned beside."""
    return Outcome(*online(start, "domain", "mse", "mean", again=False))


def _online(unit: str, kind: str = OUTER[0], how: str = OUTER[1]) -> Callable[[Start], Outcome]:
    return lambda start: Outcome(*online(start, unit, kind, how))


def _looks(unit: str, kind: str = OUTER[0], how: str = OUTER[1]) -> Callable[[Start], Outcome]:
    return lambda start: Outcome(*looks(start, unit, kind, how))


METHODS: dict[str, Callable[[Start], Outcome]] = {
    "cold_start": cold_start,
    "no_selection": no_selection,
    "random_subset": random_subset,
    "small_loss": small_loss,
    "confident_learning": confident_learning,
    "domain_table_paper": domain_table_paper,
    "domain_table": _online("domain"),
    "instance_table": _online("chain"),
    "instance_table_positive": _online("positive chain"),
    "instance_net": _online("net"),
    "domain_looks": _looks("domain"),
    "chain_looks": _looks("chain"),
    "step_table": _looks("step"),
    "chosen_on_meta": chosen_on_meta,
    "heads_on_meta": heads_on_meta,
    "meta_directly": meta_directly,
    "meta_added": meta_added,
    "outcome_model": outcome_model,
    "labellers_on_meta": labellers_on_meta,
    "best_alone": best_alone,
    "known_quality": known_quality,
    "all_seven": all_seven,
    "outcome_labels": outcome_labels,
}
BOUNDS = ("labellers_on_meta", "best_alone", "known_quality", "all_seven", "outcome_labels")
"""Those that know what nobody knows who has one label for each chain."""
ON_META = ("meta_directly", "meta_added", "outcome_model")
"""Those whose judge is trained on the meta set."""
CHOSEN_ON_META = ("chosen_on_meta", "heads_on_meta")
"""Those that choose among labellers on the meta set, by training one judge for each."""
