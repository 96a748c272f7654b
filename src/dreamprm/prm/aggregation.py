"""Chain scores out of step scores: eight aggregations, on lists, on tensors with a mask, and on log-odds.

Shapes: B chains, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dreamprm.choices import one_of

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "aggregate",
    "aggregate_log_odds",
    "as_log_odds",
    "as_probability",
    "at_least_float32",
]


PROBABILITY_MARGIN = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logarithm: a sigmoid in float32 rounds to 1 from log-odds
of 17 on, in bf16 from 6 on, and its log-odds would be infinite. 1e-6 bounds them at 13.8."""


@overload
def aggregate(scores: Sequence[float], how: str = "mean") -> float: ...
@overload
def aggregate(scores: Tensor, how: str = "mean", mask: Tensor | None = None) -> Tensor: ...
def aggregate(
    scores: Float[Tensor, "B S"] | Sequence[float], how: str = "mean", mask: Bool[Tensor, "B S"] | None = None
) -> Tensor | float:
    """The score of each chain from the probabilities of its steps; differentiable, computed in float32.

    A list of numbers gives a number; a tensor (B, S) with its mask gives (B,).
    Raises ValueError for an unknown name, a chain without steps, or scores outside [0, 1].
    """
    if not isinstance(scores, Tensor):
        return float(aggregate(_checked(scores), how)[0])
    rule = _named(how).rule
    mask = _mask(scores, mask)
    p = at_least_float32(scores)
    return rule(p, torch.logit(p, PROBABILITY_MARGIN), p.clamp_min(PROBABILITY_MARGIN).log(), mask)


def aggregate_log_odds(
    log_odds: Float[Tensor, "B S"], how: str = "mean", mask: Bool[Tensor, "B S"] | None = None
) -> Float[Tensor, " B"]:
    """As `aggregate`, from a PRM's log-odds: nothing is clamped, so every gradient passes."""
    rule = _named(how).rule
    mask = _mask(log_odds, mask)
    z = at_least_float32(log_odds)
    return rule(z.sigmoid(), z, F.logsigmoid(z), mask)


def as_probability(value: Tensor, how: str) -> Tensor:
    """An aggregate on the scale [0, 1]: the sigmoid of log-odds, the exponential of a mean logarithm, else itself."""
    return _named(how).probability(value)


def as_log_odds(value: Tensor, how: str) -> Tensor:
    """An aggregate as log-odds: itself where it is on their scale, else those of its probability."""
    return value if _named(how).is_log_odds else torch.logit(as_probability(value, how), PROBABILITY_MARGIN)


def at_least_float32(values: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32."""
    return values if values.dtype == torch.float64 else values.float()


def _checked(scores: Sequence[float]) -> Tensor:
    row = torch.tensor([list(map(float, scores))], dtype=torch.float64)
    if not ((row >= 0) & (row <= 1)).all():
        raise ValueError(f"step scores must lie in [0, 1], are {list(scores)}")
    return row


def _mask(scores: Tensor, mask: Tensor | None) -> Tensor:
    if scores.ndim != 2:
        raise ValueError(f"step scores must be of shape (chains, steps), are {tuple(scores.shape)}")
    if mask is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    if mask.shape != scores.shape:
        raise ValueError(f"the mask has shape {tuple(mask.shape)}, the scores {tuple(scores.shape)}")
    # Without a step there is no score, and 0/0 would be a silent NaN.
    if not mask.any(1).all():
        empty = (~mask.any(1)).nonzero().flatten().tolist()
        raise ValueError(f"chains without steps cannot be scored; rows {empty} have none")
    return mask


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)


def _last(values: Tensor, mask: Tensor) -> Tensor:
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
    return values.gather(1, last[:, None])[:, 0]


def _same(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Aggregation:
    """One way from step scores to a chain's score: all that is known of it stands in its entry of `AGGREGATIONS`.

    rule: (p, z, log p, mask), all (B, S), to (B,): probabilities, their log-odds, their logarithms, which are steps.
    probability: from the chain's score to [0, 1].  is_log_odds: whether the score is log-odds itself.
    """

    rule: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    probability: Callable[[Tensor], Tensor] = _same
    is_log_odds: bool = False


AGGREGATIONS: dict[str, Aggregation] = {
    "mean": Aggregation(lambda p, z, log_p, mask: _mean(p, mask)),
    "min": Aggregation(lambda p, z, log_p, mask: p.masked_fill(~mask, torch.inf).amin(1)),
    "max": Aggregation(lambda p, z, log_p, mask: p.masked_fill(~mask, -torch.inf).amax(1)),
    "last": Aggregation(lambda p, z, log_p, mask: _last(p, mask)),
    "product": Aggregation(lambda p, z, log_p, mask: p.masked_fill(~mask, 1.0).prod(1)),
    "log_mean": Aggregation(lambda p, z, log_p, mask: _mean(log_p, mask), torch.exp),
    "log_odds_sum": Aggregation(
        lambda p, z, log_p, mask: z.masked_fill(~mask, 0.0).sum(1), torch.sigmoid, is_log_odds=True
    ),
    "log_odds_mean": Aggregation(lambda p, z, log_p, mask: _mean(z, mask), torch.sigmoid, is_log_odds=True),
}
"""With p_s the probability that step s is right and z_s = log(p_s / (1 - p_s)):

mean Σp/S, min p, max p, last p_S, product Πp, log_mean Σ log p / S, log_odds_sum Σz (DreamPRM's paper, arXiv
2505.20241), log_odds_mean Σz/S (its code). DreamPRM-1.5 (arXiv 2509.05542) takes mean.
"""


def _named(how: str) -> Aggregation:
    return AGGREGATIONS[one_of(how, AGGREGATIONS, "aggregation")]
