"""A causal check of the trust (the attribution literature's LDS): does it say which chains help?

    python -m benchmarks.evidence.lds [--trouble crowd] [--seed 0] [--subsets 60] [--folder runs/evidence]

Trains a judge from the base on each of many random tenths of the pool (by chain, the same order of batches), measures
the calibrated cross-entropy of the weakest step on the judged questions, and prints Spearman's correlation of minus
that loss with the sum of the trust over the subset, with a 95 % interval by resampling the subsets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from benchmarks.evidence.fitting import train_on
from benchmarks.evidence.judge import Judge
from benchmarks.evidence.learned import calibrated, label_posterior, learn_trust
from benchmarks.evidence.methods import label_losses, of_chains
from benchmarks.evidence.start import Start, load_start

UPDATES = 120
SHARE = 0.1


def outcomes(start: Start, subsets: torch.Tensor) -> list[float]:
    """Minus the loss on the judged questions after training on each subset; subsets: (M, n) rows."""
    found: list[float] = []
    for rows in subsets:
        judge = train_on(Judge(start.upper), start.train.take(rows), updates=UPDATES, seed=start.seed)
        judged = start.judged
        with torch.no_grad():
            losses = calibrated(judge, judged)(judge(judged.states), judged.mask, judged.correct)
        found.append(-losses.mean().item())
    return found


def rank_correlation(predicted: list[float], happened: list[float], num_resamples: int = 2000) -> tuple[float, ...]:
    """Spearman's, and its percentile interval over resampled pairs."""
    one, other, random = np.asarray(predicted), np.asarray(happened), np.random.default_rng(0)
    drawn = []
    for _ in range(num_resamples):
        rows = random.integers(len(one), size=len(one))
        drawn.append(float(stats.spearmanr(one[rows], other[rows])[0]))
    return float(stats.spearmanr(one, other)[0]), *map(float, np.quantile(drawn, [0.025, 0.975]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trouble", default="crowd")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subsets", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = load_start(options.folder, options.trouble, options.seed, "test")
    chains, draw = start.train, torch.Generator().manual_seed(options.seed)
    size = int(SHARE * len(chains))
    subsets = torch.stack([torch.randperm(len(chains), generator=draw)[:size] for _ in range(options.subsets)])
    happened = outcomes(start, subsets)
    posterior, trust = label_posterior(start, seed=start.seed), learn_trust(start, "both", seed=start.seed)
    predictions = {
        "d": trust,
        "posterior": posterior,
        "combined": posterior + trust,
        "small loss": -label_losses(Judge(start.cold), chains),
        "truth (share of right labels)": (~chains.wrong).float(),
    }
    print(f"| prediction, {options.trouble}, seed {options.seed} | LDS | 95 % interval |\n|---|---|---|")
    for name, values in predictions.items():
        worth = of_chains(values, chains)
        value, low, high = rank_correlation([worth[rows].sum().item() for rows in subsets], happened)
        print(f"| {name} | {value:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
