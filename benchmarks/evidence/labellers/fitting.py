"""A linear judge on frozen features, its training on weighted chains, and the exact hypergradient of step weights.

    θ' = θ - AdamW(∇ Σ_i w_i l_i(θ) / N),    d_is = <D ∇F(θ'), ∇l_is(θ)>,    ∇z_is = (x_is, 1)

with l_i the mean over the chain's steps, D the derivative of the step that AdamW took (`bilevel.step_vjp`), F the outer
loss on the whole meta set. The judge is linear, so that d costs one more product of features and a vector.

Shapes: N chains, S steps, H hidden width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bilevel
from benchmarks.evidence.labellers.chains import Chains, Split
from dreamprm.evaluate.steps import auc
from dreamprm.loss import OUTER_LOSSES
from dreamprm.prm.aggregation import aggregate_log_odds, as_log_odds

__all__ = ["Fit", "Judge", "figures", "outer", "step_losses"]

LR, DECAY = 3e-3, 0.3


class Judge(nn.Module):
    """z = <w, x> + b, from zero on, as `dreamprm.prm.heads.LinearHead`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, chains: Chains) -> Tensor:
        """The log-odds of every step, (N, S)."""
        return chains.padded(self.score(chains.flat)[:, 0])


def step_losses(z: Tensor, chains: Chains) -> Tensor:
    """Cross-entropy of every step's label over the number of steps, (N, S): they sum to the chain's loss."""
    losses = F.binary_cross_entropy_with_logits(z, chains.labels, reduction="none")
    return losses * chains.mask / chains.mask.sum(1, keepdim=True)


def outer(z: Tensor, chains: Chains, kind: str, how: str) -> Tensor:
    """One of dreamprm's outer losses, mean over the chains."""
    return OUTER_LOSSES[kind](z, chains.correct, chains.mask, how).mean()


def figures(judge: Judge, split: Split, how: str) -> dict[str, Any]:
    """Best-of-8 over all test questions; the AUC of the mixed ones' chains, pooled and within questions; whether
    the choice was right, by question."""
    with torch.no_grad():
        value = as_log_odds(aggregate_log_odds(judge(split.test), how, split.test.mask), how).double()
    picked, wins, pairs = [], 0.0, 0
    for outcomes, rows in split.blocks:
        if -1 in rows:
            picked.append(float(outcomes[0]))  # all are alike
        else:
            scores = value[rows]
            picked.append(float(outcomes[int(scores.argmax())]))
            right = torch.tensor(outcomes)
            difference = scores[right][:, None] - scores[~right]
            wins += float((difference > 0).double().sum() + 0.5 * (difference == 0).double().sum())
            pairs += difference.numel()
    right = split.test.correct.numpy() > 0.5
    return {
        "best_of_8": float(np.mean(picked)),
        "auc": float(auc(right, value.numpy())),
        "auc_within": wins / max(pairs, 1),
        "picked": dict(zip(split.names, picked, strict=True)),
    }


class Fit:
    """A judge in training on all chains at once, by AdamW with a warm-up and a cosine decay."""

    def __init__(
        self, judge: Judge, chains: Chains, updates: int, *, lr: float = LR, decay: float = DECAY, floor: float = 0.0
    ) -> None:
        self.judge, self.chains, self.updates, self.lr, self.floor = judge, chains, updates, lr, floor
        self.parameters = list(judge.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, weight_decay=decay)
        self.update = 0
        self.slopes = torch.zeros_like(chains.labels)  # dl_is/dz_is where the last step was taken from

    def step(self, loss: Tensor) -> None:
        done = self.update / self.updates
        rate = min(1.0, (self.update + 1) / (0.1 * self.updates)) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * max(rate, self.floor)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.update += 1

    def weighted(self, weights: Tensor | None = None) -> None:
        """One update. weights: (N, 1) or (N, S)."""
        z, chains = self.judge(self.chains), self.chains
        losses = step_losses(z, chains)
        self.slopes = (z.detach().sigmoid() - chains.labels) * chains.mask / chains.mask.sum(1, keepdim=True)
        self.step((losses if weights is None else losses * weights).sum() / len(chains))

    def hypergradient(self, outer_loss: Tensor) -> Tensor:
        """d of every training step's loss, (N, S), for the update that was taken last."""
        gradient = torch.autograd.grad(outer_loss, self.parameters)
        weight, bias = bilevel.step_vjp(self.optimizer, list(gradient))
        return self.slopes * self.chains.padded(self.chains.flat @ weight[0] + bias)
