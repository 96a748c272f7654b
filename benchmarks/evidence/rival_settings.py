"""The outer loss of the rivals that look at gradients, chosen on validation questions and seeds from 100 on.

    python -m benchmarks.evidence.rival_settings [--seeds 1] [--troubles crowd,flips] [--rivals …]

The papers of these rivals have meta sets of the training data's own labels; ours has outcomes, so that an aggregate of
the steps stands between, and which one decides more than the rival does: where the judge's weakest step is surer of
itself than outcomes are, an uncalibrated loss asks every step to be believed less, and so for chains that are labelled
wrong. Prints best-of-8 and the trust's AUC by steps for each outer loss, and the best of them over all troubles.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.evidence import methods
from benchmarks.evidence.cells import judged_cell
from benchmarks.evidence.fitting import LossOf, plain
from benchmarks.evidence.learned import calibrated
from benchmarks.evidence.online import LossNet
from benchmarks.evidence.start import load_start
from dreamprm.weigher import DomainTable

LOSSES: dict[str, LossOf] = {
    "mse, min": plain("mse", "min"),
    "cross_entropy, min": plain("cross_entropy", "min"),
    "calibrated, min": calibrated,
}
RIVALS: dict[str, Callable[[LossOf], methods.Method]] = {
    "one_look": lambda loss: lambda start: methods.one_look(start, loss),
    "learn_to_reweight": lambda loss: lambda start: methods.learn_to_reweight(start, loss),
    "meta_weight_net": lambda loss: methods.learned_online(lambda start: LossNet(), 1e-2, loss),
    "online_domain_table": lambda loss: methods.learned_online(
        lambda start: DomainTable(start.num_domains), 5e-2, loss
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--troubles", default="crowd,flips")
    parser.add_argument("--rivals", default=",".join(list(RIVALS)[:3]))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/evidence"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    troubles = options.troubles.split(",")
    found: dict[tuple[str, str], dict[str, list[dict[str, float]]]] = {}
    for trouble in troubles:
        for seed in range(100, 100 + options.seeds):
            start = load_start(options.folder, trouble, seed, "validation")
            for rival in options.rivals.split(","):
                for name, loss in LOSSES.items():
                    cell = judged_cell(start, RIVALS[rival](loss))
                    found.setdefault((rival, name), {}).setdefault(trouble, []).append(cell)
                    print(f"{trouble} {seed} {rival}, {name}: {cell['best_of_n']:.3f}", flush=True)
    print(f"\n| rival | outer loss | {' | '.join(troubles)} | mean |", "|---" * (len(troubles) + 3) + "|", sep="\n")
    for (rival, name), cells in found.items():
        best = {t: statistics.fmean(cell["best_of_n"] for cell in cells[t]) for t in troubles}
        shown = []
        for trouble in troubles:
            trust = [cell["trust_step_auc"] for cell in cells[trouble] if "trust_step_auc" in cell]
            shown.append(f"{best[trouble]:.3f}" + (f" ({statistics.fmean(trust):.2f})" if trust else ""))
        print(f"| {rival} | {name} | {' | '.join(shown)} | {statistics.fmean(best.values()):.3f} |")


if __name__ == "__main__":
    main()
