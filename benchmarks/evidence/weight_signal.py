"""What the hypergradient says of wrong labels: by outer loss, size of the meta set, and moment of the training.

    python -m benchmarks.evidence.weight_signal --troubles crowd,flips [--seed 0]

From the cold start of `python -m benchmarks.evidence` (made where it is missing), trains the judge on the pool with
equal weights, and after 5 and 60 updates prints the AUC of the steps' and the chains' d = -dF/dw against the truth,
on 1,024 chains; .5 says nothing. Then the same by number of meta chains, and by round where the weights follow d.
Prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.evidence.fitting import Fit, MetaLoss, meta_losses
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.learned import by_unit, calibrated
from benchmarks.evidence.start import Chains, Start, load_start
from dreamprm.evaluate.steps import auc

MOMENTS = (5, 60)
NUM_CHAINS = 1024
ROUNDS = 4


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
    run = Fit(Judge(start.layer), start.train, MOMENTS[-1], start.seed)
    columns: dict[str, list[str]] = {}
    some = start.train.take(torch.arange(NUM_CHAINS).clamp_max(len(start.train) - 1).unique())
    for update in range(1, MOMENTS[-1] + 1):
        run.weighted(run.draw(), None)
        if update in MOMENTS:
            for name, loss in losses(run.judge, start.meta).items():
                gradient, _ = run.meta_gradient(start.meta, loss)
                columns.setdefault(name, []).append(of(run.hypergradient(some, gradient), some))
    head = " | ".join(f"after {moment} updates" for moment in MOMENTS)
    rows = [f"| {name} | " + " | ".join(found) + " |" for name, found in columns.items()]
    return [f"| outer loss, aggregate | {head} |", "|---" * (len(MOMENTS) + 1) + "|", *rows]


def by_size(start: Start, updates: int = 20) -> list[str]:
    run = Fit(Judge(start.layer), start.train, 60, start.seed)
    for _ in range(updates):
        run.weighted(run.draw(), None)
    order = torch.randperm(len(start.meta), generator=torch.Generator().manual_seed(start.seed))
    found: dict[int, str] = {}
    for size in (64, 128, 256, 512, len(start.meta)):
        some = start.meta.take(order[:size])
        gradient, _ = run.meta_gradient(some, calibrated(run.judge, some))
        found[size] = of(run.hypergradient(start.train, gradient), start.train)
    sizes = " | ".join(map(str, found))
    return [
        f"| meta chains | {sizes} |",
        "|---" * (len(found) + 1) + "|",
        "| AUC | " + " | ".join(found.values()) + " |",
    ]


def by_round(start: Start, with_calibration: bool) -> list[str]:
    """AUC of d, and of what it adds up to, where each round trains from the cold start on the weights so far."""
    trust, weights = torch.zeros_like(start.train.labels), None
    cells: list[str] = []
    for place in range(ROUNDS):
        run = Fit(Judge(start.layer), start.train, 50, 1000 * start.seed + place)
        for _ in range(48):
            run.weighted(run.draw(), weights)
        loss = calibrated(run.judge, start.meta) if with_calibration else meta_losses("mse", "min")
        gradient, _ = run.meta_gradient(start.meta, loss)
        d = by_unit(run.hypergradient(start.train, gradient), start.train, "both", start.num_domains)
        trust = (place * trust + d) / (place + 1)
        weights = 2 * (1.5 * trust).sigmoid()
        cells.append(f"{of(d, start.train)} -> {of(trust, start.train)}")
    return ["| " + ("calibrated" if with_calibration else "mse") + ", min | " + " | ".join(cells) + " |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--troubles", default="crowd,flips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for trouble in options.troubles.split(","):
        path = options.folder / "starts" / f"{trouble}-{options.seed}.pt"
        start = load_start(path, trouble, options.seed, "test")
        wrong = start.train.wrong
        share = wrong.sum().item() / start.train.mask.sum().item()
        print(f"\n## {trouble}: {share:.2f} of steps and {wrong.any(1).float().mean().item():.2f} of chains wrong\n")
        print("AUC of steps / of chains, the whole meta set\n", *by_moment(start), sep="\n")
        print(
            "\nCalibrated cross-entropy of the weakest step, after 20 updates\n", *by_size(start), sep="\n", flush=True
        )
        rounds = " | ".join(f"round {place}" for place in range(ROUNDS))
        print("\nBy round: of d -> of its mean over the rounds\n", f"| outer loss | {rounds} |", sep="\n")
        print("|---" * (ROUNDS + 1) + "|", *by_round(start, False), *by_round(start, True), sep="\n", flush=True)


if __name__ == "__main__":
    main()
