"""What each ablation of `python -m benchmarks.evidence.ablations` changes, and what it measures at a start.

Found: row -> column -> measure -> number; most measures are the AUC of the trust in steps and in chains.

Shapes: N chains, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.evidence.chains import Chains
from benchmarks.evidence.fitting import Fit, MetaLoss, figures, meta_losses, train_on
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.learned import by_unit, calibrated, label_posterior, weights_of
from benchmarks.evidence.methods import SHARPNESS, fit, label_losses
from benchmarks.evidence.online import features_of
from benchmarks.evidence.start import Start
from dreamprm.evaluate.steps import auc
from dreamprm.loss import OUTER_LOSSES

__all__ = ["ABLATIONS", "Ablation", "Found"]

Found = dict[str, dict[str, dict[str, float]]]
UPDATES, EVERY = 48, 8
TRAINED = 240


@dataclass(frozen=True)
class Ablation:
    """along_rows: the figure's axis runs over the rows, its lines are the columns; else the other way round."""

    measure: Callable[[Start], Found]
    axis: str
    said: str
    expected: str
    along_rows: bool = False
    value: str = ""


def told(trust: Tensor, chains: Chains) -> dict[str, float]:
    """AUC of steps and of chains."""
    mask, wrong = chains.mask, chains.wrong
    whole = (trust * mask).sum(1) / mask.sum(1)
    return {
        "steps": float(auc(~wrong[mask].numpy(), trust[mask].double().numpy())),
        "chains": float(auc(~wrong.any(1).numpy(), whole.double().numpy())),
    }


def looks(
    start: Start,
    asked: Callable[[Fit], dict[str, Tensor]],
    *,
    updates: int = UPDATES,
    every: int = EVERY,
    batch: int = 64,
    unit: str = "both",
) -> dict[str, Tensor]:
    """The mean over looks of each d that is asked for, as `learned.learn_trust` takes it."""
    run = Fit(Judge(start.cold), start.train, updates, start.seed, batch=batch)
    found: dict[str, Tensor] = {}
    for update in range(1, updates + 1):
        run.weighted(run.draw(), None)
        if update % every == 0:
            for name, d in asked(run).items():
                mine = by_unit(d, start.train, unit, start.num_domains)
                found[name] = found.get(name, torch.zeros_like(mine)) + mine
    return found


def exact(run: Fit, meta: Chains, loss: MetaLoss | None = None, *, of_adam: bool = True) -> Tensor:
    gradient, _ = run.meta_gradient(meta, loss or calibrated(run.judge, meta))
    return run.hypergradient(run.chains, gradient, of_adam=of_adam)


@torch.no_grad()
def finite_difference(run: Fit, meta: Chains, dtype: torch.dtype) -> Tensor:
    """As published: (l(θ' + ε v) - l(θ' - ε v)) / 2ε, v = ∇F(θ'), ε = .01 / |v|; no derivative of Adam's step."""
    with torch.enable_grad():
        gradient, _ = run.meta_gradient(meta, calibrated(run.judge, meta))
    size = 0.01 / torch.stack([value.norm() for value in gradient.values()]).norm().clamp_min(1e-12)
    ends = []
    for sign in (1, -1):
        judge = Judge(run.judge.tensors_of())
        for name, value in judge.named_parameters():
            value += sign * size * gradient[name]
        chains = run.chains
        z = judge.to(dtype)(chains.states.to(dtype)).float()
        ends.append(F.binary_cross_entropy_with_logits(z, chains.labels, reduction="none") * chains.mask)
    return (ends[0] - ends[1]) / (2 * size) / run.chains.mask.sum(1, keepdim=True)


def derivative(start: Start) -> Found:
    meta = start.meta
    found = looks(
        start,
        lambda run: {
            "exact, AdamW's step": exact(run, meta),
            "exact, gradient descent's step": exact(run, meta, of_adam=False),
            "finite difference, float32": finite_difference(run, meta, torch.float32),
            "finite difference, bf16": finite_difference(run, meta, torch.bfloat16),
        },
    )
    return {name: {"AUC": told(trust, start.train)} for name, trust in found.items()}


