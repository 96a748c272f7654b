"""Losses of both levels: on labelled steps (inner), and on a chain's outcome (outer).

Shapes: B chains, S steps. Every loss takes a PRM's log-odds and is computed in float32.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dreamprm.choices import Choice
from dreamprm.prm.aggregation import PROBABILITY_MARGIN, aggregate_log_odds, as_probability, at_least_float32
from dreamprm.prm.collate import Batch

__all__ = ["InnerLoss", "OuterLoss", "example_losses", "outer_loss", "outer_losses", "step_losses"]


class InnerLoss(Choice):
    """CROSS_ENTROPY of the label's probability (DreamPRM-1.5); MSE of score and label (DreamPRM)."""

    CROSS_ENTROPY = "cross_entropy"
    MSE = "mse"


class OuterLoss(Choice):
    """MSE: (A - r)², A the aggregate on [0, 1] (both papers).  CROSS_ENTROPY: -log of A or of 1 - A.
    STEPS: mean over the steps of (P(label of the chain) - 1)², as DreamPRM-1.5's code with each step on its own.
    DREAMPRM15_CODE: (mean over the steps of P(+) or P(-), as r is 1 or 0, minus 1)²; for two classes it equals MSE with
    the aggregate 'mean', and ignores `aggregate`.
    CONTRAST: the mean log-odds of the aggregate over wrong chains less that over right ones, halved. Ours, for learning
    weights only. Every chain of the batch counts, the surely judged too, where the other gradients vanish; and an over-
    confident PRM does not make it ask for less confidence, which mislabelled examples give it first of all."""

    MSE = "mse"
    CROSS_ENTROPY = "cross_entropy"
    STEPS = "steps"
    DREAMPRM15_CODE = "dreamprm15_code"
    CONTRAST = "contrast"


def _targets(batch: Batch, hard_threshold: float | None) -> Tensor:
    # The batch's own tensor stays as it is: the weigher reads the Monte-Carlo labels from it.
    return batch.labels if hard_threshold is None else (batch.labels > hard_threshold).to(batch.labels.dtype)


def step_losses(
    logits: Float[Tensor, "B S"], batch: Batch, kind: str = "cross_entropy", hard_threshold: float | None = None
) -> Float[Tensor, "B S"]:
    """The loss of every step, 0 where it has no label.

    Cross-entropy: -y log σ(z) - (1 - y) log σ(-z), y the probability that the step is right (soft), or
    [y > hard_threshold] (VisualPRM's hard label has the threshold 0). MSE: (σ(z) - y)².
    """
    kind = InnerLoss(kind)
    logits = at_least_float32(logits)
    target = _targets(batch, hard_threshold).to(logits.dtype)
    if kind is InnerLoss.CROSS_ENTROPY:
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    else:
        losses = (logits.sigmoid() - target).square()
    return torch.where(batch.label_mask, losses, torch.zeros_like(losses))


def example_losses(
    logits: Float[Tensor, "B S"], batch: Batch, kind: str = "cross_entropy", hard_threshold: float | None = None
) -> Float[Tensor, " B"]:
    """The loss of every chain: the mean over its labelled steps. Never averaged over the batch: weights come first.

    Raises ValueError for a chain without labelled steps, which would train on nothing without a sound.
    """
    count = batch.label_mask.sum(1)
    if not count.all():
        keys = [batch.keys[row] for row in (count == 0).nonzero().flatten().tolist()]
        raise ValueError(f"chains without step labels cannot be trained on: {keys[:5]}; drop them from the inner data")
    return step_losses(logits, batch, kind, hard_threshold).sum(1) / count


def outer_losses(
    logits: Float[Tensor, "B S"], batch: Batch, aggregate: str = "mean", kind: str = "mse"
) -> Float[Tensor, " B"]:
    """The loss of every chain against r, whether its final answer is right; see `OuterLoss` for the equations.

    Raises ValueError for a chain whose outcome is not known.
    """
    kind = OuterLoss(kind)
    unknown = batch.correct.isnan()
    if unknown.any():
        keys = [batch.keys[row] for row in unknown.nonzero().flatten().tolist()]
        raise ValueError(f"the outer loss needs to know whether a chain's answer is right; unknown for {keys[:5]}")
    logits = at_least_float32(logits)
    right = batch.correct.to(logits.dtype)
    if kind in (OuterLoss.STEPS, OuterLoss.DREAMPRM15_CODE):
        wanted = torch.where(right[:, None] > 0.5, logits.sigmoid(), (-logits).sigmoid())
        mask, steps = batch.step_mask, batch.step_mask.sum(1)
        if kind is OuterLoss.STEPS:
            return (wanted - 1).square().masked_fill(~mask, 0.0).sum(1) / steps
        return (wanted.masked_fill(~mask, 0.0).sum(1) / steps - 1).square()
    value = aggregate_log_odds(logits, aggregate, batch.step_mask)
    if kind is OuterLoss.MSE:
        return (as_probability(value, aggregate) - right).square()
    if not aggregate.startswith("log_odds"):
        # By way of the log-odds, since binary_cross_entropy refuses to run under autocast.
        value = torch.logit(as_probability(value, aggregate), PROBABILITY_MARGIN)
    if kind is OuterLoss.CONTRAST:
        # Each side has half of the batch's weight, however many chains it has.
        sides = torch.where(right > 0.5, -right.sum().clamp_min(1), (1 - right).sum().clamp_min(1))
        return value * len(right) / (2 * sides)
    return F.binary_cross_entropy_with_logits(value, right, reduction="none")


def outer_loss(logits: Float[Tensor, "B S"], batch: Batch, aggregate: str = "mean", kind: str = "mse") -> Tensor:
    """The mean of `outer_losses`."""
    return outer_losses(logits, batch, aggregate, kind).mean()
