"""The chain of the highest value among N of K candidates: how often it is right, over all subsets of N, exactly.

Shapes: K candidates; a curve is (K,), its place N - 1 for subsets of N.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dreamprm.selection import TIE

__all__ = ["expected_any", "expected_choice", "subset_shares", "tied_groups"]


def expected_choice(values: Float[ndarray, " K"], right: Float[ndarray, " K"]) -> Float[ndarray, " K"]:
    """E[right of the highest value] over the subsets of every size; equal values share the choice.

    With the candidates in groups of equal value, b_g of them in group g or below it and a_g below it,
        P(the highest of N lies in g) = (C(b_g, N) - C(a_g, N)) / C(K, N),
    and each member of the group is chosen as often as any other. A constant value gives the mean of `right` exactly.
    Raises ValueError where a value is NaN.
    """
    if np.isnan(values).any():
        raise ValueError(f"candidates {np.flatnonzero(np.isnan(values)).tolist()} have no score (NaN)")
    groups = tied_groups(values)
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups))
    means = np.add.reduceat(right[order], np.concatenate([[0], ends[:-1]])) / np.diff(ends, prepend=0)
    shares = subset_shares(len(values))[ends]
    return means @ np.diff(shares, axis=0, prepend=0.0)


def expected_any(right: Float[ndarray, " K"]) -> Float[ndarray, " K"]:
    """E[the most right of N], the oracle. Where `right` is 0 or 1, P(one is right) = 1 - C(wrong, N) / C(K, N)."""
    if np.isin(right, (0.0, 1.0)).all():
        return 1.0 - subset_shares(len(right))[int((right < 0.5).sum())]
    return expected_choice(right, right)


def tied_groups(values: Float[ndarray, " K"]) -> ndarray:
    """The rank of each value's group, from 0 for the lowest: values within 1e-12 of a neighbour are equal, since the
    same step scores in another order may differ in their last digit."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    with np.errstate(invalid="ignore"):  # infinities are equal to one another: their difference is NaN
        steps = np.diff(ordered) > TIE * np.maximum(1.0, np.abs(ordered[:-1]))
    groups = np.empty(len(values), dtype=np.intp)
    groups[order] = np.concatenate([[0], np.cumsum(steps)])
    return groups


@lru_cache(maxsize=64)
def subset_shares(total: int) -> Float[ndarray, "K+1 K"]:
    """C(b, N) / C(K, N) at [b, N - 1] = Π_{i<N} (b - i) / (K - i): the share of subsets of N that lie within b."""
    b, i = np.arange(total + 1)[:, None], np.arange(total)[None]
    shares = np.cumprod(np.clip(b - i, 0, None) / (total - i), axis=1)
    shares.flags.writeable = False
    return shares
