"""A causal check of the trust (the attribution literature's LDS): does it say which chains help?

    python -m benchmarks.evidence.lds [--trouble crowd] [--seeds 3] [--subsets 60] [--folder runs/evidence]

Trains a judge from the base on each of many random tenths of the pool (by chain, the same order of batches), measures
the calibrated cross-entropy of the weakest step on the judged questions, and prints Spearman's correlation of minus
that loss with the sum of the trust over the subset: by seed, and the mean over seeds with a 95 % interval that draws
every seed's subsets anew. What the subsets gave is kept in the folder.
"""

from __future__ import annotations

import argparse
import json
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


def kept_outcomes(start: Start, subsets: torch.Tensor, folder: Path) -> list[float]:
    """The same, from the folder where they are there."""
    path = folder / "lds" / f"{start.trouble}-{start.seed}-{len(subsets)}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(outcomes(start, subsets)))
    return json.loads(path.read_text())


def rank_correlation(pairs: list[tuple[list[float], list[float]]], num_resamples: int = 2000) -> tuple[float, ...]:
    """The mean of Spearman's over the seeds' (predicted, happened), and its percentile interval over drawn subsets."""
    random = np.random.default_rng(0)
    arrays = [(np.asarray(one), np.asarray(other)) for one, other in pairs]
    drawn = []
    for _ in range(num_resamples):
        found = []
        for one, other in arrays:
            rows = random.integers(len(one), size=len(one))
            found.append(float(stats.spearmanr(one[rows], other[rows])[0]))
        drawn.append(np.mean(found))
    mean = float(np.mean([stats.spearmanr(one, other)[0] for one, other in arrays]))
    return mean, *map(float, np.quantile(drawn, [0.025, 0.975]))


def predictions(start: Start) -> dict[str, torch.Tensor]:
    """What each kind of trust says of every chain, (N,)."""
    chains = start.train
    posterior, trust = label_posterior(start, seed=start.seed), learn_trust(start, "both", seed=start.seed)
    found = {
        "d": trust,
        "posterior": posterior,
        "combined": posterior + trust,
        "small loss": -label_losses(Judge(start.cold), chains),
        "truth (share of right labels)": (~chains.wrong).float(),
    }
    return {name: of_chains(values, chains) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trouble", default="crowd")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--subsets", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs: dict[str, list[tuple[list[float], list[float]]]] = {}
    for seed in range(options.seeds):
        start = load_start(options.folder, options.trouble, seed, "test")
        chains, draw = start.train, torch.Generator().manual_seed(seed)
        size = int(SHARE * len(chains))
        subsets = torch.stack([torch.randperm(len(chains), generator=draw)[:size] for _ in range(options.subsets)])
        happened = kept_outcomes(start, subsets, options.folder)
        for name, worth in predictions(start).items():
            pairs.setdefault(name, []).append(([worth[rows].sum().item() for rows in subsets], happened))
    print(f"| prediction, {options.trouble} | LDS by seed | mean | 95 % interval |\n|---|---|---|---|")
    for name, found in pairs.items():
        each = ", ".join(f"{stats.spearmanr(*pair)[0]:.2f}" for pair in found)
        value, low, high = rank_correlation(found)
        print(f"| {name} | {each} | {value:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