def outer_loss(start: Start) -> Found:
    """The outer losses by aggregate, under AdamW's derivative."""
    meta = start.meta

    def asked(run: Fit) -> dict[str, Tensor]:
        found = {}
        for how in ("mean", "min", "last"):
            for kind in ("mse", "cross_entropy"):
                found[f"{kind}|{how}"] = exact(run, meta, meta_losses(kind, how))
            contrast = lambda z, mask, correct, how=how: OUTER_LOSSES["contrast"](z, correct, mask, how)  # noqa: E731
            found[f"contrast|{how}"] = exact(run, meta, contrast)
            found[f"calibrated|{how}"] = exact(run, meta, calibrated(run.judge, meta, how))
        return found

    found: Found = {}
    for name, trust in looks(start, asked, every=16).items():
        kind, how = name.split("|")
        found.setdefault(kind, {})[how] = told(trust, start.train)
    return found


def outer_batch(start: Start, sizes: Sequence[int] = (1, 8, 64, 256), draws: int = 12) -> Found:
    """One look after 24 updates, its meta gradient from so many chains; and the mean over all draws."""
    run, meta = Fit(Judge(start.cold), start.train, UPDATES, start.seed), start.meta
    for _ in range(24):
        run.weighted(run.draw(), None)
    loss, random = calibrated(run.judge, meta), torch.Generator().manual_seed(start.seed)
    found: Found = {"one look": {}, f"mean of {draws}": {}}
    for size in sizes:
        each = []
        for _ in range(draws):
            d = exact(run, meta.take(torch.randint(len(meta), (size,), generator=random)), loss)
            each.append(by_unit(d, start.train, "both", start.num_domains))
        single = [told(d, start.train) for d in each]
        found["one look"][str(size)] = {name: sum(s[name] for s in single) / draws for name in single[0]}
        found[f"mean of {draws}"][str(size)] = told(torch.stack(each).mean(0), start.train)
    whole = told(by_unit(exact(run, meta, loss), start.train, "both", start.num_domains), start.train)
    for row in found.values():
        row["all"] = whole
    return found


def inner_batch(start: Start, sizes: Sequence[int] = (1, 8, 64, 256)) -> Found:
    trusts = [looks(start, lambda run: {"d": exact(run, start.meta)}, batch=size)["d"] for size in sizes]
    return {"d": {str(size): told(trust, start.train) for size, trust in zip(sizes, trusts, strict=True)}}


def lookahead(start: Start, every: Sequence[int] = (1, 5, 20)) -> Found:
    row = {}
    for number in every:
        trust = looks(start, lambda run: {"d": exact(run, start.meta)}, updates=60, every=number)["d"]
        row[f"every {number}"] = told(trust, start.train)
    return {"d": row}


def features(start: Start) -> Found:
    """Least squares of d on what a weigher's net may see, at the cold-started judge: what it could learn at best."""
    chains = start.train
    trust = looks(start, lambda run: {"d": exact(run, start.meta)}, unit="step")["d"]
    with torch.no_grad():
        judge = Judge(start.cold)
        seen = features_of(judge(chains.states), chains, torch.arange(len(chains)))
        losses = label_losses(judge, chains)
    wide = lambda values: values[:, None].expand_as(chains.labels)  # noqa: E731
    columns = {
        "probability (paper)": [seen.probability],
        "agreement": [seen.agreement],
        "label": [seen.monte_carlo],
        "step's loss": [losses, losses.log1p()],
        "chain's loss": [wide(seen.log_loss)],
        "place, length": [seen.place, wide(seen.num_steps.float())],
        "domain": list(
            F.one_hot(chains.domain, start.num_domains).float().T.unsqueeze(-1).expand(-1, -1, losses.shape[1])
        ),
    }
    columns["all"] = [one for group in columns.values() for one in group]
    columns["all, and products"] = columns["all"] + [
        a * b for i, a in enumerate(columns["all"][:7]) for b in columns["all"][: i + 1]
    ]
    mask, found = chains.mask, {}
    target = trust[mask].double()
    for name, group in columns.items():
        x = torch.stack([value[mask].double() for value in group] + [torch.ones(len(target)).double()], 1)
        solved = torch.linalg.lstsq(x, target[:, None], driver="gelsd").solution
        fitted = torch.zeros_like(trust)
        fitted[mask] = (x @ solved)[:, 0].float()
        found[name] = {"AUC": told(fitted, chains)}
    found["d itself (step table)"] = {"AUC": told(trust, chains)}
    return found


