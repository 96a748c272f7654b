"""The methods, each a function of a start: what it trains on, with how much trust. All begin at the same cold-started
judge and end with the same number of updates of the same size; only what they look at differs.

A method gives the trained judge and, where it has one, the trust that it ends with in every step, (N, S). All stand in
one file, of more than 300 lines: they are to be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.evidence import online
from benchmarks.evidence.chains import Chains
from benchmarks.evidence.fitting import LR, Fit, LossOf, meta_losses, plain, scores, train_on
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.learned import calibrated, label_posterior, learn_trust, train_jointly, weights_of
from benchmarks.evidence.start import Start
from dreamprm.weigher import DomainTable, InstanceNet, StepNet

__all__ = [
    "KINDS_OF_METHODS",
    "MAIN",
    "META_UPDATES",
    "METHODS",
    "UPDATES",
    "Method",
    "Outcome",
    "fit",
    "label_losses",
    "learned_online",
    "on_meta",
    "with_meta",
]

UPDATES = 240
META_UPDATES = 100
LONGER = 300, 3e-3, 3.0
"""Updates and rate of the last training, and the meta set's part beside the pool's, as chosen on validation seeds from
100 to 102 over all troubles: what trains on outcomes gains from it, the others hardly do."""
KEPT = 0.6
_CROSS_ENTROPY = plain("cross_entropy", "min")
SHARPNESS = 2.0


@dataclass
class Outcome:
    """trust: (N, S) or (N, 1), higher means trusted more; None where a method has no opinion.  how: the aggregate
    of the steps by which its judge chooses."""

    judge: Judge
    trust: Tensor | None = None
    how: str = "min"


Method = Callable[[Start], Outcome]


def fit(start: Start, weights: Tensor | None = None, targets: Tensor | None = None) -> Judge:
    """The cold-started judge, trained on its pool."""
    return train_on(Judge(start.cold), start.train, weights, targets, updates=UPDATES, seed=start.seed + 1)


def keep_best(start: Start, trust: Tensor, share: float = KEPT) -> Outcome:
    """Trains on the share of the chains that are trusted most. trust: (N,)."""
    kept = torch.zeros(len(trust))
    kept[trust.argsort(descending=True)[: int(share * len(trust))]] = 1.0 / share
    return Outcome(fit(start, kept[:, None].expand_as(start.train.labels)), trust[:, None])


def label_losses(judge: Judge, chains: Chains) -> Tensor:
    """The loss of every step, (N, S), 0 where there is none."""
    return F.binary_cross_entropy_with_logits(scores(judge, chains), chains.labels, reduction="none") * chains.mask


def of_chains(values: Tensor, chains: Chains) -> Tensor:
    """The mean over each chain's steps, (N,)."""
    return (values * chains.mask).sum(1) / chains.mask.sum(1)


def cold_start(start: Start) -> Outcome:
    """No further training."""
    return Outcome(Judge(start.cold))


def no_selection(start: Start) -> Outcome:
    return Outcome(fit(start))


def known_clean(start: Start) -> Outcome:
    """A bound: the wrong steps are known and left out."""
    return Outcome(fit(start, (~start.train.wrong).float()))


def random_subset(start: Start) -> Outcome:
    return keep_best(start, torch.rand(len(start.train), generator=torch.Generator().manual_seed(start.seed)))


def small_loss(start: Start) -> Outcome:
    """Chains of the smallest mean loss under the cold-started judge."""
    return keep_best(start, -of_chains(label_losses(Judge(start.cold), start.train), start.train))


def small_loss_steps(start: Start) -> Outcome:
    """Steps in place of chains."""
    losses, mask = label_losses(Judge(start.cold), start.train), start.train.mask
    kept = (losses <= losses[mask].quantile(KEPT)).float()
    return Outcome(fit(start, kept / KEPT), -losses)


def _halves(start: Start) -> list[tuple[Tensor, Judge]]:
    """Each half of the pool, and a judge trained from the base on the other one."""
    order = torch.randperm(len(start.train), generator=torch.Generator().manual_seed(start.seed))
    halves = order.chunk(2)
    found = []
    for mine, other in ((halves[0], halves[1]), (halves[1], halves[0])):
        judge = train_on(Judge(start.upper), start.train.take(other), updates=UPDATES, seed=start.seed)
        found.append((mine, judge))
    return found


