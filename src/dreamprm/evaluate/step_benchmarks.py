"""Published benchmarks of step scores by their own definitions, beside a baseline that knows a step's place only.

* VisualProcessBench (arXiv 2503.10291): macro-F1 of right and wrong steps, neutral ones left out; per source, and both
  published overall figures: over all steps together, and the sources' mean weighted by their steps.
* ProcessBench (arXiv 2412.06559): per source F1 = 2ab / (a + b), a the share of wrong solutions whose first wrong step
  is found exactly and b the share of right ones in which no step is called wrong; overall the mean over sources.
* PRMBench (arXiv 2501.03124): PRMScore = (F1 of right steps + F1 of wrong steps) / 2 of all steps together; per class,
  where `multi_solutions`, which has no wrong step, is its F1 of right steps; per group the mean of its classes.

Each at a fixed threshold (a step that scores below it is called wrong) and at the best one, `swept` on the same chains:
an upper bound that no PRM reaches on new ones. ProcessBench as its paper does it too: `tuned` is at the threshold that
is best on its GSM8K part. A figure that is not defined is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from dreamprm.data.record import Record
from dreamprm.evaluate.figures import Scores, cluster_of, first_wrong, true_steps
from dreamprm.evaluate.first_error import first_error
from dreamprm.evaluate.intervals import bootstrap
from dreamprm.evaluate.steps import auc, macro_f1

__all__ = ["PRMBENCH_GROUPS", "prm_bench", "process_bench", "visual_process_bench"]

PRMBENCH_GROUPS = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
"""The nine classes as the file spells them."""


_TUNED_ON = "gsm8k"  # arXiv 2412.06559, section 4.1


class _Steps:
    """All judged steps in one row. y: right.  p: score.  part: source or class of the chain.  cluster: its question."""

    def __init__(self, records: Sequence[Record], scores: Scores, what: str) -> None:
        found = [
            (right, score, record.domain, cluster_of(record))
            for record, row in zip(records, scores)
            for right, score in zip(true_steps(record), row)
            if right is not None
        ]
        if not found:
            raise ValueError(f"no step of these chains is marked right or wrong, so {what} cannot be computed")
        self.y = np.asarray([right for right, _, _, _ in found], dtype=bool)
        self.p = np.asarray([score for _, score, _, _ in found], dtype=float)
        self.part = np.asarray([part for _, _, part, _ in found])
        self.cluster = [cluster for _, _, _, cluster in found]

    def parts(self) -> dict[str, Bool[ndarray, " S"]]:
        return {str(name): self.part == name for name in np.unique(self.part)}


def visual_process_bench(
    records: Sequence[Record], scores: Scores, threshold: float, options: dict[str, Any]
) -> dict[str, Any]:
    steps = _Steps(records, scores, "macro-F1")
    found = _macro(steps, threshold, options)
    best = _best(steps.p, lambda value: _defined_macro(steps.y, steps.p, value))
    return found | {"auc": _auc(steps, options), "swept": _macro(steps, best, options)}


def _macro(steps: _Steps, threshold: float, options: dict[str, Any]) -> dict[str, Any]:
    parts = steps.parts()
    by_source = {name: _defined_macro(steps.y[rows], steps.p[rows], threshold) for name, rows in parts.items()}
    known = [(value, int(parts[name].sum())) for name, value in by_source.items() if value is not None]
    weighted = sum(value * count for value, count in known) / sum(count for _, count in known) if known else None
    overall = None
    if _defined_macro(steps.y, steps.p, threshold) is not None:
        overall = bootstrap(
            lambda rows: macro_f1(steps.y[rows], steps.p[rows], threshold), steps.cluster, **options
        ).as_dict()
    return {
        "threshold": threshold,
        "num_steps": len(steps.y),
        "macro_f1": overall,
        "macro_f1_weighted_by_source": weighted,
        "by_source": by_source,
    }


def _defined_macro(y: Bool[ndarray, " S"], p: Float[ndarray, " S"], threshold: float) -> float | None:
    return macro_f1(y, p, threshold) if y.any() and not y.all() else None


def process_bench(
    records: Sequence[Record], scores: Scores, threshold: float, options: dict[str, Any]
) -> dict[str, Any]:
    told = [(row, first) for row, record in enumerate(records) if (first := _first_wrong(record)) is not None]
    if not told:
        raise ValueError("no chain names its first wrong step, so F1 cannot be computed")
    rows = [row for row, _ in told]
    truth = np.asarray([first for _, first in told])
    source = np.asarray([records[row].domain for row in rows])
    cluster = [cluster_of(records[row]) for row in rows]

    def judged(value: float) -> dict[str, Any]:
        hits = np.asarray([first_error(scores[row], value) == first for row, first in told])
        by_source = {str(name): _first_error_figures(hits[source == name], truth[source == name])
                     for name in np.unique(source)}  # fmt: skip
        known = [part["f1"] for part in by_source.values() if part["f1"] is not None]
        pooled = _first_error_figures(hits, truth)
        if pooled["f1"] is not None:
            pooled["f1"] = bootstrap(
                lambda drawn: _nan(_first_error_figures(hits[drawn], truth[drawn])["f1"]), cluster, **options
            ).as_dict()
        mean = float(np.mean(known)) if known else None
        return {"threshold": value, "f1": mean, "pooled": pooled, "by_source": by_source}

    def best(chosen: Bool[ndarray, " B"]) -> float:
        kept = [pair for pair, there in zip(told, chosen) if there]
        pooled = np.asarray([score for row, _ in kept for score in scores[row]], dtype=float)
        return _best(
            pooled,
            lambda value: _first_error_figures(
                np.asarray([first_error(scores[row], value) == first for row, first in kept]), truth[chosen]
            )["f1"],
        )

    found = judged(threshold) | {"num_chains": len(rows), "swept": judged(best(np.ones(len(rows), dtype=bool)))}
    if _TUNED_ON in source:
        found["tuned"] = judged(best(source == _TUNED_ON))
    return found


def _first_wrong(record: Record) -> int | None:
    """The first wrong step, -1 for none; a solution without steps has no wrong one where its file says so."""
    if not record.steps and "first_error" in record.extra:
        return -1 if record.extra["first_error"] is None else None
    return first_wrong(record)


def _first_error_figures(hits: Bool[ndarray, " B"], truth: ndarray) -> dict[str, Any]:
    wrong, right = hits[truth >= 0], hits[truth < 0]
    a = float(wrong.mean()) if len(wrong) else None
    b = float(right.mean()) if len(right) else None
    f1 = None if a is None or b is None else 2 * a * b / (a + b) if a + b else 0.0
    return {"f1": f1, "accuracy_wrong": a, "accuracy_right": b, "num_wrong": len(wrong), "num_right": len(right)}


def prm_bench(records: Sequence[Record], scores: Scores, threshold: float, options: dict[str, Any]) -> dict[str, Any]:
    # The right solutions that errors were inserted into (`originals=true`) are no part of the score.
    kept = [row for row, record in enumerate(records) if not record.extra.get("original")]
    steps = _Steps([records[row] for row in kept], [scores[row] for row in kept], "PRMScore")
    best = _best(steps.p, lambda value: _prm_score(steps.y, steps.p, value))
    found = _prm_figures(steps, threshold, options)
    return found | {"auc": _auc(steps, options), "swept": _prm_figures(steps, best, options)}


def _prm_figures(steps: _Steps, threshold: float, options: dict[str, Any]) -> dict[str, Any]:
    by_class = {name: _class_score(name, steps.y[rows], steps.p[rows], threshold)
                for name, rows in steps.parts().items()}  # fmt: skip
    groups: dict[str, float | None] = {}
    for group, names in PRMBENCH_GROUPS.items():
        values = [by_class.get(name) for name in names]
        groups[group] = None if None in values else float(np.mean([value for value in values if value is not None]))
    overall = None
    if _prm_score(steps.y, steps.p, threshold) is not None:
        overall = bootstrap(
            lambda rows: _nan(_prm_score(steps.y[rows], steps.p[rows], threshold)), steps.cluster, **options
        ).as_dict()
    return {
        "threshold": threshold,
        "num_steps": len(steps.y),
        "prm_score": overall,
        "f1_right": _f1(steps.y, steps.p, threshold, True),
        "f1_wrong": _f1(steps.y, steps.p, threshold, False),
        "by_class": by_class,
        "by_group": groups,
    }


def _class_score(name: str, y: Bool[ndarray, " S"], p: Float[ndarray, " S"], threshold: float) -> float | None:
    return _f1(y, p, threshold, True) if name == "multi_solutions" else _prm_score(y, p, threshold)


def _prm_score(y: Bool[ndarray, " S"], p: Float[ndarray, " S"], threshold: float) -> float | None:
    right, wrong = _f1(y, p, threshold, True), _f1(y, p, threshold, False)
    return None if right is None or wrong is None else (right + wrong) / 2


def _f1(y: Bool[ndarray, " S"], p: Float[ndarray, " S"], threshold: float, kind: bool) -> float | None:
    """2 hits / (called + there) of one kind of step; None where there is no such step."""
    there, called = y == kind, (p >= threshold) == kind
    return float(2 * (there & called).sum() / (there.sum() + called.sum())) if there.any() else None


def _auc(steps: _Steps, options: dict[str, Any]) -> dict[str, Any] | None:
    if not steps.y.any() or steps.y.all():
        return None
    return bootstrap(lambda rows: auc(steps.y[rows], steps.p[rows]), steps.cluster, **options).as_dict()


def _best(scores: Float[ndarray, " S"], figure: Callable[[float], float | None]) -> float:
    """The threshold with the highest figure, the lowest of several: between all neighbouring scores where these are
    few, else at 200 of their quantiles."""
    values = np.unique(scores)
    if len(values) > 200:
        values = np.unique(np.quantile(values, np.linspace(0, 1, 200)))
    figures = [_nan(figure(float(value))) for value in values]
    return float(values[int(np.nanargmax(figures))]) if not np.isnan(figures).all() else 0.5


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
