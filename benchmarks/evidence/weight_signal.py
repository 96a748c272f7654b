"""What the hypergradient says of wrong labels: by outer loss, size of the meta set, derivative, and number of looks.

    python -m benchmarks.evidence.weight_signal --troubles crowd,flips [--seed 0]

Trains the judge of `python -m benchmarks.evidence` on the pool with equal weights from the cold start, and prints the
AUC of the steps' and the chains' d = -dF/dw against the truth; .5 says nothing. Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.evidence.chains import Chains
from benchmarks.evidence.fitting import Fit, MetaLoss, meta_losses
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.learned import calibrated, label_posterior, learn_trust
from benchmarks.evidence.start import Start, load_start
from dreamprm.evaluate.steps import auc

MOMENTS = (8, 48)


def of(d: Tensor, chains: Chains) -> str:
    """AUC of steps / of chains."""
    mask, wrong = chains.mask, chains.wrong
    steps = auc(~wrong[mask].numpy(), d[mask].double().numpy())
    whole = auc(~wrong.any(1).numpy(), (d.sum(1) / mask.sum(1)).double().numpy())
    return f"{steps:.3f} / {whole:.3f}"


def losses(judge: Judge, meta: Chains) -> dict[str, MetaLoss]:
    """The outer losses that are compared."""
    plain = {
        f"{kind}, {how}": meta_losses(kind, how) for kind in ("mse", "cross_entropy") for how in ("mean", "min", "last")
    }
    return plain | {f"calibrated, {how}": calibrated(judge, meta, how) for how in ("mean", "min")}


def by_moment(start: Start) -> list[str]:
    """By outer loss, after few and many updates; and with gradient descent's derivative in place of AdamW's."""
    run = Fit(Judge(start.cold), start.train, MOMENTS[-1], start.seed)
    columns: dict[str, list[str]] = {}
    for update in range(1, MOMENTS[-1] + 1):
        run.weighted(run.draw(), None)
        if update in MOMENTS:
            for name, loss in losses(run.judge, start.meta).items():
                gradient, _ = run.meta_gradient(start.meta, loss)
                for of_adam in (True, False):
                    d = run.hypergradient(start.train, gradient, of_adam=of_adam)
                    columns.setdefault(name, []).append(of(d, start.train))
    head = " | ".join(f"after {moment}, AdamW's | gradient descent's" for moment in MOMENTS)
    rows = [f"| {name} | " + " | ".join(found) + " |" for name, found in columns.items()]
    return [f"| outer loss, aggregate | {head} |", "|---" * (2 * len(MOMENTS) + 1) + "|", *rows]


def by_size(start: Start, sizes: tuple[int, ...] = (50, 150, 500, 1000)) -> list[str]:
    """The trust by number of meta chains, clean and with a tenth of the outcomes turned round."""
    random = torch.Generator().manual_seed(start.seed)
    order = torch.randperm(len(start.meta), generator=random)
    turned = torch.rand(len(start.meta), generator=random) < 0.1
    noisy = replace(start.meta, correct=torch.where(turned, 1 - start.meta.correct, start.meta.correct))
    rows: dict[str, list[str]] = {}
    for size in sizes:
        for name, meta in (("", start.meta), (", a tenth wrong", noisy)):
            some = replace(start, meta=meta.take(order[:size]))
            rows.setdefault(f"d{name}", []).append(of(learn_trust(some, "both", seed=start.seed), start.train))
            rows.setdefault(f"posterior{name}", []).append(of(label_posterior(some, seed=start.seed), start.train))
    return _table("meta chains", list(map(str, sizes)), rows)


def by_looks(start: Start, numbers: tuple[int, ...] = (1, 3, 6, 12)) -> list[str]:
    """The trust by number of looks."""
    rows = {"d": [of(learn_trust(start, "both", updates=8 * n, seed=start.seed), start.train) for n in numbers]}
    return _table("looks", list(map(str, numbers)), rows)


def _table(corner: str, heads: list[str], rows: dict[str, list[str]]) -> list[str]:
    lines = [f"| {corner} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    return lines + [f"| {name} | " + " | ".join(found) + " |" for name, found in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--troubles", default="crowd,flips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for trouble in options.troubles.split(","):
        start = load_start(options.folder, trouble, options.seed, "test")
        wrong = start.train.wrong
        share = wrong.sum().item() / start.train.mask.sum().item()
        print(f"\n## {trouble}: {share:.2f} of steps and {wrong.any(1).float().mean().item():.2f} of chains wrong\n")
        print("AUC of steps / of chains, the whole meta set\n", *by_moment(start), sep="\n", flush=True)
        print("\nThe trust\n", *by_size(start), sep="\n", flush=True)
        print("", *by_looks(start), sep="\n", flush=True)


if __name__ == "__main__":
    main()