def confident_learning(start: Start) -> Outcome:
    """Confident learning (arXiv 1911.00068): a step is dropped where a judge of the other half is as sure of the other
    label as it is, in the mean, of the steps that have that label, and surer than of the given one."""
    chains, mask = start.train, start.train.mask
    right = chains.labels > 0.5
    p = torch.zeros_like(chains.labels)
    for rows, judge in _halves(start):
        p[rows] = scores(judge, chains.take(rows)).sigmoid()
    sure = {label: (p if label else 1 - p)[(right == label) & mask].mean() for label in (True, False)}
    own, other = torch.where(right, p, 1 - p), torch.where(right, 1 - p, p)
    dropped = (other >= torch.where(right, sure[False], sure[True])) & (other > own)
    return Outcome(fit(start, (~dropped).float()), own)


def label_correction(start: Start) -> Outcome:
    """Labels halfway between those given and the scores of a judge trained on the other half."""
    chains = start.train
    targets = chains.labels.clone()
    for rows, judge in _halves(start):
        targets[rows] = 0.5 * chains.labels[rows] + 0.5 * scores(judge, chains)[rows].sigmoid()
    return Outcome(fit(start, targets=targets), -(targets - chains.labels).abs())


def strong_weak(start: Start) -> Outcome:
    """Athena-like (arXiv 2506.09532): chains on whose steps the cold-started (weak) judge and a longer trained (strong)
    one agree most."""
    weak, strong = (scores(judge, start.train).sigmoid() for judge in (Judge(start.cold), fit(start)))
    return keep_best(start, -of_chains((weak - strong).abs(), start.train))


def balanced_information(start: Start) -> Outcome:
    """The BIS score: chains that hold right and wrong steps, p (1 - p) with p the share labelled right, and whose
    labels are reliable: the mean label of the steps called right."""
    chains = start.train
    right = (chains.labels > 0.5) & chains.mask
    share = of_chains(right.float(), chains)
    reliable = (chains.labels * right).sum(1) / right.sum(1).clamp_min(1)
    return keep_best(start, (share * (1 - share) + 0.05) * reliable)


def quality_difficulty_diversity(start: Start) -> Outcome:
    """s1-like (arXiv 2501.19393): of the better half by the judge's agreement, the harder ones, domains in turns."""
    chains = start.train
    p = scores(Judge(start.cold), chains).sigmoid()
    agreement = of_chains(1 - (p - chains.labels).abs(), chains)
    unsure = -of_chains((p - 0.5).abs(), chains)
    ranked = unsure + 10.0 * (agreement >= agreement.quantile(1 - 1.3 * KEPT))
    order = torch.zeros(len(chains))
    for domain in range(start.num_domains):
        rows = (chains.domain == domain).nonzero()[:, 0]
        order[rows[ranked[rows].argsort(descending=True)]] = -torch.arange(len(rows)).float()
    return keep_best(start, order)


