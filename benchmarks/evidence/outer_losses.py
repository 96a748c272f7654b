"""Which outer loss tells mislabelled examples from the others, at one update ahead? The world's truth against -dF/dw_i.

    python -m benchmarks.evidence.outer_losses model.path=runs/NAME/seed0/prm [after=2,10,20] [meta=256] [SETTINGS]

Trains the PRM from `model.path` with equal weights, as `+experiment=no_selection` does, and stops after the given
updates. There, for every outer loss and aggregate, it prints two figures of d_i = -dF/dw_i = <D ∇F(θ'), ∇l_i(θ)> / B on
192 training chains: its AUC against the known labels (.5 says nothing, less asks for more of the mislabelled ones), and
Welch's t between the two groups; with the live optimizer's step derivative D, and with gradient descent's (D = 1).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

import bilevel
from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.evaluate.steps import auc
from dreamprm.loss import example_losses, outer_loss
from dreamprm.phases.state import Run
from dreamprm.prm.collate import Batch
from dreamprm.sources import known_good, load_data
from dreamprm.trainer.loop import enter_phase
from dreamprm.trainer.run import build_run

CANDIDATES = [
    (loss, aggregate)
    for loss in ("mse", "cross_entropy", "contrast")
    for aggregate in ("mean", "min", "last", "log_odds_mean")
]
NUM_EXAMPLES = 192
MICRO = 64


def meta_gradient(run: Run, batches: list[Batch], loss: str, aggregate: str) -> list[Tensor]:
    """∇F at the live parameters, over all batches."""
    live = list(run.trainable().values())
    total = [torch.zeros_like(value) for value in live]
    for batch in batches:
        mean = outer_loss(run.prm(batch), batch, aggregate, loss) / len(batches)
        for one, part in zip(total, torch.autograd.grad(mean, live, allow_unused=True), strict=True):
            if part is not None:
                one += part
    return total


def asked(run: Run, old: dict[str, Tensor], examples: Batch, direction: list[Tensor]) -> np.ndarray[Any, Any]:
    """<direction, ∇l_i(θ)> of every example, by one forward-mode pass at the old parameters."""
    tangents = dict(zip(old, direction, strict=True))
    losses = lambda params: example_losses(functional_call(run.prm, params, (examples,)), examples)  # noqa: E731
    return jvp(losses, (old,), (tangents,))[1].detach().double().numpy()


def measure(run: Run, meta: int, update: int) -> None:
    """One inner update, and the table of what each outer loss then asks for."""
    rows = np.random.default_rng(update).choice(len(run.train), min(NUM_EXAMPLES, len(run.train)), replace=False)
    examples = run.batch(run.train, rows.tolist())
    good = np.asarray([known_good(run.train[row]) for row in rows.tolist()])
    batches = [run.batch(run.meta, run.samplers["outer"].draw(MICRO)) for _ in range(max(1, meta // MICRO))]
    old = {name: value.detach().clone() for name, value in run.trainable().items()}
    phase = enter_phase(run)
    run.update += phase.update().num_updates
    print(f"after {update} updates\n{'outer loss':<14}{'aggregate':<15}{'AUC':>6}{'t':>7}   D = 1: {'AUC':>6}{'t':>7}")
    for loss, aggregate in CANDIDATES:
        gradient = meta_gradient(run, batches, loss, aggregate)
        stepped = bilevel.step_vjp(phase.optimizers["inner"], gradient)
        parts = []
        for direction in (stepped, gradient):
            values = asked(run, old, examples, list(direction))
            test = stats.ttest_ind(values[good > 0.5], values[good < 0.5], equal_var=False)
            parts.append(f"{float(auc(good, values)):6.3f}{test.statistic:7.1f}")
        print(f"{loss:<14}{aggregate:<15}{parts[0]}          {parts[1]}", flush=True)


def main(arguments: list[str]) -> None:
    own = dict(item.split("=", 1) for item in arguments if item.startswith(("after=", "meta=")))
    given = [item for item in arguments if item.partition("=")[0] not in own]
    settings = resolve_train(compose_config("train", ["+experiment=no_selection", "cold.updates=0", *given]))
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    torch.manual_seed(settings.seed)
    run = build_run(settings, load_data(settings), Path())
    run.prm.train()
    stops = sorted(int(number) for number in own.get("after", "2,10,20").split(","))
    # Fused attention has no forward mode.
    with sdpa_kernel(SDPBackend.MATH):
        while run.update <= stops[-1]:
            if run.update in stops:
                measure(run, int(own.get("meta", "256")), run.update)
            else:
                run.update += enter_phase(run).update().num_updates


if __name__ == "__main__":
    if not any(item.startswith("model.path=") for item in sys.argv[1:]):
        sys.exit("model.path=FOLDER is needed: a cold-started PRM, the prm/ of a run with inner.updates=0")
    main(sys.argv[1:])
