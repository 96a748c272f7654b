"""Losses of both levels: on labelled steps (inner), and on a chain's outcome (outer).

Shapes: B chains, S steps. Every loss takes a PRM's log-odds and is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dreamprm.choices import one_of
from dreamprm.prm.aggregation import aggregate_log_odds, as_log_odds, as_probability, at_least_float32
from dreamprm.prm.collate import Batch

__all__ = [
    "INNER_LOSSES",
    "OUTER_LOSSES",
    "example_losses",
    "fit_confidence",
    "outer_loss",
    "outer_losses",
    "step_losses",
]


Everywhere = Callable[[Tensor], Tensor]
"""The values of a whole batch, from those of the part that is here; without gradient."""


def _here(values: Tensor) -> Tensor:
    return values


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _mse(logits: Tensor, target: Tensor) -> Tensor:
    return (logits.sigmoid() - target).square()


INNER_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": _cross_entropy, "mse": _mse}
"""Name -> (log-odds z, label y), both (B, S), to the loss of every step, which is not negative.

cross_entropy: -y log σ(z) - (1 - y) log σ(-z), y the probability that the step is right (DreamPRM-1.5).
mse: (σ(z) - y)² (DreamPRM).
"""


def step_losses(logits: Float[Tensor, "B S"], batch: Batch, kind: str = "cross_entropy") -> Float[Tensor, "B S"]:
    """The loss of every step by one of `INNER_LOSSES`, 0 where it has no label."""
    loss = INNER_LOSSES[one_of(kind, INNER_LOSSES, "inner loss")]
    logits = at_least_float32(logits)
    losses = loss(logits, batch.labels.to(logits.dtype))
    return torch.where(batch.label_mask, losses, torch.zeros_like(losses))


def example_losses(logits: Float[Tensor, "B S"], batch: Batch, kind: str = "cross_entropy") -> Float[Tensor, " B"]:
    """The loss of every chain: the mean over its labelled steps. Never averaged over the batch: weights come first.

    Raises ValueError for a chain without labelled steps, which would train on nothing without a sound.
    """
    count = batch.label_mask.sum(1)
    if not count.all():
        keys = [batch.keys[row] for row in (count == 0).nonzero().flatten().tolist()]
        raise ValueError(f"chains without step labels cannot be trained on: {keys[:5]}; drop them from the inner data")
    return step_losses(logits, batch, kind).sum(1) / count


def _wanted(logits: Tensor, right: Tensor) -> Tensor:
    """The probability that each step is what its chain's outcome says."""
    return torch.where(right[:, None] > 0.5, logits.sigmoid(), (-logits).sigmoid())


def _outer_mse(logits: Tensor, right: Tensor, mask: Tensor, aggregate: str) -> Tensor:
    return (as_probability(aggregate_log_odds(logits, aggregate, mask), aggregate) - right).square()


def _outer_cross_entropy(logits: Tensor, right: Tensor, mask: Tensor, aggregate: str) -> Tensor:
    # By way of the log-odds, since binary_cross_entropy refuses to run under autocast.
    value = as_log_odds(aggregate_log_odds(logits, aggregate, mask), aggregate)
    return F.binary_cross_entropy_with_logits(value, right, reduction="none")


def _outer_steps(logits: Tensor, right: Tensor, mask: Tensor, aggregate: str) -> Tensor:
    return (_wanted(logits, right) - 1).square().masked_fill(~mask, 0.0).sum(1) / mask.sum(1)


def _dreamprm15_code(logits: Tensor, right: Tensor, mask: Tensor, aggregate: str) -> Tensor:
    return (_wanted(logits, right).masked_fill(~mask, 0.0).sum(1) / mask.sum(1) - 1).square()


def _contrast(logits: Tensor, right: Tensor, mask: Tensor, aggregate: str, everywhere: Everywhere = _here) -> Tensor:
    value = as_log_odds(aggregate_log_odds(logits, aggregate, mask), aggregate)
    # Each side has half of the batch's weight, however many chains it has.
    batch = everywhere(right)
    sides = torch.where(right > 0.5, -batch.sum().clamp_min(1), (1 - batch).sum().clamp_min(1))
    return value * len(batch) / (2 * sides)


_RIDGE = 1e-5  # keeps the fit finite where right and wrong chains do not overlap
_NEWTON = 30
_LEAST_SCALE = 0.1  # of the fitted scale, in units of the log-odds' spread


def _calibrated(logits: Tensor, right: Tensor, mask: Tensor, aggregate: str, everywhere: Everywhere = _here) -> Tensor:
    value = as_log_odds(aggregate_log_odds(logits, aggregate, mask), aggregate)
    batch = everywhere(value.detach().double()), everywhere(right.double())
    scale, offset = fit_confidence(*batch).to(value.dtype)
    return F.binary_cross_entropy_with_logits(scale * value + offset, right, reduction="none")


