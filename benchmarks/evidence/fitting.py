"""Training the judge on weighted steps, its meta loss, and the exact hypergradient of every step's weight.

    θ' = θ - AdamW(Σ_is w_is ∇l_is(θ)),   d_is = -dF(θ')/dw_is = <D ∇F(θ'), ∇l_is(θ)>

with D the derivative of the step that AdamW took (`bilevel.step_vjp`); the products are one forward-mode pass of the
log-odds, since ∇l_is = (σ(z_is) - y_is) ∇z_is for the cross-entropy.

Shapes: B chains, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn import functional as F

import bilevel
from benchmarks.evidence.chains import Chains
from benchmarks.evidence.judge import Judge
from dreamprm.evaluate.steps import auc

__all__ = ["LR", "Fit", "LossOf", "MetaLoss", "aggregate", "figures", "meta_losses", "plain", "scores", "train_on"]

BATCH = 64
LR = 1e-3
FAR = 1e4
MetaLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
LossOf = Callable[["Judge", Chains], MetaLoss]
"""The meta loss at a judge: a calibrated one is fitted to the meta set as that judge scores it."""


def aggregate(z: Tensor, mask: Tensor, how: str) -> Tensor:
    """Log-odds of the chain, (B,): the weakest step's, the last one's, or of the mean probability."""
    if how == "min":
        return z.masked_fill(~mask, FAR).min(1).values
    if how == "last":
        return z.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
    return torch.logit((z.sigmoid() * mask).sum(1) / mask.sum(1), 1e-6)


def meta_losses(kind: str, how: str) -> MetaLoss:
    """(log-odds (B, S), mask, correct (B,)) -> (B,): squared error or cross-entropy of the aggregate."""

    def loss(z: Tensor, mask: Tensor, correct: Tensor) -> Tensor:
        value = aggregate(z, mask, how)
        if kind == "mse":
            return (value.sigmoid() - correct).square()
        return F.binary_cross_entropy_with_logits(value, correct, reduction="none")

    return loss


def plain(kind: str, how: str) -> LossOf:
    """The same meta loss at every judge."""
    loss = meta_losses(kind, how)
    return lambda judge, meta: loss


@torch.no_grad()
def scores(judge: Judge, chains: Chains) -> Tensor:
    """The log-odds of every step, (N, S)."""
    return judge(chains.states)


def figures(judge: Judge, chains: Chains) -> dict[str, float]:
    """Best-of-N accuracy and AUC of chains by the weakest step's, the last one's and the mean score, AUC of steps."""
    z = scores(judge, chains)
    found: dict[str, float] = {}
    for how in ("min", "last", "mean"):
        value = aggregate(z, chains.mask, how)
        found[f"best_of_n_{how}"] = float(np.mean(_picked(value, chains)))
        found[f"chain_auc_{how}"] = float(auc(chains.correct.numpy() > 0.5, value.double().numpy()))
    found["step_auc"] = float(auc(chains.truth[chains.mask].numpy() > 0.5, z[chains.mask].double().numpy()))
    return found


def _picked(value: Tensor, chains: Chains) -> list[float]:
    """Per question, whether the chain of the highest value is right; the first of equals."""
    order = torch.arange(len(chains))
    picked: list[float] = []
    for question in range(int(chains.question.max()) + 1):
        rows = order[chains.question == question]
        picked.append(float(chains.correct[rows[value[rows].argmax()]]))
    return picked


def train_on(
    judge: Judge,
    chains: Chains,
    weights: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    updates: int,
    seed: int,
    lr: float = LR,
) -> Judge:
    """The judge after weighted training on these chains' labels, or on other targets; both (N, S)."""
    run = Fit(judge, chains, updates, seed, lr=lr)
    for _ in range(updates):
        run.weighted(run.draw(), weights, targets)
    return run.judge


class Fit:
    """A judge in training on chains, by AdamW with a warm-up and a cosine decay.

    loss_of: (log-odds, chains) -> (B, S), by default the cross-entropy of their labels.
    """

    def __init__(
        self, judge: Judge, chains: Chains, updates: int, seed: int, lr: float = LR, batch: int = BATCH
    ) -> None:
        self.judge, self.chains, self.updates, self.lr, self.batch = judge, chains, updates, lr, batch
        self.parameters = dict(judge.named_parameters())
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=lr, weight_decay=0.01)
        self.random, self.update = torch.Generator().manual_seed(seed), 0
        self._order: list[int] = []
        self.before: dict[str, Tensor] = {}

    def draw(self) -> Tensor:
        """The rows of the next batch, epoch by epoch."""
        while len(self._order) < self.batch:
            self._order += torch.randperm(len(self.chains), generator=self.random).tolist()
        rows, self._order = self._order[: self.batch], self._order[self.batch :]
        return torch.tensor(rows)

    def step(self, loss: Tensor) -> None:
        """One update; `before` keeps the parameters that it started from."""
        done = self.update / self.updates
        rate = min(1.0, (self.update + 1) / (0.1 * self.updates)) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rate
        self.optimizer.zero_grad()
        loss.backward()
        self.before = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimizer.step()
        self.update += 1

    def weighted(self, rows: Tensor, weights: Tensor | None, targets: Tensor | None = None) -> None:
        """One update on Σ_is w_is l_is / (n_i B); weights and targets are (N, S) for all chains."""
        mask = self.chains.mask[rows]
        labels = (self.chains.labels if targets is None else targets)[rows]
        losses = F.binary_cross_entropy_with_logits(self.judge(self.chains.states[rows]), labels, reduction="none")
        used = mask.float() if weights is None else mask * weights[rows]
        self.step(((losses * used).sum(1) / mask.sum(1)).mean())

    def meta_gradient(self, meta: Chains, loss: MetaLoss) -> tuple[dict[str, Tensor], float]:
        """∇F and F at the live parameters, over all of the meta set."""
        value = loss(self.judge(meta.states), meta.mask, meta.correct).mean()
        gradient = torch.autograd.grad(value, list(self.parameters.values()))
        return dict(zip(self.parameters, gradient, strict=True)), value.item()

    def hypergradient(self, chains: Chains, gradient: dict[str, Tensor], *, of_adam: bool = True) -> Tensor:
        """d of every step of `chains`, (N, S), for the update that was taken last; 0 where there is no step.

        of_adam: False takes gradient descent's derivative, the identity, in place of AdamW's.
        """
        values = list(gradient.values())
        moved = bilevel.step_vjp(self.optimizer, values) if of_adam else values
        tangents = dict(zip(gradient, moved, strict=True))
        call = lambda params: functional_call(self.judge, params, (chains.states,))  # noqa: E731
        with torch.no_grad():
            z, dz, *_ = jvp(call, (self.before,), (tangents,))
        return (z.sigmoid() - chains.labels) * dz * chains.mask / chains.mask.sum(1, keepdim=True)