def cluster_and_rank(start: Start, clusters: int = 20) -> Outcome:
    """CaR-like (arXiv 2402.18191): the best of every cluster of the chains' mean states, by the judge's agreement."""
    chains = start.train
    p = scores(Judge(start.cold), chains).sigmoid()
    agreement = of_chains(1 - (p - chains.labels).abs(), chains)
    points = F.normalize(chains.states.sum(1) / chains.mask.sum(1, keepdim=True), dim=1)
    centres = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(start.seed))[:clusters]]
    for _ in range(10):
        nearest = (points @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = F.normalize(sums, dim=1)
    place = torch.zeros(len(chains))
    for cluster in range(clusters):
        rows = (nearest == cluster).nonzero()[:, 0]
        place[rows[agreement[rows].argsort(descending=True)]] = -torch.arange(len(rows)) / max(1, len(rows))
    return keep_best(start, place)


def training_dynamics(start: Start, looks: int = 8) -> Outcome:
    """Chains that are learned early and stay learned: the mean loss over a training run."""
    run, total = Fit(Judge(start.upper), start.train, UPDATES, start.seed), torch.zeros(len(start.train))
    for update in range(UPDATES):
        run.weighted(run.draw(), None)
        if (update + 1) % max(1, UPDATES // looks) == 0:
            total += of_chains(label_losses(run.judge, start.train), start.train)
    return keep_best(start, -total)


def one_look(start: Start, loss: LossOf = calibrated) -> Outcome:
    """LESS-like (arXiv 2402.04333): chains by the product of their gradient with the meta set's, once."""
    run = Fit(Judge(start.cold), start.train, UPDATES, start.seed)
    for _ in range(5):
        run.weighted(run.draw(), None)
    gradient, _ = run.meta_gradient(start.meta, loss(run.judge, start.meta))
    return keep_best(start, run.hypergradient(start.train, gradient).sum(1))


def on_meta(start: Start, how: str = "min", updates: int | None = None, lr: float = LR) -> Judge:
    """Trained on the meta set's outcomes alone by an aggregate of its steps."""
    loss, meta = meta_losses("cross_entropy", how), start.meta
    updates = META_UPDATES if updates is None else updates
    run = Fit(Judge(start.cold), meta, updates, start.seed, lr=lr)
    for _ in range(updates):
        rows = run.draw()
        run.step(loss(run.judge(meta.states[rows]), meta.mask[rows], meta.correct[rows]).mean())
    return run.judge


def with_meta(start: Start, weights: Tensor | None = None) -> Judge:
    """Trained on the weighted pool and the meta set's outcomes together."""
    judge = Judge(start.cold)
    return train_jointly(judge, start.train, start.meta, weights, updates=UPDATES, seed=start.seed + 1)


def meta_directly(start: Start) -> Outcome:
    judge = on_meta(start)
    return Outcome(judge, -label_losses(judge, start.train))


def meta_added(start: Start) -> Outcome:
    judge = with_meta(start)
    return Outcome(judge, -label_losses(judge, start.train))


def outcome_model(start: Start) -> Outcome:
    """An outcome reward model: the meta set's outcomes at the last step, by which it chooses too."""
    return Outcome(on_meta(start, "last"), how="last")


def meta_judge_filters(start: Start) -> Outcome:
    """Chains of the smallest loss under a judge trained on the meta set: no bilevel loop."""
    return keep_best(start, -of_chains(label_losses(on_meta(start), start.train), start.train))


def longer(trust: Callable[[Start], Tensor | None], added: bool) -> Method:
    """The last training by `LONGER`: on the weighted pool, with the meta set's outcomes beside it where `added`."""
    updates, lr, meta_weight = LONGER

    def method(start: Start) -> Outcome:
        told, judge = trust(start), Judge(start.cold)
        weights = None if told is None else weights_of(told, 1.0)
        if added:
            given = {"updates": updates, "seed": start.seed + 1, "lr": lr, "meta_weight": meta_weight}
            train_jointly(judge, start.train, start.meta, weights, **given)
        else:
            train_on(judge, start.train, weights, updates=updates, seed=start.seed + 1, lr=lr)
        return Outcome(judge, told)

    return method


def meta_directly_longer(start: Start) -> Outcome:
    return Outcome(on_meta(start, updates=LONGER[0], lr=LONGER[1]))


def known_clean_longer(start: Start) -> Outcome:
    updates, lr, _ = LONGER
    weights = (~start.train.wrong).float()
    return Outcome(train_on(Judge(start.cold), start.train, weights, updates=updates, seed=start.seed + 1, lr=lr))


def small_loss_longer(start: Start) -> Outcome:
    updates, lr, _ = LONGER
    trust = -of_chains(label_losses(Judge(start.cold), start.train), start.train)
    kept = torch.zeros(len(trust))
    kept[trust.argsort(descending=True)[: int(KEPT * len(trust))]] = 1.0 / KEPT
    weights = kept[:, None].expand_as(start.train.labels)
    return Outcome(train_on(Judge(start.cold), start.train, weights, updates=updates, seed=start.seed + 1, lr=lr))


def learned_online(make: Callable[[Start], Any], lr: float, loss: LossOf = calibrated) -> Method:
    """A weigher of its own that learns beside the judge."""

    def method(start: Start) -> Outcome:
        return Outcome(*online.online(start, make(start), lr, loss, updates=UPDATES))

    return method


@functools.lru_cache(maxsize=4)
def _trust(start: Start, unit: str) -> Tensor:
    return learn_trust(start, unit, seed=start.seed)


@functools.lru_cache(maxsize=1)
def _posterior(start: Start) -> Tensor:
    return label_posterior(start, seed=start.seed)


def _learned(unit: str) -> Method:
    def method(start: Start) -> Outcome:
        trust = _trust(start, unit)
        return Outcome(fit(start, weights_of(trust, SHARPNESS)), trust)

    return method


def step_table_and_meta(start: Start) -> Outcome:
    trust = _trust(start, "both")
    return Outcome(with_meta(start, weights_of(trust, SHARPNESS)), trust)


def posterior(start: Start) -> Outcome:
    """Weights by how likely the label is to a judge of pool and meta set; the last training on the pool alone."""
    trust = _posterior(start)
    return Outcome(fit(start, weights_of(trust, 1.0)), trust)


def posterior_and_meta(start: Start) -> Outcome:
    trust = _posterior(start)
    return Outcome(with_meta(start, weights_of(trust, 1.0)), trust)


def combined(start: Start) -> Outcome:
    """Both kinds of trust added; the last training on the pool alone."""
    trust = _posterior(start) + _trust(start, "both")
    return Outcome(fit(start, weights_of(trust, 1.0)), trust)


def combined_and_meta(start: Start) -> Outcome:
    trust = _posterior(start) + _trust(start, "both")
    return Outcome(with_meta(start, weights_of(trust, 1.0)), trust)


def cleaned_weights(start: Start) -> Outcome:
    """What `dreamprm clean` writes: a weight for each row, a chain's mean, of `combined`; a plain run reads it."""
    trust = of_chains(weights_of(_posterior(start) + _trust(start, "both"), 1.0), start.train)[:, None]
    return Outcome(fit(start, trust.expand_as(start.train.labels)), trust)


def cleaned_cut(start: Start, below: float = 1.0) -> Outcome:
    """The same as `dreamprm clean below=1` cuts it: a plain run on the rows that are left, all alike."""
    trust = of_chains(weights_of(_posterior(start) + _trust(start, "both"), 1.0), start.train)[:, None]
    return Outcome(fit(start, (trust >= below).float().expand_as(start.train.labels)), trust)


def published(start: Start) -> Outcome:
    return Outcome(*online.published(start))


def learn_to_reweight(start: Start, loss: LossOf = _CROSS_ENTROPY) -> Outcome:
    return Outcome(*online.learn_to_reweight(start, loss, updates=UPDATES))


METHODS: dict[str, Method] = {
    "cold_start": cold_start,
    "no_selection": no_selection,
    "known_clean": known_clean,
    "random_subset": random_subset,
    "small_loss": small_loss,
    "small_loss_steps": small_loss_steps,
    "confident_learning": confident_learning,
    "label_correction": label_correction,
    "strong_weak": strong_weak,
    "balanced_information": balanced_information,
    "quality_difficulty_diversity": quality_difficulty_diversity,
    "cluster_and_rank": cluster_and_rank,
    "training_dynamics": training_dynamics,
    "one_look": one_look,
    "meta_directly": meta_directly,
    "meta_added": meta_added,
    "outcome_model": outcome_model,
    "meta_judge_filters": meta_judge_filters,
    "learn_to_reweight": learn_to_reweight,
    "meta_weight_net": learned_online(lambda start: online.LossNet(), 1e-2),
    "online_domain_table": learned_online(lambda start: DomainTable(start.num_domains), 5e-2),
    "online_instance_net": learned_online(lambda start: InstanceNet(start.num_domains), 3e-2),
    "online_step_net": learned_online(lambda start: StepNet(start.num_domains), 3e-2),
    "published": published,
    "domain_table": _learned("domain"),
    "instance_table": _learned("chain"),
    "step_table": _learned("both"),
    "step_table_and_meta": step_table_and_meta,
    "posterior": posterior,
    "posterior_and_meta": posterior_and_meta,
    "combined": combined,
    "combined_and_meta": combined_and_meta,
    "cleaned_weights": cleaned_weights,
    "cleaned_cut": cleaned_cut,
    "no_selection_longer": longer(lambda start: None, False),
    "known_clean_longer": known_clean_longer,
    "small_loss_longer": small_loss_longer,
    "meta_directly_longer": meta_directly_longer,
    "meta_added_longer": longer(lambda start: None, True),
    "posterior_and_meta_longer": longer(lambda start: _posterior(start), True),
    "step_table_and_meta_longer": longer(lambda start: SHARPNESS * _trust(start, "both"), True),
    "combined_longer": longer(lambda start: _posterior(start) + _trust(start, "both"), False),
    "combined_and_meta_longer": longer(lambda start: _posterior(start) + _trust(start, "both"), True),
}
MAIN = (
    "cold_start",
    "no_selection",
    "known_clean",
    "random_subset",
    "small_loss",
    "meta_directly",
    "meta_added",
    "published",
    "step_table",
    "posterior",
    "combined",
    "combined_and_meta",
)
"""Those that run on every trouble."""
_ON_OUTCOMES = (
    "meta_directly",
    "meta_added",
    "outcome_model",
    "meta_judge_filters",
    "posterior",
    "posterior_and_meta",
)
_LEARNED = ("online_", "domain_", "instance_", "step_", "combined", "published", "cleaned")
KINDS_OF_METHODS = {
    name: "bound"
    if name.startswith("known_clean")
    else "learned weights"
    if name.startswith(_LEARNED)
    else "trains on outcomes"
    if name.removesuffix("_longer") in _ON_OUTCOMES
    else "neither"
    for name in METHODS
}
"""How a method is coloured: by hypergradients (whatever it trains on in the end), on the meta set, or neither."""
