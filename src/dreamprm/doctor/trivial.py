"""Features that say nothing about reasoning, and how well each predicts the labels all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from dreamprm.doctor.survey import Survey

__all__ = ["Predictor", "predictors"]

_FEWEST = 20
"""Chains on either side of a yes-or-no feature, below which a share of 0 or 1 may be chance (0.9 ** 20 = .12)."""


@dataclass(frozen=True)
class Predictor:
    """auc: of the feature as a score for "right", in its better direction.  rule: words for it where a side is pure."""

    feature: str
    auc: float
    pure: bool
    rule: str


def _auc(right: np.ndarray, value: np.ndarray) -> float:
    if right.min() == right.max() or value.min() == value.max():
        return 0.5
    area = float(roc_auc_score(right, value))
    return max(area, 1 - area)


def _binary(feature: str, right: np.ndarray, value: np.ndarray) -> Predictor | None:
    base = float(right.mean())
    rules: list[str] = []
    for side, name in ((1.0, feature), (0.0, f"not: {feature}")):
        chosen = right[value == side]
        if len(chosen) >= _FEWEST and 0.05 <= base <= 0.95 and chosen.mean() in (0.0, 1.0):
            verdict = "right" if chosen.mean() == 1.0 else "wrong"
            rules.append(f"{name} -> {verdict} in {len(chosen)} of {len(chosen)} chains (all chains: {base:.2f} right)")
    return Predictor(feature, _auc(right, value), bool(rules), "; ".join(rules))


def _numeric(feature: str, right: np.ndarray, value: np.ndarray) -> Predictor:
    return Predictor(feature, _auc(right, value), False, "")


def predictors(found: Survey) -> list[Predictor]:
    """Every trivial feature with its AUC: of chains' verdicts, and of step labels ("place of the step")."""
    result: list[Predictor] = []
    right = np.array(found.right, np.int8)
    if len(right) and right.min() != right.max():
        for name, values in found.features.items():
            value = np.array(values, np.float32)
            made = _binary(name, right, value) if _two_valued(value) else _numeric(name, right, value)
            if made is not None and value.min() != value.max():
                result.append(made)
        if len(found.policies) > 1:
            result.append(Predictor("policy (prefer the stronger model)", _policy_auc(found.policies), False, ""))
    steps = np.array(found.step_right, np.int8)
    if len(steps) and steps.min() != steps.max():
        result.append(_numeric("place of the step (for step labels)", steps, np.array(found.step_place, np.float32)))
    return result


def _two_valued(value: np.ndarray) -> bool:
    return bool(np.isin(value, (0.0, 1.0)).all())


def _policy_auc(policies: dict[str, list[int]]) -> float:
    """AUC of each chain scored by its policy's share of right chains."""
    shares: Sequence[float] = [right / max(1, right + wrong) for right, wrong in policies.values()]
    labels = [label for right, wrong in policies.values() for label in (1, 0) for _ in range(right if label else wrong)]
    scores = [s for (right, wrong), s in zip(policies.values(), shares) for _ in range(right + wrong)]
    return _auc(np.array(labels, np.int8), np.array(scores, np.float32))