def meta_set(start: Start, sizes: Sequence[int] = (50, 150, 500, 1000)) -> Found:
    """By number of meta chains, clean and with a tenth of the outcomes turned round."""
    random = torch.Generator().manual_seed(start.seed)
    order = torch.randperm(len(start.meta), generator=random)
    turned = torch.rand(len(start.meta), generator=random) < 0.1
    noisy = replace(start.meta, correct=torch.where(turned, 1 - start.meta.correct, start.meta.correct))
    metas = {
        f"{name}|{size}": meta.take(order[:size])
        for size in sizes
        for name, meta in (("d", start.meta), ("d, a tenth wrong", noisy))
    }
    found: Found = {}
    each = looks(start, lambda run: {name: exact(run, meta) for name, meta in metas.items()})
    for name, trust in each.items():
        row, size = name.split("|")
        found.setdefault(row, {})[size] = told(trust, start.train)
    found["posterior"] = {
        str(size): told(
            label_posterior(replace(start, meta=start.meta.take(order[:size])), seed=start.seed), start.train
        )
        for size in sizes
    }
    return found


def cold_start(start: Start, lengths: Sequence[int] = (0, 60, 240, 720)) -> Found:
    """AUC of d, and best-of-8 of the start and of the table learned from it."""
    found: Found = {}
    for length in lengths:
        cold = train_on(Judge(start.upper), start.train, updates=length, seed=start.seed) if length else None
        mine = replace(start, cold=cold.tensors_of() if cold else start.upper)
        trust = looks(mine, lambda run: {"d": exact(run, start.meta)})["d"]
        table = fit(mine, weights_of(by_unit(trust, start.train, "step", start.num_domains), SHARPNESS))
        best = {
            "AUC of d": told(trust, start.train),
            "best-of-8 before": {"best": figures(Judge(mine.cold), start.judged)["best_of_n_min"]},
            "best-of-8 after": {"best": figures(table, start.judged)["best_of_n_min"]},
        }
        found[str(length)] = best
    return found


def units(start: Start, sizes: Sequence[int] = (50, 150, 500, 1000)) -> Found:
    """The calibrated meta loss after training on the weights: on the meta chains that made them, and on the judged."""
    order = torch.randperm(len(start.meta), generator=torch.Generator().manual_seed(start.seed))
    metas = {str(size): start.meta.take(order[:size]) for size in sizes}
    d = looks(start, lambda run: {name: exact(run, meta) for name, meta in metas.items()}, unit="step")
    plain = fit(start)
    found: Found = {}
    for unit in ("domain", "chain", "step"):
        for size, meta in metas.items():
            trust = by_unit(d[size], start.train, unit, start.num_domains)
            judge = fit(start, weights_of(trust, SHARPNESS))
            row = found.setdefault(unit, {})
            row[size] = {
                "own": fall(plain, judge, meta),
                "judged": fall(plain, judge, start.judged),
            }
    return found


@torch.no_grad()
def fall(before: Judge, after: Judge, chains: Chains) -> float:
    """How much lower the calibrated loss of the weakest step is after than before."""
    values = [calibrated_value(judge, chains) for judge in (before, after)]
    return values[0] - values[1]


def calibrated_value(judge: Judge, chains: Chains) -> float:
    with torch.enable_grad():
        loss = calibrated(judge, chains)
    return loss(judge(chains.states), chains.mask, chains.correct).mean().item()