def fit_confidence(value: Float[Tensor, " B"], right: Float[Tensor, " B"]) -> Float[Tensor, " 2"]:
    """How sure log-odds a may be of outcomes r.

    argmin over α ≥ min(1, .1 / std(a)) and β of mean CE(α a + β, r) + ridge ((α - 1)² + β²) / 2; strictly convex.

    The bound: a PRM that judges worse than chance would get a negative scale, whose gradient asks for worse still.
    """
    inputs = torch.stack([value, torch.ones_like(value)], 1)  # (B, 2)
    start = torch.tensor([1.0, 0.0], dtype=value.dtype, device=value.device)
    fitted = _newton(inputs, right, start)
    # Never above the 1 that the fit starts from: scores that hardly differ would ask for any scale.
    least = (_LEAST_SCALE / value.std(correction=0)).clamp(max=1)
    if fitted[0] < least:
        fitted = torch.cat([least[None], _newton(inputs[:, 1:], right, start[1:], least * value)])
    return fitted


def _newton(inputs: Tensor, right: Tensor, start: Tensor, fixed: Tensor | float = 0.0) -> Tensor:
    """The fit of `fit_confidence` over the columns of inputs, by Newton steps halved until the loss falls."""

    def loss(fitted: Tensor) -> Tensor:
        ridge = _RIDGE * (fitted - start).square().sum() / 2
        return F.binary_cross_entropy_with_logits(inputs @ fitted + fixed, right) + ridge

    fitted, now = start, loss(start)
    for _ in range(_NEWTON):
        p = (inputs @ fitted + fixed).sigmoid()
        gradient = inputs.T @ (p - right) / len(right) + _RIDGE * (fitted - start)
        curvature = inputs.T @ (inputs * (p * (1 - p))[:, None]) / len(right)
        ridge = _RIDGE * torch.eye(len(start), dtype=start.dtype, device=start.device)
        step = torch.linalg.solve(curvature + ridge, gradient)
        length = 1.0
        while not (then := loss(fitted - length * step)) <= now:
            length /= 2
            if length < 1e-6:
                return fitted
        fitted, now = fitted - length * step, then
    return fitted


_OVER_BATCH = ("contrast", "calibrated")  # whose loss of one chain depends on the others of the batch
OUTER_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": _outer_mse,
    "cross_entropy": _outer_cross_entropy,
    "steps": _outer_steps,
    "dreamprm15_code": _dreamprm15_code,
    "contrast": _contrast,
    "calibrated": _calibrated,
}
"""Name -> (log-odds (B, S), outcome r (B,), mask of steps (B, S), aggregation) to the loss of every chain.

mse: (A - r)², A the aggregate on [0, 1] (both papers).  cross_entropy: -log of A or of 1 - A.
steps: mean over the steps of (P(label of the chain) - 1)², as DreamPRM-1.5's code with each step on its own.
dreamprm15_code: (mean over the steps of P(+) or P(-), as r is 1 or 0, minus 1)²; for two classes it equals mse with
the aggregate 'mean', and ignores `aggregate`.
contrast: the mean log-odds of the aggregate over wrong chains less that over right ones, halved. Ours, for learning
weights only. Every chain of the batch counts, the surely judged too, where the other gradients vanish; and an over-
confident PRM does not make it ask for less confidence, which mislabelled examples give it first of all.
calibrated: min over α > 0 and β of the cross-entropy of α a + β, a the aggregate's log-odds, fitted to the batch; its
gradient is that with α, β held (envelope theorem), and never asks for more or less confidence of all alike. Ours. With
the weakest step as aggregate it sees labels that are wrong consistently, where the contrast is blind; give it a large
batch, two numbers are fitted to it.
"""


def outer_losses(
    logits: Float[Tensor, "B S"],
    batch: Batch,
    aggregate: str = "mean",
    kind: str = "mse",
    everywhere: Everywhere = _here,
) -> Float[Tensor, " B"]:
    """The loss of every chain against r, whether its final answer is right; see `OUTER_LOSSES` for the equations.

    everywhere: where the chains here are a part of the batch, as in one of several processes, what gathers the whole.
    Raises ValueError for a chain whose outcome is not known.
    """
    loss = OUTER_LOSSES[one_of(kind, OUTER_LOSSES, "outer loss")]
    unknown = batch.correct.isnan()
    if unknown.any():
        keys = [batch.keys[row] for row in unknown.nonzero().flatten().tolist()]
        raise ValueError(f"the outer loss needs to know whether a chain's answer is right; unknown for {keys[:5]}")
    logits = at_least_float32(logits)
    over_batch = {"everywhere": everywhere} if kind in _OVER_BATCH else {}
    return loss(logits, batch.correct.to(logits.dtype), batch.step_mask, aggregate, **over_batch)


def outer_loss(
    logits: Float[Tensor, "B S"],
    batch: Batch,
    aggregate: str = "mean",
    kind: str = "mse",
    everywhere: Everywhere = _here,
) -> Tensor:
    """The mean of `outer_losses`, over the chains that are here."""
    return outer_losses(logits, batch, aggregate, kind, everywhere).mean()
