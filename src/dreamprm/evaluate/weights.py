"""Learned data weights against what is known of the data: bad examples, and domains of known quality."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamprm.evaluate.intervals import bootstrap
from dreamprm.evaluate.steps import auc

__all__ = ["domain_rank_correlation", "separation"]


def separation(
    weights: Sequence[float],
    good: Sequence[bool | None],
    *,
    questions: Sequence[str] | None = None,
    num_resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any] | None:
    """How well the weights tell good examples from bad: P(a good one weighs more than a bad one), ties counted half.

    good: None for an example of which it is not known. The mean weights of both kinds come with it.
    None where all examples are of one kind.
    """
    if len(weights) != len(good):
        raise ValueError(f"{len(weights)} weights and {len(good)} known qualities; give one of each per example")
    rows = [row for row, value in enumerate(good) if value is not None]
    w = np.asarray([weights[row] for row in rows], dtype=float)
    y = np.asarray([bool(good[row]) for row in rows], dtype=bool)
    if not y.any() or y.all():
        return None
    clusters = rows if questions is None else [questions[row] for row in rows]
    interval = bootstrap(lambda drawn: auc(y[drawn], w[drawn]), clusters, num_resamples=num_resamples, seed=seed)
    return {
        "auc": interval.as_dict(),
        "mean_good": float(w[y].mean()),
        "mean_bad": float(w[~y].mean()),
        "num_good": int(y.sum()),
        "num_bad": int((~y).sum()),
    }


def domain_rank_correlation(weights: Mapping[str, float], quality: Mapping[str, float]) -> dict[str, Any] | None:
    """Spearman's rank correlation of the domains' weights with their known quality (scipy), and its p-value.

    None for fewer than three domains in both, or where all weights or all qualities are equal.
    """
    from scipy.stats import spearmanr

    names = sorted(set(weights) & set(quality))
    if len(names) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of constant input, which is answered by None below
        found = spearmanr([weights[name] for name in names], [quality[name] for name in names])
    value, p = float(found.statistic), float(found.pvalue)  # type: ignore[attr-defined]
    return None if np.isnan(value) else {"value": value, "p": p, "domains": names}
