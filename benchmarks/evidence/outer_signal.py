"""Does the outer problem say which examples are bad? The hypergradients against the world's known truth, by update.

    python -m benchmarks.evidence.outer_signal +experiment=instance_table model.path=runs/NAME/seed0/prm cold.updates=0

Trains as `python -m src.train` does with the same settings, and prints for every ten bilevel updates the AUC against
the mislabelled chains of the batch's weights w_i and of -dF/dw_i (positive: more of this example lowers the outer
loss), and the share of examples that it asks for less of. .5 is chance. Nothing that trains sees the truth.
"""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.evaluate.steps import auc
from dreamprm.metrics import PhaseName
from dreamprm.phases.state import Run
from dreamprm.sources import known_good, load_data
from dreamprm.trainer.loop import enter_phase
from dreamprm.trainer.run import build_run

_EVERY = 10


class Signal:
    """Listens to the weigher: the weights of each batch, and what the outer loss asks of them."""

    def __init__(self, run: Run) -> None:
        self.run, self.rows = run, list[dict[str, float]]()
        self._good: np.ndarray[Any, Any] = np.zeros(0)
        run.weigher.register_forward_hook(self._listen)

    def _listen(self, weigher: torch.nn.Module, given: Any, weights: torch.Tensor) -> None:
        self._good = np.asarray([known_good(self.run.train[row]) for row in given[0].index.tolist()])
        self.rows.append({"weights": _auc(self._good, weights.detach())})
        if weights.requires_grad:
            weights.register_hook(self._asked)

    def _asked(self, gradient: torch.Tensor) -> None:
        self.rows[-1] |= {"signal": _auc(self._good, -gradient), "less": (gradient > 0).float().mean().item()}

    def mean(self, name: str, last: int) -> float:
        values = [row[name] for row in self.rows[-last:] if not math.isnan(row.get(name, math.nan))]
        return statistics.fmean(values) if values else math.nan


def _auc(good: np.ndarray[Any, Any], values: torch.Tensor) -> float:
    return math.nan if good.all() or not good.any() else float(auc(good, values.double().numpy()))


def main(arguments: list[str]) -> None:
    settings = resolve_train(compose_config("train", arguments))
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    torch.manual_seed(settings.seed)
    run = build_run(settings, load_data(settings), Path())
    run.prm.train()
    signal = Signal(run)
    print("update  AUC of weights  AUC of -dF/dw  asked for less  mean weight  spread")
    while run.update < run.num_updates:
        phase = enter_phase(run)
        numbers, num_made = phase.update()
        run.update += num_made
        done = run.update - run.num_cold
        if phase.name is PhaseName.BILEVEL and (done % _EVERY == 0 or run.update == run.num_updates):
            means = [signal.mean(name, (done - 1) % _EVERY + 1) for name in ("weights", "signal", "less")]
            print(
                f"{done:>6}  {means[0]:>14.3f}  {means[1]:>13.3f}  {means[2]:>14.2f}"
                f"  {numbers['weight_mean']:>11.2f}  {numbers['weight_std']:>6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
