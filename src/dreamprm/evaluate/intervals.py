"""95 % intervals: Wilson's for shares of independent questions, the cluster bootstrap for everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap", "mean_interval", "mean_intervals", "paired_difference", "wilson"]

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; n: the number of independent questions (or clusters) behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval of a share (scipy's binomtest)."""
    from scipy.stats import binomtest

    if n < 1:
        raise ValueError("an interval needs at least one question")
    bounds = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    clusters: Sequence[Any],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap that draws whole clusters: statistic(rows) on the rows of the clusters drawn.

    Rows of one question are not independent; drawn one by one they would give intervals that are too narrow.
    Resamples whose statistic is NaN (an AUC with one class only) are left out.
    """
    names, member = np.unique(np.asarray([str(cluster) for cluster in clusters]), return_inverse=True)
    if not len(names):
        raise ValueError("an interval needs at least one question")
    rows_of = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
    value = float(statistic(np.arange(len(member))))
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(num_resamples):
        drawn = generator.integers(len(names), size=len(names))
        values.append(statistic(np.concatenate([rows_of[cluster] for cluster in drawn])))
    kept = np.asarray(values)[~np.isnan(values)]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(kept, [tail, 100 - tail]) if len(kept) else (float("nan"),) * 2
    return Interval(value, float(low), float(high), len(names))


def mean_interval(
    values: Sequence[float] | NDArray[np.float64],
    clusters: Sequence[Any] | None = None,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The mean of one value per question, as `mean_intervals`."""
    column = rearrange(np.asarray(values, dtype=float), "questions -> questions 1")
    return mean_intervals(column, clusters, num_resamples=num_resamples, seed=seed)[0]


def mean_intervals(
    values: Float[ndarray, "Q M"],
    clusters: Sequence[Any] | None = None,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
    wilson_allowed: bool = True,
) -> list[Interval]:
    """The mean of every column, one value per question and column; all columns are drawn together.

    Wilson's interval where every value is 0 or 1 and no question shares a cluster with another (it holds near 0 and 1,
    where the bootstrap's interval has no width); else the percentile bootstrap over whole clusters. wilson_allowed:
    False for differences.
    """
    if not len(values):
        raise ValueError("an interval needs at least one question")
    given = range(len(values)) if clusters is None else clusters
    names, member = np.unique(np.asarray([str(cluster) for cluster in given]), return_inverse=True)
    size = np.bincount(member).astype(float)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, member, values)
    generator = np.random.default_rng(seed)
    drawn = np.stack(
        [
            np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
            for _ in range(num_resamples)
        ]
    ).astype(float)
    means = (drawn @ sums) / rearrange(drawn @ size, "resamples -> resamples 1")
    tail = 100 * (1 - LEVEL) / 2
    lows, highs = np.percentile(means, [tail, 100 - tail], axis=0)
    alone = len(names) == len(values) and wilson_allowed
    return [
        wilson(int(column.sum()), len(column))
        if alone and np.isin(column, (0.0, 1.0)).all()
        else Interval(float(column.mean()), float(low), float(high), len(names))
        for column, low, high in zip(values.T, lows, highs)
    ]


def paired_difference(
    first: Sequence[float] | NDArray[np.float64],
    second: Sequence[float] | NDArray[np.float64],
    clusters: Sequence[Any] | None = None,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The mean of first - second over the same questions, drawn together."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values are not pairs")
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    column = rearrange(difference, "questions -> questions 1")
    return mean_intervals(column, clusters, num_resamples=num_resamples, seed=seed, wilson_allowed=False)[0]