def noise(start: Start, moments: Sequence[int] = (8, 24, 48, 96, 192), draws: int = 12, size: int = 128) -> Found:
    """|mean| / deviation of d over random meta batches of 128: the median over steps, over chains, over domains."""
    run, meta = Fit(Judge(start.cold), start.train, TRAINED, start.seed), start.meta
    random, chains = torch.Generator().manual_seed(start.seed), start.train
    found: Found = {"per step": {}, "per chain": {}, "per domain": {}}
    for update in range(1, moments[-1] + 1):
        run.weighted(run.draw(), None)
        if update not in moments:
            continue
        loss = calibrated(run.judge, meta)
        each = torch.stack(
            [exact(run, meta.take(torch.randint(len(meta), (size,), generator=random)), loss) for _ in range(draws)]
        )
        of_chains = each.sum(2)
        count = chains.domain.bincount(minlength=start.num_domains).clamp_min(1)
        of_domains = torch.zeros(draws, start.num_domains).index_add_(1, chains.domain, of_chains) / count
        for name, values in (
            ("per step", each[:, chains.mask]),
            ("per chain", of_chains),
            ("per domain", of_domains),
        ):
            ratio = values.mean(0).abs() / values.std(0).clamp_min(1e-20)
            found[name][str(update)] = {"ratio": ratio.median().item()}
    return found


ABLATIONS = {
    "derivative": Ablation(
        derivative,
        "derivative of the inner step",
        "Six looks at the calibrated loss of the weakest step, each derivative at the same judges.",
        "exact is best, and the finite difference loses most in bf16.",
        along_rows=True,
    ),
    "outer_loss": Ablation(
        outer_loss,
        "outer loss",
        "Three looks, by outer loss and aggregate of the steps (columns).",
        "the weakest step under a calibrated loss sees most.",
    ),
    "outer_batch": Ablation(
        outer_batch,
        "meta chains in one look",
        "One look after 24 updates from 1 to all of the meta chains, and the mean of twelve such looks.",
        "one chain says nothing, 64 most of what there is, and averaging makes up for small batches.",
    ),
    "inner_batch": Ablation(
        inner_batch,
        "chains in an inner update",
        "Six looks, inner updates on batches of 1, 8, 64, 256 (the state of Adam comes from them).",
        "batches of 1 leave a step derivative of noise.",
    ),
    "lookahead": Ablation(
        lookahead,
        "a look",
        "60 updates, a look at every one, at every fifth, at every twentieth.",
        "more looks average more noise away.",
    ),
    "features": Ablation(
        features,
        "what the net sees",
        "Least squares of d on a net's features, one by one and together: the best that a net of them could say.",
        "the paper's feature, the probability, cannot see a label and says nothing; agreement and loss say most.",
        along_rows=True,
    ),
    "meta_set": Ablation(
        meta_set,
        "meta chains",
        "By size of the meta set, clean and with a tenth of its outcomes wrong.",
        "AUC grows with the number of outcomes, and a tenth wrong costs some.",
    ),
    "cold_start": Ablation(
        cold_start,
        "updates of the cold start",
        "AUC of d; best-of-8 of the start, and of the judge trained from it with the step table's weights.",
        "a judge that has seen nothing cannot say whom to trust, and one trained long repeats what it was told.",
        along_rows=True,
        value="AUC, best-of-8",
    ),
    "units": Ablation(
        units,
        "weights by",
        "How much weights lower the calibrated loss of the weakest step: on the meta chains that made them / on the "
        "judged ones (columns: number of meta chains). Equal numbers: nothing is overfitted.",
        "the finer the table and the smaller the meta set, the further the two are apart.",
        value="fall of the meta loss on its own chains",
    ),
    "noise": Ablation(
        noise,
        "signal over noise of d",
        "Median of |mean| / deviation of d over random meta batches of 128, by update since the cold start.",
        "a domain's mean is clearer than a chain's, and all fade as training goes on.",
        value="|mean| / deviation",
    ),
}
