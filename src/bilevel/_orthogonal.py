"""Muon's two formulas, for the live optimizer's derivative and the functional one."""

from collections.abc import Sequence
from math import sqrt

from torch import Tensor

from ._tree import norm

SHAPE_RULES = (None, "original", "match_rms_adamw", "spectral_unclamped")


def orthogonal(matrix: Tensor, coefficients: Sequence[float], num_iterations: int, eps: float | Tensor) -> Tensor:
    """O(x): a matrix of x's shape with singular values near 1, by the quintic Newton-Schulz iteration.

    X = x / max(‖x‖, ε), wide rather than high; then X <- a X + (b A + c A²) X, A = X Xᵀ.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / norm({"": x}).clamp(min=eps)
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def shape_factor(rule: str | None, shape: Sequence[int]) -> float:
    """The factor of the rate of an (n, m) matrix.

    sqrt(max(1, n/m)); .2 sqrt(max(n, m)), AdamW's usual size; or sqrt(n/m), which torch has from 2.14 or 2.15 on.

    Raises:
        ValueError: another rule.
    """
    rows, columns = shape
    if rule in (None, "original"):
        return sqrt(max(1.0, rows / columns))
    if rule == "match_rms_adamw":
        return 0.2 * sqrt(max(rows, columns))
    if rule == "spectral_unclamped":
        return sqrt(rows / columns)
    raise ValueError(f"Muon(adjust_lr_fn={rule!r}): allowed is one of {', '.join(map(repr, SHAPE_RULES))}")
